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
    table = ledger.table(study(SIZES, {"p-align": 0.8, "p-align-oracle": 0.8})).set_index("claim")
    rows = table.loc["The student judges better than DeepSeek-R1"]
    assert set(rows["note"]) == {"p-align-oracle stands for p-align-deepseek-judge"}


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
