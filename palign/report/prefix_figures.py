"""The report's figures of prefixes and of their judge: each takes a table or records. Every axis has its unit.

>>> figure = prefix_ratios(study.prefixes())
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..analysis.style import caption, nothing, spread, theme
from ..tasks.store import visible
from ..traces import RULES
from .figures import COLOURBLIND, COLOURS, OURS, TOP, WIDTH
from .texts import LONGEST_QUESTION, MOST_LINES
from .views import SEARCHES

MOST_NAMED = 12
"""Verdicts with their number and label beside them."""
LONGEST = 54
"""Characters of a sentence that fit."""


def prefix_ratios(prefixes: pd.DataFrame) -> plt.Figure | None:
    """How much of each trace was kept, beside the oracle if there is one."""
    theme()
    if prefixes.empty:
        return nothing()
    good = prefixes[prefixes["status"] == "ok"]
    long = good.melt(value_vars=["sentence_ratio", "oracle_ratio"], var_name="prefix", value_name="share").dropna()
    long["prefix"] = long["prefix"].map({"sentence_ratio": "kept by the student", "oracle_ratio": "oracle"})
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    long["share"] *= 100
    sns.ecdfplot(long, x="share", hue="prefix", stat="percent", palette="colorblind", ax=axis)
    sns.move_legend(axis, "lower right", title=None)
    axis.set(xlabel="prefix (% of the trace's sentences)", ylabel="traces (%)", xlim=(0, 100), ylim=(0, 102))
    figure.tight_layout()
    caption(figure, f"n = {len(good):,} traces. The curve's height: traces whose prefix is at most so long.")
    return figure


def judge(verdicts: pd.DataFrame) -> plt.Figure | None:
    """Share of ENOUGH against the distance from the oracle prefix, with Wilson intervals."""
    from statsmodels.stats.proportion import proportion_confint

    theme()
    if verdicts.empty or verdicts["distance"].isna().all():
        return nothing()
    valid = verdicts[verdicts["label"] != "error"]
    # wide bins outside, single sentences around the oracle, where verdicts turn
    edges = [-1000, -8, -5, -3, -1, 0, 2, 5, 10, 1000]
    names = ["< −8", "−8 to −6", "−5, −4", "−3, −2", "−1", "0, 1", "2 to 4", "5 to 9", "≥ 10"]
    bins = pd.cut(valid["distance"], edges, right=False, labels=names)
    groups = valid.groupby(bins, observed=True)["enough"].agg(["sum", "count"])
    low, high = proportion_confint(groups["sum"], groups["count"], method="wilson")
    groups = groups.assign(value=groups["sum"] / groups["count"], low=low, high=high)
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    axis.errorbar(range(len(groups)), 100 * groups["value"], yerr=spread(groups), fmt="o-", capsize=3)
    axis.axvline((groups.index < "0, 1").sum() - 0.5, ls="--", lw=1, color="grey")
    axis.set(xticks=range(len(groups)), ylim=(-3, 103))
    axis.set_xticklabels(groups.index, fontsize="small")
    axis.set(xlabel="sentences past the oracle's end", ylabel="judged ENOUGH (%)")
    figure.tight_layout()
    caption(
        figure,
        f"n = {len(valid):,} verdicts, all that the search asked for. Bars: 95 % Wilson intervals.\n"
        "Dashed: the oracle's end.",
    )
    return figure


def monotone(by_share: pd.DataFrame, per_trace: pd.DataFrame) -> plt.Figure | None:
    """Judge, student and oracle along the trace; where the binary searches land relative to the first ENOUGH."""
    theme()
    if by_share.empty:
        return nothing()
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.4), width_ratios=[3, 2])
    names = list(by_share["what"].unique())
    for i, (what, colour) in enumerate(zip(names, sns.color_palette("colorblind"), strict=False)):
        rows = by_share[by_share["what"] == what]
        at = 100 * rows["share"] + 1.2 * (i - (len(names) - 1) / 2)
        left.errorbar(at, 100 * rows["value"], yerr=spread(rows), fmt="o-", ms=4, capsize=2, color=colour, label=what)
    left.set(xlabel="prefix (% of the trace's sentences)", ylabel="share (%)", xlim=(0, 100), ylim=(-3, 103))
    left.legend(loc="lower right", fontsize="small")
    gaps = per_trace.melt("linear", ["released", "equation7"], var_name="search", value_name="lands")
    gaps["gap"], gaps["search"] = gaps["lands"] - gaps["linear"], gaps["search"].map(SEARCHES)
    sns.histplot(
        gaps, x="gap", hue="search", discrete=True, multiple="dodge", shrink=0.8, palette="colorblind", ax=right
    )
    sns.move_legend(right, "upper right", fontsize="small", title=None)
    right.set(xlabel="sentences past\nthe first ENOUGH", ylabel="traces")
    right.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    turning = int((per_trace["turns"] > 0).sum())
    caption(
        figure,
        f"n = {len(per_trace):,} traces, all their prefixes judged; on {turning} of them an ENOUGH is followed by a "
        "NOT_ENOUGH.\nBars: 95 % intervals over traces, in tenths of the trace.",
    )
    return figure


def reliability(table: pd.DataFrame) -> plt.Figure | None:
    """The judge's confidence against the share of continuations that reach the gold answer."""
    theme()
    if table.empty:
        return nothing()
    figure, (axis, below) = plt.subplots(2, 1, figsize=(5.0, 5.0), height_ratios=[3, 1], sharex=True)
    axis.plot([0, 100], [0, 100], ls="--", lw=1, color="grey", label="calibrated")
    axis.errorbar(100 * table["confidence"], 100 * table["value"], yerr=spread(table), fmt="o-", ms=5, capsize=3)
    axis.set(ylabel="right continuations (%)", ylim=(-3, 103))
    axis.legend(loc="upper left", fontsize="small")
    below.bar(100 * table["from"] + 5, table["prefixes"], width=9)
    below.set(xlabel="judge's probability of ENOUGH (%)", ylabel="prefixes", xlim=(-2, 102))
    figure.tight_layout()
    caption(
        figure,
        f"n = {int(table['prefixes'].sum()):,} continued prefixes, in bins of ten points.\nBars: 95 % intervals over "
        "the bin's traces.",
    )
    return figure


