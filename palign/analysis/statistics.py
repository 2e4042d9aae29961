"""Statistics at the level of problems or traces: pass@k, intervals, paired comparisons, power, rank agreement.

A benchmark is a sample of problems. Its interval therefore comes from the spread between problems, each the mean of its
samples; that spread already contains the chance of sampling responses. The intervals were chosen by simulated coverage
(``python -m benchmarks.coverage``): a bootstrap of the problems covers the truth too rarely on 30 hard problems, and
one that resamples the samples within problems as well covers it too often everywhere. Where the unit is the trace,
:func:`over_traces` resamples traces.

>>> interval(pass_at_k([3, 0, 1, 2], n=3, k=1))
Estimate(value=0.5, low=0.096..., high=0.903..., n=4)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 1000
"""Resamples of a bootstrap: with 1000, the bounds of a 95 % interval are the 25th value from either end."""

Weigh = Literal["benchmarks", "problems"]
"""The unit of equal weight in an average: each benchmark (macro), or each problem (micro)."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: fractions in 0..1, differences in -1..1. ``n`` counts problems, or traces."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Test:
    """A two-sided test of whether two arms are alike: its name, its p, and on how many problems the first is better
    (``gains``) or worse (``losses``).
    """

    name: str
    p: float
    gains: int
    losses: int


def pass_at_k(correct: ArrayLike, n: int, k: int) -> np.ndarray:
    """The chance that one of ``k`` samples is right, per problem, unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    ``correct``: whole numbers of shape (problems,), how many of a problem's ``n`` samples are right. Returns fractions
    of the same shape. Raises ``ValueError`` unless 1 <= k <= n and every count is a whole number in 0..n.
    """
    counts = np.asarray(correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples per problem and k of 1 or more; n is {n}")
    wrong = (counts < 0) | (counts > n) | (counts % 1 != 0)
    if wrong.any():
        raise ValueError(f"counts of right samples must be whole numbers in 0..{n}, not {counts[wrong][0]}")
    ways = math.comb(n, k)
    table = np.array([(ways - math.comb(n - c, k)) / ways for c in range(n + 1)])  # exact until the division
    return table[counts.astype(int)]


def interval(per_problem: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean of one benchmark's per-problem fractions, with Wilson's interval at their effective number.

    The effective number is the number of 0/1 problems whose mean would vary as much as this one (Kish), made smaller
    because the spread is itself an estimate (Korn and Graubard 1998, Survey Methodology 24:193-201). Where all values
    are 0 or 1, and where all values agree, it is the number of problems. Raises ``ValueError`` for no values or any
    outside 0..1.
    """
    from statsmodels.stats.proportion import proportion_confint

    values = _fractions(per_problem)
    effective = _effective_number(values, level)
    mean = values.mean()
    low, high = proportion_confint(mean * effective, effective, alpha=1 - level, method="wilson")
    return _estimate(mean, low, high, values.size)


def average(groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks", level: float = 0.95) -> Estimate:
    """The weighted mean of the benchmarks' means (groups of per-problem fractions), with its interval.

    The distances to each benchmark's bounds (:func:`interval`) are weighted and added as squares (Zou and Donner 2008,
    Statistics in Medicine 27:1693-1702). Raises ``ValueError`` for no group, an empty one, or values outside 0..1.
    """
    arrays = _groups(groups)
    weights = _weights(arrays, weigh)
    parts = [interval(array, level) for array in arrays]
    value = math.fsum(w * part.value for w, part in zip(weights, parts, strict=True))
    below = math.hypot(*(w * (part.value - part.low) for w, part in zip(weights, parts, strict=True)))
    above = math.hypot(*(w * (part.high - part.value) for w, part in zip(weights, parts, strict=True)))
    return _estimate(value, value - below, value + above, sum(array.size for array in arrays))


def paired_difference(
    a_groups: Sequence[ArrayLike],
    b_groups: Sequence[ArrayLike],
    weigh: Weigh = "benchmarks",
    level: float = 0.95,
) -> Estimate:
    """The averaged difference a - b of two arms on the same problems, aligned by position within each group.

    Student's interval of the per-problem differences, stratified by group, with Satterthwaite's degrees of freedom.
    Where all problems of every group have the same difference (0, say), that interval would have no width. Then the low
    bound is that of the gains less the high one of the losses, and the high bound the reverse. Raises ``ValueError``
    when the arms' shapes differ, and as :func:`average` does.
    """
    from scipy.stats import t

    differences = _differences(a_groups, b_groups)
    weights = _weights(differences, weigh)
    value = math.fsum(w * d.mean() for w, d in zip(weights, differences, strict=True))
    n = sum(d.size for d in differences)
    if any(map(_varies, differences)):
        error, freedom = _standard_error(differences, weights)
        low, high = t.interval(level, freedom, loc=value, scale=error)
    else:
        gains = [interval(d.clip(min=0), level) for d in differences]
        losses = [interval((-d).clip(min=0), level) for d in differences]
        parts = list(zip(weights, gains, losses, strict=True))
        low = math.fsum(w * (gain.low - loss.high) for w, gain, loss in parts)
        high = math.fsum(w * (gain.high - loss.low) for w, gain, loss in parts)
    return _estimate(value, max(low, -1.0), min(high, 1.0), n)


def unpaired_difference(
    a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks", level: float = 0.95
) -> Estimate:
    """The averaged difference a - b of two arms that answered different problems; groups need not be of one size.

    The distances to the bounds of the two averages (:func:`average`), which are independent, are added as squares (Zou
    and Donner 2008). For two simple shares this is Newcombe's interval (1998, Statistics in Medicine 17:873-890, method
    10). ``n`` counts the problems of both. Raises ``ValueError`` as :func:`average` does.
    """
    a, b = average(a_groups, weigh, level), average(b_groups, weigh, level)
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return _estimate(value, low, high, a.n + b.n)


def unpaired_test(a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks") -> float:
    """The p at which the interval of :func:`unpaired_difference` touches zero: below 0.05 where the 95 % interval
    excludes zero.
    """
    from scipy.optimize import brentq

    def bound(level: float) -> float:
        """The interval's bound nearer to zero; negative once the interval contains zero."""
        found = unpaired_difference(a_groups, b_groups, weigh, level)
        return found.low if found.value > 0 else -found.high

    narrowest, widest = 1e-6, 1 - 1e-9  # outside, effective numbers lose precision; so p is never below 1e-9
    if unpaired_difference(a_groups, b_groups, weigh).value == 0 or bound(narrowest) <= 0:
        return 1.0
    return 1 - (widest if bound(widest) > 0 else brentq(bound, narrowest, widest, xtol=1e-13))


