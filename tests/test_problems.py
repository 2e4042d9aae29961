"""Data sets are read whole or refused by name and row; rows that cannot be used are counted, never lost silently."""

import json

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import problems, traces
from palign.params import Benchmark, validate
from palign.problems import DataError, gold_answer
from palign.report import tables
from palign.report.results import Results
from palign.tasks.plan import Plan
from tests.conftest import write_jsonl

ROW = {"question": "What is 1+1?", "answer": "2", "trace": "One. Two."}


def collect(project, records, **values):
    write_jsonl(project / "data.jsonl", records)
    return traces.collect(validate({"study": "t", "training_data": "data.jsonl", **COLUMNS, **values}, "test"))


COLUMNS = {"training_columns": {"question": "question", "answer": "answer", "trace": "trace"}}


def test_gold_answer_travels_with_the_trace(project):
    (trace,) = collect(project, [ROW])
    assert (trace.question, trace.answer, trace.trace) == ("What is 1+1?", "2", "One. Two.")


@pytest.mark.parametrize(
    "value, gold",
    [
        ("025", "025"),
        (142.0, "142"),
        (7, "7"),
        ("Hence $x=\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{1}, no, \\boxed{2}", "2"),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_gold_answers_of_every_kind_of_column(value, gold):
    assert gold_answer(value) == gold


def test_a_truncated_last_line_is_named(project):
    (project / "data.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW)[:20])
    params = validate({"study": "t", "training_data": "data.jsonl", **COLUMNS}, "test")
    with pytest.raises(DataError, match=r"data\.jsonl: line 2 is not a JSON object"):
        traces.collect(params)
    assert not Plan(params).traces.folder.path.exists()


def test_a_missing_column_is_named_beside_those_there_are(project):
    with pytest.raises(DataError, match=r"no column trace; it has question, answer"):
        collect(project, [{"question": "q", "answer": "1"}])


def test_a_repeated_question_is_counted_and_its_first_row_kept(project):
    """s1K repeats one question, which stopped the study."""
    again = {**ROW, "question": " What is\n1+1? ", "answer": "3"}
    (trace,) = collect(project, [ROW, again, {**ROW, "question": None}, {**ROW, "question": " "}])
    assert trace.answer == "2"
    params = validate({"study": "t", "training_data": "data.jsonl", **COLUMNS}, "test")
    manifest = Plan(params).traces.folder.manifest()
    assert manifest["excluded"] == {"repeats an earlier question": 1, "no question": 2} and manifest["rows"] == 4
    account = tables.account(Results(params))
    assert account.loc[("rows", "left out: repeats an earlier question"), "count"] == 1


@given(st.lists(st.sampled_from(["a", "b", " b", "c d", "c  d\n"])))
def test_of_each_question_the_first_row_is_kept(questions):
    first, repeats = problems.without_repeats([{"question": question, "n": n} for n, question in enumerate(questions)])
    words = [" ".join(question.split()) for question in questions]
    assert [row["n"] for row in first] == [words.index(word) for word in dict.fromkeys(words)]
    assert len(first) + len(repeats) == len(questions)


def test_a_benchmark_with_a_question_twice_is_refused_by_row(project):
    with pytest.raises(DataError, match="rows 1 and 2 have the same question"):
        benchmark(project, [ROW, ROW], 2)


def test_the_same_id_twice_is_refused_by_row(project):
    columns = {"training_columns": {**COLUMNS["training_columns"], "id": "key"}}
    with pytest.raises(DataError, match="rows 1 and 2 have the same id 'a'"):
        collect(project, [{**ROW, "key": "a"}, {**ROW, "question": "other", "key": "a"}], **columns)


def test_rows_that_cannot_be_used_are_left_out_and_counted(project):
    records = [ROW, {**ROW, "question": "b", "trace": ""}, {**ROW, "question": "c", "answer": None}]
    assert len(collect(project, records)) == 1
    params = validate({"study": "t", "training_data": "data.jsonl", **COLUMNS}, "test")
    manifest = Plan(params).traces.folder.manifest()
    assert (manifest["rows"], manifest["kept"]) == (3, 1)
    assert manifest["excluded"] == {"no trace": 1, "no answer": 1}


def test_a_data_set_with_nothing_usable_is_refused(project):
    with pytest.raises(DataError, match="no usable row of 1"):
        collect(project, [{**ROW, "trace": " "}])


def test_a_missing_file_is_not_taken_for_a_hub_id(project):
    params = validate({"study": "t", "training_data": "nowhere.jsonl", **COLUMNS}, "test")
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        traces.collect(params)


def test_parquet_and_other_columns_load_by_params_alone(project):
    datasets.Dataset.from_list([{"problem": "q1", "solution": "so \\boxed{3}", "r1": "A. B."}]).to_parquet(
        str(project / "hub.parquet")
    )
    columns = {"question": "problem", "answer": "solution", "trace": "r1"}
    params = validate({"study": "t", "training_data": "hub.parquet", "training_columns": columns}, "test")
    (trace,) = traces.collect(params)
    assert (trace.question, trace.answer, trace.trace) == ("q1", "3", "A. B.")


def benchmark(project, records, count):
    write_jsonl(project / "b.jsonl", records)
    return problems.load_benchmark(Benchmark(name="b", data="b.jsonl", problems=count))[0]


def test_a_benchmark_of_another_size_is_refused(project):
    with pytest.raises(DataError, match="1 problems, the params file says 30"):
        benchmark(project, [ROW], 30)


def test_a_benchmark_problem_without_an_answer_is_refused_by_row(project):
    with pytest.raises(DataError, match="row 2: empty question or answer"):
        benchmark(project, [ROW, {"question": "b", "answer": ""}], 2)


def test_training_on_a_test_question_is_refused(project):
    trained = collect(project, [ROW])
    with pytest.raises(DataError, match="is problem 9 of benchmark b"):
        problems.check_disjoint(trained, [{"benchmark": "b", "id": "9", "question": "What  is 1+1?\n"}])
    problems.check_disjoint(trained, [{"benchmark": "b", "id": "9", "question": "Other?"}])


def test_an_empty_file_is_said_to_be_empty(project):
    """It was "cannot be loaded: ", without a reason."""
    for name in ("a.jsonl", "a.csv", "a.json"):
        (project / name).write_text("\n \n")
        with pytest.raises(DataError, match=rf"^{name}: empty; it needs one row for each problem$"):
            problems.load_rows(name, "train", None, {})
