"""Does it scale? ``python -m benchmarks.scale [--traces 59000]``: as many traces as the full s1K pool has, no model.

Synthetic traces go through collection, truncation and alignment with a recorded engine: it says ENOUGH where the prefix
holds the key sentence, and continues with a boxed number. So palign alone is measured: peak memory of each stage in a
process of its own, records a second over each tenth, and the seconds to resume a stage that lacks its last records only
and to find one done. Two runs print the same hash of their records.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from palign import alignment, traces, truncation
from palign.engines.base import Completion, Engine, PlainReader
from palign.engines.tokenizers import Characters
from palign.params import Model, Params
from palign.tasks.plan import Plan, Task
from palign.tasks.store import RunFolder, fingerprint

KEY = "Here lies the key"
SENTENCE = "we take the sum of both sides and see that the terms in the middle cancel each other"


class Pieces(Characters):
    """Characters whose token ids tell texts apart: the labels must part somewhere."""

    def __call__(self, text, **_):
        if isinstance(text, str):
            return self._Encoded([text[i : i + 4] for i in range(0, len(text), 4)])
        return super().__call__(text)


class Recorded(Engine):
    """An engine of two answers: whether the key is there, and a number that is right three times in four."""

    tokenizer = Pieces()
    settings = {"engine": "recorded"}  # noqa: RUF012

    def __init__(self, source: Model):
        self.source = source

    def choose(self, prompts, labels):
        return [[0.0, -1.0] if KEY in prompt else [-1.0, 0.0] for prompt in prompts]

    def generate(self, prompts, sampling, seeds):
        return [
            Completion(f"So \\boxed{{{7 if seed % 4 else 8}}}.", "stop", len(p) // 4, 8)
            for p, seed in zip(prompts, seeds, strict=True)
        ]

    def reader(self, texts):
        return PlainReader(self)


def prepare(folder: Path, count: int, sentences: int) -> Params:
    """A project of ``count`` traces of about ``sentences`` sentences of 90 characters."""
    for name in ("params", "notebooks"):  # the two make a folder a project's root
        (folder / name).mkdir()
    (folder / "student").symlink_to(Path(__file__).resolve().parent.parent / "palign" / "pocket" / "student")
    rng = random.Random(0)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for i in range(count):
            parts = [f"Step {j}: {SENTENCE}" for j in range(rng.randint(sentences // 2, sentences * 3 // 2))]
            parts.insert(rng.randrange(len(parts)), KEY)
            trace = ". ".join(parts) + "."
            file.write(json.dumps({"question": f"Problem {i}: what is left?", "answer": "7", "trace": trace}) + "\n")
    return Params(
        study="scale",
        student="student",
        training_data="train.jsonl",
        training_columns={"question": "question", "answer": "answer", "trace": "trace"},
        max_model_len=131072,
        batch_size=64,
        sufficiency_samples=1,
        judged_traces=0,
        arms=["zero-shot", "p-align"],
    )


def measured(name: str, call, watched: str) -> dict:
    """``call`` in a process of its own: its seconds, its peak memory and the pace of the ``watched`` records."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        moments, append = [], RunFolder.append

        def timed(self, file, records, **how):
            records = list(records)
            append(self, file, records, **how)
            if file == watched:
                moments.append((time.perf_counter(), len(records)))

        RunFolder.append = timed
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the progress bars
            began = time.perf_counter()
            call()
            row = {"stage": name, "seconds": round(time.perf_counter() - began, 1)}
            row["peak MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            os.write(write, json.dumps(row | {"records a second, by tenths": pace(moments)}).encode())
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        row = pipe.read()
    os.waitpid(pid, 0)
    if not row:
        sys.exit(f"{name} failed")
    print(row, flush=True)
    return json.loads(row)


def pace(moments: list[tuple[float, int]]) -> list[int]:
    """Records a second over each tenth of the batches; empty for fewer than eleven."""
    step = (len(moments) - 1) // 10
    if not step:
        return []
    edges = moments[: 10 * step + 1 : step]
    counts = [sum(n for _, n in moments[i * step + 1 : (i + 1) * step + 1]) for i in range(10)]
    return [round(n / (b[0] - a[0])) for n, a, b in zip(counts, edges, edges[1:], strict=False)]


def undo(task: Task, name: str, lines: int) -> None:
    """Remove the manifest and the last ``lines`` records, as a kill shortly before the end leaves a task."""
    task.folder.manifest_path.unlink()
    path = task.folder.path / f"{name}.jsonl"
    whole = path.read_bytes()
    for _ in range(lines):
        whole = whole[: whole.rstrip(b"\n").rfind(b"\n") + 1]
    path.write_bytes(whole)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--traces", type=int, default=59_000)
    parser.add_argument("--sentences", type=int, default=160, help="of a trace, on average (90 characters each)")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that no stage may exceed")
    options = parser.parse_args()
    for module in (truncation, alignment):
        module.open_engine = lambda model, *_: Recorded(model)
    truncation.load_tokenizer = lambda _: Characters()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        params = prepare(Path(name), options.traces, options.sentences)
        plan = Plan(params)
        print(f"{options.traces} traces, {Path('train.jsonl').stat().st_size / 2**20:.0f} MiB", flush=True)
        import datasets  # noqa: F401  here, so that no stage's seconds include the import

        rows = [measured("collection", lambda: traces.collect(params), "")]
        rows.append(measured("truncation", lambda: truncation.truncate(params, "adaptive"), "prefixes"))
        undo(plan.truncation("adaptive"), "prefixes", 10)
        rows.append(measured("truncation, resumed", lambda: truncation.truncate(params, "adaptive"), ""))
        rows.append(measured("alignment", lambda: alignment.align(params, "adaptive"), "continuations"))
        undo(plan.alignment("adaptive"), "continuations", 10)
        rows.append(measured("alignment, resumed", lambda: alignment.align(params, "adaptive"), ""))
        rows.append(measured("truncation, done", lambda: truncation.truncate(params, "adaptive"), ""))
        for task, file in ((plan.truncation, "prefixes"), (plan.alignment, "continuations")):
            print(f"{file}: {fingerprint(task('adaptive').folder.path / f'{file}.jsonl')[:16]}")
    faults = [row["stage"] for row in rows if row["peak MiB"] > options.memory]
    for row in rows:
        tenths = row["records a second, by tenths"]
        if tenths and tenths[-1] < tenths[0] / 2:
            faults.append(f"{row['stage']} slows down")
    print(f"over the limit: {faults}" if faults else f"all stages within {options.memory} MiB, and at an even pace")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
