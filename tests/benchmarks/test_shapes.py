"""The benchmark of large shapes, rehearsed with tiny ones."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import shapes
from tests.conftest import PROJECT

pytestmark = pytest.mark.model


@pytest.fixture
def here(project):
    (project / "palign").symlink_to(PROJECT / "palign")
    return project


@pytest.mark.parametrize("piece", ["train-trl", "decode", "judge"])
def test_every_piece_is_measured_and_answers_all(here, piece):
    assert shapes.measure("make", "7B", small=True) == []
    rows = shapes.measure(piece, "7B", small=True)
    assert rows and not [row for row in rows if "failed" in row or row.get("unanswered")], rows
    assert all(row["tokens_per_second"] > 0 for row in rows)
    assert json.loads(shapes.kept(piece, "7B").read_text()) == rows
    if piece == "judge":
        assert all(row["verdicts"] >= 3 for row in rows)


def test_nothing_is_imported_before_unsloth_that_it_must_replace(here):
    """A piece that made the model first could not train by unsloth."""
    code = (
        "import sys; from benchmarks import shapes; shapes.parameters('7B', True, 'unsloth'); "
        "sys.exit(any(name in sys.modules for name in ('trl', 'transformers', 'peft')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=here, env=os.environ | {"PYTHONPATH": str(PROJECT)}).returncode
        == 0
    )


def test_a_piece_that_fails_is_a_row_and_the_exit_code(here, monkeypatch, capsys):
    monkeypatch.setattr(shapes, "machine", lambda: {})
    monkeypatch.setattr(shapes.subprocess, "run", lambda *_, **__: type("Ended", (), {"returncode": 9}))
    assert shapes.main(["--small", "--shapes", "1.5B", "--pieces", "judge"]) == 1
    assert "exit code 9" in capsys.readouterr().out
    rows = json.loads((shapes.folder() / "small.json").read_text())["rows"]
    assert [row["piece"] for row in rows] == ["make", "judge"] and all("exit code 9" in row["failed"] for row in rows)


def test_without_cuda_it_says_so_in_one_line_and_exits_2(here, monkeypatch, capsys):
    monkeypatch.setattr(shapes, "_cuda", lambda: False)
    assert shapes.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (here / "runs").exists()
