"""Released outputs: what is counted in them, and which files are refused."""

import math

import pytest

from palign.paper import printed, released
from palign.problems import DataError
from palign.study.cli import main
from tests.conftest import write_jsonl

BLOCK = "<Begin_of_Draft>Two and two.. <End_of_Draft>So it is \\boxed{4}."
ROWS = [
    {"answer": "4", "output": [BLOCK, "<Begin_of_Draft>It is 4", "So \\boxed{5}..."], "label": [1, 1, 0]},
    {"answer": "7", "output": ["\\boxed{8}", "\\boxed{07}", "no idea"], "label": [0, 1, 0]},
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    path = write_jsonl(tmp_path_factory.mktemp("outputs") / "outputs.jsonl", ROWS)
    return released.load(printed.Audit(released=str(path)))


def test_a_released_response_is_read_as_it_stands(outputs):
    """An ellipsis is not a doubled full stop, and an open block is not a closed one."""
    table = outputs.responses
    assert table["closed"].tolist() == [True, False, False, False, False, False]
    assert (table["marker"] == "<Begin_of_Draft>").tolist() == [True, True, False, False, False, False]
    assert table["doubled"].tolist() == [1, 0, 0, 0, 0, 0] and table["doubled_after"].sum() == 0
    assert table.loc[0, "draft"] == pytest.approx(len("Two and two.. ") / len(BLOCK))
    assert table["strict"].tolist() == ["right", "no box", "wrong", "wrong", "right", "no box"]


def test_labels_without_a_final_answer_are_counted(outputs):
    table = released.labels(outputs)
    assert table.loc["no box", ["responses", "label right"]].tolist() == [2, 1]
    assert table.loc["all"].tolist() == [6, 3, 3]
    assert released.labels_text(outputs).startswith("1 of the 3 responses labelled right have no final answer")


def test_accuracy_is_given_sample_by_sample_beside_the_printed(outputs):
    table = released.accuracy(outputs)
    assert table["strict"].tolist() == [50, 50, 0, 33.33, 100]
    assert table["released label"].tolist() == [50, 100, 0, 50, 100]
    assert table["printed"].tolist() == [16.67] * 4 + [26.67]


def test_two_samples_that_give_the_printed_number_are_a_plural(tmp_path):
    """ "Sample 2 and sample 3 gives the printed Pass@1." """
    rows = [{"answer": "1", "output": [f"\\boxed{{{k}}}"] * 2, "label": [k == 1] * 2} for k in range(1, 7)]
    found = released.load(printed.Audit(released=str(write_jsonl(tmp_path / "o.jsonl", rows))))
    assert "sample 1 and sample 2 each give the printed Pass@1 of 16.67 %" in released.accuracy_text(found)


def test_only_a_files_name_and_hash_are_kept_never_its_path(outputs, tmp_path_factory):
    assert outputs.source.startswith("outputs.jsonl, sha256 ")
    assert str(tmp_path_factory.getbasetemp()) not in released.about(outputs)


def test_outputs_without_any_block_have_a_table_too(tmp_path):
    row = {"answer": "1", "output": ["\\boxed{1}"], "label": [1]}
    found = released.load(printed.Audit(released=str(write_jsonl(tmp_path / "o.jsonl", [row]))))
    assert released.form(found).loc["responses"].tolist() == ["0", "1", "1"]
    assert math.isnan(released.accuracy(found).loc["any of them", "printed"])  # no Pass@3 of one sample
    assert "none opens a block" in released.form_text(found)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"answer": "1", "output": ["a"]}, "no column label"),
        ({"answer": "1", "output": "a", "label": 1}, "row 1: output must be a list of texts"),
        ({"answer": "1", "output": ["a"], "label": [2]}, "row 1: output must be a list of texts"),
        ({"answer": "1", "output": ["a", "b"], "label": [1]}, "row 1: 2 outputs, 1 labels"),
        ({"answer": None, "output": ["a"], "label": [1]}, "row 1: 1 outputs, 1 labels, answer None"),
        ({"answer": "1", "output": [], "label": []}, "same number of responses, and at least one"),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(tmp_path, capsys, row, fault):
    path = write_jsonl(tmp_path / "outputs.jsonl", [row])
    with pytest.raises(DataError, match=fault):
        released.load(printed.Audit(released=str(path)))
    assert main(["audit", "--released", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("palign: ") and fault in line


def test_a_file_that_is_not_there_is_told_in_one_line(capsys):
    assert main(["audit", "--released", "nowhere.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("palign: nowhere.jsonl: no such file")


def test_an_empty_file_is_said_to_be_empty(tmp_path, capsys):
    """It "cannot be loaded: ", without a reason."""
    path = tmp_path / "outputs.jsonl"
    path.write_text("\n")
    assert main(["audit", "--released", str(path)]) == 2
    assert capsys.readouterr().err == f"palign: {path}: empty; it needs a row for each problem: answer, output, label\n"
