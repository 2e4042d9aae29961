"""The report's tables as a reader sees them: percent and points, intervals below their values, units in the headings.

The numbers are those of ``palign.report.tables``, rounded; ``frame`` of each :class:`~palign.report.display.Table`
holds the cells as text.

>>> accuracy(tables.accuracy(study)).frame.loc["p-align", ("pass@1", "average")]
'82.6 [80.4, 84.5]'
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..arms import ARMS
from . import tables
from .display import Table, table
from .figures import arranged
from .results import Results, shown_name
from .texts import cell, left_out, percent

FIRST = 8
"""So many rows of a long table stand open."""
NAMES = {"pass@1": "Pass@1", "pass@3": "Pass@3", "p_holm": "p, Holm"}
"""Names of the tables -> what a reader sees."""


def metric_name(metric: str) -> str:
    return NAMES.get(metric, metric)


def _grouped(frame: pd.DataFrame, values: pd.Series) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of arms as figures have them: by group, the highest of ``values`` first; and each arm's group, of which
    one alone needs no name.
    """
    groups = arranged(values.reindex(frame.index))
    named = {arm: group for group, arms in groups.items() for arm in arms}
    return frame.loc[list(named)], named if len(groups) > 1 else {}


def _cells(rows: pd.DataFrame, scale: float = 100, number: str = "{:.1f}") -> list[str]:
    """``value [low, high]`` of each row; without bounds where there are none."""
    found = []
    for value, low, high in (scale * rows[["value", "low", "high"]]).itertuples(index=False):
        bare = "" if pd.isna(value) else number.format(value)
        found.append(bare if pd.isna(low) else cell(value, low, high, number))
    return found


# Accuracy


def lead(accuracies: pd.DataFrame, differences: pd.DataFrame, responses: pd.DataFrame) -> Table:
    """One row per arm, the most accurate first: what it reaches at the main budget, the length of its responses, on
    which side of the first arm it lies, and what it is trained on. Of many arms the best and the main ones stand open.
    """
    rows = accuracies[accuracies["budget"] == accuracies["budget"].max()]
    rows = rows[rows["benchmark"] == tables.single(accuracies)]
    order = tables.averages(accuracies)["value"].sort_values(ascending=False, kind="stable").index
    found = {}
    for metric, group in rows.groupby("metric", sort=False):
        found[f"{metric_name(metric)}, %"] = pd.Series([percent(row) for row in group.itertuples()], group["arm"])
    best = list(found)
    found["tokens per response"] = responses["tokens_mean"].map("{:,.0f}".format).replace("nan", "")
    against = tables.main(differences)
    if len(against):
        found[f"beside {against['reference'].iloc[0]}"] = pd.Series(
            [_side(row) for row in against.itertuples()], against["arm"]
        )
    found["trained on"] = pd.Series({arm: trained_on(arm) for arm in order})
    frame = pd.DataFrame(found).reindex(order).fillna("").rename_axis("arm")
    open_ = {*order[:5], *(arm for arm in order if arm in ("zero-shot", "sft-long-cot", "p-align"))}
    return table(frame, best=best, first=open_ if len(order) > FIRST else None)


def trained_on(arm: str) -> str:
    """What an arm is trained on, in words."""
    return ARMS[arm].description.removeprefix("control: ") if ARMS[arm].target else "nothing"


def _side(row) -> str:
    if row.test == tables.UNTESTED:
        return tables.UNTESTED
    return "not clear" if not row.clear else "above" if row.value > 0 else "below"


