"""Speed and memory of large models on a GPU: ``python -m benchmarks.shapes``. Any CUDA machine, no network, minutes.

Makes models of random weights in the shapes of Qwen2.5-1.5B and 7B, and measures what the stages cost on them:
fine-tuning by unsloth and by TRL at some row lengths, decoding at some batch sizes, and judging: the search of the
truncation stage over traces of 1,000 to 26,000 tokens. Then decoding and judging again with little memory, where every
prompt must be answered all the same. Each piece runs in its own process, because unsloth changes transformers for the
whole process. Prints a table and writes ``reports/benchmarks/shapes.json``; the models stay in ``runs/shapes/``.

``--small`` rehearses all of it with tiny models, without a GPU too. Exit code: 1 when a piece failed, 2 without CUDA.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.gpu import _timed, machine
from palign.params import FineTuning, Params, root, validate
from palign.tasks.store import write_atomically

SHAPES = {
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
    },
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "vocab_size": 1000}
PIECES = ["train-unsloth", "train-trl", "decode", "judge"]
COLUMNS = ["piece", "shape", "size", "seconds", "tokens_per_second", "peak_gib", "reserved_gib", "note"]


@dataclass(frozen=True)
class Sizes:
    """What is measured: tokens of a training row (``rows``), decoding ``batches`` of ``prompt`` and ``new`` tokens,
    numbers of ``traces`` judged at once, of ``shortest`` to ``longest`` tokens. ``spare``: GiB beside the weights when
    memory is short.
    """

    rows: list[int]
    updates: int
    batches: list[int]
    prompt: int
    new: int
    traces: list[int]
    shortest: int
    longest: int
    spare: int


LARGE = Sizes([4096, 16384], 4, [64, 256], 512, 128, [16, 64], 1000, 26_000, 4)
SMALL = Sizes([64, 96], 2, [2, 4], 16, 4, [3], 50, 300, 4)


def folder() -> Path:
    return root() / "runs" / "shapes"


def parameters(shape: str, small: bool, trainer: str = "trl", four_bit: bool = False, rows: int = 1024) -> Params:
    values = {
        "study": "shapes",
        "student": str(model(shape, small)),
        "trainer": trainer,
        "dtype": "float32" if small else "bfloat16",
        "max_model_len": 32_768,
        "max_length": rows,
        "load_in_4bit": four_bit,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "lora_dropout": 0.0,
        "learning_rate": 1e-4,
        "save_steps": 10_000,
    }
    return validate(values, "shapes")


def model(shape: str, small: bool) -> Path:
    return folder() / f"{shape}{'-small' * small}"


def make(shape: str, small: bool) -> None:
    """Write a model of random weights, unless it is there. Its tokenizer is the pocket student's, whose words are the
    first of the vocabulary; the other token ids have no text.
    """
    path = model(shape, small)
    if not (path / "whole").exists():
        import torch
        from transformers import AutoModelForCausalLM, Qwen2Config

        pocket = root() / "palign" / "pocket" / "student"
        shutil.copytree(pocket, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        torch.manual_seed(0)
        config = Qwen2Config(**SHAPES[shape] | (TINY if small else {}), max_position_embeddings=32_768, rope_theta=1e6)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
        (path / "whole").touch()


@contextmanager
def measured(row: dict) -> Iterator[None]:
    """Adds seconds, GiB allocated at most and GiB reserved by the allocator to ``row``, or in ``failed`` why not."""
    import torch

    cuda = torch.cuda.is_available()
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    row.setdefault("seconds", round(time.perf_counter() - began, 2))
    if cuda:
        row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        row["reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)


@contextmanager
def limited(spare: int | None) -> Iterator[None]:
    """With ``spare`` GiB beside what is held now; ``None``: with all of the GPU's memory."""
    import torch

    if spare is None:
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_allocated() + spare * 2**30
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / torch.cuda.get_device_properties(0).total_memory))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def train(shape: str, small: bool, sizes: Sizes, trainer: str, four_bit: bool, put: Callable[[dict], None]) -> None:
    """Updates of two rows of one length: seconds are the median's, without the first, which compiles."""
    from palign import finetuning

    finetuning.prepare(parameters(shape, small, trainer))
    from palign.engines.tokenizers import load_tokenizer
    from palign.params import Machine

    for length in sizes.rows:
        params = parameters(shape, small, trainer, four_bit, length)
        recipe, student, tokens = params.part(FineTuning), params.model("student"), random.Random(length)
        vocabulary = (SHAPES[shape] | (TINY if small else {}))["vocab_size"]
        examples = [
            {
                "id": str(i),
                "answers": False,
                "prompt_tokens": length // 8,
                "input_ids": [tokens.randrange(vocabulary) for _ in range(length)],
            }
            for i in range(2 * sizes.updates)
        ]
        row, times = {"size": f"rows of {length:,} tokens{', 4 bits' * four_bit}"}, []
        with measured(row):
            where, tokenizer, here = folder() / f"out-{shape}-{trainer}", load_tokenizer(student), params.part(Machine)
            built = finetuning._trainer(recipe, student, here, where, examples, tokenizer, sizes.updates, 0, trainer)
            _timed(built, times).train()
            row["seconds"] = round(median(b - a for a, b in pairwise(times)), 3)
            row["tokens_per_second"] = round(2 * length / row["seconds"])
        put(row)
        built = None  # its memory goes before the next length


