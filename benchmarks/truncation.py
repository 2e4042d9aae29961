"""What truncation costs, as counts and as ratios of times from one run on one machine.

    python -m benchmarks.truncation [--traces PATH] [--quick]

Two students read: the pocket student on pocket traces, and a randomly initialised one of realistic depth (8 layers,
width 256) on long traces: pocket traces strung together, or those of a JSONL with s1K-1.1's columns (``--traces``).
A random student's verdicts mean nothing, so the verdicts are scripted wherever times are compared: each trace has a
boundary, drawn evenly from its sentences, and both sides make the same probes. The random student's tokenizer is a
byte-level BPE learnt from the traces themselves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from palign.engines.base import PlainReader
from palign.engines.memory import cache_bytes_per_token
from palign.engines.opening import open_engine
from palign.engines.transformers import TransformersEngine
from palign.judging import Judge, Verdict
from palign.params import Machine, Model, Params
from palign.tasks.store import RunFolder
from palign.traces import RULES, Trace
from palign.truncation import SEARCHES, Prefix, lockstep, searched

POCKET = Path(__file__).resolve().parent.parent / "palign" / "pocket"
DECODED = (1, 8, 256)  # tokens of a verdict; the released budget is 256


def seconds_used() -> float:
    """CPU seconds: with one thread, wall clock without the share that others on the machine take."""
    return time.process_time()


@dataclass(frozen=True)
class Bench:
    """A student as judge, and its traces; ``batch`` of them go in lockstep."""

    name: str
    judge: Judge
    traces: list[Trace]
    batch: int

    @property
    def engine(self) -> TransformersEngine:
        return self.judge.engine

    def truncate(self, search: str, open_session: Callable) -> tuple[list[Prefix], float]:
        """All prefixes in the traces' order and the seconds they took."""
        began, records = seconds_used(), {}
        for start in range(0, len(self.traces), self.batch):
            batch = self.traces[start : start + self.batch]
            for prefix in lockstep(batch, SEARCHES[search], open_session, self.engine.count, self.judge.rule):
                records[prefix.id] = prefix
        return [records[trace.id] for trace in self.traces], seconds_used() - began


class Scripted:
    """Opens sessions that pay for every verdict and then answer by each question's boundary."""

    def __init__(self, judge: Judge, boundaries: dict[str, int]):
        self.judge, self.boundaries = judge, boundaries

    def __call__(self, drafts: Sequence[tuple[str, list[str]]]) -> Callable:
        session = self.judge.open(drafts)

        def ask(asked: Sequence[tuple[int, int]]) -> list[Verdict]:
            limits = [self.boundaries[drafts[i][0]] for i, _ in asked]
            return [
                replace(verdict, label="ENOUGH" if p >= limit else "NOT_ENOUGH")
                if verdict.label != "error"
                else verdict
                for verdict, (_, p), limit in zip(session(asked), asked, limits, strict=True)
            ]

        ask.room = session.room
        return ask


def boundaries(bench: Bench) -> dict[str, int]:
    """Question -> boundary in sentences, drawn evenly, the same in every run."""
    split = bench.judge.rule.split
    return {t.question: random.Random(t.id).randint(1, len(split(t.trace))) for t in bench.traces}


class _Clock:
    """A streamer that notes when each new token came."""

    def __init__(self) -> None:
        self.began, self.times = seconds_used(), []

    def put(self, tokens) -> None:
        self.times.append(seconds_used() - self.began)

    def end(self) -> None: ...


def released_procedure(bench: Bench, limits: dict[str, int]) -> tuple[list[list[int]], dict[int, float]]:
    """The released algorithm without its sleeps: one prefix at a time, the whole prompt read from its start, a verdict
    decoded.

    Returns each trace's probes, and the seconds in all if a verdict took 1, 8 or 256 tokens. One decoding gives all
    three: the time is noted as the tokens come. The full budget is decoded for the last verdict of the first four
    traces only; the others are taken to need as long from their eighth token on.
    """
    import torch

    judge, probes, seconds, tails = bench.judge, [], dict.fromkeys(DECODED, 0.0), []
    few, most = DECODED[-2:]

    def decode(prompt: str, tokens: int) -> list[float]:
        batch = bench.engine.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        clock = _Clock()
        with torch.inference_mode():
            bench.engine.model.generate(
                **batch, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens, streamer=clock
            )
        return clock.times  # the first is the prompt's, given before it is read

    for number, trace in enumerate(bench.traces):
        sentences, asked = judge.rule.split(trace.trace), []
        low, high = 1, len(sentences)
        while low <= high:
            p = (low + high) // 2
            asked.append(p)
            came = decode(judge.prompt(trace.question, sentences[:p]), few)
            for tokens in DECODED:
                seconds[tokens] += came[min(tokens, few)]
            low, high = (low, p - 1) if p >= limits[trace.question] else (p + 1, high)
        probes.append(asked)
        if number < 4:
            came = decode(judge.prompt(trace.question, sentences[:p]), most)
            tails.append(came[most] - came[few])
    seconds[most] += sum(tails) / len(tails) * sum(map(len, probes))
    return probes, seconds


