"""Statistics at the level of problems: pass@k, intervals, paired differences, rank agreement.

Problems are what a benchmark samples, so they, not the responses, are resampled. Every interval contains its value.
Where all problems agree, resampling would claim certainty with an interval of no width: Wilson's bounds stand in.

>>> interval(pass_at_k([3, 0, 1, 2], n=3, k=1))
Estimate(value=0.5, low=0.166..., high=0.833..., n=4)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: fractions in 0..1, differences in -1..1. ``n`` is the number of problems."""

    value: float
    low: float
    high: float
    n: int


def pass_at_k(correct: ArrayLike, n: int, k: int) -> np.ndarray:
    """The chance that one of ``k`` samples is right, per problem, unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    ``correct``: whole numbers of shape (problems,), how many of a problem's ``n`` samples are right. Returns fractions
    of the same shape. Raises ``ValueError`` unless 1 <= k <= n and every count is a whole number in 0..n.
    """
    counts = np.asarray(correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples a problem and k of 1 or more; n is {n}")
    wrong = (counts < 0) | (counts > n) | (counts % 1 != 0)
    if wrong.any():
        raise ValueError(f"counts of right samples must be whole numbers in 0..{n}, not {counts[wrong][0]}")
    ways = math.comb(n, k)
    table = np.array([(ways - math.comb(n - c, k)) / ways for c in range(n + 1)])  # exact until the division
    return table[counts.astype(int)]


def interval(per_problem: ArrayLike, level: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of one benchmark's per-problem fractions, with its interval over problems.

    Values of 0 and 1 alone: Wilson's interval. Otherwise the BCa bootstrap, which is too narrow below about ten
    problems. Where all values agree, one problem included, Wilson's again: of all variables in 0..1 with a given mean,
    one of 0 and 1 varies most, so this errs on the wide side. Raises ``ValueError`` for no values or any outside 0..1.
    """
    values = _fractions(per_problem)
    if np.isin(values, (0, 1)).all() or not _varies(values):
        return _wilson(values, level)
    return _estimate([values], _bootstrap([values], level, seed, "BCa"))


def macro_average(groups: Sequence[ArrayLike], level: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of the groups' means (groups: benchmarks, each of per-problem fractions), every group weighing the same.

    Percentile bootstrap, stratified: problems are resampled within their group. A group whose problems all agree adds
    no width; where that holds for every group, the bounds are the means of the groups' Wilson bounds. Raises
    ``ValueError`` for no group, an empty one, or values outside 0..1.
    """
    arrays = _groups(groups)
    if any(map(_varies, arrays)):
        return _estimate(arrays, _bootstrap(arrays, level, seed, "percentile"))
    parts = [_wilson(array, level) for array in arrays]
    return _estimate(arrays, (np.mean([part.low for part in parts]), np.mean([part.high for part in parts])))


def paired_difference(
    a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], level: float = 0.95, seed: int = 0
) -> Estimate:
    """The macro-averaged difference a - b of two arms on the same problems, aligned by position within each group.

    Percentile bootstrap of the per-problem differences, stratified by group. Where within every group all problems
    differ alike (nowhere at all, say), Wilson's bounds for the gains and for the losses are subtracted the wide way
    round. Raises ``ValueError`` when the arms' shapes differ, and as :func:`macro_average` does.
    """
    a_arrays, b_arrays = _groups(a_groups), _groups(b_groups)
    shapes = [array.shape for array in a_arrays], [array.shape for array in b_arrays]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the two arms must hold the same problems, not groups of shapes {shapes[0]} and {shapes[1]}")
    differences = [a - b for a, b in zip(a_arrays, b_arrays, strict=True)]
    if any(map(_varies, differences)):
        return _estimate(differences, _bootstrap(differences, level, seed, "percentile"))
    gains = [_wilson(difference.clip(min=0), level) for difference in differences]
    losses = [_wilson((-difference).clip(min=0), level) for difference in differences]
    low = np.mean([gain.low - loss.high for gain, loss in zip(gains, losses, strict=True)])
    high = np.mean([gain.high - loss.low for gain, loss in zip(gains, losses, strict=True)])
    return _estimate(differences, (low, high))


def rank_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The area under the ROC curve: the chance that a true case outscores a false one, ties counting half.

    ``scores`` and ``labels`` (truth values) have shape (cases,). ``nan`` when all labels are alike or a score is
    ``nan``. Raises ``ValueError`` when the shapes differ.
    """
    from scipy.stats import mannwhitneyu

    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if scores.shape != labels.shape:
        raise ValueError(f"scores and labels must have the same shape, not {scores.shape} and {labels.shape}")
    true, false = scores[labels], scores[~labels]
    if not true.size or not false.size:
        return math.nan
    return float(mannwhitneyu(true, false, method="asymptotic").statistic / (true.size * false.size))


def _fractions(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"one value a problem and at least one problem, not an array of shape {array.shape}")
    outside = ~((array >= 0) & (array <= 1))  # written so that nan is outside
    if outside.any():
        raise ValueError(f"per-problem values must be fractions in 0..1, not {array[outside][0]}")
    return array


def _groups(groups: Sequence[ArrayLike]) -> list[np.ndarray]:
    if not len(groups):
        raise ValueError("at least one group of problems is needed")
    return [_fractions(group) for group in groups]


def _varies(values: np.ndarray) -> bool:
    return np.ptp(values) > 1e-9  # 1 - 2/3 and 1/3 are the same share


def _macro_mean(*arrays: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean([array.mean(axis=axis) for array in arrays], axis=0)


def _estimate(arrays: list[np.ndarray], bounds: tuple[float, float]) -> Estimate:
    """The macro mean with its bounds, widened to contain it where rounding (or BCa) leaves it outside."""
    value = float(_macro_mean(*arrays))
    low, high = map(float, bounds)
    return Estimate(value, min(low, value), max(high, value), sum(array.size for array in arrays))


def _wilson(values: np.ndarray, level: float) -> Estimate:
    from statsmodels.stats.proportion import proportion_confint

    return _estimate([values], proportion_confint(values.sum(), values.size, alpha=1 - level, method="wilson"))


def _bootstrap(arrays: list[np.ndarray], level: float, seed: int, method: str) -> tuple[float, float]:
    from scipy.stats import bootstrap

    # scipy refuses a sample of one; doubled, it keeps its mean and still cannot vary
    arrays = [array.repeat(2) if array.size == 1 else array for array in arrays]
    result = bootstrap(
        arrays, _macro_mean, n_resamples=RESAMPLES, vectorized=True, confidence_level=level, method=method, rng=seed
    )
    return result.confidence_interval
