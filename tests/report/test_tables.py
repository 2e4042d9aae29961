"""The report claims what an interval and a corrected test support, and counts before it computes."""

import pytest

from palign.report import tables, texts

SIZES = {"easy": 40, "hard": 60}


def pass_1(table):
    return table[table["metric"] == "pass@1"].set_index("arm")


def test_a_difference_inside_its_interval_is_not_called_one(study):
    made = study(SIZES, {"zero-shot": 0.5, "sft-label": 0.51, "rft": 0.9})
    table = pass_1(tables.differences(made))
    assert table.loc["sft-label", "value"] > 0 and not table.loc["sft-label", "clear"]
    assert table.loc["rft", "clear"]
    text = texts.finding(made, tables.differences(made))
    assert "above zero-shot: rft" in text and "not distinguishable from zero-shot: sft-label" in text


def test_what_is_clear_alone_may_not_be_among_several(study):
    """Holm: the more arms are compared, the more evidence each needs."""
    alone = study(SIZES, {"zero-shot": 0.5, "rft": 0.56})
    among = study(SIZES, {"zero-shot": 0.5, "rft": 0.56, "upft": 0.5, "sft-label": 0.5})
    p, corrected = pass_1(tables.differences(alone)), pass_1(tables.differences(among))
    assert p.loc["rft", "p"] == p.loc["rft", "p_holm"] == corrected.loc["rft", "p"] < 0.05
    assert corrected.loc["rft", "p_holm"] == pytest.approx(3 * p.loc["rft", "p"])


def test_benchmarks_of_unlike_size_have_both_averages(study):
    table = tables.accuracy(study(SIZES, {"zero-shot": 0.5})).set_index(["metric", "benchmark"])["value"]
    easy, hard = table["pass@1", "easy"], table["pass@1", "hard"]
    assert table["pass@1", tables.AVERAGE] == pytest.approx((easy + hard) / 2)
    assert table["pass@1", tables.POOLED] == pytest.approx((40 * easy + 60 * hard) / 100)


def test_a_missing_response_stops_the_report(study):
    with pytest.raises(ValueError, match="zero-shot seed 0: responses"):
        tables.accuracy(study(SIZES, {"zero-shot": 0.5}, drop=1))


def test_power_is_stated_for_each_benchmark_and_their_average(study):
    table = tables.power(study(SIZES, {"zero-shot": 0.5}))
    assert table.index.tolist() == ["easy", "hard", tables.AVERAGE]
    independent = table["points, correlation 0"]
    assert independent["easy"] > independent["hard"] > independent[tables.AVERAGE] > 0


def test_a_study_of_one_arm_has_nothing_to_compare(study):
    made = study(SIZES, {"zero-shot": 0.5})
    assert tables.differences(made).empty and texts.differences(tables.differences(made)).empty
    assert "nothing to compare" in texts.finding(made, tables.differences(made))


def test_a_tiny_p_is_not_printed_as_none(study):
    shown = texts.differences(tables.differences(study(SIZES, {"zero-shot": 0.1, "rft": 0.9})))
    assert (shown[shown["test"] == "exact McNemar"]["p"] == "< 0.0001").all()
