"""The figures of notebooks 01 to 05: one step of the pipeline each. A study without the data gets no figure.

>>> trace_lengths(tables.lengths(results), results.budgets)
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..analysis import statistics
from ..analysis.style import caption, nothing, spread, theme
from .figures import COLOURBLIND, COLOURS
from .results import answered
from .tables import AVERAGE, POOLED

SIZE = (5.6, 3.2)
"""Inches, of one panel."""


def trace_lengths(lengths: pd.DataFrame, budgets: list[int]) -> plt.Figure:
    """How long the teacher's traces are (``tables.lengths``), with the response budgets as lines: tokens."""
    theme()
    tokens = lengths["tokens"]
    figure, axis = plt.subplots(figsize=SIZE)
    sns.histplot(tokens, bins=30, color=COLOURBLIND[0], ax=axis)
    for budget in budgets:
        axis.axvline(budget, ls="--", lw=1, color="black")
        words = f"{budget:,} tokens:\n{100 * (tokens < budget).mean():.0f} % fit"
        axis.annotate(words, (budget, 1), (-4, -4), xycoords=("data", "axes fraction"), textcoords="offset points")
        axis.texts[-1].set(ha="right", va="top", fontsize="small", backgroundcolor="white")
    axis.set(xlabel="length of a trace (student's tokens)", ylabel="traces", xlim=(0, None))
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # the words stand above the bars
    figure.tight_layout()
    caption(
        figure, f"n = {len(tokens):,} traces. Dashed: the response budgets, and the traces that fit into them whole."
    )
    return figure


def success(prefixes: pd.DataFrame, pairs: pd.DataFrame) -> plt.Figure | None:
    """The share of right continuations by how much of the trace the prefix holds, and by where it ends beside the
    oracle's end. ``prefixes`` and ``pairs`` of ``Results``, the adaptive ones.
    """
    theme()
    if prefixes.empty or pairs.empty:
        return nothing()
    own = prefixes.set_index("id")
    table = answered(pairs).set_index("id").join(own[["ratio"]])
    table["right"] = (table["outcome"] == "right").astype(float)
    table["past"] = own["sentences"] - own["oracle_sentences"]
    share = pd.cut(table["ratio"], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1])
    share = share.map(lambda part: f"{100 * part.left:.0f} to\n{100 * part.right:.0f} %")
    edges = [-1000, -20, -15, -10, -5, 0, 1, 1000]
    names = ["20 or more\nbefore", "15 to 19", "10 to 14", "5 to 9", "1 to 4\nbefore", "at its end", "past it"]
    where = pd.cut(table["past"], edges, right=False, labels=names)
    panels = [(share, "prefix (% of the trace's tokens)")]
    if table["past"].notna().all():
        panels.append((where, "prefix's end beside the oracle's (sentences)"))
    shown = {"trained on: one continuation": "right"}
    if table["success_rate"].notna().any():
        shown["measured: further continuations"] = "success_rate"
    figure, axes = plt.subplots(len(panels), 1, figsize=(SIZE[0], 3 * len(panels)), squeeze=False)
    for axis, (by, label) in zip(axes.flat, panels, strict=True):
        by = by.cat.remove_unused_categories()
        for i, (name, column) in enumerate(shown.items()):
            at = 0.16 * (i - (len(shown) - 1) / 2)
            _means(axis, table[column], by, at, label=name, color=COLOURBLIND[i])
        counts = by.value_counts(sort=False)
        axis.set_xticks(range(len(counts)), counts.index, fontsize="x-small")
        for x, n in enumerate(counts):
            axis.text(x, 1.01, f"{n}", transform=axis.get_xaxis_transform(), ha="center", fontsize="x-small")
        axis.set(xlabel=label, ylabel="right (%)", xlim=(-0.6, len(counts) - 0.4), ylim=(-3, 103))
    axes[0][0].legend(loc="lower left", fontsize="small")
    figure.tight_layout()
    words = f"n = {len(table):,} prefixes; above each panel: how many there are. Bars: 95 % intervals over prefixes."
    caption(figure, words)
    return figure