def accuracy(accuracies: pd.DataFrame, metric: str | None = None) -> Table:
    """One row per arm, one column per metric and benchmark: percent with intervals, at the main budget; then the
    summary of the first metric at the second one. ``metric``: only that one, since many arms have long names and a page
    is too narrow for two; empty without it.

    Where responses are missing, further columns say how many, and between which bounds the summary would lie if all
    of them were wrong, or right.
    """
    main, name = accuracies["budget"].max(), tables.single(accuracies)
    first = accuracies["metric"].iloc[0]
    rows = accuracies.assign(cell=[percent(row) for row in accuracies.itertuples()])
    rows = rows if metric is None else rows[rows["metric"] == metric]
    if rows.empty:
        return table(rows)
    at_main = rows[rows["budget"] == main]
    wide = at_main.pivot(index="arm", columns=["metric", "benchmark"], values="cell")
    columns = at_main.set_index(["metric", "benchmark"]).index.unique()
    wide = wide.reindex(index=at_main["arm"].unique(), columns=columns).rename_axis("arm")
    labels = {metric: f"{metric_name(metric)} in {main} tokens, %" for metric in at_main["metric"].unique()}
    others = rows[(rows["budget"] != main) & (rows["benchmark"] == name) & (rows["metric"] == first)]
    for budget, group in others.groupby("budget"):
        wide[f"{metric_name(first)} in {budget}, %", name] = group.set_index("arm")["cell"]
    best = list(wide)
    if at_main["missing"].any():
        for metric, group in at_main[at_main["benchmark"] == name].set_index("arm").groupby("metric", sort=False):
            spans = [f"{100 * row.at_least:.1f} to {100 * row.at_most:.1f}" for row in group.itertuples()]
            wide[f"{name}, %: missing ones wrong to right", metric_name(metric)] = pd.Series(spans, group.index)
            wide["missing", "responses"] = group["missing"]
    wide, groups = _grouped(wide, tables.averages(accuracies)["value"])
    return table(wide, labels=labels, best=best, groups=groups)


def differences(differences: pd.DataFrame) -> Table:
    """Differences in points with intervals, the largest first, p to two digits: the main metric at the main budget
    first, in a long table alone. A test that all differences share stands in the headings.
    """
    if differences.empty:
        return table(pd.DataFrame())
    order = differences.sort_values(["metric", "budget", "value"], ascending=[True, False, False], kind="stable")
    tests = [test for test in order["test"].unique() if test != tables.UNTESTED]
    shared = f"; p: {tests[0]}" if len(tests) == 1 else ""
    cells = [
        {
            "metric": f"{metric_name(row.metric)} in {row.budget} tokens, minus {row.reference}{shared}",
            "arm": row.arm,
            "difference, points": percent(row, "{:+.1f}"),
            "p": _p(row.p),
            "p, Holm": _p(row.p_holm),
            "clear": tables.UNTESTED if row.test == tables.UNTESTED else "yes" if row.clear else "no",
            "above": row.gains,
            "below": row.losses,
        }
        | ({} if shared else {"test": row.test})
        for row in order.itertuples()
    ]
    frame = pd.DataFrame(cells).set_index(["metric", "arm"])
    frame.columns = pd.MultiIndex.from_tuples(
        [("problems on which it is", name) if name in ("above", "below") else (name, "") for name in frame]
    )
    return table(frame, first=len(tables.main(differences)))