def show(title: str, header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """A compact table on the terminal."""
    cells = [[f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "  ".join([row[0].ljust(len(first)), *others]), flush=True)


def reads(bench: Bench) -> None:
    """1 and 3: tokens counted over all verdicts, the searches on scripted verdicts with equal boundaries."""
    count, judge, rows = bench.engine.count, bench.judge, []
    texts = sum(count(trace.question) + count(trace.trace) for trace in bench.traces)
    for search in SEARCHES:
        records, _ = bench.truncate(search, Scripted(judge, boundaries(bench)))
        calls = sum(len(record.verdicts) for record in records)
        read, demanded = sum(r.tokens_read for r in records), sum(r.tokens_demanded for r in records)
        anew = sum(r.tokens_of_prompts for r in records)
        rows.append((search, read / texts, demanded / texts, (read + demanded) / texts, anew / texts))
        rows[-1] += (calls / len(records),)
    show(
        f"1, 3. {bench.name}: {len(bench.traces)} traces, {texts / len(bench.traces):.0f} tokens with the question",
        ("search", "reads/token", "demands/token", "with demands", "every prompt anew", "calls/trace"),
        rows,
    )
    print("  'every prompt anew', row 'released': the released algorithm. Calls in Table 5: 7.4, and 137-153 (linear).")


def times(bench: Bench, rounds: int) -> None:
    """2: time at equal verdicts. Of each of ours the fastest of ``rounds``; the released procedure runs once."""
    limits, judge = boundaries(bench), bench.judge
    open_session = Scripted(judge, limits)
    ours = {}
    for search in ("released", "linear"):
        runs = [bench.truncate(search, open_session) for _ in range(rounds)]
        ours[search] = min(seconds for _, seconds in runs)
        if search == "released":
            found = runs[0][0]
    began = seconds_used()
    for trace in bench.traces:  # the least any method needs: each trace read once
        bench.engine.choose([judge.prompt(trace.question, judge.rule.split(trace.trace))], ("[",))
    bare = seconds_used() - began
    engine = bench.engine
    reader, engine.reader = engine.reader, lambda texts: PlainReader(engine)
    _, anew = bench.truncate("released", open_session)
    engine.reader = reader
    probes, released = released_procedure(bench, limits)
    same = [[p for p, *_ in record.verdicts] for record in found] == probes
    verdicts = sum(map(len, probes))
    rows = [
        ("this engine, released search", ours["released"], 1.0),
        ("this engine, linear scan", ours["linear"], ours["linear"] / ours["released"]),
        ("each trace read once, no verdict", bare, bare / ours["released"]),
        ("this engine without its cache", anew, anew / ours["released"]),
        *(
            (f"released procedure, {n} tokens decoded", seconds, seconds / ours["released"])
            for n, seconds in released.items()
        ),
    ]
    show(
        f"2. {bench.name}: {len(bench.traces)} traces, {verdicts} verdicts, same probes: {same}; CPU seconds",
        ("", "seconds", "times ours"),
        rows,
    )


class _Recorded:
    """A session that answers from a record and costs nothing, so that what is left is the driver."""

    def __init__(self, drafts: Sequence[tuple[str, list[str]]]):
        self.room = [len(sentences) for _, sentences in drafts]
        self.limits = [1 + 7 * i % room for i, room in enumerate(self.room)]
        self.verdicts = {True: Verdict("ENOUGH", 10, 20, 300), False: Verdict("NOT_ENOUGH", 10, 20, 300)}

    def __call__(self, asked: Sequence[tuple[int, int]]) -> list[Verdict]:
        return [self.verdicts[p >= self.limits[i]] for i, p in asked]


def driver(sizes: Sequence[int], batch: int = 250) -> None:
    """4: no model at all. Traces are made as they are needed and records go to a run folder."""
    text = " ".join(f"This is sentence {i} of a trace." for i in range(64))

    def made(n: int) -> Iterator[list[Trace]]:
        for start in range(0, n, batch):
            yield [Trace(str(i), "What is it?", "1", text) for i in range(start, min(start + batch, n))]

    rows, bare = [], dict.fromkeys(sizes, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            run, verdicts, began = RunFolder(Path(folder) / str(n)), 0, time.perf_counter()
            for traces in made(n):
                started = time.perf_counter()
                records = [*lockstep(traces, SEARCHES["released"], _Recorded, len)]
                bare[n] += time.perf_counter() - started
                run.append("prefixes", map(vars, records))
                verdicts += sum(len(record.verdicts) for record in records)
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
            per = (1e6 * seconds / verdicts, 1e6 * bare[n] / verdicts)
            rows.append((n, verdicts, seconds, 1e6 * seconds / n, *per, peak))
    show(
        "4. A recorded judge: the driver alone, traces of 64 sentences",
        ("traces", "verdicts", "seconds", "us/trace", "us/verdict", "without the store", "peak MiB"),
        rows,
    )


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of a least-squares line through (log size, log cost): 1 is linear."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - mean_x) ** 2 for a in x)


def lengths(sizes: Sequence[int], traces: list[Trace]) -> None:
    """5: one trace of each length, its boundary at 70 % of its sentences; a student of 2 layers, width 128."""
    bench = random_student("lengths", traces, layers=2, width=128)
    sentences = [s for trace in traces for s in RULES["released"].split(trace.trace)]
    per_sentence = bench.engine.count(" ".join(sentences)) / len(sentences)
    judge, rows = bench.judge, []
    for size in sizes:
        wanted = max(1, round(size / per_sentence))
        parts = [sentences[i % len(sentences)] for i in range(wanted)]
        parts = RULES["released"].split(" ".join(parts))
        trace = Trace(str(size), "What is it?", "1", " ".join(parts))
        one = replace(bench, traces=[trace])
        records, seconds = one.truncate("released", Scripted(judge, {trace.question: round(0.7 * len(parts))}))
        began = seconds_used()
        bench.engine.choose([judge.prompt(trace.question, parts)], ("[",))
        bare = seconds_used() - began
        (record,) = records
        read, verdicts = record.tokens_read + record.tokens_demanded, len(record.verdicts)
        rows.append((record.trace_tokens, verdicts, read, record.tokens_of_prompts, seconds, bare, seconds / bare))
    show(
        "5. Cost against trace length, binary search",
        ("trace tokens", "verdicts", "tokens read", "every prompt anew", "seconds", "bare read", "ratio"),
        rows,
    )
    tokens, fitted = [row[0] for row in rows], {}
    for name, column in {"tokens read": 2, "seconds": 4, "seconds of a bare read": 5}.items():
        fitted[name] = exponent(tokens, [row[column] for row in rows])
    print(
        "  Exponent of the length (least squares on logarithms; 1 is linear): "
        + ", ".join(f"{name} {slope:.2f}" for name, slope in fitted.items())
        + ".\n  Attention makes the time of any read grow faster than its tokens; the ratio to a bare read says what "
        "the search adds."
    )


class _Held:
    """What judging holds in memory: the cache's bytes at their peak, and how much of it is text at its least."""

    def __init__(self, bench: Bench):
        self.bytes, self.text = 0, 1.0
        opened = bench.engine.reader

        def reader(texts: Sequence[str]):
            made = opened(texts)
            forward = made._forward

            def watched(*args, **kwargs):
                live = sum(map(len, made.slots.values()))  # of the texts that are still searched
                self.text = min(self.text, live / made.store.stored) if live else self.text
                found = forward(*args, **kwargs)
                held = sum(layer.keys.nbytes + layer.values.nbytes for layer in made.store.layers)
                self.bytes = max(self.bytes, held)
                return found

            made._forward = watched
            return made

        bench.engine.reader = reader


def peak(reset: bool = False) -> float:
    """The largest resident set of this process since the last ``reset``, in MiB; Linux only."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def memory(longest: int, traces: list[Trace], count: int = 64) -> None:
    """6: traces of ``longest`` / 26 to ``longest`` tokens at once; 2 layers, width 64, Qwen's number of tokens."""
    bench = random_student("memory", traces, layers=2, width=64, vocabulary=151_936)
    sentences = [s for trace in traces for s in RULES["released"].split(trace.trace)]
    per_sentence = bench.engine.count(" ".join(sentences)) / len(sentences)
    made = []
    for i in range(count):
        size = longest / 26 ** (((37 * i) % count) / (count - 1))  # evenly spread logarithms, in no order
        parts = [sentences[(i + k) % len(sentences)] for k in range(max(1, round(size / per_sentence)))]
        made.append(Trace(str(i), f"What is it? {i}", "1", " ".join(parts)))
    bench = replace(bench, traces=made, batch=count)
    scripted, held = Scripted(bench.judge, boundaries(bench)), _Held(bench)
    before, began = peak(reset=True), seconds_used()
    judge = SimpleNamespace(engine=bench.engine, open=scripted, rule=bench.judge.rule)
    records = [*searched(made, SEARCHES["released"], judge, bench.engine.count, count)]
    seconds = seconds_used() - began
    tokens = [record.trace_tokens for record in records]
    padded = count * max(tokens) * cache_bytes_per_token(bench.engine.model.config, bench.engine.model.dtype) / 2**20
    row = (sum(tokens), max(tokens), seconds, peak() - before, held.bytes / 2**20, padded, 100 * held.text)
    failed = sum(record.status != "ok" for record in records)
    show(
        f"6. Memory of judging {count} traces at once, {failed} of them failed",
        ("tokens", "longest", "seconds", "peak MiB more", "cache MiB", "all padded MiB", "% text, least"),
        [row],
    )


CHAT = (POCKET / "student" / "chat_template.jinja").read_text(encoding="utf-8")


def byte_level(texts: Sequence[str], vocabulary: int = 4096):
    """A byte-level BPE tokenizer learnt from ``texts``: any text has tokens, of a real one's length about."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    learnt = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    learnt.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=special, show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=learnt._tokenizer, eos_token="<|im_end|>", pad_token=special[0])
    fast.chat_template = CHAT
    return fast


def random_student(
    name: str, traces: list[Trace], layers: int, width: int, batch: int = 1, vocabulary: int | None = None
) -> Bench:
    """A Qwen3 of random weights, with room for 40,000 tokens; ``vocabulary``: its size, if not the tokenizer's."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    # a real tokenizer has the instruction's words in its vocabulary, so this one sees them often while it learns
    texts = [text for t in traces for text in (t.question, t.trace)] + [Params().judge_prompt] * 200
    tokenizer = byte_level(texts)
    torch.manual_seed(0)
    heads = width // 64
    config = Qwen3Config(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=64,
        max_position_embeddings=40960,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config).eval()
    source = Model(name=name, max_model_len=40960, chat_template_kwargs={"enable_thinking": False})
    return Bench(name, judge_of(TransformersEngine(source, model, tokenizer, batch)), traces, batch)


def judge_of(engine: TransformersEngine) -> Judge:
    """The engine as judge, asked as the pocket study asks."""
    params = Params()
    return Judge(engine, params.judge_prompt, RULES[params.sentence_rule], params.verdict)


def pocket_traces() -> list[Trace]:
    lines = (POCKET / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Trace(f"pocket {i}", row["question"], row["answer"], row["trace"]) for i, row in enumerate(rows)]


def long_traces(n: int, pieces: int = 20) -> list[Trace]:
    """Pocket traces strung together, ``pieces`` each: about 60 times 15 sentences and 2,700 tokens."""
    short = pocket_traces()
    return [
        Trace(f"long {i}", short[i].question, "1", " ".join(t.trace for t in short[i * pieces % 300 :][:pieces]))
        for i in range(n)
    ]


def traces_of(path: Path, n: int) -> list[Trace]:
    """The first ``n`` traces of a JSONL."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(n), strict=False)]
    names = ("trace", "deepseek_thinking_trajectory")
    return [
        Trace(f"given {i}", row["question"], "", next(row[name] for name in names if name in row))
        for i, row in enumerate(rows)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, help="JSONL with question and trace (or s1K-1.1's column)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: half a minute")
    parser.add_argument("--limit", type=int, default=12, help="long traces to read")
    args = parser.parse_args()
    began = time.perf_counter()
    driver((10, 100, 1000, 10_000) if args.quick else (10, 100, 1000, 10_000, 100_000))  # first: it reports peaks

    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    limit = min(args.limit, 3) if args.quick else args.limit
    long = traces_of(args.traces, limit) if args.traces else long_traces(limit, pieces=6 if args.quick else 20)
    params = Params(student=str(POCKET / "student"))
    engine = open_engine(params.model("student"), params.part(Machine))
    pocket = Bench("pocket", judge_of(engine), pocket_traces()[: 16 if args.quick else 64], 64)
    for bench in (pocket, random_student("long, random student of 8 layers", long, layers=8, width=256)):
        reads(bench)
        times(bench, rounds=2)
    memory(4096 if args.quick else 26_624, long)
    lengths((1024, 2048, 4096) if args.quick else (1024, 2048, 4096, 8192, 16384, 32768), long)
    print(f"\n{time.perf_counter() - began:.0f} s in all, one thread")


if __name__ == "__main__":
    main()
