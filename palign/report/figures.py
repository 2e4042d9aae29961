"""The report's figures: each takes a table. Arms have one order and colour everywhere; every axis has its unit.

>>> figure = accuracy(tables.accuracy(study), texts.samples(study))
"""

from __future__ import annotations

import math
import textwrap

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ..analysis.style import caption, nothing, spread, theme
from ..arms import ARMS, PAPER_ARMS
from .beside import FORMS, HERE
from .results import answered
from .tables import AVERAGE, POOLED, averages, single

RIVALS = tuple(arm for arm in ARMS if arm not in PAPER_ARMS)
FAMILIES = {
    (("fixed-ratio",), PAPER_ARMS): ("s", "Blues"),
    (("segment",), PAPER_ARMS): ("^", "Greens"),
    (("p-align-",), PAPER_ARMS): ("D", "Oranges"),
    (("p-align-fallback",), RIVALS): ("P", "Reds"),
    (("p-align-", "backoff"), RIVALS): ("X", "Purples"),
    (("success-",), RIVALS): ("v", "Blues"),
    (("first-", "second-", "prune-", "essence-"), RIVALS): ("<", "Greens"),
    (("rft-", "shortest-", "self-", "mix-"), RIVALS): (">", "Oranges"),
    (("",), RIVALS): ("*", "Greys"),
}
"""Beginnings of names, and the arms among which they count -> (marker, hue), the first that fits."""


