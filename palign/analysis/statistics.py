"""Statistics at the level of problems or traces: pass@k, intervals, paired comparisons, power, rank agreement.

A benchmark is a sample of problems. Its interval therefore comes from the spread between problems, each the mean of its
samples; that spread already contains the chance of sampling responses. The intervals were chosen by simulated coverage
(``python -m benchmarks.coverage``): a bootstrap of the problems covers the truth too rarely on 30 hard problems, and
one that resamples the samples within problems as well covers it too often everywhere. Where the unit is the trace,
:func:`over_traces` resamples traces.

A comparison of two arms has one procedure, whose interval and whose p agree: p is below 0.05 exactly where the 95 %
interval excludes zero. Both are about the weighted mean over benchmarks, for single samples as for several. It is
Student's: random signs of the problems' differences find less on one benchmark of 30 problems, and on four benchmarks
together up to four points more.

An arm may have been trained under several seeds. Its values then have shape (problems, seeds), crossed: every seed
answers every problem, and a seed moves all benchmarks of its arm at once. The variance of an average is that of the
problems' means, plus what the seeds' own averages vary by more than chance on single problems explains; never less than
the problems' own. The degrees of freedom are Satterthwaite's, at least the number of seeds less one, as in studies of
several readers who judge the same cases (Hillis 2007, Statistics in Medicine 26:596-619). They are counted as if the
seeds' variance were larger by a quarter of the problems', since few seeds may agree by chance. Assumed: seeds are a
sample of all seeds, their effects are about normal, those of two arms are independent. An arm of one seed says nothing
of other seeds: its interval is about that one training.

Simulated coverage of these 95 % intervals, on 30, 30, 83 and 500 problems or on 500, with a standard deviation between
seeds of 0 to 5 points: 95 to 98 % with five seeds, 94 to 99 % with three, 95 to 99 % with two seeds of both arms. With
two seeds of one arm it falls from 99 % to 92 % at 5 points, for two values say little of a spread. At 5 points, half an
arm's interval is 16 to 22 points of two seeds, 9 to 10 of three, 6 to 7 of five. The problems alone would say 3 to 5,
and hold the truth in 58 to 82 %.

>>> interval(pass_at_k([3, 0, 1, 2], n=3, k=1))
Estimate(value=0.5, low=0.096..., high=0.903..., n=4)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 1000
"""Resamples of a bootstrap: with 1000, the bounds of a 95 % interval are the 25th value from either end."""

SAME = 1e-9
"""Fractions nearer to each other are the same: 1 - 2/3 and 1/3."""

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
    """The mean of one benchmark's per-problem fractions, of shape (problems,) or (problems, seeds), with its interval.

    The problems' part is Wilson's interval at their effective number: the number of 0/1 problems whose mean would vary
    as much as this one (Kish), made smaller because the spread is itself an estimate (Korn and Graubard 1998, Survey
    Methodology 24:193-201). Where all values are 0 or 1, and where all values agree, it is the number of problems. A
    problem's value is its mean over the seeds; the spread between seeds widens the interval, see the module's head.
    Raises ``ValueError`` for no values or any outside 0..1.
    """
    return average([per_problem], level=level)


def average(groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks", level: float = 0.95) -> Estimate:
    """The weighted mean of the benchmarks' means, with its interval.

    ``groups``: per-problem fractions of each benchmark, of shape (problems,) or (problems, seeds). The distances to
    each benchmark's bounds (:func:`interval`) are weighted and added as squares (Zou and Donner 2008, Statistics in
    Medicine 27:1693-1702); the spread between the seeds' averages then widens the interval. Raises ``ValueError`` for
    no group, an empty one, values outside 0..1, or benchmarks of unlike numbers of seeds.
    """
    arm = _Arm(groups, weigh)
    below, above = (_reach(distance, [arm.seeds], level) for distance in arm.distances(level))
    return _estimate(arm.value, max(arm.value - below, 0.0), min(arm.value + above, 1.0), arm.n)


def paired_difference(
    a_groups: Sequence[ArrayLike],
    b_groups: Sequence[ArrayLike],
    weigh: Weigh = "benchmarks",
    level: float = 0.95,
) -> Estimate:
    """The averaged difference a - b of two arms on the same problems, aligned by position within each group.

    Groups have shape (problems,) or (problems, seeds); the arms may have different numbers of seeds, which need not be
    in one order. Student's interval of the per-problem differences (of means over seeds), stratified by group, with
    Satterthwaite's degrees of freedom. To the groups' spread one problem is added that they share, half won and half
    lost by the mean size of the differences: without it, a group in which few problems differ would seem to be known
    exactly. The spread between each arm's seeds is added, see the module's head. :func:`paired_test` is the same
    procedure. Raises ``ValueError`` when the arms hold different problems, and as :func:`average` does.
    """
    value, error, freedom, differences, _ = _paired(a_groups, b_groups, weigh)
    reach = error * _student(freedom, level)
    return _estimate(value, max(value - reach, -1.0), min(value + reach, 1.0), sum(d.size for d in differences))


def paired_test(a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks") -> Test:
    """Are two arms alike on the same problems? The p at which the interval of :func:`paired_difference` touches zero.

    So p is below 0.05 exactly where the 95 % interval excludes zero. ``gains`` and ``losses`` count problems by their
    means over seeds. Raises ``ValueError`` as that function does.
    """
    from scipy.special import stdtr

    value, error, freedom, differences, seeded = _paired(a_groups, b_groups, weigh)
    gains, losses = (sum(int((sign * d > SAME).sum()) for d in differences) for sign in (1, -1))
    name = "Student, problems and seeds" if seeded else "Student, paired"
    return Test(name, float(2 * stdtr(freedom, -abs(value) / error)), gains, losses)


def unpaired_difference(
    a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks", level: float = 0.95
) -> Estimate:
    """The averaged difference a - b of two arms that answered different problems; groups need not be of one size.

    The distances to the bounds of the two averages (:func:`average`), which are independent, are added as squares (Zou
    and Donner 2008). For two simple shares this is Newcombe's interval (1998, Statistics in Medicine 17:873-890, method
    10). The spread between each arm's seeds is added, as in :func:`paired_difference`. ``n`` counts the problems of
    both. Raises ``ValueError`` as :func:`average` does.
    """
    a, b = _Arm(a_groups, weigh), _Arm(b_groups, weigh)
    value = a.value - b.value
    below, above = _unpaired_reach(a, b, level)
    return _estimate(value, max(value - below, -1.0), min(value + above, 1.0), a.n + b.n)


def unpaired_test(a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh = "benchmarks") -> float:
    """The p at which the interval of :func:`unpaired_difference` touches zero: below 0.05 where the 95 % interval
    excludes zero.
    """
    from scipy.optimize import brentq

    a, b = _Arm(a_groups, weigh), _Arm(b_groups, weigh)
    value = a.value - b.value

    def bound(level: float) -> float:
        """How far the interval is from zero; negative once it contains zero."""
        below, above = _unpaired_reach(a, b, level)
        return value - below if value > 0 else -value - above

    narrowest, widest = 1e-6, 1 - 1e-9  # outside, effective numbers lose precision; so p is never below 1e-9
    if value == 0 or bound(narrowest) <= 0:
        return 1.0
    return 1 - (widest if bound(widest) > 0 else brentq(bound, narrowest, widest, xtol=1e-13))


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
    value is taken to be the largest possible, that of a fair coin, so that the effect is never stated too small for one
    training of each arm; the spread between training seeds is not in it. Raises ``ValueError`` for no benchmark, one of
    fewer than 2 problems, or a correlation outside -1 to 1 (1 excluded).
    """
    from statsmodels.stats.power import TTestPower

    if not len(sizes) or min(sizes) < 2 or not -1 <= correlation < 1:
        raise ValueError(f"benchmarks of 2 problems or more, correlation in [-1, 1), not {list(sizes)}, {correlation}")
    spread = 2 * 0.25 * (1 - correlation)  # variance of a problem's difference
    weights = _weights(sizes, weigh)
    variance = sum(w**2 * spread / size for w, size in zip(weights, sizes, strict=True))
    effect = TTestPower().solve_power(nobs=spread / variance, alpha=1 - level, power=power)
    return np.asarray(effect).item() * math.sqrt(spread)  # an array of one number where its first solver failed


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
    rng, rows = np.random.default_rng(seed), np.concatenate(groups)
    value, single = float(statistic(rows)), all(len(group) == 1 for group in groups)

    def resample(chosen: np.ndarray) -> np.ndarray:
        return rows[chosen] if single else np.concatenate([groups[i] for i in chosen])  # the first is 20 times as fast

    draws = [statistic(resample(rng.integers(0, len(groups), len(groups)))) for _ in range(RESAMPLES)]
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


