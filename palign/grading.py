r"""Grading: is the last boxed answer of a response the gold answer? The filter of Eq. 9 and every accuracy use it.

We find the box by our own rule and compare with math-verify. On a whole text, math-verify reads two boxes of one
paragraph as one answer, and where there is no box it takes any number for the answer. Published results are graded that
way, so it is kept beside ours as the ``lenient`` grade.

math-verify uses sympy, which does not return on some LaTeX. It runs in worker processes, each with a time and a memory
limit; a worker that exceeds one is killed and replaced, and the response counts as wrong.

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
SOUND = ("right", "no box")
"""Outcomes of a teacher's trace that may be trained on: it states no answer that is not the gold one."""

LIMIT = 10.0
"""Seconds of wall-clock for one answer in math-verify."""
MEMORY = 2 * 2**30
"""Bytes of address space that a worker may take; sympy alone takes a quarter of a GiB."""

# A box's opening, an escaped character (which is not a brace), or a brace. The look-behind also finds the box in
# "\\boxed{": a line break before the box, or a response that was escaped twice.
_TOKEN = re.compile(r"(?P<box>\\?(?<=\\)(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_MATH = re.compile(r"(?<!\\)\$|\\\(|\\\[")


@dataclass(frozen=True)
class Grade:
    """The grade of one response. ``answer``: the content of the last box, ``None`` where there is no box.

    ``outcome``: the strict grade, by that box only. ``lenient``: math-verify's grade of the whole text, ``None`` where
    it was not asked for. ``unparseable``: nothing could be read as mathematics. ``timed out``: parsing or comparing
    exceeded the limit of time or memory. All outcomes but ``right`` count as wrong.
    """

    outcome: Literal[Outcome, "no box"]
    answer: str | None
    lenient: Outcome | None = None

    @property
    def right(self) -> bool:
        return self.outcome == "right"


def grade(text: str, gold: str, lenient: bool = True) -> Grade:
    """Grade one response; :func:`grade_all` is faster for many."""
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

    ``golds``: each a bare answer (``25``, ``\frac{1}{2}``), one in ``$...$``, or a text whose last box holds it.
    ``describe``: the title of a progress bar; without it, there is no bar. ``limit``: seconds for one answer in
    math-verify. ``workers``: processes, by default one per core. Equal pairs are compared once. No text makes it raise.
    """
    from .tasks.progress import progress

    answers = [None if (box := last_box(text)) is None else box.strip() for text in texts]
    golds = [_bare(gold) for gold in golds]
    strict: list = ["no box" if a is None else _at_once(a, g) for a, g in zip(answers, golds, strict=True)]
    boxed = [None if s else (rf"\boxed{{{a}}}", g) for s, a, g in zip(strict, answers, golds, strict=True)]
    whole = list(zip(texts, golds, strict=True)) if lenient else []
    asked = sorted({pair for pair in (*boxed, *whole) if pair})
    bar = progress(describe, len(asked)) if describe and asked else None
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
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` that closes, the outermost of nested boxes.

    Escaped braces are not counted. A box that never closes, as where a response was cut, is ignored. ``None`` when
    there is no closed box. Time is linear in the length of ``text``.
    """
    opened: list[int | None] = []  # for each open brace: where the content of its box starts, None for other braces
    last = None
    for token in _TOKEN.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                last = start, token.start()  # an enclosing box closes later and replaces this one
    return None if last is None else text[slice(*last)]


def _bare(gold: str) -> str:
    """The gold answer without its box. Its words stay: math-verify finds the mathematics among them."""
    boxed = last_box(gold)
    return (gold if boxed is None else boxed).strip()


def _at_once(answer: str, gold: str) -> Outcome | None:
    """The outcome if it needs no sympy: the answer is the same text as the gold, or both are whole numbers."""
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

    pool = ThreadPoolExecutor(workers)  # its threads wait for the worker processes
    try:
        yield from pool.map(ask, pairs)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an interrupt, do not wait for the remaining pairs


class _Worker:
    """A process that runs math-verify: it reads a line and answers with a line. It starts at the first question.

    It is a plain subprocess: to fork a process that holds a model or a CUDA context is not safe, and multiprocessing's
    other start methods run the caller's script a second time.
    """

    process: subprocess.Popen | None = None

    def ask(self, text: str, gold: str, limit: float) -> Outcome:
        if self.process is None or self.process.poll() is not None:
            self._start()
        self.process.stdin.write(json.dumps([text, gold, limit]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer.endswith("\n"):  # the process was killed at a limit
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
    """The loop of a worker process: it answers until its standard input ends or a limit kills it."""
    import logging
    import resource

    from math_verify import parse, verify

    read = lru_cache(4096)(partial(parse, parsing_timeout=None))  # each gold answer comes twice with every sample
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own time-outs are off
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        text, gold, limit = json.loads(line)
        # the alarm has no handler, so the system kills the process, even inside C code or an endless loop
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            wanted = read(gold if _MATH.search(gold) else rf"\boxed{{{gold}}}")
            target = read(text)
            if verify(wanted, target, timeout_seconds=None):
                outcome = "right"
            else:  # math-verify returns what it cannot parse as text
                outcome = "unparseable" if all(isinstance(part, str) for part in target) else "wrong"
        except MemoryError:
            outcome = "timed out"
        except Exception:  # math-verify catches most exceptions, but not every RecursionError
            outcome = "unparseable"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(outcome), flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    _serve()
