"""The GPU acceptance: its parts that need no GPU; all of it under the ``gpu`` marker."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu
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


def trained(*losses, weights="bfloat16", **settings):
    return {
        "losses": list(losses),
        "weights": weights,
        "settings": {"optim": "adamw", "weight_decay": "0.0"} | settings,
    }


def test_losses_agree_within_the_limits_of_their_type():
    assert gpu.compare(trained(1.0, 0.5), trained(1.005, 0.51))["agree"]
    assert not gpu.compare(trained(1.0, 0.5), trained(1.02, 0.5))["agree"]  # the first is of the same weights
    assert not gpu.compare(trained(1.0, 0.5, 0.5), trained(1.0, 0.6, 0.6))["agree"]
    assert not gpu.compare(trained(1.0, 0.5, weights="float32"), trained(1.005, 0.51, weights="float32"))["agree"]
    with pytest.raises(ValueError):
        gpu.compare(trained(1.0, 0.5), trained(1.0))


def test_another_optimizer_or_weight_decay_fails_whatever_the_losses():
    """Losses show unsloth's own defaults, adamw_8bit and 0.001, in the sixth digit only."""
    found = gpu.compare(trained(1.0, 0.5), trained(1.0, 0.5, weight_decay="0.001"))
    assert found["settings"] == {"weight_decay": ["0.0", "0.001"]} and not found["agree"]
    assert not gpu.compare(trained(1.0, 0.5), trained(1.0, 0.5, optim="adamw_8bit"))["agree"]


def test_activations_that_stayed_on_the_gpu_fail():
    assert gpu.compare(trained(1.0), trained(1.0) | {"offloaded": True})["agree"]
    assert not gpu.compare(trained(1.0), trained(1.0) | {"offloaded": False})["agree"]


def results(unsloth_losses):
    cost = {"updates": 2, "train_seconds": 1.0, "autocast": "bfloat16"}
    trl = trained(1.0, 0.5) | cost | {"tokens_per_second": 1000.0, "peak_memory_bytes": 2**30}
    ours = trained(*unsloth_losses) | cost | {"tokens_per_second": 2000.0, "peak_memory_bytes": 2**29}
    answered = {"problems": 8, "right": 50.0, "tokens_per_second": 10.0}
    read = {"prompts": 8, "same_verdicts": 100.0, "largest_difference": 1e-4, "agree": True}
    same = {"problems": 8, "same": 100.0, "agree": True}
    memory = same | {"peak_bytes": 4, "allowed_bytes": 3, "used_bytes": 2}
    left_out = {"left out": "vllm is not installed"}
    found = [trl, ours, trl, ours, answered, answered, read, same, memory, left_out]
    return dict(zip(gpu.PIECES, found, strict=True))


def test_the_report_states_ratio_memory_and_what_was_left_out(tmp_path):
    assert gpu.report(results([1.0, 0.5]), tmp_path, MACHINE)
    text = (tmp_path / "report.md").read_text()
    assert "2.00 times the tokens a second, 0.50 times the peak memory" in text
    assert "| vllm | left out: vllm is not installed |" in text and "train: TRL and unsloth agree" in text
    assert not gpu.report(results([1.0, 0.9]), tmp_path, MACHINE)
    assert "DO NOT AGREE" in (tmp_path / "report.md").read_text()
    assert not gpu.report(results([1.0, 0.5]) | {"vllm": {"failed": "exit code 1"}}, tmp_path, MACHINE)
    outside = {"prompts": 8, "same_verdicts": 50.0, "largest_difference": 1.0, "agree": False}
    assert not gpu.report(results([1.0, 0.5]) | {"read": outside}, tmp_path, MACHINE)
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
        if piece == "evaluate-trl" and len(asked) < 6:
            raise subprocess.TimeoutExpired(command, timeout)
        gpu.write_atomically(gpu.folder() / f"{piece}.json", json.dumps(outcomes[piece]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.main(["--seconds", "60"]) == 1
    assert asked == gpu.PIECES[:5]
    assert gpu.main([]) == 0
    assert asked[5:] == gpu.PIECES[4:]
    assert gpu.main([]) == 0
    assert asked[11:] == ["vllm"]  # not installed then: it may be now


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


def test_long_rows_and_cached_reading_run_on_a_cpu_too(here):
    params = gpu.parameters("trl", dtype="float32").model_copy(update={"device": "cpu"})
    found = gpu.train_long(params, same_start=False, updates=2, longest=80)
    assert len(found["losses"]) == 2 and found["settings"]["weight_decay"] == "0.0" and "offloaded" not in found
    found = gpu.read(params, longest=80)
    assert found["agree"] and found["prompts"] == 64 and found["largest_difference"] < 1e-4


def _zeros(path):
    from safetensors.torch import load_file

    return not any(tensor.any() for tensor in load_file(path).values())


class TestAcceptance:
    pytestmark = needs_gpu

    def test_passes(self, here):
        assert gpu.main(["--fresh"]) == 0
