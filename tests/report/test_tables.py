"""The report claims what an interval and a corrected test support, and counts before it computes."""

import pytest

from palign.params import Params
from palign.report import tables, texts, views
from palign.report.results import Results
from palign.tasks.plan import Task

SIZES = {"easy": 40, "hard": 60}


def pass_1(table):
    return table[table["metric"] == "pass@1"].set_index("arm")


def finding(made):
    return texts.finding(made, tables.accuracy(made), tables.differences(made)).replace("`", "")


def test_a_difference_inside_its_interval_is_not_called_one(study):
    made = study(SIZES, {"zero-shot": 0.5, "sft-label": 0.51, "rft": 0.9})
    table = pass_1(tables.differences(made))
    assert table.loc["sft-label", "value"] > 0 and not table.loc["sft-label", "clear"]
    assert table.loc["rft", "clear"]
    text = finding(made)
    assert "above zero-shot: rft" in text.lower() and "not distinguishable from zero-shot: sft-label" in text


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
    assert tables.differences(made).empty and not views.differences(tables.differences(made)).html
    assert "nothing to compare" in finding(made)


def test_a_tiny_p_is_not_printed_as_none(study):
    shown = views.differences(tables.differences(study(SIZES, {"zero-shot": 0.1, "rft": 0.9}))).frame
    assert (shown["p", ""] == "< 0.0001").all()


MISSING = {"zero-shot": 0.5, "rft": 0.5, "upft": 0.9}


def test_missing_responses_are_told_first_and_decide_nothing(study):
    """Of 750 responses 377 had failed: the table said 49.7 % [46.4, 53.1] and no word of it."""
    made = study(SIZES, MISSING, missing={"rft": 150})
    table = tables.accuracy(made).set_index(["arm", "metric", "benchmark"]).sort_index()
    row = table.loc["rft", "pass@1", "pooled"]
    assert row["missing"] == 150 and row["n"] == 100 and row["at_most"] - row["at_least"] == pytest.approx(0.5)
    assert row["at_least"] < 0.3 < row["low"] < row["value"] < row["high"] < 0.7 < row["at_most"]
    assert (table.loc["upft", "missing"] == 0).all() and (
        table.loc["upft", "at_least"] == table.loc["upft", "value"]
    ).all()
    differences = tables.differences(made)
    found = pass_1(differences)
    assert found.loc["rft", "test"] == tables.UNTESTED and not found.loc["rft", "clear"] and found.loc["upft", "clear"]
    assert found.loc["upft", "p_holm"] == found.loc["upft", "p"], "an arm that is not tested counts in no correction"
    text = finding(made)
    assert text.startswith("**Responses are missing**") and "rft 150 of 300 (50.0 %)" in text
    assert "The first: endpoint error: HTTP 401: no such key." in text
    assert "not tested against zero-shot: rft" in text and "above zero-shot: upft" in text
    shown = views.accuracy(tables.accuracy(made)).frame
    assert shown.loc["rft", ("missing", "responses")] == "150"
    clear = views.differences(differences).frame["clear", ""]
    assert clear.xs("rft", level="arm").unique().tolist() == [tables.UNTESTED]
    table = views.lead(tables.accuracy(made), differences, tables.responses(made)).frame
    assert table["beside zero-shot"].to_dict() == {"upft": "above", "rft": "not tested", "zero-shot": ""}


def test_one_missing_response_in_a_hundred_is_tolerated_and_shown(study):
    made = study(SIZES, MISSING, missing={"rft": 3})
    assert tables.accuracy(made).query("arm == 'rft'")["missing"].max() == 3 and texts.missing(made) == ""
    assert "not tested" not in finding(made)
    assert ("missing", "responses") in views.accuracy(tables.accuracy(made)).frame.columns


def test_an_arm_that_never_answered_has_no_accuracy(study):
    made = study(SIZES, MISSING, missing={"rft": 300})
    row = tables.accuracy(made).set_index(["arm", "metric", "benchmark"]).loc["rft", "pass@1", "average"]
    assert row[["value", "low", "high"]].isna().all() and (row["at_least"], row["at_most"]) == (0, 1)
    assert views.accuracy(tables.accuracy(made)).frame.loc["rft", ("pass@1", "average")] == ""
    assert tables.responses(made).loc["rft", "missing"] == 300 and tables.grading(made).loc["rft", "answered"] == 0
    assert "not tested against zero-shot: rft" in finding(made)


def test_responses_behave_as_the_answered_ones_do(study):
    """A failed request has no box and no tokens: it made responses shorter and boxes rarer."""
    made = study(SIZES, MISSING, missing={"rft": 150})
    table, graded = tables.responses(made), tables.grading(made)
    assert (
        table.loc["rft", "no_box"] == 0 and table.loc["rft", "tokens_mean"] > 80 and table.loc["rft", "missing"] == 150
    )
    assert graded.loc["rft", ["never answered", "answered", "no box"]].tolist() == [150, 150, 0]


def test_seeds_that_differ_much_leave_a_difference_open(study):
    """UPFT "+5.7 [3.6, 7.9], clear" with three seeds that spanned ten points."""
    skills = {"zero-shot": 0.5, "rft": (0.5, 0.55, 0.7), "upft": (0.7, 0.7, 0.71)}
    made = study({"easy": 300, "hard": 300}, skills, seeds=(0, 1, 2))
    found = pass_1(tables.differences(made))
    assert found.loc["rft", "value"] > 0.05 and found.loc["rft", "low"] < 0 and not found.loc["rft", "clear"]
    assert found.loc["upft", "clear"]
    rows = tables.averages(tables.accuracy(made))
    spread = tables.seeds(made, tables.accuracy(made))
    assert spread.loc["rft", ["seed 0", "seed 1", "seed 2"]].mean() == pytest.approx(rows.loc["rft", "value"])
    width = rows["high"] - rows["low"]
    assert width["rft"] > 2 * width["upft"], "an interval contains the spread between seeds"


