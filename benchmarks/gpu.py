"""Acceptance of a GPU: ``python -m benchmarks.gpu``. Any CUDA machine, no network, a few minutes.

Fine-tunes by TRL and by unsloth on the same rows, from the same adapter, and compares settings and losses: the pocket
student (``train``), and a wider model of random weights on rows of up to 3,000 tokens, whose activations unsloth keeps
in host memory (``long``). Evaluates both adapters on a small benchmark; judges prefixes with and without a cache of
what they share (``read``); decodes on the GPU, on the CPU and with two engines one after the other (``decode``), and
with too little memory (``memory``); generates with vLLM where vllm is installed. Writes
``reports/gpu-acceptance/results.json`` and ``report.md``.

Each piece runs in its own process, because unsloth changes transformers for the whole process, and keeps its result in
``runs/gpu-acceptance/``. With ``--seconds`` the command stops after that time, and the next call goes on; ``--pieces``
runs some of them; ``--fresh`` deletes earlier results. Exit code: 0 when every piece is done and within its limits, 1
when not, 2 on a machine without CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import weakref
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from palign.params import Machine, Params, root, validate
from palign.tasks.plan import Plan
from palign.tasks.store import provenance, write_atomically

ARM = "sft-long-cot"
PIECES = [
    *("train-trl", "train-unsloth", "long-trl", "long-unsloth", "evaluate-trl", "evaluate-unsloth"),
    *("read", "decode", "memory", "vllm"),
]
PAIRS = ("train", "long")
"""Pieces that both trainers run, from the same adapter."""

LIMITS = {"float32": (1e-4, 1e-3), "bfloat16": (0.01, 0.02), "float16": (0.003, 0.02)}
"""By type of the weights: by how much, of its value, the first loss may differ, and all losses on average.

