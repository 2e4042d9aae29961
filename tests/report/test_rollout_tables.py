"""What a reader of recorded rollouts sees: percent, points and counts, and a headline that the tables bear out."""

import numpy as np
import pandas as pd
import pytest

from palign.analysis import rollouts
from palign.analysis.rollouts import RECORDED, Rollouts, load
from palign.report import rollout_tables


@pytest.fixture(scope="module")
def table():
    return load(RECORDED)


def headline(table, draws=19):
    means, falls = rollouts.by_share(table), rollouts.monotone(table, draws=draws)
    behind = rollouts.behind(rollouts.enough_points(table))
    ends = rollouts.searches(rollouts.search_ends(table))
    return rollout_tables.finding(means, rollouts.fall(falls), behind, ends, 0.9)


def test_an_estimate_has_its_unit_and_no_bounds_that_are_none():
    """A table showed `nan` for bounds, "-0" for a difference, and shares beside counts."""
    rows = pd.DataFrame(
        [("a", "share", 0.5, 0.25, 0.75), ("a", "verdicts", 6.58, 6.26, 6.84), ("b", "share", -0.001, np.nan, np.nan)],
        columns=["search", "measure", "value", "low", "high"],
    )
    shown = rollout_tables.estimates(rows, ["search"]).frame
    assert list(shown.loc["a"]) == ["50 [25, 75]", "6.6 [6.3, 6.8]"] and shown.loc["b"].tolist() == ["0", ""]


def test_success_by_share_stands_with_its_bounds(table):
    shown = rollout_tables.means(rollouts.by_share(table)).frame
    assert shown.loc[("wrong traces", "100\N{NO-BREAK SPACE}%"), "gain over no prefix, points"] == "-61 [-76, -46]"
    assert shown["traces"].tolist() == ["19"] * 12


def test_names_of_the_data_are_words(table):
    shown = rollout_tables.estimates(rollouts.tags_around(table), ["tag"], "where")
    assert list(shown.frame) == ["before", "behind", "difference"]
    assert "active computation" in shown.html and "_computation" not in shown.html


def test_a_verdict_of_one_continuation_stands_once_whatever_the_threshold(table):
    ends = rollouts.searches(rollouts.search_ends(table))
    shown = rollout_tables.searches(ends, right=True).frame
    assert not shown.index.duplicated().any()
    assert sum("one drawn" in verdict for verdict, _ in shown.index) == 4


def test_the_headline_says_what_the_findings_say(table):
    text = headline(table).replace("\N{NO-BREAK SPACE}", " ")
    assert "rises by 21 [11, 31] points to 88 % [82, 93] with 30 % of the sentences" in text
    assert "62 % [48, 75] of a right trace" in text and "in 63 % [41, 81] of right traces" in text
    assert text.endswith(
        "On wrong traces success falls by 45 [29, 60] points to 20 % [10, 36] with half of the sentences."
    )


@pytest.mark.parametrize(
    ("right", "said", "not_said"), [(True, "On right", "On wrong"), (False, "On wrong", "On right")]
)
def test_a_file_of_one_kind_of_trace_has_a_headline_of_it(table, right, said, not_said):
    text = headline(table[table["right"] == right])
    assert said in text and not_said not in text


@pytest.mark.parametrize("where", ["reports/rollouts-pocket-prefixes/pocket-prefixes.csv", "mine.csv"])
def test_a_table_that_others_did_not_record_is_not_said_to_be_theirs(table, project, where):
    """The page of the pocket student's own rollouts spoke of real models, Bogdan et al. and two problems of theirs."""
    own = table.head(200)
    for params, said in ((Rollouts(), True), (Rollouts(rollouts=str(project / where)), False)):
        text = " ".join(part(params, own) for part in (rollout_tables.source, rollout_tables.limits))
        text += rollout_tables.gaps(params, own)
        assert [word in text for word in ("Bogdan", "MATH", "Llama-8B")] == [said] * 3
        assert ("pocket world" in text) == (params.of_pocket)


def test_a_file_without_right_traces_has_nothing_beside():
    assert not rollout_tables.beside({"wrong": pd.DataFrame(columns=["measure", "value", "low", "high", "n"])}).html