def test_a_study_of_one_seed_says_what_its_intervals_leave_out(study):
    one, several = (study(SIZES, {"zero-shot": 0.5, "rft": 0.5}, seeds=seeds) for seeds in ((0,), (0, 1)))
    assert "spread between training runs is not in the intervals" in finding(one)
    assert "without the spread between training seeds" in texts.samples(one)
    several = study(SIZES, {"zero-shot": 0.5, "rft": (0.5, 0.5)}, seeds=(0, 1))
    assert "training runs" not in finding(several)
    assert texts.samples(several).endswith("intervals are over problems and seeds")


@pytest.fixture
def searched(monkeypatch):
    """A study of p-align and a linear scan whose prefixes and pairs are made up, as the records state them."""

    def prefix(i: int, verdicts: int, ahead: int, unparsed: int) -> dict:
        labels = ["NOT_ENOUGH"] * (verdicts - 1) + ["ENOUGH"]
        return {"id": str(i), "question": "q", "answer": "1", "status": "ok", "prefix": "p", "sentences": verdicts} | {
            "of": 10,
            "room": 10,
            "sufficient": True,
            "verdicts": [[p + 1, label, None] for p, label in enumerate(labels)],
            "unparsed": unparsed,
            "oracle_sentences": 3,
            "prefix_tokens": 10 * verdicts,
            "trace_tokens": 100,
            "tokens_read": 10 * (verdicts + ahead),
            "tokens_demanded": 5 * (verdicts + ahead),
            "tokens_of_prompts": 50 * (verdicts + ahead),
            "tokens_generated": 0,
        }

    def pair(i: int, outcome: str, finish: str) -> dict:
        return {"id": str(i), "question": "q", "prefix": "p", "continuation": "c", "answer": "1", "new_tokens": 9} | {
            "prompt_tokens": 20,
            "outcome": outcome,
            "finish": finish,
        }

    def read(task, name):
        if name == "prefixes":
            return [prefix(i, 3, 5, 0) if task.variant == "linear" else prefix(i, 2, 0, i % 2) for i in range(8)]
        assert (task.stage, name) == ("alignment", "pairs")
        ends = [("right", "stop")] * 5 + [("right", "length"), ("wrong", "stop"), ("endpoint error", "endpoint error")]
        return [pair(i, *end) for i, end in enumerate(ends)]

    monkeypatch.setattr(Task, "read", read)
    values = {"sufficiency_samples": 0, "judged_traces": 0, "entropy_traces": 0}
    return Results(Params(arms=["p-align", "p-align-no-binary-search"], **values))


def test_a_scans_look_ahead_costs_tokens_and_no_verdicts(searched):
    """Its blocks of eight were counted as calls: 12.95 verdicts a trace where 8.9 were needed."""
    table = tables.strategies(searched)
    assert table.loc["linear", "verdicts a trace"] == 3 and table.loc["linear", "tokens read a trace"] == 8 * 15
    assert table.loc["adaptive", "verdicts a trace"] == 2 and table.loc["adaptive", "tokens read a trace"] == 2 * 15
    assert {name: calls.mean() for name, calls in tables.calls(searched).items()} == {
        "binary search": 2,
        "linear scan": 3,
    }


def test_verdicts_without_a_label_stand_beside_the_judges_numbers(searched):
    assert tables.truncation(searched).loc["verdicts without a label", "value"] == 4
    assert tables.judge(searched).loc["without a label, read as NOT_ENOUGH", "value"] == 4
    shares = tables.strategies(searched)["of them without a label"]
    assert shares["adaptive"] == 4 / 16 and shares["linear"] == 0


def test_a_continuation_that_its_budget_cut_is_counted_as_such(searched):
    """It was kept and trained on, with an end put after half a loop."""
    row = tables.retention(searched).loc["adaptive"]
    assert row[["right", "right, but cut", "wrong", "endpoint error"]].tolist() == [5, 1, 1, 1] and row["pairs"] == 8
    assert row["retention"] == pytest.approx(5 / 7, abs=1e-3), "of the pairs that were answered"
    table = tables.truncation(searched)["value"]
    assert table[["never answered", "right, but cut by the budget", "kept by the filter"]].tolist() == [1, 1, 5]
    assert table["retention"] == tables.kept(searched).value == 5 / 7


def test_training_rows_that_max_length_left_out_are_shown(monkeypatch):
    facts = {"seconds": 1, "tokens_read": 5, "tokens_generated": 5, "tokens_trained": 7, "rows": 90, "updates": 3}
    facts |= {"epochs": 3, "rows_left_out": 8, "rows_cut": 2, "trainer": "trl", "longest_row_tokens": 9}

    class Folder:
        def manifest(self):
            return facts

    monkeypatch.setattr(Task, "require", lambda task: Folder())
    params = Params(arms=["sft-label", "sft-long-cot"], training_seeds=[0, 1], preference_judge=None)
    table = tables.costs(Results(params))
    assert table.loc["finetuning/sft-label", ["rows", "rows_left_out", "rows_cut"]].tolist() == [90, 8, 2]