The first losses are of the same weights, so they differ by rounding only. Later ones drift apart, since updates add
differences up. Interpreted on a CPU in float32, unsloth's kernels differ from TRL's by 1e-7 at the first update and by
2e-7 after four; on a GPU the order of sums differs as well. A half type rounds each activation by up to 2^-9 (bfloat16)
or 2^-12 (float16). No limit on losses shows another optimizer or weight decay in time (2e-5 after three updates), so
both trainers' settings are compared too, and must be equal.
"""

NATS = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.03}
"""By type: by how much the log-probability of a label may differ between a cached and a plain reading. Where the labels
are further apart than twice that, the verdict must be the same.
"""

SAME = 95.0
"""Percentage of greedy float32 responses that must be the same on two devices or in two batches: sums are rounded
differently, which shows where two tokens are nearly equally likely.
"""


def folder() -> Path:
    return root() / "runs" / "gpu-acceptance"


def parameters(trainer: str, dtype: str = "auto", rows: int = 96, problems: int = 40) -> Params:
    """The pocket study's student and traces, 36 updates, without dropout, whose draws the two trainers do not share."""
    data = root() / "palign" / "pocket" / "data"
    benchmarks = []
    for name in ("dial-2", "dial-4"):
        small = Path("runs") / "gpu-acceptance" / f"{name}.jsonl"
        lines = (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(root() / small, "".join(lines[:problems]))
        benchmarks.append({"name": name, "data": str(small), "problems": problems})
    values = {
        "study": "gpu-acceptance",
        "trainer": trainer,
        "dtype": dtype,
        "training_limit": rows,
        "arms": [ARM],
        "lora_dropout": 0.0,
        "benchmarks": benchmarks,
        "protocol": "own",
        "n_samples": 1,
        "temperature": 0.0,
        "repetition_penalty": 1.0,
    }
    return validate(values, "gpu acceptance")


def train(params: Params, same_start: bool) -> dict:
    """Fine-tune, and return what it cost. ``same_start``: from the adapter that an earlier call started from.

    An adapter starts with random A matrices, which TRL draws on the CPU and unsloth on the GPU.
    """
    from palign import finetuning, problems, traces

    choice = finetuning.prepare(params)
    original, times, asked = finetuning._trainer, [], {}

    def build(*args):
        """The trainer with a timer, and with the adapter saved or loaded; fine-tuning has no hook for that."""
        trainer = _timed(original(*args), times)
        (_load_start if same_start else _save_start)(trainer.model, folder() / "initial-adapter.safetensors")
        asked.update(settings(trainer))
        return trainer

    problems.collect_benchmarks(params)
    traces.collect(params)
    finetuning._trainer = build
    try:
        facts = finetuning.finetune(params, ARM)
    finally:
        finetuning._trainer = original
    kept = ("weights", "autocast", "updates", "tokens_trained", "train_seconds", "peak_memory_bytes")
    return {name: facts[name] for name in kept} | {
        "trainer": choice.trainer,
        "tokens_per_second": _speed(facts["tokens_trained"] / facts["updates"], times),
        "losses": [record["loss"] for record in Plan(params).finetuning(ARM).read("losses")],
        "settings": asked,
    }


def train_long(params: Params, same_start: bool, updates: int = 8, longest: int = 3000) -> dict:
    """As :func:`train`, for a few updates of a wider model on long rows.

    unsloth keeps a layer's activations in host memory where they take more than 2 MiB: hidden width 1,024 and rows of
    1,100 tokens and more do so in a half type too. ``offloaded``: whether it did.
    """
    from palign import finetuning
    from palign.params import FineTuning

    choice = finetuning.prepare(params)
    import torch

    params = params.model_copy(
        update={
            "student": str(wide()),
            "max_length": longest,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "save_steps": 1000,
            "learning_rate": 3e-4,
        }
    )
    model, machine, tokenizer, ids = params.model("student"), params.part(Machine), *_long_ids()
    lengths = [longest - (longest * 3 // 5) * i // (2 * updates) for i in range(2 * updates)]
    rows = [
        {"id": str(i), "answers": False, "input_ids": ids[7 * i :][:length], "prompt_tokens": 50}
        for i, length in enumerate(lengths)
    ]
    where, seed, times = folder() / f"long-{choice.trainer}", params.seed, []
    recipe = params.part(FineTuning)
    trainer = finetuning._trainer(recipe, model, machine, where, rows, tokenizer, updates, seed, choice.trainer)
    (_load_start if same_start else _save_start)(trainer.model, folder() / "initial-adapter-long.safetensors")
    asked = settings(trainer)
    _timed(trainer, times, kept := []).train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {
        "weights": finetuning.precision(params.dtype, params.device),
        "autocast": "bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else None,
        "updates": updates,
        "train_seconds": round(times[-1] - times[0], 1),
        "peak_memory_bytes": peak,
        "trainer": choice.trainer,
        "tokens_per_second": _speed(sum(lengths) / updates, times),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "settings": asked,
    } | ({"offloaded": any(kept)} if choice.trainer == "unsloth" else {})


def _offloads() -> bool:
    """Whether unsloth's buffers in host memory have grown beyond their first size; after training they shrink again."""
    from unsloth_zoo import gradient_checkpointing as offloading

    return max(buffer.numel() for buffer in offloading.CPU_BUFFERS) > offloading.INITIAL_CPU_BUFFER_SIZE


def wide() -> Path:
    """A model of random weights, 4 layers of width 1,024 and a window of 4,096, with the pocket student's tokenizer."""
    path = folder() / "wide"
    if not (path / "model.safetensors").exists():
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        pocket = root() / "palign" / "pocket" / "student"
        shutil.copytree(pocket, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        torch.manual_seed(0)
        heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
        vocabulary = json.loads((pocket / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        config = Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=1024,
            intermediate_size=2816,
            num_hidden_layers=4,
            max_position_embeddings=4096,
            **heads,
        )
        Qwen2ForCausalLM(config).save_pretrained(path)
    return path


def _long_ids():
    """The pocket student's tokenizer, and the pocket traces as one list of tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(wide()))
    text = (root() / "palign" / "pocket" / "data" / "train.jsonl").read_text(encoding="utf-8")[:20_000]
    return tokenizer, tokenizer(text, add_special_tokens=False).input_ids


def settings(trainer) -> dict:
    """What both trainers must have in common, as the built trainer has it."""
    args, config = trainer.args, trainer.model.config
    adapter = next(iter(trainer.model.peft_config.values()))
    names = (
        *("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "learning_rate"),
        *("lr_scheduler_type", "warmup_steps", "max_steps", "per_device_train_batch_size", "bf16", "fp16", "seed"),
        *("gradient_accumulation_steps", "data_seed", "max_length", "packing", "padding_free", "loss_type"),
        *("label_smoothing_factor", "neftune_noise_alpha", "gradient_checkpointing"),
    )
    trained = {name: p.dtype for name, p in trainer.model.named_parameters() if p.requires_grad}
    found = {name: str(getattr(args, name)) for name in names} | {
        "mixed_precision": str(trainer.accelerator.mixed_precision),
        "adapter": str({name: getattr(adapter, name) for name in ("r", "lora_alpha", "lora_dropout", "bias")}),
        "scale": str((adapter.use_rslora, adapter.use_dora)),
        "trained": str(sorted({name.split(".lora_")[0].split(".")[-1] for name in trained})),
        "trained_tensors": str(len(trained)),
        "trained_type": str(sorted({str(dtype) for dtype in trained.values()})),
        "weights": str(config.dtype),
        "rope": str(sorted(config.rope_parameters.items())),
        "window": str(config.max_position_embeddings),
    }
    return found


def _timed(trainer, times: list[float], kept: list[bool] | None = None):
    """The trainer, which writes when each update ended into ``times``, and into ``kept`` whether unsloth had then kept
    activations in host memory.
    """
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.perf_counter())  # each update waits for its loss, so this is the GPU's time
            if kept is not None and "unsloth" in sys.modules:
                kept.append(_offloads())

    trainer.add_callback(Timer)
    return trainer


def _speed(tokens: float, times: list[float]) -> float | None:
    """Tokens a second: the median of the later half of the updates."""
    took = [after - before for before, after in pairwise(times)]
    return tokens / median(took[len(took) // 2 :]) if took else None


def _save_start(model, path: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, path)


def _load_start(model, path: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    unknown = set_peft_model_state_dict(model, load_file(path)).unexpected_keys
    if unknown:
        raise RuntimeError(f"the two trainers name the adapter's weights differently: {unknown}")


def evaluate(params: Params) -> dict:
    """Greedy responses of the trained adapter by the transformers engine: accuracy in percent, tokens a second."""
    from palign import evaluation

    responses, task = evaluation.respond(params, ARM), Plan(params).evaluation(ARM)
    grades = task.read("grades")
    return {
        "problems": len(grades),
        "right": 100 * mean(grade["right"] for grade in grades),
        "tokens_per_second": sum(r["new_tokens"] for r in responses) / task.folder.seconds(),
    }


def read(params: Params, longest: int = 3900) -> dict:
    """Label log-probabilities after prefixes, by the reader that caches what prompts share and without: the pocket
    student on short texts, a wider model on long ones.
    """
    from palign.engines.opening import close_engines, open_engine
    from palign.prompts import LABELS

    tokenizer, ids = _long_ids()
    text = tokenizer.decode(ids)
    close, same, largest, prompts = [], [], 0.0, 0
    for student, length in ((params.student, min(longest, 900)), (str(wide()), longest)):
        changed = params.model_copy(update={"student": student, "max_model_len": length + 100})
        engine = open_engine(changed.model("student"), params.part(Machine))
        limit = NATS[engine.settings["dtype"]]
        texts = [text[300 * i :][: length * (i + 4) // 12] for i in range(8)]  # a token has one character or more
        asked = [(i, whole[: len(whole) * k // 4] + "\nEnough?") for i, whole in enumerate(texts) for k in (1, 2, 3, 4)]
        plain = engine.choose([prompt for _, prompt in asked], LABELS)
        for reading, expected in zip(engine.reader(texts).choose(asked, LABELS), plain, strict=True):
            largest = max(largest, *(abs(a - b) for a, b in zip(reading.value, expected, strict=True)))
            agree = (reading.value[0] > reading.value[1]) == (expected[0] > expected[1])
            same.append(agree)
            close.append(agree or abs(expected[0] - expected[1]) <= 2 * limit)
        prompts += len(asked)
    close_engines()
    return {
        "prompts": prompts,
        "same_verdicts": 100 * mean(same),
        "largest_difference": largest,
        "agree": all(close) and largest <= limit,
    }


def _greedy(engine, params: Params, tokens: int = 96, repeats: int = 1):
    """Greedy completions of the benchmarks' problems."""
    from palign.engines.base import Sampling
    from palign.prompts import fill

    questions = [problem["question"] for problem in Plan(params).benchmarks.read("problems")]
    prompts = [engine.prompt(fill(params.answer_prompt, question=question)) for question in questions] * repeats
    return engine.generate(prompts, Sampling(tokens), [0] * len(prompts))


def _share(found, expected) -> float:
    """Percentage of completions with the same text."""
    return 100 * mean(a.text == b.text for a, b in zip(found, expected, strict=True))


def _held() -> int:
    """Bytes allocated on the GPU, without cuBLAS's workspace, which stays for the whole process (32 MiB on an H200)."""
    import torch

    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated()


def decode(params: Params) -> dict:
    """Greedy float32 responses on the GPU against the CPU's, and two engines one after the other in this process."""

    from palign import problems
    from palign.engines.opening import close_engines, open_engine

    problems.collect_benchmarks(params)
    params = params.model_copy(update={"dtype": "float32"})
    student, machine = params.model("student"), params.part(Machine)
    before = _held()
    engine = open_engine(student, machine)
    one = _held() - before
    began = time.perf_counter()
    found = _greedy(engine, params)
    speed = sum(completion.new_tokens for completion in found) / (time.perf_counter() - began)
    again, first = open_engine(student, machine) is engine, weakref.ref(engine.model)
    open_engine(student.model_copy(update={"name": str(wide())}), machine)
    alone = first() is None  # by its bytes it cannot be told: the allocator gives large tensors up to a MiB too much
    del engine
    close_engines()
    left = _held() - before
    same = _share(found, _greedy(open_engine(student, machine.model_copy(update={"device": "cpu"})), params))
    return {
        "problems": len(found),
        "same": same,
        "opened_once": again,
        "engine_bytes": one,
        "one_at_a_time": alone,
        "bytes_left": left,
        "tokens_per_second": speed,
        "agree": same >= SAME and again and alone and left <= 0.1 * one,
    }


def memory(params: Params) -> dict:
    """Greedy float32 responses with half the memory that they need, against those with enough."""
    import torch

    from palign import problems
    from palign.engines.opening import close_engines, open_engine

    problems.collect_benchmarks(params)
    params = params.model_copy(update={"dtype": "float32", "batch_size": 1024})
    engine = open_engine(params.model("student"), params.part(Machine))
    weights = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    enough = _greedy(engine, params, tokens=64, repeats=12)
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    allowed = weights + (peak - weights) // 2
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.reset_peak_memory_stats()
    found = _greedy(engine, params, tokens=64, repeats=12)
    used = torch.cuda.max_memory_allocated()
    torch.cuda.set_per_process_memory_fraction(1.0)
    close_engines()
    answered = all(completion.finish in ("stop", "length") for completion in found)
    same = _share(found, enough)
    return {
        "problems": len(found),
        "same": same,
        "peak_bytes": peak,
        "allowed_bytes": allowed,
        "used_bytes": used,
        "agree": answered and same >= SAME and used <= allowed,
    }


def vllm(params: Params) -> dict:
    """The same prompts and adapter by palign's vLLM engine, and how many responses equal those of transformers."""
    if find_spec("vllm") is None:
        return {"left out": "vllm is not installed"}
    from palign import evaluation
    from palign.engines.base import Sampling
    from palign.engines.opening import open_engine
    from palign.prompts import fill

    plan = Plan(params)
    student = params.model("student").model_copy(update={"engine": "vllm"})
    engine = open_engine(student, params.part(Machine), plan.finetuning(ARM).require().path / "adapter")
    questions = [problem["question"] for problem in plan.benchmarks.read("problems")]
    prompts = [engine.prompt(fill(params.answer_prompt, question=question)) for question in questions]
    began = time.perf_counter()
    found = engine.generate(prompts, Sampling(params.max_new_tokens), [0] * len(prompts))
    seconds = time.perf_counter() - began
    expected = [response["text"] for response in evaluation.respond(params, ARM)]
    return {
        "problems": len(prompts),
        "same": 100 * mean(a.text == b for a, b in zip(found, expected, strict=True)),
        "tokens_per_second": sum(completion.new_tokens for completion in found) / seconds,
    }


def compare(ours: dict, theirs: dict) -> dict:
    """Two trainers' results: losses update by update, relative to the first's, and settings that differ."""
    differences = [abs(a - b) / abs(a) for a, b in zip(ours["losses"], theirs["losses"], strict=True)]
    first, average = LIMITS[ours["weights"]]
    other = {
        name: [value, theirs["settings"].get(name)]
        for name, value in ours["settings"].items()
        if theirs["settings"].get(name) != value
    }
    agree = differences[0] <= first and mean(differences) <= average and not other and theirs.get("offloaded", True)
    figures = {"first": differences[0], "mean": mean(differences), "largest": max(differences)}
    return figures | {"limits": [first, average], "settings": other, "agree": agree}


def run_piece(piece: str, dtype: str) -> dict:
    kind = piece.split("-")[-1]
    params = parameters(kind if kind in ("trl", "unsloth") else "trl", dtype)
    if kind == "unsloth" and find_spec("unsloth") is None:
        return {"left out": "unsloth is not installed"}
    if piece.startswith("train"):
        return train(params, same_start=kind == "unsloth")
    if piece.startswith("long"):
        return train_long(params, same_start=kind == "unsloth")
    if piece.startswith("evaluate"):
        return evaluate(params)
    return {"read": read, "decode": decode, "memory": memory, "vllm": vllm}[piece](params)


def result(piece: str) -> dict | None:
    path = folder() / f"{piece}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def report(results: dict[str, dict | None], target: Path, machine: dict) -> bool:
    """Write ``results.json`` and ``report.md``; whether everything is done and agrees."""
    lines = [
        "# GPU acceptance",
        "",
        f"{machine.get('gpu', 'no GPU')}, " + ", ".join(f"{name} {v}" for name, v in machine["packages"].items()) + ".",
        "Tiny models; their speeds say little of a large one's.",
        "",
        "| piece | outcome |",
        "|---|---|",
    ]
    for piece, found in results.items():
        lines.append(f"| {piece} | {_line(found)} |")
    good = all(found is not None and "failed" not in found and found.get("agree", True) for found in results.values())
    compared = {}
    for pair in PAIRS:
        trl, unsloth = results.get(f"{pair}-trl") or {}, results.get(f"{pair}-unsloth") or {}
        if "losses" in trl and "losses" in unsloth:
            compared[pair] = compare(trl, unsloth)
            lines += ["", *_compared(pair, trl, unsloth, compared[pair])]
    good = good and all(pair in compared and compared[pair]["agree"] for pair in PAIRS)  # only vllm may be missing
    whole = {"machine": machine, "results": results, "losses": compared, "passed": good}
    write_atomically(target / "results.json", json.dumps(whole, indent=1) + "\n")
    write_atomically(target / "report.md", "\n".join(lines) + "\n")
    return good


def _compared(pair: str, trl: dict, unsloth: dict, found: dict) -> list[str]:
    lines = [
        f"{pair}: TRL and unsloth {'agree' if found['agree'] else 'DO NOT AGREE'}: losses differ by "
        f"{found['first']:.1e} at the first update, {found['mean']:.1e} on average, {found['largest']:.1e} at most "
        f"(limits {found['limits'][0]:.0e} and {found['limits'][1]:.0e} for the first two), relative to TRL's.",
        *(f"Setting {name}: TRL {a}, unsloth {b}." for name, (a, b) in found["settings"].items()),
    ]
    if not unsloth.get("offloaded", True):
        lines.append("unsloth kept no activations in host memory, so that path was not tested.")
    if trl["tokens_per_second"] and unsloth["tokens_per_second"]:
        speed = unsloth["tokens_per_second"] / trl["tokens_per_second"]
        memory = f"{unsloth['peak_memory_bytes'] / trl['peak_memory_bytes']:.2f}" if trl["peak_memory_bytes"] else "-"
        lines.append(f"unsloth against TRL: {speed:.2f} times the tokens a second, {memory} times the peak memory.")
    lines += ["", "| update | TRL | unsloth |", "|---|---|---|"]
    pairs = zip(trl["losses"], unsloth["losses"], strict=True)
    return lines + [f"| {i} | {a:.6f} | {b:.6f} |" for i, (a, b) in enumerate(pairs, 1)]


def _line(found: dict | None) -> str:
    if found is None:
        return "not run yet"
    for state in ("left out", "failed"):
        if state in found:
            return f"{state}: {found[state]}"
    words = ["" if found["agree"] else "OUTSIDE ITS LIMITS"] if "agree" in found else []
    if found.get("tokens_per_second"):
        words.append(f"{found['tokens_per_second']:,.0f} tokens/s")
    if "losses" in found:
        words += [f"{found['updates']} updates in {found['train_seconds']} s", f"last loss {found['losses'][-1]:.4f}"]
        words += [f"weights {found['weights']}, autocast {found['autocast']}"]
        if found["peak_memory_bytes"]:
            words.append(f"peak {found['peak_memory_bytes'] / 2**20:,.0f} MiB")
    if "right" in found:
        words.append(f"{found['right']:.1f} % of {found['problems']} right")
    if "same" in found:
        words.append(f"{found['same']:.1f} % of {found['problems']} responses the same")
    if "same_verdicts" in found:
        words.append(f"{found['same_verdicts']:.1f} % of {found['prompts']} verdicts the same")
        words.append(f"log-probabilities differ by {found['largest_difference']:.1e} nats at most")
    if "allowed_bytes" in found:
        words.append(f"peak {found['used_bytes'] / 2**20:,.0f} of {found['allowed_bytes'] / 2**20:,.0f} MiB allowed")
    return ", ".join(filter(None, words))


def machine() -> dict:
    facts = provenance()
    packages = facts["packages"]
    for name in ("unsloth_zoo", "triton", "bitsandbytes"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return (
        {key: facts[key] for key in ("commit", "dirty", "python", "finished")}
        | facts["machine"]
        | {"packages": packages}
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=PIECES, metavar="PIECE", help=" ".join(PIECES))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)  # one piece, in this process
    args = parser.parse_args(argv)
    import torch

    if not torch.cuda.is_available():
        print("gpu acceptance: no CUDA device on this machine; nothing was run", file=sys.stderr)
        return 2
    if args.piece:
        write_atomically(folder() / f"{args.piece}.json", json.dumps(run_piece(args.piece, args.dtype)) + "\n")
        return 0
    if args.fresh:
        shutil.rmtree(folder(), ignore_errors=True)
    deadline = time.monotonic() + args.seconds
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | offline | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    failed = {}
    for piece in args.pieces:
        found = result(piece)
        if found is not None and "left out" not in found:  # what was left out may be installed now
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            break
        print(f"{piece} ...", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "--piece", piece, "--dtype", args.dtype]
        try:
            code = subprocess.run(command, env=environment, timeout=left if left < 1e9 else None).returncode
        except subprocess.TimeoutExpired:
            break
        if code:
            failed[piece] = {"failed": f"exit code {code}; see its output above"}
    target = root() / "reports" / "gpu-acceptance"
    results = {piece: failed.get(piece) or result(piece) for piece in PIECES}
    good = report(results, target, machine())
    print((target / "report.md").read_text(encoding="utf-8"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
