"""What a run shows: a live table in a terminal, plain lines in a log, and the headline at the end.

>>> with shown("pocket", ["01_generation", "04_finetuning p-align"], jobs=2) as progress:
...     with progress.running("01_generation"):
...         work(stderr=Lines("01_generation", show=progress.heard))  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tasks.store import visible


@dataclass
class Row:
    """A notebook, perhaps of one arm and seed. ``state``: waiting, running, done, done before, failed, interrupted."""

    title: str
    state: str = "waiting"
    heard: str = ""
    began: float = 0.0
    seconds: float = 0.0

    @property
    def notebook(self) -> str:
        return self.title.partition(" ")[0]

    @property
    def arm(self) -> str:
        return self.title.partition(" ")[2]

    def words(self) -> str:
        if self.state == "running":
            return f"running {self.heard}".strip()
        if self.state in ("waiting", "done before"):
            return self.state
        return f"{self.state} {'in' if self.state == 'done' else 'after'} {self.seconds:.0f} s"


class Shown:
    """The notebooks of a run and how far each is, as plain lines. ``before``: the titles of those done already."""

    def __init__(self, titles: Sequence[str], before: Sequence[str] = (), jobs: int = 1):
        self.rows = {title: Row(title, "done before" if title in before else "waiting") for title in titles}
        self.jobs, self.began, self.lock = jobs, time.monotonic(), threading.Lock()

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *error) -> None:
        pass

    @contextlib.contextmanager
    def running(self, title: str) -> Iterator[Lines]:
        """Gives the file to which the notebook's progress goes. A notebook that raises has failed."""
        row = self.rows[title]
        row.began, row.state = time.monotonic(), "running"
        self.begins(row)
        state = "failed"
        try:
            yield self.lines(row)
            state = "done"
        finally:
            row.seconds, row.state = time.monotonic() - row.began, state
            self.ends(row)

    def lines(self, row: Row) -> Lines:
        return Lines(row.title)

    def begins(self, row: Row) -> None:
        print(f"{row.title} ...", flush=True)

    def ends(self, row: Row) -> None:
        if row.state == "done":
            print(f"{row.title}: {row.words()}", flush=True)

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def stopped(self) -> None:
        """Say what a stopped run has done; what was running counts as interrupted."""
        cut = [row for row in self.rows.values() if row.state in ("running", "failed")]
        for row in cut:
            row.state = "interrupted"
        self.say(f"stopped: {self.count()}; the complete records of those interrupted are kept")
        for row in cut:
            self.say(f"  {row.title}: {row.words()}")

    def count(self) -> str:
        done = sum(row.state.startswith("done") for row in self.rows.values())
        return f"{done} of {len(self.rows)} notebooks done"


