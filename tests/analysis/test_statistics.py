"""The statistics obey their laws: pass@k is enumeration, intervals hold their values, order does not matter."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palign.analysis.statistics import (
    Estimate,
    average,
    holm,
    interval,
    mean_over_traces,
    minimum_detectable_effect,
    over_traces,
    paired_difference,
    paired_test,
    pass_at_k,
    rank_auc,
    table_of,
    unpaired_difference,
    unpaired_test,
)

shares = st.sampled_from([0, 1 / 3, 2 / 3, 1])
problems = st.lists(shares, min_size=1, max_size=30)
group_lists = st.lists(problems, min_size=1, max_size=4)
weighings = st.sampled_from(["benchmarks", "problems"])
quick = settings(deadline=None)


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


@quick
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


@quick
@given(problems, st.randoms())
def test_the_order_of_problems_does_not_matter(values, random):
    there, back = interval(values), interval(random.sample(values, len(values)))
    assert (back.value, back.low, back.high) == pytest.approx((there.value, there.low, there.high))


@quick
@given(problems)
def test_what_is_wrong_is_the_mirror_of_what_is_right(values):
    right, wrong = interval(values), interval([1 - value for value in values])
    assert (1 - wrong.value, 1 - wrong.high, 1 - wrong.low) == pytest.approx((right.value, right.low, right.high))


def test_samples_of_a_coin_count_almost_as_problems():
    """Three samples per problem, all problems alike: about three times as many problems of one sample."""
    rng = np.random.default_rng(3)
    three, one = interval(rng.binomial(3, 0.5, 500) / 3), interval([0, 1] * 750)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


@pytest.mark.parametrize("values", [[0, 1] * 20, list(np.arange(40) % 4 / 3), [1 / 3] * 40])
def test_a_higher_level_is_wider_and_more_problems_are_narrower(values):
    at95, at80, fourfold = interval(values), interval(values, level=0.8), interval(values * 4)
    assert at95.low < at80.low <= at80.high < at95.high
    assert fourfold.high - fourfold.low < 0.7 * (at95.high - at95.low)


@pytest.mark.parametrize("values", [[1 / 3], [1 / 3] * 30, [1 / 3, 1 - 2 / 3] * 15])
def test_problems_that_all_agree_are_not_certainty(values):
    """Equal values show no spread, and yet their mean is not known exactly."""
    estimate = interval(values)
    assert estimate.low < estimate.value - 0.1 and estimate.value + 0.1 < estimate.high


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """The bootstrap of the first version covered 85 to 92 % here; ``benchmarks.coverage`` has the rest."""
    rng = np.random.default_rng(7)
    drawn = rng.binomial(3, rng.beta(0.5, 4, size=(400, 30))) / 3
    covered = np.mean([estimate.low <= 1 / 9 <= estimate.high for estimate in map(interval, drawn)])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("values", [[], [[0.5, 0.5]], [1.2], [-0.1, 0.5], [math.nan, 1]])
def test_what_is_not_a_list_of_fractions_is_refused(values):
    """Percentages passed for fractions, a missing grade, or a table for a column."""
    with pytest.raises(ValueError, match="problem"):
        interval(values)
    with pytest.raises(ValueError, match="problem"):
        average([[0, 1], values])


# -- averages over benchmarks -----------------------------------------------------------------------------------------


@quick
@given(group_lists, weighings)
def test_an_average_weighs_as_asked_and_lies_in_its_interval(groups, weigh):
    estimate = average(groups, weigh)
    expected = np.mean([np.mean(g) for g in groups]) if weigh == "benchmarks" else np.mean(np.concatenate(groups))
    assert estimate.value == pytest.approx(expected)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high and estimate.n == sum(map(len, groups))


@given(problems)
def test_the_average_of_one_benchmark_is_that_benchmark(values):
    there, here = average([values]), interval(values)
    assert (there.value, there.low, there.high) == pytest.approx((here.value, here.low, here.high))


def test_benchmarks_of_one_size_weigh_alike_either_way():
    groups = [[0, 1, 1 / 3], [2 / 3, 1, 0]]
    assert average(groups, "benchmarks") == average(groups, "problems")


def test_benchmarks_that_differ_are_not_uncertain_of_their_average():
    """Pooled, two benchmarks of 0.0 and 1.0 would look uncertain of their own average."""
    groups = [[0] * 29 + [1], [1] * 29 + [0]]
    assert average(groups).high - average(groups).low < 0.15


def test_no_benchmark_is_refused():
    with pytest.raises(ValueError, match="group"):
        average([])


# -- differences ------------------------------------------------------------------------------------------------------


@quick
@given(two_arms(), weighings)
def test_a_difference_is_that_of_the_averages_and_lies_in_its_interval(arms, weigh):
    a, b = arms
    estimate = paired_difference(a, b, weigh)
    assert estimate.value == pytest.approx(average(a, weigh).value - average(b, weigh).value)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high and estimate.n == sum(map(len, a))


@quick
@given(two_arms())
def test_swapping_the_arms_mirrors_the_interval(arms):
    a, b = arms
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (-back.value, -back.high, -back.low) == pytest.approx((there.value, there.low, there.high))


def test_pairing_by_problem_is_used():
    """Hard and easy problems alike in both arms: the spread between problems is not noise in the difference."""
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


def test_a_single_benchmark_has_students_interval():
    from scipy.stats import ttest_rel

    a, b = np.arange(30) % 4 / 3, np.arange(30) % 7 / 6
    estimate, expected = paired_difference([a], [b]), ttest_rel(a, b).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_an_estimate_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Estimate(0.5, 0.4, 0.6, 30).low = 0


# -- tests of a difference --------------------------------------------------------------------------------------------


@quick
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5))
def test_single_samples_have_mcnemars_exact_p(gains, losses, alike):
    """The chance, if either arm is as likely to win a problem, of a split at least as uneven."""
    a, b = [1] * gains + [0] * losses + [1] * alike, [0] * gains + [1] * losses + [1] * alike
    if not a:
        return
    n = gains + losses
    uneven = [k for k in range(n + 1) if abs(2 * k - n) >= abs(gains - losses)]
    test = paired_test([a], [b])
    assert (test.name, test.gains, test.losses) == ("exact McNemar", gains, losses)
    assert test.p == pytest.approx(sum(math.comb(n, k) for k in uneven) / 2**n)


def test_several_samples_have_students_paired_p():
    from scipy.stats import ttest_rel

    a, b = np.arange(30) % 4 / 3, np.arange(30) % 7 / 6
    assert paired_test([a], [b]).p == pytest.approx(ttest_rel(a, b).pvalue)


@quick
@given(two_arms(), weighings)
def test_the_p_is_below_5_percent_where_the_interval_excludes_zero(arms, weigh):
    """For several samples the two are one; McNemar's counts problems and may differ."""
    test, estimate = paired_test(*arms, weigh), paired_difference(*arms, weigh)
    if test.name == "Student, paired" and test.p < 1:
        assert (test.p < 0.05) == (estimate.low > 0 or estimate.high < 0)


