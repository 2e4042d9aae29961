r"""What wrong responses get wrong in the dial world, and how often a study's rows teach a hard key:
``python -m palign.pocket.errors params/pocket-beyond.yaml``.

Only an artificial world can tell: the truth of each stated step is known, and which keys the student half knows
(``palign.pocket.world.RARE``). The command reads a finished study and writes ``reports/<study>/tables/errors.csv`` and
``hard_keys.csv``. A report that is made anew keeps them while the study's outcomes stay the same.

>>> problem = asked("The dial starts at six. First opal. Second iron. What number does it end on?")
>>> problem.values()
[1, 3]
>>> error(problem, "Now six. First opal gives four. Second iron gives six. The answer is \\boxed{6}.")
'missing knowledge'
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.statistics import Estimate, average, interval
from ..arms import ARMS
from ..engines.base import NEVER_ANSWERED
from ..engines.tokenizers import load_tokenizer
from ..params import OneLine, Params, load
from ..supervision import build
from ..tasks.plan import Plan
from ..tasks.store import write_atomically
from .world import (
    AGREES,
    CHECKS,
    DROPS,
    ENDS,
    LAST_LOOKS,
    NUMBERS,
    ORDINALS,
    RARE,
    READS,
    SURE,
    TABLES,
    WHAT_IFS,
    DialProblem,
)

if TYPE_CHECKING:
    import pandas as pd

ERRORS = ("right", "missing knowledge", "slip", "doubt", "skipped", "no answer", "other")
"""What a response is: see :func:`error`."""

_NUMBER = "|".join(NUMBERS)
_ORDINAL, _KEY = "|".join(ORDINALS), "|".join(TABLES)


def _any(sentences: Iterable[str], **parts: str) -> str:
    """A pattern for any of these sentences; ``{start}`` and ``{end}`` in them stand for ``parts``."""
    found = []
    for sentence in sentences:
        pattern = re.escape(sentence)
        for name, part in parts.items():
            pattern = pattern.replace(re.escape(f"{{{name}}}"), part)
        found.append(pattern)
    return "|".join(found)


_ENDS = [sentence for sentence in (*ENDS, *AGREES) if "{end}" in sentence]
_SAID = re.compile(
    rf"\bNow (?P<now>{_NUMBER})\."
    rf"|\b(?P<ordinal>{_ORDINAL}) (?P<key>{_KEY}) gives (?P<value>{_NUMBER})\."
    # each alternative needs a group of its own name
    + "".join(f"|{_any([sentence], end=f'(?P<end{i}>{_NUMBER})')}" for i, sentence in enumerate(_ENDS))
    + f"|(?P<aside>{_any(WHAT_IFS, start=f'(?:{_NUMBER})')})"
    + f"|(?P<back>{_any((*DROPS, *CHECKS, *READS, *LAST_LOOKS, *SURE))})"
)
_QUESTION = re.compile(rf"The dial starts at ({_NUMBER})\.((?: (?:{_ORDINAL}) (?:{_KEY})\.)+) What number")


@dataclass(frozen=True)
class Step:
    """A stated step. ``before``: the number it went on from, ``None`` where the text does not say; ``aside``: whether
    it is about another start, which the text only supposes.
    """

    position: int
    key: str
    before: int | None
    value: int
    aside: bool


@dataclass
class Account:
    """What a text states: its steps in order, the numbers it concluded on, and whether it began to work at all."""

    steps: list[Step] = field(default_factory=list)
    conclusions: list[int] = field(default_factory=list)
    begun: bool = False


def asked(text: str) -> DialProblem:
    """The problem that a question, or a prompt with one, asks. Raises ``ValueError`` where there is none."""
    found = _QUESTION.search(text)
    if not found:
        raise ValueError(f"no question of the dial world: {text[:80]!r}")
    return DialProblem(NUMBERS.index(found[1]), tuple(re.findall(rf"\b({_KEY})\.", found[2])))


def read(problem: DialProblem, text: str) -> Account:
    """The steps and conclusions that a text states on ``problem``. The statement of the last key's step concludes."""
    account, aside = Account(), False
    shown: int | None = None
    last: Step | None = None
    stated: dict[int, int] = {}  # position -> value; this and `last` since the last "Now"
    for said in _SAID.finditer(text):
        ends = [word for name, word in said.groupdict().items() if name.startswith("end") and word]
        if said["now"]:
            shown, last, stated, account.begun = NUMBERS.index(said["now"]), None, {}, True
        elif said["aside"] or said["back"]:
            aside = bool(said["aside"])
        elif ends:
            if not aside:
                account.conclusions.append(NUMBERS.index(ends[0]))
        else:
            position, value = ORDINALS.index(said["ordinal"]), NUMBERS.index(said["value"])
            before = shown
            if last and position == last.position:  # said again: what a continuation begins with, or a mended slip
                before = last.before
            elif last and position != last.position + 1:
                before = stated.get(position - 1)
            last = Step(position, said["key"], before, value, aside)
            account.steps.append(last)
            account.begun, shown, stated[position] = True, value, value
            if not aside and position == len(problem.keys) - 1:
                account.conclusions.append(value)
    return account


