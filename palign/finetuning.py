"""Supervised fine-tuning with LoRA, loss on the response only (Eq. 2): by unsloth on a GPU, by TRL and PEFT anywhere.

Both get the same tokenised rows with the same labels, the same LoRA and the same schedule, and both run TRL's
``SFTTrainer``; unsloth replaces the model's kernels and the checkpointing of activations.

>>> prepare(params)  # before anything else imports transformers
Choice(trainer='trl', why='no CUDA device')
>>> manifest = finetune(params, "p-align")
>>> manifest["updates"]
69
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import supervision, traces
from .tasks import plan
from .engines.base import check_safetensors, seed_of, trusted
from .engines.tokenizers import load_tokenizer
from .params import Params, resolve, root
from .prompts import plain, render

if TYPE_CHECKING:
    import pandas as pd

IGNORED = -100
"""Label of a token that has no part in the loss."""

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Every linear layer of a Llama or Qwen block: what PEFT's ``all-linear`` finds in them, for unsloth by name."""

SCALER_TRIES = 16
"""Overflows in a row that float16 loss scaling may answer by halving its scale (2^16 at the start)."""


class NotFinite(RuntimeError):
    """A loss or a gradient that is not a number stops the run: a model trained on past it would be noise."""


class TrainerError(ValueError):
    """A trainer that cannot run here, or rows it cannot train on; the message is one line."""


@dataclass(frozen=True)
class Choice:
    """Which trainer runs, ``unsloth`` or ``trl``, and why."""

    trainer: str
    why: str


def on_cuda(params: Params) -> bool:
    """Whether this study trains on a CUDA device of this machine."""
    import torch

    return params.device != "cpu" and torch.cuda.is_available()


def choose(params: Params) -> Choice:
    """The trainer ``params`` mean on this machine. Raises :class:`TrainerError` for one that cannot run here."""
    from importlib.util import find_spec

    if params.trainer == "trl":
        return Choice("trl", "asked for")
    if params.device == "cpu":
        lacking = "device is cpu"
    elif not on_cuda(params):
        lacking = "no CUDA device"
    elif find_spec("unsloth") is None:
        lacking = "unsloth is not installed"
    else:
        return Choice("unsloth", "asked for" if params.trainer == "unsloth" else "CUDA and unsloth are there")
    if params.trainer == "unsloth":
        raise TrainerError(f"trainer: unsloth cannot run here: {lacking}; set trainer: auto or trl")
    return Choice("trl", lacking)


def prepare(params: Params) -> Choice:
    """Choose the trainer and, if it is unsloth, import it now.

    unsloth replaces functions of trl, transformers and peft while it is imported, so it has to come before them: call
    this at the top of a notebook or script. It imports torch and nothing else where TRL trains. Raises
    :class:`TrainerError` when one of the three is loaded already.
    """
    choice = choose(params)
    if choice.trainer == "unsloth" and "unsloth" not in sys.modules:
        loaded = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
        if loaded:
            raise TrainerError(
                f"unsloth must be imported before {' and '.join(loaded)}: restart the kernel and call "
                "finetuning.prepare(params) first, or set trainer: trl"
            )
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it would ask the hub for a file, for its counter
        # the code it generates belongs to runs/, not to wherever the process happens to stand
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(root() / "runs" / "unsloth_compiled_cache"))
        import unsloth  # noqa: F401
    return choice


def precision(params: Params) -> str:
    """Type of the base model's weights while training: ``float32``, ``bfloat16``, ``float16`` (CPU also ``auto``).

    On a GPU ``auto`` and ``bfloat16`` mean bfloat16 from compute capability 8.0 on and float16 below, where
    ``torch.cuda.is_bf16_supported()`` may still say yes, by emulation. A half type also autocasts; the adapter's own
    weights stay float32.
    """
    import torch

    if not on_cuda(params) or params.dtype in ("float32", "float16"):
        return params.dtype
    return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"


