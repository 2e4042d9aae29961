"""The claimed gains with their intervals, and the number of problems that would settle each.

The paper prints no outcome per problem, so the correlation of two arms' outcomes is unknown. Two cases bound the paired
interval. *Independence*: the arms' outcomes are independent. Arms mostly find the same problems hard, so the paired
interval is narrower than this one. *Best pairing*: on all problems where the arms differ, the same arm is right. No
paired interval is narrower than this one. Intervals come from statsmodels; averages of them follow Zou and Donner 2008,
as in :mod:`palign.analysis.statistics`. No library has the exact test across benchmarks of unequal weight; for one
benchmark it is ``scipy.stats.binomtest``.

>>> gains().query("scope == 'average' and worse == 'sft-long-cot'")[["student", "metric", "gain", "low", "high"]]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..analysis import statistics
from .printed import AVERAGE, SETTING, SIZES, TEACHER, accuracy, arm_cells, wilson

POOLED = "pooled"
"""The ``scope`` of all problems together, each with the same weight."""

BASELINES = ("sft-long-cot", "upft", "zero-shot")
POWER, ALPHA = 0.8, 0.05
Z = 1.959964
"""The quantile of the normal distribution for a two-sided interval of 95 %."""


def newcombe(p: float, q: float, n: int) -> tuple[float, float, float]:
    """p - q with its 95 % interval under independence: (value, low, high). ``p`` and ``q``: shares of ``n`` problems.

    Newcombe 1998, method 10: the distances from each share to its Wilson bounds are added as squares.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(p * n, n, q * n, n, method="newcomb", compare="diff", alpha=ALPHA)
    return p - q, float(low), float(high)


def independent_variance(p: float, q: float, n: int) -> float:
    """The variance of p - q under independence."""
    return (p * (1 - p) + q * (1 - q)) / n


def best_variance(p: float, q: float, n: int) -> float:
    """The variance of p - q at best pairing: the smallest that two shares ``p`` and ``q`` allow.

    The arms differ on a share |p - q| of the problems, and there the same arm is always right.
    """
    return (abs(p - q) - (p - q) ** 2) / n


def sign_flips(net: Sequence[int], weights: Sequence[float]) -> float:
    """The exact two-sided p of a weighted sum of problems won minus lost, at best pairing: McNemar's test by benchmark.

    ``net``: problems won minus lost on each benchmark; at best pairing they are all won or all lost. ``weights``: the
    weight of one problem there. Under the null hypothesis each of these problems is won or lost with probability 1/2.
    """
    from scipy.stats import binom

    sums, chances = np.zeros(1), np.ones(1)
    for count, weight in zip(map(abs, net), weights, strict=True):
        won = np.arange(count + 1)
        sums = np.add.outer(sums, weight * (2 * won - count)).ravel()
        chances = np.multiply.outer(chances, binom.pmf(won, count, 0.5)).ravel()
    seen = abs(sum(count * weight for count, weight in zip(net, weights, strict=True)))
    return float(min(1, chances[np.abs(sums) >= seen - 1e-12].sum()))


def _together(parts: Sequence[tuple[float, float, float]], weights: Sequence[float]) -> tuple[float, float, float]:
    """A weighted sum of independent estimates (value, low, high); the distances to the bounds are added as squares."""
    value = sum(w * v for w, (v, _, _) in zip(weights, parts, strict=True))
    below = math.hypot(*(w * (v - low) for w, (v, low, _) in zip(weights, parts, strict=True)))
    above = math.hypot(*(w * (high - v) for w, (v, _, high) in zip(weights, parts, strict=True)))
    return value, value - below, value + above


def problems_needed(gain: float, variance: float, problems: int) -> float:
    """How many problems find ``gain`` (a fraction), if it is the true one, with power 80 % at a two-sided 5 %.

    ``variance``: that of the estimate on the present number of ``problems``; benchmarks grow in proportion. ``nan``
    where there is no gain.
    """
    from statsmodels.stats.power import normal_sample_size_one_tail

    if abs(gain) < 1e-9:
        return math.nan
    spread = math.sqrt(max(variance, 1e-12) * problems)
    return math.ceil(normal_sample_size_one_tail(abs(gain), POWER, ALPHA / 2, std_null=spread))


