"""The tables and the headline on recorded rollouts as a reader sees them; ``palign.analysis.rollouts`` has the numbers.

>>> means(by_share(table)).frame.loc[("right traces", "30 %"), "success, %"]
'88 [82, 93]'
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

import pandas as pd

from ..analysis.rollout_figures import model_name, trace_name
from ..analysis.rollouts import BESIDE, COUNTS, Rollouts, curves
from .display import Table, table

TITLES = {
    "falls": "traces that fall beyond chance, %",
    "drop": "largest fall, points",
    "by_chance": "the same by chance, points",
    "low": "true fall, at least, points",
    "high": "true fall, at most, points",
    "landing": "sentences kept, %",
    "success": "success there, %",
    "around": "success around it, %",
    "none": "no verdict ENOUGH, %",
    "differs": "ends elsewhere than linear, %",
    "continuations": "continuations per trace",
    "retention": "kept, %",
    "share": "sentences, %",
    "before": "before, %",
    "behind": "behind, %",
    "difference": "difference, points",
}
"""Measures -> headings."""
OF_BESIDE = {
    "sentences of a trace": "sentences per trace",
    "rollouts of a prefix": "rollouts per prefix",
    "largest true fall, lower bound": "largest true fall, at least, points",
    "linear search: landing": "sentences that the linear search keeps, %",
    "released search: landing": "sentences that the released search keeps, %",
    "released search: success there": "success where the released search ends, %",
    "released search ends elsewhere than linear": "released search ends elsewhere than linear, %",
    "the same, verdicts of 4 continuations": "the same, with verdicts of 4 continuations, %",
    "retention: 30 % of the sentences": "pairs kept with 30 % of the sentences, %",
    "retention: a judge right in 90 %": "pairs kept by a judge of whose verdicts 90 % are right, %",
    "retention: verified by 4 continuations": "pairs kept by a search with verdicts of 4 continuations, %",
    "continuations a trace: verified by 4": "continuations per trace of that search",
    "retention: back-off from 10 %": "pairs kept by back-off from a tenth of the trace, %",
    "continuations a trace: back-off from 10 %": "continuations per trace of that back-off",
}
"""Measures of :data:`~palign.analysis.rollouts.BESIDE` -> rows; the others are shares, and named as they are."""
FIRST = 8
PERCENT = "\N{NO-BREAK SPACE}%"
OPEN = ("0%", "30%", "50%", "100%", "right in 90%, success of 50%", "right in 90%, success of 90%")
OPEN += ("4 continuations, 50% right", "4 continuations, 90% right", "from 10%", "4 of 30%")
"""The policies that stand open: some of each family."""


def estimate(
    value: float, low: float, high: float, count: bool = False, unit: str = "", difference: bool = False
) -> str:
    """``value [low, high]``: a share in whole percent, a count below 100 with one decimal; without bounds where all
    traces agree. A ``difference`` has its sign, unless it is rounded to zero.
    """
    digits, scale = (int(value < 100), 1) if count else (0, 100)

    def text(number: float) -> str:
        number = round(scale * number, digits) + 0.0  # + 0.0: no "-0"
        return f"{number:{'+' if difference and number else ''}.{digits}f}"

    bounds = "" if math.isnan(low) else f" [{text(low)}, {text(high)}]"
    return f"{text(value)}{unit}{bounds}"


def estimates(
    rows: pd.DataFrame,
    index: Sequence[str],
    column: str = "measure",
    first: int | Collection[str] | None = None,
    of: str = "",
) -> Table:
    """One row for each of ``index``, one column for each value of ``column``, in the rows' order: shares and chances in
    percent, :data:`~palign.analysis.rollouts.COUNTS` as they are. ``of`` heads all columns.
    """
    if rows.empty:
        return table(rows)
    counts = rows["measure"].isin(COUNTS) if "measure" in rows else [False] * len(rows)
    values = rows[["value", "low", "high"]].itertuples(index=False)
    text = [
        estimate(*one, count, difference=name == "difference")
        for one, count, name in zip(values, counts, rows[column], strict=True)
    ]
    wide = rows.assign(text=text).pivot_table(
        index=list(index), columns=column, values="text", aggfunc="first", sort=False, observed=True, fill_value=""
    )
    wide = wide.rename_axis(columns=None)
    if of:
        wide.columns = pd.MultiIndex.from_product([[of], wide.columns])
    words = {name: _words(name) for name in wide.index.get_level_values(-1)}
    return table(wide, labels=TITLES | words, first=first)


def _words(name: str) -> str:
    text = str(name).replace("_", " ").replace("equation7", "Equation 7")
    text = re.sub(r"right in (\d+%), success of (\d+%)", r"\1 of verdicts right, ENOUGH from \2", text)
    return re.sub(r"(\d)%", rf"\1{PERCENT}", text)


def means(found: pd.DataFrame) -> Table:
    """``by_share``: success and its gain over no prefix, right and wrong traces apart."""
    if found.empty:
        return table(found)
    rows = {}
    for row in found.to_dict("records"):
        cells = {
            title: estimate(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), difference=name == "gain")
            for name, title in (("success", "success, %"), ("gain", "gain over no prefix, points"))
        }
        rows[f"{row['answer']} traces", f"{100 * row['share']:.0f}{PERCENT}"] = cells | {"traces": row["n"]}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return table(frame.rename_axis(["answer", "part of the trace that is kept"]))


def overview(found: pd.DataFrame) -> Table:
    """What a file holds, by model and kind of trace."""
    frame = found.rename(index={"right": "right traces", "wrong": "wrong traces"}, level=1)
    frame = frame.rename(index=model_name, level=0).rename_axis(["model", "answer"])
    spans = {"traces": ("traces", "all"), "complete": ("traces", "measured whole")}
    spans |= {"prefixes": ("prefixes", "all"), "unmeasured": ("prefixes", "without rollouts")}
    spans |= {"rollouts": ("rollouts per prefix, median", "")}
    frame.columns = pd.MultiIndex.from_tuples([spans[name] for name in frame])
    return table(frame)


def searches(ends: pd.DataFrame, right: bool) -> Table:
    """Where searches end on right or on wrong traces, by the kind of verdict: the strictest of each kind first."""
    rows = ends[(ends["right"] == right) & ~ends["measure"].isin(COUNTS)]
    rows = rows[(rows["samples"] != 1) | (rows["threshold"] == ends["threshold"].min())]
    verdict = [_verdict(*one) for one in rows[["threshold", "samples"]].itertuples(index=False)]
    rows = rows.assign(verdict=verdict).sort_values(["samples", "threshold"], ascending=[True, False], kind="stable")
    return estimates(rows, ["verdict", "search"], first=FIRST, of=_traces(right))


def _verdict(threshold: float, samples: float) -> str:
    if samples == 1:
        return "ENOUGH if one drawn continuation is right"
    whose = f"{samples:.0f} drawn" if samples else "the recorded"
    return f"ENOUGH if {100 * threshold:.0f}{PERCENT} of {whose} continuations are right"


def _traces(right: bool) -> str:
    return "right traces" if right else "wrong traces"


def policies(kept: pd.DataFrame, right: bool) -> Table:
    """What policies keep of right or of wrong traces."""
    return estimates(kept[kept["right"] == right], ["family", "policy"], first=OPEN, of=_traces(right))


def behind(found: pd.DataFrame) -> Table:
    """How much of a trace stands behind the point of enough."""
    if found.empty:
        return table(found)
    cells = [estimate(*one) for one in found[["value", "low", "high"]].itertuples(index=False)]
    names = [name.replace("share of the trace", "part of the trace") + ", %" for name in found.index]
    return table(pd.DataFrame({"": cells, "traces": list(found["n"])}, names))


def lost(found: pd.DataFrame) -> Table:
    """At what length a wrong trace's problem is lost."""
    shares = {
        "start": ("success, %", "without a prefix"),
        "best": ("success, %", "at the best prefix"),
        "end": ("success, %", "at the longest"),
        "lost": ("lost from, % of the trace", ""),
    }
    if found.empty:
        return table(found)
    cells = {to: [None if pd.isna(x) else f"{100 * x:.0f}" for x in found[name]] for name, to in shares.items()}
    traces = pd.Index(found["trace"].map(trace_name), name="trace")
    frame = pd.DataFrame({("sentences", ""): list(found["of"])} | cells, traces)
    return table(frame, first=FIRST)


