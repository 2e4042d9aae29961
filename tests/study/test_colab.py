"""Every notebook opens by itself on Colab: the bootstrap cell on a simulated Colab, and nothing happens elsewhere."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from palign import params
from palign.study import colab
from tests.conftest import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def session(tmp_path):
    """A simulated Colab: google.colab mounts a folder, git and pip are recorders. ``run(source, ...)`` runs a cell.

    /content and the Drive are folders of the test's own, substituted for the cell's paths by name.
    """
    content = tmp_path / "content"
    (tmp_path / "fake" / "google" / "colab").mkdir(parents=True)
    content.mkdir()
    log = tmp_path / "log"
    (tmp_path / "fake" / "google" / "colab" / "__init__.py").write_text("")
    (tmp_path / "fake" / "google" / "colab" / "drive.py").write_text(
        "import os\n"
        "def mount(where):\n"
        f"    print('mounted', file=open({str(log)!r}, 'a'))\n"
        "    os.makedirs(where + '/MyDrive', exist_ok=True)\n"
    )
    recorder = (
        "import os, subprocess\n"
        "def run(command, check):\n"
        f"    print(' '.join(command[1:]), file=open({str(log)!r}, 'a'))\n"
        "    if 'clone' in command:\n"
        "        for name in ('notebooks', 'params'): os.makedirs(command[-1] + '/' + name)\n"
        "        open(command[-1] + '/pyproject.toml', 'w').close()\n"
        "subprocess.run = run\n"
    )

    def run(source, address="https://example.org/palign.git", release="release-colab", cwd=content, after=""):
        log.write_text("")
        cell = source.replace("/content", str(content)).replace('repository = ""', f'repository = "{address}"', 1)
        env = {name: value for name, value in os.environ.items() if name != "COLAB_RELEASE_TAG"}
        env |= {"PYTHONPATH": os.pathsep.join([str(tmp_path / "fake"), str(PROJECT)])}
        env |= {"COLAB_RELEASE_TAG": release} if release else {}
        done = subprocess.run(
            [sys.executable, "-c", recorder + cell + "\n" + after], cwd=cwd, env=env, capture_output=True, text=True
        )
        said = done.stderr.strip().splitlines()[-1:] or [""]
        return log.read_text().replace(str(content), "/content").splitlines(), said[0], done.stdout

    run.content = content
    return run


def bootstrap(path):
    return nbformat.read(path, as_version=4).cells[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_the_one_cell_after_its_title(path):
    """A fix made in one copy and forgotten in the others. ``python -m palign.study.colab`` writes them all."""
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert cells[1].cell_type == "code" and cells[1].source == colab.bootstrap_cell()
    assert sum("COLAB_RELEASE_TAG" in cell.source for cell in cells) == 1
    prefix = cells[0].id.rsplit("-", 1)[0]
    assert [cell.id for cell in cells] == [f"{prefix}-{i:02}" for i in range(len(cells))]


def test_writing_the_cell_again_changes_nothing_and_replaces_an_older_one(tmp_path):
    source = NOTEBOOKS[0].read_text(encoding="utf-8")
    path = tmp_path / "notebook.ipynb"
    path.write_text(source.replace("drive.mount", "drive.old_mount"), encoding="utf-8")
    assert colab.main([str(path)]) == 0
    assert path.read_text(encoding="utf-8") == source
    nbformat.validate(nbformat.read(path, as_version=4))


def test_outside_colab_the_cell_does_nothing(session):
    log, error, out = session(colab.bootstrap_cell(), release=None, after="print(os.getcwd())")
    assert (log, error) == ([], "") and out.strip() == str(session.content)


def test_in_a_study_that_runs_on_colab_the_cell_does_nothing(session):
    """`palign run` executes notebooks in the project's folder, in kernels that cannot mount a Drive."""
    (session.content / "notebooks").mkdir()
    assert session(colab.bootstrap_cell())[:2] == ([], "")


def test_without_an_address_the_cell_says_what_to_set(session):
    log, error, _ = session(colab.bootstrap_cell(), address="")
    assert error.startswith('ValueError: set repository = "https://..." in this cell')
    assert log == ["mounted"]


@pytest.mark.model
def test_colab_clones_to_drive_installs_once_and_asks_for_a_restart(session):
    """Colab has imported other versions of numpy and more by then: without a restart they stay."""
    cell = colab.bootstrap_cell()
    log, error, _ = session(cell)
    home = "/content/drive/MyDrive/palign"
    assert log == ["mounted", f"clone https://example.org/palign.git {home}", f"-m pip install -q -e {home}[colab]"]
    assert error == "palign is installed. Now choose Runtime > Restart session, then Runtime > Run all."

    # after the restart: nothing is installed again, and runs/ and reports/ are on the Drive
    log, error, out = session(cell, after="from palign.params import root; print(root())")
    assert (log, error) == (["mounted"], "")
    assert out.splitlines()[0] == colab.describe() and out.splitlines()[1] == str(session.content) + home[8:]

    # a new machine: the Drive has the clone, the address is not needed, only the packages are
    (session.content / "palign-installed").unlink()
    log, _, _ = session(cell, address="")
    assert log == ["mounted", f"-m pip install -q -e {home}[colab]"]


def test_an_installation_that_failed_is_tried_again(session):
    failing = "import subprocess\ndef run(*a, **k): raise subprocess.CalledProcessError(1, 'pip')\n"
    session(colab.bootstrap_cell())
    (session.content / "palign-installed").unlink()
    session(failing + "subprocess.run = run\n" + colab.bootstrap_cell())
    assert not (session.content / "palign-installed").exists()


@pytest.mark.model
def test_the_cells_variables_are_no_parameters(session):
    after = "from palign.params import from_notebook; seed = 3; print(from_notebook(globals()).seed)"
    for _ in range(2):
        _, error, out = session(colab.bootstrap_cell(), after=after)
    assert error == "" and out.splitlines()[-1] == "3"


def test_repository_is_the_notebooks_own():
    assert params.from_notebook({"repository": "https://example.org", "seed": 1}).seed == 1


@pytest.mark.parametrize(
    "capability, words", [((7, 5), "dtype 'float16'; generation by"), ((8, 0), "dtype 'bfloat16'")]
)
def test_advice_follows_the_compute_capability(capability, words):
    """`torch.cuda.is_bf16_supported()` says yes on a T4, where bfloat16 is emulated."""
    assert words in colab.advice("some GPU", capability)
    assert ("not installed" in colab.advice("", capability)) == (capability >= (8, 0))


def test_the_cell_needs_nothing_of_the_package_before_it_is_installed():
    source = colab.bootstrap_cell()
    assert source.index("pip") < source.index("from palign")
    assert json.dumps(source).isascii()