def words(engine, tokens: int, rng: random.Random) -> str:
    """Text of about so many tokens, in sentences of 35."""
    if not hasattr(engine, "some_words"):
        text = (root() / "palign" / "pocket" / "data" / "train.jsonl").read_text(encoding="utf-8")[:20_000]
        ids = sorted(set(engine.tokenizer(text, add_special_tokens=False).input_ids))
        found = [engine.tokenizer.decode([i]) for i in ids]
        engine.some_words = [word for word in found if word.strip().isalpha()]
    parts = [rng.choices(engine.some_words, k=min(35, tokens - at)) for at in range(0, tokens, 35)]
    return " ".join("".join(part).strip() + "." for part in parts)


def decode(engine, sizes: Sizes, put: Callable[[dict], None]) -> None:
    """Sampled responses of one length, in batches of several sizes."""
    from palign.engines.base import Sampling

    def run(batch: int, spare: int | None = None) -> None:
        rng = random.Random(batch)
        prompts = [words(engine, sizes.prompt, rng) for _ in range(batch)]
        row = {"size": f"{batch} rows, {sizes.prompt} + {sizes.new} tokens"}
        engine.batch_size = batch
        with limited(spare), measured(row):
            found = engine.generate(prompts, Sampling(sizes.new, temperature=0.7), list(range(batch)))
            row["unanswered"] = sum(one.finish not in ("stop", "length") for one in found)
            row["generated"] = sum(one.new_tokens for one in found)
        row["tokens_per_second"] = round(row.get("generated", 0) / row["seconds"])
        put(row | ({} if spare is None else {"note": f"with {spare} GiB beside the weights"}))

    for batch in sizes.batches:
        run(batch)
    if _cuda():
        run(sizes.batches[-1], sizes.spare)