def error(problem: DialProblem, text: str, right: bool = False, boxed: bool = True) -> str:
    """What a response is, one of :data:`ERRORS`. ``right`` and ``boxed``: its grade, and whether there is an answer.

    ``doubt``: a conclusion was right, and the answer is another. Otherwise the first key in order decides whose step,
    as the response states it last, is not true or not there. ``missing knowledge``: a rare key's step is wrong; or the
    response works up to a rare key and leaves its step out, which is a guess. ``slip``: another key's step is wrong.
    ``skipped``: any other step is not there, as when the student answers at once. ``other``: that step is another
    key's, or goes on from another number than the step before it gave.
    """
    if right:
        return "right"
    if not boxed:
        return "no answer"
    account, truth = read(problem, text), problem.values()
    if truth[-1] in account.conclusions:
        return "doubt"
    final = {step.position: step for step in account.steps if not step.aside}
    for position, (key, before, value) in enumerate(zip(problem.keys, [problem.start, *truth], truth, strict=False)):
        step = final.get(position)
        if step is None:
            return "missing knowledge" if key in RARE and account.begun else "skipped"
        if step.key != key or step.before not in (None, before):
            return "other"
        if step.value != value:
            return "missing knowledge" if key in RARE else "slip"
    return "other"


def errors(params: Params) -> pd.DataFrame:
    """How often each arm's responses are each of :data:`ERRORS`: one row per arm, benchmark and kind.

    ``benchmark`` is a name or ``average`` (every benchmark weighs the same); ``value``, ``low`` and ``high`` are shares
    of the responses with the 95 % interval over problems (and training seeds), ``n`` problems. A response that was
    never answered counts nowhere, and a problem without a response under some training seed is left out, as in Pass@1.
    Raises ``TaskMissing`` before the study is finished.
    """
    import pandas as pd

    plan = Plan(params)
    problems = {(r["benchmark"], r["id"]): asked(r["question"]) for r in plan.benchmarks.read("problems")}
    rows = []
    for arm in params.arms:
        found = [_counts(plan, arm, seed, problems) for seed in plan.seeds(arm)]
        shares = {benchmark.name: [] for benchmark in params.benchmarks}
        for benchmark, problem in problems:
            each = np.array([counts[benchmark, problem] for counts in found])
            if each.any(axis=1).all():
                shares[benchmark].append(each / each.sum(axis=1, keepdims=True))
        groups = {benchmark: np.array(each) for benchmark, each in shares.items()}
        for kind, name in enumerate(ERRORS):
            of_kind = {benchmark: group[:, :, kind] for benchmark, group in groups.items() if len(group)}
            estimates = {benchmark: interval(group) for benchmark, group in of_kind.items()}
            if len(of_kind) == len(groups):
                estimates["average"] = average(list(of_kind.values()))
            rows += [_row(arm, benchmark, name, estimate) for benchmark, estimate in estimates.items()]
    return pd.DataFrame(rows)