def _p(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def seeds(spread: pd.DataFrame) -> Table:
    """Average Pass@1 of each training seed beside that of all; percent and points."""
    if spread.empty:
        return table(spread)
    found = {("Pass@1, %", "all seeds"): pd.Series(_cells(spread), spread.index)}
    found |= {("Pass@1, %", name): 100 * spread[name] for name in spread if name.startswith("seed ")}
    found["points", "largest minus smallest"] = 100 * (spread["max"] - spread["min"])
    found["points", "standard deviation"] = 100 * spread["sd"]
    frame, groups = _grouped(pd.DataFrame(found).rename_axis("arm"), spread["value"])
    return table(frame, groups=groups)


def responses(found: pd.DataFrame, averages: pd.Series) -> Table:
    """How the arms' responses behaved; the count of missing ones where there are any. Arms as in :func:`accuracy`."""
    tokens, shares = "tokens", "% of the responses"
    columns = {
        "missing": ("missing", ""),
        "tokens_mean": (tokens, "mean"),
        "tokens_p5": (tokens, "5 %"),
        "tokens_p50": (tokens, "median"),
        "tokens_p95": (tokens, "95 %"),
        "hit_limit": (shares, "cut by the budget"),
        "no_box": (shares, "without a box"),
        "loop": (shares, "in a loop"),
        "prefix_format": (shares, "in the prefix format"),
        "prefix_unclosed": (shares, "prefix not closed"),
        "doubts_per_1000": ("words of doubt per 1,000", ""),
    }
    columns = {name: to for name, to in columns.items() if name != "missing" or found[name].any()}
    frame = found[list(columns)].copy()
    ratios = [name for name, to in columns.items() if to[0] == shares]
    frame[ratios] *= 100
    lengths = [name for name, to in columns.items() if to[0] == tokens]
    frame[lengths] = frame[lengths].round()
    for name in (*ratios, "doubts_per_1000"):
        frame[name] = frame[name].map("{:.1f}".format).replace("nan", "")  # 0.0 in a column of whole numbers too
    frame.columns = pd.MultiIndex.from_tuples(columns.values())
    frame, groups = _grouped(frame.rename_axis("arm"), averages)
    return table(frame, groups=groups)


def spent(found: pd.DataFrame, averages: pd.Series) -> Table:
    """What each arm costs until it is trained. Arms as in :func:`accuracy`."""
    titles = {
        "judged": "to find prefixes",
        "continued": "to complete them",
        "trained": "in training",
        "total": "in all",
    }
    frame = found[list(titles)].copy()
    frame.columns = pd.MultiIndex.from_product([["tokens of the student"], titles.values()])
    frame, groups = _grouped(frame, averages)
    return table(frame, groups=groups)


def preferences(found: pd.DataFrame) -> Table:
    """One row per pair of arms, one column per measure: percent with intervals; ``found`` of ``preference.table``."""
    signed = {"win less loss": "{:+.0f}"}
    cells = [percent(row, signed.get(row.measure, "{:.0f}")) for row in found.itertuples()]
    rows = found.assign(cell=cells, pair=found["arm"] + " over " + found["against"])
    order = list(dict.fromkeys(rows["pair"])), list(dict.fromkeys(rows["measure"]))
    wide = rows.pivot(index="pair", columns="measure", values="cell").reindex(index=order[0], columns=order[1])
    words = {"inconsistent": "order decides", "unparseable": "no verdict", "win less loss": "win minus loss, points"}
    return table(wide.rename_axis(index="% of problems", columns=None), labels=words)


# Prefixes and the judge

FACTS = {
    "judge errors": "traces on which the judge failed",
    "judge calls a trace, mean": "verdicts per trace, mean",
    "prefix ratio, median": "prefix, % of the trace's tokens, median",
    "whole trace, never enough": "traces kept whole, without an ENOUGH",
    "never answered": "continuations never answered",
    "right, but cut by the budget": "right continuations cut by the budget",
    "kept by the filter": "pairs kept by the filter",
    "retention": "pairs kept, % of the answered continuations",
    "share ENOUGH": "ENOUGH, % of the verdicts",
    "agrees with the oracle": "verdicts that agree with the oracle, %",
    "ENOUGH where the oracle says so": "ENOUGH where the oracle says so, %",
    "ENOUGH where it does not": "ENOUGH where it does not, %",
    "cut exactly at the oracle": "traces cut exactly at the oracle, %",
    "cut before the oracle": "traces cut before the oracle, %",
}
"""Names in the tables of one column -> what a reader sees, a share in percent."""
SEARCHES = {"released": "the released search", "equation7": "Equation 7's search", "linear": "a linear search"}
VERDICTS = {"compare": "the likelier of the two labels", "decode": "decoded as text"}


def facts(found: pd.DataFrame) -> Table:
    """A table of one column, ``value``: counts, means, and shares in percent."""

    def text(name: str, value: float) -> str:
        if "%" in FACTS.get(name, ""):
            return f"{100 * value:.1f}"
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}" if value < 1 else f"{value:,.1f}"

    if found.empty:
        return table(found)
    rows = {FACTS.get(name, name): text(name, value) for name, value in found["value"].items()}
    return table(pd.Series(rows, name="value").to_frame())