def encode(params: Params, rows: list[dict[str, str]], tokenizer) -> list[dict]:
    """Rows as tokens, uncut: ``id``, ``input_ids`` and ``prompt_tokens``, the number of leading tokens without loss.

    Prompt and response are tokenised apart, so the prompt's tokens are exactly those that evaluation feeds. Raises
    :class:`TrainerError` where the chat template writes a prompt otherwise once an answer follows it: training and
    evaluation would then differ. Control tokens in either are broken (see ``palign.prompts``).
    """
    examples = []
    for row in rows:
        asked = render(tokenizer, row["prompt"], params.chat_template_kwargs)
        contents = plain(tokenizer, row["prompt"]), plain(tokenizer, row["completion"], response=True)
        turns = [{"role": r, "content": c} for r, c in zip(("user", "assistant"), contents, strict=True)]
        whole = tokenizer.apply_chat_template(turns, tokenize=False, **params.chat_template_kwargs)
        if not whole.startswith(asked):
            raise TrainerError(
                f"row {row['id']}: the chat template renders the prompt differently when an answer follows it; see "
                "chat_template_kwargs"
            )
        prompt, response = tokenizer([asked, whole[len(asked) :]], add_special_tokens=False).input_ids
        examples.append({"id": row["id"], "input_ids": prompt + response, "prompt_tokens": len(prompt)})
    return examples


def token_lengths(params: Params, arm: str) -> pd.DataFrame:
    """What training will read, before it starts: tokens a row, and how many rows ``max_length`` cuts.

    One line each for prompt, response and row; quantiles in tokens, ``over max_length`` and ``dropped`` in rows. A
    dropped row is one whose prompt alone fills ``max_length``: nothing of it could be learnt.
    """
    import pandas as pd

    tokenizer = load_tokenizer(params)
    examples = encode(params, supervision.build(params, arm, tokenizer), tokenizer)
    prompt = pd.Series([example["prompt_tokens"] for example in examples])
    row = pd.Series([len(example["input_ids"]) for example in examples])
    parts = {"prompt": prompt, "response": row - prompt, "row": row}
    table = pd.DataFrame({name: tokens.quantile([0, 0.05, 0.5, 0.95, 1]) for name, tokens in parts.items()}).T
    table.columns = ["shortest", "5 %", "median", "95 %", "longest"]
    table = table.round().astype(int)
    table["rows"] = len(row)
    table["over max_length"] = [int((tokens > params.max_length).sum()) for tokens in parts.values()]
    table["dropped"] = int((prompt >= params.max_length).sum())
    return table


def updates(params: Params, rows: int, full: int) -> int:
    """Optimizer steps: the epochs over this arm's rows or, with ``equal_updates``, over all ``full`` problems."""
    per_update = params.per_device_train_batch_size * params.gradient_accumulation_steps
    return math.ceil(params.num_train_epochs * math.ceil((full if params.equal_updates else rows) / per_update))


