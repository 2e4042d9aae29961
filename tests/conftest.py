"""A small study in a folder of its own: the pocket student on a dozen problems."""

import json
import shutil
from pathlib import Path

import hypothesis
import pytest
import yaml

hypothesis.settings.register_profile("untimed", deadline=None)  # a test that times itself fails on a busy machine
hypothesis.settings.load_profile("untimed")

PROJECT = Path(__file__).resolve().parent.parent
POCKET = PROJECT / "palign" / "pocket"


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project root: relative paths, runs/ and reports/ all lead into the test's own folder."""
    (tmp_path / "params").mkdir()
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(project) -> dict:
    """Parameters of a study of seconds, on twelve traces and two benchmarks of four problems."""
    write_jsonl(project / "train.jsonl", read_jsonl(POCKET / "data" / "train.jsonl")[:12])
    for name in ("dial-2", "dial-3"):
        write_jsonl(project / f"{name}.jsonl", read_jsonl(POCKET / "data" / f"{name}.jsonl")[:4])
    (project / "student").symlink_to(POCKET / "student")
    values = {
        "study": "small",
        "student": "student",
        "training_data": "train.jsonl",
        "benchmarks": [{"name": n, "data": f"{n}.jsonl", "problems": 4} for n in ("dial-2", "dial-3")],
        "device": "cpu",  # the same tests wherever they run; tests/test_gpu.py has those of a GPU
        "batch_size": 8,
        "arms": ["zero-shot", "p-align"],
        "sufficiency_samples": 1,
        "judged_traces": 4,
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 4,
        "save_steps": 2,
    }
    (project / "params" / "small.yaml").write_text(yaml.safe_dump(values))
    return values


def pytest_collection_modifyitems(items):
    """Mark what runs a small study, for `make quick`, and put the notebooks' tests first: they are the longest, and if
    they started last, one worker would wait for the other.
    """
    for item in items:
        if "small" in item.fixturenames:
            item.add_marker(pytest.mark.model)
    items.sort(key=lambda item: item.path.name != "test_run.py")
