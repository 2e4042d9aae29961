"""A claim is judged by an interval and a corrected test, and where the study cannot tell, it says so."""

import numpy as np
import pandas as pd
import pytest

from palign.report import ledger

SIZES = {"easy": 60, "hard": 60}


@pytest.fixture(autouse=True)
def no_pairs(monkeypatch):
    monkeypatch.setitem(ledger._RULES, "filter-keeps", lambda study: "made up")


def verdicts(table, claim):
    return dict(table[table["claim"] == claim][["metric", "verdict"]].itertuples(index=False))


OVER_LONG = "P-ALIGN beats training on whole traces"


def test_a_clear_gain_reproduces_and_its_mirror_contradicts(study):
    won = ledger.table(study(SIZES, {"p-align": 0.8, "sft-long-cot": 0.4}))
    lost = ledger.table(study(SIZES, {"p-align": 0.4, "sft-long-cot": 0.8}))
    assert set(verdicts(won, OVER_LONG).values()) == {ledger.REPRODUCED}
    assert set(verdicts(lost, OVER_LONG).values()) == {ledger.CONTRADICTED}
    rows = [table[table["claim"] == OVER_LONG].set_index("metric") for table in (won, lost)]
    assert rows[0]["value"].to_dict() == pytest.approx((-rows[1]["value"]).to_dict())


def test_arms_alike_are_not_distinguishable(study):
    table = ledger.table(study(SIZES, {"p-align": 0.5, "sft-long-cot": 0.5}))
    assert set(verdicts(table, OVER_LONG).values()) == {ledger.OPEN}


def test_what_the_study_lacks_is_not_tested_and_says_what(study):
    table = ledger.table(study(SIZES, {"p-align": 0.8, "sft-long-cot": 0.4})).set_index("claim")
    row = table.loc["P-ALIGN beats training on the first 32 tokens (UPFT)"]
    assert row["verdict"] == ledger.UNTESTED and row["note"] == "the study has no upft"
    assert table.loc["P-ALIGN improves other students too", "verdict"] == ledger.UNTESTED


def test_the_published_judges_are_stood_in_for_by_name(study):
    table = ledger.table(study(SIZES, {"p-align": 0.8, "p-align-other-judge": 0.8})).set_index("claim")
    rows = table.loc["The student judges better than DeepSeek-R1"]
    assert set(rows["note"]) == {"p-align-other-judge stands for p-align-deepseek-judge"}


def test_a_judge_that_is_never_wrong_refutes_no_claim_about_one_that_errs(study):
    table = ledger.table(study(SIZES, {"p-align": 0.4, "p-align-oracle": 0.8})).set_index("claim")
    assert table.loc["The student judges better than DeepSeek-R1", "verdict"] == ledger.UNTESTED


def test_claims_that_are_not_tested_stand_behind_a_click_and_are_counted(study):
    table = ledger.table(study(SIZES, {"p-align": 0.8, "sft-long-cot": 0.4}))
    open_ = ledger.shown(table).html.partition("<details>")[0]
    assert OVER_LONG in open_ and ledger.UNTESTED not in open_
    tested = table[table["verdict"] != ledger.UNTESTED]
    assert ledger.text(table).startswith(
        f"This study tests {tested['claim'].nunique()} of the paper's {table['claim'].nunique()} claims in "
        f"{len(tested)} comparisons"
    )


def test_one_other_judge_stands_for_one_published_judge(study):
    """Two rows of the ledger held the same comparison, and both counted as claims that were tested."""
    arms = {"p-align": 0.8, "p-align-other-judge": 0.5, "p-align-oracle": 0.5}
    made = study(SIZES, arms)
    table = ledger.table(made).set_index("claim")
    one, other = (table.loc[f"The student judges better than {name}"] for name in ("DeepSeek-R1", "GLM"))
    assert set(one["note"]) == {"p-align-other-judge stands for p-align-deepseek-judge"}
    assert other["verdict"] == ledger.UNTESTED
    assert other["note"] == "the study has one other judge; p-align-other-judge stands for p-align-deepseek-judge"
    tested = table.dropna(subset="p_holm")
    assert not tested.duplicated(["metric", "value", "low", "high"]).any()
    assert tested.loc[one.index, "p_holm"].max() < 0.05