@dataclass(frozen=True)
class _Seeds:
    """What the training seeds of an arm add to the variance of its average.

    ``spread``: the variance of the mean over seeds, seen between the seeds' averages; ``chance``: the part of it that
    comes from single problems, and so is in the problems' spread already; ``freedom``: the number of seeds less one.
    """

    spread: float
    chance: float
    freedom: int


class _Arm:
    """One arm's groups, checked: ``arrays`` of shape (problems, seeds) and ``weights`` of the groups that sum to 1."""

    def __init__(self, groups: Sequence[ArrayLike], weigh: Weigh):
        if not len(groups):
            raise ValueError("at least one group of problems is needed")
        self.arrays = [_fractions(group) for group in groups]
        columns = {array.shape[1] for array in self.arrays}
        if len(columns) > 1:
            raise ValueError(f"every benchmark must have the same training seeds, not {sorted(columns)} of them")
        sizes = np.array([len(array) for array in self.arrays])
        self.n, self.weights = int(sizes.sum()), _weights(sizes, weigh)
        self.means = [array.mean(axis=1) for array in self.arrays]  # of each problem, over the seeds
        self.value = math.fsum(w * mean.mean() for w, mean in zip(self.weights, self.means, strict=True))

    @cached_property
    def seeds(self) -> _Seeds:
        """The mean squares of problems crossed with seeds; the seeds' effects are those on the weighted average."""
        seeds = self.arrays[0].shape[1]
        if seeds == 1:
            return _Seeds(0.0, 0.0, 0)
        by_seed = [array.mean(axis=0) for array in self.arrays]
        averages = sum(w * means for w, means in zip(self.weights, by_seed, strict=True))
        chance = 0.0
        for w, array, rows, columns in zip(self.weights, self.arrays, self.means, by_seed, strict=True):
            if len(array) > 1:
                rest = array - rows[:, None] - columns + columns.mean()
                chance += w**2 * (rest**2).sum() / (len(array) - 1) / (seeds - 1) / rest.size
        return _Seeds(float(averages.var(ddof=1)) / seeds, float(chance), seeds - 1)

    def distances(self, level: float) -> tuple[float, float]:
        """From the value to the lower and to the upper bound, by the problems alone: Wilson's, added as squares."""
        parts = [_wilson_distances(*effective, level) for effective in self._effective]
        below, above = (
            math.hypot(*(w * part[side] for w, part in zip(self.weights, parts, strict=True))) for side in (0, 1)
        )
        return below, above

    @cached_property
    def _effective(self) -> list[tuple[float, float, float]]:
        return [_effective(means) for means in self.means]