def strategies(found: pd.DataFrame) -> Table:
    """Every way to find a prefix, by name, with its prefixes and what finding them costs."""
    prefixes, verdicts = "prefixes", "verdicts"
    columns = {
        "prefixes": (prefixes, "found", 1),
        "left out": (prefixes, "left out", 1),
        "share of sentences, median": (prefixes, "% of the sentences, median", 100),
        "prefix tokens, mean": (prefixes, "tokens, mean", 1),
        "shorter than the oracle": (prefixes, "shorter than the oracle, %", 100),
        "verdicts a trace": (verdicts, "per trace, mean", 1),
        "tokens read a trace": (verdicts, "tokens read per trace", 1),
        "of them without a label": (verdicts, "without a label, %", 100),
    }
    return _of_strategies(found, columns)


def pairs(found: pd.DataFrame) -> Table:
    """What the pairs of every way to find a prefix are worth, and the arms trained on them; ``found`` as above."""
    columns = {
        "continuations a problem": ("continuations per problem", "", 1),
        "retention": ("kept, %", "", 100),
        "problems with a kept pair": ("problems with a kept one, %", "", 100),
        "chosen": ("chosen from", "", None),
        "arms": ("arms", "", None),
    }
    return _of_strategies(found, columns)


def choices(found: pd.DataFrame) -> Table:
    """What a selection chose from, and what it chose; ``found`` of ``tables.choices``."""
    if found.empty:
        return table(found)
    frame = found.set_index(["strategy", "source"])
    frame.columns = pd.MultiIndex.from_product([["offered", "chosen"], ["responses", "tokens, mean"]])
    return table(frame)


def _of_strategies(found: pd.DataFrame, columns: Mapping[str, tuple]) -> Table:
    """These columns (name -> heading, name below it, factor) and the strategies that have one of their numbers."""
    numbers = [name for name, (*_, factor) in columns.items() if factor and name in found]
    shown = found.dropna(subset=numbers, how="all").dropna(axis="columns", how="all") if len(found) else found
    if shown.empty:
        return table(shown)
    kept = {name: to for name, to in columns.items() if name in shown}
    return table(pd.DataFrame({to[:2]: shown[n] if to[2] is None else to[2] * shown[n] for n, to in kept.items()}))


def success(found: pd.DataFrame) -> Table:
    """The student's success by where its prefixes were cut, or by the share of the trace's tokens that they hold."""

    def name(where) -> str:
        return f"{100 * where.left:.0f} to {100 * where.right:.0f} %" if isinstance(where, pd.Interval) else where

    if found.empty:
        return table(found)
    found = found.dropna(axis="columns", how="all")  # success that was not measured
    shares = [column for column in found if column != "prefixes"]
    frame = found.assign(**{column: 100 * found[column] for column in shares}).rename(index=name)
    titles = {"prefix ratio": "prefix, of the trace's tokens", "success rate": "success, %", "kept": "kept, %"}
    return table(frame.rename_axis(found.index.name), labels=titles)


MEASURES = {
    "traces with any turn back": "traces in which a verdict turns back",
    "pairs of prefixes that violate (share)": "pairs of prefixes of which only the shorter is judged ENOUGH (share)",
    "AUC of the margin, oracle": "AUC of the margin against the oracle",
    "judge agrees with success likelier than not": "prefixes whose verdict agrees that success is likelier than not",
    "AUC of the margin, success of a continuation": "AUC of the margin against a continuation's success",
    "success rate from ENOUGH": "success from prefixes judged ENOUGH",
    "success rate from NOT_ENOUGH": "success from prefixes judged NOT_ENOUGH",
}
"""Rows of ``palign.analysis.sufficiency.summary`` -> what a reader sees."""


def monotone(found: pd.DataFrame) -> Table:
    """Whether the judge is monotone, and right: percent, but for areas, errors and sentences."""
    if found.empty:
        return table(found)
    rows = {}
    for name, row in zip(found.index, found.to_dict("records"), strict=True):
        plain = name.startswith("AUC") or "(sentences)" in name
        name = MEASURES.get(name, name)
        title = re.sub(r" \((?:share )?(.*?)\)", r", % \1", name) if not plain else name.replace(" (", ", ").rstrip(")")
        unit = "points" if name.startswith("expected") else "%"
        title = title.replace("% share", "%").strip() + ("" if plain or "%" in title else f", {unit}")
        title = re.sub(r"^(released|equation7|linear)\b(?= (does|lands))", r"traces on which \1", title)
        title = re.sub(r"\b(released|equation7|linear)\b", lambda found: SEARCHES[found[0]], title)
        title = re.sub(r"^(.* search)(?= from )", r"distance of \1", title)
        number, scale = ("{:.3f}" if name.startswith("AUC") else "{:.2f}", 1) if plain else ("{:.1f}", 100)
        rows[title] = {"value": _cells(pd.DataFrame([row]), scale, number)[0], "traces": int(row["n"])}
    return table(pd.DataFrame.from_dict(rows, orient="index"))


