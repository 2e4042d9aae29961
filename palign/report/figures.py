"""The report's figures: each takes a table. An arm has one colour and mark everywhere, and stands in its group, the
highest value first; of many arms only the main ones have their own colour, the others that of their group. P-ALIGN lies
on top of what overlaps it. Every axis has its unit. No figure is wider than a page.

>>> figure = accuracy(tables.accuracy(study), texts.samples(study))
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ..analysis.style import caption, nothing, spread, theme
from ..arms import ARMS, PAPER_ARMS
from .beside import FORMS, HERE
from .ledger import OPEN
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
BACKOFF = ("p", "light:teal_r")
"""Marker and hue of the arms ``backoff``, which have no judge. Their steps of the hue of ``p-align-`` stay unused, so
that the others keep theirs.
"""


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
    marker, hue = BACKOFF
    members = [arm for arm in ARMS if arm.startswith("backoff")]
    found |= {
        arm: (colour, marker) for arm, colour in zip(members, sns.color_palette(hue, len(members) + 1), strict=False)
    }
    found |= {arm: (colour, "o") for arm, colour in zip(left, sns.color_palette("colorblind", 10), strict=False)}
    return {arm: found[arm] for arm in ARMS}


STYLES = _styles()
COLOURS = {arm: colour for arm, (colour, _) in STYLES.items()}
COLOURBLIND = sns.color_palette("colorblind", 10)
MANY = 8  # arms; no one tells more colours apart, or reads more names between points
MOST_PANELS = 6  # side by side
WIDTH = 7.0  # inches, of a page
NARROW = 5.0  # of a telephone, which shows it at four fifths of its size
OURS = "p-align"
TOP = 10  # above every other arm
PLATE = {"color": "white", "alpha": 0.7, "lw": 0, "pad": 0.5}
"""Behind a name. An outline of its letters would write each of them out in the SVG."""


def _group(arm: str) -> str:
    if arm == "p-align-oracle" or ARMS[arm].description.startswith("control"):
        return "controls"
    if arm in ("zero-shot", "sft-label", "sft-long-cot", "upft", OURS):
        return "main arms"
    if arm.startswith("fixed-ratio-"):
        return "fixed shares"
    if arm.startswith("segment-"):
        return "segments"
    return "ablations" if arm in PAPER_ARMS else "rivals and extensions"


GROUPS = ("main arms", "ablations", "fixed shares", "segments", "controls", "rivals and extensions")
GROUP_STYLES = {
    "ablations": ("0.3", "D"),
    "fixed shares": ("0.55", "s"),
    "segments": ("0.55", "^"),
    "controls": (COLOURBLIND[5], "o"),
    "rivals and extensions": (COLOURBLIND[9], "v"),
}
"""Group -> (colour, marker) of its arms in a figure of many arms."""


def _look(arms: Collection[str]) -> dict[str, tuple]:
    """Arm -> (colour, marker) in a figure of these arms."""
    grouped = {arm: GROUP_STYLES.get(_group(arm)) for arm in arms} if len(arms) > MANY else {}
    return {arm: grouped.get(arm) or STYLES[arm] for arm in arms}


def arranged(values: pd.Series) -> dict[str, list[str]]:
    """Group -> its arms, the highest of ``values`` (by arm) first. Groups without an arm are left out."""
    order = list(values.sort_values(ascending=False, kind="stable").index)
    groups = {group: [arm for arm in order if _group(arm) == group] for group in GROUPS}
    return {group: arms for group, arms in groups.items() if arms}


def _rows(axis: plt.Axes, groups: dict[str, list[str]], headed: bool | None = None) -> list[int]:
    """Write the names at the side, in a row each, with a heading above each group; returns the names' heights."""
    headed = len(groups) > 1 if headed is None else headed
    lines = [(name, kind) for group, names in groups.items() for name, kind in _lines(group, names, headed)]
    axis.set(yticks=range(len(lines)), yticklabels=[name for name, _ in lines], ylim=(len(lines) - 0.4, -0.6))
    for label, (name, heading) in zip(axis.get_yticklabels(), lines, strict=True):
        label.set(fontsize="small", fontweight="bold" if name == OURS else "normal")
        if heading:
            label.set(fontstyle="italic", color="grey")
    return [y for y, (_, heading) in enumerate(lines) if not heading]


