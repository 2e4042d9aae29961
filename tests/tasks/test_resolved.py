"""What was open is decided once for a study, and stays so: commits, trainer, precision."""

import importlib.util
import json

import pytest
import torch

from palign import finetuning, traces
from palign.params import Benchmark, Params, validate
from palign.report.results import Results
from palign.tasks import resolved
from palign.tasks.plan import Plan
from palign.tasks.store import StoreError

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(monkeypatch):
    """A hub whose newest commits the test decides; it counts how often it is asked."""
    newest, asked = {}, []

    def look_up(kind, name, revision):
        asked.append((kind, name, revision))
        return newest.get(name)

    monkeypatch.setattr(resolved, "_from_hub", look_up)
    return newest, asked


def study(**values) -> Params:
    return Params(study="hub", student="made-up/student", **values)


def test_a_null_revision_means_one_commit_for_the_studys_whole_life(project, hub):
    """A hub that moved on gave half a study another model, under the same key."""
    newest, asked = hub
    newest["made-up/student"] = OLD
    first = resolved.settled(study())
    newest["made-up/student"] = NEW
    again = resolved.settled(study())
    assert first.student_revision == again.student_revision == OLD
    assert again.model("student").revision == OLD, "the engines load this commit"
    assert len(asked) == 1
    newest.clear()  # offline
    assert resolved.settled(study()).student_revision == resolved.pinned(study()).student_revision == OLD


def test_a_report_and_the_lengths_before_training_read_the_kept_commit(project, hub, monkeypatch):
    """What is read outside of a task loaded the hub's newest tokenizer."""
    newest, _ = hub
    newest["made-up/student"] = OLD
    resolved.settled(study())
    assert Results(study()).params.student_revision == OLD
    opened = []
    monkeypatch.setattr(finetuning, "load_tokenizer", lambda model: opened.append(model.revision))
    monkeypatch.setattr(finetuning.supervision, "build", lambda *args: [{"id": "1", "fallback": False}])
    monkeypatch.setattr(
        finetuning, "encode", lambda *args: [{"id": "1", "answers": True, "input_ids": [1, 2], "prompt_tokens": 1}]
    )
    finetuning.token_lengths(study(), "sft-label")
    assert opened == [OLD]


def test_every_input_from_the_hub_is_pinned(project, hub):
    newest, asked = hub
    newest |= dict.fromkeys(("made-up/student", "made-up/judge", "made-up/teacher", "made-up/s1k", "made-up/aime"), OLD)
    values = {"judge": "made-up/judge", "teacher": "made-up/teacher", "training_data": "made-up/s1k"}
    benchmark = Benchmark(name="aime", data="made-up/aime", problems=1)
    found = resolved.settled(study(**values, benchmarks=[benchmark]))
    assert [found.student_revision, found.judge_revision, found.teacher_revision, found.training_revision] == [OLD] * 4
    assert found.benchmarks[0].revision == OLD
    assert {kind for kind, *_ in asked} == {"model", "dataset"}


def test_the_commit_is_in_the_keys_of_what_reads_the_model(project, hub):
    newest, _ = hub
    keys = []
    for commit in (OLD, NEW):
        newest["made-up/student"] = commit
        resolved.settled(study())
        keys.append({task.name: task.key for task in Plan(study()).tasks()})
        (project / "runs" / "hub" / "resolved.json").unlink()
    same = {name for name in keys[0] if keys[0][name] == keys[1][name]}
    assert same == {"benchmarks/test", "traces/training", "overlap/train-test"}


def test_a_stated_commit_and_a_local_folder_are_not_looked_up(project, hub):
    _, asked = hub
    resolved.settled(study(student_revision=OLD))
    resolved.settled(Params(study="local"))
    assert asked == [] and not (project / "runs" / "local").exists()


def test_a_branch_is_looked_up_apart_from_the_newest(project, hub):
    newest, asked = hub
    newest["made-up/student"] = OLD
    resolved.settled(study())
    newest["made-up/student"] = NEW
    assert resolved.settled(study(student_revision="main")).student_revision == NEW
    assert asked == [("model", "made-up/student", None), ("model", "made-up/student", "main")]


def test_what_the_hub_does_not_know_stays_open(project, hub):
    assert resolved.settled(study()).student_revision is None


def test_the_cache_answers_where_the_hub_does_not(project, hub, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(project / "cache"))
    refs = project / "cache" / "models--made-up--student" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(OLD)
    assert resolved.settled(study()).student_revision == OLD


def test_a_damaged_file_is_told_in_one_line(project):
    path = project / "runs" / "hub" / "resolved.json"
    path.parent.mkdir(parents=True)
    path.write_text("[1]")
    with pytest.raises(StoreError, match=r"resolved.json: not a JSON object of names; delete it"):
        Plan(study())


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with_unsloth(monkeypatch)


def with_unsloth(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: name == "unsloth" or real(name, *rest))


def test_the_trainer_and_the_precision_that_run_are_in_the_key(monkeypatch, project):
    """`auto` trained by TRL on a CPU and by unsloth on a GPU under one key: the arms of one study differed."""
    params = Params(study="auto", dtype="bfloat16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = Plan(params).finetuning("p-align").key
    stated = Params(study="auto", dtype="bfloat16", trainer="trl")
    assert Plan(stated).finetuning("p-align").key == on_cpu, "the same trainer, whoever chose it"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with_unsloth(monkeypatch)
    on_t4 = Plan(params).finetuning("p-align").key
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert len({on_cpu, on_t4, Plan(params).finetuning("p-align").key}) == 3


def test_a_finished_study_is_read_on_a_machine_without_its_gpu(small, gpu, monkeypatch):
    params = validate({**small, "device": "auto"}, "test")
    resolved.keep_training(params)
    trained = Plan(params).finetuning("p-align").key
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Plan(params).finetuning("p-align").key == trained
    traces.collect(params)
    with pytest.raises(finetuning.TrainerError, match="this study trains by unsloth in float32, this machine by trl"):
        finetuning.finetune(params, "sft-label")


def test_the_choice_is_kept_when_training_begins(small):
    params = validate({**small, "num_train_epochs": 1.0}, "test")
    traces.collect(params)
    finetuning.finetune(params, "sft-label")
    kept = json.loads(resolved._path(params).read_text())
    assert kept == {"trainer auto on cpu": "trl", "dtype float32 on cpu": "float32"}
