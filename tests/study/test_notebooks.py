"""What a person does with a notebook: reads its parameters, runs cells again in any order, pastes papermill's lines."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from jupyter_client.manager import start_new_kernel

from palign import params
from tests.conftest import POCKET, PROJECT, read_jsonl, write_jsonl

STUDY = sorted(params.GROUPS)
WITH_PARAMETERS = [*STUDY, "explore", "paper_audit", "recorded_rollouts"]


def cells(name):
    notebook = nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_cell(name):
    (cell,) = [cell for cell in cells(name) if "parameters" in cell.metadata.get("tags", [])]
    return cell


def bound(source):
    """The names that a cell assigns or imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_no_cell_takes_a_parameters_name_for_something_else(name):
    """01 rebound `benchmarks`: run again, the cell that validates saw a thousand problems in their place."""
    own = set(bound(parameters_cell(name).source))
    for cell in cells(name):
        if cell.id != parameters_cell(name).id:
            assert not own & set(bound(cell.source)), cell.source


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_papermill_lists_all_parameters_with_their_comments(name, caplog):
    """A `=` in a comment hid its parameter ("Unable to parse line")."""
    listed = papermill.inspect_notebook(PROJECT / "notebooks" / f"{name}.ipynb")
    assert not caplog.messages
    assert list(listed) == list(bound(parameters_cell(name).source))
    assert all(one["help"] for one in listed.values())
    if name in STUDY:
        assert all(one["inferred_type_name"] != "None" for one in listed.values())


class Lab:
    """A kernel as JupyterLab starts it, in notebooks/."""

    def __init__(self, project):
        self.manager, self.client = start_new_kernel(
            kernel_name="python3",
            cwd=str(project / "notebooks"),
            env=os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"},
            extra_arguments=["--IPKernelApp.log_level=40"],
        )

    def run(self, source):
        """What the cell prints; an error raises ``AssertionError`` with what JupyterLab shows of it."""
        printed, shown = [], []

        def see(message):
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            elif message["msg_type"] == "error":
                shown.append("\n".join(content["traceback"]))

        self.client.execute_interactive(source, allow_stdin=True, output_hook=see, timeout=120)
        assert not shown, shown[0]
        return "".join(printed)

    def restart(self):
        """As another notebook would start, but with what is imported already."""
        self.run("get_ipython().reset()")


@pytest.fixture
def lab(project):
    lab = Lab(project)
    yield lab
    lab.client.stop_channels()
    lab.manager.shutdown_kernel(now=True)


@pytest.mark.model
def test_cells_run_again_in_any_order_and_the_study_chosen_in_01_holds(small, project, lab):
    """`i = 0` in 05 became an unknown key, and 02 forgot what 01 had been told."""
    last = {"02_truncation": [], "04_finetuning": ["p-align"], "05_evaluation": ["p-align", "zero-shot"]}
    for name in STUDY:
        for arm in last.get(name, []) or [None]:
            lab.restart()
            sources = [cell.source for cell in cells(name)]
            if name == "01_generation":
                sources[1] += "\nstudy = 'small'\ntraining_limit = 10"
            sources[1] += f"\narm = {arm!r}" if arm else ""
            if name == "06_report":
                sources = sources[:5]  # the others draw thirty figures
            for source in [*sources, "i = 0"]:
                lab.run(source)
            said = [lab.run(source) for source in reversed(sources)][-3]
            assert said.startswith("study small (params/small.yaml")
            where = "here" if name == "01_generation" else "in 01_generation"
            assert f"edited: training_limit 10 {where}" in said


@pytest.mark.model
def test_a_bad_value_is_one_line_without_a_traceback(project, lab):
    source = parameters_cell("05_evaluation").source
    check = "from palign.params import from_notebook\nparams = from_notebook(globals(), '05_evaluation')"
    lab.run(source + "\nn_samples = 0")
    with pytest.raises(AssertionError) as shown:
        lab.run(check)
    line = "notebook parameters: n_samples: 0: input should be greater than or equal to 1"
    assert str(shown.value).splitlines()[0] == line
    lab.run(source)
    assert lab.run(check).startswith("study pocket")


def readme_lines():
    text = (PROJECT / "notebooks" / "README.md").read_text(encoding="utf-8")
    section = text.split("## With papermill")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"^    (.*)$", section, flags=re.M))


@pytest.mark.model
def test_the_readmes_papermill_lines_run_as_pasted(project):
    """`out/` did not exist, 70 lines warned of unknown parameters, and 04 came before 02."""
    shutil.copytree(PROJECT / "palign", project / "palign", ignore=shutil.ignore_patterns("__pycache__"))
    smoke = yaml.safe_load((PROJECT / "params" / "smoke.yaml").read_text())
    write_jsonl(project / "few.jsonl", read_jsonl(POCKET / "data" / "dial-2.jsonl")[:4])
    smoke |= {"training_limit": 8, "benchmarks": [{"name": "few", "data": "few.jsonl", "problems": 4}]}
    (project / "params" / "smoke.yaml").write_text(yaml.safe_dump(smoke))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(project)}
    done = subprocess.run(["bash", "-e"], input=readme_lines(), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unknown parameter" not in done.stderr
    assert (project / "reports" / "smoke" / "tables" / "accuracy.csv").exists()
    assert not (project / "runs" / ".notebooks.yaml").exists()
