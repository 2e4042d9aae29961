"""The real unsloth, on a CPU: what the project asks of it, and four updates in float32.

Shown: unsloth knows every argument it is given; the trainer that the project builds has the settings asked for, and
TRL's; unsloth's Python and its Triton kernels, interpreted, give TRL's losses; a killed run resumes; the adapter loads
without unsloth. Not shown: anything of CUDA, kernels as compiled, bfloat16 and float16, 4-bit weights, activations in
host memory, speed: `make gpu-acceptance` is for those. `make test-unsloth` runs these tests, in an environment with
unsloth; without it they are left out.
"""

import ast
import inspect
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from palign import finetuning
from tests.conftest import PROJECT
from tests.unsloth import study

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(find_spec("unsloth") is None, reason="unsloth is not installed: see `make test-unsloth`"),
]

NOT_ON_A_CPU = {"gradient_checkpointing"}
"""TRL's own trainer recomputes activations on a GPU only; the numbers are the same."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The Llama, and TRL's trainer on it, which writes the adapter that both start from."""
    folder = tmp_path_factory.mktemp("unsloth")
    study.make(folder)
    return folder


@pytest.fixture(scope="module")
def trl(folder):
    from benchmarks.gpu import _save_start, settings

    trainer = study.trainer(folder, "trl", device="cpu")
    asked = settings(trainer)
    _save_start(trainer.model, folder / "start.safetensors")
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"settings": asked, "losses": losses, "trainer": trainer}


def worker(folder, code=0, **asked):
    """What a process with unsloth found; unsloth changes transformers and TRL for the process that imports it."""
    command = [sys.executable, "-m", "tests.unsloth.worker", str(folder), json.dumps({"dtype": "float32"} | asked)]
    environment = os.environ | {
        "PYTHONPATH": str(PROJECT),
        "UNSLOTH_COMPILE_LOCATION": str(folder / asked.get("dtype", "float32")),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]) if code == 0 else None


@pytest.fixture(scope="module")
def built(folder):
    with ThreadPoolExecutor() as pool:
        found = {dtype: pool.submit(worker, folder, dtype=dtype) for dtype in ("float32", "bfloat16")}
    return {dtype: future.result() for dtype, future in found.items()}


@pytest.mark.parametrize("name", ["from_pretrained", "get_peft_model"])
def test_unsloth_knows_every_argument_it_is_given(built, name):
    """It swallows those that it does not know; a renamed one would be left out silently."""
    calls = ast.walk(ast.parse(inspect.getsource(finetuning._unsloth_model)))
    (call,) = [c for c in calls if isinstance(c, ast.Call) and getattr(c.func, "attr", None) == name]
    given = {keyword.arg for keyword in call.keywords}
    assert given and given <= set(built["float32"]["signatures"][name])


def test_the_trainer_under_unsloth_has_every_setting_of_trls(built, trl):
    """unsloth's own defaults are another optimizer, a weight decay, and autocast where float32 was asked for."""
    found = built["float32"]["settings"]
    assert {k: v for k, v in found.items() if k not in NOT_ON_A_CPU} == {
        k: v for k, v in trl["settings"].items() if k not in NOT_ON_A_CPU
    }
    assert found["optim"].endswith("ADAMW_TORCH_FUSED") and found["weight_decay"] == "0.0"
    assert (found["bf16"], found["fp16"], found["mixed_precision"]) == ("False", "False", "no")
    assert (found["seed"], found["data_seed"]) == ("7", "7")
    assert found["gradient_checkpointing"] == "True" and "Unsloth" in built["float32"]["class"]


def test_a_half_type_autocasts_and_activations_in_host_memory_are_exact(built):
    found = built["bfloat16"]["settings"]
    assert (found["bf16"], found["fp16"], found["weights"]) == ("True", "False", "torch.bfloat16")
    assert found["trained_type"] == "['torch.float32']"
    assert built["float32"]["exact_offload"] and built["bfloat16"]["exact_offload"]


def test_what_unsloth_would_change_silently_is_refused_in_one_line(built):
    """It goes on in full precision without bitsandbytes, and rescales positions beyond the model's window."""
    assert built["float32"]["4 bits"].startswith("load_in_4bit: needs bitsandbytes with a library for this CUDA")
    assert built["float32"]["window"].startswith("max_length 65: the student has 64 positions")


@pytest.fixture(scope="module")
def trained(folder, trl):
    """Killed while the third update computes, then resumed from the checkpoint of the second."""
    worker(folder, code=9, train=True, stop=2)
    assert finetuning._last_checkpoint(folder / "unsloth" / "checkpoints").endswith("checkpoint-2")
    return worker(folder, train=True)


def test_four_updates_killed_and_resumed_give_trls_losses(trained, trl):
    assert len(trl["losses"]) == study.UPDATES
    assert trained["losses"] == pytest.approx(trl["losses"], rel=1e-5)


def test_the_saved_adapter_loads_without_unsloth_and_is_trls(folder, trained, trl):
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder / "unsloth" / "adapter")
    found = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    expected = get_peft_model_state_dict(trl["trainer"].model, save_embedding_layers=False)
    assert set(found) == set(expected) and any(expected[name].any() for name in expected if "lora_B" in name)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-4), name
    assert "unsloth" not in sys.modules
