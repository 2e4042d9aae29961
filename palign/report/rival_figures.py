"""The figures on rivals, from the tables of :mod:`palign.report.rivals`; nothing is computed here. An arm has the
colour and mark of :mod:`palign.report.figures`.

>>> ranks(arms(study), curve_table, samples(study))
>>> curve(curve_table, samples(study))
"""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from ..analysis.style import caption, spread, theme
from ..arms import ARMS, PAPER_ARMS
from ..tasks.plan import SELECTED
from .figures import COLOURS, STYLES, TOP
from .rivals import CHEAPEST, PALIGN

OVER = "Bars: 95 % intervals over problems and training seeds."
KINDS = {"missing knowledge": 0, "doubt": 1, "slip": 2, "skipped": 3, "no answer": 4, "other": 7}
"""Kinds of errors -> their colour in the palette."""
NOTES = {
    "sft-long-cot": "whole traces",
    PALIGN: "the paper's method",
    "p-align-fallback": "dropped problems: the whole trace",
    "p-align-fallback-prompt": "the trace under another prompt",
    "p-align-backoff": "dropped problems: a longer prefix",
    CHEAPEST: "own right answer, else the trace",
    "backoff": "longer and longer, from 10 %",
    "backoff-30": "longer and longer, from 30 %",
    "select-likely": "the likeliest of right responses",
}
"""What the arms of the curve are, in a few words."""


def _dot(axis: plt.Axes, rows: pd.DataFrame, at: list, arm: str, colour: tuple | str, hollow: bool = False) -> None:
    """Values with their intervals, in percent, at heights."""
    look = {
        "fmt": STYLES[arm][1] if colour == COLOURS[arm] else "o",
        "ms": 4.5,
        "lw": 1.2,
        "color": colour,
        "zorder": TOP if arm == PALIGN else 3,
    }
    axis.errorbar(100 * rows["value"], at, xerr=spread(rows), mfc="white" if hollow else colour, **look)


def _names(axis: plt.Axes, arms: list[str]) -> None:
    """Write the arms' names at the side, the first at the top, P-ALIGN's bold."""
    axis.set(yticks=range(len(arms)), ylim=(len(arms) - 0.4, -0.6))
    axis.set_yticklabels(arms, fontsize=8)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == PALIGN else "normal")


def ranks(table: pd.DataFrame, rows: pd.DataFrame, samples: str) -> plt.Figure:
    """Pass@1 of every arm, the best first, at the main budget and (hollow) at the second, as narrow as a telephone.

    ``table`` of ``rivals.arms``; ``rows`` of ``rivals.curve``: its arms, and the paper's, have their colours.
    """
    theme()
    figure, axis = plt.subplots(figsize=(3.9, 0.2 * len(table) + 0.8))
    coloured = {*PAPER_ARMS, CHEAPEST, *(rows["arm"] if len(rows) else ())}
    names = ["pass@1", *(name for name in table if name.startswith("pass@1 in ") and name.endswith("tokens"))]
    for k, name in enumerate(names):
        ends = table[[name, f"{name}_low", f"{name}_high"]].set_axis(["value", "low", "high"], axis=1)
        for y, arm in enumerate(table.index):
            colour = COLOURS[arm] if arm in coloured else "0.6"
            _dot(axis, ends.loc[[arm]], [y + 0.3 * k], arm, colour, hollow=k > 0)
    if PALIGN in table.index:
        axis.axvline(100 * table.loc[PALIGN, "pass@1"], color=COLOURS[PALIGN], ls="--", lw=1, zorder=1)
    axis.set(xlabel="average Pass@1 (%)", xlim=(-3, 103), xticks=range(0, 101, 20))
    _names(axis, list(table.index))
    figure.tight_layout()
    hollow = "".join(f" Filled: the main budget; hollow: {name.removeprefix('pass@1 in ')}." for name in names[1:])
    said = f"Dashed: {PALIGN}. Grey: rivals that the figure by updates leaves out."
    caption(figure, "\n".join(textwrap.wrap(f"{samples}. {OVER}{hollow} {said}", 54)))
    return figure