def _lines(group: str, names: list[str], headed: bool) -> list[tuple[str, bool]]:
    return [(group, True)] * headed + [(name, False) for name in names]


def _height(groups: dict[str, list[str]]) -> float:
    """The height in inches of a figure with these rows."""
    return 0.2 * (sum(map(len, groups.values())) + len(groups)) + 1.2


def _over(arm: str) -> int:
    return TOP if arm == OURS else 3


def accuracy(table: pd.DataFrame, samples: str) -> plt.Figure:
    """Accuracy of every arm, one row each: Pass@1 and below it Pass@k, one panel per benchmark, the average first.
    Hollow marks: smaller budgets.

    With many arms or benchmarks the panels are Pass@1 and Pass@k, both averaged over the benchmarks. ``table`` of
    ``tables.accuracy``; ``samples``: the caption's words for the number of samples and seeds.
    """
    theme()
    table = table[table["benchmark"] != POOLED]
    budgets, summary = sorted(table["budget"].unique(), reverse=True), single(table)
    groups, metrics = arranged(averages(table)["value"]), list(table["metric"].unique())
    arms, looks = [arm for names in groups.values() for arm in names], _look(table["arm"].unique())
    benchmarks = sorted(table["benchmark"].unique(), key=lambda name: name != summary)
    wide = len(arms) > MANY or not 1 < len(benchmarks) <= MOST_PANELS
    if wide:
        lines, panels, ratios = 1, [(summary, metric) for metric in metrics], [1] * len(metrics)
    else:
        lines, panels = len(metrics), [(name, metric) for metric in metrics for name in benchmarks]
        ratios = [2.2, *[1] * (len(benchmarks) - 1)]
    size = (NARROW if wide else WIDTH, lines * _height(groups))
    shared = {"sharex": "col", "sharey": True, "squeeze": False, "width_ratios": ratios}
    figure, axes = plt.subplots(lines, len(ratios), figsize=size, **shared)
    *_, heights = (_rows(axis, groups) for axis in axes[:, 0])
    for axis, (benchmark, metric) in zip(axes.flat, panels, strict=True):
        part = table[table["metric"] == metric]
        shown = part[part["benchmark"] == benchmark].set_index(["budget", "arm"])
        for k, budget in enumerate(budgets):
            for arm, y in zip(arms, heights, strict=True):
                _dot(axis, shown.loc[[(budget, arm)]], y + 0.3 * k, looks[arm], _over(arm), hollow=k > 0)
        if wide:
            each = part[(part["benchmark"] != AVERAGE) & (part["budget"] == budgets[0])]
            at = each["arm"].map(dict(zip(arms, heights, strict=True)))
            axis.plot(100 * each["value"], at, ls="", marker="|", ms=6, color="0.7", zorder=2)
        elif benchmark == summary:
            _write(axis, 100 * shown.loc[budgets[0], ["value", "low", "high"]].loc[arms], heights)
        if OURS in arms:
            at = 100 * shown.loc[(budgets[0], OURS), "value"]
            axis.axvline(at, ls="--", lw=1, color=COLOURS[OURS], zorder=1)
        large = wide or benchmark == summary
        title = metric.capitalize() if wide else benchmark
        axis.set(title=title, xlim=(-4, 104), xticks=range(0, 101, 25 if wide else 20 if large else 50))
        axis.set_xlabel(f"{summary} (%)" if wide else f"{metric.capitalize()} (%)", fontsize=None if large else "small")
        axis.tick_params(labelbottom=True, labelsize="small")
    for axis in axes[1:].flat:
        axis.set_title("")
    figure.tight_layout()
    sizes = table[table["benchmark"] != AVERAGE].drop_duplicates("benchmark")
    problems = ", ".join(f"{row.benchmark} {row.n:,}" for row in sizes.itertuples())
    words = [f"Problems: {problems}; {samples}. Bars: 95 % intervals."]
    if len(budgets) > 1:
        words.append(f"Filled: {budgets[0]:,} tokens per response; hollow: {budgets[1]:,}.")
    if wide and len(sizes) > 1:
        words.append("Grey strokes: the benchmarks.")
    if OURS in arms:
        words.append(f"Dashed: {OURS}.")
    caption(figure, " ".join([_leaders(table, summary, budgets[0]), *words]).strip())
    return figure