def beside(tables: dict[str, pd.DataFrame]) -> Table:
    """``measures`` of several tables, one column each (by its name)."""
    counts = {name for name, kind in BESIDE if kind == "count"}
    columns = {
        name: {r.measure: estimate(r.value, r.low, r.high, r.measure in counts) for r in rows.itertuples()}
        for name, rows in tables.items()
    }
    order = [name for name, _ in BESIDE if any(name in column for column in columns.values())]
    frame = pd.DataFrame(columns, index=pd.Index(order, name="right traces")).fillna("")
    return table(frame, labels={name: OF_BESIDE.get(name, f"{name}, %").replace(" %", PERCENT) for name in order})


def source(params: Rollouts, rows: pd.DataFrame) -> str:
    """Whose rollouts the table ``rows`` holds, in one or two sentences."""
    traces, prefixes = rows["trace"].nunique(), int((rows["rollouts"] > 0).sum())
    about = f"{rows.loc[rows['rollouts'] > 0, 'rollouts'].median():,.0f}"
    if params.source == "recorded":
        return (
            f"For every sentence prefix of {traces} reasoning traces of real models others recorded how many of about "
            f"{about} continuations reach the right answer (Bogdan et al. 2025, arXiv 2506.19143)."
        )
    if params.source == "study":
        return (
            f"The student of the study `{params.path.stem}` continued {prefixes:,} sentence prefixes of {traces} "
            f"reasoning traces of its teacher, about {about} times each. The report says how many of these "
            "continuations reach the right answer." + (f" {POCKET_IS}" if params.of_pocket else "")
        )
    return (
        f"`{params.path.name}` says how many of about {about} continuations reach the right answer, for {prefixes:,} "
        f"sentence prefixes of {traces} reasoning traces."
    )


