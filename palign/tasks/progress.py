"""Progress bars that fit where they are drawn: text in a terminal and under papermill, HTML in a notebook that a person
runs.

A saved notebook keeps the last state of an HTML bar; of a widget it would keep the first one, 0 %.

>>> with progress("truncation/adaptive", 320) as bar:
...     bar.update()
"""

from __future__ import annotations

import sys
import threading
from html import escape
from typing import Any

from tqdm import tqdm

from ..params import unattended

SECONDS = 2.0
"""Between two drawings of a bar, also while nothing is finished: a batch can take long, and the time goes on."""


def progress(describe: str, total: int, done: int = 0) -> tqdm:
    """A progress bar of ``total`` items of which some are ``done``. Use it in a ``with``, or close it."""
    return (Drawn if _watched() else Written)(total=total, initial=done, desc=describe, mininterval=SECONDS)


def _watched() -> bool:
    """Whether a person runs this code in a notebook; the runner reads the text of the others."""
    if "ipykernel.zmqshell" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel") and not unattended()


class Written(tqdm):
    """A bar of ASCII text that is drawn again while nothing is finished."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._closed = threading.Event()
        super().__init__(*args, ascii=True, **kwargs)
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        seen = self.n
        while not self._closed.wait(SECONDS):
            if self.n == seen:  # where something was finished, `update` has drawn it
                self.refresh()
            seen = self.n

    def close(self) -> None:
        self._closed.set()
        super().close()


class Drawn(Written):
    """A bar of HTML, one output of its cell that changes."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._handle: Any = None
        super().__init__(*args, gui=True, **kwargs)  # tqdm writes no text then
        self.display()

    def display(self, *_: Any, **__: Any) -> None:
        """Show the present state. tqdm calls it at most every ``mininterval`` seconds."""
        from IPython.display import HTML, display

        words = self.format_meter(**self.format_dict | {"bar_format": "{desc}: {n_fmt} of {total_fmt} {postfix}"})
        words += f", {self.format_interval(self.format_dict['elapsed'])}"
        share = f'max="{self.total or 1}" value="{self.n}"'
        bar = HTML(f'<progress {share} style="width:16em"></progress> {escape(words)}')
        if self._handle is None:
            self._handle = display(bar, display_id=True)
        else:
            self._handle.update(bar)

    def close(self) -> None:
        if not self._closed.is_set():
            super().close()
            self.display()
