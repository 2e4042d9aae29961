r"""Grading: is the last boxed answer of a response the gold answer? The filter of Eq. 9 and every accuracy rest on it.

The box is found by our own rule and equality is math-verify's. Left to itself, math-verify reads two boxes of one
paragraph as one answer, and takes any number of the text for an answer where there is no box at all. That reading is
kept beside ours as the ``lenient`` grade, since published results rest on it.

math-verify stands on sympy, which some LaTeX keeps busy for ever. It runs in worker processes, each with a limit of
time and of memory; one that exceeds them is killed and replaced, and its response counts as wrong.

>>> grade(r"So \boxed{9}. No: \boxed{\frac{20}{2}}.", gold="10")
Grade(outcome='right', answer='\\frac{20}{2}', lenient='wrong')
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, partial
from typing import Literal

Outcome = Literal["right", "wrong", "unparseable", "timed out"]

LIMIT = 10.0
"""Seconds of wall-clock for one answer in math-verify."""
MEMORY = 2 * 2**30
"""Bytes of address space a worker may take, sympy's own quarter of a gibibyte included."""

# A box's opening, an escaped character (which is no brace), or a brace. The look-behind also finds the box in
# "\\boxed{": a line break before the box, or a response that was escaped twice.
_TOKEN = re.compile(r"(?P<box>\\?(?<=\\)(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_MATH = re.compile(r"(?<!\\)\$|\\\(|\\\[")


@dataclass(frozen=True)
class Grade:
    """What became of one response. ``answer`` is the content of the last box, ``None`` where there is no box.

    ``outcome`` is the strict grade, by that box alone. ``lenient`` is math-verify's on the whole text, ``None`` where
    it was not asked for. ``unparseable``: nothing there can be read as mathematics. ``timed out``: reading or comparing
    took more than the limit of time or memory. All but ``right`` count as wrong.
    """

    outcome: Literal[Outcome, "no box"]
    answer: str | None
    lenient: Outcome | None = None

    @property
    def right(self) -> bool:
        return self.outcome == "right"


def grade(text: str, gold: str, lenient: bool = True) -> Grade:
    """Grade one response; see :func:`grade_all`, which is the faster way to grade many."""
    return grade_all([text], [gold], lenient)[0]


def grade_all(
    texts: Sequence[str],
    golds: Sequence[str],
    lenient: bool = True,
    describe: str | None = None,
    limit: float = LIMIT,
    workers: int | None = None,
) -> list[Grade]:
    r"""Grades of responses against their gold answers, in order.

    ``golds``: each a bare answer (``25``, ``\frac{1}{2}``), one in ``$...$``, or a text whose last box it is.
    ``describe``: the title of a progress bar, none without it. ``limit``: seconds for one answer in math-verify.
    ``workers``: processes, by default one a core. Equal questions are asked once. Never raises for what a text holds.
    """
    from .tasks.store import progress

    answers = [None if (box := last_box(text)) is None else box.strip() for text in texts]
    golds = [_bare(gold) for gold in golds]
    strict: list = ["no box" if a is None else _at_once(a, g) for a, g in zip(answers, golds, strict=True)]
    boxed = [None if s else (rf"\boxed{{{a}}}", g) for s, a, g in zip(strict, answers, golds, strict=True)]
    whole = list(zip(texts, golds, strict=True)) if lenient else []
    asked = sorted({pair for pair in (*boxed, *whole) if pair})
    bar = progress(describe, len(asked)) if describe else None
    with bar or contextlib.nullcontext():
        known = {}
        for pair, outcome in zip(asked, _compare_all(asked, limit, workers or _cores()), strict=True):
            known[pair] = outcome
            if bar:
                bar.update()
    return [
        Grade(strict[i] or known[boxed[i]], answers[i], known[whole[i]] if lenient else None) for i in range(len(texts))
    ]


def last_box(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` that closes; of nested boxes the outermost.

    Escaped braces do not count for the balance. A box that never closes, as at a cut, is passed over for the last one
    that does. ``None`` when there is no such box. Time is linear in the length of ``text``.
    """
    opened: list[int | None] = []  # for each open brace, where its box's content starts, or None for a plain brace
    last = None
    for token in _TOKEN.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                last = start, token.start()  # an enclosing box closes later and so takes the place of this one
    return None if last is None else text[slice(*last)]


def equal(answer: str, gold: str) -> bool:
    r"""Whether the content of a box equals the gold answer mathematically, by math-verify.

    Whole numbers are compared as numbers, however they are written (``025``, ``25.0``). Not symmetric: math-verify
    reads an equation in the gold differently from one in the answer. What cannot be parsed or compared is not equal.
    """
    return grade(rf"\boxed{{{answer}}}", gold, lenient=False).right


def _bare(gold: str) -> str:
    """The gold answer without its box; a gold in words keeps them, math-verify finds the mathematics in it."""
    boxed = last_box(gold)
    return (gold if boxed is None else boxed).strip()


def _at_once(answer: str, gold: str) -> Outcome | None:
    """What needs no sympy: an answer that is the gold to the letter, and whole numbers."""
    if answer and answer == gold:
        return "right"
    if _WHOLE.fullmatch(answer) and _WHOLE.fullmatch(gold):
        return "right" if Decimal(answer) == Decimal(gold) else "wrong"
    return None


def _compare_all(pairs: list[tuple[str, str]], limit: float, workers: int) -> Iterator[Outcome]:
    """The outcomes in order, each as soon as it is known."""
    if not pairs:
        return
    while _idle.qsize() < min(workers, len(pairs)):
        _idle.put(_Worker())

    def ask(pair: tuple[str, str]) -> Outcome:
        worker = _idle.get()
        try:
            return worker.ask(*pair, limit)
        finally:
            _idle.put(worker)

    pool = ThreadPoolExecutor(workers)  # the threads only wait for the processes
    try:
        yield from pool.map(ask, pairs)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an interrupt nobody waits for the rest


class _Worker:
    """A process of its own that asks math-verify: a line in, a line out. It starts at the first question.

    A plain subprocess: forking one that holds a model or a CUDA context is not safe, and multiprocessing's other ways
    run the caller's script a second time.
    """

    process: subprocess.Popen | None = None

    def ask(self, text: str, gold: str, limit: float) -> Outcome:
        if self.process is None or self.process.poll() is not None:
            self._start()
        self.process.stdin.write(json.dumps([text, gold, limit]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer.endswith("\n"):  # killed, at a limit
            self.stop()
            return "timed out"
        return json.loads(answer)

    def _start(self) -> None:
        command = [sys.executable, "-m", "palign.grading"]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True)
        if self.process.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError(f"no grading process starts; see why with: {shlex.join(command)} < /dev/null")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None


_idle: queue.LifoQueue[_Worker] = queue.LifoQueue()


@atexit.register
def _stop_all() -> None:
    while not _idle.empty():
        _idle.get().stop()


def _serve() -> None:
    """A worker's life: it answers until its standard input ends, or until a limit ends it."""
    import logging
    import resource

    from math_verify import parse, verify

    read = lru_cache(4096)(partial(parse, parsing_timeout=None))  # a gold is asked for with every sample, and twice
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own time-outs are off
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's business
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        text, gold, limit = json.loads(line)
        # nobody handles this alarm, so the system kills the process, also in the midst of C code and of an endless loop
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            wanted = read(gold if _MATH.search(gold) else rf"\boxed{{{gold}}}")
            target = read(text)
            if verify(wanted, target, timeout_seconds=None):
                outcome = "right"
            else:  # what math-verify cannot parse it hands back as text
                outcome = "unparseable" if all(isinstance(part, str) for part in target) else "wrong"
        except MemoryError:
            outcome = "timed out"
        except Exception:  # math-verify catches most of its own; a RecursionError can come through
            outcome = "unparseable"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(outcome), flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    _serve()
