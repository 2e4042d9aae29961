"""A verdict on each claim from only the printed numbers, and the printed numbers that are not accuracies.

The claim that one arm beats another is *supported* where the interval of the average gain under independence lies above
zero, *contradicted* where it lies below zero, else *not distinguishable* by the printed numbers; outcomes per problem
might still decide it. A claim is *not testable* where the paper does not print what a test needs.

>>> verdicts().query("claim == 'over-long-cot'")[["student", "metric", "gain", "low", "high", "verdict"]]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .claims import CLAIMS, Claim
from .gains import ALPHA, Z, compare, intervals
from .printed import AVERAGE, SIZES, SOURCES, TEACHER, arm_cells, named, other_figures, wilson


def calls() -> pd.DataFrame:
    """Table 5, one row per student: mean verdicts per trace by linear scan and by binary search, and their ratio.

    ``sentences``: among how many sentences so many verdicts of a binary search find one, 2 to that power.
    """
    table = _quantities("table5").rename(columns=lambda c: c.removeprefix("judge_calls_").removesuffix("_mean"))
    return table.assign(ratio=table["linear_scan"] / table["binary_search"], sentences=2 ** table["binary_search"])


def kept() -> pd.DataFrame:
    """Table 7, one row per student: pairs before and after the filter, percent kept with its 95 % Wilson interval."""
    table = _quantities("table7").astype(int)
    before, after = table["pairs_before_filter"], table["pairs_after_filter"]
    bounds = [wilson(k / n, n) for k, n in zip(after, before, strict=True)]
    return table.assign(
        percent=100 * after / before, low=[100 * b[0] for b in bounds], high=[100 * b[1] for b in bounds]
    )


def lengths() -> pd.DataFrame:
    """Table 4, one row per student: mean tokens of trace, prefix and target; the prefix's share of both in percent."""
    table = _quantities("table4").rename(columns=lambda c: c.removesuffix("_mean"))
    of_trace = 100 * table["prefix_tokens"] / table["long_cot_tokens"]
    return table.astype(int).assign(
        prefix_of_trace=of_trace, prefix_of_target=100 * table["prefix_tokens"] / table["p_align_tokens"]
    )


def response_lengths() -> pd.DataFrame:
    """Figure 3c, one row per student: mean tokens per response by arm.

    ``saved``: by how many percent P-ALIGN's responses are shorter than those after training on whole traces.
    """
    table = _quantities("figure3c").rename(columns=lambda c: c.split(":")[1]).astype(int)
    return table.assign(saved=100 * (1 - table["p-align"] / table["sft-long-cot"]))


def preferences() -> pd.DataFrame:
    """Figure 3d, one row per student: percent of comparisons that each arm wins, and their ``sum``.

    ``comparisons_needed``: the fewest whose 95 % interval of the difference between P-ALIGN and the next arm excludes
    zero, 1.96² (p + q - (p - q)²) / (p - q)², as both are shares of the same comparisons.
    """
    table = _quantities("figure3d").rename(columns=lambda c: c.split(":")[1]).astype(int)
    p, q = table["p-align"] / 100, table[["sft-long-cot", "upft"]].max(axis=1) / 100
    needed = np.ceil(Z**2 * (p + q - (p - q) ** 2) / (p - q) ** 2).astype(int)
    return table.assign(sum=table.sum(axis=1), comparisons_needed=needed)


def thirds() -> pd.DataFrame:
    """Figure 4b, one row per student: average accuracy by third of the trace (%).

    In points: ``over_middle`` and ``over_suffix``, the beginning's lead; ``half_width`` of the 95 % interval of a
    difference under independence, if the accuracy on each benchmark is that of Table 1's P-ALIGN.
    """
    table = _quantities("figure4b").rename(columns=lambda c: c.split(":")[1])
    halves = []
    for student in table.index:
        shares = arm_cells(student, TEACHER, "p-align", "pass@1") / 100
        variance = sum(2 * p * (1 - p) / SIZES[name] for name, p in shares.items()) / len(shares) ** 2
        halves.append(100 * Z * math.sqrt(variance))
    leads = {f"over_{part}": table["prefix"] - table[part] for part in ("middle", "suffix")}
    return table.assign(**leads, half_width=halves)


def _quantities(source: str) -> pd.DataFrame:
    """Students x quantities of one table or figure, in printed order."""
    table = other_figures().query("source == @source")
    wide = table.pivot(index="student", columns="quantity", values="value")
    return wide.loc[table["student"].unique(), table["quantity"].unique()].rename_axis(columns=None)


SUPPORTED, CONTRADICTED = "supported", "contradicted"
OPEN, UNTESTABLE = "not distinguishable", "not testable"


def verdict(low: float, high: float) -> str:
    """The verdict on a claimed gain by its interval: above zero, below zero, or zero inside it."""
    return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else OPEN