def _leaders(table: pd.DataFrame, summary: str, budget: int) -> str:
    """Which arm is highest by which metric, where it is not the same one; otherwise nothing."""
    rows = table[(table["benchmark"] == summary) & (table["budget"] == budget)]
    best = {metric: part.loc[part["value"].idxmax()] for metric, part in rows.groupby("metric", sort=False)}
    if len({row["arm"] for row in best.values()}) < 2:
        return ""
    each = [f"{row['arm']} in {metric.capitalize()} ({100 * row['value']:.1f} %)" for metric, row in best.items()]
    return f"Highest: {', '.join(each)}."


def _write(axis: plt.Axes, percent: pd.DataFrame, heights: list[int]) -> None:
    """Write each row's value beside its mark, to the left of what is high; the highest one in bold."""
    for y, row in zip(heights, percent.itertuples(), strict=True):
        at, side, shift = (row.low, "right", -5) if row.value > 50 else (row.high, "left", 5)
        text = axis.annotate(f"{row.value:.1f}", (at, y), (shift, 0), textcoords="offset points", va="center", ha=side)
        text.set(fontsize=8, fontweight="bold" if row.value == percent["value"].max() else "normal", zorder=TOP + 1)
        text.set_bbox(PLATE)


def _dot(axis: plt.Axes, row: pd.DataFrame, y: float, look: tuple, zorder: int, hollow: bool = False) -> None:
    """A row's value with its interval, in percent, at a height."""
    colour, marker = look
    drawn = {"fmt": marker, "ms": 4.5, "capsize": 1.5, "lw": 1.2, "color": colour, "zorder": zorder}
    axis.errorbar(100 * row["value"], [y], xerr=spread(row), mfc="white" if hollow else colour, **drawn)


def economy(table: pd.DataFrame, responses: pd.DataFrame, samples: str) -> plt.Figure:
    """Average Pass@1 against the mean length of a response; ``table`` and ``samples`` as in :func:`accuracy`."""
    theme()
    rows = averages(table)
    figure, axis = plt.subplots(figsize=(WIDTH, _room(len(rows))))
    tokens = responses.loc[rows.index, "tokens_mean"]
    _points(axis, rows, tokens)
    axis.set(xlabel="mean response length (tokens)", ylabel=_averaged(table))
    axis.set_xlim(0, 1.15 * tokens.max())
    figure.tight_layout()
    _name(axis, rows, tokens)
    said = f" Named: the main arms, and {_LEAST} with shorter responses." if len(rows) > MANY else ""
    caption(figure, f"n = {int(rows['n'].iloc[0]):,} problems, {samples}; bars: 95 % intervals.{said}")
    return figure


_LEAST = "those that no arm equals"


def _averaged(table: pd.DataFrame) -> str:
    name = single(table)
    return "average Pass@1 (%)" if name == AVERAGE else f"{name}, Pass@1 (%)"


def _room(arms: int) -> float:
    """The height in inches of a panel whose points are named."""
    return 3.6 if arms <= MANY else min(4.2 + 0.06 * arms, WIDTH)


def _points(axis: plt.Axes, rows: pd.DataFrame, at: pd.Series) -> None:
    """A point per arm with its interval, in percent; of many arms a legend of their groups."""
    looks = _look(rows.index)
    for arm in rows.index:
        row, (colour, marker) = rows.loc[[arm]], looks[arm]
        look = {"ms": 5, "capsize": 2, "lw": 1, "color": colour, "zorder": _over(arm)}
        axis.errorbar([at[arm]], 100 * row["value"], yerr=spread(row), fmt=marker, **look)
    low, high = 100 * rows["low"].min(), 100 * rows["high"].max()
    axis.set_ylim(max(low - 8, -5), min(high + 8, 105))
    if len(rows) > MANY:
        groups = [group for group in arranged(rows["value"]) if group in GROUP_STYLES]
        marks = {group: dict(zip(("color", "marker"), GROUP_STYLES[group], strict=True)) for group in groups}
        handles = [plt.Line2D([], [], ls="", label=group, **mark) for group, mark in marks.items()]
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(handles), "borderaxespad": 0.2}
        axis.legend(handles=handles, **place, frameon=False, fontsize="small")


