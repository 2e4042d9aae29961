"""The tables and the headline on recorded rollouts as a reader sees them; ``palign.analysis.rollouts`` has the numbers.

>>> means(by_share(table)).frame.loc[("right traces", "30 %"), "success, %"]
'88 [82, 93]'
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd

from ..analysis.rollouts import BESIDE, COUNTS
from .display import Table, table

TITLES = {
    "falls": "traces that fall beyond chance, %",
    "drop": "largest fall, points",
    "by_chance": "the same by chance, points",
    "low": "true fall, at least, points",
    "high": "true fall, at most, points",
    "landing": "sentences kept, %",
    "success": "success there, %",
    "around": "success around it, %",
    "none": "no verdict ENOUGH, %",
    "differs": "ends elsewhere than linear, %",
    "continuations": "continuations a trace",
    "retention": "kept, %",
    "share": "sentences, %",
    "before": "before, %",
    "behind": "behind, %",
    "difference": "difference, points",
}
"""Measures -> headings."""
FIRST = 8


def estimate(value: float, low: float, high: float, count: bool = False, unit: str = "") -> str:
    """``value [low, high]``: a share in whole percent, a count below 100 with one decimal; without bounds where all
    traces agree.
    """
    digits, scale = (int(value < 100), 1) if count else (0, 100)
    value, low, high = (round(scale * number, digits) + 0.0 for number in (value, low, high))  # + 0.0: no "-0"
    bounds = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{unit}{bounds}"


def estimates(rows: pd.DataFrame, index: Sequence[str], column: str = "measure", first: int | None = None) -> Table:
    """One row for each of ``index``, one column for each value of ``column``, in the rows' order: shares and chances in
    percent, :data:`~palign.analysis.rollouts.COUNTS` as they are.
    """
    if rows.empty:
        return table(rows)
    counts = rows["measure"].isin(COUNTS) if "measure" in rows else [False] * len(rows)
    values = rows[["value", "low", "high"]].itertuples(index=False)
    text = [estimate(*one, count) for one, count in zip(values, counts, strict=True)]
    wide = rows.assign(text=text).pivot_table(
        index=list(index), columns=column, values="text", aggfunc="first", sort=False, observed=True, fill_value=""
    )
    wide = wide.rename_axis(columns=None)
    words = {name: _words(name) for name in wide.index.get_level_values(-1)}
    return table(wide, labels=TITLES | words, first=first)


def _words(name: str) -> str:
    return re.sub(r"(\d)%", r"\1 %", str(name).replace("_", " ").replace("equation7", "Equation 7"))


def means(found: pd.DataFrame) -> Table:
    """``by_share``: success and its gain over no prefix, right and wrong traces apart."""
    if found.empty:
        return table(found)
    rows = {}
    for row in found.to_dict("records"):
        cells = {
            title: estimate(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
            for name, title in (("success", "success, %"), ("gain", "gain over no prefix, points"))
        }
        rows[f"{row['answer']} traces", f"{100 * row['share']:.0f} %"] = cells | {"traces": row["n"]}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return table(frame.rename_axis(["answer", "part of the trace that is kept"]))


def overview(found: pd.DataFrame) -> Table:
    """What a file holds, by model and kind of trace."""
    frame = found.rename(index={"right": "right traces", "wrong": "wrong traces"}).rename_axis(["model", "answer"])
    spans = {"traces": ("traces", "all"), "complete": ("traces", "measured whole")}
    spans |= {"prefixes": ("prefixes", "all"), "unmeasured": ("prefixes", "without rollouts")}
    spans |= {"rollouts": ("rollouts a prefix, median", "")}
    frame.columns = pd.MultiIndex.from_tuples([spans[name] for name in frame])
    return table(frame)


def searches(ends: pd.DataFrame, right: bool) -> Table:
    """Where searches end on right or on wrong traces, by the kind of verdict."""
    rows = ends[(ends["right"] == right) & (ends["measure"] != "verdicts")]
    rows = rows[(rows["samples"] != 1) | (rows["threshold"] == ends["threshold"].min())]
    verdict = [_verdict(*one) for one in rows[["threshold", "samples"]].itertuples(index=False)]
    rows = rows.assign(verdict=verdict).sort_values("samples", kind="stable")
    return estimates(rows, ["verdict", "search"], first=FIRST)


def _verdict(threshold: float, samples: float) -> str:
    if samples == 1:
        return "ENOUGH if one drawn continuation is right"
    whose = f"{samples:.0f} drawn" if samples else "the recorded"
    return f"ENOUGH if {100 * threshold:.0f} % of {whose} continuations are right"


def policies(kept: pd.DataFrame, right: bool) -> Table:
    """What policies keep of right or of wrong traces."""
    return estimates(kept[kept["right"] == right], ["family", "policy"], first=FIRST)


def behind(found: pd.DataFrame) -> Table:
    """How much of a trace stands behind the point of enough."""
    if found.empty:
        return table(found)
    cells = [estimate(*one) for one in found[["value", "low", "high"]].itertuples(index=False)]
    names = [name.replace("share of the trace", "part of the trace") + ", %" for name in found.index]
    return table(pd.DataFrame({"": cells, "traces": list(found["n"])}, names))


def lost(found: pd.DataFrame) -> Table:
    """At what length a wrong trace's problem is lost."""
    shares = {
        "start": ("success, %", "without a prefix"),
        "best": ("success, %", "at the best prefix"),
        "end": ("success, %", "at the longest"),
        "lost": ("lost from, % of the trace", ""),
    }
    if found.empty:
        return table(found)
    cells = {to: [None if pd.isna(x) else f"{100 * x:.0f}" for x in found[name]] for name, to in shares.items()}
    frame = pd.DataFrame({("sentences", ""): list(found["of"])} | cells, pd.Index(found["trace"], name="trace"))
    return table(frame, first=FIRST)