class Table(Shown):
    """The same as a table that is drawn again and again, for a terminal."""

    def __init__(self, titles: Sequence[str], before: Sequence[str] = (), jobs: int = 1):
        from rich.console import Console
        from rich.live import Live

        super().__init__(titles, before, jobs)
        self.final = False
        self.console = Console(markup=False, highlight=False, emoji=False)
        self.live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> Table:
        self.live.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.final = True
        self.live.__exit__(*error)

    def lines(self, row: Row) -> Lines:
        return Lines(row.title, show=lambda percent, what: setattr(row, "heard", f"{percent} %  {what}"))

    def begins(self, row: Row) -> None:
        pass

    ends = begins

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=False, overflow="ellipsis", no_wrap=True)
        self.live.refresh()

    def _table(self) -> Any:
        from rich.table import Table as Columns

        table = Columns(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for style in ("dim", "bold", None):
            table.add_column(style=style, no_wrap=True, overflow="ellipsis")
        rows = list(self.rows.values())
        room = max(self.console.height - 3, 3)
        hidden = []
        if not self.final and len(rows) > room:  # what has ended goes first, then what waits longest
            order = {"running": 0, "failed": 1, "interrupted": 1, "waiting": 2}
            kept = sorted(rows, key=lambda row: order.get(row.state, 3))[: room - 1]
            hidden = [row for row in rows if row not in kept]
            rows = [row for row in rows if row in kept]
        for row in rows:
            table.add_row(row.notebook, row.arm, row.words(), style=STYLES.get(row.state))
        if hidden:
            done = sum(row.state.startswith("done") for row in hidden)
            table.add_row("...", "", f"{done} more done, {len(hidden) - done} more waiting")
        table.add_row()
        table.caption = self._foot()
        table.caption_justify = "left"
        table.caption_style = ""
        return table

    def _foot(self) -> str:
        gone, left = time.monotonic() - self.began, self._left()
        return f"{self.count()}, {clock(gone)} so far" + (f", about {clock(left)} left" if left else "")

    def _left(self) -> float | None:
        """Seconds to the end, by the mean of the same notebook's arms that are done, or else of all; ``None`` before
        the first is done.
        """
        done = [row for row in self.rows.values() if row.state == "done"]
        if not done or self.final:
            return None

        def expected(row: Row) -> float:
            same = [other.seconds for other in done if other.notebook == row.notebook] or [r.seconds for r in done]
            return max(sum(same) / len(same) - (time.monotonic() - row.began if row.state == "running" else 0), 1)

        ahead = [expected(row) for row in self.rows.values() if row.state in ("running", "waiting")]
        # the report stands alone, after all others
        return max(sum(ahead) / self.jobs, *ahead) if ahead else None


STYLES = {"waiting": "dim", "done before": "dim", "running": "cyan", "failed": "red", "interrupted": "yellow"}


def shown(titles: Sequence[str], before: Sequence[str] = (), jobs: int = 1) -> Shown:
    """A table where a person watches, lines elsewhere."""
    watched = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    return (Table if watched else Shown)(titles, before, jobs)


class Lines:
    """A notebook's progress bars (tqdm's text) as lines under its title: bars of arms that run at the same time would
    overwrite each other, and a bar as wide as the terminal does not leave room for a title.

    A line at most every ``every`` seconds, and one when a bar is full; with ``show``, that is called instead, with each
    percentage and what it is of.
    """

    BAR = re.compile(
        r"(?:(?P<what>.*?): *)?(?P<percent>\d+)%\|[^|]*\|\s*(?P<count>\d+/\d+)?(?: \[[^<]*<(?P<left>[\d:]+))?"
    )

    def __init__(self, title: str, every: float = 10, show: Callable[[int, str], Any] | None = None):
        self.title, self.every, self.show = title, every, show
        self.last, self.said = time.monotonic(), ""

    def write(self, text: str) -> None:
        for piece in re.split(r"[\r\n]+", text):
            if not (found := self.BAR.search(visible(piece.strip()))):
                continue
            percent, what = int(found["percent"]), found["what"] or ""
            if self.show:
                self.show(percent, what)
                continue
            words = f"{what}: {percent} %" if what else f"{percent} %"
            if found["count"]:
                words += f", {found['count'].replace('/', ' of ')}"
            # tqdm draws a full bar twice, and one that waits for its first batch again and again
            if words == self.said or (percent < 100 and time.monotonic() - self.last < self.every):
                continue
            self.last, self.said = time.monotonic(), words
            left = f", {found['left']} left" if found["left"] and percent < 100 else ""
            print(f"  {self.title} | {words}{left}", file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """
    >>> clock(75), clock(4000)
    ('1:15', '1:06:40')
    """
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def headline(accuracy: Path) -> list[str]:
    """Each arm's Pass@1 at the main budget, averaged over the benchmarks, with its interval: lines of at most 80
    columns from a report's ``accuracy.csv``. Empty where there is no such file.
    """
    try:
        with accuracy.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["metric"] == "pass@1"]
    except FileNotFoundError:
        return []
    budget = max((int(row["budget"]) for row in rows), default=0)
    rows = [row for row in rows if int(row["budget"]) == budget]
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    of = "average" if "average" in benchmarks else benchmarks[0] if benchmarks else ""
    rows = [row for row in rows if row["benchmark"] == of]
    if not rows:
        return []
    names = "average over benchmarks" if of == "average" else of
    width = max(len("arm"), *(len(row["arm"]) for row in rows))
    lines = [f"Pass@1 in percent, {names[:30]}, {budget} tokens, 95 % interval"]
    for row in rows:
        value, low, high = (100 * float(row[key]) for key in ("value", "low", "high"))
        lines.append(f"  {row['arm']:{width}}  {value:5.1f}  [{low:.1f}, {high:.1f}]")
    return [visible(line) for line in lines]
