"""A run is compared with the committed report's numbers: within a point, not within a range of sixty-five."""

import json

import pytest
import yaml

from palign.params import load
from palign.study import run
from palign.study.cli import main
from tests.conftest import PROJECT

HEADLINE = {"pass@1 p-align average": 0.826333, "retention": 0.746875, "arms clearly above zero-shot": 3}


def changed(**values) -> list[str]:
    return run.verify("pocket", HEADLINE, HEADLINE | values)


def test_the_same_numbers_are_no_fault_and_a_share_may_differ_by_a_point():
    assert changed() == [] and changed(retention=0.756875) == [] and changed(retention=0.736875) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("pass@1 p-align average", 0.815, "0.815 instead of 0.826333"),  # any value from 0.30 to 0.95 passed
        ("retention", float("nan"), "nan instead of 0.746875"),
        ("arms clearly above zero-shot", 4, "4 instead of 3"),
        ("pass@1 rft average", 0.73, "0.73 is new"),
    ],
)
def test_each_other_number_is_one_line(name, value, words):
    (line,) = changed(**{name: value})
    assert line.startswith(f"pocket: {name}: ") and words in line


def test_a_number_that_is_gone_is_a_fault():
    headline = {name: value for name, value in HEADLINE.items() if name != "retention"}
    assert run.verify("pocket", HEADLINE, headline) == ["pocket: retention: missing from the report, expected 0.746875"]


def test_renewing_takes_the_reports_numbers_and_says_what_changed(project, capsys):
    path = project / "params" / "mine.yaml"
    path.write_text("study: mine\n")
    found = project / "reports" / "mine" / "headline.json"
    assert main(["verify", str(path)]) == 2 and "run the study first" in capsys.readouterr().err
    found.parent.mkdir(parents=True)
    found.write_text(json.dumps(HEADLINE))
    assert main(["verify", str(path)]) == 2 and f"palign verify --renew {path}" in capsys.readouterr().err
    assert main(["verify", "--renew", str(path)]) == 0
    assert yaml.safe_load((project / "params" / "expected" / "mine.yaml").read_text()) == HEADLINE
    capsys.readouterr()
    assert main(["verify", str(path)]) == 0 and "3 headline numbers are the expected ones" in capsys.readouterr().out
    found.write_text(json.dumps(HEADLINE | {"retention": 0.5}))
    assert main(["verify", str(path)]) == 1
    assert capsys.readouterr().out == "mine: retention: 0.5 instead of 0.746875\n"
    assert main(["verify", "--renew", str(path)]) == 0 and "retention: 0.5 instead of" in capsys.readouterr().out
    assert main(["verify", str(path)]) == 0
    (project / "params" / "expected" / "mine.yaml").write_text("retention: [0.7, 1.0]\n")  # as it used to be
    assert main(["verify", str(path)]) == 2 and "not one number a line" in capsys.readouterr().err
    assert main(["verify", "--renew", str(path)]) == 0 and main(["verify", str(path)]) == 0


@pytest.mark.parametrize("path", sorted((PROJECT / "params" / "expected").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_expected_is_the_committed_report(path):
    study = load(PROJECT / "params" / path.name).study
    headline = json.loads((PROJECT / "reports" / study / "headline.json").read_text())
    assert run.verify(study, yaml.safe_load(path.read_text()), headline) == []