def judge(engine, sizes: Sizes, put: Callable[[dict], None]) -> None:
    """Verdicts by the cached reader, until the search has ended for every trace."""
    from palign import truncation
    from palign.judging import Judge
    from palign.traces import RULES, Trace

    prompt = Params().judge_prompt

    def run(number: int, spare: int | None = None) -> None:
        rng = random.Random(number)
        steps = [i / max(1, number - 1) for i in range(number)]
        lengths = [round(sizes.shortest * (sizes.longest / sizes.shortest) ** step) for step in steps]
        traces = [
            Trace(id=str(i), question=f"Question {i}?", answer="1", trace=words(engine, length, rng))
            for i, length in enumerate(lengths)
        ]
        tokens = sum(engine.count(trace.trace) for trace in traces)
        row = {"size": f"{number} traces, {tokens:,} tokens"}
        with limited(spare), measured(row):
            asker = Judge(engine, prompt, RULES["released"])
            found = list(truncation.searched(traces, truncation.SEARCHES["released"], asker, engine.count, number))
            row["unanswered"] = sum(one.status != "ok" for one in found)
            row["read"] = sum(one.tokens_read for one in found)
            row["verdicts"] = sum(len(one.verdicts) for one in found)
        row["tokens_per_second"] = round(row.get("read", 0) / row["seconds"])
        put(row | ({} if spare is None else {"note": f"with {spare} GiB beside the weights"}))

    for number in sizes.traces:
        run(number)
    if _cuda():
        run(sizes.traces[0], sizes.spare)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def measure(piece: str, shape: str, small: bool, four_bit: bool = False) -> list[dict]:
    """The rows of one piece on one shape. They are also written as they come: a piece that is killed keeps them."""
    sizes, rows = SMALL if small else LARGE, []

    def put(row: dict) -> None:
        rows.append({"piece": piece, "shape": shape} | row)
        write_atomically(kept(piece, shape), json.dumps(rows))

    if piece == "make":
        make(shape, small)
    elif piece == "train-unsloth" and (find_spec("unsloth") is None or not _cuda()):
        put({"note": "left out: no unsloth, or no GPU"})
    elif piece.startswith("train"):
        train(shape, small, sizes, piece.split("-")[1], four_bit, put)
    else:
        from palign.engines.opening import close_engines, open_engine
        from palign.params import Machine

        params = parameters(shape, small)
        engine = open_engine(params.model("student"), params.part(Machine))
        (decode if piece == "decode" else judge)(engine, sizes, put)
        close_engines()
    return rows


def kept(piece: str, shape: str) -> Path:
    return folder() / f"{piece}-{shape}.json"


def table(rows: list[dict]) -> str:
    """The rows as a markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        note = row.get("note", "") or row.get("failed", "")
        if row.get("unanswered"):
            note = f"{row['unanswered']} UNANSWERED {note}"
        lines.append("| " + " | ".join(str((row | {"note": note}).get(name, "")) for name in COLUMNS) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=PIECES)
    parser.add_argument("--load-in-4bit", action="store_true", help="train on a base model of 4 bits")
    parser.add_argument("--small", action="store_true", help="rehearse with tiny models, on a CPU too")
    parser.add_argument("--piece", choices=["make", *PIECES], help=argparse.SUPPRESS)  # one piece, in this process
    args = parser.parse_args(argv)
    if not args.small and not _cuda():
        print("shapes: no CUDA device on this machine; nothing was run (--small rehearses)", file=sys.stderr)
        return 2
    if args.piece:
        rows = measure(args.piece, *args.shapes, args.small, args.load_in_4bit)
        return int(any("failed" in row or row.get("unanswered") for row in rows))
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | offline | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    flags = [f"--{name.replace('_', '-')}" for name in ("small", "load_in_4bit") if getattr(args, name)]
    rows, bad = [], False
    for shape in args.shapes:
        for piece in ["make", *args.pieces]:  # unsloth must be imported before what makes a model
            print(f"{piece} {shape} ...", flush=True)
            kept(piece, shape).unlink(missing_ok=True)
            command = [sys.executable, "-m", "benchmarks.shapes", "--piece", piece, "--shapes", shape, *flags]
            code = subprocess.run(command, env=environment).returncode
            found = json.loads(kept(piece, shape).read_text("utf-8")) if kept(piece, shape).exists() else []
            if code and not any("failed" in row or row.get("unanswered") for row in found):
                found.append({"piece": piece, "shape": shape, "failed": f"exit code {code}; see its output above"})
            rows, bad = rows + found, bad or bool(code)
    target = folder() / "small.json" if args.small else root() / "reports" / "benchmarks" / "shapes.json"
    write_atomically(target, json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(table(rows))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