def entropy(found: pd.DataFrame) -> Table:
    """Mean token entropy of each tenth of a trace."""
    if found.empty:
        return table(found)
    change = found.index == "last less first"
    cells = np.where(change, _cells(found, 1, "{:+.3f}"), _cells(found, 1, "{:.3f}"))
    frame = pd.DataFrame({"entropy, nats": cells, "traces": found["n"].to_numpy()}, found.index)
    return table(frame.rename({"last less first": "last minus first"}).rename_axis("tenth of the trace"))


# The study


def arms(found: pd.DataFrame, averages: pd.Series) -> Table:
    """The arms' definitions. Arms as in :func:`accuracy`."""
    frame, groups = _grouped(found, averages)
    return table(frame, groups=groups)


def setting(study: Results) -> Table:
    """What was asked, in one table."""
    params = study.params
    rows = {
        "student": shown_name(params.student),
        "training problems": len(study.traces),
        "training questions left out": left_out(study),
        "benchmarks": ", ".join(f"{b.name} ({b.problems})" for b in params.benchmarks),
        "search for the prefix": SEARCHES[params.search],
        "verdicts": VERDICTS[params.verdict],
        "responses": f"{params.protocol} protocol: {params.n_samples} per problem, T={params.temperature}, "
        f"top-p {params.top_p}, repetition penalty {params.repetition_penalty}",
        "response budgets, tokens": " and ".join(map(str, study.budgets)),
        "fine-tuning": f"LoRA r={params.lora_r}, alpha={params.lora_alpha}, learning rate {params.learning_rate:g}, "
        f"{params.num_train_epochs:g} epochs, " + ("equal updates" if params.equal_updates else "own updates"),
        "seed of sampling": params.seed,
        "training seeds": ", ".join(map(str, params.training_seeds)),
    }
    return table(pd.Series(rows, name="value").to_frame())


def power(found: pd.DataFrame) -> Table:
    """The smallest differences that the design shows, by benchmark and correlation."""
    start = "points, correlation "
    frame = found.copy()
    frame.columns = pd.MultiIndex.from_tuples(
        [
            ("points, if two arms' outcomes correlate by", name.removeprefix(start)) if start in name else (name, "")
            for name in found
        ]
    )
    return table(frame)


def grading(found: pd.DataFrame, averages: pd.Series) -> Table:
    """How responses were graded, in counts of them. Arms as in :func:`accuracy`."""
    spans = {"right (strict: last box)": ("right", "strict: last box"), "timed out": ("not right", "timed out")}
    spans |= {"right (lenient: whole text)": ("right", "lenient: whole text")}
    spans |= {name: ("right", name) for name in ("only strict", "only lenient")}
    spans |= {name: ("not right", name) for name in ("no box", "unparseable")}
    frame = found.copy()
    frame.columns = pd.MultiIndex.from_tuples([spans.get(name, (name, "")) for name in found])
    frame, groups = _grouped(frame.rename_axis("responses"), averages)
    return table(frame, groups=groups)


def overlap(found: pd.DataFrame) -> Table:
    """Training and test questions that share words, by number of words and benchmark."""
    words = found["words in a row"].map("{} words in a row".format)
    columns = {
        "test questions": ("test questions", "all"),
        "of them overlapping": ("test questions", "of them overlapping"),
        "training questions": ("training questions", "all"),
        "of these overlapping": ("training questions", "of them overlapping"),
        "pairs": ("pairs", ""),
    }
    frame = found[list(columns)].set_index([words, found["benchmark"]])
    frame.columns = pd.MultiIndex.from_tuples(columns.values())
    return table(frame)


TOKENS = {"tokens_read": "read", "tokens_generated": "generated", "tokens_trained": "trained on"}