def reads(table: pd.DataFrame) -> plt.Figure | None:
    """How many tokens truncation read, beside reading each prompt from its start: whole prompts both."""
    theme()
    if table.empty:
        return nothing()
    rows = table.loc[["whole prompts", "whole prompts, each read anew"]]
    figure, axis = plt.subplots(figsize=(6.4, 2.0))
    bars = [(rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)]
    colours = sns.color_palette("colorblind", len(rows))
    axis.barh(range(len(rows)), rows["value"], xerr=bars, capsize=3, color=colours)
    axis.set(yticks=range(len(rows)), yticklabels=rows.index, xlabel="tokens read per token of trace and question")
    axis.axvline(1, ls="--", lw=1, color="grey")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    figure.tight_layout()
    caption(
        figure,
        f"n = {int(rows['n'].iloc[0]):,} traces. Bars: 95 % intervals over traces. Dashed: trace and question once.",
    )
    return figure


def entropy(table: pd.DataFrame) -> plt.Figure | None:
    """The student's token entropy over ten equal chunks of the trace (Figure 4a); ``table`` of ``entropy.by_chunk``."""
    theme()
    if table.empty:
        return nothing()
    rows = table[table.index.str.isdigit()]
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    bars = [(rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)]
    axis.errorbar(range(1, len(rows) + 1), rows["value"], yerr=bars, fmt="o-", ms=5, capsize=3)
    mean = table.loc["trace", "value"]
    axis.axhline(mean, ls="--", lw=1, color="grey", label=f"mean over the trace, {mean:.2f}")
    axis.set(xlabel="tenth of the trace's tokens", ylabel="entropy (nats per token)", xticks=range(1, len(rows) + 1))
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize="small")
    figure.tight_layout()
    caption(
        figure, f"n = {int(rows['n'].iloc[0]):,} traces, read by the untrained student. Bars: 95 % intervals over them."
    )
    return figure


def one_search(search: Mapping, rule: str = "released") -> plt.Figure | None:
    """One search on its trace: the kept prefix shaded, the verdicts in the order asked, and the oracle's end.

    ``search``: a row of ``Results.prefixes`` with its ``trace`` (``texts.worked_case``, :func:`typical`); ``rule``: how
    the study splits traces into sentences. The sentences of a trace of up to :data:`MOST_LINES` can be read; a longer
    one is a bar.
    """
    theme()
    if not search or search["status"] != "ok" or not len(search["verdicts"]):
        return nothing()
    probes = [(p, label) for p, label, _ in search["verdicts"]]
    kept, oracle = int(search["sentences"]), search["oracle_sentences"]
    if search["of"] <= MOST_LINES:
        figure = _on_the_text(RULES[rule].split(search["trace"]), kept, oracle, probes)
    else:
        figure = _on_a_bar(search["of"], kept, oracle, probes)
    figure.tight_layout()
    question = textwrap.fill(textwrap.shorten(visible(search["question"]), LONGEST_QUESTION, placeholder=" ..."), 100)
    figure.text(0.01, 1.0, question, ha="left", va="bottom", fontsize="small", parse_math=False)
    ends = "Shaded: the kept prefix" if search["sufficient"] else "None was, so the whole trace is kept"
    dashed = f" Dashed: the oracle's end, {oracle:.0f} sentences." if pd.notna(oracle) else ""
    caption(
        figure,
        f"One trace of {search['of']} sentences. {len(probes)} verdicts, numbered in the order asked: is the prefix up "
        f"to here enough? {ends}, {kept} sentences.{dashed}",
    )
    return figure


