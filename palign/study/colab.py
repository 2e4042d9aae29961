"""Google Colab: installs palign there without touching Colab's own packages.

Colab's kernel needs its own versions of IPython, ipykernel and tornado, and its torch is built for its GPU's driver. So
palign's packages go into an environment of their own beside the clone, which takes from Colab what it does not hold:
torch, torchvision, triton. ``/content/palign-env/bin/palign`` runs studies with the pinned versions; a notebook's own
kernel finds the same packages behind its own. Nothing is replaced, so nothing needs a restart.

``notebooks/colab.ipynb`` calls this file as a script, and so does the second cell of the other notebooks, in their
kernel. ``python -m palign.study.colab notebooks/*.ipynb`` writes that cell into notebooks.

>>> print(describe())
No GPU found: Runtime > Change runtime type > T4 GPU. The pocket study runs without one.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

CELL = """\
# @title On Google Colab: the address that palign is cloned from. Elsewhere this cell does nothing.
repository = ""  # @param {type: "string"}
if repository: get_ipython().system(f"[ -d /content/palign ] || git clone -q {repository} /content/palign")
if repository: __import__("runpy").run_path("/content/palign/palign/study/colab.py", run_name="__main__")
"""
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}
"""The cell's metadata: Colab shows its title and its field, JupyterLab a bar that opens it."""


def install(project: Path) -> Path:
    """Make the environment and install palign from the clone ``project``; returns its folder of packages.

    Does nothing where it is complete. Raises ``SystemExit`` with one line where an installation fails.
    """
    home = project.with_name(f"{project.name}-env")
    python, stamp = home / "bin" / "python", home / "installed"
    packages = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(home)}))
    if stamp.exists():
        return packages
    print("Installing palign's packages; this takes two minutes", flush=True)
    # without pip, because Colab's Python has no ensurepip: Colab's own pip installs into the environment
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", home], check=True)
    theirs = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "zz-colab.pth").write_text("\n".join(theirs) + "\n")  # searched last
    pinned = (project / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (home / "requirements.txt").write_text("\n".join(line for line in pinned if not line.startswith("torch==")))
    wanted = ["-r", str(home / "requirements.txt"), "-e", str(project)]
    if shutil.which("nvidia-smi"):
        wanted += ["-r", str(project / "requirements-colab.txt")]
    # without dependencies, all of which these name: pip would bring a torch that Colab's driver cannot run
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    if subprocess.run([*pip, "install", "-q", "--no-deps", *wanted]).returncode:
        raise SystemExit("palign could not be installed; see pip's message above, and run the cell again")
    stamp.touch()
    return packages


def enter(project: Path, packages: Path) -> None:
    """Let this kernel find palign, behind Colab's own packages, and work in the project's folder."""
    site.addsitedir(str(packages))
    if str(project) not in sys.path:
        sys.path.append(str(project))
    os.chdir(project)


def keep_on_drive(project: Path, drive: Path = Path("/content/drive/MyDrive/palign")) -> None:
    """Have ``runs/``, a study's records and checkpoints, on the mounted Drive, where they outlive the session.

    Raises ``SystemExit`` with one line where ``runs/`` exists already.
    """
    runs = project / "runs"
    if runs.is_symlink():
        return
    (drive / "runs").mkdir(parents=True, exist_ok=True)
    if runs.exists():
        raise SystemExit(f"{runs} exists already: move it to {drive / 'runs'}, or go on without Drive")
    runs.symlink_to(drive / "runs")


def describe() -> str:
    """What this session's GPU can do, as a sentence, with the parameters to set."""
    import torch

    if not torch.cuda.is_available():
        return "No GPU found: Runtime > Change runtime type > T4 GPU. The pocket study runs without one."
    return advice(torch.cuda.get_device_name(), torch.cuda.get_device_capability())


def advice(name: str, capability: tuple[int, int]) -> str:
    """What a GPU of that compute capability can do. bfloat16 and vLLM's present back ends need 8.0 or more."""
    found = f"{name}, compute capability {capability[0]}.{capability[1]}: "
    if capability >= (8, 0):
        return found + "dtype 'bfloat16'. vLLM is not installed here; transformers generates."
    return found + "dtype 'float16'; generation by transformers (today's vLLM has no back end for this GPU)."


def with_cell(notebook: dict) -> dict:
    """The notebook (nbformat 4.5, as JSON) with :data:`CELL` second, replacing an older version of it.

    Cells get new ids, ``PREFIX-NN``, with the first cell's prefix.
    """
    older = ("# For Google Colab;", "repository =", "# @title On Google Colab:")
    cells = [cell for cell in notebook["cells"] if not "".join(cell["source"]).startswith(older)]
    prefix = cells[0]["id"].rsplit("-", 1)[0]
    source = CELL.rstrip("\n").splitlines(keepends=True)
    cell = {"cell_type": "code", "execution_count": None, "id": "", "metadata": FOLDED, "outputs": [], "source": source}
    cells.insert(1, cell)
    return notebook | {"cells": [{**cell, "id": f"{prefix}-{i:02}"} for i, cell in enumerate(cells)]}


def main(arguments: list[str]) -> int:
    """With notebooks as arguments write the cell into them; else install, enter, and say what the GPU can do.

    ``--drive``: keep ``runs/`` on the Drive that is mounted.
    """
    notebooks = [Path(name) for name in arguments if name.endswith(".ipynb")]
    for path in notebooks:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(with_cell(notebook), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not notebooks:
        project = Path(__file__).resolve().parents[2]
        if "--drive" in arguments:
            keep_on_drive(project)
        enter(project, install(project))
        print(describe())
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
