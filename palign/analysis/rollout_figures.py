"""The figures on recorded rollouts, from the tables of :mod:`palign.analysis.rollouts`; nothing is computed here.

>>> curves(table, by_share(table))
>>> frontier(kept)
"""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from .style import caption, spread, theme

COLOURS = dict(zip(("right", "wrong"), sns.color_palette("colorblind", 2), strict=True))
OVER = "Bars: 95 % intervals over traces."
ENDS = {"value": "", "low": "_low", "high": "_high"}
"""The columns of an estimate, and how those of ``by_share`` end."""


SEARCHES = {"equation7": "Equation 7"}
"""Searches whose name is not what a reader calls them."""
RECORDED_TRACE = re.compile(r"(llama|qwen)-(\d+)b/(?:in)?correct/(\d+)")
RECORDED_MODEL = re.compile(r"deepseek-r1-distill-(llama|qwen)-(\d+)b")


def trace_name(name: str) -> str:
    """A recorded trace by its model and problem; another file's trace has the name that the file gives it.

    >>> trace_name("llama-8b/correct/6596")
    'Llama-8B, problem 6596'
    """
    return RECORDED_TRACE.sub(lambda found: f"{found[1].title()}-{found[2]}B, problem {found[3]}", name)


def model_name(name: str) -> str:
    """
    >>> model_name("deepseek-r1-distill-llama-8b")
    'DeepSeek-R1-Distill-Llama-8B'
    """
    return RECORDED_MODEL.sub(lambda found: f"DeepSeek-R1-Distill-{found[1].title()}-{found[2]}B", name)


def _above(figure: plt.Figure, axis: plt.Axes, columns: int) -> None:
    """The panels' common legend, above them: the caption stands below."""
    figure.tight_layout()
    handles, words = axis.get_legend_handles_labels()
    figure.legend(handles, words, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=columns)


def _answers(table: pd.DataFrame) -> list[str]:
    """The kinds of trace that the table has, right ones first."""
    return [name for name, right in (("right", True), ("wrong", False)) if (table["right"] == right).any()]


def curves(table: pd.DataFrame, means: pd.DataFrame) -> plt.Figure:
    """Success by share of the trace, one line per trace, and the means (``rollouts.by_share``)."""
    theme()
    names = _answers(table)
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        rows = table[table["right"] == (name == "right")]
        for _, one in rows.groupby("trace"):
            axis.plot(100 * one["share"], 100 * one["success"], color=COLOURS[name], lw=0.6, alpha=0.5)
        if len(means):
            mean = means[means["answer"] == name]
            bars = spread(pd.DataFrame({end: mean[f"success{tail}"] for end, tail in ENDS.items()}))
            axis.errorbar(
                100 * mean["share"], 100 * mean["success"], yerr=bars, fmt="o", color="black", ms=4, capsize=2
            )
        axis.set(title=f"{name} traces, n = {rows['trace'].nunique()}", xlabel="prefix (% of sentences)")
    axes[0][0].set(ylabel="continuations right (%)", ylim=(-3, 103))
    figure.tight_layout()
    caption(figure, f"Lines: single traces. Points: means of the traces without a gap. {OVER}")
    return figure


def drops(rows: pd.DataFrame) -> plt.Figure:
    """The largest fall of each trace; ``rows``: :func:`palign.analysis.rollouts.monotone`."""
    theme()
    rows = rows.sort_values(["right", "drop"]).reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(6.4, 0.21 * len(rows) + 1.2))
    for name in _answers(rows):
        own = rows[rows["right"] == (name == "right")]
        bars = spread(own.assign(value=own["drop"]))
        label = f"{name}, n = {len(own)}"
        axis.errorbar(100 * own["drop"], own.index, xerr=bars, fmt="o", ms=4, lw=1, color=COLOURS[name], label=label)
    axis.plot(100 * rows["by_chance"], rows.index, "|", color="black", ms=7, label="by chance, if it never fell")
    axis.set(yticks=rows.index, xlabel="largest fall of success (points)", xlim=(-3, 103))
    axis.set_yticklabels(rows["trace"].map(trace_name), fontsize="x-small")
    axis.margins(y=0.01)
    figure.tight_layout()
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption(
        figure,
        "Bars: 95 % intervals of the true fall, allowing for the recorded one having been picked as the largest.",
    )
    return figure


def landings(rows: pd.DataFrame) -> plt.Figure | None:
    """Where searches end on right traces, a panel per kind of verdict.

    ``rows``: :func:`palign.analysis.rollouts.searches`. ``None`` where there are no such traces.
    """
    rows = rows[(rows["right"] == True) & (rows["measure"] == "landing")]  # noqa: E712  an empty table has no booleans
    if rows.empty:
        return None
    theme()
    kinds, thresholds = sorted(rows["samples"].unique()), sorted(rows["threshold"].unique())
    widths = [0.5 if samples == 1 else 1 for samples in kinds]
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(2.5 * sum(widths) + 0.8, 3.2), sharey=True, squeeze=False, width_ratios=widths
    )
    searches = list(rows["search"].unique())
    for axis, samples in zip(axes[0], kinds, strict=True):
        for i, (name, colour) in enumerate(zip(searches, sns.color_palette("colorblind", len(searches)), strict=True)):
            own = rows[(rows["samples"] == samples) & (rows["search"] == name)]
            if samples == 1:
                own = own[own["threshold"] == thresholds[0]]  # one continuation is right or not, whatever the threshold
            at = 100 * own["threshold"] + 2 * (i - (len(searches) - 1) / 2)
            label = SEARCHES.get(name, name)
            axis.errorbar(at, 100 * own["value"], yerr=spread(own), fmt="o", ms=4, lw=1, color=colour, label=label)
        axis.set_title(f"{samples} continuation{'s' if samples > 1 else ''}" if samples else "recorded share")
        if samples == 1:
            axis.set(xlabel="ENOUGH if right", xticks=[])
        else:
            axis.set(xlabel="ENOUGH from (% right)", xticks=[100 * t for t in thresholds])
    axes[0][0].set(ylabel="kept (% of sentences)", ylim=(-3, 103))
    _above(figure, axes[0][0], len(searches))
    caption(figure, f"n = {rows['n'].max()} right traces. {OVER}")
    return figure


