"""Problems with a gold answer: benchmarks and training rows, read by ``datasets`` from a hub or from local files.

>>> problems, commit = load_benchmark(Benchmark(name="dial-2", data="palign/pocket/data/dial-2.jsonl", problems=250))
>>> problems[0]
Problem(id='...', question='The dial starts at four. ...', answer='2')
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .grading import last_box
from .params import Benchmark, OneLine, Params, is_empty, resolve
from .tasks.plan import Plan, held


class DataError(OneLine, ValueError):
    """A data set that cannot be used; the message names the data set and the row, and says how to repair it."""


@dataclass(frozen=True)
class Problem:
    """``id`` is unique within its data set; ``answer`` is the gold answer, without a box."""

    id: str
    question: str
    answer: str


FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def load_rows(
    data: str, split: str, revision: str | None, columns: dict[str, str]
) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of a data set with its ``columns`` (our name: theirs) renamed to ours, and the hub's commit they came from.

    ``data``: a hub id, a local copy of a hub data set in the hub's layout, or a local JSONL, JSON, Parquet or CSV file
    (``split`` is ignored for a file). The commit is ``None`` for local data. With ``HF_HUB_OFFLINE=1`` a hub id is read
    from the cache. Raises :class:`DataError` for a missing file or column, for a hub id that is not in the cache, and
    for a file that cannot be read; the message names the line of a broken JSONL file.
    """
    import datasets

    path = Path(resolve(data))
    if path.suffix in FORMATS and not path.is_file():
        raise DataError(f"{data}: no such file under {Path(resolve('.'))}")
    if path.is_file():
        if path.suffix not in FORMATS:
            raise DataError(f"{data}: unknown format {path.suffix!r}; use one of {', '.join(FORMATS)}")
        if is_empty(path):
            raise DataError(f"{data}: empty; it needs one row for each problem")
        _check_lines(path, data)
    datasets.disable_progress_bars()
    try:
        if path.is_file():
            rows = datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
        else:
            rows = datasets.load_dataset(str(path) if path.is_dir() else data, split=split, revision=revision)
    except ConnectionError:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise DataError(
            f"{data}: neither a local path nor in the cache, and {why}; load it once with a "
            "network, or name a local copy"
        ) from None
    except Exception as error:  # datasets raises many types; all of them mean that the data cannot be loaded
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"{data}: cannot be loaded: {reason}") from None
    missing = [column for column in columns.values() if column not in rows.column_names]
    if missing:
        raise DataError(
            f"{data}: no column {', '.join(missing)}; it has {', '.join(rows.column_names)}; name them in the params"
        )
    return [{ours: row[theirs] for ours, theirs in columns.items()} for row in rows], _commit(rows.info)


def _commit(info) -> str | None:
    """The commit in the addresses a hub data set was downloaded from; the cache keeps them."""
    found = {m[1] for address in info.download_checksums or () if (m := re.search(r"@([0-9a-f]{40})/", address))}
    return found.pop() if len(found) == 1 else None


def _check_lines(path: Path, data: str) -> None:
    """Raise :class:`DataError` with the number of a broken JSONL line: ``datasets`` would not say which line it is."""
    if path.suffix != ".jsonl":
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                whole = isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                whole = False
            if not whole and line.strip():
                raise DataError(f"{data}: line {number} is not a JSON object (cut short?); mend or remove that line")


def gold_answer(value: Any) -> str | None:
    """The gold answer in a column's value: a number, a bare answer, or a solution whose last box holds the answer.

    Whole numbers lose a trailing ``.0`` (the AMC set stores 142.0). ``None`` when the value is empty.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    boxed = last_box(text)
    return (boxed if boxed is not None else text).strip() or None


def integer_answer(value: Any) -> str | None:
    """:func:`gold_answer` of a whole number in one spelling: ``025``, ``25.0`` and ``$25$`` are ``25``.

    Raises ``ValueError`` for anything else.
    """
    text = gold_answer(value)
    if text is None:
        return None
    whole = re.fullmatch(r"([+-]?)0*([0-9]+)(?:\.0*)?", text.strip("$ "))
    if not whole:
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return ("-" if whole[1] == "-" and whole[2] != "0" else "") + whole[2]


BARE_LENGTH, BARE_WORDS = 100, 3
_TEX_NAME = re.compile(r"\\(?:text|textbf|mathrm|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+|\\.")
_MATH = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]")
_VERDICT = re.compile(r"yes|no|true|false", re.IGNORECASE)


def solution_answer(value: Any) -> tuple[str | None, str]:
    """The gold answer of a solution, and its kind: ``boxed``, ``bare`` or ``none``.

    Solutions of s1K are of three kinds. Where a solution has a box, its last box is the answer (``boxed``). A ``bare``
    answer is one line of at most 100 characters that holds a digit or mathematics, without the end of a sentence inside
    it, a second equals sign or an arrow (those mark a derivation); outside its mathematics it has at most three words
    (a unit, an "or") and no full stop after them. Yes, no, true, false and a single letter (of a multiple choice) are
    bare answers too. Everything else is a full solution or a proof that does not state an answer separately
    (``none``): a missing gold answer costs one problem, a wrong one would make Eq. 9 keep wrong continuations.
    """
    text = "" if value is None or isinstance(value, bool) else str(value).strip()
    boxed = last_box(text)
    if boxed is not None and boxed.strip():
        return boxed.strip(), "boxed"
    answer = gold_answer(value)
    return (answer, "bare") if answer is not None and boxed is None and _is_bare(answer) else (None, "none")


def _is_bare(text: str) -> bool:
    stopped = text.endswith(".")
    text = text.removesuffix(".").strip()
    derived = text.count("=") > 1 or re.search(r"\\(?:implies|(?:Long)?[Rr]ightarrow)\b|[⇒→]", text)
    if not text or "\n" in text or len(text) > BARE_LENGTH or derived:
        return False
    outside = _TEX_NAME.sub(" ", _MATH.sub(" ", text))
    words = re.findall(r"[^\W\d_]{2,}", outside)
    mathematical = outside != text or re.search(r"\d", text) or not words
    sentences = re.search(r"[.!?;:]\s", outside)
    if _VERDICT.fullmatch(text):
        return True
    prose = sentences or len(words) > BARE_WORDS or (stopped and words)
    return bool(mathematical and re.search(r"\w", text) and not prose)


def identify(rows: list[dict[str, Any]], data: str) -> list[dict[str, Any]]:
    """Rows with an ``id``: their own, or a hash of the question. Raises :class:`DataError` when two have the same."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        own = row.get("id")
        row["id"] = str(own) if own is not None else hashlib.sha256(str(row["question"]).encode()).hexdigest()[:12]
        if row["id"] in seen:
            what = f"id {row['id']!r}" if own is not None else "question"
            raise DataError(f"{data}: rows {seen[row['id']]} and {number} have the same {what}; remove one of them")
        seen[row["id"]] = number
    return rows