def verdicts(claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """One row per claim and setting, with the numbers of :func:`palign.paper.gains.compare` for the average (points).

    ``verdict`` is by the interval under independence, ``pairing`` by the exact p at best pairing.
    """
    rows = []
    for claim in claims:
        for part in _RULES[claim.rule](claim):
            rows.append({"claim": claim.id, "source": claim.source} | part)
    columns = ["claim", "source", "student", "teacher", "metric", "gain", "low", "high", "best_low", "best_high"]
    return pd.DataFrame(rows, columns=[*columns, "p_best", "verdict", "pairing"])


def _differences(claim: Claim) -> list[dict]:
    rows = []
    for student, teacher, metric in itertools.product(claim.students, claim.teachers, claim.metrics):
        parts = [arm_cells(student, teacher, arm, metric) for arm in (claim.better, claim.worse)]
        row = compare(*parts).set_index("scope").loc[AVERAGE]
        found = {name: row[name] for name in ("gain", "low", "high", "best_low", "best_high", "p_best")}
        best = OPEN if row.p_best >= ALPHA else SUPPORTED if row.gain > 0 else CONTRADICTED
        setting = {"student": student, "teacher": teacher, "metric": metric}
        rows.append(setting | found | {"verdict": verdict(row.low, row.high), "pairing": best})
    return rows


def _calls(claim: Claim) -> list[dict]:
    """Both means are over all traces, so no sampling error stands between them."""
    return [
        {"student": row.Index, "verdict": SUPPORTED if row.ratio > 1 else CONTRADICTED} for row in calls().itertuples()
    ]


def _retention(claim: Claim) -> list[dict]:
    return [
        {"student": row.Index, "low": row.low, "high": row.high, "verdict": verdict(row.low - 90, row.high - 90)}
        for row in kept().itertuples()
    ]


_RULES = {
    "difference": _differences,
    "calls": _calls,
    "retention": _retention,
    "untestable": lambda claim: [{"verdict": UNTESTABLE}],
}


def overall(found: Sequence[str]) -> str:
    """One verdict from those of all settings: theirs if they agree, contradicted if one is and none is supported."""
    kinds = set(found)
    if len(kinds) == 1:
        return kinds.pop()
    return CONTRADICTED if CONTRADICTED in kinds and SUPPORTED not in kinds else OPEN


def claims_shown(table: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """One row per claim: its place in the paper, its verdict over all settings (student, teacher, metric), and why.

    ``table``: :func:`verdicts` of the same claims. ``independent`` and ``best pairing``: in how many settings the gain
    is distinguishable from zero, in the claimed direction.
    """
    rows = []
    for claim in claims:
        part = table[table["claim"] == claim.id]
        row = {"claim": claim.statement, "where": SOURCES[claim.source].split(":")[0]}
        row |= {"verdict": overall(part["verdict"]), "gain (points)": "", "independent": "", "best pairing": ""}
        if claim.rule == "difference":
            spread = sorted({f"{part['gain'].min():+.1f}", f"{part['gain'].max():+.1f}"}, key=float)
            row["gain (points)"] = " to ".join(spread)
            for name, column in (("independent", "verdict"), ("best pairing", "pairing")):
                row[name] = f"{(part[column] == SUPPORTED).sum()} of {len(part)}"
        rows.append(row | {"remarks": " ".join(filter(None, (_why(claim, part), claim.caveat)))})
    return pd.DataFrame(rows).set_index("claim")


def _why(claim: Claim, part: pd.DataFrame) -> str:
    if claim.rule == "untestable":
        return f"Not published: {claim.lacking}."
    if claim.rule == "calls":
        table = calls()
        return (
            f"{table['linear_scan'].min():.0f} to {table['linear_scan'].max():.0f} verdicts per trace against "
            f"{table['binary_search'].max():.1f}, over the same traces. Ten verdicts suffice for 1,023 sentences."
        )
    if claim.rule == "retention":
        return f"95 % intervals of the share kept: {' and '.join(intervals(part['low'], part['high']))} %."
    found = []
    for word, kind in (("Above", SUPPORTED), ("Below", CONTRADICTED)):
        rows = part[part["verdict"] == kind]
        if 0 < len(rows) < len(part):  # the counts suffice where it is none or all
            found.append(f"{word} zero: {'; '.join(named(rows) + ', ' + rows['metric'].str.replace('pass', 'Pass'))}.")
    return " ".join(found)


def verdicts_text(table: pd.DataFrame) -> str:
    """How many claims have which verdict, and how many of these the outcomes per problem could change."""
    claims = table.groupby("claim")
    found = claims["verdict"].agg(overall)
    best = claims["pairing"].agg(lambda group: (group == SUPPORTED).all())
    counts = {name: (found == name).sum() or "none" for name in (SUPPORTED, OPEN, CONTRADICTED, UNTESTABLE)}
    return (
        f"Of the paper's {len(found)} claims, its printed numbers support {counts[SUPPORTED]} and contradict "
        f"{counts[CONTRADICTED]}; {counts[OPEN]} are not distinguishable from no effect, and {counts[UNTESTABLE]} are "
        f"not testable. Of the {counts[OPEN]} not distinguishable, {(best & (found == OPEN)).sum()} would be supported "
        "in every setting at best pairing: if, of two arms, the same one is right on every problem on which they "
        "differ. The outcomes per problem, which are not published, could settle these either way."
    )