def beside(tables: dict[str, pd.DataFrame]) -> Table:
    """``measures`` of several tables, one column each (by its name)."""
    counts = {name for name, kind in BESIDE if kind == "count"}
    columns = {
        name: {r.measure: estimate(r.value, r.low, r.high, r.measure in counts) for r in rows.itertuples()}
        for name, rows in tables.items()
    }
    order = [name for name, _ in BESIDE if any(name in column for column in columns.values())]
    frame = pd.DataFrame(columns, index=pd.Index(order, name="right traces")).fillna("")
    return table(frame, labels={name: name if name in counts else f"{name}, %" for name in order})


def finding(means: pd.DataFrame, fall: pd.DataFrame, behind: pd.DataFrame, ends: pd.DataFrame, threshold: float) -> str:
    """The headline in at most three sentences; what the file does not measure is left out."""
    parts = []
    right, wrong = (means[means["answer"] == answer].set_index("share") for answer in ("right", "wrong"))
    if len(right):
        parts.append(
            f"On right traces success {_moves(right.loc[0.3])} with 30 % of the sentences"
            + _if(
                fall[(fall["answer"] == "right") & (fall["measure"] == "falls")],
                ", but in {} of them a longer prefix is worse somewhere, beyond chance",
            )
        )
    elsewhere = ends[ends["right"] & (ends["search"] == "released") & (ends["measure"] == "differs")]
    elsewhere = elsewhere[(elsewhere["threshold"] == 0.9) & (elsewhere["samples"] == 0)]
    second = _if(
        behind,
        f"{{}} of a right trace stand behind the point from which {100 * threshold:.0f} % of the "
        "continuations are right",
    )
    second += _if(
        elsewhere,
        f"{', and the' if second else 'The'} released and the linear search end at different "
        "prefixes in {} of right traces, though monotone verdicts would make them agree",
    )
    parts.append(second)
    if len(wrong):
        parts.append(f"On wrong traces success {_moves(wrong.loc[0.5])} with half of the sentences")
    return " ".join(f"{part}." for part in parts if part)


def _moves(row: pd.Series) -> str:
    """How success changes by a prefix, and to what."""
    name = "rises" if row["gain"] > 0 else "falls"
    bounds = sorted(abs(row[f"gain_{end}"]) for end in ("low", "high"))
    across = row["gain_low"] < 0 < row["gain_high"]
    points = estimate(row["gain"], row["gain_low"], row["gain_high"]) if across else estimate(abs(row["gain"]), *bounds)
    to = estimate(row["success"], row["success_low"], row["success_high"], unit=" %")
    return f"{'changes' if across else name} by {points} points to {to}"


def _if(rows: pd.DataFrame, text: str) -> str:
    """The text with the first row's estimate in it; empty without a row."""
    return text.format(estimate(*rows[["value", "low", "high"]].iloc[0], unit=" %")) if len(rows) else ""
