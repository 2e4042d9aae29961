"""The figures: one theme, arms in one order and colour everywhere, intervals always drawn, units on the axes.

>>> figure = accuracy(report.accuracy(params), params)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from .arms import ARMS
from .params import Params
from .published import named

COLOURS = dict(zip(ARMS, sns.color_palette("colorblind", len(ARMS)), strict=True))


def theme() -> None:
    """The one place where the look is set."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    plt.rcParams.update({"svg.hashsalt": "palign", "figure.dpi": 100, "savefig.dpi": 150})


def save(figure: plt.Figure, folder: Path, name: str) -> None:
    """Write ``name``.svg and .png without dates, so that the same figure is the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(folder / f"{name}.png", metadata={"Software": None}, bbox_inches="tight")


def _caption(figure: plt.Figure, text: str) -> None:
    figure.text(0.01, -0.01, text, ha="left", va="top", fontsize="small", wrap=True)


def _spread(rows: pd.DataFrame) -> list:
    """The lengths of error bars in percent; rounding must not make one of them negative."""
    below, above = rows["value"] - rows["low"], rows["high"] - rows["value"]
    return [100 * below.clip(lower=0), 100 * above.clip(lower=0)]


def _nothing() -> plt.Figure:
    """What stands where a study has no such data: no adaptive prefixes, or no oracle."""
    figure, axis = plt.subplots(figsize=(5.6, 0.6))
    axis.axis("off")
    axis.text(0, 0.5, "nothing to show: this study has no such data")
    return figure


def accuracy(table: pd.DataFrame, params: Params) -> plt.Figure:
    """Pass@1 of every arm on every benchmark, one panel a budget."""
    theme()
    shown = table[(table["metric"] == "pass@1") & (table["benchmark"] != "pooled")]
    names, budgets = list(shown["benchmark"].unique()), sorted(shown["budget"].unique(), reverse=True)
    figure, axes = plt.subplots(1, len(budgets), figsize=(5.2 * len(budgets), 3.8), sharey=True, squeeze=False)
    for axis, budget in zip(axes[0], budgets, strict=True):
        panel = shown[shown["budget"] == budget]
        for i, arm in enumerate(params.arms):
            rows = panel[panel["arm"] == arm].set_index("benchmark").loc[names]
            at = [x + (i - (len(params.arms) - 1) / 2) * 0.12 for x in range(len(names))]
            axis.errorbar(
                at, 100 * rows["value"], yerr=_spread(rows), fmt="o", ms=5, capsize=2, color=COLOURS[arm], label=arm
            )
        axis.set(xticks=range(len(names)), xticklabels=names, ylim=(-3, 103), title=f"response budget {budget} tokens")
        axis.set_ylabel("Pass@1 (%)" if axis is axes[0][0] else "")
        axis.grid(axis="x", visible=False)
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    problems = ", ".join(f"{b.name} {b.problems}" for b in params.benchmarks)
    figure.tight_layout()
    _caption(
        figure,
        f"Problems: {problems}; {params.n_samples} samples each. Bars: 95 % intervals over problems.",
    )
    return figure


def economy(table: pd.DataFrame, responses: pd.DataFrame, params: Params) -> plt.Figure:
    """Average Pass@1 against the mean length of a response."""
    theme()
    average = table[(table["metric"] == "pass@1") & (table["budget"] == params.max_new_tokens)]
    name = "average" if "average" in set(average["benchmark"]) else average["benchmark"].iloc[0]
    rows = average[average["benchmark"] == name].set_index("arm")
    figure, axis = plt.subplots(figsize=(5.6, 3.8))
    for arm in params.arms:
        row, tokens = rows.loc[[arm]], responses.loc[arm, "tokens_mean"]
        axis.errorbar(
            [tokens], 100 * row["value"], yerr=_spread(row), fmt="o", capsize=3, color=COLOURS[arm], label=arm
        )
    axis.set(xlabel="mean response length (tokens)", ylabel="average Pass@1 (%)", ylim=(-3, 103))
    axis.set_xlim(left=0)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    _caption(
        figure, f"n = {int(rows['n'].iloc[0])} problems, {params.n_samples} samples each; 95 % intervals over problems."
    )
    return figure


def prefix_ratios(prefixes: pd.DataFrame) -> plt.Figure:
    """How much of each trace was kept, beside the oracle where there is one."""
    theme()
    if prefixes.empty:
        return _nothing()
    good = prefixes[prefixes["status"] == "ok"]
    long = good.melt(value_vars=["sentence_ratio", "oracle_ratio"], var_name="prefix", value_name="share").dropna()
    long["prefix"] = long["prefix"].map({"sentence_ratio": "chosen by the student", "oracle_ratio": "oracle"})
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    sns.ecdfplot(long, x="share", hue="prefix", ax=axis, palette="colorblind")
    axis.set(xlabel="prefix length (share of the trace's sentences)", ylabel="share of traces", xlim=(0, 1))
    figure.tight_layout()
    _caption(figure, f"n = {len(good)} traces. Cumulative: the curve's height is the share of traces cut by then.")
    return figure


def judge(verdicts: pd.DataFrame) -> plt.Figure:
    """Share of ENOUGH against the distance from the oracle prefix, with Wilson intervals."""
    from statsmodels.stats.proportion import proportion_confint

    theme()
    if verdicts.empty or verdicts["distance"].isna().all():
        return _nothing()
    valid = verdicts[verdicts["label"] != "error"]
    # wide bins outside, single sentences around the oracle, where the judge's work is
    edges = [-1000, -8, -5, -3, -1, 0, 2, 5, 10, 1000]
    names = ["< -8", "-8..-6", "-5..-4", "-3..-2", "-1", "0, 1", "2..4", "5..9", ">= 10"]
    bins = pd.cut(valid["distance"], edges, right=False, labels=names)
    groups = valid.groupby(bins, observed=True)["enough"].agg(["sum", "count"])
    low, high = proportion_confint(groups["sum"], groups["count"], method="wilson")
    groups = groups.assign(value=groups["sum"] / groups["count"], low=low, high=high)
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    axis.errorbar(range(len(groups)), 100 * groups["value"], yerr=_spread(groups), fmt="o-", capsize=3)
    axis.set(xticks=range(len(groups)), xticklabels=groups.index, ylim=(-3, 103))
    axis.set(xlabel="sentences past the oracle prefix", ylabel="judged ENOUGH (%)")
    figure.tight_layout()
    _caption(figure, f"n = {len(valid)} verdicts, those the search asked for. Bars: 95 % Wilson intervals.")
    return figure


def response_lengths(grades: pd.DataFrame, params: Params) -> plt.Figure:
    """Distribution of response lengths per arm."""
    theme()
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    sns.boxplot(
        grades,
        x="new_tokens",
        y="arm",
        order=params.arms,
        hue="arm",
        palette=COLOURS,
        fliersize=1,
        ax=axis,
        legend=False,
    )
    if params.second_budget:
        axis.axvline(params.second_budget, ls="--", lw=1, color="grey")
    axis.set(xlabel="response length (tokens)", ylabel="", xlim=(0, params.max_new_tokens * 1.02))
    figure.tight_layout()
    second = f" Dashed: the second budget, {params.second_budget}." if params.second_budget else ""
    _caption(
        figure,
        f"n = {len(grades) // len(params.arms)} responses an arm. Boxes: quartiles; whiskers: 1.5 box lengths.{second}",
    )
    return figure


def losses(params: Params, arm: str) -> plt.Figure:
    """Training loss per update."""
    from . import plan

    theme()
    task = plan.finetuning(params, arm)
    figure, axis = plt.subplots(figsize=(5.6, 3.0))
    if task:
        table = pd.DataFrame(task.require().read("losses"))
        sns.lineplot(table, x="step", y="loss", color=COLOURS[arm], ax=axis)
    axis.set(xlabel="update", ylabel="loss (nats a token)", ylim=(0, None))
    figure.tight_layout()
    return figure


def samples(table: pd.DataFrame) -> plt.Figure:
    """Whether one number of samples would explain the AMC12 cells; ``table`` from ``palign.published.cells``."""
    theme()
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    cell, number = sns.color_palette("colorblind", 2)
    axis.plot(table["samples"], 100 * table["any_number"], color=number, label="any number of two decimals")
    axis.plot(table["samples"], 100 * table["cells"], "o", ms=4, color=cell, label="the cells that are not k/83")
    axis.set(xlabel="samples a problem, s", ylabel="attainable as k/(83 s) (%)", ylim=(-3, 103), xlim=(0, None))
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    _caption(figure, f"n = {table['n'].iloc[0]} distinct Pass@1 cells on AMC12, Tables 1, 2, 6, 8 and 9.")
    return figure


def forest(table: pd.DataFrame, scopes: Sequence[str]) -> plt.Figure:
    """P-ALIGN's gains, one panel a scope, each with both intervals; ``table`` from ``palign.published.gains``."""
    theme()
    table = table[table["scope"].isin(scopes)]
    labels = named(table).str.replace("-Instruct", "") + ", " + table["metric"] + ", less " + table["worse"]
    names = list(labels.unique())
    places = {name: -i for i, name in enumerate(names)}
    width = 0.082 * max(map(len, names)) + 2.6 * len(scopes)  # inches: the labels' and the panels'
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
    """Cumulative distribution of released responses' lengths, with what ``budget`` tokens hold at 4 characters each.

    ``table``: one row a response, ``chars`` and ``closed``.
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
    _caption(figure, f"n = {len(table)} responses: {counts}. Dashed: {budget:,} tokens of 4 characters.")
    return figure
