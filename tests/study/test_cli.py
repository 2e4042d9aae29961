"""What a person asks of ``palign`` before a run: help, what is wrong with a study, and where the fault comes from."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from palign.params import Params, load
from palign.study import check, run, single
from palign.study.cli import main
from tests.conftest import POCKET, PROJECT, write_jsonl

ROWS = [{"question": f"What is {n} + {n}?", "answer": str(2 * n), "trace": "Add them. Done."} for n in range(4)]
COLUMNS = {"question": "question", "answer": "answer", "trace": "trace"}


@pytest.fixture
def study(project, monkeypatch):
    """``study(key=value, ...)``: the params file of a study that could run, but for these values."""
    monkeypatch.delenv(check.KEY, raising=False)
    (project / "student").symlink_to(POCKET / "student")
    for name in ("train", "test"):
        write_jsonl(project / f"{name}.jsonl", ROWS)

    def make(**values):
        benchmarks = [{"name": "sums", "data": "test.jsonl", "problems": 4}]
        stated = {"study": "asked", "student": "student", "training_data": "train.jsonl", "training_columns": COLUMNS}
        stated |= {"engine": "transformers", "dtype": "float32", "max_model_len": 32768}
        stated |= {"benchmarks": benchmarks, "arms": ["zero-shot", "p-align"], "device": "cpu"}
        path = project / "params" / "asked.yaml"
        path.write_text(yaml.safe_dump(stated | values))
        return str(path)

    return make


def test_palign_alone_prints_its_help(capsys):
    assert main([]) == 0
    assert "usage: palign" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert f'version = "{capsys.readouterr().out.split()[1]}"' in (PROJECT / "pyproject.toml").read_text()


def test_help_imports_nothing_that_takes_time():
    """A help text that takes seconds is not asked for twice."""
    code = "import sys; from palign.study.cli import main; main([]); print(*sys.modules, sep='\\n')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pandas", "pydantic", "yaml", "torch", "importlib.metadata"} & set(found)


def test_a_study_that_can_run_is_valid_and_says_nothing_else(study, capsys):
    assert main(["check", study()]) == 0
    out, err = capsys.readouterr()
    assert "valid; study asked" in out and err == ""


def test_every_study_of_the_repository_can_run_as_far_as_its_own_files_say():
    for path in sorted((PROJECT / "params").glob("*.yaml")):
        assert not [f for f in check.findings(load(path), contents=False) if f.stops], path.name


def sums(**values):
    return {"benchmarks": [{"name": "sums", "data": "test.jsonl", "problems": 4} | values]}


JUDGE = {"judge_max_new_tokens": 16, "judge_max_model_len": 1024}
FAULTS = {
    "a folder that is not there": ({"student": "/no/such/folder"}, "student: /no/such/folder: no such folder"),
    "a misspelt folder": ({"student": "a/b/c"}, "student: a/b/c: no such folder under"),
    "a file for a folder": ({"student": "train.jsonl"}, "student: train.jsonl: a file; name the model's folder"),
    "a folder of something else": ({"student": "notebooks"}, "no config.json, no weights, no tokenizer"),
    "no training data": ({"training_data": "trian.jsonl"}, "training_data: trian.jsonl: no such file under"),
    "no benchmark": (sums(data="/tset.jsonl"), "benchmarks: sums: /tset.jsonl: no such file"),
    "empty training data": ({"training_data": "empty.jsonl"}, "training_data: empty.jsonl: empty"),
    "a column of another name": (
        {"training_columns": COLUMNS | {"trace": "solution"}},
        "training_data: train.jsonl: no column solution; it has question, answer, trace",
    ),
    "another count": (sums(problems=5), "benchmarks: sums: test.jsonl: 4 problems, the params file says 5"),
    "not a hub id": ({"training_data": "some one/set"}, "not a hub id, which has the form owner/name"),
    "a judge that is not there": (
        {"arms": ["p-align-other-judge"], "judge": "./judge", **JUDGE},
        "judge: ./judge: no such folder",
    ),
    "a service without an address": (
        {"preference_judge": "endpoint:m", "preference_max_new_tokens": 9, "preference_max_model_len": 999},
        "endpoint:m: endpoint_urls is empty",
    ),
}


@pytest.mark.parametrize(("values", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_what_would_stop_a_study_is_said_in_one_line_before_it_runs(study, project, capsys, values, words):
    """`palign check` called a file with a student that is not there valid, and the run failed minutes later."""
    (project / "empty.jsonl").write_text("\n \n")
    path = study(**values)
    for command in (["check", path], ["run", path, "--dry-run"]):
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"{path}: ") and words in err and err.count("\n") == 1


def test_a_run_stops_before_its_first_notebook(study, monkeypatch, capsys):
    monkeypatch.setattr(run, "run", lambda *_, **__: pytest.fail("it began"))
    assert main(["run", study(student="/no/such/folder")]) == 2
    assert "no such folder" in capsys.readouterr().err


WARNINGS = {
    "a folder's name that could be a hub id": ({"student": "runs/mine"}, "taken for a hub id"),
    "a switch the template does not use": (
        {"chat_template_kwargs": {"add_generation_promt": True}},
        "chat_template_kwargs: add_generation_promt: True: student's chat template does not use it; "
        "did you mean add_generation_prompt?",
    ),
    "a service whose key is not set": (
        {"arms": ["p-align-other-judge"], "judge": "endpoint:m", "judge_verdict": "decode", **JUDGE}
        | {"endpoint_urls": ["https://host/v1"]},
        "judge: endpoint:m: PALIGN_API_KEY is not set; p-align-other-judge needs it, unless https://host/v1",
    ),
    "a limit beyond the data": ({"training_limit": 5}, "training_limit: 5: train.jsonl has 4 rows"),
}


@pytest.mark.parametrize(("values", "words"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_is_probably_not_meant_is_a_warning(study, project, capsys, values, words):
    (project / "runs").mkdir()
    path = study(**values)
    assert main(["check", path]) == 0
    out, err = capsys.readouterr()
    assert "valid" in out and err.startswith(f"{path}: warning: ") and words in err and err.count("\n") == 1


def test_a_key_is_not_asked_for_where_the_service_is_this_machines_own(study, monkeypatch, capsys):
    values = {"arms": ["p-align-other-judge"], "judge": "endpoint:m", "judge_verdict": "decode", **JUDGE}
    assert main(["check", study(**values, endpoint_urls=["http://localhost:8000/v1"])]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(check.KEY, "secret")
    assert main(["check", study(**values, endpoint_urls=["https://host/v1"])]) == 0
    assert capsys.readouterr().err == ""


def test_thoughts_that_a_template_knows_by_another_name_are_not_switched_off_silently(study, project, capsys):
    """`enable_thinking: false` is right for a template without thoughts, and does nothing for one with `thinking`."""
    shutil.copytree(POCKET / "student", project / "other")
    (project / "other" / "chat_template.jinja").unlink()
    told = project / "other" / "tokenizer_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"chat_template": "{% if thinking %}<think>{% endif %}"}))
    assert main(["check", study(student="other")]) == 0
    err = capsys.readouterr().err
    assert "enable_thinking: False: other's chat template does not use it; did you mean thinking?" in err


def test_several_gpus_stop_a_study_that_trains_on_all_of_them(monkeypatch):
    """TRL stops at the first update, after the hours that generating took."""
    monkeypatch.setattr(check, "visible_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    (found,) = check.findings(Params(trainer="trl"), contents=False)
    assert found.stops and "2 GPUs are visible by CUDA_VISIBLE_DEVICES=2,3, and trl trains on one; set" in found.text
    assert not check.findings(Params(trainer="trl", arms=["zero-shot"]), contents=False)
    assert not check.findings(Params(device="cpu"), contents=False)


def test_of_several_gpus_a_run_takes_the_first_and_says_so(monkeypatch):
    monkeypatch.setattr(check, "visible_gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (found,) = check.findings(Params(trainer="trl"), contents=False)
    assert not found.stops and "2 GPUs are visible: `palign run` uses the first; set CUDA_VISIBLE_DEVICES" in found.text


def test_lengths_that_disagree_are_said_of_any_file(study, capsys):
    """A judge searched up to 8,187 tokens, of which 6,144 could be continued; rows of 5,122 were left out at 4,096."""
    costs = Params().costs.model_dump() | {"trace_tokens": 9291, "trace_spread": 0.83, "prefix_share": 0.5}
    old = {"max_model_len": 8192, "alignment_max_new_tokens": 2048, "max_length": 4096, "costs": costs}
    assert main(["check", study(**old)]) == 0
    err = capsys.readouterr().err
    assert "% of the traces are too long to be judged: half of the trace is read first and exceeds max_mod" in err
    assert (
        "% of the prefixes (adaptive) cannot be continued: beside alignment_max_new_tokens 2048, max_model_len 81"
        in err
    )
    assert "% of p-align's rows (4,732 tokens on average) would exceed max_length 4096 and be left out" in err
    assert main(["check", study(**old | {"max_length": 9000, "max_new_tokens": 8180})]) == 0
    err = capsys.readouterr().err
    assert "max_length 9000 exceeds max_model_len 8192" in err
    assert "max_new_tokens 8180 and a prompt of 45 tokens exceed max_model_len 8192" in err


def test_the_pockets_values_in_a_file_for_another_student_are_said(study, project, capsys):
    """As in an edited copy of pocket.yaml."""
    shutil.copytree(POCKET / "student", project / "other")
    assert main(["check", study(student="other", learning_rate=3e-3)]) == 0
    assert "student: other: the pocket study's values (learning_rate 0.003); leave these" in capsys.readouterr().err


def test_jobs_beyond_the_machines_memory_are_said(monkeypatch):
    monkeypatch.setattr(check, "machine_gb", lambda: 2.0)
    (found,) = check.findings(Params(jobs=4), contents=False)
    assert not found.stops
    assert found.text.startswith("jobs: 4: 4 processes of 0.75 GB (costs.process_gb) exceed this machine's 2.0 GB")
    assert found.text.endswith("set jobs: 2")
    assert not check.findings(Params(jobs=2), contents=False)
    assert not check.findings(Params(jobs=4, arms=["zero-shot", "p-align"]), contents=False)  # never more than two
    assert 0.1 < check.machine_gb() < 100_000


def test_the_audit_is_told_which_benchmark_the_outputs_answer(tmp_path, monkeypatch, capsys):
    """They were always taken for AIME24's."""
    path = str(write_jsonl(tmp_path / "outputs.jsonl", [{"answer": "1", "output": ["\\boxed{1}"], "label": [1]}]))
    told = {}
    monkeypatch.setattr(single, "execute", lambda notebook, executed, values, title: told.update(values))
    monkeypatch.setattr(single.page, "render", lambda *_, **__: None)
    assert main(["audit", "--released", path, "--benchmark", "AMC12"]) == 0
    assert told == {"released": path, "released_benchmark": "AMC12"}
    capsys.readouterr()
    assert main(["audit", "--released", path, "--benchmark", "AIME2025"]) == 2
    assert (
        "--benchmark: 'AIME2025': the paper prints no such benchmark; did you mean AIME25?" in capsys.readouterr().err
    )
    assert main(["audit", "--benchmark", "AMC12"]) == 2
    assert "name them with --released" in capsys.readouterr().err


def test_jupyterlab_opens_where_params_reports_and_runs_can_be_reached():
    """It opened at notebooks/, above which JupyterLab shows nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # `make test` runs this
    done = subprocess.run(["make", "-n", "lab"], cwd=PROJECT, env=env, capture_output=True, text=True, check=True)
    line = done.stdout.splitlines()[-1]
    assert "jupyterlab" in line and line.endswith(f'root_dir="{PROJECT}"')
