"""Tables and sentences as a reader sees them: percent, points, units in the headings, no name of a program."""

import re

import pandas as pd
import pytest

from palign.arms import ARMS
from palign.params import root
from palign.report import display, ledger, tables, texts, views

from .test_texts import preferences

SIZES = {"easy": 60, "hard": 60}
SKILLS = {"zero-shot": 0.3, "sft-long-cot": 0.6, "p-align": 0.9}


def finding(made):
    return texts.finding(made, tables.accuracy(made), tables.differences(made))


def lead(made):
    return views.lead(tables.accuracy(made), tables.differences(made), tables.responses(made))


def test_the_finding_says_what_p_align_reaches_and_how_far_it_is_from_whole_traces(study):
    text = finding(study(SIZES, SKILLS))
    above = re.search(r"reaches a Pass@1 of \d+\.\d % \[[^]]*\], (\d+\.\d) points above training on whole traces", text)
    assert re.search(r"Its Pass@3 is \d+\.\d % \[[^]]*\], \d+\.\d points above `sft-long-cot`\.", text)
    assert 20 < float(above[1]) < 40
    assert text.count("is that of `p-align`") == 1
    assert "Clearly above zero-shot: `sft-long-cot`, `p-align`." in text


def test_p_align_below_whole_traces_is_said_to_be_below(study):
    text = finding(study(SIZES, SKILLS | {"p-align": 0.4, "sft-long-cot": 0.9}))
    assert "points below" in text and "points above" not in text and "is that of `sft-long-cot`" in text


def test_a_difference_to_whole_traces_that_is_not_clear_says_so(study):
    assert ", which is not clear" in finding(study(SIZES, SKILLS | {"sft-long-cot": 0.9}))


@pytest.mark.parametrize(
    ("skills", "said", "not_said"),
    [
        ({"zero-shot": 0.5}, "only arm", "Pass@1"),
        ({"p-align": 0.5}, "`p-align` reaches", "highest"),
        ({"zero-shot": 0.5, "rft": 0.9}, "Clearly above zero-shot: `rft`", "p-align"),
        ({"zero-shot": 0.5, "p-align": 0.9}, "`p-align` reaches", "whole traces"),
        ({"rft": 0.5, "p-align": 0.5, "sft-long-cot": 0.9}, "not distinguishable from rft: `p-align`", "zero-shot"),
    ],
)
def test_a_study_of_any_arms_has_a_finding(study, skills, said, not_said):
    text = finding(study(SIZES, skills))
    assert said in text and not_said not in text


def test_of_many_arms_the_finding_gives_numbers_and_not_all_names(study):
    many = [arm for arm in ARMS if arm.startswith(("fixed-ratio", "segment"))]
    text = finding(study(SIZES, {"zero-shot": 0.2} | dict.fromkeys(many, 0.9)))
    assert "above zero-shot: all 8 arms." in text


def test_an_untested_arm_has_no_side_and_no_distance(study):
    made = study(SIZES, SKILLS, missing={"sft-long-cot": 180})
    assert "points above" not in finding(made) and "not tested against zero-shot: `sft-long-cot`" in finding(made)
    assert lead(made).frame.loc["sft-long-cot", "beside zero-shot"] == tables.UNTESTED


def test_the_first_table_has_a_row_for_each_arm_the_best_first(study):
    found = lead(study(SIZES, SKILLS)).frame
    assert list(found.index) == ["p-align", "sft-long-cot", "zero-shot"]
    assert list(found) == ["Pass@1, %", "Pass@3, %", "tokens per response", "beside zero-shot", "trained on"]
    assert found["trained on"].to_dict()["zero-shot"] == "nothing"


def test_of_many_arms_the_first_table_folds_and_keeps_the_main_ones_open(study):
    many = [arm for arm in ARMS if arm.startswith(("fixed-ratio", "segment"))]
    html = lead(study(SIZES, {"zero-shot": 0.2, "p-align": 0.3} | dict.fromkeys(many, 0.9))).html
    open_ = html.partition("<details>")[0]
    assert "All 10 rows" in html and ">zero-shot<" in open_ and ">p-align<" in open_ and ">segment-suffix<" not in open_


def test_accuracies_are_percent_in_groups_of_arms(study):
    shown = views.accuracy(tables.accuracy(study(SIZES, SKILLS | {"rft": 0.5})))
    assert "main arms" in shown.html and "controls" in shown.html and "Pass@1 in 256 tokens, %" in shown.html
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", shown.frame.loc["p-align", ("pass@1", "average")])


def test_differences_of_the_main_metric_stand_open_and_the_others_folded(study):
    html = views.differences(tables.differences(study(SIZES, SKILLS))).html
    open_, _, folded = html.partition("<details>")
    assert "Pass@1 in 256" in open_ and "Pass@3" not in open_ and "Pass@3 in 256" in folded


def test_preferences_have_a_row_for_each_pair_of_arms():
    assert list(views.preferences(preferences("win")).frame.index) == ["p-align over sft-label"]