def _styles() -> dict[str, tuple]:
    """Arm -> (colour, marker), the same in every study. No palette has so many distinct colours: single arms of the
    paper use the palette of ten, and a family of arms has one marker and the steps of one hue.
    """
    left, found = list(ARMS), {}
    for (prefixes, among), (marker, hue) in FAMILIES.items():
        members = [arm for arm in left if arm in among and arm.startswith(prefixes)]
        left = [arm for arm in left if arm not in members]
        palest = max(2, len(members) // 2)  # invisible on white
        steps = sns.color_palette(hue, len(members) + palest)[palest:]
        found |= {arm: (colour, marker) for arm, colour in zip(members, steps, strict=True)}
    found |= {arm: (colour, "o") for arm, colour in zip(left, sns.color_palette("colorblind", 10), strict=False)}
    return {arm: found[arm] for arm in ARMS}


STYLES = _styles()
COLOURS = {arm: colour for arm, (colour, _) in STYLES.items()}
MANY = 8  # arms; with more, neighbouring points are hard to distinguish


def accuracy(table: pd.DataFrame, samples: str) -> plt.Figure:
    """Pass@1 of every arm on every benchmark, one panel per budget; with many arms, one row per arm.

    ``table`` of ``tables.accuracy``; ``samples``: the caption's words for the number of samples and seeds.
    """
    theme()
    shown = table[(table["metric"] == "pass@1") & (table["benchmark"] != POOLED)]
    names, budgets = list(shown["benchmark"].unique()), sorted(shown["budget"].unique(), reverse=True)
    draw = _rows_of_arms if shown["arm"].nunique() > MANY else _arms_beside_each_other
    figure = draw(shown, names, budgets)
    sizes = shown[shown["benchmark"] != AVERAGE].drop_duplicates("benchmark")
    problems = ", ".join(f"{row.benchmark} {row.n}" for row in sizes.itertuples())
    figure.tight_layout()
    caption(figure, f"Problems: {problems}; {samples}. Bars: 95 % intervals.")
    return figure


def _arms_beside_each_other(shown: pd.DataFrame, names: list, budgets: list) -> plt.Figure:
    arms = list(shown["arm"].unique())
    figure, axes = plt.subplots(1, len(budgets), figsize=(5.2 * len(budgets), 3.8), sharey=True, squeeze=False)
    for axis, budget in zip(axes[0], budgets, strict=True):
        panel = shown[shown["budget"] == budget]
        for i, arm in enumerate(arms):
            rows = panel[panel["arm"] == arm].set_index("benchmark").loc[names]
            at = [x + (i - (len(arms) - 1) / 2) * 0.12 for x in range(len(names))]
            colour, marker = STYLES[arm]
            axis.errorbar(
                at, 100 * rows["value"], yerr=spread(rows), fmt=marker, ms=5, capsize=2, color=colour, label=arm
            )
        axis.set(xticks=range(len(names)), xticklabels=names, ylim=(-3, 103), title=f"response budget {budget} tokens")
        axis.set_ylabel("Pass@1 (%)" if axis is axes[0][0] else "")
        axis.grid(axis="x", visible=False)
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _rows_of_arms(shown: pd.DataFrame, names: list, budgets: list) -> plt.Figure:
    """One panel per benchmark, with the arms' names on its side, so no legend is needed. Hollow: smaller budgets."""
    arms = list(shown["arm"].unique())
    size = (2.6 * len(names) + 1.6, 0.27 * len(arms) + 1.2)
    figure, axes = plt.subplots(1, len(names), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for k, budget in enumerate(budgets):
            panel = shown[(shown["budget"] == budget) & (shown["benchmark"] == name)].set_index("arm")
            for i, arm in enumerate(arms):
                row, (colour, marker) = panel.loc[[arm]], STYLES[arm]
                axis.errorbar(
                    100 * row["value"],
                    [i + 0.25 * k],
                    xerr=spread(row),
                    fmt=marker,
                    ms=4.5,
                    capsize=2,
                    color=colour,
                    mfc=colour if k == 0 else "white",
                )
        axis.set(title=name, xlabel="Pass@1 (%)", xlim=(-3, 103))
        axis.set(yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.4, -0.6))
    if len(budgets) > 1:
        handles = [
            plt.Line2D([], [], ls="", marker="o", color="grey", mfc="grey" if k == 0 else "white") for k in (0, 1)
        ]
        labels = [f"{budget} tokens" for budget in budgets]
        axes[0][-1].legend(
            handles, labels, title="response budget", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
        )
    return figure


def economy(table: pd.DataFrame, responses: pd.DataFrame, samples: str) -> plt.Figure:
    """Average Pass@1 against the mean length of a response; ``table`` and ``samples`` as in :func:`accuracy`."""
    theme()
    rows = averages(table)
    many = len(rows) > MANY
    figure, axis = plt.subplots(figsize=(7.2 + _further(len(rows)), 5.2) if many else (5.6, 3.8))
    for arm in rows.index:
        row, tokens, (colour, marker) = rows.loc[[arm]], responses.loc[arm, "tokens_mean"], STYLES[arm]
        axis.errorbar([tokens], 100 * row["value"], yerr=spread(row), fmt=marker, capsize=3, color=colour, label=arm)
    axis.set(xlabel="mean response length (tokens)", ylabel="average Pass@1 (%)", ylim=(-3, 103))
    axis.set_xlim(0, 1.06 * responses.loc[rows.index, "tokens_mean"].max())
    _legend(axis, len(rows))
    figure.tight_layout()
    caption(figure, f"n = {int(rows['n'].iloc[0])} problems, {samples}; 95 % intervals.")
    return figure


COLUMN, COLUMN_WIDTH = 20, 2.4
"""Names in a column of a legend, and its width in inches."""


def _legend(axis: plt.Axes, arms: int) -> None:
    """The arms' names beside a panel: smaller if they are many, and in columns."""
    small = "x-small" if arms > MANY else None
    columns = math.ceil(arms / COLUMN)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=small, ncols=columns)


def _further(arms: int) -> float:
    """The width in inches of the legend's columns but for the first."""
    return COLUMN_WIDTH * (math.ceil(arms / COLUMN) - 1)


