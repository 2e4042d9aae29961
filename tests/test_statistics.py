"""The statistics obey their laws: pass@k is enumeration, intervals hold their values, order does not matter."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palign.statistics import Estimate, interval, macro_average, paired_difference, pass_at_k, rank_auc

shares = st.sampled_from([0, 1 / 3, 2 / 3, 1])
problems = st.lists(shares, min_size=1, max_size=30)
group_lists = st.lists(problems, min_size=1, max_size=4)
bootstrapped = settings(max_examples=40, deadline=None)


@st.composite
def two_arms(draw):
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    return tuple([draw(st.lists(shares, min_size=n, max_size=n)) for n in sizes] for _ in range(2))


# -- pass@k -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_sample(n, data):
    k, c = data.draw(st.integers(1, n)), data.draw(st.integers(0, n))
    samples = [1] * c + [0] * (n - c)
    enumerated = np.mean([any(subset) for subset in itertools.combinations(samples, k)])
    assert pass_at_k([c], n, k) == pytest.approx(enumerated)


@given(st.lists(st.integers(0, 3), min_size=1))
def test_the_papers_two_metrics(counts):
    """Pass@1 is the mean of the three samples, Pass@3 any of them."""
    assert np.allclose(pass_at_k(counts, 3, 1), np.array(counts) / 3)
    assert np.array_equal(pass_at_k(counts, 3, 3), np.array(counts) > 0)


def test_pass_at_k_of_many_samples_does_not_overflow():
    assert pass_at_k([0, 1, 2000], 2000, 1000).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("counts", "n", "k", "says"),
    [([1], 2, 3, "pass@3"), ([1], 2, 0, "pass@0"), ([4], 3, 1, "4"), ([-1], 3, 1, "-1"), ([1.5], 3, 1, "1.5")],
)
def test_impossible_counts_are_refused(counts, n, k, says):
    with pytest.raises(ValueError, match=says):
        pass_at_k(counts, n, k)


def test_a_missing_count_is_refused():
    with pytest.raises(ValueError, match="nan"):
        pass_at_k([1, math.nan], 3, 1)


# -- intervals --------------------------------------------------------------------------------------------------------


@bootstrapped
@given(problems)
@example([0, 0, 0])  # Wilson's lower bound is 5e-17 here
def test_an_interval_contains_its_value_stays_in_bounds_and_has_width(values):
    estimate = interval(values)
    assert estimate.value == pytest.approx(np.mean(values)) and estimate.n == len(values)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high


def test_zeros_and_ones_have_wilsons_interval():
    """Newcombe 1998 (Statistics in Medicine 17), table I: 81 of 263 and 1 of 29."""
    estimate = interval([1] * 81 + [0] * 182)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)
    estimate = interval([1] + [0] * 28)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.0061, 0.1718)


@bootstrapped
@given(st.lists(st.integers(0, 1), min_size=1, max_size=30), st.randoms())
def test_the_order_of_problems_does_not_matter_to_wilson(values, random):
    shuffled = random.sample(values, len(values))
    assert interval(shuffled) == interval(values)


@settings(max_examples=10, deadline=None)
@given(st.lists(shares, min_size=20, max_size=40).filter(lambda v: np.std(v) > 0.2), st.randoms())
def test_the_order_of_problems_moves_a_bootstrap_by_no_more_than_its_noise(values, random):
    a, b = interval(values), interval(random.sample(values, len(values)))
    assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), abs=0.05)


def test_the_bootstrap_repeats_itself_and_its_seed_counts():
    values = np.arange(40) % 7 / 6
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)


@pytest.mark.parametrize("values", [[0, 1] * 20, list(np.arange(40) % 4 / 3), [1 / 3] * 40])
def test_a_higher_level_is_wider_and_more_problems_are_narrower(values):
    at95, at80, fourfold = interval(values), interval(values, level=0.8), interval(values * 4)
    assert at95.low < at80.low <= at80.high < at95.high
    assert fourfold.high - fourfold.low < 0.7 * (at95.high - at95.low)


@pytest.mark.parametrize("values", [[1 / 3], [1 / 3] * 30, [1 / 3, 1 - 2 / 3] * 15])
def test_problems_that_all_agree_are_not_certainty(values):
    """A bootstrap of equal values has zero width, whatever the number of problems."""
    estimate = interval(values)
    assert estimate.low < estimate.value - 0.1 and estimate.value + 0.1 < estimate.high


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    drawn = rng.binomial(3, rng.beta(1, 1, size=(150, 60))) / 3
    covered = np.mean([estimate.low <= 0.5 <= estimate.high for estimate in map(interval, drawn)])
    assert 0.9 <= covered <= 0.99


@pytest.mark.parametrize("values", [[], [[0.5, 0.5]], [1.2], [-0.1, 0.5], [math.nan, 1]])
def test_what_is_not_a_list_of_fractions_is_refused(values):
    """Percentages passed for fractions, a missing grade, or a table for a column."""
    with pytest.raises(ValueError, match="problem"):
        interval(values)
    with pytest.raises(ValueError, match="problem"):
        macro_average([[0, 1], values])


# -- averages over benchmarks -----------------------------------------------------------------------------------------


@bootstrapped
@given(group_lists)
def test_a_macro_average_weighs_benchmarks_alike_and_lies_in_its_interval(groups):
    estimate = macro_average(groups)
    assert estimate.value == pytest.approx(np.mean([np.mean(group) for group in groups]))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high and estimate.n == sum(map(len, groups))


def test_problems_are_resampled_within_their_benchmark():
    """Pooled, two benchmarks of 0.0 and 1.0 would look uncertain of their own average."""
    groups = [[0] * 29 + [1], [1] * 29 + [0]]
    assert macro_average(groups).high - macro_average(groups).low < 0.15


def test_benchmarks_without_any_spread_have_wilsons_bounds():
    assert macro_average([[0] * 30]) == interval([0] * 30)
    assert macro_average([[0] * 30, [1] * 30]).low == pytest.approx(interval([1] * 30).low / 2)


def test_no_benchmark_is_refused():
    with pytest.raises(ValueError, match="group"):
        macro_average([])


# -- differences ------------------------------------------------------------------------------------------------------


@bootstrapped
@given(two_arms())
def test_a_difference_is_that_of_the_averages_and_lies_in_its_interval(arms):
    a, b = arms
    estimate = paired_difference(a, b)
    assert estimate.value == pytest.approx(macro_average(a).value - macro_average(b).value)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high and estimate.n == sum(map(len, a))


@bootstrapped
@given(two_arms())
def test_swapping_the_arms_mirrors_the_interval(arms):
    a, b = arms
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (-back.value, -back.high, -back.low) == pytest.approx((there.value, there.low, there.high))


def test_pairing_by_problem_is_used():
    """Hard and easy problems alike in both arms: the spread between problems is no noise in the difference."""
    easy_and_hard = np.array([0.0, 1.0] * 30)
    a, b = easy_and_hard.copy(), easy_and_hard.copy()
    a[:12:2] = 1
    paired = paired_difference([a], [b])
    assert paired.low > 0 and paired.high < 0.2
    mismatched = paired_difference([a], [b[::-1]])
    assert mismatched.low < 0


def test_arms_that_never_differ_are_equal_only_as_far_as_the_problems_tell():
    few, many = (paired_difference([[0, 1] * n], [[0, 1] * n]) for n in (5, 500))
    assert few.value == many.value == 0
    assert few.low < many.low < 0 < many.high < few.high


@pytest.mark.parametrize(
    ("a", "b"), [([[1, 0]], [[1]]), ([[1], [0]], [[1]]), ([[1, 0], [1]], [[1], [1, 0]]), ([[1] * 3], [[1], [0, 1]])]
)
def test_arms_on_different_problems_are_refused(a, b):
    with pytest.raises(ValueError, match="same problems"):
        paired_difference(a, b)


def test_an_estimate_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Estimate(0.5, 0.4, 0.6, 30).low = 0


# -- rank agreement ---------------------------------------------------------------------------------------------------

cases = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@given(cases)
def test_auc_is_the_share_of_pairs_in_order(pairs):
    true, false = ([score for score, label in pairs if label == wanted] for wanted in (True, False))
    in_order = np.mean([(t > f) + (t == f) / 2 for t in true for f in false])
    scores, labels = zip(*pairs, strict=True)
    assert rank_auc(scores, labels) == pytest.approx(in_order)
    assert rank_auc([-score for score in scores], labels) == pytest.approx(1 - in_order)
    assert rank_auc([math.exp(score) for score in scores], labels) == pytest.approx(in_order)


@pytest.mark.filterwarnings("error")
def test_auc_without_both_classes_or_with_a_missing_score_is_nan():
    assert math.isnan(rank_auc([1, 2], [True, True]))
    assert math.isnan(rank_auc([1, 2], [False, False]))
    assert math.isnan(rank_auc([], []))
    assert math.isnan(rank_auc([None, 2, 3], [True, False, True]))


def test_auc_of_scores_and_labels_that_do_not_match_is_refused():
    with pytest.raises(ValueError, match="shape"):
        rank_auc([1, 2, 3], [True, False])