def test_a_claim_is_named_once_and_its_unit_stands_beside_its_measure(study, monkeypatch):
    monkeypatch.setitem(ledger._RULES, "filter-keeps", lambda study: "no pairs are made up")
    shown = ledger.shown(ledger.table(study(SIZES, SKILLS))).frame
    names = [claim for _, claim in shown.index if claim]
    assert len(names) == len(set(names)) < len(shown)
    measures = set(shown["measure", ""])
    assert {"Pass@1, points", "Tokens per response"} <= measures


def test_shares_of_the_judge_are_percent_and_areas_are_not():
    found = pd.DataFrame(
        {"value": [0.05, 0.5, 0.99, 0.1], "low": [0.01, 0.4, 0.9, float("nan")], "high": [0.1, 0.6, 1.0, float("nan")]},
        [
            "steps that turn back (share)",
            "equation7 lands on the oracle",
            "AUC of the margin, oracle",
            "released from the first ENOUGH (sentences)",
        ],
    ).assign(n=60)
    shown = views.monotone(found).frame["value"]
    assert shown.to_dict() == {
        "steps that turn back, %": "5.0 [1.0, 10.0]",
        "traces on which Equation 7's search lands on the oracle, %": "50.0 [40.0, 60.0]",
        "AUC of the margin against the oracle": "0.990 [0.900, 1.000]",
        "distance of the released search from the first ENOUGH, sentences": "0.10",
    }


def test_the_tables_of_arms_have_one_order(study):
    """Responses and costs stood in the order of the params file, accuracies by value."""
    made = study(SIZES, SKILLS | {"sft-label": 0.7, "rft": 0.5})
    accuracies = tables.accuracy(made)
    averages = tables.averages(accuracies)["value"]
    order = list(views.accuracy(accuracies).frame.index)
    assert order == ["p-align", "sft-label", "sft-long-cot", "zero-shot", "rft"]
    for shown in (
        views.responses(tables.responses(made), averages),
        views.arms(tables.arms(made), averages),
        views.grading(tables.grading(made), averages),
    ):
        assert list(shown.frame.index) == order


def test_accuracies_of_one_metric_alone_and_of_an_absent_one_none(study):
    accuracies = tables.accuracy(study(SIZES, SKILLS))
    alone = views.accuracy(accuracies, "pass@3")
    assert set(alone.frame.columns.get_level_values(0)) == {"pass@3"}
    without = accuracies[accuracies["metric"] == "pass@1"]
    assert not views.accuracy(without, "pass@3").html


def test_each_tenth_of_a_trace_has_its_number_of_traces():
    """The column stood empty: its Series had an index of its own."""
    found = pd.DataFrame(
        {"value": [0.2, 0.042], "low": [0.1, 0.029], "high": [0.3, 0.056], "n": [200, 200]},
        pd.Index(["1", "last less first"], name="chunk"),
    )
    shown = views.entropy(found).frame
    assert shown["traces"].tolist() == ["200", "200"]
    assert shown.loc["last minus first", "entropy, nats"] == "+0.042 [+0.029, +0.056]"


def test_success_that_was_not_measured_has_no_column():
    found = pd.DataFrame(
        {"prefixes": [3, 4], "success rate": [float("nan")] * 2, "kept": [0.5, 0.7]},
        pd.IntervalIndex.from_breaks([0, 0.2, 0.4], name="prefix ratio"),
    )
    assert list(views.success(found).frame) == ["prefixes", "kept"]


def test_strategies_show_their_prefixes_and_their_pairs_each_where_there_are_any():
    """One table of both was wider than a page."""
    found = pd.DataFrame(
        {"arms": ["rft", "p-align", "essence-50"], "prefixes": [float("nan"), 320, 320]}
        | {"chosen": [None] * 3, "retention": [0.3, 0.7, float("nan")]},
        ["empty", "adaptive", "tokens-50"],
    )
    assert list(views.strategies(found).frame.index) == ["adaptive", "tokens-50"]
    pairs = views.pairs(found).frame
    assert list(pairs.index) == ["empty", "adaptive"] and ("chosen from", "") not in pairs


def test_the_rates_furthest_from_what_was_expected_stand_open():
    names = [f"response_tokens, {arm}" for arm in ARMS][:20]
    ratio = pd.Series(1.0, ["hours", *names])
    ratio[["hours", names[-1]]] = 0.3, 3.0
    found = pd.DataFrame({"predicted": ratio, "measured": 1.0, "ratio": ratio})
    open_ = views.rates(found).html.partition("<details>")[0]
    assert ">hours<" in open_ and f">{names[-1].replace('response_tokens', 'tokens per response')}<" in open_


def test_every_length_and_rate_that_a_report_measures_has_a_name():
    rows = {re.sub(r",.*", "", name) for name in pd.read_csv(root() / "reports/pocket/tables/rates.csv")["quantity"]}
    assert rows - {"hours"} <= set(views.QUANTITIES)


def test_an_empty_table_shows_nothing():
    assert repr(display.table(pd.DataFrame())).startswith("Empty DataFrame") and not display.table(pd.DataFrame()).html