def prefix_ratios(prefixes: pd.DataFrame) -> plt.Figure | None:
    """How much of each trace was kept, beside the oracle if there is one."""
    theme()
    if prefixes.empty:
        return nothing()
    good = prefixes[prefixes["status"] == "ok"]
    long = good.melt(value_vars=["sentence_ratio", "oracle_ratio"], var_name="prefix", value_name="share").dropna()
    long["prefix"] = long["prefix"].map({"sentence_ratio": "chosen by the student", "oracle_ratio": "oracle"})
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    sns.ecdfplot(long, x="share", hue="prefix", ax=axis, palette="colorblind")
    axis.set(xlabel="prefix length (share of the trace's sentences)", ylabel="share of traces", xlim=(0, 1))
    figure.tight_layout()
    caption(figure, f"n = {len(good)} traces. Cumulative: the curve's height is the share of traces cut by then.")
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
    names = ["< -8", "-8..-6", "-5..-4", "-3..-2", "-1", "0, 1", "2..4", "5..9", ">= 10"]
    bins = pd.cut(valid["distance"], edges, right=False, labels=names)
    groups = valid.groupby(bins, observed=True)["enough"].agg(["sum", "count"])
    low, high = proportion_confint(groups["sum"], groups["count"], method="wilson")
    groups = groups.assign(value=groups["sum"] / groups["count"], low=low, high=high)
    figure, axis = plt.subplots(figsize=(5.6, 3.4))
    axis.errorbar(range(len(groups)), 100 * groups["value"], yerr=spread(groups), fmt="o-", capsize=3)
    axis.set(xticks=range(len(groups)), xticklabels=groups.index, ylim=(-3, 103))
    axis.set(xlabel="sentences past the oracle prefix", ylabel="judged ENOUGH (%)")
    figure.tight_layout()
    caption(figure, f"n = {len(valid)} verdicts, those the search asked for. Bars: 95 % Wilson intervals.")
    return figure


def monotone(by_share: pd.DataFrame, per_trace: pd.DataFrame) -> plt.Figure | None:
    """Judge, student and oracle along the trace; where the binary searches land relative to the first ENOUGH."""
    theme()
    if by_share.empty:
        return nothing()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 3.6), width_ratios=[3, 2])
    names = list(by_share["what"].unique())
    for i, (what, colour) in enumerate(zip(names, sns.color_palette("colorblind"), strict=False)):
        rows = by_share[by_share["what"] == what]
        at = 100 * rows["share"] + 1.2 * (i - (len(names) - 1) / 2)
        left.errorbar(at, 100 * rows["value"], yerr=spread(rows), fmt="o-", ms=4, capsize=2, color=colour, label=what)
    left.set(xlabel="prefix (% of the trace's sentences)", ylabel="share (%)", xlim=(0, 100), ylim=(-3, 103))
    left.legend(loc="lower right", fontsize="small")
    gaps = per_trace.melt("linear", ["released", "equation7"], var_name="search", value_name="lands")
    gaps["gap"] = gaps["lands"] - gaps["linear"]
    sns.histplot(
        gaps, x="gap", hue="search", discrete=True, multiple="dodge", shrink=0.8, palette="colorblind", ax=right
    )
    right.set(xlabel="sentences past the first ENOUGH", ylabel="traces")
    right.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    turning = int((per_trace["turns"] > 0).sum())
    caption(
        figure,
        f"n = {len(per_trace)} traces, all their prefixes judged; on {turning} of them an ENOUGH is followed by a "
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
        f"n = {int(table['prefixes'].sum())} continued prefixes, in bins of ten points.\nBars: 95 % intervals over the "
        "bin's traces.",
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
        f"n = {int(rows['n'].iloc[0])} traces. Bars: 95 % intervals over traces. Dashed: trace and question once.",
    )
    return figure


def response_lengths(grades: pd.DataFrame, budgets: list[int]) -> plt.Figure:
    """Lengths of answered responses per arm in tokens. ``grades``: a row per response; ``budgets``: the main first."""
    theme()
    arms, grades = list(grades["arm"].unique()), answered(grades)
    figure, axis = plt.subplots(figsize=(5.6, max(3.4, 0.27 * len(arms) + 0.9)))
    sns.boxplot(
        grades, x="new_tokens", y="arm", order=arms, hue="arm", palette=COLOURS, fliersize=1, ax=axis, legend=False
    )
    for budget in budgets[1:]:
        axis.axvline(budget, ls="--", lw=1, color="grey")
    axis.set(xlabel="response length (tokens)", ylabel="", xlim=(0, budgets[0] * 1.02))
    figure.tight_layout()
    second = f" Dashed: the second budget, {budgets[1]}." if budgets[1:] else ""
    counts = grades.groupby("arm").size()
    each = " to ".join(f"{n}" for n in sorted({counts.min(), counts.max()}))
    caption(figure, f"n = {each} answered responses an arm. Boxes: quartiles; whiskers: 1.5 box lengths.{second}")
    return figure