def _frontier(rows: pd.DataFrame, at: pd.Series) -> list[str]:
    """The arms that no arm equals for less, from the least on."""
    order = sorted(rows.index, key=lambda arm: (at[arm], -rows.loc[arm, "value"]))
    best = rows.loc[order, "value"].cummax().shift(fill_value=-1.0)
    return [arm for arm in order if rows.loc[arm, "value"] > best[arm]]


ANGLES = np.radians([0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 65, 295, 115, 245])
DISTANCES = (6, 10, 16, 24, 34, 46, 60, 76, 94, 114, 136, 160, 190)
"""Where a point's name may stand: directions and points (1/72 inch) from it."""
APART = 8  # points; a name farther away has a line to its point
WAY = np.linspace(0.3, 1, 8)[:, None]
"""Where along such a line it is tested."""


def _name(axis: plt.Axes, rows: pd.DataFrame, at: pd.Series, line: plt.Line2D | None = None) -> None:
    """Write each arm's name where it lies on no mark, bar or other name, nor on ``line``; a name that stands apart has
    a line to its point. Of many arms only the main ones are named, and those of the frontier. Call it last: it needs
    the panel's final size.
    """
    looks, named = _look(rows.index), set(rows.index)
    if len(rows) > MANY:
        named = {arm for arm in rows.index if _group(arm) == "main arms"} | set(_frontier(rows, at))
    axis.figure.draw_without_rendering()
    pixels, frame, inverse = axis.figure.dpi / 72, axis.get_window_extent(), axis.transData.inverted()
    places, taken = {}, []
    for arm in rows.index[rows["value"].notna() & at[rows.index].notna()]:
        own = 100 * rows.loc[arm, ["low", "high", "value"]].to_numpy(float)
        (x, low), (_, high), (_, y) = axis.transData.transform([(at[arm], end) for end in own])
        places[arm] = (x, y)
        taken += [(x - 4 * pixels, y - 4 * pixels, x + 4 * pixels, y + 4 * pixels)]
        taken += [(x - 2 * pixels, low, x + 2 * pixels, high)]
    if line:
        ends = axis.transData.transform(line.get_path().vertices)
        for start, end in pairwise(ends):
            taken.append((*np.minimum(start, end) - pixels, *np.maximum(start, end) + pixels))
    steps = np.array([(np.cos(a), np.sin(a), pixels * d) for d in DISTANCES for a in ANGLES])
    for arm in sorted(named & set(places), key=lambda arm: (arm != OURS, -places[arm][1])):
        x, y = places[arm]
        text = axis.text(*inverse.transform((x, y)), arm, ha="center", va="center", zorder=_over(arm) + 1)
        text.set(fontsize=9, fontweight="bold" if arm == OURS else "normal")
        text.set_bbox(PLATE)
        half = np.array(text.get_window_extent().size) / 2
        centres = np.column_stack([x + steps[:, 0] * (steps[:, 2] + half[0]), y + steps[:, 1] * steps[:, 2]])
        boxes = np.hstack([centres - half, centres + half])
        outside = (boxes[:, :2] < frame.min).any(axis=1) | (boxes[:, 2:] > frame.max).any(axis=1)
        cost = steps[:, 2] + 3 * sum(_shared(boxes, np.array(other)) for other in taken)
        # nearer to another arm's point, it would be read as that arm's name
        others = np.array([place for other, place in places.items() if other != arm]).reshape(-1, 1, 2)
        gaps = np.maximum(np.maximum(boxes[:, :2] - others, others - boxes[:, 2:]), 0)
        nearest = np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=0, initial=np.inf)
        cost += 2 * (steps[:, 2] - nearest).clip(min=0)
        ends = np.clip((x, y), boxes[:, :2], boxes[:, 2:])
        way = (x, y) + WAY * (ends - (x, y))[:, None]  # of the line to it, which should cross nothing
        for other in map(np.array, taken):
            crossed = ((way > other[:2]) & (way < other[2:])).all(axis=-1).sum(axis=1)
            cost += 20 * pixels * crossed * (steps[:, 2] > APART * pixels)
        best = int(np.argmin(cost + 1e6 * outside))
        taken.append(tuple(boxes[best]))
        text.set_position(inverse.transform(centres[best]))
        if steps[best, 2] > APART * pixels:
            end = np.clip((x, y), boxes[best, :2], boxes[best, 2:])
            taken += [(*at - 2 * pixels, *at + 2 * pixels) for at in (x, y) + WAY * (end - (x, y))]
            axis.plot(*inverse.transform([(x, y), end]).T, lw=0.8, color=looks[arm][0], zorder=2)