@plan.held(plan.finetuning)
def finetune(params: Params, arm: str, seed: int | None = None) -> dict | None:
    """Train the arm's adapter and return the manifest; ``None`` for an arm that is not trained.

    ``seed``, one of ``training_seeds`` (without one, the first), enters the adapter's initialisation and the data's
    order, and nothing else.

    Checkpoints every ``save_steps`` updates, and goes on from the last one after a kill. Raises :class:`NotFinite`,
    :class:`TrainerError`, and ``ValueError`` when the arm has no rows.
    """
    seed = params.training_seeds[0] if seed is None else seed
    task = plan.finetuning(params, arm, seed)
    if task is None:
        return None
    folder = task.folder
    if folder.done:
        return folder.manifest()
    choice = prepare(params)
    tokenizer = load_tokenizer(params)
    rows = supervision.build(params, arm, tokenizer)
    if not rows:
        raise ValueError(f"{arm}: no training rows: no continuation was right; see the alignment's pairs")
    steps = updates(params, len(rows), len(traces.load(params)))
    reseeded = params.model_copy(update={"seed": params.seed + seed})  # after the rows, which all seeds share
    trainer = _trainer(reseeded, task.folder.path, rows, tokenizer, steps, choice.trainer)
    lengths = [len(example["input_ids"]) for example in trainer.examples]
    read = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    cut = sum(length > params.max_length for length in lengths)
    print(
        f"{arm}: {choice.trainer} ({choice.why}), {steps} updates over {len(read)} rows, the longest {max(lengths)} "
        f"tokens; {cut} exceed max_length {params.max_length} and are cut, {len(rows) - len(read)} are dropped"
    )
    with _writing(folder.path):
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder.path / "checkpoints"))
        save_adapter(trainer.model, folder.path / "adapter", params)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    folder.write("losses", [{"step": entry["step"], "loss": round(entry["loss"], 6)} for entry in history])
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    task.finish(
        trainer=choice.trainer,
        trainer_why=choice.why,
        training_seed=seed,
        weights=precision(params),
        autocast="bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else None,
        rows=len(rows),
        updates=steps,
        epochs=round(trainer.state.epoch, 3),
        longest_row_tokens=max(lengths),
        rows_cut=cut,
        rows_dropped=len(rows) - len(read),
        tokens_trained=round(sum(read) * trainer.state.epoch),
        trainable_parameters=sum(p.numel() for p in parameters),
        last_loss=history[-1]["loss"],
        train_seconds=round(sum(record["seconds"] for record in folder.read("train_seconds")), 1),
        peak_memory_bytes=_peak_memory(params),
    )
    shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)  # the manifest stands: nothing will resume
    return folder.manifest()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise ``OSError`` where a checkpoint cannot be written: torch then speaks of positions in a container, and
    safetensors has an error of its own.
    """
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in ("inline_container.cc", "Error while serializing")):
            raise OSError(errno.ENOSPC, "no room for a checkpoint on this disk", str(folder)) from error
        raise


def save_adapter(model, folder: Path, params: Params) -> None:
    """Write the adapter with the base model's name and revision as ``params`` state them, not as this machine has it.

    PEFT's own record would be the local folder the weights came from, and so would its model card.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path, config.revision = params.student, params.student_revision
    # no embedding is trained; left to find out, PEFT looks the base model up on the hub
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def _peak_memory(params: Params) -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if on_cuda(params) else None


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written whole; a torn one is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        newest = found.pop()
        if (newest / "whole").exists():
            return str(newest)
        shutil.rmtree(newest)
    return None


def _trl_model(params: Params):
    """The base model; ``SFTTrainer`` puts the adapter on it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_safetensors(resolve(params.student))
    settings = {}
    if params.load_in_4bit:
        if not on_cuda(params) or torch.cuda.get_device_capability() < (8, 0):  # TRL makes 4-bit adapters bfloat16
            raise TrainerError(
                "load_in_4bit: TRL needs a GPU of compute capability 8.0; set load_in_4bit: false, or use unsloth"
            )
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(
        resolve(params.student),
        revision=params.student_revision,
        dtype=precision(params),
        use_safetensors=True,
        trust_remote_code=trusted(params),
        **settings,
    )


def _unsloth_model(params: Params, seed: int):
    """The base model with its adapter. The weights are those of ``student``: no mirror of unsloth's in their place."""
    import torch
    from unsloth import FastLanguageModel

    check_safetensors(resolve(params.student))

    model, _ = FastLanguageModel.from_pretrained(
        model_name=resolve(params.student),
        revision=params.student_revision,
        max_seq_length=params.max_length,
        dtype=getattr(torch, precision(params)),
        load_in_4bit=params.load_in_4bit,
        use_exact_model_name=True,
        trust_remote_code=trusted(params),
        fix_tokenizer=False,  # rows are tokenised already, by the tokenizer of every other stage
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules=PROJECTIONS,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )


