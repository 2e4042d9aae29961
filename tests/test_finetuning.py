"""Fine-tuning: which trainer runs, what it is given, and that it stops at the first number that is not finite.

unsloth is not installed here: a module of the same name stands in for it where its choice and the order of imports are
tested. tests/unsloth runs the real one.
"""

import json
import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from palign import finetuning, supervision, traces
from palign.engines.tokenizers import load_tokenizer
from palign.params import FineTuning, Machine, validate
from palign.tasks.plan import Plan
from tests.conftest import PROJECT

pytestmark = pytest.mark.model

FAKE_UNSLOTH = """
import sys

loaded_before = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
"""


@pytest.fixture
def params(small):
    return validate({**small, "arms": ["sft-label", "sft-long-cot"]}, "test")


@pytest.fixture
def collected(params):
    return traces.collect(params)


@pytest.fixture
def fake_unsloth(tmp_path, monkeypatch):
    (tmp_path / "fake" / "unsloth").mkdir(parents=True)
    (tmp_path / "fake" / "unsloth" / "__init__.py").write_text(FAKE_UNSLOTH)
    monkeypatch.syspath_prepend(tmp_path / "fake")
    yield tmp_path / "fake"
    sys.modules.pop("unsloth", None)


def gpu(monkeypatch, capability):
    """A GPU only as far as the choice of trainer and precision checks; it cannot compute."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


def changed(params, **values):
    return params.model_copy(update=values)


def trainer_of(params, folder, rows, kind="trl"):
    """The trainer of one update on ``rows``."""
    model = params.model("student")
    tokenizer = load_tokenizer(model)
    examples = finetuning.encode(rows, tokenizer, model.chat_template_kwargs)
    recipe, machine = params.part(FineTuning), params.part(Machine)
    return finetuning._trainer(recipe, model, machine, folder, examples, tokenizer, 1, params.seed, kind)


def test_an_arm_without_rows_is_said_in_one_line_before_the_lengths(params, collected, monkeypatch):
    """pandas' IntCastingNaNError stood in its place."""
    monkeypatch.setattr(supervision, "build", lambda *_: [])
    for stage in (finetuning.token_lengths, finetuning.finetune):
        with pytest.raises(finetuning.TrainerError, match="sft-label: no training rows: every training question st"):
            stage(params, "sft-label")


