"""Acceptance of a GPU: ``python -m benchmarks.gpu``. Any CUDA machine, no network, a few minutes.

Fine-tunes the pocket student by TRL and by unsloth on the same rows, from the same adapter, and compares the losses
update by update; evaluates both adapters on a small benchmark; generates with vLLM where vllm is installed. Writes
``reports/gpu-acceptance/results.json`` and ``report.md``.

Each piece runs in its own process, because unsloth changes transformers for the whole process, and keeps its result in
``runs/gpu-acceptance/``. With ``--seconds`` the command stops after that time, and the next call goes on; ``--pieces``
runs some of them; ``--fresh`` deletes earlier results. Exit code: 0 when every piece is done and the losses agree, 1
when not, 2 on a machine without CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from palign.params import Machine, Params, root, validate
from palign.tasks.plan import Plan
from palign.tasks.store import provenance, write_atomically

ARM = "sft-long-cot"
PIECES = ["train-trl", "train-unsloth", "evaluate-trl", "evaluate-unsloth", "vllm"]
FIRST, MEAN = 0.02, 0.05
"""The losses agree when the first differs by no more than FIRST of its value, and all on average by no more than MEAN.

The first losses are of the same weights. Later ones drift apart: kernels round differently, and updates add that up.
"""


def folder() -> Path:
    return root() / "runs" / "gpu-acceptance"


def parameters(trainer: str, dtype: str = "auto", rows: int = 96, problems: int = 40) -> Params:
    """The pocket study's student and traces, 36 updates, without dropout, whose draws the two trainers do not share."""
    data = root() / "palign" / "pocket" / "data"
    benchmarks = []
    for name in ("dial-2", "dial-4"):
        small = Path("runs") / "gpu-acceptance" / f"{name}.jsonl"
        lines = (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(root() / small, "".join(lines[:problems]))
        benchmarks.append({"name": name, "data": str(small), "problems": problems})
    values = {
        "study": "gpu-acceptance",
        "trainer": trainer,
        "dtype": dtype,
        "training_limit": rows,
        "arms": [ARM],
        "lora_dropout": 0.0,
        "benchmarks": benchmarks,
        "protocol": "own",
        "n_samples": 1,
        "temperature": 0.0,
        "repetition_penalty": 1.0,
    }
    return validate(values, "gpu acceptance")


def train(params: Params, same_start: bool) -> dict:
    """Fine-tune, and return what it cost. ``same_start``: from the adapter that an earlier call started from.

    An adapter starts with random A matrices, which TRL draws on the CPU and unsloth on the GPU.
    """
    from palign import finetuning, problems, traces

    choice = finetuning.prepare(params)
    saved = folder() / "initial-adapter.safetensors"
    original, times = finetuning._trainer, []

    def build(*args):
        """The trainer with a timer, and with the adapter saved or loaded; fine-tuning has no hook for that."""
        from transformers import TrainerCallback

        class Timer(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                times.append(time.perf_counter())  # each update waits for its loss, so this is the GPU's time

        trainer = original(*args)
        trainer.add_callback(Timer)
        (_load_start if same_start else _save_start)(trainer.model, saved)
        return trainer

    problems.collect_benchmarks(params)
    traces.collect(params)
    finetuning._trainer = build
    try:
        facts = finetuning.finetune(params, ARM)
    finally:
        finetuning._trainer = original
    took = [after - before for before, after in pairwise(times)]
    tokens = facts["tokens_trained"] / facts["updates"]
    kept = ("weights", "autocast", "updates", "tokens_trained", "train_seconds", "peak_memory_bytes")
    return {name: facts[name] for name in kept} | {
        "trainer": choice.trainer,
        "tokens_per_second": tokens / median(took[len(took) // 2 :]) if took else None,
        "losses": [record["loss"] for record in Plan(params).finetuning(ARM).read("losses")],
    }


def _save_start(model, path: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, path)


def _load_start(model, path: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    unknown = set_peft_model_state_dict(model, load_file(path)).unexpected_keys
    if unknown:
        raise RuntimeError(f"the two trainers name the adapter's weights differently: {unknown}")


def evaluate(params: Params) -> dict:
    """Greedy responses of the trained adapter by the transformers engine: accuracy in percent, tokens a second."""
    from palign import evaluation

    responses, task = evaluation.respond(params, ARM), Plan(params).evaluation(ARM)
    grades = task.read("grades")
    return {
        "problems": len(grades),
        "right": 100 * mean(grade["right"] for grade in grades),
        "tokens_per_second": sum(r["new_tokens"] for r in responses) / task.folder.seconds(),
    }


def vllm(params: Params) -> dict:
    """The same prompts and adapter by palign's vLLM engine, and how many responses equal those of transformers."""
    if find_spec("vllm") is None:
        return {"left out": "vllm is not installed"}
    from palign import evaluation
    from palign.engines.base import Sampling
    from palign.engines.opening import open_engine
    from palign.prompts import fill

    plan = Plan(params)
    student = params.model("student").model_copy(update={"engine": "vllm"})
    engine = open_engine(student, params.part(Machine), plan.finetuning(ARM).require().path / "adapter")
    questions = [problem["question"] for problem in plan.benchmarks.read("problems")]
    prompts = [engine.prompt(fill(params.answer_prompt, question=question)) for question in questions]
    began = time.perf_counter()
    found = engine.generate(prompts, Sampling(params.max_new_tokens), [0] * len(prompts))
    seconds = time.perf_counter() - began
    expected = [response["text"] for response in evaluation.respond(params, ARM)]
    return {
        "problems": len(prompts),
        "same": 100 * mean(a.text == b for a, b in zip(found, expected, strict=True)),
        "tokens_per_second": sum(completion.new_tokens for completion in found) / seconds,
    }


def compare(ours: list[float], theirs: list[float]) -> dict:
    """Losses of two trainers update by update, relative to the first: ``agree`` by FIRST and MEAN."""
    differences = [abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True)]
    agree = differences[0] <= FIRST and mean(differences) <= MEAN
    return {"first": differences[0], "mean": mean(differences), "largest": max(differences), "agree": agree}


def run_piece(piece: str, dtype: str) -> dict:
    kind = piece.split("-")[-1]
    params = parameters(kind if kind in ("trl", "unsloth") else "trl", dtype)
    if kind == "unsloth" and find_spec("unsloth") is None:
        return {"left out": "unsloth is not installed"}
    if piece.startswith("train"):
        return train(params, same_start=kind == "unsloth")
    return evaluate(params) if piece.startswith("evaluate") else vllm(params)


def result(piece: str) -> dict | None:
    path = folder() / f"{piece}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def report(results: dict[str, dict | None], target: Path, machine: dict) -> bool:
    """Write ``results.json`` and ``report.md``; whether everything is done and agrees."""
    lines = [
        "# GPU acceptance",
        "",
        f"{machine.get('gpu', 'no GPU')}, " + ", ".join(f"{name} {v}" for name, v in machine["packages"].items()) + ".",
        "The pocket student, 36 updates of 8 rows; speeds are of this tiny model and say little of a large one.",
        "",
        "| piece | outcome |",
        "|---|---|",
    ]
    for piece, found in results.items():
        lines.append(f"| {piece} | {_line(found)} |")
    trl, unsloth = results.get("train-trl") or {}, results.get("train-unsloth") or {}
    good = all(found is not None and "failed" not in found for found in results.values())
    compared = None
    if "losses" in trl and "losses" in unsloth:
        compared = compare(trl["losses"], unsloth["losses"])
        lines += [
            "",
            f"Losses {'agree' if compared['agree'] else 'DO NOT AGREE'}: relative difference {compared['first']:.2%} "
            f"at the first update, {compared['mean']:.2%} on average, {compared['largest']:.2%} at most "
            f"(limits {FIRST:.0%} and {MEAN:.0%} for the first two).",
        ]
        if trl["tokens_per_second"] and unsloth["tokens_per_second"]:
            speed = unsloth["tokens_per_second"] / trl["tokens_per_second"]
            memory = (
                f"{unsloth['peak_memory_bytes'] / trl['peak_memory_bytes']:.2f}" if trl["peak_memory_bytes"] else "-"
            )
            lines.append(f"unsloth against TRL: {speed:.2f} times the tokens a second, {memory} times the peak memory.")
        lines += ["", "| update | TRL | unsloth |", "|---|---|---|"]
        pairs = zip(trl["losses"], unsloth["losses"], strict=True)
        lines += [f"| {i} | {a:.4f} | {b:.4f} |" for i, (a, b) in enumerate(pairs, 1)]
    good = good and compared is not None and compared["agree"]  # only vllm may be missing
    whole = {"machine": machine, "results": results, "losses": compared, "passed": good}
    write_atomically(target / "results.json", json.dumps(whole, indent=1) + "\n")
    write_atomically(target / "report.md", "\n".join(lines) + "\n")
    return good


def _line(found: dict | None) -> str:
    if found is None:
        return "not run yet"
    for state in ("left out", "failed"):
        if state in found:
            return f"{state}: {found[state]}"
    words = [f"{found['tokens_per_second']:,.0f} tokens/s"] if found["tokens_per_second"] else []
    if "losses" in found:
        words += [f"{found['updates']} updates in {found['train_seconds']} s", f"last loss {found['losses'][-1]:.4f}"]
        words += [f"weights {found['weights']}, autocast {found['autocast']}"]
        if found["peak_memory_bytes"]:
            words.append(f"peak {found['peak_memory_bytes'] / 2**20:,.0f} MiB")
    if "right" in found:
        words.append(f"{found['right']:.1f} % of {found['problems']} right")
    if "same" in found:
        words.append(f"{found['same']:.1f} % of {found['problems']} responses as by transformers")
    return ", ".join(words)


def machine() -> dict:
    facts = provenance()
    packages = facts["packages"]
    for name in ("unsloth_zoo", "triton", "bitsandbytes"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return (
        {key: facts[key] for key in ("commit", "dirty", "python", "finished")}
        | facts["machine"]
        | {"packages": packages}
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=PIECES, metavar="PIECE", help=" ".join(PIECES))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--piece", choices=PIECES, help=argparse.SUPPRESS)  # one piece, in this process
    args = parser.parse_args(argv)
    import torch

    if not torch.cuda.is_available():
        print("gpu acceptance: no CUDA device on this machine; nothing was run", file=sys.stderr)
        return 2
    if args.piece:
        write_atomically(folder() / f"{args.piece}.json", json.dumps(run_piece(args.piece, args.dtype)) + "\n")
        return 0
    if args.fresh:
        shutil.rmtree(folder(), ignore_errors=True)
    deadline = time.monotonic() + args.seconds
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = os.environ | offline | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    failed = {}
    for piece in args.pieces:
        found = result(piece)
        if found is not None and "left out" not in found:  # what was left out may be installed now
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            break
        print(f"{piece} ...", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "--piece", piece, "--dtype", args.dtype]
        try:
            code = subprocess.run(command, env=environment, timeout=left if left < 1e9 else None).returncode
        except subprocess.TimeoutExpired:
            break
        if code:
            failed[piece] = {"failed": f"exit code {code}; see its output above"}
    target = root() / "reports" / "gpu-acceptance"
    results = {piece: failed.get(piece) or result(piece) for piece in PIECES}
    good = report(results, target, machine())
    print((target / "report.md").read_text(encoding="utf-8"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