def compare(better: pd.Series, worse: pd.Series) -> pd.DataFrame:
    """Two arms' percents by benchmark -> one row per ``scope``: each benchmark, their average, all problems pooled.

    In points: ``gain``, ``low``, ``high`` (95 %, independence), ``best_low``, ``best_high`` (95 %, best pairing, by the
    normal approximation, which is too narrow for few problems). ``p_best``: see :func:`sign_flips`. ``needed``,
    ``needed_best``: see :func:`problems_needed`. ``samples``: at most so many samples of each problem would settle the
    gain on these problems alone.
    """
    names = [name for name in better.index if name in worse.index]
    sizes = [SIZES[name] for name in names]
    pairs = [(better[name] / 100, worse[name] / 100, SIZES[name]) for name in names]
    total = sum(sizes)
    scopes = {name: [float(other == name) for other in names] for name in names}
    scopes |= {AVERAGE: [1 / len(names)] * len(names), POOLED: [n / total for n in sizes]}
    rows = []
    for scope, weights in scopes.items():
        n = sum(size for size, weight in zip(sizes, weights, strict=True) if weight)
        value, low, high = _together([newcombe(*pair) for pair in pairs], weights)
        wide, narrow = (
            sum(w * w * variance(*pair) for w, pair in zip(weights, pairs, strict=True))
            for variance in (independent_variance, best_variance)
        )
        # where no problem differs the variance is 0, but Wilson's bound of 0 in n problems is not
        reach = Z * math.sqrt(narrow) if narrow else wilson(0, n)[1]
        net = [round((p - q) * m) for p, q, m in pairs]
        needed = problems_needed(value, wide, n)
        rows.append(
            {"scope": scope, "problems": n, "gain": 100 * value, "low": 100 * low, "high": 100 * high}
            | {"best_low": 100 * (value - reach), "best_high": 100 * (value + reach)}
            | {"p_best": sign_flips(net, [w / m for w, m in zip(weights, sizes, strict=True)])}
            | {"needed": needed, "needed_best": problems_needed(value, narrow, n)}
            | {"samples": math.nan if math.isnan(needed) else math.ceil(needed / n)}
        )
    return pd.DataFrame(rows)


def gains() -> pd.DataFrame:
    """:func:`compare` of P-ALIGN with each baseline, in every setting of Tables 1, 8 and 9."""
    table = accuracy().query("table in ('table1', 'table8', 'table9')")
    known = set(table[SETTING].itertuples(index=False, name=None))
    frames = []
    for name, student, teacher, arm, metric in table[SETTING].drop_duplicates().itertuples(index=False):
        for worse in BASELINES:
            if arm == "p-align" and (name, student, teacher, worse, metric) in known:
                parts = [arm_cells(student, teacher, a, metric) for a in (arm, worse)]
                setting = {"table": name, "student": student, "teacher": teacher, "metric": metric, "worse": worse}
                frames.append(pd.DataFrame([setting]).merge(compare(*parts), how="cross"))
    return pd.concat(frames, ignore_index=True)


def intervals(low: pd.Series, high: pd.Series) -> list[str]:
    """``[low, high]`` with one decimal, one text per row."""
    return [f"[{a:.1f}, {b:.1f}]" for a, b in zip(low, high, strict=True)]


def detectable() -> pd.DataFrame:
    """The smallest true difference, in points, that these benchmarks find with power 80 % at a two-sided 5 %.

    With one sample per problem and an accuracy of 50 %, where the variance is largest. One column per correlation of
    two arms' outcomes on a problem.
    """
    everything = list(SIZES.values())
    scopes = {name: ([n], "problems") for name, n in SIZES.items()}
    scopes |= {AVERAGE: (everything, "benchmarks"), POOLED: (everything, "problems")}
    rows = [
        {"benchmark": scope, "problems": sum(sizes)}
        | {
            f"correlation {r:g}": round(100 * statistics.minimum_detectable_effect(sizes, r, weigh), 1)
            for r in (0.0, 0.5, 0.8)
        }
        for scope, (sizes, weigh) in scopes.items()
    ]
    return pd.DataFrame(rows).set_index("benchmark")


