"""The Colab notebook on a simulated Colab, by ``make test-colab``: in a virtual environment that holds Colab's own
versions of ipykernel, ipywidgets, IPython, pandas, transformers and more (packages.txt), without palign's.

It shows that the install cell leaves these as they are and needs no restart, that a study runs and its report is shown,
and that the other notebooks run in Colab's kernel. It does not show a GPU, Colab's torch and Python 3.13, or Drive.
"""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PROJECT

COLAB = PROJECT / ".venv-colab" / "bin" / "python"
pytestmark = pytest.mark.colab


@pytest.fixture(scope="module", autouse=True)
def colabs_kernel(tmp_path_factory):
    """A kernel of Colab's environment, as the only ``python3`` there is."""
    if not COLAB.exists():
        pytest.skip("no simulated Colab; `make test-colab` makes one")
    specs = tmp_path_factory.mktemp("jupyter")
    spec = specs / "kernels" / "colab" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = f'["{COLAB}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    spec.write_text(f'{{"argv": {command}, "display_name": "Colab", "language": "python"}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(specs))
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "JUPYTER_PREFER_ENV_PATH", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Stands for /content."""
    return tmp_path_factory.mktemp("content")


def installed() -> str:
    return subprocess.run([COLAB, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout


def execute(name: str, content: Path, replace: dict[str, str], after: str = "") -> list:
    """The cells of a notebook, run in Colab's kernel; ``after``: one more cell."""
    notebook = nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for old, new in {"/content": str(content), **replace}.items():
            cell.source = cell.source.replace(old, new)
    notebook.cells.append(nbformat.v4.new_code_cell(after))
    client = NotebookClient(notebook, timeout=900, kernel_name="colab", resources={"metadata": {"path": str(content)}})
    client.execute()
    return notebook.cells


def said(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_notebook_installs_runs_a_study_and_shows_its_report(content):
    before = installed()
    address = {'repository = ""': f'repository = "{PROJECT}"', 'study = "pocket"': 'study = "smoke"'}
    cells = execute("colab", content, address, "import sys; print('palign' in sys.modules, sys.executable)")
    assert installed() == before, "Colab's own packages were changed"
    assert "No GPU found" in said(cells[1])
    assert "valid" in said(cells[4]) and "report.html" in said(cells[4])
    (shown,) = cells[5].outputs
    assert "srcdoc" in shown["data"]["text/html"] and "Pass@1" in shown["data"]["text/html"]
    assert said(cells[6]).split() == ["False", os.fspath(COLAB)], "the kernel was restarted, or palign is in it"


def test_the_other_notebooks_run_in_colabs_kernel(content):
    address = {'repository = ""': f'repository = "{PROJECT}"', "study = 'pocket'": "study = 'smoke'"}
    check = "import pandas, ipykernel; print(pandas.__version__, ipykernel.__version__)"
    assert said(execute("01_generation", content, address, check)[-1]).split() == ["2.2.3", "6.17.1"]