POCKET_IS = (
    "Both are small models of the pocket world, whose problems are made up (`palign/pocket/README.md`); none of these "
    "rollouts is of a real model."
)
RECORDED_GAPS = (
    "The whole trace is here the longest prefix that was recorded, which may lack the last sentence. Two traces were "
    "not measured to their ends; they count in section 2, by what was measured, and not in the rest. One of them, {}, "
    f"ends in the right answer, but on average 2{PERCENT} of the continuations of its measured prefixes reach it, and "
    f"at best 23{PERCENT}: this model rarely solves that problem. The second half of the trace has no rollouts, which "
    "the source writes as a share of 0."
)


def gaps(params: Rollouts, rows: pd.DataFrame) -> str:
    """Which traces were not measured to their ends, and what becomes of them; empty where all were."""
    if params.source == "recorded":
        return RECORDED_GAPS.format(trace_name("llama-8b/correct/6596"))
    missing = sum(not curve.complete for curve in curves(rows))
    if not missing:
        return ""
    return (
        f"{missing} of {rows['trace'].nunique()} traces were not measured at every prefix. They count in section 2, by "
        "what was measured, and not in the rest."
    )


def limits(params: Rollouts, rows: pd.DataFrame) -> str:
    """What the rollouts do not show, as a list."""
    count, right = rows["trace"].nunique(), rows.groupby("trace")["right"].first()
    if params.source == "recorded":
        own = [
            "The recorded models continue their own traces. P-ALIGN's student continues the trace of another model.",
            f"{count} traces of 10 problems, two models that were trained alike, MATH problems of levels 4 and 5. "
            "Intervals over traces take no account of traces that share a problem.",
        ]
    elif params.source == "study":
        whose = "the pocket world" if params.of_pocket else f"the study `{params.path.stem}`"
        own = [
            f"One student, one teacher and {count} traces of {whose}. Other models may differ; the last table compares "
            "the two.",
            "Intervals over traces take no account of traces that share a problem.",
        ]
    else:
        own = [
            "P-ALIGN's student continues the trace of another model. Which model wrote these traces the file does not "
            "say.",
            "Intervals over traces take no account of traces that share a problem.",
        ]
    if right.nunique() == 1:
        said = "right" if right.iloc[0] else "wrong"
        own.append(f"All traces end in a {said} answer: nothing here is about the others.")
    about = rows.loc[rows["rollouts"] > 0, "rollouts"].median()
    own += [
        "The verdicts here come from success. A judge that reads a prefix may err otherwise, and its errors may depend "
        "on each other.",
        f"The recorded share serves as the true one. Of about {about:,.0f} rollouts it is off by up to "
        f"{98 / math.sqrt(about):.0f} points, and a search for a high share finds those that chance made high.",
        "Nothing here is trained: whether a short prefix makes the better training target stays open.",
    ]
    return "\n".join(f"- {line}" for line in own)