def _shared(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The area in pixels that each of ``boxes`` shares with another one."""
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    return sides.clip(min=0).prod(axis=1)


def response_lengths(grades: pd.DataFrame, budgets: list[int], accuracies: pd.Series) -> plt.Figure:
    """Lengths of answered responses per arm in tokens. ``grades``: a row per response; ``budgets``: the main first;
    ``accuracies``: the arms' averages, in whose order they stand.
    """
    theme()
    grades = answered(grades)
    groups = arranged(accuracies[grades["arm"].unique()])
    looks = _look(grades["arm"].unique())
    many = len(looks) > MANY  # then the outliers are thousands of points
    figure, axis = plt.subplots(figsize=(5.6, max(2.2, _height(groups))))
    at = dict(zip([arm for arms in groups.values() for arm in arms], _rows(axis, groups), strict=True))
    ends = axis.get_ylim()
    sns.boxplot(
        grades.assign(row=grades["arm"].map(at)),
        x="new_tokens",
        y="row",
        hue="arm",
        palette={arm: looks[arm][0] for arm in at},
        orient="h",
        native_scale=True,
        fliersize=1,
        showfliers=not many,
        ax=axis,
        legend=False,
    )
    for budget in budgets[1:]:
        axis.axvline(budget, ls="--", lw=1, color="grey")
    axis.set(xlabel="response length (tokens)", ylabel="", xlim=(0, budgets[0] * 1.02), ylim=ends)
    figure.tight_layout()
    second = f" Dashed: the second budget, {budgets[1]:,}." if budgets[1:] else ""
    beyond = "; what lies beyond is not drawn" if many else ""
    counts = grades.groupby("arm").size()
    each = " to ".join(f"{n:,}" for n in sorted({counts.min(), counts.max()}))
    words = f"n = {each} answered responses per arm. Boxes: quartiles; whiskers: 1.5 box lengths{beyond}.{second}"
    caption(figure, words)
    return figure


def seeds(table: pd.DataFrame, accuracies: pd.DataFrame | None = None) -> plt.Figure | None:
    """Each training seed's average Pass@1 over the interval of their mean (``tables.seeds``).

    ``accuracies`` (``tables.accuracy``) add the arms that are not trained and so have no seeds.
    """
    theme()
    if table.empty:
        return nothing()
    own = [column for column in table.columns if column.startswith("seed ")]
    if accuracies is not None:
        others = averages(accuracies)[["value", "low", "high"]]
        table = pd.concat([table, others[~others.index.isin(table.index)]])
    groups, looks = arranged(table["value"]), _look(table.index)
    figure, axis = plt.subplots(figsize=(5.6, _height(groups)))
    for arm, y in zip([arm for arms in groups.values() for arm in arms], _rows(axis, groups), strict=True):
        row, colour = table.loc[arm], looks[arm][0]
        axis.hlines(y, 100 * row["low"], 100 * row["high"], color=colour, lw=6, alpha=0.3, zorder=_over(arm))
        drawn = {"ls": "", "color": colour, "zorder": _over(arm)}
        if row[own].isna().all():
            axis.plot(100 * row["value"], y, marker="o", ms=4, **drawn)
        else:
            axis.plot(100 * row[own].astype(float), [y] * len(own), marker="|", ms=9, **drawn)
            apart = 100 * row[own].astype(float).std()
            axis.text(1.02, y, f"{apart:.1f}", transform=axis.get_yaxis_transform(), va="center", fontsize="small")
    axis.set_xlabel("average Pass@1 (%)")
    axis.set_title("sd (points)", loc="right", fontsize="small")
    figure.tight_layout()
    alone = " Dots: not trained, so without seeds." if table[own].isna().all(axis=1).any() else ""
    caption(
        figure,
        f"Strokes: each of the {len(own)} training seeds; sd: their standard deviation.{alone}\n"
        "Bands: 95 % intervals of the mean.",
    )
    return figure


PREFERENCES = {  # in colours of no arm
    "win": ("prefers the heading's arm", "#6a73b8"),
    "tie": ("tie", "0.8"),
    "inconsistent": ("order decides", "0.6"),
    "unparseable": ("no verdict", "0.4"),
    "loss": ("prefers the arm in the row", "#e6d25a"),
}


def preference(table: pd.DataFrame, judge: str) -> plt.Figure | None:
    """Outcomes of each pair of arms (Figure 3d's question); ``table`` of ``preference.table``, ``judge`` in words."""
    theme()
    if table.empty:
        return nothing()
    wide = table.pivot(index=["arm", "against"], columns="measure", values="value")
    wide = wide.loc[list(dict.fromkeys(zip(table["arm"], table["against"], strict=True)))]
    wide = wide.loc[(wide["win"] - wide["loss"]).sort_values(ascending=False, kind="stable").index]
    groups = {f"{arm} against": list(wide.loc[arm].index) for arm in table["arm"].unique()}
    pairs = [(arm, against) for arm in table["arm"].unique() for against in wide.loc[arm].index]
    figure, axis = plt.subplots(figsize=(WIDTH, _height(groups)))
    heights, left = _rows(axis, groups, headed=True), pd.Series(0.0, index=wide.index)[pairs]
    for outcome, (label, colour) in PREFERENCES.items():
        rows = table[table["measure"] == outcome].set_index(["arm", "against"]).loc[pairs]
        if not rows["value"].any():
            continue  # it would be a legend's entry without a bar
        axis.barh(heights, 100 * rows["value"], left=100 * left, color=colour, label=label, height=0.7)
        left = left + rows["value"]
        # wins are read from the left edge and losses from the right one, and so are their intervals
        for y, row in zip(heights, rows.itertuples(), strict=True) if outcome in ("win", "loss") else ():
            ends = (row.low, row.high) if outcome == "win" else (1 - row.high, 1 - row.low)
            axis.hlines(y, 100 * ends[0], 100 * ends[1], color="black", lw=1.5)
    axis.set(xlabel="problems (%)", xlim=(0, 100))
    axis.grid(axis="y", visible=False)
    figure.tight_layout()
    figure.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, ncols=3, fontsize="small")
    caption(
        figure,
        f"Judge: {judge}. n = {int(table['n'].max()):,} problems per pair, each asked in both orders.\n"
        "Lines: 95 % intervals of wins (from the left) and of losses (from the right).",
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
    figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        panel = table[table["metric"] == metric].set_index("arm")
        rows = panel.loc[[fixed[percent] for percent in at]]
        colour, marker = STYLES[fixed[at[-1]]]
        fmt = f"{marker}-"
        axis.errorbar(at, 100 * rows["value"], yerr=spread(rows), fmt=fmt, capsize=3, color=colour, label="fixed share")
        if "p-align" in panel.index:
            row, colour = panel.loc["p-align"], COLOURS["p-align"]
            axis.axhline(100 * row["value"], color=colour, label="p-align (adaptive)", zorder=TOP)
            axis.axhspan(100 * row["low"], 100 * row["high"], color=colour, alpha=0.2, lw=0)
        axis.set(title=metric.capitalize(), xlabel="prefix (% of the trace's sentences)", xlim=(0, 100), xticks=at)
    axes[0][0].set_ylabel(f"{name} (%)")
    figure.tight_layout()
    handles, words = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, words, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, ncols=2)
    n = int(table["n"].iloc[0])
    caption(figure, f"n = {n:,} problems, {samples}. Bars and band: 95 % intervals.")
    return figure


def pareto(table: pd.DataFrame, spent: pd.DataFrame, samples: str) -> plt.Figure | None:
    """Average Pass@1 against tokens of training, and against all tokens of making the arm (``tables.spent``).

    The stepped line joins the arms that no arm equals at lower cost. It begins with what costs nothing.
    ``table`` and ``samples`` as in :func:`accuracy`.
    """
    theme()
    rows = averages(table)
    if not spent.loc[rows.index, "total"].any():
        return nothing()
    labels = {"trained": "tokens trained on", "total": "tokens judged, continued and trained on"}
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 2 * _room(len(rows))), sharey=True)
    lines, free = [], bool((spent.loc[rows.index, "total"] == 0).any())
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        cost = spent.loc[rows.index, column]
        _points(axis, rows, cost)
        best = _frontier(rows, cost)
        ends = [*cost[best], cost.max()], [*100 * rows.loc[best, "value"], 100 * rows["value"].max()]
        (line,) = axis.step(*ends, where="post", color="grey", lw=1, zorder=1, label="frontier")
        lines.append(line)
        least, most = cost[cost > 0].min(), cost.max()
        margin = max(1.05, (most / least) ** 0.15)
        # logarithmic, but a fifth of the axis is for zero
        axis.set_xscale("symlog", linthresh=least, linscale=0.2 * np.log10(margin * most / least))
        low, high = (-0.1 * least if free else least / margin), margin * most
        axis.set(xlabel=label, ylabel=_averaged(table), xlim=(low, high))
        axis.set_xticks([0] * free + _ticks(least if free else low, high))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())
    figure.tight_layout()
    for axis, column, line in zip(axes, labels, lines, strict=True):
        _name(axis, rows, spent[column], line)
    said = f" Named: the main arms, and {_LEAST} for fewer tokens." if len(rows) > MANY else ""
    place = " with a place for 0" if free else ""
    caption(
        figure,
        f"n = {int(rows['n'].iloc[0]):,} problems, {samples}; bars: 95 % intervals. Tokens of one training seed; their "
        f"axes are logarithmic{place}. Grey: the best accuracy for so many tokens or fewer.{said}",
    )
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """Three round numbers or more from ``low`` to ``high``, for a logarithmic axis that may hold no power of ten."""
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), np.arange(1, 10, 0.5), np.arange(1, 10, 0.1)):
        found = [float(step * 10**power) for power in range(15) for step in steps if low <= step * 10**power <= high]
        if len(found) >= 3:
            break
    return found


