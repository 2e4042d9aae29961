"""No code that came with data or a model runs, no path leads out of the project, and no secret is stored."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from palign import finetuning, params
from palign.engines.base import EngineError
from palign.engines.opening import open_engine
from palign.engines.transformers import TransformersEngine
from palign.params import Machine, Model, Params, ParamsError
from palign.tasks.plan import Plan
from tests.conftest import POCKET, PROJECT

SOURCES = sorted((PROJECT / "palign").rglob("*.py"))
RUN_DATA = {"eval", "exec", "compile", "__import__"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_data_is_run_unpickled_or_loaded_as_more_than_plain_yaml(path):
    """Checkpoints are the one exception: ``Trainer`` reads back its own optimizer and random states, from runs/."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) (pickle|dill|joblib|shelve|marshal)\b", text, re.M)
    assert not re.search(r"^\s*from yaml\b|\byaml as\b", text, re.M), "yaml's functions by other names"
    for node, name in calls(path):
        assert name not in RUN_DATA | {"torch.load", "os.system"}
        if name.startswith("yaml.") and "load" in name and name != "yaml.safe_load":
            module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
            loader = getattr(importlib.import_module(module), ast.unparse(node.args[1]))
            assert name == "yaml.load" and issubclass(loader, yaml.SafeLoader), f"{path}: {ast.unparse(node)}"
            with pytest.raises(yaml.constructor.ConstructorError):
                yaml.load("!!python/object/apply:os.getpid []", loader)
        assert not any(keyword.arg == "shell" for keyword in node.keywords), f"{name} through a shell"


def test_every_model_is_loaded_from_safetensors_and_trusted_by_name_alone():
    found = {}
    for path in SOURCES:
        for node, name in calls(path):
            if name.endswith("from_pretrained") or name == "LLM":
                found[f"{path.relative_to(PROJECT)}: {name}"] = {
                    keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords
                }
    assert len(found) == 7
    for where, keywords in found.items():
        if "PeftModel" not in where:  # of an adapter there is only safetensors to load, checked before
            assert keywords["trust_remote_code"] == "model.trusted", where
        if "AutoModel" in where:
            assert keywords["use_safetensors"] == "True", where
    for path in SOURCES:
        assert "trust_remote_code=True" not in path.read_text(encoding="utf-8")


def test_a_models_own_code_runs_only_where_the_params_name_it():
    named = Params(trust_remote_code=["some/judge"], judge="some/judge", teacher="some/teacher")
    assert named.model("judge").trusted
    for role in ("student", "teacher", "preference_judge"):
        assert not named.model(role).trusted
    assert Params(trust_remote_code=["palign/pocket/student"]).model("student").trusted
    assert not Model(name="any").trusted


def test_a_models_own_code_does_not_run_unasked(tmp_path):
    """A config's auto_map names a Python file beside the weights."""
    folder = tmp_path / "student"
    shutil.copytree(POCKET / "student", folder)
    config = yaml.safe_load((folder / "config.json").read_text())
    config |= {"model_type": "strange", "architectures": ["Strange"], "auto_map": {"AutoConfig": "strange.Strange"}}
    (folder / "config.json").write_text(yaml.safe_dump(config, default_flow_style=True, width=10**6))
    (folder / "strange.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Strange: pass\n")
    with pytest.raises((ValueError, OSError)):
        open_engine(Model(name=str(folder)), Machine())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "load",
    [
        lambda model: TransformersEngine.open(model, Machine(device="cpu"), None),
        lambda model: finetuning._trl_model(model, load_in_4bit=False, device="cpu"),
    ],
    ids=["engine", "trainer"],
)
def test_weights_that_are_pickles_are_refused_in_one_line(tmp_path, load):
    folder = tmp_path / "student"
    shutil.copytree(POCKET / "student", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"student: holds pytorch_model\.bin and no \.safetensors; [^\n]*$"):
        load(Model(name=str(folder)))


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/b", "a\\b", "..", ".x", "-x", "", "a\n", "a\x00b", "a" * 300, "~"]
)
def test_no_name_leads_out_of_the_studys_folders(name):
    with pytest.raises(ParamsError):
        params.validate({"study": name}, "test")
    benchmark = {"name": name, "data": "x.jsonl", "problems": 1}
    with pytest.raises(ParamsError):
        params.validate({"study": "x", "benchmarks": [benchmark]}, "test")
    with pytest.raises(ParamsError):
        params.validate({"study": "x", "arms": [name]}, "test")


def test_every_folder_of_a_study_lies_in_its_own(small, project):
    plan = Plan(params.validate(small, "test"))
    for step in plan.steps():
        for task in step.tasks:
            assert task.folder.path.resolve().is_relative_to(project / "runs" / "small")
        assert step.executed.resolve().is_relative_to(project / "runs" / "small")
    assert plan.report_path.resolve().is_relative_to(project / "reports" / "small")


SECRETS = {
    "HF_TOKEN": "hf_plantedXdjRmWqLbTzKpYvNcGhSaEfUoI",
    "OPENAI_API_KEY": "sk-planted-9f8e7d6c5b4a39281706",
    "PALIGN_API_KEY": "planted-key-0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "plantedAwsSecretValue1234567890",
}


def test_a_secret_of_the_environment_is_written_nowhere(small, project):
    """A notebook of the study, run as ``palign run`` runs it, and all its files and output."""
    command = (
        "from palign import params; from palign.study import run; from palign.tasks.plan import Plan;"
        "plan = Plan(params.load('params/small.yaml'));"
        "run._execute(plan.steps()[0])"
    )
    environment = os.environ | SECRETS | {"PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    written = [path for path in project.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "manifest.json" for path in written) and any(path.suffix == ".ipynb" for path in written)
    assert Plan(params.load("params/small.yaml")).traces.folder.done
    for name, secret in SECRETS.items():
        assert secret not in done.stdout + done.stderr, name
        assert not [path for path in written if secret.encode() in path.read_bytes()], name
