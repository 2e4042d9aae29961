"""The printed rows, and the parameters of the audit."""

import nbformat
import pytest

from palign.paper.printed import Audit, arm_cells, parameters_cell
from palign.params import ParamsError, from_notebook
from tests.conftest import PROJECT


def test_a_row_that_is_printed_nowhere_is_no_row():
    with pytest.raises(KeyError, match="not printed exactly once"):
        arm_cells("Qwen3-8B", "DeepSeek-R1", "p-aling", "pass@1")


def test_parameters_cell_shows_the_fields_with_their_defaults_and_meanings():
    notebook = nbformat.read(PROJECT / "notebooks" / "paper_audit.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == parameters_cell()
    assert [cell["id"] for cell in notebook.cells] == [f"au-{i:02d}" for i in range(len(notebook.cells))]


def test_a_misspelt_parameter_of_the_audit_is_named():
    with pytest.raises(ParamsError, match=r"relased: unknown key; did you mean released\?"):
        from_notebook({"relased": "x.jsonl"}, Audit)
    assert from_notebook({"released": None}, Audit) == Audit()
