"""The claims ledger: each claim of the paper tested on a study's own results.

A claim that one arm beats another is *reproduced* where the interval of the paired difference lies above zero and its
p, corrected for the claims tested on the same metric, is below 0.05; it is *contradicted* where the interval lies
below, otherwise *not distinguishable*, or *not tested* where the study lacks what the test needs, or where more than
1 % of the responses that it needs are missing. Interval and p are over problems and training seeds. Each row also says
what this design could have found.

>>> table(study)[["claim", "metric", "printed", "value", "low", "high", "verdict"]]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..analysis import statistics, sufficiency
from ..paper.claims import CLAIMS, MAIN, Claim
from ..paper.printed import SOURCES, TEACHER
from ..paper.verdicts import verdicts
from . import display, tables
from .display import Table
from .results import TOLERATED, Results, answered
from .tables import UNTESTED
from .texts import cell

REPRODUCED, CONTRADICTED, OPEN = "reproduced", "contradicted", "not distinguishable"
STAND_INS = {
    "p-align-deepseek-judge": "p-align-other-judge",
    "p-align-glm-judge": "p-align-other-judge",
}
"""Published arms -> the arm of a study that stands for them. It stands for one of them only: a second row with the same
comparison would count one result twice. The oracle stands for none: a judge that is never wrong cannot refute a claim
about a judge that errs.
"""
COLUMNS = ["claim", "where", "metric", "printed", "value", "low", "high", "unit", "n", "p_holm", "detectable"]


@dataclass(frozen=True)
class Found:
    """A study's result for a claim: ``value`` above zero speaks for it. ``p`` where a test was made."""

    metric: str
    value: float
    low: float
    high: float
    unit: str
    n: int
    p: float | None = None
    detectable: float | None = None
    note: str = ""


def verdict(found: Found, p_holm: float | None) -> str:
    """By interval and, where there is one, corrected p."""
    if p_holm is not None and p_holm >= 0.05:
        return OPEN
    return REPRODUCED if found.low > 0 else CONTRADICTED if found.high < 0 else OPEN


def table(study: Results) -> pd.DataFrame:
    """One row per claim and metric: the gain as ``printed`` (mean over the paper's settings) beside ``value``, ``low``,
    ``high`` (95 %) in ``unit``, ``n`` problems, traces or pairs; ``p_holm``; ``detectable``: the smallest difference
    this design finds at 80 % power, at the two arms' correlation and the largest variance; ``verdict``, ``note``.
    """
    printed = verdicts().groupby(["claim", "metric"])["gain"].mean().to_dict()
    rows, tested, stands_for = [], {}, {}
    for claim in CLAIMS:
        found = _found(claim, study, stands_for)
        for one in [found] if isinstance(found, str) else found:
            row = {"claim": claim.statement, "where": SOURCES[claim.source].split(":")[0]}
            if isinstance(one, str):
                rows.append(row | {"verdict": UNTESTED, "note": one})
                continue
            row |= {"printed": printed.get((claim.id, one.metric))} | vars(one)
            if one.p is not None:
                tested.setdefault(one.metric, []).append((len(rows), one))
            else:
                row["verdict"] = verdict(one, None)
            rows.append(row)
    for members in tested.values():
        corrected = statistics.holm([one.p for _, one in members])
        for (at, one), p in zip(members, corrected, strict=True):
            rows[at] |= {"p_holm": p, "verdict": verdict(one, p)}
    return pd.DataFrame(rows, columns=[*COLUMNS, "verdict", "note"])


def shown(ledger: pd.DataFrame) -> Table:
    """The ledger for a reader, by the table or figure of the paper; a claim is named in its first row. Tested claims
    come first, the others stand behind a click.
    """
    rows, index = [], []
    ledger = ledger.sort_values("verdict", key=lambda verdicts: verdicts == UNTESTED, kind="stable")
    tested = int((ledger["verdict"] != UNTESTED).sum())
    for row in ledger.itertuples():
        signed = row.unit in ("points", "verdicts", "tokens")
        here = cell(row.value, row.low, row.high, "{:+.1f}" if signed else "{:.3g}")
        metric = "" if pd.isna(row.metric) else row.metric.capitalize()
        united = pd.isna(row.unit) or row.unit in metric.lower().split()
        rows.append(
            {
                "verdict": row.verdict,
                "measure": metric if united else f"{metric}, {row.unit}",
                "printed": "" if pd.isna(row.printed) else f"{row.printed:+.1f}",
                "here": here,
                "detectable": "" if pd.isna(row.detectable) else f"{row.detectable:.1f}",
                "remark": row.note if isinstance(row.note, str) else "",
            }
        )
        said = index and any(name == row.claim for _, name in index)
        index.append((row.where, "" if said else row.claim))
    spans = {"printed": "gain", "here": "gain", "detectable": "gain"}
    frame = pd.DataFrame(rows, pd.MultiIndex.from_tuples(index, names=["where", "claim"]))
    frame.columns = pd.MultiIndex.from_tuples([(spans[c], c) if c in spans else (c, "") for c in frame])
    return display.table(frame, first=tested or None)


def text(ledger: pd.DataFrame) -> str:
    """How many claims are tested, in how many comparisons, and how many of these got which verdict."""
    tested = ledger[ledger["verdict"] != UNTESTED]
    counts = tested["verdict"].value_counts()
    parts = [f"{counts[name]} {name}" for name in (REPRODUCED, CONTRADICTED, OPEN) if name in counts]
    found = f" in {len(tested)} comparisons: {', '.join(parts)}" if parts else ""
    return (
        f"This study tests {tested['claim'].nunique()} of the paper's {ledger['claim'].nunique()} claims{found}. A "
        "claim about accuracy has a row for each metric; the claims that are not tested come last, with what the study "
        "lacks. A verdict says what holds in this study's world, for its student, teacher and budget."
    )