def seeds(table: pd.DataFrame) -> plt.Figure | None:
    """Each training seed's average Pass@1 over the interval of their mean (``tables.seeds``)."""
    theme()
    if table.empty:
        return nothing()
    figure, axis = plt.subplots(figsize=(5.6, 0.27 * len(table) + 1.4))
    own = [column for column in table.columns if column.startswith("seed ")]
    for i, (arm, row) in enumerate(table.iterrows()):
        axis.hlines(i, 100 * row["low"], 100 * row["high"], color=COLOURS[arm], lw=6, alpha=0.3)
        axis.plot(100 * row[own].astype(float), [i] * len(own), ls="", marker="|", ms=9, color=COLOURS[arm])
    axis.set(yticks=range(len(table)), yticklabels=table.index, ylim=(len(table) - 0.4, -0.6))
    axis.set(xlabel="average Pass@1 (%)")
    figure.tight_layout()
    caption(figure, f"Strokes: each of {len(own)} training seeds. Bands: 95 % intervals of their mean.")
    return figure


def losses(table: pd.DataFrame, arm: str) -> plt.Figure:
    """Training loss per update; ``table`` of ``Results.losses``."""
    theme()
    figure, axis = plt.subplots(figsize=(5.6, 3.0))
    if len(table):
        sns.lineplot(table, x="step", y="loss", color=COLOURS[arm], ax=axis)
    axis.set(xlabel="update", ylabel="loss (nats a token)", ylim=(0, None))
    figure.tight_layout()
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
    axis.set(xlabel="tenth of the trace's tokens", ylabel="entropy (nats a token)", xticks=range(1, len(rows) + 1))
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize="small")
    figure.tight_layout()
    caption(
        figure, f"n = {int(rows['n'].iloc[0])} traces, read by the untrained student. Bars: 95 % intervals over them."
    )
    return figure


COLOURBLIND = sns.color_palette("colorblind", 10)
PREFERENCES = {
    "win": ("prefers the first-named", COLOURBLIND[0]),
    "tie": ("tie", "0.7"),
    "inconsistent": ("order decides", "0.5"),
    "unparseable": ("no verdict", "0.3"),
    "loss": ("prefers the other", COLOURBLIND[1]),
}


def preference(table: pd.DataFrame, judge: str) -> plt.Figure | None:
    """Outcomes of each pair of arms (Figure 3d's question); ``table`` of ``preference.table``, ``judge`` in words."""
    theme()
    if table.empty:
        return nothing()
    table = table.assign(pair=table["arm"] + " over " + table["against"])
    names = list(table["pair"].unique())
    figure, axis = plt.subplots(figsize=(7.6, 0.32 * len(names) + 1.4))
    left = pd.Series(0.0, index=names)
    for outcome, (label, colour) in PREFERENCES.items():
        rows = table[table["measure"] == outcome].set_index("pair").loc[names]
        axis.barh(names, 100 * rows["value"], left=100 * left, color=colour, label=label, height=0.7)
        left = left + rows["value"]
        # wins are read from the left edge and losses from the right one, and so are their intervals
        for i, row in enumerate(rows.itertuples()) if outcome in ("win", "loss") else ():
            ends = (row.low, row.high) if outcome == "win" else (1 - row.high, 1 - row.low)
            axis.hlines(i, 100 * ends[0], 100 * ends[1], color="black", lw=1.5)
    axis.set(xlabel="problems (%)", xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
    axis.grid(axis="y", visible=False)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    caption(
        figure,
        f"Judge: {judge}. n = {int(table['n'].max())} problems a pair, each asked in both orders.\n"
        "Black: 95 % intervals of the first-named arm's wins (from the left) and losses (from the right).",
    )
    return figure


def ratios(table: pd.DataFrame, samples: str) -> plt.Figure | None:
    """Prefixes of a fixed share of the trace against adaptive ones (Figures 3a-b): one panel per metric.

    ``table`` and ``samples`` as in :func:`accuracy`. The paper draws its own points and prints no numbers of them.
    """
    theme()
    arms = table["arm"].unique()
    fixed = {int(arm.rpartition("-")[2]): arm for arm in arms if arm.startswith("fixed-ratio-")}
    if len(fixed) < 2:
        return nothing()
    name = single(table)
    table = table[(table["budget"] == table["budget"].max()) & (table["benchmark"] == name)]
    metrics, at = list(table["metric"].unique()), sorted(fixed)
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 3.6), sharey=True, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        panel = table[table["metric"] == metric].set_index("arm")
        rows = panel.loc[[fixed[percent] for percent in at]]
        colour, marker = STYLES[fixed[at[-1]]]
        fmt = f"{marker}-"
        axis.errorbar(at, 100 * rows["value"], yerr=spread(rows), fmt=fmt, capsize=3, color=colour, label="fixed share")
        if "p-align" in panel.index:
            row, colour = panel.loc["p-align"], COLOURS["p-align"]
            axis.axhline(100 * row["value"], color=colour, label="p-align (adaptive)")
            axis.axhspan(100 * row["low"], 100 * row["high"], color=colour, alpha=0.2, lw=0)
        axis.set(title=metric.capitalize(), xlabel="prefix (% of the trace's sentences)", xlim=(0, 100), xticks=at)
    axes[0][0].set_ylabel(f"{name} (%)")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.tight_layout()
    n = int(table["n"].iloc[0])
    caption(figure, f"n = {n} problems, {samples}. Bars and band: 95 % intervals.")
    return figure