def _trainer(params: Params, folder: Path, rows: list[dict], tokenizer, steps: int, kind: str = "trl"):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, Trainer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(params.threads)
    cuda = on_cuda(params)
    examples = encode(params, rows, tokenizer)
    labelled = _labelled(examples, params.max_length)
    if not labelled:
        raise TrainerError(f"max_length {params.max_length}: every prompt alone fills it, no row has a response left")
    watch = _watch(params, folder, steps, examples)

    class ResponseTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """Off a GPU, TRL's fused loss head has no kernel to run on; the plain loss gives the same numbers."""
            if cuda:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            inputs["use_cache"] = False
            return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)

        def training_step(self, model, inputs, num_items_in_batch=None):
            watch.reads(inputs)
            loss = super().training_step(model, inputs, num_items_in_batch)
            watch.check_loss(loss, self.state.global_step + 1)
            return loss

    seed = seed_of(params.seed, "finetuning") % 2**31
    half = precision(params)
    config = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=params.per_device_train_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.lr_scheduler_type,
        warmup_steps=round(params.warmup_ratio * steps),
        max_length=params.max_length,
        completion_only_loss=True,
        packing=False,
        padding_free=False,  # unsloth turns it on where nothing is said
        gradient_checkpointing=cuda,
        bf16=cuda and half == "bfloat16",
        fp16=cuda and half == "float16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would log an average in place of a loss that is no number
        save_steps=params.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    lora = LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = ResponseTrainer(
        model=_unsloth_model(params, seed) if kind == "unsloth" else _trl_model(params),
        args=config,
        train_dataset=Dataset.from_list(labelled),
        processing_class=tokenizer,
        peft_config=None if kind == "unsloth" else lora,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # the progress bar says it all
    trainer.examples = examples
    return trainer


def _labelled(examples: list[dict], max_length: int) -> list[dict]:
    """What either trainer is given: ``input_ids`` and ``labels``, cut at ``max_length``, rows without response out."""
    rows = []
    for example in examples:
        ids, prompt = example["input_ids"], example["prompt_tokens"]
        if prompt < max_length:
            labels = [IGNORED] * prompt + ids[prompt:]
            rows.append({"input_ids": ids[:max_length], "labels": labels[:max_length]})
    return rows


def _watch(params: Params, folder: Path, steps: int, examples: list[dict]):
    """A callback: progress bar, a stop at the first number that is none, and marks on whole checkpoints."""
    import time

    import torch
    from transformers import TrainerCallback

    from .tasks.store import RunFolder, progress

    names = {tuple(example["input_ids"][: params.max_length]): example["id"] for example in examples}

    class Watch(TrainerCallback):
        batches: list = []  # noqa: RUF012  (of the update at work: token ids and mask)
        overflows = 0

        def reads(self, inputs):
            self.batches = [*self.batches, (inputs["input_ids"], inputs.get("attention_mask"))]

        def check_loss(self, loss, update):
            if not torch.isfinite(loss).all():
                self.stop("the loss", update)

        def stop(self, what, update):
            raise NotFinite(f"{what} is not finite at update {update}, rows {', '.join(self.rows())}; {self.causes()}")

        def rows(self):
            found = []
            for ids, mask in self.batches:
                for i, row in enumerate(ids):
                    tokens = row if mask is None else row[mask[i].bool()]
                    found.append(str(names.get(tuple(tokens.tolist()), "unknown")))
            return found

        def causes(self):
            causes = [f"learning_rate {params.learning_rate} too high", "an attention back end (try trainer: trl)"]
            if precision(params) == "float16":
                causes.insert(0, "float16 overflow beyond 65,504 (dtype: float32, or a GPU that has bfloat16)")
            return "likely causes: " + "; ".join(causes)

        def on_train_begin(self, args, state, control, **kwargs):
            self.bar = progress("fine-tuning", steps, state.global_step)
            self.began = time.perf_counter()

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                    self.overflows += 1
                    if args.fp16 and self.overflows < SCALER_TRIES:
                        return  # loss scaling leaves this update out and halves its scale
                    self.stop(f"the gradient of {name}", state.global_step + 1)
            self.overflows = 0

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in (logs or {}):
                self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

        def on_step_end(self, args, state, control, **kwargs):
            self.batches = []
            self.bar.update()

        def on_save(self, args, state, control, **kwargs):
            self._spent()
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (checkpoint / "whole").write_text(json.dumps(state.global_step))

        def on_train_end(self, args, state, control, **kwargs):
            self._spent()
            self.bar.close()

        def _spent(self):
            now = time.perf_counter()
            RunFolder(folder).append("train_seconds", [{"seconds": round(now - self.began, 2)}])
            self.began = now

    return Watch()