def without_repeats(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows whose question no earlier row has, white space aside, and the others (s1K repeats one question)."""
    first, repeats, seen = [], [], set()
    for row in rows:
        question = asked(row["question"] or "")
        (repeats if question in seen else first).append(row)
        seen.add(question)
    return first, repeats


def asked(question: str) -> str:
    """A short hash of a question, ignoring white space: the same in every copy of a data set, whatever its ids are."""
    return hashlib.sha256(" ".join(question.split()).encode("utf-8", "backslashreplace")).hexdigest()[:12]


def load_benchmark(benchmark: Benchmark) -> tuple[list[Problem], str | None]:
    """The problems of a test set, and the hub's commit they came from (``None`` for local data).

    Raises :class:`DataError` for a missing question or answer, for an answer that is not of the stated kind, and for a
    wrong number of problems.
    """
    rows, commit = load_rows(benchmark.data, benchmark.split, benchmark.revision, dict(benchmark.columns))
    read = {"integer": integer_answer, "latex": gold_answer}[benchmark.answer_kind]
    problems = []
    for number, row in enumerate(identify(rows, benchmark.data), start=1):
        try:
            problems.append(Problem(row["id"], row["question"], read(row["answer"])))
        except ValueError as error:
            raise DataError(
                f"{benchmark.data}: row {number}: answer_kind {benchmark.answer_kind}: {error}; mend the row, or set "
                "answer_kind: latex"
            ) from None
    for number, problem in enumerate(problems, start=1):
        if not (problem.question or "").strip() or problem.answer is None:
            raise DataError(f"{benchmark.data}: row {number}: empty question or answer; a benchmark needs both")
    if len(problems) != benchmark.problems:
        raise DataError(f"{benchmark.data}: {len(problems)} problems, the params file says {benchmark.problems}")
    return problems, commit


@held("benchmarks")
def collect_benchmarks(params: Params) -> list[dict]:
    """The study's test problems as records: ``benchmark``, ``id``, ``question``, ``answer``."""
    task = Plan(params).benchmarks
    if task.folder.done:
        return task.read("problems")
    loaded = {benchmark.name: load_benchmark(benchmark) for benchmark in params.benchmarks}
    records = [{"benchmark": name, **asdict(problem)} for name, (problems, _) in loaded.items() for problem in problems]
    task.folder.write("problems", records)
    task.finish(
        problems={b.name: b.problems for b in params.benchmarks},
        data_revisions={b.data: loaded[b.name][1] for b in params.benchmarks if loaded[b.name][1]},
    )
    return records


def twins(training: Sequence[Problem], tests: Sequence[dict]) -> dict[str, dict]:
    """The training problems whose question is a test question word for word, white space aside: id -> test record.

    ``training``: problems or traces. ``tests``: records of :func:`collect_benchmarks`.
    """
    tested = {asked(record["question"]): record for record in tests}
    found = {problem.id: tested.get(asked(problem.question)) for problem in training}
    return {name: twin for name, twin in found.items() if twin}


def check_disjoint(training: Sequence[Problem], tests: Sequence[dict]) -> None:
    """Raise :class:`DataError` if one of the problems trained on is a test problem; arguments as of :func:`twins`."""
    for name, twin in twins(training, tests).items():
        raise DataError(
            f"training problem {name} is problem {twin['id']} of benchmark {twin['benchmark']} and was trained on; run "
            "01_generation, which finds such problems, then train anew"
        )