def pareto(table: pd.DataFrame, spent: pd.DataFrame, samples: str) -> plt.Figure | None:
    """Average Pass@1 against tokens of training, and against all tokens of making the arm (``tables.spent``).

    The stepped line joins the arms that no arm equals at lower cost; the dashed line is the best accuracy at no cost.
    ``table`` and ``samples`` as in :func:`accuracy`.
    """
    theme()
    rows, name = averages(table), single(table)
    free = [arm for arm in rows.index if not spent.loc[arm, "total"]]
    paid = [arm for arm in rows.index if arm not in free]
    if not paid:
        return nothing()
    many = len(rows) > MANY
    labels = {"trained": "tokens trained on", "total": "tokens judged, continued and trained on"}
    figure, axes = plt.subplots(1, 2, figsize=(10.4 + _further(len(rows)), 5.0 if many else 3.8), sharey=True)
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for arm in free:
            axis.axhline(100 * rows.loc[arm, "value"], ls="--", lw=1, color=COLOURS[arm], label=arm)
        for arm in paid:
            row, (colour, marker) = rows.loc[[arm]], STYLES[arm]
            at = [spent.loc[arm, column]]
            axis.errorbar(at, 100 * row["value"], yerr=spread(row), fmt=marker, capsize=3, color=colour, label=arm)
        order = sorted(paid, key=lambda arm: (spent.loc[arm, column], -rows.loc[arm, "value"]))
        best = [100 * rows.loc[order[: i + 1], "value"].max() for i in range(len(order))]
        axis.step(spent.loc[order, column], best, where="post", color="grey", lw=1, zorder=0)
        axis.set(xscale="log", xlabel=label, ylim=(-3, 103))
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("average Pass@1 (%)" if name == AVERAGE else f"{name}, Pass@1 (%)")
    _legend(axes[1], len(rows))
    figure.tight_layout()
    caption(
        figure,
        f"n = {int(rows['n'].iloc[0])} problems, {samples}; bars: 95 % intervals. Tokens of one "
        "training seed.\nGrey: the best accuracy for so many tokens or fewer. Dashed: costs none.",
    )
    return figure