@quick
@given(two_arms(), weighings)
def test_swapping_the_arms_swaps_gains_and_losses(arms, weigh):
    a, b = arms
    there, back = paired_test(a, b, weigh), paired_test(b, a, weigh)
    assert (there.gains, there.losses) == (back.losses, back.gains)
    assert 0 < there.p <= 1 and there.p == pytest.approx(back.p)


def test_arms_that_never_differ_have_no_evidence_against_them():
    assert paired_test([[0, 1]], [[0, 1]]).p == 1
    assert paired_test([[1 / 3, 1]], [[1 / 3, 1]]).p == 1
    assert paired_test([[1 / 3, 1 / 3]], [[2 / 3, 2 / 3]]).p == 1


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_multiplies_the_smallest_by_all_and_keeps_order(p_values):
    corrected = holm(p_values)
    assert len(corrected) == len(p_values)
    if p_values:
        assert min(corrected) == pytest.approx(min(1, len(p_values) * min(p_values)))
        by_p = [c for _, c in sorted(zip(p_values, corrected, strict=True))]
        assert by_p == sorted(by_p) and all(c >= p for p, c in zip(p_values, corrected, strict=True))


@settings(max_examples=5)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_that_of_statsmodels(p_values):
    from statsmodels.stats.multitest import multipletests

    assert holm(p_values) == multipletests(p_values, method="holm")[1].tolist()