def test_a_machine_without_cuda_trains_by_trl_and_says_why(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert finetuning.choose("auto", "auto") == finetuning.Choice("trl", "no CUDA device")
    assert finetuning.choose("auto", "cpu").why == "device is cpu"
    assert finetuning.choose("trl", "auto").why == "asked for"
    with pytest.raises(finetuning.TrainerError, match="unsloth cannot run here: no CUDA device; set trainer: auto"):
        finetuning.choose("unsloth", "auto")


def test_cuda_alone_is_not_enough_for_unsloth(monkeypatch):
    gpu(monkeypatch, (8, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert finetuning.choose("auto", "auto") == finetuning.Choice("trl", "unsloth is not installed")


def test_auto_takes_unsloth_where_cuda_and_unsloth_are_there(monkeypatch, fake_unsloth):
    gpu(monkeypatch, (8, 0))
    assert finetuning.choose("auto", "auto").trainer == "unsloth"
    assert finetuning.choose("trl", "auto").trainer == "trl"
    assert finetuning.choose("auto", "cpu").trainer == "trl"


def test_unsloth_that_comes_too_late_is_refused_in_one_line(params, monkeypatch, fake_unsloth):
    """Imported after transformers it warns, and trains without its kernels."""
    import transformers  # noqa: F401

    gpu(monkeypatch, (8, 0))
    with pytest.raises(finetuning.TrainerError, match=r"before .*transformers.*: restart the kernel") as late:
        finetuning.prepare(changed(params, device="auto"))
    assert "\n" not in str(late.value) and "unsloth" not in sys.modules


def test_prepare_imports_unsloth_before_everything_it_changes(project, fake_unsloth):
    """Wiring only: the module imported is a stand-in."""
    code = (
        "import torch; torch.cuda.is_available = lambda: True\n"
        "from palign import finetuning\nfrom palign.report import figures, tables\n"  # as a notebook has them
        "from palign.params import Params\n"
        "choice = finetuning.prepare(Params())\n"
        "import os, unsloth, transformers, trl\n"
        "print(choice.trainer, unsloth.loaded_before, os.environ['UNSLOTH_DISABLE_STATISTICS'])\n"
    )
    path = os.pathsep.join([str(fake_unsloth), str(PROJECT)])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[0] == "unsloth [] 1", done.stderr


def test_without_unsloth_prepare_imports_none_of_the_three(project):
    code = (
        "import sys; from palign import finetuning; from palign.params import Params\n"
        "finetuning.prepare(Params(device='cpu'))\n"
        "print({'trl', 'transformers', 'peft', 'unsloth'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    "dtype, capability, expected",
    [
        ("auto", (7, 5), "float16"),
        ("bfloat16", (7, 5), "float16"),
        ("auto", (8, 0), "bfloat16"),
        ("bfloat16", (9, 0), "bfloat16"),
        ("float16", (9, 0), "float16"),
        ("float32", (7, 5), "float32"),
    ],
)
def test_bfloat16_begins_at_compute_capability_8(monkeypatch, dtype, capability, expected):
    gpu(monkeypatch, capability)
    assert finetuning.precision(dtype, "auto") == expected
    assert finetuning.precision(dtype, "cpu") == dtype


def test_4_bits_need_a_gpu(params, collected, tmp_path):
    with pytest.raises(finetuning.TrainerError, match="load_in_4bit: needs a GPU; set load_in_4bit: false"):
        finetuning.finetune(changed(params, load_in_4bit=True), "sft-label")


@pytest.mark.parametrize(
    "kind, capability, lacking",
    [("trl", (7, 5), "a GPU of compute capability 8.0, or unsloth"), ("unsloth", (7, 5), "bitsandbytes")],
)
def test_4_bits_are_never_dropped_silently(monkeypatch, kind, capability, lacking):
    """unsloth prints a line and goes on in full precision, which needs four times the memory."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    gpu(monkeypatch, capability)
    with pytest.raises(finetuning.TrainerError, match=f"load_in_4bit: needs {lacking}") as refused:
        finetuning._check_4bit("auto", kind)
    assert "\n" not in str(refused.value)


def test_rows_beyond_the_models_window_are_refused_before_it_is_loaded(params, collected):
    """unsloth would rescale all positions, and evaluation, which does not, would see another model."""
    with pytest.raises(finetuning.TrainerError, match="max_length 1025: the student has 1024 positions"):
        finetuning.finetune(changed(params, max_length=1025), "sft-label")
    assert finetuning.finetune(changed(params, max_length=1024, num_train_epochs=1.0), "sft-label")["updates"] == 3


def test_the_adapter_names_its_base_model_and_no_path_of_this_machine(params, collected, project):
    """An adapter whose config names the trainer's home directory cannot be loaded, or published, by anyone else."""
    params = changed(params, student_revision="main", num_train_epochs=1.0)
    finetuning.finetune(params, "sft-label")
    folder = Plan(params).finetuning("sft-label").folder.path / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("student", "main")
    for file in folder.iterdir():
        assert str(project).encode() not in file.read_bytes() and str(PROJECT).encode() not in file.read_bytes(), file


def test_the_manifest_names_the_trainer_and_why(params, collected, capsys):
    facts = finetuning.finetune(changed(params, num_train_epochs=1.0), "sft-label")
    assert (facts["trainer"], facts["trainer_why"]) == ("trl", "device is cpu")
    assert (facts["weights"], facts["autocast"]) == ("float32", None)
    assert facts["peak_memory_bytes"] > 1e8, "torch alone takes more"
    assert "max_length 512 cuts 0 rows and leaves out 0" in capsys.readouterr().out


def test_lengths_are_told_before_training_and_agree_with_what_was_trained(params, collected, capsys):
    params = changed(params, max_length=150, num_train_epochs=1.0)
    table = finetuning.token_lengths(params, "sft-long-cot")
    assert not Plan(params).finetuning("sft-long-cot").folder.done
    facts = finetuning.finetune(params, "sft-long-cot")
    assert 0 < table.loc["row", "left out"] == facts["rows_left_out"] < 12
    assert table.loc["row", "longest"] == facts["longest_row_tokens"] and table.loc["row", "cut"] == 0
    assert "warning: sft-long-cot: of 12 rows max_length 150 leaves out" in capsys.readouterr().out


def test_the_first_row_is_shown_as_the_student_reads_it_with_its_loss(params, collected, monkeypatch):
    prompt, response = finetuning.first_row(params, "sft-long-cot").split("\n\n[response, with loss]\n")
    trace = collected[0]
    assert prompt.startswith("[prompt, without loss]\n<|im_start|>") and trace.question in prompt
    assert response.startswith(trace.trace) and response.rstrip().endswith("<|im_end|>")
    monkeypatch.setattr(finetuning, "SHOWN", (10, 5))
    assert f"{trace.trace[:10]}\n[" in finetuning.first_row(params, "sft-long-cot")


def test_nothing_is_said_where_all_rows_fit(params, collected, capsys):
    finetuning.token_lengths(params, "sft-long-cot")
    assert "warning" not in capsys.readouterr().out


def test_a_row_without_room_for_its_response_is_left_out_and_counted(params, collected):
    """If kept, it would be a row with nothing to learn; if dropped silently, the count would be wrong."""
    params = changed(params, max_length=50, num_train_epochs=1.0)
    dropped = finetuning.token_lengths(params, "sft-label").loc["row", "left out"]
    facts = finetuning.finetune(params, "sft-label")
    assert 0 < dropped == facts["rows_left_out"] < 12
    with pytest.raises(finetuning.TrainerError, match="max_length 10: no row fits it with its answer"):
        finetuning.finetune(changed(params, max_length=10), "sft-label")


def test_a_template_that_writes_a_prompt_otherwise_in_training_is_refused(params, collected):
    """Training and evaluation on different prompts measure the base model, not the trained one."""
    tokenizer = load_tokenizer(params.model("student"))
    tokenizer.chat_template = "{% if not add_generation_prompt %}Train: {% endif %}" + tokenizer.chat_template
    with pytest.raises(finetuning.TrainerError, match="renders the prompt differently"):
        finetuning.encode(supervision.build(params, "sft-label"), tokenizer, params.chat_template_kwargs)


def test_a_loss_that_is_no_number_stops_the_run_with_its_rows(params, collected, monkeypatch):
    """The trainer's own log shows an average instead."""
    original = finetuning._trainer

    def build(*args):
        trainer = original(*args)
        loss = trainer.compute_loss
        trainer.compute_loss = lambda *a, **k: loss(*a, **k) * (float("nan") if trainer.state.global_step == 2 else 1)
        return trainer

    monkeypatch.setattr(finetuning, "_trainer", build)
    with pytest.raises(finetuning.NotFinite, match=r"the loss is not finite at update 3, rows (\w+, ){3}\w+; likely"):
        finetuning.finetune(params, "sft-label")


@pytest.mark.parametrize(
    "room, by", [(50_000, "SafetensorError"), (700_000, "RuntimeError")], ids=["adapter", "optimizer"]
)
def test_a_disk_without_room_for_a_checkpoint_is_said_plainly(params, collected, room, by):
    """torch would say "unexpected pos 640 vs 598"; once there is room, training goes on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="no room for a checkpoint on this disk") as caught:
            finetuning.finetune(params, "sft-label")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert type(caught.value.__cause__).__name__ == by
    assert finetuning.finetune(params, "sft-label")["updates"] == 6


def test_float16_may_overflow_now_and_then_but_not_for_good(params, collected, tmp_path):
    """Loss scaling starts too high on purpose: its first overflows are how it finds its scale."""
    trainer = trainer_of(params, tmp_path, supervision.build(params, "sft-label"))
    (watch,) = [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "Watch"]
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.full((1,), float("inf"))
    model = SimpleNamespace(named_parameters=lambda: [("lora_A", parameter)])
    half, state = SimpleNamespace(fp16=True), SimpleNamespace(global_step=0)
    for _ in range(finetuning.SCALER_TRIES - 1):
        watch.on_pre_optimizer_step(half, state, None, model=model)
    with pytest.raises(finetuning.NotFinite, match="gradient of lora_A"):
        watch.on_pre_optimizer_step(half, state, None, model=model)
    watch.overflows = 0
    with pytest.raises(finetuning.NotFinite):
        watch.on_pre_optimizer_step(SimpleNamespace(fp16=False), state, None, model=model)