def beside(table: pd.DataFrame) -> plt.Figure | None:
    """The paper's printed values, and this study's beside them: one row per figure or table; ``table`` of
    ``beside.table``.

    Lengths and counts have an axis of their own in each panel: students, problems and traces differ.
    """
    theme()
    if table.empty:
        return nothing()
    forms = [form for form in FORMS if form in set(table["form"])]
    names = {
        form: [n for n in FORMS[form].names.values() if n in set(table[table["form"] == form]["name"])]
        for form in forms
    }
    heights = [len(names[form]) + 1.6 for form in forms]
    figure, axes = plt.subplots(
        len(forms), 2, figsize=(9.6, 0.36 * sum(heights) + 0.6), height_ratios=heights, squeeze=False
    )
    students = [source for source in table["source"].unique() if source != HERE]
    styles = dict(zip([*students, HERE], zip(sns.color_palette("colorblind"), "os^vD", strict=False), strict=False))
    for (left, right), form in zip(axes, forms, strict=True):
        for axis, sources in ((left, students), (right, [HERE])):
            rows = table[(table["form"] == form) & table["source"].isin(sources)]
            present = [source for source in sources if source in set(rows["source"])]
            for k, source in enumerate(present):
                own = rows[rows["source"] == source].set_index("name")
                colour, marker = styles[source] if source != HERE else ("black", "D")
                for i, name in enumerate(names[form]):
                    if name not in own.index:
                        continue
                    row, at = own.loc[name], i + 0.2 * (k - (len(present) - 1) / 2)
                    if pd.notna(row["low"]):
                        axis.hlines(at, row["low"], row["high"], color=colour, lw=1.5)
                    axis.plot(row["value"], at, marker, ms=5, color=colour)
            axis.set(yticks=range(len(names[form])), yticklabels=names[form] if axis is left else [])
            axis.set(ylim=(len(names[form]) - 0.4, -0.6), xlabel=FORMS[form].unit)
            # shares have the same scale in every panel; lengths and counts do not
            axis.set_xlim(0, 102 if "%" in FORMS[form].unit else 1.08 * rows[["value", "high"]].max().max())
        left.set_title(FORMS[form].title + ": as printed", fontsize="medium", loc="left")
        note = "".join(sorted(set(table[table["form"] == form]["note"])))
        right.set_title(f"{HERE}, by {note}" if note else HERE, fontsize="medium", loc="left")
    handles = [plt.Line2D([], [], ls="", marker=styles[s][1], color=styles[s][0], label=s) for s in students]
    handles.append(plt.Line2D([], [], ls="", marker="D", color="black", label=HERE))
    figure.tight_layout()
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=len(handles))
    counts = sorted({int(n) for n in table[table["source"] == HERE]["n"]})
    each = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    caption(
        figure,
        f"n = {each} problems, traces or pairs of this study; lines: 95 % intervals over them. The paper has none; "
        "that of Table 7 follows from its counts.\nScales of tokens and calls differ, as students and problems do.",
    )
    return figure


def claims(ledger: pd.DataFrame) -> plt.Figure | None:
    """Gains in accuracy that the paper claims: this study's with intervals, and the printed ones; ``ledger.table``."""
    theme()
    rows = ledger[ledger["unit"] == "points"]
    rows = rows[rows["metric"].astype(str).str.startswith("pass@")]
    if rows.empty:
        return nothing()
    metrics = sorted(rows["metric"].unique())
    names = list(dict.fromkeys(rows["claim"] + rows["note"].map(lambda note: f" ({note})" if note else "")))
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(4.0 + 3.2 * len(metrics), 0.48 * len(names) + 1.4), sharey=True, squeeze=False
    )
    here, paper = sns.color_palette("colorblind", 2)
    for axis, metric in zip(axes[0], metrics, strict=True):
        part = rows[rows["metric"] == metric]
        labels = part["claim"] + part["note"].map(lambda note: f" ({note})" if note else "")
        at = [names.index(label) for label in labels]
        axis.axvline(0, color="grey", lw=1)
        axis.hlines(at, part["low"], part["high"], color=here, lw=2, label="this study, 95 %")
        axis.plot(part["value"], at, "o", ms=5, color=here, label="this study")
        printed = pd.to_numeric(part["printed"])
        axis.plot(printed, at, "D", ms=5, color=paper, label="printed, mean over settings")
        axis.set(title=metric, xlabel="gain (points)")
        axis.set_yticks(range(len(names)), [textwrap.fill(name, 44) for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
    figure.tight_layout()
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, ncols=3
    )
    caption(figure, f"n = {int(rows['n'].max())} problems of this study, paired; other students, problems and budgets.")
    return figure
