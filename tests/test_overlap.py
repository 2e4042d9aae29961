"""Training and test questions that share words in a row are found, shown, and left out if the params say so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import overlap, problems, supervision, traces
from palign.params import validate
from palign.report import tables
from palign.report.results import Results
from palign.report.texts import left_out
from palign.report.views import setting
from palign.tasks.plan import Plan
from tests.conftest import write_jsonl

texts = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


def brute(a: str, b: str, n: int) -> bool:
    def runs(text):
        words = text.split()
        return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()

    return bool(runs(a) & runs(b))


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4), st.integers(1, 5))
def test_the_index_finds_what_comparing_all_pairs_finds(training, tests, n):
    found = {(a, b) for a, b, *_ in overlap.shared_ngrams(training, tests, n)}
    assert found == {(i, j) for i, a in enumerate(training) for j, b in enumerate(tests) if brute(a, b, n)}


@given(texts, texts, st.integers(1, 5))
def test_sharing_a_longer_run_means_sharing_a_shorter_one(a, b, n):
    longer = overlap.shared_ngrams([a], [b], n + 1)
    if longer and len(longer[0][3].split()) == n + 1:
        assert overlap.shared_ngrams([a], [b], n)


def test_case_and_punctuation_do_not_hide_an_overlap():
    (pair,) = overlap.shared_ngrams(["Find -- the SUM, of all x!"], ["find the sum of all x"], 6)
    assert pair == (0, 0, 1, "find the sum of all x")


def test_a_short_question_asked_again_is_found():
    """Otherwise a test question shorter than the run would not be found, even word for word."""
    assert overlap.shared_ngrams(["What is 1+1?"], ["what is 1+1"], 13)


LONG = "Each morning a gardener waters three rows of eleven young trees and one hedge"


@pytest.fixture
def leaking(project):
    row = {"answer": "2", "trace": "One. Two."}
    write_jsonl(project / "train.jsonl", [{"question": f"{LONG}. How many trees?", **row}, {"question": "1+1?", **row}])
    write_jsonl(project / "test.jsonl", [{"question": f"{LONG}; how high?", "answer": "3"}])
    return {
        "study": "leak",
        "training_data": "train.jsonl",
        "training_columns": {"question": "question", "answer": "answer", "trace": "trace"},
        "benchmarks": [{"name": "b", "data": "test.jsonl", "problems": 1}],
    }


def test_overlapping_questions_are_listed_and_left_out_by_a_switch(leaking):
    params = validate(leaking, "test")
    problems.collect_benchmarks(params)
    trained = traces.collect(params)
    assert len(trained) == 2
    assert [(pair["n"], pair["training"]) for pair in overlap.find(params)] == [(8, trained[0].id), (13, trained[0].id)]
    table = tables.overlap(Results(params)).set_index("words in a row")
    assert table["pairs"].to_dict() == {8: 1, 13: 1} and table["of these overlapping"].to_dict() == {8: 1, 13: 1}
    listing = tables.overlapping(Results(params))
    assert listing["n"].tolist() == [13, 8] and listing["example"].iloc[0] == " ".join(LONG.lower().split()[:13])

    dropping = validate({**leaking, "drop_overlap": 13}, "test")
    assert Plan(dropping).traces.key != Plan(params).traces.key
    problems.collect_benchmarks(dropping)
    assert [trace.question for trace in traces.collect(dropping)] == ["1+1?"]
    excluded = Plan(dropping).traces.folder.manifest()["excluded"]
    assert excluded == {"shares 13 words with a test question": 1}
    assert overlap.find(dropping) == []
    assert tables.overlap(Results(dropping))["pairs"].sum() == 0
    assert tables.overlapping(Results(dropping)).empty


@pytest.fixture
def twin(leaking, project):
    """Two training questions, one of which is the benchmark's too, but for white space."""
    write_jsonl(project / "test.jsonl", [{"question": "1+1?\n", "answer": "2"}])
    return validate(leaking | {"arms": ["sft-long-cot", "sft-label"]}, "test")


def test_a_question_that_stands_in_a_benchmark_is_counted_and_no_arm_learns_it(twin):
    """Two questions of s1K stand word for word in MATH-500, which stopped the study."""
    problems.collect_benchmarks(twin)
    learnt = traces.collect(twin)[0]
    overlap.find(twin)
    for arm in twin.arms:
        assert [row["id"] for row in supervision.build(twin, arm)] == [learnt.id]
    results = Results(twin)
    assert tables.account(results).loc[("in a benchmark, never trained on", "b"), "count"] == 1
    assert (
        setting(results).frame.loc["training questions left out", "value"]
        == "0 repeat an earlier one, 1 stand in a benchmark (b 1)"
    )


def test_only_a_benchmark_that_has_a_training_question_changes_what_is_trained(twin, leaking, project):
    """Otherwise each new benchmark would have every arm trained again."""
    plans = {}
    for name, question in {"new": "1+1?", "none": "2+2?"}.items():
        write_jsonl(project / f"{name}.jsonl", [{"question": question, "answer": "2"}])
        values = leaking | {"benchmarks": [{"name": name, "data": f"{name}.jsonl", "problems": 1}]}
        params = validate(values, "test")
        before = Plan(params)
        assert not before.steps()[-3].done and before.tested == {}
        problems.collect_benchmarks(params), traces.collect(params), overlap.find(params)
        plans[name] = (before, Plan(params))
    for name, changes in {"new": True, "none": False}.items():
        before, after = plans[name]
        assert (before.finetuning("sft-label").key != after.finetuning("sft-label").key) == changes
        assert before.traces.key == after.traces.key
        assert before.alignment("adaptive").key == after.alignment("adaptive").key
        assert before.evaluation("zero-shot").key == after.evaluation("zero-shot").key
        assert (before.evaluation("sft-label").key != after.evaluation("sft-label").key) == changes


def test_a_study_without_overlap_says_so_in_one_line(leaking):
    params = validate(leaking, "test")
    problems.collect_benchmarks(params), traces.collect(params), overlap.find(params)
    assert left_out(Results(params)) == "0 repeat an earlier one, 0 stand in a benchmark"
    assert "in a benchmark, never trained on" not in tables.account(Results(params)).index.get_level_values(0)


def test_other_test_questions_change_the_traces_only_where_they_decide_them(leaking):
    """Otherwise a new benchmark would have every prefix judged again."""
    others = {**leaking, "benchmarks": [{**leaking["benchmarks"][0], "name": "c"}]}
    for drop, same in ((0, True), (8, False)):
        a, b = (Plan(validate({**values, "drop_overlap": drop}, "test")).traces.key for values in (leaking, others))
        assert (a == b) == same
