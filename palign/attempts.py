"""Strategies that draw more than one continuation of a problem, or find its prefix by continuing.

A strategy is a generator, like the searches of ``palign.truncation``: it yields the tries to draw next, each (sentences
of the prefix, number of the continuation), and receives for each whether it is right. It ends with the tries whose
records the problem is left with: one, or all of ``own-k``. So a test can run one by itself, and a study draws a round
of continuations for all problems at once.

>>> attempt(back_off(2, 3, 9, 8), right=lambda p, number: p >= 5)
[(5, 0)]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .continuation import kept
from .engines.base import FAILED, NEVER_ANSWERED
from .grading import grade_all
from .params import Alignment
from .tasks.progress import progress
from .tasks.store import RunFolder, StoreError
from .traces import Trace
from .truncation import Search, backward, linear, released

Try = tuple[int, int]
"""Sentences of the prefix (0: none), and the number of its continuation, from 0."""

Attempts = Generator[Sequence[Try], Sequence[bool | None], list[Try]]
"""Receives ``None`` for a request that failed: it says nothing about the prefix, so it ends the problem's search, and
the problem is left with it.
"""

SEARCHES: dict[str, Callable[[int], Search]] = {
    "success-binary": released,
    "success-first": linear,
    "success-last": backward,
}
"""How the shortest prefix of enough successes is looked for."""

BACK_OFF_FROM = {"backoff": None, "backoff-30": 0.3}
"""Back-off without a judge: the share of the sentences that it begins with; ``None``: ``backoff_start``."""


def every(number: int) -> Attempts:
    """``number`` continuations without a prefix; all are kept as records (RFT, arXiv 2308.01825)."""
    tries = [(0, i) for i in range(number)]
    yield tries
    return tries


def until_right(p: int, most: int) -> Attempts:
    """One continuation of ``p`` sentences after another until one is right, at most ``most``."""
    for number in range(most):
        (right,) = yield [(p, number)]
        if right is not False:
            break
    return [(p, number)]


def back_off(p: int, longer: int, m: int, most: int) -> Attempts:
    """One continuation of ``p`` sentences; after a wrong one, of ``longer`` more sentences, up to ``m``.

    Ends with the first right one, after that of ``m`` sentences, or after ``most`` tries.
    """
    for drawn in range(1, most + 1):
        (right,) = yield [(p, 0)]
        if right is not False or p >= m or drawn == most:
            break
        p = min(p + longer, m)
    return [(p, 0)]


def success(search: Search, m: int, samples: int, needed: int) -> Attempts:
    """A search by success: a prefix is ENOUGH if at least ``needed`` of ``samples`` continuations are right.

    It ends with the first right continuation of the prefix found. Where no prefix is ENOUGH, it ends with one of the
    ``m`` sentences: a right one among those drawn, else their last; or a further one if the search never asked for
    them. The idea of the shortest prefix that lets the student succeed is BREAD's (arXiv 2506.17211) and GHPO's
    (arXiv 2507.10628), who use it for reinforcement learning.
    """
    drawn: dict[int, Sequence[bool | None]] = {}
    try:
        (p,) = next(search)
        while True:
            drawn[p] = yield [(p, number) for number in range(samples)]
            if None in drawn[p]:
                return [(p, drawn[p].index(None))]
            (p,) = search.send([sum(drawn[p]) >= needed])
    except StopIteration as stop:
        found = stop.value
    if not found.sufficient and m not in drawn:
        drawn[m] = yield [(m, 0)]
    p = found.sentences if found.sufficient else m
    return [(p, drawn[p].index(True) if True in drawn[p] else len(drawn[p]) - 1)]


def start(strategy: str, settings: Alignment, of: int, room: int, found: int = 0) -> Attempts:
    """The strategy for a trace of ``of`` sentences, of which ``room`` fit the student's context.

    ``found``: the sentences of the adaptive prefix, for the strategies that begin with it. ``rewrite`` draws one
    continuation after the whole trace, which its prompt holds; the prefix is empty (arXiv 2402.13669).
    """
    if strategy == "own-k":
        return every(settings.own_samples)
    if strategy == "rewrite":
        return until_right(0, 1)
    if strategy == "adaptive-k":
        return until_right(found, settings.own_samples)
    if strategy in ("adaptive-backoff", *BACK_OFF_FROM):
        share = BACK_OFF_FROM.get(strategy) or settings.backoff_start
        first = found or min(max(1, round(share * of)), room)
        return back_off(first, max(1, round(settings.backoff_step * of)), room, settings.backoff_tries)
    return success(SEARCHES[strategy](room), room, settings.success_samples, settings.success_needed)


def attempt(strategy: Attempts, right: Callable[[int, int], bool | None]) -> list[Try]:
    """Run one strategy to its end; ``right``: of p sentences and a number."""
    try:
        asked = next(strategy)
        while True:
            asked = strategy.send([right(*one) for one in asked])
    except StopIteration as stop:
        return stop.value


@dataclass
class Problem:
    """A problem and how far its strategy is. ``asked``: the tries it waits for; ``drawn``: the records of those drawn;
    ``left``: the tries it ends with, ``None`` before its end. ``keep_cut``: whether a right continuation that was cut
    counts as right, as it is trained on then.
    """

    trace: Trace
    strategy: Attempts
    keep_cut: bool = False
    asked: Sequence[Try] = ()
    drawn: dict[Try, dict] = field(default_factory=dict)
    left: list[Try] | None = None

    def __post_init__(self) -> None:
        self.asked = next(self.strategy)

    def key(self, one: Try) -> str:
        return f"{self.trace.id}/{one[0]}/{one[1]}"

    def advance(self) -> None:
        """Answer the strategy from the records of what it asked for."""
        records = [self.drawn[one] for one in self.asked]
        answers = [None if record["finish"] in FAILED else kept(record, self.keep_cut) for record in records]
        try:
            self.asked = self.strategy.send(answers)
        except StopIteration as stop:
            self.asked, self.left = (), stop.value


Draw = Callable[[list[tuple[Trace, int, int]]], Iterable[tuple[int, dict]]]
"""Draws continuations of (trace, sentences, number), as they finish: the index, and the ``continuation`` with its
``finish`` and token counts.
"""


def lockstep(folder: RunFolder, problems: Sequence[Problem], draw: Draw, describe: str) -> None:
    """Advance all problems to their ends, in rounds: each round draws and grades what they wait for.

    ``attempts.jsonl`` keeps each continuation as it comes, with the id ``<trace id>/<sentences>/<number>``. After a
    kill those are used again and only the missing ones are drawn; at the end the file is in the problems' order. The
    records in :attr:`Problem.drawn` have an ``outcome``: the grade's, or the ``finish`` of a request without an answer.
    ``describe``: the title of the progress bar; its total grows by each round. Raises :class:`StoreError` when the file
    holds a record that nobody asked for.
    """
    stored = {record["id"]: record for record in folder.read("attempts")}
    with progress(describe, 0) as bar:
        while waiting := [problem for problem in problems if problem.left is None]:
            asked = [(problem, one) for problem in waiting for one in problem.asked]
            missing = [(problem, one) for problem, one in asked if problem.key(one) not in stored]
            bar.total += len(asked)
            bar.update(len(asked) - len(missing))
            if missing:
                with contextlib.closing(folder.store("attempts", _records(missing, draw))) as new:
                    for record in new:
                        stored[record["id"]] = record
                        bar.update()
            records = [stored[problem.key(one)] for problem, one in asked]
            golds = [problem.trace.answer for problem, _ in asked]
            graded = grade_all([record["continuation"] for record in records], golds, False)
            for (problem, one), record, grade in zip(asked, records, graded, strict=True):
                outcome = record["finish"] if record["finish"] in NEVER_ANSWERED else grade.outcome
                problem.drawn[one] = record | {"outcome": outcome}
            for problem in waiting:
                problem.advance()
    order = [problem.key(one) for problem in problems for one in problem.drawn]
    if foreign := set(stored) - set(order):
        fault = f"id {min(foreign)[:80]!r} is foreign: it belongs to other data or parameters"
        raise StoreError(f"{folder.path / 'attempts.jsonl'}: {fault}; delete the folder {folder.path} to redo it")
    if list(stored) != order:  # rounds end in any order: the file becomes the same as without a kill
        folder.write("attempts", [stored[key] for key in order])


def _records(asked: Sequence[tuple[Problem, Try]], draw: Draw) -> Iterator[dict]:
    """The records of new tries, as they come."""
    for i, drawn in draw([(problem.trace, *one) for problem, one in asked]):
        problem, (p, number) = asked[i]
        yield {"id": problem.key((p, number)), "of": problem.trace.id, "sentences": p, "number": number} | drawn
