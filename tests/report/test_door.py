"""What `palign.open` gives: documented tables, and problems that a notebook shows without running what is in them."""

import re
import shutil
import subprocess
import sys

import numpy as np
import papermill
import pytest
import yaml

import palign
from palign import alignment, evaluation, overlap, params, problems, traces, truncation
from palign.report import door, explore
from palign.report.results import Results
from palign.tasks.plan import Plan
from tests.conftest import PROJECT, read_jsonl, write_jsonl

HOSTILE = "<script>alert(1)</script> & <b>bold</b> $x$ \x1b[2J\u202e"


@pytest.fixture
def finished(small, project):
    """The small study without notebooks, report or training: p-align answers as zero-shot does, at half the length.

    Its first questions would be markup in a page.
    """
    for name in ("train", "dial-2"):
        records = read_jsonl(project / f"{name}.jsonl")
        records[0]["question"] += HOSTILE + name
        write_jsonl(project / f"{name}.jsonl", records)
    path = project / "params" / "small.yaml"
    path.write_text(
        yaml.safe_dump(small | {"judged_traces": 0, "entropy_traces": 0, "max_new_tokens": 64, "second_budget": 24})
    )
    values = params.load(path)
    problems.collect_benchmarks(values)
    traces.collect(values)
    overlap.find(values)
    truncation.truncate(values, "adaptive")
    alignment.align(values, "adaptive")
    alignment.measure_success(values)
    responses = evaluation.respond(values, "zero-shot")
    plan = Plan(values)
    plan.finetuning("p-align").finish()
    trained = plan.evaluation("p-align")
    trained.folder.write(
        "responses", [record | {"text": record["text"][: len(record["text"]) // 2]} for record in responses]
    )
    trained.folder.write(
        "grades",
        [grade | {"outcome": "no box", "right": False} for grade in plan.evaluation("zero-shot").read("grades")],
    )
    trained.finish()
    for arm in values.arms:
        evaluation.shorten(values, arm)
    return palign.open(path)


def documented(heading: str) -> set[str]:
    """The columns that the page lists under a heading."""
    page = (PROJECT / "palign" / "report" / "README.md").read_text(encoding="utf-8")
    section = page.split(f"## `study.{heading}(")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.+?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)}


def test_a_finished_study_from_python_and_in_its_notebook(finished, project, monkeypatch):
    """One study for all of it: making one takes longer than looking at it."""
    assert isinstance(finished, Results)
    for name in ("accuracy", "responses", "prefixes", "pairs"):
        table = getattr(finished, name)()
        assert documented(name) == set(table.columns), f"palign/report/README.md, {name}"
        assert len(table)

    # responses of all arms, or of one
    table = finished.responses()
    assert len(table) == 2 * 2 * 4 * finished.params.n_samples and set(table["arm"]) == {"zero-shot", "p-align"}
    assert finished.responses("p-align", 0)["text"].tolist() == table[table["arm"] == "p-align"]["text"].tolist()
    assert table["right"].tolist() == finished.grades["right"].tolist()
    with pytest.raises(ValueError, match="no responses of p-align seed 7"):
        finished.responses("p-align", 7)

    # a training problem: the kept prefix is marked, each probe stands where it was asked
    prefix = finished.prefixes().iloc[0]
    shown = finished.problem(f"training/{prefix['id']}")
    assert [sentence.kept for sentence in shown.trace] == [i < prefix["sentences"] for i in range(prefix["of"])]
    asked = {i + 1: probe for i, sentence in enumerate(shown.trace) for probe in sentence.probes}
    assert [(p, label) for p, label, _ in prefix["verdicts"]] == [
        (p, probe.split()[1]) for p, probe in sorted(asked.items(), key=lambda item: int(item[1].split(":")[0]))
    ]
    pair = finished.pairs().iloc[0]
    assert shown.rows[0]["text"] == pair["continuation"] and shown.rows[0]["grade"].startswith(pair["outcome"])

    # a test problem: every arm's answers with grades
    first = finished.problems().query("set == 'dial-2'").iloc[0]
    test = finished.problem(first["name"])
    wanted = table[(table["benchmark"] == "dial-2") & (table["problem"] == first["id"])]
    assert [row["text"] for row in test.rows] == wanted["text"].tolist()
    assert [row["grade"].split(",")[0] for row in test.rows] == wanted["outcome"].tolist()
    assert {row["arm"] for row in finished.problem(first["name"], "p-align").rows} == {"p-align"}

    # nothing of what others wrote is markup, nor a control sequence of a terminal
    for problem in (shown, test):
        html, text = problem._repr_html_(), repr(problem)
        assert "<script" not in html and "<b>bold" not in html and "&lt;script&gt;" in html and "&amp; &lt;b" in html
        assert 'class="tex2jax_ignore"' in html
        assert not {"\x1b", "\u202e"} & set(html + text) and "\\x1b" in html and "\\x1b" in text
        assert "<script>alert(1)" in text  # text needs no escape of markup

    # names: an id alone where it is the only one; what is not there has a hint
    assert repr(finished.problem(first["id"])) == repr(test)
    with pytest.raises(ValueError, match=r"arm 'p-allign'.* did you mean 'p-align'\?"):
        finished.problem(first["name"], "p-allign")
    with pytest.raises(ValueError, match=f"did you mean '{first['name']}'"):
        finished.problem(first["name"][:-1])

    # the lists choose
    chooser = explore.Chooser(finished, arm="p-align")
    assert "Training problem" in chooser.shown.value and chooser.set.value == "training"
    chooser.set.value = "dial-2"
    assert chooser.shown.value == finished.problem(first["name"], "p-align")._repr_html_()
    chooser.arm.value = explore.EVERY
    assert chooser.shown.value == test._repr_html_()
    bundle = explore.Chooser(finished, first["name"])._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/html"] == test._repr_html_()

    # the notebook
    executed = papermill.execute_notebook(
        "notebooks/explore.ipynb",
        "explored.ipynb",
        parameters={"params_file": "params/small.yaml", "problem": first["id"]},
        progress_bar=False,
        kernel_name="python3",
    )
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pages = ["".join(output["data"]["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
    assert pages.count(finished.problem(first["id"], "p-align")._repr_html_()) == 2, "once where one chooses"
    assert not any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)
    assert not any("<script" in page for page in pages)

    # from a folder below the project, and by its absolute path
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    for path in ("params/small.yaml", "../params/small.yaml", project / "params" / "small.yaml"):
        assert np.isclose(palign.open(path).accuracy()["value"], finished.accuracy()["value"]).all()


def test_a_study_that_is_not_finished_says_in_one_line_what_to_run(small, project):
    study = palign.open("params/small.yaml")
    with pytest.raises(explore.Unfinished) as caught:
        explore.check(study, "params/small.yaml")
    (line,) = caught.value._render_traceback_()
    assert "\n" not in line and "01_generation and 5 others" in line and "Run `palign run params/small.yaml`" in line


def test_the_notebook_of_a_study_that_is_not_finished_ends_with_that_line(small, project):
    with pytest.raises(papermill.PapermillExecutionError, match=r"Run `palign run params/small\.yaml` first") as caught:
        papermill.execute_notebook(
            "notebooks/explore.ipynb",
            "explored.ipynb",
            parameters={"params_file": "params/small.yaml"},
            progress_bar=False,
            kernel_name="python3",
        )
    assert "Traceback" not in str(caught.value) and ".py" not in str(caught.value).split("Unfinished", 1)[-1]


def test_the_door_opens_from_any_folder(tmp_path):
    """From outside of the project, a path from the root still finds the file; `dir` shows the door."""
    code = "import palign; print(palign.open('params/pocket.yaml').params.study, 'open' in dir(palign))"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout.split() == ["pocket", "True"], said.stderr


@pytest.mark.slow
def test_the_door_opens_from_the_folder_above_a_clone(tmp_path):
    """There `import palign` was the clone's folder itself, an empty namespace package."""
    clone = tmp_path / "palign"
    shutil.copytree(PROJECT / "palign", clone / "palign", ignore=shutil.ignore_patterns("__pycache__", "pocket"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(PROJECT / name, clone)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-e", clone], check=True)
    subprocess.run([python, "-c", "import palign; palign.open"], cwd=tmp_path, check=True)


def test_the_door_says_what_it_gives():
    """help() names every table, and the page that lists their columns."""
    for word in ("accuracy()", "responses(", "prefixes()", "pairs()", "problem(name)", "palign/report/README.md"):
        assert word in door.Study.__doc__


def test_a_third_from_the_middle_is_marked_where_it_stands(study):
    """The prefix of a segment arm does not begin the trace."""
    made = door.Study(study({"set": 2}, {"zero-shot": 0.5}).params)
    found, _ = made._sentences("One. Two. Three.", {"prefix": "Two.", "sentences": 1, "of": 3}, "segment-middle")
    assert [sentence.kept for sentence in found] == [False, True, False]


def test_an_answer_that_was_never_given_says_why(study):
    made = door.Study(study({"set": 40}, {"zero-shot": 0.5}, missing={"zero-shot": 1}).params)
    row = {"finish": "endpoint error", "reason": "HTTP 401: no such key", "outcome": "no box", "right": False}
    assert made._grade(row) == "never answered (endpoint error), HTTP 401: no such key"