def costs(found: pd.DataFrame) -> Table:
    """What each task cost, by stage."""
    spans = {name: ("tokens", title) for name, title in TOKENS.items()}
    spans |= {"rows": ("training rows", "used"), "rows_left_out": ("training rows", "left out")}
    spans |= {"rows_cut": ("training rows", "cut"), "rows_fallback": ("training rows", "whole traces by fallback")}
    frame = found.astype(object).where(found.notna(), None)
    frame["seconds"] = found["seconds"].round().astype(int)
    frame.columns = pd.MultiIndex.from_tuples([spans.get(name, (name, "")) for name in frame])
    frame.index = _by_stage(found.index)
    return table(frame.dropna(axis="columns", how="all"))


def estimates(found: pd.DataFrame) -> Table:
    """What was expected divided by what was measured, by task."""
    if found.empty:
        return table(found)
    spans = {name: ("tokens", title) for name, title in TOKENS.items()}
    frame = found.map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    frame.columns = pd.MultiIndex.from_tuples([spans.get(name, (name, "")) for name in found])
    frame.index = _by_stage(found.index)
    return table(frame, first=["total"])


def _by_stage(tasks: pd.Index) -> pd.MultiIndex:
    """Names of tasks -> their stage and the rest; what has no stage is of the whole study."""
    parts = [name.split("/", 1) if "/" in name else ["study", name] for name in tasks]
    return pd.MultiIndex.from_tuples([tuple(part) for part in parts], names=["stage", "task"])


def rates(found: pd.DataFrame) -> Table:
    """Lengths and rates as ``costs`` name them: expected, measured and their ratio."""
    titles: Mapping[str, str] = {"predicted": "expected", "measured": "measured", "ratio": "expected / measured"}

    def text(value: float) -> str:
        if pd.isna(value):
            return ""
        return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"

    frame = found[list(titles)].map(text).rename(columns=titles)
    frame["expected / measured"] = found["ratio"].map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    off = np.log(found["ratio"].where(found["ratio"] > 0)).abs().dropna()
    furthest = set(off.nlargest(FIRST, keep="first").index)
    frame.index = [_quantity(name) for name in found.index]
    return table(frame.rename_axis("quantity"), first=[_quantity(name) for name in furthest])


QUANTITIES = {
    "training_problems": "training problems",
    "question_tokens": "tokens per question",
    "instruction_tokens": "tokens per instruction",
    "verdict_tokens": "tokens read for one more verdict",
    "trace_tokens": "tokens per trace",
    "trace_spread": "spread of the logarithm of a trace's tokens",
    "sentence_tokens": "tokens per sentence",
    "judge_calls": "verdicts per search",
    "prefix_share": "prefix, share of the trace's tokens",
    "read_share": "share of the trace that a search reads",
    "answer_tokens": "tokens per boxed answer",
    "marks_tokens": "tokens of marks per prefix",
    "continuation_tokens": "tokens per continuation",
    "retention": "share kept by the filter",
    "student_right": "share right without a prefix",
    "rewrite_right": "share of rewritten traces that are right",
    "response_tokens": "tokens per response",
    "read_tokens_per_second": "tokens read per second",
    "generate_tokens_per_second": "tokens generated per second",
    "train_tokens_per_second": "tokens trained on per second",
    "peak_gb": "peak memory, GB",
}
"""Lengths and rates as ``costs`` name them -> what a reader sees."""


def _quantity(name: str) -> str:
    key, _, of = name.partition(", ")
    return QUANTITIES.get(key, key) + (f", {of}" if of else "")


def reads(found: pd.DataFrame) -> Table:
    """Tokens read for a trace's verdicts, per token of it and its question; two rows have units of their own."""
    if found.empty:
        return table(found)
    names = {"tokens of instruction and labels, a verdict": "instruction and labels, tokens per verdict"}
    rows = found.index.to_series().replace(names | {"verdicts a trace": "verdicts per trace"})
    frame = pd.DataFrame({"value": _cells(found, 1, "{:.2f}"), "traces": found["n"].to_numpy()}, rows)
    return table(frame.rename_axis("tokens read per token of the trace and its question"))
