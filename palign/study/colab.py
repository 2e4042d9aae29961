"""Notebooks that run by themselves on Google Colab: the cell that installs palign there, and what the GPU can do.

The cell follows the title of every notebook and is the same in all of them. It does nothing elsewhere, nor in a
notebook that ``palign run`` executes. ``python -m palign.study.colab notebooks/*.ipynb`` writes it into notebooks; a
test checks that they all have it.

>>> print(describe())
No GPU found: Runtime > Change runtime type > T4 GPU. The pocket study runs without one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BOOTSTRAP = """\
# For Google Colab; anywhere else this cell does nothing. It clones palign to your Drive, where runs/ and reports/ then
# outlive the session, and installs it: a disconnect costs the minutes of the installation and of one checkpoint.
repository = ""  # on Colab: the address to clone palign from, "https://..."

import os

if "COLAB_RELEASE_TAG" in os.environ and not os.path.isdir("notebooks"):
    import subprocess
    import sys

    from google.colab import drive

    drive.mount("/content/drive")
    _home = "/content/drive/MyDrive/palign"
    if not os.path.exists(f"{_home}/pyproject.toml"):
        if not repository:
            raise ValueError('set repository = "https://..." in this cell: the address to clone palign from')
        subprocess.run(["git", "clone", repository, _home], check=True)
    if not os.path.exists("/content/palign-installed"):
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", f"{_home}[colab]"], check=True)
        open("/content/palign-installed", "w").close()
        raise SystemExit("palign is installed. Now choose Runtime > Restart session, then Runtime > Run all.")
    os.chdir(_home)

    from palign.study import colab

    print(colab.describe())
"""


def bootstrap_cell() -> str:
    """Source of the cell. It asks for a restart because Colab has imported other versions of some packages already."""
    return BOOTSTRAP.rstrip("\n")


def with_bootstrap(notebook: dict) -> dict:
    """The notebook (nbformat 4.5, as JSON) with the cell second, replacing an older version of it.

    Cells get new ids, ``PREFIX-NN``, with the first cell's prefix.
    """
    cells = [cell for cell in notebook["cells"] if not "".join(cell["source"]).startswith("# For Google Colab;")]
    prefix = cells[0]["id"].rsplit("-", 1)[0]
    source = bootstrap_cell().splitlines(keepends=True)
    cell = {"cell_type": "code", "execution_count": None, "id": "", "metadata": {}, "outputs": [], "source": source}
    cells.insert(1, cell)
    return notebook | {"cells": [{**cell, "id": f"{prefix}-{i:02}"} for i, cell in enumerate(cells)]}


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
        return found + "dtype 'bfloat16'. vLLM is not installed; to generate with it: pip install 'palign[gpu]'."
    return found + "dtype 'float16'; generation by transformers (today's vLLM has no back end for this GPU)."


def main(paths: list[str]) -> int:
    for path in map(Path, paths):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(with_bootstrap(notebook), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
