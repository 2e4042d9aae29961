"""The audit's notebook, run by ``palign audit``."""

import shutil

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from palign.paper.printed import Audit
from palign.study.audit import TITLE
from palign.study.cli import main
from tests.conftest import PROJECT, write_jsonl
from tests.report.test_readable import faults

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A project in which the audit ran once, from only the published numbers."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params").mkdir()
    shutil.copytree(PROJECT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        other = folder / "reports" / "paper-audit-released" / "tables" / "released-form.csv"
        other.parent.mkdir(parents=True)
        other.write_text("of an earlier audit\n")
        assert main(["audit"]) == 0
    return folder / "reports" / "paper-audit"


def test_its_page_is_for_a_reader(audited):
    assert not faults(audited / "report.html")


def test_the_notebook_runs_from_the_published_numbers_alone(audited):
    page = (audited / "report.html").read_text(encoding="utf-8")
    assert "11 of 20 AMC12 cells are not k/83" in page
    assert "<h2>What this does not show</h2>" in page
    assert {path.stem for path in audited.glob("tables/*.csv")} == {
        *("cells", "averages", "repeats", "samples", "gains", "verdicts", "claims")
    }
    assert {path.name for path in audited.glob("figures/*")} == {
        f"{name}.{kind}"
        for name in ("samples", "gains", "gains-by-benchmark", "gains-elsewhere")
        for kind in ("svg", "png")
    }


def test_an_audit_without_released_outputs_says_only_that_it_has_none(audited):
    """It had a heading, an entry of the contents and a sentence for a part that was empty."""
    page = BeautifulSoup((audited / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert [p.text for p in page.select("p") if "released" in p.text.lower()] == [
        "Left out, since there is no such data: The released outputs."
    ]
    assert not any("released" in part.text for part in page.select("h2, nav"))


def test_an_audit_with_released_outputs_begins_with_them(tmp_path, monkeypatch):
    """Its page had the title and the first screen of an audit without them."""
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path)
    row = {"answer": "4", "output": ["\\boxed{4}", "It is 4."], "label": [1, 1]}
    assert main(["audit", "--released", str(write_jsonl(tmp_path / "outputs.jsonl", [row]))]) == 0
    path = tmp_path / "reports" / "paper-audit-released" / "report.html"
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    assert not faults(path)
    assert page.h1.text == TITLE
    assert page.select_one("main > p").text.startswith("The released outputs hold 2 responses to 1 problem of AIME24")
    assert "The released outputs" in [heading.text for heading in page.select("h2")]


def test_an_audit_without_released_outputs_keeps_what_one_with_them_wrote(audited):
    """`make audit` on a fresh clone used to delete the committed tables of the released outputs."""
    kept = audited.parent / "paper-audit-released" / "tables" / "released-form.csv"
    assert kept.read_text() == "of an earlier audit\n"
    assert Audit(released="outputs.jsonl").folder.name == kept.parent.parent.name


def test_the_report_names_no_folder_of_the_machine_that_made_it(audited):
    for path in (*audited.glob("*.html"), *audited.glob("tables/*.csv"), *audited.glob("figures/*.svg")):
        text = path.read_text(encoding="utf-8")
        assert str(audited.parent) not in text and str(PROJECT) not in text


def test_what_is_printed_below_a_tenth_of_a_thousandth_is_kept_in_the_tables(audited):
    """Four decimals turned an exact p of 5e-13 into zero."""
    assert (pd.read_csv(audited / "tables" / "gains.csv")["p_best"] > 0).all()
