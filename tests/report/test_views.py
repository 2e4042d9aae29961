"""Tables and sentences as a reader sees them: percent, points, units in the headings, no name of a program."""

import re

import pandas as pd
import pytest

from palign.arms import ARMS
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
    assert re.search(r"`p-align` reaches \d+\.\d % \[.*\] in Pass@1 and \d+\.\d % \[.*\] in Pass@3", text)
    above = re.search(r"(\d+\.\d) points above and \d+\.\d points above .*training on whole traces", text)
    assert 20 < float(above[1]) < 40
    assert text.count("is that of `p-align`") == 1
    assert "Clearly above zero-shot: `sft-long-cot`, `p-align`." in text


def test_p_align_below_whole_traces_is_said_to_be_below(study):
    text = finding(study(SIZES, SKILLS | {"p-align": 0.4, "sft-long-cot": 0.9}))
    assert "points below" in text and "points above" not in text and "is that of `sft-long-cot`" in text


def test_a_difference_to_whole_traces_that_is_not_clear_says_so(study):
    assert "(not clear)" in finding(study(SIZES, SKILLS | {"sft-long-cot": 0.9}))


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
    assert list(found) == ["Pass@1, %", "Pass@3, %", "tokens a response", "beside zero-shot", "trained on"]
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
    assert {"Pass@1, points", "Tokens a response"} <= measures


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
    shown = views.monotone(found).frame[""]
    assert shown.to_dict() == {
        "steps that turn back, %": "5.0 [1.0, 10.0]",
        "Equation 7's search lands on the oracle, %": "50.0 [40.0, 60.0]",
        "AUC of the margin, oracle": "0.99 [0.90, 1.00]",
        "the released search from the first ENOUGH, sentences": "0.10",
    }


def test_an_empty_table_shows_nothing():
    assert repr(display.table(pd.DataFrame())).startswith("Empty DataFrame") and not display.table(pd.DataFrame()).html