def _fractions(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(
            f"values must have shape (problems,) or (problems, seeds) with a problem at least, not {array.shape}"
        )
    outside = ~((array >= 0) & (array <= 1))  # nan compares false, so it counts as outside
    if outside.any():
        raise ValueError(f"per-problem values must be fractions in 0..1, not {array[outside][0]}")
    return array if array.ndim == 2 else array[:, None]


def _weights(sizes: ArrayLike, weigh: Weigh) -> np.ndarray:
    sizes = np.asarray(sizes, dtype=float)
    weights = np.ones(sizes.size) if weigh == "benchmarks" else sizes
    return weights / weights.sum()


def _paired(
    a_groups: Sequence[ArrayLike], b_groups: Sequence[ArrayLike], weigh: Weigh
) -> tuple[float, float, float, list[np.ndarray], bool]:
    """The averaged difference, its standard error, the degrees of freedom, each group's differences, and whether seeds
    are part of the error.
    """
    a, b = _Arm(a_groups, weigh), _Arm(b_groups, weigh)
    sizes = tuple([len(array) for array in arm.arrays] for arm in (a, b))
    if sizes[0] != sizes[1]:
        raise ValueError(f"the two arms must hold the same problems, not groups of sizes {sizes[0]} and {sizes[1]}")
    differences = [x - y for x, y in zip(a.means, b.means, strict=True)]
    value = math.fsum(w * d.mean() for w, d in zip(a.weights, differences, strict=True))
    parts = [w**2 * part for w, part in zip(a.weights, _variances(differences), strict=True)]
    rough = sum(part**2 / max(d.size - 1, 1) for part, d in zip(parts, differences, strict=True))
    variance, freedom = _with_seeds(sum(parts), rough, [a.seeds, b.seeds])
    return value, math.sqrt(variance), freedom, differences, bool(a.seeds.freedom or b.seeds.freedom)


def _variances(differences: Sequence[np.ndarray]) -> list[float]:
    """The variance of each group's mean difference, with one problem more that the groups share; half won, half lost.

    Its square is the mean one of the group's problems that differ (of all groups' where none does). Where every problem
    of every group has the same difference, nothing is known of the spread. Then each group has a problem of square 3:
    none of 30 problems that differs gives 0 +- 12 points, about what the rule of three says (Hanley and Lippman-Hand
    1983, JAMA 249:1743).
    """
    squares = [d[np.abs(d) > SAME / 2] ** 2 for d in differences]
    if any(map(_varies, differences)):
        share, pooled = 1 / len(differences), np.concatenate(squares).mean()
        sizes = [own.mean() if own.size else pooled for own in squares]
    else:
        share, sizes = 1.0, [3.0] * len(differences)
    return [
        float(d @ d + share * size - d.sum() ** 2 / (d.size + share)) / (d.size - 1 + share) / d.size
        for d, size in zip(differences, sizes, strict=True)
    ]


def _with_seeds(variance: float, rough: float, arms: Sequence[_Seeds]) -> tuple[float, float]:
    """The variance with the arms' seeds added, and its degrees of freedom; see the module's head.

    ``rough``: the sum, over the parts of ``variance``, of their squares by their degrees of freedom.
    """
    arms = [arm for arm in arms if arm.freedom]
    total = variance + sum(max(arm.spread - arm.chance, 0.0) for arm in arms)
    all_rough = rough + sum((arm.spread + variance / 4 / len(arms)) ** 2 / arm.freedom for arm in arms)
    fewest = min([_ratio(variance**2, rough), *(arm.freedom for arm in arms)])
    return total, max(_ratio(total**2, all_rough), fewest)


def _ratio(square: float, rough: float) -> float:
    """Satterthwaite's degrees of freedom; infinite where nothing is rough."""
    return square / rough if rough > 1e-9 * square else math.inf


def _reach(distance: float, arms: Sequence[_Seeds], level: float) -> float:
    """A distance to a bound, widened by the spread between seeds; unchanged where there is none."""
    variance, freedom = _with_seeds((distance / _student(math.inf, level)) ** 2, 0.0, arms)
    return math.sqrt(variance) * _student(freedom, level)


def _unpaired_reach(a: _Arm, b: _Arm, level: float) -> tuple[float, float]:
    (a_below, a_above), (b_below, b_above) = a.distances(level), b.distances(level)
    seeds = [a.seeds, b.seeds]
    return _reach(math.hypot(a_below, b_above), seeds, level), _reach(math.hypot(a_above, b_below), seeds, level)


def _student(freedom: float, level: float) -> float:
    """Student's two-sided critical value; the normal one for infinite degrees of freedom.

    From ``scipy.special``: ``scipy.stats`` takes fifty times as long, and a report asks thousands of times.
    """
    from scipy.special import ndtri, stdtrit

    tail = (1 + level) / 2
    return float(ndtri(tail) if math.isinf(freedom) else stdtrit(freedom, tail))


def _varies(values: np.ndarray) -> bool:
    return np.ptp(values) > SAME


def _effective(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, the effective number by Kish, and the degrees of freedom of that number (infinite where known)."""
    mean = float(values.mean())
    if np.isin(values, (0, 1)).all() or not _varies(values):
        return mean, values.size, math.inf
    return mean, mean * (1 - mean) / (values.var(ddof=1) / values.size), values.size - 1


def _wilson_distances(mean: float, number: float, freedom: float, level: float) -> tuple[float, float]:
    """From the mean to Wilson's bounds; a number that is itself an estimate is made smaller."""
    z = _student(math.inf, level)
    number *= (z / _student(freedom, level)) ** 2
    centre = (mean + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * math.sqrt(mean * (1 - mean) / number + z**2 / (4 * number**2))
    return max(mean - max(centre - half, 0.0), 0.0), max(min(centre + half, 1.0) - mean, 0.0)


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    """An estimate whose bounds contain the value, also where rounding would leave it outside."""
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), n)