def _means(axis: plt.Axes, values: pd.Series, by: pd.Series, shift: float, **look: object) -> None:
    """The mean of fractions in each group with its interval, in percent; a group without a value has no mark."""
    groups = [values[by == name].dropna() for name in by.cat.categories]
    found = [(x, statistics.interval(group)) for x, group in enumerate(groups) if len(group)]
    rows = pd.DataFrame([vars(estimate) for _, estimate in found], columns=["value", "low", "high"])
    at = [x + shift for x, _ in found]
    axis.errorbar(at, 100 * rows["value"], yerr=spread(rows), fmt="o", ms=5, capsize=3, **look)


def losses(table: pd.DataFrame, arm: str) -> plt.Figure | None:
    """Training loss per update; ``table`` of ``Results.losses``."""
    theme()
    if table.empty:
        return nothing()
    figure, axis = plt.subplots(figsize=SIZE)
    sns.lineplot(table, x="step", y="loss", color=COLOURS[arm], ax=axis)
    axis.set(xlabel="update", ylabel="loss (nats per token)", ylim=(0, None))
    figure.tight_layout()
    caption(figure, f"n = {len(table):,} logged updates of {arm}, one training run.")
    return figure


def benchmarks(table: pd.DataFrame) -> plt.Figure:
    """One arm's accuracy on each benchmark and their mean, one panel per metric; ``table`` of ``tables.accuracy``."""
    theme()
    table = table[table["benchmark"] != POOLED]
    metrics, names = list(table["metric"].unique()), list(table["benchmark"].unique())
    budgets = sorted(table["budget"].unique(), reverse=True)
    colour = COLOURS[table["arm"].iloc[0]]
    size = (7.0, 0.34 * len(names) + 1.4)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for k, budget in enumerate(budgets):
            rows = table[(table["metric"] == metric) & (table["budget"] == budget)]
            at = [names.index(name) + 0.25 * (k - (len(budgets) - 1) / 2) for name in rows["benchmark"]]
            look = {"fmt": "o", "ms": 5, "capsize": 3, "color": colour, "mfc": "white" if k else colour}
            axis.errorbar(100 * rows["value"], at, xerr=spread(rows), label=f"{budget:,} tokens", **look)
        if AVERAGE in names:
            axis.axhline(names.index(AVERAGE) - 0.5, lw=0.8, color="grey")
        axis.set(title=metric.capitalize(), xlabel="right (%)", xlim=(-2, 102))
    axes[0][0].set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    figure.tight_layout()
    if len(budgets) > 1:
        marks, words = axes[0][0].get_legend_handles_labels()
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": len(budgets)}
        figure.legend(marks, words, **place, frameon=False, title="response budget")
    sizes = table[table["benchmark"] != AVERAGE].drop_duplicates("benchmark")
    problems = ", ".join(f"{row.benchmark} {row.n:,}" for row in sizes.itertuples())
    caption(figure, f"Problems: {problems}. Bars: 95 % intervals over problems.")
    return figure


OUTCOMES = {
    "right": COLOURBLIND[2],
    "wrong": COLOURBLIND[1],
    "no box": "0.6",
    "unparseable": "0.4",
    "timed out": "0.2",
}


def response_lengths(grades: pd.DataFrame, budgets: list[int]) -> plt.Figure | None:
    """How long one arm's answered responses are, by their outcome, with the response budgets as lines: tokens."""
    theme()
    grades = answered(grades)
    if grades.empty:
        return nothing()
    order = [outcome for outcome in OUTCOMES if (grades["outcome"] == outcome).any()]
    figure, axis = plt.subplots(figsize=SIZE)
    bins = np.linspace(0, budgets[0], 33)
    sns.histplot(
        grades, x="new_tokens", hue="outcome", hue_order=order, palette=OUTCOMES, multiple="stack", bins=bins, ax=axis
    )
    for budget in budgets:
        axis.axvline(budget, ls="--", lw=1, color="black")
    sns.move_legend(axis, "upper right", title=None, fontsize="small")
    axis.set(xlabel="length of a response (tokens)", ylabel="responses", xlim=(0, 1.02 * budgets[0]))
    figure.tight_layout()
    stated = " and ".join(f"{budget:,}" for budget in budgets)
    caption(figure, f"n = {len(grades):,} answered responses. Dashed: the response budgets, {stated} tokens.")
    return figure
