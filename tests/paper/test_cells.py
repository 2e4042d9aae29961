"""Attainable cells, averages and repeats against brute force, and the facts found in the paper's tables."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.paper import cells, printed
from palign.paper.printed import SIZES

law = settings(deadline=None, max_examples=50)  # the first example also imports, on a busy machine slowly
sizes = st.sampled_from(sorted({*SIZES.values(), 83 * 3, 7, 100}))


@law
@given(st.data(), sizes)
def test_every_share_is_attainable_however_it_is_cut_to_two_decimals(data, n):
    """A table that rounds and one that truncates are both right."""
    k = data.draw(st.integers(0, n))
    down, nearest, up = 10_000 * k // n, round(10_000 * k / n), -(-10_000 * k // n)
    assert all(cells.attainable(hundredths / 100, n) for hundredths in (down, nearest, up))


@law
@given(st.integers(0, 10_000), sizes)
def test_attainable_is_what_trying_every_count_says(hundredths, n):
    near = min(abs(hundredths * n - 10_000 * k) for k in range(n + 1))  # in 1/(100 n) points
    assert cells.attainable(hundredths / 100, n) == (near < n)


def test_the_fewest_samples_are_found_for_every_number_and_are_the_fewest():
    assert cells.samples_needed(50.60, 83, "pass@1") == 1
    assert cells.samples_needed(59.84, 83, "pass@1") == 3
    assert cells.samples_needed(49.70, 83, "pass@3") == 4  # C(4, 3) samples of three
    for percent in (40.76, 32.92, 47.58):
        s = cells.samples_needed(percent, 83, "pass@1")
        assert cells.attainable(percent, s * 83)
        assert not any(cells.attainable(percent, t * 83) for t in range(1, s))


def test_eleven_cells_of_table_1_are_no_whole_number_of_amc_problems():
    """The finding itself: nine of them lie far from k/249 too, one lies 0.012 points off, one is 149/249."""
    found = cells.unattainable("table1")
    assert len(found) == 11
    assert sorted(found.loc[found["attainable"] == "k/(3n)", "percent"]) == [59.84]
    off = found[found["attainable"] == "neither"]
    assert off.loc[off["off"] < 0.015, "percent"].tolist() == [32.92]
    others = sorted(off.loc[off["off"] >= 0.015, "percent"])
    assert others == [34.62, 40.76, 47.58, 48.51, 49.70, 58.81, 61.74, 67.04, 75.38]
    assert not any(cells.attainable(percent, 249) for percent in others)


def test_all_cells_of_p_align_in_table_1_are_attainable_and_all_off_amc12():
    table = cells.cells()
    rows = table[(table["table"] == "table1") & (table["arm"] == "p-align")]
    assert len(rows) == 16 and (rows["attainable"] == "k/n").all()
    assert (table.loc[table["benchmark"] != "AMC12", "attainable"] == "k/n").all()


def test_two_printed_averages_do_not_add_up():
    """Table 1: 47.475 by its cells, 47.68 printed. Half a unit of rounding must not make a third."""
    off = cells.averages().query("not adds_up")
    assert off[["table", "student", "arm", "metric", "printed"]].values.tolist() == [
        ["table1", "Qwen2.5-7B-Instruct", "sft-long-cot", "pass@3", 47.68],
        ["table2", "Qwen3-8B", "p-align-no-adaptive-read", "pass@3", 58.36],
    ]
    assert off["mean"].round(4).tolist() == [47.475, 58.7775]


@law
@given(st.lists(st.integers(0, 83), min_size=4, max_size=4))
def test_an_average_of_rounded_cells_always_adds_up(counts):
    exact = [100 * k / 83 for k in counts]
    table = pd.DataFrame(
        {"table": "t", "student": "s", "teacher": "r", "arm": "a", "metric": "pass@1"}
        | {"benchmark": [*SIZES, printed.AVERAGE], "percent": np.round([*exact, np.mean(exact)], 2)}
    )
    assert cells.averages(table)["adds_up"].all()


def test_p_align_under_other_teachers_repeats_table_1_but_for_one_cell():
    found = cells.repeats().query("expected == ''")
    assert set(found["arm"]) == {"p-align"}
    first = found[found["row"] == "table1, DeepSeek-R1"]
    assert len(first) == 4
    assert first["apart"].tolist().count("") == 3 and "MATH500 75.8 and 75.2" in first["apart"].tolist()


@law
@given(st.integers(0, 20), st.integers(1, 20))
def test_the_chance_to_repeat_is_that_of_two_equal_draws(k, n):
    p = min(k, n) / n
    pmf = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)]
    assert cells.chance([100 * p], [n]) == pytest.approx(sum(x * x for x in pmf))
    assert cells.chance([100 * p] * 2, [n, n]) == pytest.approx(sum(x * x for x in pmf) ** 2)