def paired_test(a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks") -> Test:
    """Are two arms alike on the same problems? Exact McNemar where all values are 0 or 1, else Student's paired test.

    McNemar's test counts problems of all benchmarks alike. Student's is the test that belongs to the interval of
    :func:`paired_difference`; p is 1 where all problems have the same difference, since the spread is then unknown.
    Raises ``ValueError`` as that function does.
    """
    from scipy.stats import t
    from statsmodels.stats.contingency_tables import mcnemar

    differences = _differences(a_groups, b_groups)
    all_differences = np.concatenate(differences)
    gains, losses = int((all_differences > 1e-9).sum()), int((all_differences < -1e-9).sum())
    if all(np.isin(group, (0, 1)).all() for arm in (a_groups, b_groups) for group in map(np.asarray, arm)):
        p = mcnemar([[0, gains], [losses, 0]], exact=True).pvalue if gains + losses else 1.0
        return Test("exact McNemar", float(p), gains, losses)
    if not any(map(_varies, differences)):
        return Test("Student, paired", 1.0, gains, losses)
    weights = _weights(differences, weigh)
    value = math.fsum(w * d.mean() for w, d in zip(weights, differences, strict=True))
    error, freedom = _standard_error(differences, weights)
    return Test("Student, paired", float(2 * t.sf(abs(value) / error, freedom)), gains, losses)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number (Holm 1979), in the given order.

    statsmodels' ``multipletests`` gives the same numbers, but collects garbage at each call, which takes up to half a
    second in a process that holds a model.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1)
    return corrected.tolist()


def minimum_detectable_effect(
    sizes: Sequence[int], correlation: float = 0.0, weigh: Weigh = "benchmarks", power: float = 0.8, level: float = 0.95
) -> float:
    """The smallest true difference of two arms that a paired study of this size finds with ``power``; a fraction.

    ``sizes``: problems of each benchmark; ``correlation``: of the two arms' values on one problem. The variance of each
    value is taken to be the largest possible, that of a fair coin, so that the effect is never stated too small. Raises
    ``ValueError`` for no benchmark, one of fewer than 2 problems, or a correlation outside -1 to 1 (1 excluded).
    """
    from statsmodels.stats.power import TTestPower

    if not len(sizes) or min(sizes) < 2 or not -1 <= correlation < 1:
        raise ValueError(f"benchmarks of 2 problems or more, correlation in [-1, 1), not {list(sizes)}, {correlation}")
    spread = 2 * 0.25 * (1 - correlation)  # variance of a problem's difference
    weights = _weights([np.zeros(size) for size in sizes], weigh)
    variance = sum(w**2 * spread / size for w, size in zip(weights, sizes, strict=True))
    effect = TTestPower().solve_power(nobs=spread / variance, alpha=1 - level, power=power)
    return float(effect * math.sqrt(spread))