def beside(table: pd.DataFrame) -> plt.Figure | None:
    """The paper's printed values and this study's, one panel per figure or table; ``table`` of ``beside.table``.

    Shares have a linear axis. Lengths and counts have a logarithmic one, on which equal distances are equal ratios:
    students, problems and traces differ, so only order and proportions can be compared.
    """
    theme()
    if table.empty:
        return nothing()
    forms = [form for form in FORMS if form in set(table["form"])]
    names = {
        form: [n for n in FORMS[form].names.values() if n in set(table[table["form"] == form]["name"])]
        for form in forms
    }
    heights = [len(names[form]) + 1.8 for form in forms]
    figure, axes = plt.subplots(
        len(forms), 1, figsize=(WIDTH, 0.38 * sum(heights) + 0.4), height_ratios=heights, squeeze=False
    )
    sources = [*(source for source in table["source"].unique() if source != HERE), HERE]
    styles = dict(zip(sources, zip(COLOURBLIND, "os^v", strict=False), strict=False)) | {HERE: ("black", "D")}
    for axis, form in zip(axes.flat, forms, strict=True):
        rows, spec = table[table["form"] == form], FORMS[form]
        present = [source for source in sources if source in set(rows["source"])]
        for k, source in enumerate(present):
            colour, marker = styles[source]
            for row in rows[rows["source"] == source].itertuples():
                at = names[form].index(row.name) + 0.2 * (k - (len(present) - 1) / 2)
                if pd.notna(row.low):
                    axis.hlines(at, row.low, row.high, color=colour, lw=1.5)
                axis.plot(row.value, at, marker, ms=5, color=colour, zorder=TOP if source == HERE else 3)
        axis.set(yticks=range(len(names[form])), ylim=(len(names[form]) - 0.4, -0.6), xlabel=spec.unit)
        for label, name in zip(axis.set_yticklabels(names[form]), names[form], strict=True):
            label.set_fontweight("bold" if name == OURS else "normal")
        if "%" in spec.unit:
            axis.set_xlim(0, 102)
        else:
            low, high = rows[["value", "low"]].min().min(), rows[["value", "high"]].max().max()
            axis.set(xscale="log", xlim=(low / 1.3, 1.3 * high))
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        note = "".join(sorted(set(rows["note"])))
        axis.set_title(f"{spec.title} (here: {note})" if note else spec.title, fontsize="medium", loc="left")
    handles = [plt.Line2D([], [], ls="", marker=styles[s][1], color=styles[s][0], label=s) for s in sources]
    figure.tight_layout()
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=2)
    counts = sorted({int(n) for n in table[table["source"] == HERE]["n"]})
    each = f"{counts[0]:,} to {counts[-1]:,}" if len(counts) > 1 else f"{counts[0]:,}"
    caption(
        figure,
        f"n = {each} problems, traces or pairs of this study; lines: 95 % intervals over them. The paper has none; "
        "that of Table 7 follows from its counts. Axes of tokens and verdicts are logarithmic.",
    )
    return figure


