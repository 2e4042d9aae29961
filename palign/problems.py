"""Problems with a gold answer: benchmarks and training sets, from a hub or from local files, through ``datasets``.

>>> problems, traces, excluded = load_training(params)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import plan
from .grading import last_box
from .params import Benchmark, Params, resolve


class DataError(ValueError):
    """A data set that cannot be used; the message says which, where and how to mend it."""


@dataclass(frozen=True)
class Problem:
    """``id`` is unique within its data set; ``answer`` is the gold answer, without a box."""

    id: str
    question: str
    answer: str


FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def load_rows(data: str, split: str, revision: str | None, columns: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of a data set with its ``columns`` renamed to ours.

    ``data``: a hub id, or a local JSONL, JSON, Parquet or CSV file. Raises :class:`DataError` for a missing file or
    column and for a file that cannot be read, naming the line where there is one.
    """
    import datasets

    path = Path(resolve(data))
    if path.suffix in FORMATS and not path.is_file():
        raise DataError(f"{data}: no such file under {Path(resolve('.'))}")
    if path.is_file():
        if path.suffix not in FORMATS:
            raise DataError(f"{data}: unknown format {path.suffix!r}; use one of {', '.join(FORMATS)}")
        _check_lines(path, data)
    datasets.disable_progress_bars()
    try:
        if path.is_file():
            rows = datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
        else:
            rows = datasets.load_dataset(str(path) if path.is_dir() else data, split=split, revision=revision)
    except Exception as error:  # datasets raises many types; each means the same to the reader
        raise DataError(f"{data}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    missing = [column for column in columns.values() if column not in rows.column_names]
    if missing:
        raise DataError(
            f"{data}: no column {', '.join(missing)}; it has {', '.join(rows.column_names)}; name them in the params"
        )
    return [{ours: row[theirs] for ours, theirs in columns.items()} for row in rows]


def _check_lines(path: Path, data: str) -> None:
    """Name the broken line of a JSONL file: ``datasets`` would only say that there is one."""
    if path.suffix != ".jsonl":
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                whole = isinstance(json.loads(line), dict)
            except ValueError:
                whole = False
            if not whole and line.strip():
                raise DataError(f"{data}: line {number} is not a JSON object (cut short?); mend or remove that line")


def gold_answer(value: Any) -> str | None:
    """The gold answer held by a column: a number, a bare answer, or a solution whose last box it is.

    Whole numbers lose a trailing ``.0`` (the AMC set stores 142.0). ``None`` when there is nothing.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    boxed = last_box(text)
    return (boxed if boxed is not None else text).strip() or None


def identify(rows: list[dict[str, Any]], data: str) -> list[dict[str, Any]]:
    """Rows with an ``id``: their own, or a hash of the question. Raises :class:`DataError` when two are alike."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        own = row.get("id")
        row["id"] = str(own) if own is not None else hashlib.sha256(str(row["question"]).encode()).hexdigest()[:12]
        if row["id"] in seen:
            what = f"id {row['id']!r}" if own is not None else "question"
            raise DataError(f"{data}: rows {seen[row['id']]} and {number} have the same {what}; remove one of them")
        seen[row["id"]] = number
    return rows


def load_benchmark(benchmark: Benchmark) -> list[Problem]:
    """A test set, complete or not at all.

    Raises :class:`DataError` for a question or an answer that is missing, and for a wrong number of problems.
    """
    rows = identify(
        load_rows(benchmark.data, benchmark.split, benchmark.revision, dict(benchmark.columns)), benchmark.data
    )
    problems = [Problem(row["id"], row["question"], gold_answer(row["answer"])) for row in rows]
    for number, problem in enumerate(problems, start=1):
        if not (problem.question or "").strip() or problem.answer is None:
            raise DataError(f"{benchmark.data}: row {number}: empty question or answer; a benchmark needs both")
    if len(problems) != benchmark.problems:
        raise DataError(f"{benchmark.data}: {len(problems)} problems, the params file says {benchmark.problems}")
    return problems


@plan.held(plan.benchmarks)
def collect_benchmarks(params: Params) -> list[dict]:
    """The study's test problems as records: ``benchmark``, ``id``, ``question``, ``answer``."""
    task = plan.benchmarks(params)
    if task.folder.done:
        return task.folder.read("problems")
    records = [
        {"benchmark": benchmark.name, **asdict(problem)}
        for benchmark in params.benchmarks
        for problem in load_benchmark(benchmark)
    ]
    task.folder.write("problems", records)
    task.finish(problems={b.name: b.problems for b in params.benchmarks})
    return records


def check_disjoint(training: Sequence, tests: list[dict]) -> int:
    """The number of training problems compared; raises :class:`DataError` if one is asked word for word in a test."""
    asked = {" ".join(record["question"].split()): record for record in tests}
    for problem in training:
        twin = asked.get(" ".join(problem.question.split()))
        if twin:
            raise DataError(
                f"training problem {problem.id} is problem {twin['id']} of benchmark {twin['benchmark']}; "
                "remove it from one of the two, or set drop_overlap"
            )
    return len(training)
