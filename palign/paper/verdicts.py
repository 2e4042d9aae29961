"""A verdict for each claim from the printed numbers alone, and the printed numbers that are no accuracies.

A claim that one arm beats another is supported where the interval of the average gain under independence lies above
zero, contradicted where it lies below, and otherwise not distinguishable: from these numbers, which says nothing of
what the outcomes by problem would show. What is not printed makes a claim not testable.

>>> verdicts().query("claim == 'over-long-cot'")[["student", "metric", "gain", "low", "high", "verdict"]]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .printed import AVERAGE, SIZES, SOURCES, TEACHER, arm_cells, named, other_figures, wilson
from .claims import CLAIMS, Claim
from .gains import ALPHA, Z, compare, intervals


def calls() -> pd.DataFrame:
    """Table 5, a row a student: mean verdicts a trace by linear scan and binary search, their ratio, and 2 to the power
    of the latter, the sentences among which so many verdicts find one.
    """
    table = _quantities("table5").rename(columns=lambda c: c.removeprefix("judge_calls_").removesuffix("_mean"))
    return table.assign(ratio=table["linear_scan"] / table["binary_search"], sentences=2 ** table["binary_search"])


def kept() -> pd.DataFrame:
    """Table 7, a row a student: pairs before and after the filter, the share kept with its 95 % Wilson interval (%)."""
    table = _quantities("table7").astype(int)
    before, after = table["pairs_before_filter"], table["pairs_after_filter"]
    bounds = [wilson(k / n, n) for k, n in zip(after, before, strict=True)]
    return table.assign(
        percent=100 * after / before, low=[100 * b[0] for b in bounds], high=[100 * b[1] for b in bounds]
    )


def lengths() -> pd.DataFrame:
    """Table 4, a row a student: mean tokens of trace, prefix and target; the prefix's share of each in percent."""
    table = _quantities("table4").rename(columns=lambda c: c.removesuffix("_mean"))
    of_trace = 100 * table["prefix_tokens"] / table["long_cot_tokens"]
    return table.astype(int).assign(
        prefix_of_trace=of_trace, prefix_of_target=100 * table["prefix_tokens"] / table["p_align_tokens"]
    )


def response_lengths() -> pd.DataFrame:
    """Figure 3c, a row a student: mean tokens a response by arm, and P-ALIGN's against whole traces' in percent."""
    table = _quantities("figure3c").rename(columns=lambda c: c.split(":")[1]).astype(int)
    return table.assign(saved=100 * (1 - table["p-align"] / table["sft-long-cot"]))


def preferences() -> pd.DataFrame:
    """Figure 3d, a row a student: percent of comparisons that each arm wins, their ``sum``, and how many comparisons
    would set P-ALIGN apart from the next arm (95 %: 1.96² (p + q - (p - q)²) / (p - q)², both shares of one sample).
    """
    table = _quantities("figure3d").rename(columns=lambda c: c.split(":")[1]).astype(int)
    p, q = table["p-align"] / 100, table[["sft-long-cot", "upft"]].max(axis=1) / 100
    needed = np.ceil(Z**2 * (p + q - (p - q) ** 2) / (p - q) ** 2).astype(int)
    return table.assign(sum=table.sum(axis=1), comparisons_needed=needed)


def thirds() -> pd.DataFrame:
    """Figure 4b, a row a student: average accuracy by third of the trace (%), the beginning's lead over each other, and
    the half-width of a 95 % interval if each benchmark stood where Table 1's P-ALIGN does (points, independence).
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
    """Of a claimed gain by its interval: above zero, below zero, or with zero inside."""
    return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else OPEN


def verdicts(claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """One row a claim and setting, with the numbers of :func:`compare` for the average over benchmarks (points).

    ``verdict`` rests on the interval under independence; ``pairing``: what the best case of pairing would make of it,
    by its exact p.
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
    """Both means are over the same traces, all of them: no sampling, the smaller is the smaller."""
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
    """One verdict from a claim's settings: supported where all are; contradicted where one is and none is supported."""
    kinds = set(found)
    if len(kinds) == 1:
        return kinds.pop()
    return CONTRADICTED if CONTRADICTED in kinds and SUPPORTED not in kinds else OPEN


def claims_shown(table: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """One row a claim: where it stands, its verdict over all settings (student, teacher, metric), and why.

    ``table``: :func:`verdicts` of the same claims. ``independent`` and ``best pairing``: in how many settings the gain
    is clear of zero, in the claimed direction.
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
            f"{table['linear_scan'].min():.0f} to {table['linear_scan'].max():.0f} verdicts a trace against "
            f"{table['binary_search'].max():.1f}, over the same traces. Ten verdicts suffice for 1,023 sentences."
        )
    if claim.rule == "retention":
        return f"95 % intervals of the share kept: {' and '.join(intervals(part['low'], part['high']))} percent."
    found = []
    for word, kind in (("Above", SUPPORTED), ("Below", CONTRADICTED)):
        rows = part[part["verdict"] == kind]
        if 0 < len(rows) < len(part):  # where all are, the count says it
            found.append(f"{word} zero: {'; '.join(named(rows) + ', ' + rows['metric'])}.")
    return " ".join(found)


def verdicts_text(table: pd.DataFrame) -> str:
    """How many claims got which verdict, and what outcomes by problem could change."""
    claims = table.groupby("claim")
    found = claims["verdict"].agg(overall)
    best = claims["pairing"].agg(lambda group: (group == SUPPORTED).all())
    counts = ", ".join(f"{(found == name).sum()} {name}" for name in (SUPPORTED, OPEN, CONTRADICTED, UNTESTABLE))
    return (
        f"Of {len(found)} claims: {counts}. Of the {(found == OPEN).sum()} not distinguishable, "
        f"{(best & (found == OPEN)).sum()} would be supported in every setting at best pairing: outcomes by "
        "problem, were they published, could settle these either way."
    )