def curve(rows: pd.DataFrame, samples: str) -> plt.Figure | None:
    """Pass@1 by number of updates, one line per arm with its name at the end; ``rows`` of ``rivals.curve``.

    ``None`` where there is one number only.
    """
    from scipy.optimize import isotonic_regression

    if rows.empty or rows["updates"].nunique() < 2:
        return None
    theme()
    figure, axis = plt.subplots(figsize=(8, 4.6))
    updates, arms = sorted(rows["updates"].unique()), list(rows["arm"].unique())
    ends = {}
    for k, arm in enumerate(arms):
        own, (colour, marker) = rows[rows["arm"] == arm].sort_values("updates"), STYLES[arm]
        at = own["updates"] * 1.02 ** (k - (len(arms) - 1) / 2)  # side by side, or intervals hide each other
        look = {"lw": 2.4 if arm == PALIGN else 1.5, "ls": "-" if _judged(arm) else "--"}
        look |= {"ms": 5, "capsize": 2, "elinewidth": 1.2, "zorder": TOP if arm == PALIGN else 3}
        axis.errorbar(at, 100 * own["value"], yerr=spread(own), marker=marker, color=colour, **look)
        ends[arm] = (at.iloc[-1], 100 * own["value"].iloc[-1])
    axis.set(xscale="log", xlabel="optimizer updates", ylabel="average Pass@1 (%)", xticks=updates)
    axis.set_xticklabels(updates)
    axis.minorticks_off()
    order = sorted(arms, key=lambda arm: ends[arm][1])
    low, high = axis.get_ylim()
    apart = pd.Series(range(len(order))) * 0.052 * (high - low)  # names must not lie on each other
    heights = isotonic_regression(pd.Series([ends[arm][1] for arm in order]) - apart).x + apart
    for arm, height in zip(order, heights, strict=True):
        line = {"arrowstyle": "-", "color": COLOURS[arm], "shrinkA": 1, "shrinkB": 5}
        side = axis.get_yaxis_transform()
        axis.annotate("", ends[arm], (1.045, height), textcoords=side, arrowprops=line)
        # by itself: the box of a name with its line holds both, and the note beside it would hang between
        name = axis.text(1.05, height, arm, transform=side, va="center", fontsize=10, fontweight="bold")
        beside = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(NOTES.get(arm, ""), (1, 0.5), xycoords=name, **beside, fontsize=9, color="0.35")
    figure.tight_layout()
    caption(figure, f"{samples}.\n{OVER} Dashed lines: arms without a judge.")
    return figure


def _judged(arm: str) -> bool:
    """Whether the student's verdicts find the arm's prefixes, or some of those that it chooses among."""
    strategy = ARMS[arm].strategy or ""
    return strategy.startswith("adaptive") or strategy in SELECTED


def worlds(rows: pd.DataFrame, samples: str) -> plt.Figure | None:
    """How far each arm's Pass@1 lies above P-ALIGN's, one panel per world; ``rows`` of ``rivals.worlds``."""
    rows = rows.dropna(subset="over") if len(rows) and "over" in rows else rows.iloc[:0]
    if rows.empty:
        return None
    theme()
    names, order = list(rows["world"].unique()), list(rows["arm"].unique())
    size = (1.7 * len(names) + 2, 0.26 * len(order) + 1.4)
    figure, axes = plt.subplots(1, len(names), figsize=size, sharex=True, sharey=True, squeeze=False)
    _names(axes[0][0], order)
    for axis, name in zip(axes[0], names, strict=True):
        own = rows[rows["world"] == name].set_index("arm")
        own = own.assign(value=own["over"], low=own["over_low"], high=own["over_high"])
        for arm in own.index:
            _dot(axis, own.loc[[arm]], [order.index(arm)], arm, COLOURS[arm])
        axis.axvline(0, color=COLOURS[PALIGN], ls="--", lw=1, zorder=1)
        axis.set_title(textwrap.fill(name, 20), fontsize="small")
    figure.supxlabel("Pass@1 minus P-ALIGN's (points)", fontsize="medium")
    figure.tight_layout()
    caption(figure, f"In each world {samples}. {OVER}\nDashed: {PALIGN}. An arm without a point was not run there.")
    return figure


def errors(rows: pd.DataFrame, order: list[str], samples: str) -> plt.Figure | None:
    """What wrong responses get wrong, one bar per arm; ``rows``: the ``average`` of ``palign.pocket.errors``."""
    if rows.empty:
        return None
    theme()
    wide = rows.pivot(index="arm", columns="error", values="value").fillna(0.0)
    wide = wide.loc[[arm for arm in order if arm in wide.index]]
    figure, axis = plt.subplots(figsize=(6.6, 0.2 * len(wide) + 1.2))
    left = pd.Series(0.0, index=wide.index)
    palette = sns.color_palette("colorblind", 10)
    for kind, colour in KINDS.items():
        if kind in wide and wide[kind].max() > 0.005:
            axis.barh(
                range(len(wide)), 100 * wide[kind], left=100 * left, color=palette[colour], label=kind, height=0.7
            )
            left = left + wide[kind]
    right = rows[rows["error"] == "right"].set_index("arm")
    if len(right):
        wrong = 1 - right.loc[wide.index, ["value", "high", "low"]].set_axis(["value", "low", "high"], axis=1)
        axis.errorbar(
            100 * wrong["value"], range(len(wide)), xerr=spread(wrong), fmt="none", ecolor="0.25", elinewidth=1
        )
    axis.set(xlabel="wrong responses (% of all)")
    _names(axis, list(wide.index))
    figure.tight_layout()
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption(figure, f"Average over benchmarks; {samples}.\nThin lines: 95 % intervals of all wrong responses together.")
    return figure
