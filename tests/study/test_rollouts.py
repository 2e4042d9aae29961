"""The notebook on recorded rollouts, run by ``palign rollouts``."""

import shutil

import pandas as pd
import pytest

from palign.analysis import rollouts
from palign.analysis.rollouts import RECORDED
from palign.study.cli import main
from tests.conftest import PROJECT

HEADER = "trace,model,right,sentences,rollouts,success\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with the notebooks, and without a report."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params").mkdir()
    shutil.copytree(PROJECT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return folder


@pytest.fixture(scope="module")
def reported(folder):
    """The report on two recorded traces, a right and a wrong one, as a file of one's own."""
    table = pd.read_csv(RECORDED, dtype=str, keep_default_na=False)
    chosen = [table.loc[table["right"] == answer, "trace"].iloc[0] for answer in ("True", "False")]
    (folder / "elsewhere").mkdir()
    table[table["trace"].isin(chosen)].to_csv(folder / "elsewhere" / "mine.csv", index=False)
    table[table["trace"] == chosen[0]].to_csv(folder / "elsewhere" / "another.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "elsewhere")  # FILE is relative to here, the report to the project's root
        assert main(["rollouts", "mine.csv", "--beside", "another.csv"]) == 0
    return folder / "reports" / "rollouts-mine"


@pytest.mark.model
def test_a_file_of_ones_own_gets_the_same_report_in_a_folder_of_its_name(reported):
    page = (reported / "report.html").read_text(encoding="utf-8")
    assert "<h2>What this does not show</h2>" in page and "Left out" not in page
    assert {path.stem for path in reported.glob("tables/*.csv")} == {
        *("curves", "falls", "falls-by-answer", "searches", "policies"),
        *("points", "behind", "tags", "tags-by-position", "wrong-traces", "beside"),
    }
    assert {path.name for path in reported.glob("figures/*")} == {
        f"{name}.{kind}"
        for name in ("curves", "drops", "landings", "frontier", "tags", "positions", "beside")
        for kind in ("svg", "png")
    }
    assert not (reported.parent / "recorded-rollouts").exists()


@pytest.mark.model
def test_another_table_stands_beside_under_its_name(reported):
    """The right trace of the one table is the other: what is measured of it is the same."""
    beside = pd.read_csv(reported / "tables" / "beside.csv").set_index("measure")
    assert set(beside["table"]) == {"mine", "another"}
    one, two = (beside.loc[beside["table"] == name, "value"] for name in ("mine", "another"))
    assert len(one) == len(rollouts.BESIDE)
    same = one.index.drop(["traces that fall beyond chance", "largest true fall, lower bound"])
    assert (one[same] == two[same]).all(), "those two draw by the trace's place in its table"


@pytest.mark.model
def test_the_report_names_no_folder_of_the_machine_that_made_it(reported, folder):
    for path in (*reported.glob("*.html"), *reported.glob("tables/*.csv"), *reported.glob("figures/*.svg")):
        text = path.read_text(encoding="utf-8")
        assert str(folder) not in text and str(PROJECT) not in text


@pytest.mark.model
def test_traces_with_gaps_get_the_parts_that_need_no_whole_curve(folder, monkeypatch):
    """A file with every fourth prefix ended in a KeyError."""
    monkeypatch.chdir(folder)
    rows = [f"{trace},m,{trace == 'a'},{p},10,{p / 20}" for trace in "ab" for p in range(0, 20, 4)]
    (folder / "gaps.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert main(["rollouts", "gaps.csv"]) == 0
    report = folder / "reports" / "rollouts-gaps"
    assert "Left out, since there is no such data: Where does a search end" in (
        (report / "report.html").read_text(encoding="utf-8")
    )
    assert {path.stem for path in report.glob("tables/*.csv")} == {"falls", "falls-by-answer"}


def test_a_study_whose_prefixes_were_not_continued_gets_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    for text, said in (
        ("study: none\n", "run notebook 03_alignment"),
        ("study: a\njudged_traces: 0\n", "judged_traces"),
    ):
        (tmp_path / "params" / "a.yaml").write_text(text)
        assert main(["rollouts", "params/a.yaml"]) != 0
        line = capsys.readouterr().err
        assert line.startswith("palign: ") and line.count("\n") == 1 and said in line
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,answer\nWhat is 1 + 1?,2\n", "no table of rollouts: columns are missing: trace, model, right"),
        (HEADER + "a,m,True,0,100,1.5\n", "row 1 (a): success must be a share in 0..1, not '1.5'"),
        (HEADER + "a,m,True,0,9,1\na,m,True,1,0,0\n", "row 2 (a): 0 rollouts have no share"),
        (HEADER, "holds no rollouts"),
        (None, "cannot be read as CSV"),
    ],
    ids=["foreign", "share", "count", "empty", "missing"],
)
def test_a_file_that_is_no_table_of_rollouts_gets_one_line_and_leaves_nothing(
    text, said, tmp_path, monkeypatch, capsys
):
    """A traceback from the middle of a notebook says nothing to the owner of the file."""
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "foreign.csv").write_text(text)
    assert main(["rollouts", "foreign.csv"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("palign: ") and line.count("\n") == 1 and "foreign.csv" in line and said in line
    assert not (tmp_path / "reports").exists() and not (tmp_path / "runs").exists()