def finding(means: pd.DataFrame, fall: pd.DataFrame, behind: pd.DataFrame, ends: pd.DataFrame, threshold: float) -> str:
    """The headline in at most three sentences; what the file does not measure is left out."""
    parts = []
    right, wrong = (means[means["answer"] == answer].set_index("share") for answer in ("right", "wrong"))
    if len(right):
        parts.append(
            f"On right traces success {_moves(right.loc[0.3])} with 30{PERCENT} of the sentences"
            + _if(
                fall[(fall["answer"] == "right") & (fall["measure"] == "falls")],
                ", but in {} of them a longer prefix is worse somewhere, beyond chance",
            )
        )
    elsewhere = ends[ends["right"] & (ends["search"] == "released") & (ends["measure"] == "differs")]
    elsewhere = elsewhere[(elsewhere["threshold"] == 0.9) & (elsewhere["samples"] == 0)]
    second = _if(
        behind,
        f"{{}} of a right trace stand behind the point from which {100 * threshold:.0f}{PERCENT} of the "
        "continuations are right",
    )
    if len(behind) and behind["n"].iloc[0] < right["n"].iloc[0]:
        second += f" (in the {behind['n'].iloc[0]} of {right['n'].iloc[0]} traces that have such a point)"
    second += _if(
        elsewhere,
        f"{', and the' if second else 'The'} released and the linear search end at different "
        "prefixes in {} of right traces, though monotone verdicts would make them agree",
    )
    parts.append(second)
    if len(wrong):
        parts.append(f"On wrong traces success {_moves(wrong.loc[0.5])} with half of the sentences")
    return " ".join(f"{part}." for part in parts if part)


def _moves(row: pd.Series) -> str:
    """How success changes by a prefix, and to what."""
    name = "rises" if row["gain"] > 0 else "falls"
    bounds = sorted(abs(row[f"gain_{end}"]) for end in ("low", "high"))
    across = row["gain_low"] < 0 < row["gain_high"]
    points = estimate(row["gain"], row["gain_low"], row["gain_high"]) if across else estimate(abs(row["gain"]), *bounds)
    to = estimate(row["success"], row["success_low"], row["success_high"], unit=PERCENT)
    return f"{'changes' if across else name} by {points} points to {to}"


def _if(rows: pd.DataFrame, text: str) -> str:
    """The text with the first row's estimate in it; empty without a row."""
    return text.format(estimate(*rows[["value", "low", "high"]].iloc[0], unit=PERCENT)) if len(rows) else ""
