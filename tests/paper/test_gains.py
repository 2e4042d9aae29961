"""Intervals, exact tests and problems needed against libraries and brute force, and the gains of Table 1."""

import itertools
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.paper import gains

law = settings(deadline=None, max_examples=50)  # the first example also imports, on a busy machine slowly
shares = st.tuples(st.integers(0, 83), st.integers(0, 83))


@law
@given(shares)
def test_both_intervals_contain_the_gain_and_swapping_the_arms_mirrors_them(counts):
    p, q = (pd.Series({"AMC12": 100 * k / 83}) for k in counts)
    one, other = (gains.compare(*arms).set_index("scope").loc["AMC12"] for arms in ((p, q), (q, p)))
    assert one.low <= one.gain <= one.high and one.best_low <= one.gain <= one.best_high
    assert (one.low, one.best_low) == pytest.approx((-other.high, -other.best_high))


@law
@given(shares)
def test_the_best_pairing_is_never_less_certain_than_independence(counts):
    p, q = (k / 83 for k in counts)
    assert gains.best_variance(p, q, 83) <= gains.independent_variance(p, q, 83) + 1e-12


@law
@given(st.integers(-40, 40))
def test_the_exact_test_of_one_benchmark_is_the_binomial_one(net):
    from scipy.stats import binomtest

    expected = binomtest(abs(net), abs(net), 0.5).pvalue if net else 1.0
    assert gains.sign_flips([net], [1 / 83]) == pytest.approx(expected)


@law
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=3))
def test_the_exact_test_across_benchmarks_is_what_trying_all_signs_says(net):
    weights = [1 / 30, 1 / 83, 1 / 500][: len(net)]
    moved = [w for count, w in zip(net, weights, strict=True) for _ in range(abs(count))]
    seen = abs(sum(count * w for count, w in zip(net, weights, strict=True)))
    signs = list(itertools.product((-1, 1), repeat=len(moved)))
    reached = sum(abs(sum(s * w for s, w in zip(sign, moved, strict=True))) >= seen - 1e-12 for sign in signs)
    assert gains.sign_flips(net, weights) == pytest.approx(reached / len(signs))


@law
@given(st.floats(0.01, 0.3), st.integers(30, 643))
def test_with_the_problems_needed_four_studies_in_five_find_the_gain(gain, n):
    from scipy.stats import norm

    variance = 0.5 / n
    needed = gains.problems_needed(gain, variance, n)
    power = [norm.sf(gains.Z - gain / math.sqrt(variance * n / m)) for m in (needed - 1, needed)]
    assert power[0] < gains.POWER + 1e-6 and power[1] >= gains.POWER - 1e-6


def test_no_gain_over_whole_traces_or_upft_in_table_1_excludes_zero_for_independent_arms():
    """The finding itself, with the numbers a reader is shown."""
    rows = gains.main(gains.gains()).query("scope == 'average'")
    assert len(rows) == 8 and (rows["low"] < 0).all() and (rows["gain"] > 0).all()
    first = rows[rows["student"].str.startswith("Qwen2.5") & (rows["metric"] == "pass@1")].set_index("worse")
    columns = ["gain", "low", "high", "best_low", "best_high"]
    assert first.loc["sft-long-cot", columns].round(2).tolist() == [3.69, -3.86, 11.21, 0.48, 6.90]
    assert first.loc["upft", columns].round(2).tolist() == [2.38, -5.37, 10.07, -0.02, 4.77]
    assert first.loc["sft-long-cot", "p_best"] == 2 / 2**6
