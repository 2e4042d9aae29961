"""Tables as a reader sees them, in one style, by great_tables (https://posit-dev.github.io/great-tables).

The numbers are those of the DataFrame; nothing is computed here. A page made of the notebook keeps the table and gives
it the page's own style (``palign.report.page``).

>>> table(pd.DataFrame({"Pass@1": ["82.6 [80.4, 84.5]"]}, ["p-align"]), best=["Pass@1"])  # doctest: +SKIP
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..tasks.store import visible

INTERVAL = re.compile(r"([-+]?[\d.,]+(?: %)?) (\[[^\[\]]*\d[^\[\]]*\])")
"""A value with its interval: ``82.6 [80.4, 84.5]``."""
NUMBER = re.compile(r"[-+<>]?\s*-?[\d,.]+( %)?( \[.*\])?|\d+ of \d+")


@dataclass(frozen=True, repr=False)
class Table:
    """A table in HTML; ``frame`` holds its cells as text."""

    frame: pd.DataFrame
    html: str

    def __repr__(self) -> str:
        return repr(self.frame)  # a page leaves out what is written as an empty DataFrame

    def _repr_html_(self) -> str:
        return self.html


def table(
    frame: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    digits: int | Mapping[str, int] = 1,
    best: Collection[Hashable] = (),
    groups: Mapping[str, str] | None = None,
    first: int | Collection[Hashable] | None = None,
) -> Table:
    """Show a DataFrame: an interval small below its value, numbers to the right, no value as an empty cell.

    The index's last level names the rows. Its other levels, or ``groups`` (row -> group), head groups of rows; columns
    of two levels stand below a common heading. ``labels``: column, level or value of a level -> what a reader sees.
    ``digits`` behind the point, of all floats or by column. ``best``: columns whose largest value is bold. ``first``:
    so many rows, or the rows of these names, stand open, all of them behind a click. A table without rows is empty.
    Raises ``ValueError`` for a column in ``best`` that is absent.
    """
    if frame.empty:
        return Table(frame, "")
    if absent := [name for name in best if name not in frame.columns]:
        raise ValueError(f"best: no column {absent[0]!r}; the table has {list(frame.columns)}")
    labels = dict(labels or {})
    written = pd.DataFrame({name: _written(frame[name], _digits(digits, name)) for name in frame.columns}, frame.index)
    written.columns = frame.columns  # the levels of their names
    bold = {name: _largest(frame[name]) for name in best}
    whole = _drawn(written, labels, bold, groups)
    last = frame.index.get_level_values(-1)
    rows = range(len(frame))
    if first is not None:
        rows = [i for i in rows if (i < first if isinstance(first, int) else last[i] in first)]
    if len(rows) == len(frame):
        return Table(written, whole)
    among = {name: {rows.index(i) for i in at if i in rows} for name, at in bold.items()}
    more = f"<details><summary>All {len(frame)} rows</summary>{whole}</details>"
    return Table(written, f"<div>{_drawn(written.iloc[rows], labels, among, groups)}{more}</div>")


def _digits(digits: int | Mapping[str, int], name: Hashable) -> int:
    if isinstance(digits, int):
        return digits
    own = name[-1] if isinstance(name, tuple) else name
    return digits.get(own, 1)


def _written(column: pd.Series, digits: int) -> list[str]:
    """A column's values as text: whole numbers with thousands apart, floats rounded, nothing for no value."""

    def text(value) -> str:
        if isinstance(value, (bool, np.bool_)):
            return "yes" if value else "no"
        if isinstance(value, str):
            return value
        if value is None or (np.isscalar(value) and pd.isna(value)):
            return ""
        if isinstance(value, (int, np.integer)):
            return f"{value:,}"
        if isinstance(value, (float, np.floating)):
            return f"{value:,.0f}" if whole else f"{value:,.{digits}f}"
        return str(value)

    floats = [value for value in column if isinstance(value, (float, np.floating)) and not pd.isna(value)]
    whole = bool(floats) and all(float(value).is_integer() for value in floats)  # counts beside missing ones
    return [text(value) for value in column]


def _largest(column: pd.Series) -> set[int]:
    """The places of a column's largest value."""

    def value(cell) -> float:
        found = re.match(r"[-+]?[\d.,]*\d", str(cell))
        return float(found[0].replace(",", "")) if found else np.nan

    values = column.map(value).to_numpy()
    return set(np.flatnonzero(values == np.nanmax(values))) if len(values) and not np.isnan(values).all() else set()


def _drawn(frame: pd.DataFrame, labels: dict, bold: dict, groups: Mapping[str, str] | None) -> str:
    from great_tables import GT  # imported here: it takes a third of a second

    named = frame.index.names[-1] is not None or not isinstance(frame.index, pd.RangeIndex)
    flat, spanners, titles = pd.DataFrame(index=range(len(frame))), {}, {}
    rows = [row if isinstance(row, tuple) else (row,) for row in frame.index]
    if named:
        flat["row"] = [str(labels.get(row[-1], row[-1])) for row in rows]
        titles["row"] = labels.get(frame.index.names[-1], frame.index.names[-1] or "")
    if len(rows) and len(rows[0]) > 1:
        flat["group"] = [", ".join(str(labels.get(part, part)) for part in row[:-1]) for row in rows]
    elif groups:
        flat["group"] = [groups.get(row[-1], "") for row in rows]
    numbers = []
    for i, name in enumerate(frame.columns):
        key, cells = f"c{i}", list(frame[name])
        flat[key] = cells
        levels = [part for part in (name if isinstance(name, tuple) else (name,)) if part != ""] or [""]
        titles[key] = labels.get(levels[-1], levels[-1])
        if len(levels) > 1:
            spanners.setdefault(", ".join(str(labels.get(part, part)) for part in levels[:-1]), []).append(key)
        if any(cells) and all(NUMBER.fullmatch(text) for text in cells if text):
            numbers.append(key)
    drawn = GT(
        flat, rowname_col="row" if named else None, groupname_col="group" if "group" in flat else None, id="table"
    )
    for title, columns in spanners.items():
        drawn = drawn.tab_spanner(title, columns, gather=False)
    keys = [key for key in flat if key.startswith("c")]
    together = {key: str(titles[key]).replace(" %", "\N{NO-BREAK SPACE}%") for key in keys}
    drawn = drawn.cols_label(together).cols_align("left", keys)
    drawn = drawn.fmt(_cell, [key for key in flat if key != "group"])
    for key, name in zip(keys, frame.columns, strict=True):
        if name in bold:
            drawn = drawn.fmt(lambda text: f"<b>{_cell(text)}</b>", key, rows=[int(i) for i in bold[name]])
    if named and titles["row"]:
        drawn = drawn.tab_stubhead(str(titles["row"]))
    if numbers:
        drawn = drawn.cols_align("right", numbers)
    return drawn.tab_options(table_margin_left="0", table_font_size="13px", data_row_padding="3px").as_raw_html()


def _cell(text: str) -> str:
    """A cell's text in HTML: escaped, code where backticks enclose it, an interval small below its value."""
    parted = INTERVAL.fullmatch(text)
    if parted:
        return f'{parted[1]}<small style="display:block;color:gray;font-weight:normal">{parted[2]}</small>'
    return _safe(text)


def _safe(text) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(visible(str(text)), quote=False))
