"""A sentence names who judged and claims no more than the table it is made from."""

import pandas as pd
import pytest

from palign.analysis import preference
from palign.params import Params
from palign.report import texts
from palign.report.results import Results

ARMS = ["p-align", "sft-label"]


def preferences(outcome: str) -> pd.DataFrame:
    """Eight problems with the same outcome for p-align."""
    first, second = {"win": ("A", "B"), "inconsistent": ("A", "A")}[outcome]
    records = [
        {"arm": "p-align", "against": "sft-label", "benchmark": "set", "problem": str(i)}
        | {"first": first, "second": second, "outcome": outcome}
        for i in range(8)
    ]
    return preference.table(records, ARMS)


@pytest.fixture
def study():
    return Results(Params(arms=ARMS))


def test_a_section_of_what_the_study_lacks_shows_nothing(study):
    """It said "asks no judge" above the description of the judge; the page names the sections that it leaves out."""
    assert texts.paragraph(texts.preferred(study, preference.table([], ARMS))) is None
    assert texts.paragraph(texts.answers(study)) is None


def test_a_study_of_the_pocket_world_says_what_it_varies(study):
    """Ten reports had one title and one lead, whatever they varied."""
    assert texts.varied(study.params) == texts.varied(Params(study="mine", training_seeds=[0, 1, 2])) == ""
    text = texts.varied(Params(student="palign/pocket/student-deep", num_train_epochs=12.0))
    assert text == "**Unlike the pocket study**: student student-deep instead of student; epochs 12 instead of 3."
    assert texts.varied(Params(student="hub/other", num_train_epochs=1.0)) == ""


def test_a_preference_is_told_with_its_judge_and_its_problems(study):
    text = texts.preferred(study, preferences("win"))
    assert text.startswith("The judge (scripted rubric, not a model) saw each pair's responses to 8 problems.")
    assert "prefers `p-align` over `sft-label` (100)" in text


def test_a_judge_that_always_prefers_the_first_prefers_no_arm(study):
    assert "no preference beyond chance" in texts.preferred(study, preferences("inconsistent"))


def test_the_worked_case_repeats_nothing_that_its_picture_shows(study, monkeypatch):
    """Question, trace and prefix stood in the picture and once more below it."""
    case = {
        "question": "Which?",
        "answer": "4",
        "continuation": "So four.",
        "prefix": "One. Two. Three. Four.",
        "of": 9,
    }
    monkeypatch.setattr(texts, "worked_case", lambda _: case)
    assert texts.case(study) == "**The student continues**\n\n    So four.\n\n**Gold answer**\n\n    4"
    case |= {"question": "Which" * 40, "of": texts.MOST_LINES + 1}  # more than the picture has place for
    long = texts.case(study)
    assert case["question"] in long and "Two. Three. Four" in long and "One" not in long


def test_a_rounded_zero_has_no_sign():
    """``[-0.0, +4.8]`` looks like a bound below zero."""
    assert texts.cell(2.4, -0.01, 4.8, "{:+.1f}") == "+2.4 [0.0, +4.8]"
    assert texts.cell(-0.6, -1.2, -0.04) == "-0.6 [-1.2, 0.0]"