def claims(ledger: pd.DataFrame) -> plt.Figure | None:
    """Gains in accuracy that the paper claims: this study's with intervals, and the printed ones; ``ledger.table``."""
    theme()
    rows = ledger[ledger["unit"] == "points"]
    rows = rows[rows["metric"].astype(str).str.startswith("pass@")]
    if rows.empty:
        return nothing()
    labels = rows["claim"] + rows["note"].map(lambda note: f" ({note})" if note else "")
    metrics, names = sorted(rows["metric"].unique()), list(dict.fromkeys(labels))
    wrapped = [textwrap.fill(name, 40) for name in names]
    size = (WIDTH, (0.14 * max(name.count("\n") for name in wrapped) + 0.28) * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharex=True, sharey=True, squeeze=False)
    legend = {}
    for axis, metric in zip(axes[0], metrics, strict=True):
        part = rows[rows["metric"] == metric]
        at = labels[part.index].map(names.index)
        axis.axvline(0, color="grey", lw=1)
        printed = pd.to_numeric(part["printed"])
        axis.plot(printed, at, "D", ms=5, color=COLOURBLIND[1], label="printed, mean over settings")
        axis.hlines(at, part["low"], part["high"], color=COLOURBLIND[0], lw=2)
        for clear, label in ((True, HERE), (False, f"{HERE}, {OPEN}")):
            own = part[(part["verdict"] != OPEN) == clear]
            if own.empty:
                continue
            look = {"ms": 5, "color": COLOURBLIND[0], "mfc": COLOURBLIND[0] if clear else "white"}
            axis.plot(own["value"], at[own.index], "o", label=label, **look)
        legend |= {handle.get_label(): handle for handle in axis.get_legend_handles_labels()[0]}
        axis.set(title=metric.capitalize(), xlabel="gain (points)")
        axis.xaxis.set_major_locator(MaxNLocator(6))
    axes[0][0].set_yticks(range(len(names)), wrapped, fontsize="small")
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
    figure.tight_layout()
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    figure.legend(handles=list(legend.values()), **place, frameon=False, ncols=3, fontsize="small")
    caption(
        figure,
        f"n = {int(rows['n'].max()):,} problems of this study, paired; lines: 95 % intervals. The paper's students, "
        "problems and budgets are others.",
    )
    return figure
