"""What installs palign on Google Colab. `make test-colab` runs it there, as far as Colab can be simulated."""

import subprocess
import types

import nbformat
import pytest

from palign.study import colab
from tests.conftest import PROJECT

NOTEBOOKS = sorted(set((PROJECT / "notebooks").glob("*.ipynb")) - {PROJECT / "notebooks" / "colab.ipynb"})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A clone on a simulated Colab, where commands are recorded in ``commands`` and end with ``code``."""
    clone = tmp_path / "content" / "palign"
    clone.mkdir(parents=True)
    for name in ("requirements.lock", "requirements-colab.txt"):
        (clone / name).write_text((PROJECT / name).read_text(encoding="utf-8"), encoding="utf-8")
    here = types.SimpleNamespace(clone=clone, home=clone.with_name("palign-env"), commands=[], code=0)

    def run(command, check=False):
        here.commands.append([str(part) for part in command])
        if "venv" in here.commands[-1]:
            colab.Path(command[-1], "lib", "python3.11", "site-packages").mkdir(parents=True)
        return types.SimpleNamespace(returncode=here.code)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(colab.sysconfig, "get_path", lambda *_: f"{here.home}/lib/python3.11/site-packages")
    monkeypatch.setattr(colab.shutil, "which", lambda name: None)
    return here


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_the_one_cell_after_its_title(path):
    """A fix made in one copy and forgotten in the others. ``python -m palign.study.colab`` writes them all."""
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert cells[1].cell_type == "code" and cells[1].source == colab.CELL.rstrip("\n")
    assert len(cells[1].source.splitlines()) == 4
    assert cells[1].metadata == {"cellView": "form", "jupyter": {"source_hidden": True}}, "folded in both"
    prefix = cells[0].id.rsplit("-", 1)[0]
    assert [cell.id for cell in cells] == [f"{prefix}-{i:02}" for i in range(len(cells))]


def test_writing_the_cell_again_changes_nothing_and_replaces_an_older_one(tmp_path):
    source = NOTEBOOKS[0].read_text(encoding="utf-8")
    path = tmp_path / "notebook.ipynb"
    path.write_text(source.replace("git clone -q", "git clone --depth 1"), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != source
    assert colab.main([str(path)]) == 0
    assert path.read_text(encoding="utf-8") == source
    nbformat.validate(nbformat.read(path, as_version=4))


def test_without_an_address_the_cell_does_nothing():
    """Everywhere but on Colab, and in a notebook that `palign run` executes; there is no get_ipython here."""
    namespace = {}
    exec(colab.CELL, namespace)
    assert namespace["repository"] == ""


def test_colabs_torch_and_packages_stay_and_what_lies_behind_them_is_found(project):
    """pip's newest torch is built for a driver that Colab's GPUs do not have, and another ipykernel stops Colab."""
    packages = colab.install(project.clone)
    venv, pip = project.commands
    assert venv[1:3] == ["-m", "venv"] and "--without-pip" in venv
    assert pip[1:6] == ["-m", "pip", "--disable-pip-version-check", "--python", f"{project.home}/bin/python"]
    assert "--no-deps" in pip and pip[-1] == str(project.clone), "no GPU, so nothing of unsloth"
    wanted = (project.home / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not any(line.startswith(("torch==", "triton")) for line in wanted)
    assert any(line.startswith("transformers==") for line in wanted)
    found = (packages / "zz-colab.pth").read_text(encoding="utf-8").splitlines()
    assert found and all(path.endswith(("site-packages", "dist-packages")) for path in found)
    assert sorted(path.name for path in packages.glob("*.pth")) == ["zz-colab.pth"]


def test_with_a_gpu_unsloth_is_installed_as_well(project, monkeypatch):
    monkeypatch.setattr(colab.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    colab.install(project.clone)
    assert str(project.clone / "requirements-colab.txt") in project.commands[-1]


def test_a_second_run_installs_nothing_and_a_failed_one_is_tried_again(project):
    project.code = 1
    with pytest.raises(SystemExit, match="palign could not be installed; see pip's message above"):
        colab.install(project.clone)
    project.code = 0
    (project.home / "lib" / "python3.11" / "site-packages" / "zz-colab.pth").unlink()
    project.home.rename(project.home.with_name("old"))
    before = len(project.commands)
    colab.install(project.clone)
    assert len(project.commands) == before + 2
    colab.install(project.clone)
    assert len(project.commands) == before + 2


def test_records_and_checkpoints_can_lie_on_drive(project, tmp_path):
    drive = tmp_path / "drive"
    colab.keep_on_drive(project.clone, drive)
    (project.clone / "runs" / "pocket").mkdir()
    assert (drive / "runs" / "pocket").is_dir()
    colab.keep_on_drive(project.clone, drive)  # after a restart


def test_runs_that_exist_are_not_hidden_behind_drive(project, tmp_path):
    (project.clone / "runs").mkdir()
    with pytest.raises(SystemExit, match="runs exists already: move it to"):
        colab.keep_on_drive(project.clone, tmp_path / "drive")


@pytest.mark.parametrize(
    "capability, words", [((7, 5), "dtype 'float16'; generation by"), ((8, 0), "dtype 'bfloat16'")]
)
def test_advice_follows_the_compute_capability(capability, words):
    """`torch.cuda.is_bf16_supported()` says yes on a T4, where bfloat16 is emulated."""
    assert words in colab.advice("some GPU", capability)


def test_the_form_offers_studies_that_exist():
    (cell,) = (c for c in nbformat.read(PROJECT / "notebooks" / "colab.ipynb", 4).cells if "Choose a study" in c.source)
    names = colab.json.loads(cell.source.split("@param ")[1].split("]")[0] + "]")
    assert len(names) > 2 and all((PROJECT / "params" / f"{name}.yaml").exists() for name in names)