def _found(claim: Claim, study: Results, stands_for: dict[str, str]) -> list[Found | str] | str:
    """The study's result for the claim, or why it has none. ``stands_for``: the arms that already stand for a published
    one, to which this adds.
    """
    if claim.id in _RULES:
        return _RULES[claim.id](study)
    if claim.better is None:
        return "no rule for it"
    if not set(claim.students) & set(MAIN):
        return "asks for other students: a study of its own each"
    if TEACHER not in claim.teachers:
        return "asks for other teachers: a study of its own each"
    worse = STAND_INS.get(claim.worse, claim.worse)
    missing = [arm for arm in (claim.better, worse) if arm not in study.arms]
    if missing:
        return f"the study has no {' and no '.join(missing)}"
    note = ""
    if worse != claim.worse:
        if stands_for.setdefault(worse, claim.worse) != claim.worse:
            return f"the study has one other judge; {worse} stands for {stands_for[worse]}"
        note = f"{worse} stands for {claim.worse}"
    if missing := _missing(study, claim.better, worse):
        return missing
    return [_difference(study, claim.better, worse, metric, note) for metric in study.outcomes.metrics]


def _missing(study: Results, *arms: str) -> str:
    """Which of the arms cannot be compared, since more than 1 % of its responses are missing; empty if all can."""
    found = {arm: share for arm in arms if (share := study.outcomes.incomplete.get(arm))}
    return "; ".join(f"{100 * share:.1f} % of the responses of {arm} are missing" for arm, share in found.items())


def _difference(study: Results, better: str, worse: str, metric: str, note: str = "") -> Found | str:
    a, b = study.outcomes.pair(better, worse, metric, study.budget)
    if not all(map(len, a)):
        return f"a benchmark has no problem that {better} and {worse} both answered"
    estimate, test = statistics.paired_difference(a, b), statistics.paired_test(a, b)
    sizes = [len(group) for group in a]
    least = (
        100 * statistics.minimum_detectable_effect(sizes, correlation=_correlation(a, b)) if min(sizes) > 1 else None
    )
    points = [100 * x for x in (estimate.value, estimate.low, estimate.high)]
    return Found(metric, *points, "points", estimate.n, test.p, least, note)


def _correlation(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The correlation of two arms' values per problem (means over seeds), within benchmarks; 0 where either does not
    vary.
    """
    x, y = (np.concatenate([group.mean(axis=1) - group.mean() for group in arm]) for arm in (a, b))
    spread = math.sqrt((x @ x) * (y @ y))
    return float(min(x @ y / spread, 0.99)) if spread else 0.0


def _calls(study: Results) -> list[Found | str] | str:
    if "linear" not in study.plan.cuts:
        return "the study has no linear scan"
    calls = tables.calls(study)
    if "binary search" not in calls:
        return "the study has no binary search"
    saved = calls["linear scan"] - calls["binary search"]
    return [_mean_of("verdicts per trace", saved, "verdicts", "linear scan minus binary search")]


def _lengths(study: Results) -> list[Found | str] | str:
    if not {"p-align", "sft-long-cot"} <= set(study.arms):
        return "the study has no sft-long-cot or no p-align"
    if missing := _missing(study, "p-align", "sft-long-cot"):
        return missing
    less = tables.tokens_less(study, "sft-long-cot", "p-align")
    return [
        Found(
            "tokens per response", less.value, less.low, less.high, "tokens", less.n, note="whole traces minus P-ALIGN"
        )
    ]


def _mean_of(metric: str, values: pd.Series, unit: str, note: str) -> Found:
    """The mean of paired differences with Student's 95 % interval."""
    from scipy.stats import t

    error = values.sem()
    low, high = t.interval(0.95, len(values) - 1, loc=values.mean(), scale=error) if error else (values.mean(),) * 2
    return Found(metric, float(values.mean()), float(low), float(high), unit, len(values), note=note)


def _retention(study: Results) -> list[Found | str] | str:
    pairs = study.pairs()
    if pairs.empty:
        return "the study has no pairs of adaptive prefixes"
    if (missing := 1 - len(answered(pairs)) / len(pairs)) > TOLERATED:
        return f"{100 * missing:.1f} % of the continuations are missing"
    kept = tables.kept(study)
    points = [100 * (x - 0.9) for x in (kept.value, kept.low, kept.high)]
    return [Found("share kept", *points, "points", kept.n, note=f"{100 * kept.value:.1f} % kept, minus 90 %")]


def _one_turn(study: Results) -> list[Found | str] | str:
    judged = sufficiency.per_trace(study.judged)
    if judged.empty:
        return "the study judges all prefixes of no trace"
    back = statistics.interval((judged["turns"] > 0).astype(float))
    note = f"{100 * back.value:.1f} % of traces turn back; one is enough to contradict it"
    return [
        Found(
            "traces that turn back", -100 * back.value, -100 * back.high, -100 * back.low, "points", back.n, note=note
        )
    ]


def _segments(study: Results) -> list[Found | str] | str:
    others = [arm for arm in ("segment-middle", "segment-suffix") if arm in study.arms]
    if "segment-prefix" not in study.arms or not others:
        return "the study has no arms of thirds"
    return [
        _missing(study, "segment-prefix", arm) or _difference(study, "segment-prefix", arm, "pass@1", f"minus {arm}")
        for arm in others
    ]


_RULES: dict[str, Callable[[Results], list[Found | str] | str]] = {
    "fewer-calls": _calls,
    "shorter-responses": _lengths,
    "filter-keeps": _retention,
    "one-turn": _one_turn,
    "beginning-is-best": _segments,
    "preferred-chains": lambda study: "see the preference section; a scripted rubric is no strong model",
}