def frontier(rows: pd.DataFrame, printed: float = 0.97) -> plt.Figure | None:
    """Retention by share of the trace, for each policy; ``rows``: :func:`palign.analysis.rollouts.frontier`.

    ``printed``: the paper's own retention, a dashed line. ``None`` where no trace is without a gap.
    """
    if rows.empty:
        return None
    theme()
    names, families = _answers(rows), list(rows["family"].unique())
    colours = dict(zip(families, sns.color_palette("colorblind", len(families)), strict=True))
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.8), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        own = rows[rows["right"] == (name == "right")]
        axis.axhline(100 * printed, color="grey", ls="--", lw=1)
        for family in families:
            part = own[own["family"] == family]
            kept, share = (part[part["measure"] == measure].set_index("policy") for measure in ("retention", "share"))
            at = 100 * share.loc[kept.index, "value"]
            axis.errorbar(
                at, 100 * kept["value"], yerr=spread(kept), fmt="o", ms=4, lw=0.8, color=colours[family], label=family
            )
        axis.set(title=f"{name} traces, n = {own['n'].max()}", xlabel="prefix where it ends (% of sentences)")
    axes[0][0].set(ylabel="pairs kept (%)", ylim=(-3, 103))
    _above(figure, axes[0][0], 3)
    caption(figure, f"{OVER} Dashed: the share of pairs that the paper's filter keeps, {100 * printed:.0f} %.")
    return figure


def tags(rows: pd.DataFrame) -> plt.Figure | None:
    """What sentences do before and behind the point of enough; ``rows``: those of ``tags_around``, ``None`` without."""
    if rows.empty:
        return None
    theme()
    order = list(rows["tag"].unique())
    figure, axis = plt.subplots(figsize=(6.4, 0.36 * len(order) + 1.2))
    for where, shift, colour in zip(
        ("before", "behind"), (0.12, -0.12), sns.color_palette("colorblind", 2), strict=True
    ):
        own = rows[rows["where"] == where]
        at = [shift - order.index(tag) for tag in own["tag"]]
        axis.errorbar(100 * own["value"], at, xerr=spread(own), fmt="o", ms=4, lw=1, color=colour, label=where)
    axis.set(yticks=[-i for i in range(len(order))], yticklabels=[tag.replace("_", " ") for tag in order])
    axis.set(xlabel="share of the sentences (%)", xlim=(-0.02 * axis.get_xlim()[1], None))  # a point on 0 is whole
    figure.tight_layout()
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="point of enough")
    caption(figure, f"n = {rows['n'].max()} right traces. {OVER}")
    return figure


def positions(rows: pd.DataFrame, rare: float = 0.05) -> plt.Figure | None:
    """What sentences do along right traces, a panel per tag; ``rows``: those of ``tags_by_position``, ``None`` without.

    A tag whose share is below ``rare`` everywhere is left out.
    """
    order = [tag for tag, own in rows.groupby("tag", sort=False) if (own["value"] >= rare).any()]
    if not order:
        return None
    theme()
    columns = min(len(order), 4)
    down = -(-len(order) // columns)
    size = (2.1 * columns + 0.8, 2.1 * down + 0.5)
    figure, axes = plt.subplots(down, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(order) :]:
        axis.set_visible(False)
    for axis, tag in zip(axes.flat, order, strict=False):
        own = rows[rows["tag"] == tag]
        axis.errorbar(100 * own["share"], 100 * own["value"], yerr=spread(own), fmt="o-", ms=3, lw=1)
        axis.set_title(tag.replace("_", " "), fontsize="medium")
        axis.set(xlim=(0, 100))
    axes[0][0].set(ylim=(0, None))
    figure.supylabel("share of the sentences (%)", fontsize="small")
    figure.supxlabel("position in the trace (% of sentences)", fontsize="small")
    figure.tight_layout()
    left = f"Tags below {100 * rare:.0f} % everywhere are left out. " if len(order) < rows["tag"].nunique() else ""
    caption(figure, f"n = {rows['n'].max()} right traces. {left}{OVER}")
    return figure


def beside(means: dict[str, pd.DataFrame]) -> plt.Figure | None:
    """The success of right traces by share of the trace, one line for each table (by its name).

    ``means``: of each, ``rollouts.by_share``; ``None`` where no table has right traces.
    """
    means = {name: table[table["answer"] == "right"] for name, table in means.items()}
    means = {name: table for name, table in means.items() if len(table)}
    if not means:
        return None
    theme()
    figure, axis = plt.subplots(figsize=(5.4, 3.4))
    for i, (name, table) in enumerate(means.items()):
        bars = spread(pd.DataFrame({end: table[f"success{tail}"] for end, tail in ENDS.items()}))
        at, label = 100 * table["share"] + i - (len(means) - 1) / 2, f"{name}, n = {table['n'].max()}"
        axis.errorbar(at, 100 * table["success"], yerr=bars, fmt="o-", ms=4, lw=1, capsize=2, label=label)
    axis.set(xlabel="prefix (% of sentences)", ylabel="continuations right (%)", xlim=(-3, 103), ylim=(-3, 103))
    figure.tight_layout()
    axis.legend(frameon=False, loc="lower right")
    caption(figure, f"Right traces without a gap. {OVER}")
    return figure