def main(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's main gains: those of Table 1 over SFT(Long-CoT) and UPFT. ``table``: as :func:`gains` gives it."""
    return table[(table["table"] == "table1") & table["worse"].isin(BASELINES[:2])]


def _clear_at_best(rows: pd.DataFrame) -> pd.Series:
    return (rows["gain"] > 0) & (rows["p_best"] < ALPHA)


def gains_text(table: pd.DataFrame) -> str:
    """How many of the gains can be distinguished from zero."""
    lines = []
    for scope, words in ((AVERAGE, "average over benchmarks"), (POOLED, "problems pooled")):
        rows = table[table["scope"] == scope]
        lines.append(
            f"{words}: {(rows['low'] > 0).sum()} of {len(rows)} gains exclude zero under independence, "
            f"{_clear_at_best(rows).sum()} at best pairing (exact p below 0.05)"
        )
    lead = main(table).query("scope == @AVERAGE")
    return (
        "; ".join(lines).capitalize() + f". Over SFT(Long-CoT) and UPFT in Table 1 the average gains are "
        f"{lead['gain'].min():+.1f} to {lead['gain'].max():+.1f} points. To settle gains of this size takes "
        f"{lead['needed'].min():,.0f} to {lead['needed'].max():,.0f} problems under independence and "
        f"{lead['needed_best'].min():,.0f} to {lead['needed_best'].max():,.0f} at best pairing. The benchmarks hold "
        f"{lead['problems'].max()}."
    )


def worked() -> str:
    """The arithmetic behind one gain, written out: Table 1, Qwen2.5, Pass@1, P-ALIGN minus SFT(Long-CoT)."""
    setting = ("Qwen2.5-7B-Instruct", TEACHER)
    better, worse = (arm_cells(*setting, arm, "pass@1") for arm in ("p-align", "sft-long-cot"))
    rows = compare(better, worse).set_index("scope")
    lines = []
    for name in better.index:
        n, p, q = SIZES[name], better[name], worse[name]
        bounds = [100 * b for share in (p, q) for b in wilson(share / 100, n)]
        row = rows.loc[name]
        lines.append(
            f"- {name}: {p:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}] and {q:.2f} [{bounds[2]:.2f}, {bounds[3]:.2f}] by "
            f"Wilson with n = {n}; gain {row.gain:+.2f}, reaching down by "
            f"√(({p:.2f} - {bounds[0]:.2f})² + ({bounds[3]:.2f} - {q:.2f})²) = {row.gain - row.low:.2f} and up by "
            f"√(({bounds[1]:.2f} - {p:.2f})² + ({q:.2f} - {bounds[2]:.2f})²) = {row.high - row.gain:.2f}"
        )
    average, m = rows.loc[AVERAGE], len(better)
    gain, down, up = (rows.loc[better.index, name] for name in ("gain", "low", "high"))
    lines.append(
        f"- average: gain ({' + '.join(map('{:.2f}'.format, gain))}) / {m} = {average.gain:+.2f}, reaching down by "
        f"√({' + '.join(map('{:.2f}²'.format, gain - down))}) / {m} = {average.gain - average.low:.2f} and up by "
        f"√({' + '.join(map('{:.2f}²'.format, up - gain))}) / {m} = {average.high - average.gain:.2f}: "
        f"**{average.gain:+.2f} [{average.low:+.2f}, {average.high:+.2f}]**"
    )
    net = [(round((better[name] - worse[name]) * SIZES[name] / 100), SIZES[name]) for name in better.index]
    parts = " + ".join(f"{k}/{n} × {n - k}/{n} / {n}" for k, n in net)
    won = sum(k for k, _ in net)
    lines.append(
        f"- at best pairing, {', '.join(f'{k} of {n}' for k, n in net)} problems are won and none is lost: reaching "
        f"{Z:.2f} √({parts}) / {m}, about {average.best_high - average.gain:.2f} points, to both sides: "
        f"**{average.gain:+.2f} [{average.best_low:+.2f}, {average.best_high:+.2f}]**; "
        f"exact p = 2 / 2^{won} = {average.p_best:.3f}"
    )
    return "\n".join(lines)