def _counts(plan: Plan, arm: str, seed: int, problems: dict[tuple[str, str], DialProblem]) -> dict:
    """How many of each problem's answered responses are each of :data:`ERRORS`, of shape (kinds,)."""
    task = plan.evaluation(arm, seed)
    found = {key: np.zeros(len(ERRORS)) for key in problems}
    for response, grade in zip(task.read("responses"), task.read("grades"), strict=True):
        if response["finish"] not in NEVER_ANSWERED:
            key = (response["benchmark"], response["problem"])
            kind = error(problems[key], response["text"], grade["right"], grade["outcome"] != "no box")
            found[key][ERRORS.index(kind)] += 1
    return found


def _row(arm: str, benchmark: str, name: str, estimate: Estimate) -> dict:
    return {"arm": arm, "benchmark": benchmark, "error": name} | vars(estimate)


def hard_keys(params: Params) -> pd.DataFrame:
    """How often each trained arm's rows state a rare key's step: one row per arm.

    ``rows``; ``problems``: their distinct problems; ``hard_problems``: those with a rare key; ``taught_problems``:
    those where a row states a rare key's step rightly; ``right_steps`` and ``wrong_steps``: such statements in all
    rows, a repeated one each time, also those that only suppose another start; ``cells``: distinct pairs of a rare key
    and a number among the right ones, of at most 40. Raises ``TaskMissing`` before the rows' sources are finished.
    """
    import pandas as pd

    tokenizer = load_tokenizer(params.model("student")) if "upft" in params.arms else None
    trained = [arm for arm in params.arms if ARMS[arm].target]
    return pd.DataFrame([{"arm": arm} | _taught(build(params, arm, tokenizer)) for arm in trained])


def _taught(rows: Sequence[dict]) -> dict[str, int]:
    problems, taught, cells = set(), set(), set()
    right_steps = wrong_steps = 0
    for row in rows:
        problem = asked(row["prompt"])
        problems.add(problem)
        truth = [problem.start, *problem.values()]
        for step in read(problem, row["completion"]).steps:
            if step.key not in RARE or step.position >= len(problem.keys):
                continue
            before = truth[step.position] if step.before is None else step.before
            if TABLES[step.key][before] == step.value:
                right_steps += 1
                taught.add(problem)
                cells.add((step.key, before))
            else:
                wrong_steps += 1
    return {
        "rows": len(rows),
        "problems": len(problems),
        "hard_problems": sum(not RARE.keys().isdisjoint(problem.keys) for problem in problems),
        "taught_problems": len(taught),
        "right_steps": right_steps,
        "wrong_steps": wrong_steps,
        "cells": len(cells),
    }


def write(params: Params) -> dict[str, pd.DataFrame]:
    """Both tables, written to the report's folder under their names."""
    found = {"errors": errors(params), "hard_keys": hard_keys(params)}
    for name, table in found.items():
        path = Plan(params).report_path.parent / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, table.to_csv(index=False, float_format="%.6g"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":\n")[0])
    parser.add_argument("params", type=Path, help="the params file of a finished study of the pocket world")
    try:
        tables = write(load(parser.parse_args().params))
    except OneLine as fault:
        raise SystemExit(str(fault)) from None
    average_of = tables["errors"].query("benchmark == 'average'")
    shares = average_of.pivot(index="arm", columns="error", values="value").loc[average_of["arm"].unique(), [*ERRORS]]
    print("Responses in percent, average over benchmarks:", (100 * shares).round(1).to_string(), sep="\n")
    print("\nRare keys' steps in the training rows:", tables["hard_keys"].to_string(index=False), sep="\n")


if __name__ == "__main__":
    main()
