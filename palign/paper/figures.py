"""The audit's figures, from its tables; nothing is computed here.

>>> samples(cells.by_samples())
>>> forest(gains.gains(), ["average", "pooled"])
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from ..analysis.style import caption, theme
from .gains import POOLED
from .printed import AVERAGE, named


def samples(table: pd.DataFrame) -> plt.Figure:
    """Whether one number of samples would explain the AMC12 cells; ``table``: :func:`palign.paper.cells.by_samples`."""
    theme()
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    cell, number = sns.color_palette("colorblind", 2)
    axis.plot(table["samples"], 100 * table["any_number"], color=number, label="any number of two decimals")
    axis.plot(table["samples"], 100 * table["cells"], "o", ms=4, color=cell, label="the cells that are not k/83")
    axis.set(xlabel="samples per problem, s", ylabel="attainable as k/(83 s) (%)", ylim=(-3, 103), xlim=(0, None))
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    caption(figure, f"n = {table['n'].iloc[0]} distinct Pass@1 cells on AMC12, Tables 1, 2, 6, 8 and 9.")
    return figure


def forest(table: pd.DataFrame, scopes: Sequence[str]) -> plt.Figure:
    """P-ALIGN's gains with both intervals, one panel per scope; ``table``: rows of :func:`palign.paper.gains.gains`."""
    theme()
    table = table[table["scope"].isin(scopes)]
    table = table.assign(student=named(table).str.replace("-Instruct", ""))
    rows = table.drop_duplicates(["student", "metric", "worse"])
    lines = []  # a heading for each student, then its gains
    for student, own in rows.groupby("student", sort=False):
        lines += [(student, "", ""), *own[["student", "metric", "worse"]].itertuples(index=False, name=None)]
    names = [f"{metric.capitalize()}, minus {worse}" if metric else student for student, metric, worse in lines]
    columns = min(len(scopes), 2)
    down = -(-len(scopes) // columns)
    size = (7.0, down * (0.2 * len(lines) + 1) + 0.2)
    figure, axes = plt.subplots(down, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    pale, dark = sns.color_palette("colorblind", 2)
    for axis, scope in zip(axes.flat, scopes, strict=True):
        rows = table[table["scope"] == scope]
        at = [lines.index(key) for key in rows[["student", "metric", "worse"]].itertuples(index=False, name=None)]
        axis.axvline(0, color="grey", lw=1)
        axis.hlines(at, rows["low"], rows["high"], color=pale, lw=1.5, label="95 % interval, arms independent")
        axis.hlines(at, rows["best_low"], rows["best_high"], color=dark, lw=4, label="95 % interval, best pairing")
        axis.plot(rows["gain"], at, "o", ms=4, color="black", label="printed difference")
        sizes = " or ".join(str(n) for n in sorted(rows["problems"].unique()))
        axis.set_title(f"{scope}, n = {sizes}", fontsize="medium")
        axis.set(xlabel="gain (points)" if axis in axes[-1] else "", ylim=(len(lines) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axis.grid(axis="y", visible=False)
    for column in axes:
        column[0].set_yticks(range(len(lines)), names, fontsize="small")
        for label, (_, metric, _) in zip(column[0].get_yticklabels(), lines, strict=True):
            label.set(fontstyle="normal" if metric else "italic", color="black" if metric else "grey")
    handles, words = axes[0][0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, words, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=3)
    weights = {
        AVERAGE: "The average gives each benchmark the same weight.",
        POOLED: "Pooled gives each problem the same weight.",
    }
    said = ["P-ALIGN minus each named arm, as printed. n: problems; intervals: over problems."]
    said += [weights[scope] for scope in scopes if scope in weights]
    caption(figure, " ".join(said))
    return figure


def released_lengths(table: pd.DataFrame, budget: int) -> plt.Figure:
    """Cumulative distribution of the responses' lengths; a line marks ``budget`` tokens of 4 characters.

    ``table``: one row per response, with ``chars`` and ``closed``.
    """
    theme()
    table = table.assign(block=table["closed"].map({True: "prefix block closed", False: "never closed"}))
    order = [name for name in ("prefix block closed", "never closed") if name in set(table["block"])]
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    colours = sns.color_palette("colorblind", len(order))
    sns.ecdfplot(table, x="chars", hue="block", hue_order=order, stat="count", ax=axis, palette=colours)
    axis.axvline(4 * budget, color="grey", ls="--", lw=1)
    axis.set(xscale="log", xlabel="characters per response", ylabel="responses up to this length")
    axis.set_ylim(0, 1.05 * table["block"].value_counts().max())
    sns.move_legend(axis, "upper left", title=None, frameon=False)
    figure.tight_layout()
    closed = int(table["closed"].sum())
    counts = f"{closed} close the prefix block and {len(table) - closed} never do"
    caption(figure, f"n = {len(table)} responses: {counts}. Dashed: {budget:,} tokens of 4 characters each.")
    return figure
