"""Regenerate the pocket study's data sets: ``python -m palign.pocket.make_data``.

The study reads them as it reads any local data set: one JSONL file of training problems with traces, and one for each
benchmark. The test problems come from a split and a seed that no probe, gate or choice of a hyper-parameter used;
``--split validation --out FOLDER`` writes other problems of the same kinds, for such choices.
"""

import argparse
import json
import random
from pathlib import Path

from .world import BENCHMARKS, TRAINING, draw_problems, teach

DATA = Path(__file__).parent / "data"
TRAINING_PROBLEMS = 320
TEST_PROBLEMS = 250
SEED = "2026"
TEACHERS = {
    "train": {},
    "train-brief": {"rounds": (0, 0, 1)},  # seldom doubts (Table 8)
    "train-mending": {"mends": 1.0, "seed": f"mending {SEED}"},  # some of its doubts find a mistake; other problems
}
"""Each teacher's habits, and the seed of its problems where it has problems of its own."""


def training_records(count: int = TRAINING_PROBLEMS, seed: str = SEED, **habits) -> list[dict]:
    """Training problems, each with a trace by a teacher of these ``habits`` and the sufficient prefix's characters."""
    rng = random.Random(f"teacher {seed}")
    records = []
    for problem in draw_problems("train", count, seed=seed, **TRAINING):
        trace = teach(problem, rng, **habits)
        records.append(
            {
                "question": problem.question,
                "answer": problem.answer,
                "trace": trace.text,
                "sufficient_chars": trace.sufficient_chars,
            }
        )
    return records


def benchmark_records(name: str, split: str = "test", count: int = TEST_PROBLEMS) -> list[dict]:
    """One benchmark's problems from ``split``."""
    problems = draw_problems(split, count, seed=f"{name} {SEED}", **BENCHMARKS[name])
    return [{"question": problem.question, "answer": problem.answer} for problem in problems]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--split", choices=("test", "validation", "probe"), default="test")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = {name: benchmark_records(name, args.split) for name in BENCHMARKS}
    files |= {name: training_records(**habits) for name, habits in TEACHERS.items()}
    for name, records in files.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (args.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{args.out / name}.jsonl: {len(records)} records")


if __name__ == "__main__":
    main()