def test_an_arm_with_missing_responses_gets_no_verdict(study):
    """377 of 750 requests had failed and counted as wrong answers: the arm they belonged to was clearly worse."""
    arms = {"p-align": 0.8, "sft-long-cot": 0.8, "sft-label": 0.3}
    table = ledger.table(study(SIZES, arms, missing={"sft-long-cot": 180})).set_index("claim")
    for claim in (OVER_LONG, "P-ALIGN's responses are shorter than those after training on whole traces"):
        row = table.loc[claim]
        assert row["verdict"] == ledger.UNTESTED
        assert row["note"] == "50.0 % of the responses of sft-long-cot are missing"
    assert set(table.loc["P-ALIGN beats training on the answer alone", "verdict"]) == {ledger.REPRODUCED}


def test_a_filter_whose_continuations_are_missing_is_not_judged(study, monkeypatch):
    made = study(SIZES, {"p-align": 0.8})
    pairs = pd.DataFrame({"finish": ["stop"] * 95 + ["endpoint error"] * 5, "kept": [True] * 95 + [False] * 5})
    monkeypatch.setattr(type(made), "pairs", lambda study, strategy="adaptive": pairs)
    assert ledger._retention(made) == "5.0 % of the continuations are missing"
    answered = pairs[:95]
    monkeypatch.setattr(type(made), "pairs", lambda study, strategy="adaptive": answered)
    (found,) = ledger._retention(made)
    assert found.low > 0 and found.n == 95


def test_seeds_that_differ_much_reproduce_nothing(study):
    skills = {"p-align": (0.5, 0.55, 0.75), "sft-long-cot": (0.5, 0.5, 0.5)}
    table = ledger.table(study({"easy": 300, "hard": 300}, skills, seeds=(0, 1, 2))).set_index(["claim", "metric"])
    row = table.loc[OVER_LONG, "pass@1"]
    assert row["value"] > 5 and row["low"] < 0 and row["verdict"] == ledger.OPEN and row["n"] == 600


def test_shorter_responses_are_paired_by_problem(study):
    table = ledger.table(study(SIZES, {"p-align": 0.8, "sft-long-cot": 0.4}))
    (row,) = table[table["unit"] == "tokens"].itertuples()
    assert row.verdict == ledger.REPRODUCED and row.low < row.value < row.high and row.n == 120
    assert row.value == pytest.approx(40 + np.mean([i % 7 for i in range(60)]))


def test_printed_gains_stand_beside_ours_and_power_beside_both(study):
    table = ledger.table(study(SIZES, {"p-align": 0.8, "sft-long-cot": 0.4})).set_index(["claim", "metric"])
    row = table.loc[(OVER_LONG, "pass@1")]
    assert row["printed"] == pytest.approx((3.69 + 2.80) / 2, abs=0.01)
    assert 5 < row["detectable"] < 30


def test_a_linear_scan_is_compared_with_a_binary_search_and_not_with_itself(study, monkeypatch):
    """With ``search: linear`` the adaptive prefixes are a scan too: their verdicts were compared with themselves."""
    assert "no linear scan" in ledger._calls(study(SIZES, {"p-align": 0.5}))
    made, scan = study(SIZES, {"p-align": 0.5, "p-align-no-binary-search": 0.5}), pd.Series({"a": 9, "b": 12, "c": 8})
    monkeypatch.setattr(ledger.tables, "calls", lambda study: {"linear scan": scan})
    assert "no binary search" in ledger._calls(made)
    monkeypatch.setattr(ledger.tables, "calls", lambda study: {"linear scan": scan, "binary search": scan - [5, 7, 6]})
    (found,) = ledger._calls(made)
    assert found.value == 6 and found.low > 0