def typical(prefixes: pd.DataFrame, traces: list[dict]) -> dict:
    """The search of :func:`one_search` for a study without pairs yet: of those with an ENOUGH, the first whose kept
    share is nearest to the median, with its trace. Empty if there is none. ``prefixes``, ``traces``: of ``Results``.
    """
    if prefixes.empty or not (found := prefixes["sufficient"] & (prefixes["status"] == "ok")).any():
        return {}
    own = prefixes[found]
    chosen = own.loc[(own["sentence_ratio"] - own["sentence_ratio"].median()).abs().idxmin()].to_dict()
    return {**next(trace for trace in traces if trace["id"] == chosen["id"]), **chosen}


def _on_the_text(sentences: list[str], kept: int, oracle: float | None, probes: list[tuple[int, str]]) -> plt.Figure:
    size = (WIDTH, 0.18 * len(sentences) + 0.9)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=[3, 2])
    for i, sentence in enumerate(map(visible, sentences), 1):
        words = " ".join(sentence.split())
        words = words if len(words) <= LONGEST else words[: LONGEST - 4] + " ..."
        colour = "black" if i <= kept else "0.55"
        left.text(0.01, i, words, va="center", fontsize="small", color=colour, clip_on=True, parse_math=False)
    for axis in (left, right):
        axis.axhspan(0.5, kept + 0.5, color=COLOURS[OURS], alpha=0.2, lw=0)
        axis.grid(visible=False)
        if pd.notna(oracle):
            axis.axhline(oracle + 0.5, ls="--", lw=1, color="black")
    if pd.notna(oracle):
        right.text(1.02, oracle + 0.5, "oracle's\nend", transform=right.get_yaxis_transform(), va="center", fontsize=8)
    right.plot(range(1, len(probes) + 1), [p for p, _ in probes], color="0.7", lw=1)
    left.set(xlim=(0, 1), xticks=[], ylabel="sentence", ylim=(len(sentences) + 0.6, 0.4))
    left.set_yticks(range(1, len(sentences) + 1), range(1, len(sentences) + 1), fontsize=8)
    named = len(probes) <= MOST_NAMED
    right.set(xlim=(0.5, len(probes) * (1.65 if named else 1) + 0.5), xlabel="verdict")
    right.set_xticks(range(1, len(probes) + 1) if named else MaxNLocator(6, integer=True).tick_values(1, len(probes)))
    _verdicts(right, [(k, p, label) for k, (p, label) in enumerate(probes, 1)], len(probes))
    return figure


def _on_a_bar(of: int, kept: int, oracle: float | None, probes: list[tuple[int, str]]) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(WIDTH, 0.24 * min(len(probes), MOST_NAMED) + 1.3))
    high = len(probes) / min(len(probes), MOST_NAMED)  # the bar's height is that of a named verdict
    axis.barh(0, kept, height=high, color=COLOURS[OURS])
    axis.barh(0, of - kept, left=kept, height=high, color="0.85")
    axis.axvspan(0, kept, color=COLOURS[OURS], alpha=0.2, lw=0)
    if pd.notna(oracle):
        axis.axvline(oracle, ls="--", lw=1, color="black")
    axis.set(xlim=(0, of), xlabel="sentences of the trace", ylabel="verdict")
    _verdicts(axis, [(p, k, label) for k, (p, label) in enumerate(probes, 1)], of / 2)
    axis.set_ylim(len(probes) + 0.6 * high, -0.6 * high)
    axis.set_yticks([tick for tick in MaxNLocator(10, integer=True).tick_values(1, len(probes)) if tick >= 1])
    axis.grid(axis="y", visible=False)
    return figure


def _verdicts(axis: plt.Axes, marks: list[tuple[int, int, str]], turn: float) -> None:
    """A mark per verdict, full for ENOUGH, with its number and label at its right, or from ``turn`` on at its left. Of
    many verdicts only the marks, and a legend.
    """
    for number, (x, y, label) in enumerate(marks, 1):
        enough = label == "ENOUGH"
        colour = COLOURBLIND[0 if enough else 1]
        axis.plot(
            x, y, "o", ms=6, color=colour, mfc=colour if enough else "white", label=label, zorder=TOP, clip_on=False
        )
        if len(marks) <= MOST_NAMED:
            where = {"ha": "left", "xytext": (6, 0)} if x <= turn else {"ha": "right", "xytext": (-6, 0)}
            text = axis.annotate(f"{number} {label}", (x, y), textcoords="offset points", va="center", **where)
            text.set(fontsize=8, zorder=TOP, path_effects=[withStroke(linewidth=2, foreground="white")])
    if len(marks) > MOST_NAMED:
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(*zip(*{label: (h, label) for h, label in zip(handles, labels, strict=True)}.values(), strict=True))
