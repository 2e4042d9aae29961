"""The figures on rivals, from the tables of :mod:`palign.report.rivals`; nothing is computed here.

>>> ranks(arms(study))
>>> curve(curve_table)
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from ..analysis.style import caption, spread, theme
from ..arms import PAPER_ARMS
from .rivals import CHEAPEST, PALIGN

OVER = "Bars: 95 % over problems and training seeds."
PAPERS, RIVALS, CONTROL = sns.color_palette("colorblind", 3)
KINDS = {"missing knowledge": 0, "doubt": 1, "slip": 2, "skipped": 3, "no answer": 4, "other": 7}
"""Kinds of errors -> their colour in the palette."""


def _colour(arm: str) -> tuple:
    return PAPERS if arm in PAPER_ARMS else CONTROL if arm == CHEAPEST else RIVALS


def ranks(table: pd.DataFrame) -> plt.Figure:
    """Pass@1 of every arm, the best first, at the main budget and (hollow) at the second.

    ``table`` of ``rivals.arms``.
    """
    theme()
    figure, axis = plt.subplots(figsize=(6.6, 0.25 * len(table) + 1))
    second = next(
        (name for name in table if name.startswith("pass@1 in ") and not name.endswith(("_low", "_high"))), None
    )
    for y, (arm, row) in enumerate(table.iterrows()):
        ends = pd.DataFrame([{"value": row["pass@1"], "low": row["pass@1_low"], "high": row["pass@1_high"]}])
        axis.errorbar([100 * row["pass@1"]], [y], xerr=spread(ends), fmt="o", ms=5, lw=1.2, color=_colour(arm))
        if second:
            axis.plot([100 * row[second]], [y], "o", ms=5, mfc="none", color=_colour(arm))
    if PALIGN in table.index:
        axis.axvline(100 * table.loc[PALIGN, "pass@1"], color=PAPERS, ls="--", lw=1)
    axis.set(yticks=range(len(table)), xlabel="Pass@1 (%)")
    axis.set_yticklabels(table.index, fontsize="small")
    for label in axis.get_yticklabels():
        label.set_color(_colour(label.get_text()))
        label.set_fontweight("bold" if label.get_text() == PALIGN else "normal")
    axis.invert_yaxis()
    figure.tight_layout()
    hollow = f" Hollow: {second.removeprefix('pass@1 ')}." if second else ""
    caption(figure, f"Blue: the paper's arms and our controls of them; green: {CHEAPEST}. {OVER}{hollow}")
    return figure


def curve(rows: pd.DataFrame) -> plt.Figure | None:
    """Pass@1 by number of updates, one line per arm with its name at the end; ``rows`` of ``rivals.curve``.

    ``None`` where there is one number only.
    """
    if rows.empty or rows["updates"].nunique() < 2:
        return None
    theme()
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    ends = []
    for (arm, own), colour in zip(rows.groupby("arm", sort=False), sns.color_palette("colorblind", 10), strict=False):
        own = own.sort_values("updates")
        axis.errorbar(
            own["updates"], 100 * own["value"], yerr=spread(own), fmt="o-", ms=4, lw=1.4, capsize=2, color=colour
        )
        ends.append((100 * own["value"].iloc[-1], arm, colour))
    last, apart = rows["updates"].max(), None
    for value, arm, colour in sorted(ends):
        apart = value if apart is None else max(value, apart + 2.2)  # names must not lie on each other
        axis.annotate(arm, (last, apart), xytext=(8, 0), textcoords="offset points", color=colour, va="center")
    axis.set_xscale("log")
    axis.set(xlabel="optimizer updates", ylabel="Pass@1 (%)", xticks=sorted(rows["updates"].unique()))
    axis.set_xticklabels(sorted(rows["updates"].unique()))
    axis.minorticks_off()
    figure.tight_layout()
    caption(figure, OVER)
    return figure


def worlds(rows: pd.DataFrame) -> plt.Figure | None:
    """How far each arm's Pass@1 lies above P-ALIGN's, one panel per world; ``rows`` of ``rivals.worlds``."""
    rows = rows.dropna(subset="over") if len(rows) and "over" in rows else rows.iloc[:0]
    if rows.empty:
        return None
    theme()
    names, order = list(rows["world"].unique()), list(rows["arm"].unique())
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.5 * len(names) + 1.4, 0.34 * len(order) + 1.4), sharey=True, squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        own = rows[rows["world"] == name]
        own = own.assign(value=own["over"], low=own["over_low"], high=own["over_high"])
        at = [order.index(arm) for arm in own["arm"]]
        axis.errorbar(100 * own["value"], at, xerr=spread(own), fmt="o", ms=5, lw=1.2, color=RIVALS)
        axis.axvline(0, color="black", lw=1)
        axis.set_title(name, fontsize="small", wrap=True)
        axis.set(xlabel="points over P-ALIGN")
    axes[0][0].set(yticks=range(len(order)), yticklabels=order)
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    caption(figure, OVER)
    return figure


def errors(rows: pd.DataFrame, order: list[str]) -> plt.Figure | None:
    """What wrong responses get wrong, one bar per arm; ``rows``: the ``average`` of ``palign.pocket.errors``."""
    if rows.empty:
        return None
    theme()
    wide = rows.pivot(index="arm", columns="error", values="value").fillna(0.0)
    wide = wide.loc[[arm for arm in order if arm in wide.index]]
    figure, axis = plt.subplots(figsize=(6.6, 0.25 * len(wide) + 1))
    left = pd.Series(0.0, index=wide.index)
    palette = sns.color_palette("colorblind", 10)
    for kind, colour in KINDS.items():
        if kind in wide and wide[kind].max() > 0.005:
            axis.barh(
                range(len(wide)), 100 * wide[kind], left=100 * left, color=palette[colour], label=kind, height=0.7
            )
            left = left + wide[kind]
    axis.set(yticks=range(len(wide)), xlabel="wrong responses (% of all)")
    axis.set_yticklabels(wide.index, fontsize="small")
    axis.invert_yaxis()
    figure.tight_layout()
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption(figure, "Average over benchmarks. Intervals are in errors.csv.")
    return figure
