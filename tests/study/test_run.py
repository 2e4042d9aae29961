"""A whole study: every notebook runs under papermill, no task runs twice, and a kill loses nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from palign import evaluation, params
from palign.report import tables
from palign.report.results import Results
from palign.study import run
from palign.study.cli import main
from palign.tasks.plan import Plan
from tests.conftest import PROJECT
from tests.report.test_readable import faults

pytestmark = pytest.mark.model


def snapshot(folder):
    """Every result under a folder, without what measures time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.jsonl"))
        if "seconds" not in path.name
    }


def kept(folder):
    timed = ("costs.csv", "rates.csv")
    return {path.name: path.read_text() for path in sorted((folder / "tables").glob("*.csv")) if path.name not in timed}


def test_a_study_runs_resumes_and_repeats_itself(small, project, capsys):
    path = project / "params" / "small.yaml"
    loaded = params.load(path)
    assert main(["run", str(path), "--dry-run"]) == 0
    assert "would run 06_report" in capsys.readouterr().out
    assert not (project / "runs").exists()
    assert main(["pages", str(path)]) == 2
    said = capsys.readouterr().err
    assert said == f"palign: study small is not finished: 01_generation and 6 others to do; run `palign run {path}`\n"

    assert main(["run", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"report: {project / 'reports' / 'small' / 'report.html'}"
    first, first_tables = snapshot(project / "runs"), kept(project / "reports" / "small")

    assert not faults(project / "reports" / "small" / "report.html")
    page = (project / "reports" / "small" / "report.html").read_text()
    for words in ("Accuracy", "kept by the filter", "p-align", "data:image/svg+xml", "What this does not show"):
        assert words in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert str(project) not in page and str(PROJECT) not in page

    # the executed notebooks as pages
    assert main(["pages", str(path)]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert [name[:2] for name in names] == ["01", "02", "03", "04", "05"]
    for name in names:
        html = (project / "reports" / "small" / "notebooks" / name).read_text()
        assert '<details class="code">' in html and "<figure>" in html and len(html) < 500_000
        assert not any(words in html for words in ("<script", "%|", str(project), str(PROJECT)))
        assert not re.findall(r"https?://(?!www\.w3\.org/)", html)
        for target in re.findall(r'href="([^"#]+)"', html):
            assert (project / "reports" / "small" / "notebooks" / target).exists(), target
    assert "small, p-align" in html and "Left out" not in html

    # a second run does nothing and says so
    before = {p: p.stat().st_mtime_ns for p in (project / "runs").rglob("*") if p.is_file()}
    assert main(["run", str(path)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (project / "runs").rglob("*") if p.is_file()} == before
    assert main(["status", str(path)]) == 0
    assert all(line.endswith("done") for line in capsys.readouterr().out.splitlines())

    # half of every file lost, as after a kill: the rerun ends with the very same records and tables
    for file in (project / "runs").rglob("*.jsonl"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for manifest in (project / "runs").rglob("manifest.json"):
        manifest.unlink()
    assert main(["run", str(path)]) == 0
    assert sorted(first) == sorted(snapshot(project / "runs"))
    assert kept(project / "reports" / "small") == first_tables
    for arm in loaded.arms:
        ids = [g["id"] for g in Plan(loaded).evaluation(arm).read("grades")]
        assert len(ids) == len(set(ids)) == 2 * 4 * loaded.n_samples
    before_grading = snapshot(project / "runs")

    # without its grades an arm is graded again from the responses that are there; nothing is generated
    folder = Plan(loaded).evaluation("p-align").folder
    (folder.path / "grades.jsonl").unlink()
    assert not folder.done
    generated = (folder.path / "responses.jsonl").stat().st_mtime_ns
    evaluation.respond(loaded, "p-align")
    assert snapshot(project / "runs") == before_grading
    assert (folder.path / "responses.jsonl").stat().st_mtime_ns == generated

    # changing an evaluation parameter reruns evaluation and report, nothing else
    changed = params.validate({**small, "temperature": 0.5, "protocol": "own"}, "test")
    todo = [step.title for step in Plan(changed).steps() if not step.done]
    assert todo == ["05_evaluation zero-shot", "05_evaluation p-align", "06_report"]

    numbers = json.loads((project / "reports" / "small" / "headline.json").read_text())
    assert 0 <= numbers["pass@1 p-align average"] <= 1
    capsys.readouterr()
    assert main(["verify", str(path)]) == 2 and "palign verify --renew" in capsys.readouterr().err
    assert main(["verify", "--renew", str(path)]) == 0
    assert main(["verify", str(path)]) == 0
    stated = project / "params" / "expected" / "small.yaml"
    stated.write_text(stated.read_text().replace("retention: ", "retention: 1"))
    capsys.readouterr()
    assert main(["verify", str(path)]) == 1
    assert capsys.readouterr().out.count("\n") == 1


def test_a_killed_study_goes_on_where_it_was(small, project):
    """kill -9 in the middle of the run, twice; finished results are still there after it, each line byte for byte."""
    path = project / "params" / "small.yaml"
    command = [sys.executable, "-m", "palign.study.cli", "run", str(path)]
    for wait_for in ("prefixes.jsonl", "responses.jsonl"):
        process = subprocess.Popen(command, cwd=project, start_new_session=True, stdout=subprocess.DEVNULL)
        deadline = time.time() + 120
        while not list((project / "runs").rglob(wait_for)) and time.time() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert list((project / "runs").rglob(wait_for)), "the study never got so far"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept = snapshot(project / "runs")
    assert subprocess.run(command, cwd=project, stdout=subprocess.DEVNULL).returncode == 0
    after = snapshot(project / "runs")
    for name, content in kept.items():
        whole = content[: content.rfind(b"\n") + 1]  # in the order in which they came; a finished file is in the data's
        assert set(whole.splitlines()) <= set(after[name].splitlines()), name
    for record in after.values():
        ids = [found["id"] for line in record.splitlines() if "id" in (found := json.loads(line))]
        assert len(ids) == len(set(ids))


def test_a_step_begins_as_soon_as_what_it_reads_is_there(small, project, monkeypatch):
    """Half of the arms need no prefixes: they waited for 02 and 03, and one of two cores was idle."""
    arms = ["zero-shot", "sft-label", "p-align"]
    plan = Plan(params.validate({**small, "arms": arms, "jobs": 2}, "test"))
    begun = {step.title: threading.Event() for step in plan.steps()}
    seen, order = [], []

    def execute(step, progress):
        """In place of the notebook: each step notes what is not there, and some wait for others to begin."""
        seen.extend(need.name for need in step.needs if not need.folder.done)
        order.append(step.title)
        begun[step.title].set()
        if step.title == "02_truncation":
            assert begun["05_evaluation sft-label"].wait(20), "the arm waited for 02"
        for task in step.tasks:
            task.finish()
        if step.title == "03_alignment":
            assert begun["04_finetuning p-align"].wait(20), "the arm waited for the rest of 03"

    monkeypatch.setattr(run, "_execute", execute)
    run._run(plan, plan.steps(), plan.steps())
    assert not seen and sorted(order) == sorted(begun) and order[0] == "01_generation" and order[-1] == "06_report"


def test_a_kernel_runs_what_is_registered_for_its_end_and_leaves_without_taking_down_its_objects(project):
    """After the last cell, the process that holds torch took a second to end."""
    cell = """
import atexit, pathlib, tempfile, weakref
folder = tempfile.TemporaryDirectory()
pathlib.Path("folder").write_text(folder.name)
atexit.register(pathlib.Path("ended").write_text, "yes")
class Slow:
    def __del__(self):
        pathlib.Path("taken down").write_text("yes")
import sys
sys.slow = Slow()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, "one.ipynb")
    run.execute(project / "one.ipynb", project / "out.ipynb", {}, "one")
    assert (project / "ended").exists() and not (project / "taken down").exists()
    assert not Path((project / "folder").read_text()).exists()


def test_with_one_job_the_steps_run_in_the_plans_order(small, project, monkeypatch):
    plan = Plan(params.validate({**small, "jobs": 1}, "test"))
    order = []

    def execute(step, progress):
        order.append(step.title)
        for task in step.tasks:
            task.finish()

    monkeypatch.setattr(run, "_execute", execute)
    run._run(plan, plan.steps(), plan.steps())
    assert order == [step.title for step in plan.steps()]


@pytest.mark.parametrize("path", sorted((PROJECT / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_report_stands_on_every_step(path):
    """It shows all results, so it must be the last to begin."""
    steps = Plan(params.load(path)).steps()
    makers = {task.name: step for step in steps for task in step.tasks}
    found, ahead = set(), [steps[-1]]
    while ahead:
        step = ahead.pop()
        found.add(step.title)
        ahead += [makers[need.name] for need in step.needs if makers[need.name].title not in found]
    assert found == {step.title for step in steps}


def test_two_runs_of_one_study_do_not_write_beside_each_other(small, project, capsys):
    path = project / "params" / "small.yaml"
    with run.alone("small"):
        assert main(["run", str(path)]) == 2
    assert "already running" in capsys.readouterr().err


def test_a_notebook_opened_too_early_says_what_to_run_first(small, project):
    with pytest.raises(papermill.PapermillExecutionError, match="run notebook 01_generation"):
        papermill.execute_notebook(
            "notebooks/02_truncation.ipynb", "out.ipynb", parameters=small, progress_bar=False, kernel_name="python3"
        )


def test_a_failing_study_names_the_notebook_and_the_fault(small, project, capsys):
    (project / "train.jsonl").write_text('{"question": "q"\n')
    assert main(["run", str(project / "params" / "small.yaml")]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("palign: 01_generation: DataError: train.jsonl: line 1 is not a JSON object")


@pytest.mark.parametrize("path", sorted((PROJECT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_source_notebooks_are_bare(path):
    """Notebooks have no outputs and no logic of their own: the tested code is in the module."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            assert not any(word in cell.source for word in ("def ", "class ", "lambda", "sys.path"))


def test_help_and_import_are_light():
    code = "import sys, palign, palign.study.cli; assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_study_of_the_untrained_student_alone_has_a_report(small, project, capsys):
    """A reader who leaves arms out must get the error in the first notebook, not in the last."""
    path = project / "params" / "alone.yaml"
    path.write_text(yaml.safe_dump({**small, "study": "alone", "arms": ["zero-shot"]}))
    assert main(["run", str(path)]) == 0, capsys.readouterr().err
    page = (project / "reports" / "alone" / "report.html").read_text()

    # what it has no data for is named once, not shown as an empty frame
    assert "nothing to show" not in page and "<tbody>\n  </tbody>" not in page
    _, _, left_out = page.partition("Left out, since there is no such data: ")
    for title in ("Variation between training seeds", "The prefixes and the filter", "The judge against the oracle"):
        assert page.count(title) == left_out.count(title) == 1
    assert "Accuracy" not in left_out


def test_a_study_of_other_arms_and_several_seeds_has_a_report(small, project, capsys):
    """Arms without p-align: the notebooks must show what they need, or say that it is missing."""
    path = project / "params" / "other.yaml"
    arms = ["zero-shot", "segment-middle"]
    values = {**small, "study": "other", "arms": arms, "training_seeds": [0, 1]}
    path.write_text(yaml.safe_dump(values))
    assert main(["run", str(path)]) == 0, capsys.readouterr().err
    loaded = params.load(path)
    assert main(["status", str(path)]) == 0
    status = capsys.readouterr().out
    assert "04_finetuning segment-middle seed 1" in status and "05_evaluation zero-shot seed" not in status
    page = (project / "reports" / "other" / "report.html").read_text()
    assert "2 training seeds" in page and "Variation between training seeds" in page and "boundary_prompt" not in page

    # values are averages over the seeds, each computed within its own
    opened = Results(loaded)
    table = tables.accuracy(opened).set_index(["arm", "benchmark", "metric", "budget"])["value"]
    each = [tables.accuracy(opened.only("segment-middle", seed)) for seed in (0, 1)]
    each = [one.set_index(["arm", "benchmark", "metric", "budget"])["value"] for one in each]
    mean = (each[0] + each[1]) / 2
    assert mean.to_dict() == pytest.approx(table.loc[["segment-middle"]].to_dict())
    seeds = tables.seeds(opened, tables.accuracy(opened))
    assert list(seeds.index) == arms[1:]
    assert (seeds[["seed 0", "seed 1"]].mean(axis=1) - seeds["value"]).abs().max() < 1e-9
    assert ((seeds["min"] <= seeds["value"]) & (seeds["value"] <= seeds["max"])).all()

    costs = tables.costs(opened)
    assert costs.loc["evaluation/segment-middle", "seeds"] == 2 and costs.loc["evaluation/zero-shot", "seeds"] == 1
    manifests = [Plan(loaded).finetuning("segment-middle", seed).folder.manifest() for seed in (0, 1)]
    assert costs.loc["finetuning/segment-middle", "updates"] == sum(m["updates"] for m in manifests)
    for name in ("strategies", "seeds", "arms"):
        assert (project / "reports" / "other" / "tables" / f"{name}.csv").exists()

    # leaving a seed out again is a matter of the report alone
    fewer = params.validate({**values, "training_seeds": [0]}, "test")
    assert [step.title for step in Plan(fewer).steps() if not step.done] == ["06_report"]


def test_a_reader_that_has_read_enough_is_no_error(small, project):
    """``palign status ... | head``"""
    command = [sys.executable, "-m", "palign.study.cli", "status", "params/small.yaml"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PROJECT)}
    )
    os.close(writing)
    assert done.returncode == 141 and done.stderr == b""
