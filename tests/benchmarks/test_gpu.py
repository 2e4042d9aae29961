"""The GPU acceptance: its parts that need no GPU; all of it, and unsloth itself, under the ``gpu`` marker."""

import inspect
import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu
from palign import finetuning
from tests.conftest import PROJECT

pytestmark = pytest.mark.model

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
MACHINE = {"gpu": "none", "packages": {"torch": "0"}}


@pytest.fixture
def here(project):
    (project / "palign").symlink_to(PROJECT / "palign")
    return project


def test_without_cuda_it_says_so_in_one_line_and_exits_2(here, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "gpu acceptance: no CUDA device on this machine; nothing was run\n"
    assert not (here / "reports").exists() and not (here / "runs").exists()


def test_out_of_time_it_reports_what_is_left(here, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "machine", lambda: MACHINE)
    assert gpu.main(["--seconds", "0"]) == 1
    assert capsys.readouterr().out.count("not run yet") == len(gpu.PIECES)
    assert json.loads((here / "reports" / "gpu-acceptance" / "results.json").read_text())["passed"] is False


def test_losses_agree_within_the_stated_limits():
    assert gpu.compare([1.0, 0.5], [1.01, 0.52])["agree"]
    assert not gpu.compare([1.0, 0.5], [1.03, 0.5])["agree"]  # the first is of the same weights
    assert not gpu.compare([1.0, 0.5, 0.5], [1.0, 0.6, 0.6])["agree"]
    with pytest.raises(ValueError):
        gpu.compare([1.0, 0.5], [1.0])


def results(unsloth_losses):
    trained = {"updates": 2, "train_seconds": 1.0, "weights": "bfloat16", "autocast": "bfloat16"}
    trl = trained | {"losses": [1.0, 0.5], "tokens_per_second": 1000.0, "peak_memory_bytes": 2**30}
    ours = trained | {"losses": unsloth_losses, "tokens_per_second": 2000.0, "peak_memory_bytes": 2**29}
    answered = {"problems": 8, "right": 50.0, "tokens_per_second": 10.0}
    left_out = {"left out": "vllm is not installed"}
    return dict(zip(gpu.PIECES, [trl, ours, answered, answered, left_out], strict=True))


def test_the_report_states_ratio_memory_and_what_was_left_out(tmp_path):
    assert gpu.report(results([1.0, 0.5]), tmp_path, MACHINE)
    text = (tmp_path / "report.md").read_text()
    assert "2.00 times the tokens a second, 0.50 times the peak memory" in text
    assert "| vllm | left out: vllm is not installed |" in text and "Losses agree" in text
    assert not gpu.report(results([1.0, 0.9]), tmp_path, MACHINE)
    assert "DO NOT AGREE" in (tmp_path / "report.md").read_text()
    assert not gpu.report(results([1.0, 0.5]) | {"vllm": {"failed": "exit code 1"}}, tmp_path, MACHINE)
    missing = {"left out": "unsloth is not installed"}
    assert not gpu.report(results([1.0, 0.5]) | {"train-unsloth": missing}, tmp_path, MACHINE)


def test_pieces_run_apart_and_those_that_are_done_stay_done(here, monkeypatch, capsys):
    """A GPU session that ends early must not lose its measurements."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "machine", lambda: MACHINE)
    outcomes, asked = results([1.0, 0.5]), []

    def run(command, env, timeout):
        piece = command[command.index("--piece") + 1]
        asked.append(piece)
        assert env["HF_HUB_OFFLINE"] == "1" and str(PROJECT) in env["PYTHONPATH"]
        if piece == "evaluate-trl" and len(asked) < 4:
            raise subprocess.TimeoutExpired(command, timeout)
        gpu.write_atomically(gpu.folder() / f"{piece}.json", json.dumps(outcomes[piece]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.main(["--seconds", "60"]) == 1
    assert asked == ["train-trl", "train-unsloth", "evaluate-trl"]
    assert gpu.main([]) == 0
    assert asked[3:] == ["evaluate-trl", "evaluate-unsloth", "vllm"]
    assert gpu.main([]) == 0
    assert asked[6:] == ["vllm"]  # not installed then: it may be now


def test_training_can_start_from_the_same_adapter_and_is_evaluated(here, monkeypatch):
    """By TRL on the CPU. From an adapter of zeros nothing is learnt, so one that is really loaded shows."""
    from safetensors.torch import load_file, save_file

    params = gpu.parameters("trl", dtype="float32", rows=16, problems=2).model_copy(update={"device": "cpu"})
    first = gpu.train(params, same_start=False)
    assert first["updates"] == len(first["losses"]) == 6 and first["tokens_per_second"] > 0
    assert gpu.evaluate(params)["problems"] == 4

    saved = here / "runs" / "gpu-acceptance" / "initial-adapter.safetensors"
    start = load_file(saved)
    again = params.model_copy(update={"training_limit": 15})
    save_file({name: torch.zeros_like(tensor) for name, tensor in start.items()}, saved)
    trained = gpu.train(again, same_start=True)
    adapter = load_file(next(p for p in (here / "runs").rglob("adapter_model.safetensors") if _zeros(p)))
    assert len(trained["losses"]) == 6 and set(adapter) == set(start)
    save_file({f"other.{name}": tensor for name, tensor in start.items()}, saved)
    with pytest.raises(RuntimeError, match="name the adapter's weights differently"):
        gpu.train(params.model_copy(update={"training_limit": 14}), same_start=True)


def _zeros(path):
    from safetensors.torch import load_file

    return not any(tensor.any() for tensor in load_file(path).values())


@pytest.mark.parametrize("name", ["from_pretrained", "get_peft_model"])
class TestUnsloth:
    pytestmark = needs_gpu

    def test_takes_the_arguments_it_is_given(self, name):
        """unsloth swallows arguments it does not know; a renamed one would be left out silently."""
        import ast

        unsloth = pytest.importorskip("unsloth")
        from unsloth.models.llama import FastLlamaModel

        owner = unsloth.FastLanguageModel if name == "from_pretrained" else FastLlamaModel
        known = set(inspect.signature(inspect.unwrap(getattr(owner, name))).parameters)
        calls = ast.walk(ast.parse(inspect.getsource(finetuning._unsloth_model)))
        (call,) = [c for c in calls if isinstance(c, ast.Call) and getattr(c.func, "attr", None) == name]
        assert {keyword.arg for keyword in call.keywords} <= known


class TestAcceptance:
    pytestmark = needs_gpu

    def test_passes(self, here):
        assert gpu.main(["--fresh"]) == 0
