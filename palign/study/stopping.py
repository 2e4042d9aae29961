"""Ctrl-C: notebooks run in threads, and the main thread waits for them or for the signal that stops them.

A kernel has a session of its own, so the terminal's signal does not reach it; and a KeyboardInterrupt would surface
anywhere, half-way through a message to a kernel. Here the signal only sets a mark, which :class:`Crew` looks at.

>>> with listening(), Crew(jobs=2, shown=shown) as crew:
...     crew.work({"01_generation": first, "02_truncation": second}, ready)  # doctest: +SKIP
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from .showing import Shown

GRACE = 3.0
"""Seconds that an interrupted kernel has to end; then it is killed."""
LIMIT = 8.0
"""Seconds after which the whole command ends, whatever still runs."""

_asked = False
_at_work = False  # a crew: its main thread looks at the mark
_kernels: dict[int, bool] = {}  # process group: whether it has begun a cell


def asked() -> bool:
    """Whether the user has asked to stop: nothing new is started then."""
    return _asked


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Hear Ctrl-C from here on. Before a crew is at work it also raises :class:`KeyboardInterrupt` at once; should that
    be lost in a callback that swallows it, the crew sees the mark.
    """
    global _asked
    _asked, before = False, None
    if threading.current_thread() is threading.main_thread():  # only there may a program set its signals
        before = signal.signal(signal.SIGINT, _on_signal)
    try:
        yield
    finally:
        # after a stop, Ctrl-C keeps its meaning of "at once" until the command has ended
        if before is not None and not _asked:
            signal.signal(signal.SIGINT, before)


def watch(group: int, at_work: bool = False) -> None:
    """Have a stop reach the kernel with this process group: it is interrupted if it is at work on a cell, and killed
    while it still starts, when it ignores interrupts and has nothing to lose.
    """
    _kernels[group] = at_work


def unwatch(group: int) -> None:
    _kernels.pop(group, None)


class Crew:
    """Runs the steps of a study, at most ``jobs`` at once, until all have ended, one fails or Ctrl-C stops them."""

    def __init__(self, jobs: int, shown: Shown):
        self.jobs, self.shown = jobs, shown
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self.began: float | None = None  # when the stop began
        self.interrupted: set[int] = set()

    def __enter__(self) -> Crew:
        global _at_work
        _at_work = True
        return self

    def __exit__(self, *error) -> None:
        global _at_work
        self.pool.shutdown()
        _at_work = False

    def work(self, steps: Mapping[str, Callable[[], None]], ready: Callable[[str], bool] = lambda name: True) -> None:
        """Run each of ``steps`` as soon as it is ``ready`` and a place is free: of several, the first in order. Where
        one fails, those that have begun go on to their end, and no other begins.

        Raises what a step raised, or :class:`KeyboardInterrupt` once a stop is complete.
        """
        begun: dict[str, concurrent.futures.Future] = {}
        while True:
            ended = {name for name, future in begun.items() if future.done()}
            if not _asked and not any(begun[name].exception() for name in ended):
                for name in steps:
                    if len(begun) - len(ended) == self.jobs:
                        break
                    if name not in begun and ready(name):
                        begun[name] = self.pool.submit(steps[name])
            running = [future for name, future in begun.items() if name not in ended]
            if not running:
                break
            concurrent.futures.wait(running, timeout=0.1, return_when=concurrent.futures.FIRST_COMPLETED)
            if _asked:
                self._stop()
        if _asked:
            self.shown.stopped()
            raise KeyboardInterrupt
        for future in begun.values():
            future.result()

    def _stop(self) -> None:
        """Interrupt the kernels that run; kill those that still start and, after :data:`GRACE`, all."""
        if self.began is None:
            self.began = time.monotonic()
            self.shown.say("stopping: interrupting what runs; Ctrl-C again ends at once")
        gone = time.monotonic() - self.began
        if gone > LIMIT:
            self.shown.stopped()
            _end()
        known = dict(_kernels)  # read anew each time: one may just have started
        starting = [group for group, at_work in known.items() if not at_work]
        _signal(known if gone > GRACE else starting, signal.SIGKILL)
        _signal(known.keys() - self.interrupted, signal.SIGINT)
        self.interrupted |= known.keys()


def _on_signal(number: int, frame: object) -> None:
    global _asked
    if _asked:
        _end()
    _asked = True
    if not _at_work:
        raise KeyboardInterrupt


def _signal(groups: Iterable[int], number: int) -> None:
    for group in groups:
        with contextlib.suppress(OSError):  # it ended a moment ago
            os.killpg(group, number)


def _end() -> None:
    """End the process without waiting for its threads, and the kernels with it."""
    _signal(list(_kernels), signal.SIGKILL)
    if sys.__stdout__ and sys.__stdout__.isatty():
        os.write(sys.__stdout__.fileno(), b"\x1b[?25h\n")  # a live table hides the cursor
    os._exit(130)