# -- power ------------------------------------------------------------------------------------------------------------


def test_a_study_finds_its_minimum_detectable_effect_four_times_in_five():
    rng = np.random.default_rng(11)
    sizes, found = [60, 120], []
    effect = minimum_detectable_effect(sizes)
    for _ in range(200):
        a, b = ([rng.binomial(1, p, size) for size in sizes] for p in (0.5 + effect / 2, 0.5 - effect / 2))
        found.append(paired_difference(a, b).low > 0)
    assert 0.75 <= np.mean(found) <= 0.9


def test_more_problems_and_arms_that_go_together_find_less():
    assert minimum_detectable_effect([643]) < minimum_detectable_effect([30])
    assert minimum_detectable_effect([30], correlation=0.5) < minimum_detectable_effect([30])
    assert minimum_detectable_effect([30, 500], weigh="problems") < minimum_detectable_effect([30, 500])


@pytest.mark.parametrize(("sizes", "correlation"), [([], 0), ([1], 0), ([30], 1), ([30], 2)])
def test_a_design_without_power_is_refused(sizes, correlation):
    with pytest.raises(ValueError, match="benchmarks of 2"):
        minimum_detectable_effect(sizes, correlation)


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


# -- over traces ------------------------------------------------------------------------------------------------------


def test_the_interval_resamples_traces_not_rows():
    """A trace judged forty times is still one trace: rows resampled singly would make the interval far too narrow."""
    rng = np.random.default_rng(0)
    whole = [np.full((40, 1), value) for value in rng.random(20)]
    single = [np.array([[value]]) for group in whole for value in group[:, 0]]
    wide, narrow = over_traces(whole, np.mean), over_traces(single, np.mean)
    assert wide.value == pytest.approx(narrow.value) and wide.n == 20
    assert wide.low <= wide.value <= wide.high
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_traces_that_all_agree_claim_no_certainty():
    found = over_traces([np.ones((3, 1))] * 5, np.mean)
    assert found.value == 1 and math.isnan(found.low) and math.isnan(found.high)


def test_a_mean_over_traces_is_that_of_one_row_a_trace():
    values = [3.0, -1.0, 7.5, 2.0]
    assert mean_over_traces(values) == over_traces([np.array([[value]]) for value in values], np.mean)
    assert mean_over_traces(values).value == np.mean(values)


def test_a_resample_without_a_value_does_not_count():
    """One trace alone has both labels: a resample without it has no AUC."""
    rows = [np.array([[2.0, 1.0], [1.0, 0.0]]), *[np.array([[0.5, 0.0]])] * 3]
    found = over_traces(rows, lambda rows: rank_auc(*rows.T))
    assert found.value == 1 and found.n == 4
    assert math.isnan(over_traces(rows[1:], lambda rows: rank_auc(*rows.T)).value)


def test_a_table_of_estimates_has_a_row_each():
    table = table_of({"a": Estimate(0.5, 0.4, 0.6, 30), "b": Estimate(1.0, math.nan, math.nan, 3)})
    assert list(table.index) == ["a", "b"] and list(table.columns) == ["value", "low", "high", "n"]
    assert table["n"].tolist() == [30, 3] and table["n"].dtype.kind == "i"
    assert table_of({}).empty and list(table_of({}).columns) == list(table.columns)


# -- differences on different problems --------------------------------------------------------------------------------


def test_unpaired_differences_cover_as_often_as_they_say():
    """Two arms of unlike skill on 40 and 60 problems of their own: 200 studies, of which 95 % should cover."""
    rng = np.random.default_rng(0)
    covered, rejected = 0, 0
    for _ in range(200):
        a, b = rng.binomial(3, 0.3, 40) / 3, rng.binomial(3, 0.6, 60) / 3
        found = unpaired_difference([b], [a])
        covered += found.low <= 0.3 <= found.high
        rejected += unpaired_test([b], [rng.binomial(3, 0.6, 40) / 3]) < 0.05
    assert 0.92 <= covered / 200 <= 0.98 and 0.01 <= rejected / 200 <= 0.09


@settings(max_examples=30)
@given(problems, problems)
def test_unpaired_p_and_interval_agree(a, b):
    found, p = unpaired_difference([a], [b]), unpaired_test([a], [b])
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (found.low > 0 or found.high < 0)