def rank_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The area under the ROC curve: the chance that a true case outscores a false one, ties counting half.

    ``scores`` and ``labels`` (truth values) have shape (cases,). ``nan`` when all labels are alike or a score is
    ``nan``. Raises ``ValueError`` when the shapes differ.
    """
    from scipy.stats import rankdata

    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if scores.shape != labels.shape:
        raise ValueError(f"scores and labels must have the same shape, not {scores.shape} and {labels.shape}")
    true = int(labels.sum())
    if true in (0, labels.size):
        return math.nan
    above = rankdata(scores)[labels].sum() - true * (true + 1) / 2  # Mann and Whitney's U
    return float(above / (true * (labels.size - true)))


def over_traces(
    groups: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float], level: float = 0.95, seed: int = 0
) -> Estimate:
    """A statistic of the rows of all traces, with a percentile bootstrap interval that resamples whole traces.

    ``groups``: one array per trace, of shape (rows, columns); ``statistic`` takes the rows of all of them in one array.
    A resample where the statistic is not defined (``nan``) does not count. The interval contains the value. Where all
    resamples agree the bounds are ``nan``: an interval without width would claim certainty.
    """
    rng, value = np.random.default_rng(seed), float(statistic(np.concatenate(groups)))
    draws = [
        statistic(np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    if np.isnan(value) or np.isnan(draws).all():
        return Estimate(math.nan, math.nan, math.nan, len(groups))
    if np.nanmax(draws) == np.nanmin(draws):
        return Estimate(value, math.nan, math.nan, len(groups))
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return _estimate(value, low, high, len(groups))


def mean_over_traces(values: ArrayLike) -> Estimate:
    """:func:`over_traces` for the mean of one value per trace, of any range; ``values`` has shape (traces,)."""
    return over_traces(list(np.asarray(values, dtype=float)[:, None, None]), np.mean)


def table_of(estimates: dict[str, Estimate]) -> pd.DataFrame:
    """One row per estimate, under its name: ``value``, ``low``, ``high``, ``n``."""
    import pandas as pd

    columns = [field.name for field in fields(Estimate)]
    return pd.DataFrame(list(map(vars, estimates.values())), index=list(estimates), columns=columns)


def _fractions(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"one value per problem and at least one problem, not an array of shape {array.shape}")
    outside = ~((array >= 0) & (array <= 1))  # nan compares false, so it counts as outside
    if outside.any():
        raise ValueError(f"per-problem values must be fractions in 0..1, not {array[outside][0]}")
    return array


def _groups(groups: Sequence[ArrayLike]) -> list[np.ndarray]:
    if not len(groups):
        raise ValueError("at least one group of problems is needed")
    return [_fractions(group) for group in groups]


def _differences(a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike]) -> list[np.ndarray]:
    a_arrays, b_arrays = _groups(a_groups), _groups(b_groups)
    shapes = [array.shape for array in a_arrays], [array.shape for array in b_arrays]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the two arms must hold the same problems, not groups of shapes {shapes[0]} and {shapes[1]}")
    return [a - b for a, b in zip(a_arrays, b_arrays, strict=True)]


def _weights(groups: Sequence[np.ndarray], weigh: Weigh) -> np.ndarray:
    sizes = np.array([group.size for group in groups], dtype=float)
    weights = np.ones(len(groups)) if weigh == "benchmarks" else sizes
    return weights / weights.sum()


def _standard_error(differences: Sequence[np.ndarray], weights: np.ndarray) -> tuple[float, float]:
    """The standard error of the weighted mean of the groups' means, and Satterthwaite's degrees of freedom."""
    varying = [(w, d) for w, d in zip(weights, differences, strict=True) if _varies(d)]
    parts = [w**2 * d.var(ddof=1) / d.size for w, d in varying]
    freedom = sum(parts) ** 2 / sum(part**2 / (d.size - 1) for part, (_, d) in zip(parts, varying, strict=True))
    return math.sqrt(sum(parts)), freedom


def _varies(values: np.ndarray) -> bool:
    return np.ptp(values) > 1e-9  # 1 - 2/3 and 1/3 are the same share


def _effective_number(values: np.ndarray, level: float) -> float:
    from scipy.stats import norm, t

    if np.isin(values, (0, 1)).all() or not _varies(values):
        return values.size
    mean, tail = values.mean(), (1 + level) / 2
    kish = mean * (1 - mean) / (values.var(ddof=1) / values.size)
    return kish * (norm.ppf(tail) / t.ppf(tail, values.size - 1)) ** 2


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    """An estimate whose bounds contain the value, also where rounding would leave it outside."""
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), n)
