"""The audit's figures, from its tables; nothing is computed here.

>>> samples(cells.by_samples())
>>> forest(gains.gains(), ["average", "pooled"])
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from ..analysis.style import caption, theme
from .printed import named


def samples(table: pd.DataFrame) -> plt.Figure:
    """Whether one number of samples would explain the AMC12 cells; ``table``: :func:`palign.paper.cells.by_samples`."""
    theme()
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    cell, number = sns.color_palette("colorblind", 2)
    axis.plot(table["samples"], 100 * table["any_number"], color=number, label="any number of two decimals")
    axis.plot(table["samples"], 100 * table["cells"], "o", ms=4, color=cell, label="the cells that are not k/83")
    axis.set(xlabel="samples a problem, s", ylabel="attainable as k/(83 s) (%)", ylim=(-3, 103), xlim=(0, None))
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    caption(figure, f"n = {table['n'].iloc[0]} distinct Pass@1 cells on AMC12, Tables 1, 2, 6, 8 and 9.")
    return figure


def forest(table: pd.DataFrame, scopes: Sequence[str]) -> plt.Figure:
    """P-ALIGN's gains with both intervals, one panel per scope; ``table``: rows of :func:`palign.paper.gains.gains`."""
    theme()
    table = table[table["scope"].isin(scopes)]
    labels = named(table).str.replace("-Instruct", "") + ", " + table["metric"] + ", less " + table["worse"]
    names = list(labels.unique())
    places = {name: -i for i, name in enumerate(names)}
    width = 0.082 * max(map(len, names)) + 2.6 * len(scopes)  # inches, for the labels and the panels
    size = (width, 0.28 * len(names) + 1.3)
    figure, axes = plt.subplots(1, len(scopes), figsize=size, sharex=True, sharey=True, squeeze=False)
    pale, dark = sns.color_palette("colorblind", 2)
    for axis, scope in zip(axes[0], scopes, strict=True):
        rows = table[table["scope"] == scope]
        at = labels[rows.index].map(places)
        axis.axvline(0, color="grey", lw=1)
        axis.hlines(at, rows["low"], rows["high"], color=pale, lw=1.5, label="95 %, arms independent")
        axis.hlines(at, rows["best_low"], rows["best_high"], color=dark, lw=4, label="95 %, best pairing")
        axis.plot(rows["gain"], at, "o", ms=4, color="black", label="printed difference")
        sizes = " or ".join(str(n) for n in sorted(rows["problems"].unique()))
        axis.set(title=f"{scope}\nn = {sizes}", xlabel="gain (points)")
        axis.set(yticks=[-i for i in range(len(names))], yticklabels=names, ylim=(-len(names) + 0.3, 0.7))
        axis.grid(axis="y", visible=False)
    handles, words = axes[0][0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, words, loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False, ncols=3)
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
    axis.set(xscale="log", xlabel="length of a response (characters)", ylabel="responses up to this length")
    axis.set_ylim(0, 1.05 * table["block"].value_counts().max())
    sns.move_legend(axis, "upper left", title=None, frameon=False)
    figure.tight_layout()
    counts = ", ".join(f"{(table['block'] == name).sum()} {name}" for name in order)
    caption(figure, f"n = {len(table)} responses: {counts}. Dashed: {budget:,} tokens of 4 characters.")
    return figure
