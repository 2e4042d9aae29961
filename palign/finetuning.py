"""Supervised fine-tuning with LoRA, loss on the response only (Eq. 2): by unsloth on a GPU, by TRL and PEFT anywhere.

Both trainers get the same tokenised rows and labels, the same LoRA and the same schedule, and both run TRL's
``SFTTrainer``. unsloth replaces the model's kernels and the checkpointing of activations.

>>> print(prepare(params))  # before anything else imports transformers
trl: no CUDA device
>>> manifest = finetune(params, "p-align")
>>> manifest["updates"]
120
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import supervision, traces
from .arms import ARMS, Arm
from .continuation import cut
from .engines.base import check_safetensors, said, seed_of
from .engines.tokenizers import load_tokenizer
from .params import FineTuning, Machine, Model, OneLine, Params, root
from .prompts import plain, render
from .tasks.plan import Plan, held
from .tasks.progress import progress
from .tasks.resolved import Choice, TrainerError, choose, keep_training, on_cuda, precision, training
from .tasks.store import RunFolder, visible

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that does not count in the loss."""

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Every linear layer of a Llama or Qwen block: unsloth needs names, PEFT finds the same ones by ``all-linear``."""

SHOWN = (1200, 600)
"""Characters of a long text that are shown: from its beginning, from its end."""

SCALER_TRIES = 16
"""Training stops after this many overflows in a row. Loss scaling halves its scale at each; it starts at 2^16."""


class NotFinite(OneLine, RuntimeError):
    """A loss or a gradient that is not finite; training stops, because the model would be useless afterwards."""


def prepare(params: Params) -> Choice:
    """Choose the trainer and, if it is unsloth, import it now.

    unsloth replaces functions of trl, transformers and peft when it is imported, so it must be imported before them:
    call this at the top of a notebook or script. Where TRL trains, only torch is imported. Raises
    :class:`TrainerError` when one of the three is already loaded.
    """
    choice = choose(params.trainer, params.device)
    if choice.trainer == "unsloth" and "unsloth" not in sys.modules:
        loaded = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
        if loaded:
            raise TrainerError(
                f"unsloth must be imported before {' and '.join(loaded)}: restart the kernel and call "
                "finetuning.prepare(params) first, or set trainer: trl"
            )
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it would ask the hub for a file, to count its users
        os.environ.setdefault("UNSLOTH_OFFLOAD_FP32", "exact")  # or it rounds float32 activations in host memory
        # it writes generated code; that belongs to runs/, not to the process's working directory
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(root() / "runs" / "unsloth_compiled_cache"))
        import unsloth  # noqa: F401
    return choice


NEUTRAL = "The answer."
"""In place of a completion, where the chat template shows how it ends a turn."""


def encode(rows: list[dict[str, str]], tokenizer, chat_template_kwargs: dict) -> list[dict]:
    """Rows as tokens, uncut: ``id``, ``answers``, ``input_ids`` and ``prompt_tokens``, the leading tokens without loss.

    A row is the prompt as at evaluation, the completion, and, where the row ``ends``, the end of turn that the template
    writes behind ``NEUTRAL``. The template does not see the completion: Qwen3's cuts everything up to ``</think>`` out
    of a turn, or puts empty thoughts before it, and Llama's strips it, so that the row would not be what the student is
    to write.
    Think tags of a completion stay as they are, since the student or teacher wrote them; its control tokens are broken
    (``palign.prompts.plain``). Prompt and response are tokenised separately, so the prompt's tokens are evaluation's.

    Raises :class:`TrainerError` where the template renders a prompt differently when an answer follows it: the model
    would not have been made for the prompts that it is evaluated on.
    """
    examples = []
    for row in rows:
        asked = render(tokenizer, row["prompt"], chat_template_kwargs)
        contents = plain(tokenizer, row["prompt"]), NEUTRAL
        turns = [{"role": r, "content": c} for r, c in zip(("user", "assistant"), contents, strict=True)]
        whole = tokenizer.apply_chat_template(turns, tokenize=False, **chat_template_kwargs)
        _, found, end = whole.removeprefix(asked).rpartition(NEUTRAL)
        if not whole.startswith(asked) or not found:
            raise TrainerError(
                f"row {row['id']}: the chat template renders the prompt differently when an answer follows it; see "
                "chat_template_kwargs"
            )
        response = plain(tokenizer, row["completion"], response=True) + (end if row.get("ends", True) else "")
        prompt, response = tokenizer([asked, response], add_special_tokens=False).input_ids
        example = {"id": row["id"], "answers": row["answers"], "input_ids": prompt + response}
        examples.append(example | {"prompt_tokens": len(prompt)})
    return examples


def fates(examples: list[dict], max_length: int) -> dict[str, int]:
    """How many rows of :func:`encode` are longer than ``max_length`` tokens, by what becomes of them.

    ``cut``: trained without their end. ``left out``: a cut would take away the answer that the target ends in, or the
    prompt alone fills ``max_length``.
    """
    long = [e for e in examples if len(e["input_ids"]) > max_length]
    out = sum(_left_out(e, max_length) for e in long)
    return {"cut": len(long) - out, "left out": out}


def _left_out(example: dict, max_length: int) -> bool:
    too_long = example["answers"] and len(example["input_ids"]) > max_length
    return too_long or example["prompt_tokens"] >= max_length


def _rows(params: Params, arm: str, tokenizer) -> list[dict]:
    """The rows of :func:`palign.supervision.build`. Raises :class:`TrainerError` where there are none."""
    rows = supervision.build(params, arm, tokenizer)
    if not rows:
        why, remedy = _without_rows(Plan(params), ARMS[arm])
        raise TrainerError(f"{arm}: no training rows: {why}; {remedy}leave the arm out of `arms`")
    return rows


def _without_rows(plan: Plan, spec: Arm) -> tuple[str, str]:
    """Why an arm has no rows, and what may help beside leaving it out."""
    if spec.strategy is None:
        return "every training question stands in a benchmark", ""
    if spec.target == "text":
        task = plan.truncation(spec.strategy)
        found = Counter(record["status"] for record in task.read("prefixes"))
        why, remedy = f"{task.name} found a text in none of {found.total()} traces", ""
    else:
        task = plan.alignment(spec.strategy)
        found = Counter("cut" if cut(pair) else pair["outcome"] for pair in task.read("pairs"))
        why = f"{task.name} kept none of {found.total()} continuations"
        remedy = "try another prompt or a larger alignment_max_new_tokens, or "
    counts = ", ".join(f"{count} {what}" for what, count in found.most_common())
    return why + (f" ({counts})" if counts else ""), remedy


TOLERATED = 0.02
"""Share of an arm's rows that ``max_length`` may cut or leave out without a warning."""
MOSTLY = 0.3
"""Share of an arm's rows that may be whole traces of its fallback without a warning."""


def token_lengths(params: Params, arm: str) -> pd.DataFrame:
    """Token counts of the rows before training starts: tokens per row, and what ``max_length`` does to rows.

    One line each for prompt, response and row; quantiles in tokens, ``cut`` and ``left out`` (:func:`fates`) in rows.
    Warns where more than 2 % of the rows go either way, and where more than 30 % are whole traces of a fallback: such
    an arm is close to one of long traces.
    """
    import pandas as pd

    model, tokenizer, rows = _read(params, arm)
    examples = encode(rows, tokenizer, model.chat_template_kwargs)
    prompt = pd.Series([example["prompt_tokens"] for example in examples])
    row = pd.Series([len(example["input_ids"]) for example in examples])
    parts = {"prompt": prompt, "response": row - prompt, "row": row}
    table = pd.DataFrame({name: tokens.quantile([0, 0.05, 0.5, 0.95, 1]) for name, tokens in parts.items()}).T
    table.columns = ["shortest", "5 %", "median", "95 %", "longest"]
    table = table.round().astype(int)
    found = fates(examples, params.max_length)
    if sum(found.values()) > TOLERATED * len(examples):
        print(
            f"warning: {arm}: of {len(examples)} rows max_length {params.max_length} leaves out {found['left out']} "
            f"and cuts {found['cut']}; a larger max_length keeps them, and needs more memory"
        )
    if (whole := fallbacks(rows)) > MOSTLY * len(rows):
        print(f"warning: {arm}: of {len(rows)} rows {whole} are whole traces that its fallback adds")
    return table.assign(rows=len(row), **found)


def first_row(params: Params, arm: str) -> str:
    """The arm's first row as the student reads it, template and special tokens too: the part without loss, then the
    part with it. Of a long part the beginning and the end.
    """
    model, tokenizer, rows = _read(params, arm)
    (example,) = encode(rows[:1], tokenizer, model.chat_template_kwargs)
    tokens, start = example["input_ids"], example["prompt_tokens"]
    parts = {"prompt, without loss": tokens[:start], "response, with loss": tokens[start:]}
    return "\n\n".join(f"[{name}]\n{_shortened(visible(tokenizer.decode(part)))}" for name, part in parts.items())


def _shortened(text: str) -> str:
    left_out = len(text) - sum(SHOWN)
    return text if left_out <= 0 else f"{text[: SHOWN[0]]}\n[{left_out:,} characters]\n{text[-SHOWN[1] :]}"


def _read(params: Params, arm: str) -> tuple[Model, PreTrainedTokenizerBase, list[dict]]:
    """The student, its tokenizer and the arm's rows."""
    model = Plan(params).params.model("student")  # of the commit that the study kept
    tokenizer = load_tokenizer(model)
    return model, tokenizer, _rows(params, arm, tokenizer)


def fallbacks(rows: list[dict]) -> int:
    """How many rows are whole traces that the arm's fallback adds."""
    return sum(row["fallback"] for row in rows)


def updates(recipe: FineTuning, rows: int, full: int) -> int:
    """Optimizer steps: the epochs over this arm's ``rows`` or, with ``equal_updates``, over all ``full`` problems."""
    per_update = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
    return math.ceil(recipe.num_train_epochs * math.ceil((full if recipe.equal_updates else rows) / per_update))


@held("finetuning")
def finetune(params: Params, arm: str, seed: int | None = None) -> dict | None:
    """Train the arm's adapter and return the manifest; ``None`` for an arm that is not trained.

    ``seed``: one of ``training_seeds`` (without one, the first). It sets the adapter's initialisation and the order of
    the data, and affects nothing else.

    Writes a checkpoint every ``save_steps`` updates and continues from the last one after a kill. Raises
    :class:`NotFinite`, and :class:`TrainerError`, also when the arm has no rows.
    """
    seed = params.training_seeds[0] if seed is None else seed
    task = Plan(params).finetuning(arm, seed)
    if task is None:
        return None
    folder = task.folder
    if folder.done:
        return folder.manifest()
    recipe, model, machine = params.part(FineTuning), params.model("student"), params.part(Machine)
    keep_training(params)
    choice = prepare(params)
    tokenizer = load_tokenizer(model)
    rows = _rows(params, arm, tokenizer)
    examples = encode(rows, tokenizer, model.chat_template_kwargs)
    long = fates(examples, recipe.max_length)
    steps = updates(recipe, len(rows) - long["left out"], len(traces.load(params)))
    drawn = seed_of(params.seed + seed, "finetuning") % 2**31
    trainer = _trainer(recipe, model, machine, folder.path, examples, tokenizer, steps, drawn, choice.trainer)
    lengths = [len(example["input_ids"]) for example in examples]
    read = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    print(
        f"{arm}: {choice.trainer} ({choice.why}), {steps} updates over {len(read)} rows, the longest {max(lengths)} "
        f"tokens; max_length {recipe.max_length} cuts {long['cut']} rows and leaves out {long['left out']}"
    )
    with _writing(folder.path):
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder.path / "checkpoints"))
        save_adapter(trainer.model, folder.path / "adapter", model)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    folder.write("losses", [{"step": entry["step"], "loss": round(entry["loss"], 6)} for entry in history])
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    task.finish(
        trainer=choice.trainer,
        trainer_why=choice.why,
        training_seed=seed,
        weights=training(params)["weights"],
        autocast="bfloat16" if trainer.args.bf16 else "float16" if trainer.args.fp16 else None,
        rows=len(rows),
        rows_fallback=fallbacks(rows),
        updates=steps,
        epochs=round(trainer.state.epoch, 3),
        longest_row_tokens=max(lengths),
        rows_cut=long["cut"],
        rows_left_out=long["left out"],
        tokens_trained=round(sum(read) * trainer.state.epoch),
        trainable_parameters=sum(p.numel() for p in parameters),
        last_loss=history[-1]["loss"],
        train_seconds=round(sum(record["seconds"] for record in folder.read("train_seconds")), 1),
    )
    shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)  # with a manifest, nothing will be resumed
    return folder.manifest()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise ``OSError`` if the disk is full: torch and safetensors raise errors that do not say so."""
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in ("inline_container.cc", "Error while serializing")):
            raise OSError(errno.ENOSPC, "no room for a checkpoint on this disk", str(folder)) from error
        raise


def save_adapter(trained, folder: Path, model: Model) -> None:
    """Write the adapter with the base model's name and revision as ``model`` states them.

    PEFT would write the local folder the weights came from, also into its model card.
    """
    for config in trained.peft_config.values():
        config.base_model_name_or_path, config.revision = model.name, model.revision
    # no embedding is trained; otherwise PEFT asks the hub for the base model's embedding size
    trained.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


def _last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint, or ``None``. Newer incomplete ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        newest = found.pop()
        if (newest / "whole").exists():
            return str(newest)
        shutil.rmtree(newest)
    return None


def _trl_model(model: Model, load_in_4bit: bool, device: str):
    """The base model; ``SFTTrainer`` puts the adapter on it."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_safetensors(model.path)
    settings = {}
    if load_in_4bit:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(
        model.path,
        revision=model.revision,
        dtype=precision(model.dtype, device),
        use_safetensors=True,
        trust_remote_code=model.trusted,
        **settings,
    )


def _unsloth_model(model: Model, recipe: FineTuning, device: str, seed: int):
    """The base model with its adapter, from the student's own weights and not from unsloth's copy of them."""
    import torch
    from unsloth import FastLanguageModel

    check_safetensors(model.path)
    full = precision(model.dtype, device) == "float32"
    base, _ = FastLanguageModel.from_pretrained(
        model_name=model.path,
        revision=model.revision,
        max_seq_length=recipe.max_length,  # above the model's window it would rescale positions: see _check_window
        dtype=getattr(torch, precision(model.dtype, device)),
        load_in_4bit=recipe.load_in_4bit,
        use_exact_model_name=True,
        trust_remote_code=model.trusted,
        fix_tokenizer=False,  # the rows are already tokenised, by the tokenizer of every other stage
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )
    if recipe.load_in_4bit and not getattr(base, "is_loaded_in_4bit", False):
        raise TrainerError("load_in_4bit: unsloth loaded the model unquantised; set load_in_4bit: false")
    if full:
        base._unsloth_forced_float32 = True  # or its trainer autocasts where neither half type is asked for
    return FastLanguageModel.get_peft_model(
        base,
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=PROJECTIONS,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )


def _check_4bit(device: str, kind: str) -> None:
    """Raises :class:`TrainerError` where ``kind`` cannot train on 4-bit weights; unsloth would not say so, and go on
    unquantised.
    """
    import torch

    if not on_cuda(device):
        lacking = "a GPU"
    elif kind == "trl" and torch.cuda.get_device_capability() < (8, 0):  # it makes 4-bit adapters bfloat16
        lacking = "a GPU of compute capability 8.0, or unsloth"
    else:
        try:
            from bitsandbytes.cextension import lib
        except (ImportError, RuntimeError, OSError) as error:
            lacking = f"bitsandbytes, which cannot be imported: {said(error)}"
        else:
            if lib.compiled_with_cuda:
                return
            lacking = "bitsandbytes with a library for this CUDA version"
    raise TrainerError(f"load_in_4bit: needs {lacking}; set load_in_4bit: false")


def _check_window(model: Model, max_length: int) -> None:
    """Raises :class:`TrainerError` where rows may have more tokens than ``model`` has positions.

    unsloth would rescale the positions of all rows, and the adapter does not carry the scale to its evaluation.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=model.trusted)
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    if window and max_length > window:
        raise TrainerError(
            f"max_length {max_length}: the student has {window} positions (max_position_embeddings); set max_length: "
            f"{window} or less"
        )


def _trainer(
    recipe: FineTuning,
    model: Model,
    machine: Machine,
    folder: Path,
    examples: list[dict],
    tokenizer,
    steps: int,
    seed: int,
    kind: str = "trl",
):
    """TRL's trainer on the rows of :func:`encode`, for ``steps`` updates; ``kind``: ``trl`` or ``unsloth``.

    ``seed`` initialises the adapter and orders the data. Raises :class:`TrainerError` when no row is left, when rows
    may be longer than the model's window, and when 4-bit weights are asked for where there are none.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, Trainer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(machine.threads)
    cuda, half = on_cuda(machine.device), precision(model.dtype, machine.device)
    _check_window(model, recipe.max_length)
    if recipe.load_in_4bit:
        _check_4bit(machine.device, kind)
    labelled = _labelled(examples, recipe.max_length)
    if not labelled:
        raise TrainerError(f"max_length {recipe.max_length}: no row fits it with its answer; set a larger one")
    watch = _watch(recipe, half, folder, steps, examples)

    class ResponseTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """The plain loss without a GPU, where TRL's fused loss has no kernel; the numbers are the same."""
            if cuda:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            inputs["use_cache"] = False
            return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)

        def training_step(self, model, inputs, num_items_in_batch=None):
            watch.reads(inputs)
            loss = super().training_step(model, inputs, num_items_in_batch)
            watch.check_loss(loss, self.state.global_step + 1)
            return loss

    config = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=recipe.per_device_train_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        optim="adamw_torch_fused",  # this and the next are TRL's own; unsloth's are adamw_8bit and 0.001
        weight_decay=0.0,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=round(recipe.warmup_ratio * steps),
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=False,
        padding_free=False,  # unsloth turns it on by default
        gradient_checkpointing=cuda,
        dataset_num_proc=None if kind == "trl" else 1,  # unsloth reads None as several processes
        bf16=cuda and half == "bfloat16",
        fp16=cuda and half == "float16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would log an average in place of a loss that is not finite
        save_steps=recipe.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    lora = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    if kind == "unsloth":
        base = _unsloth_model(model, recipe, machine.device, seed)
    else:
        base = _trl_model(model, recipe.load_in_4bit, machine.device)
    trainer = ResponseTrainer(
        model=base,
        args=config,
        train_dataset=Dataset.from_list(labelled),
        processing_class=tokenizer,
        peft_config=None if kind == "unsloth" else lora,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # the progress bar shows the loss
    return trainer


def _labelled(examples: list[dict], max_length: int) -> list[dict]:
    """The rows of both trainers: ``input_ids`` and ``labels``, cut at ``max_length``, without those that it leaves out
    (:func:`fates`).
    """
    rows = []
    for example in examples:
        ids, prompt = example["input_ids"], example["prompt_tokens"]
        if not _left_out(example, max_length):
            labels = [IGNORED] * prompt + ids[prompt:]
            rows.append({"input_ids": ids[:max_length], "labels": labels[:max_length]})
    return rows


def _watch(recipe: FineTuning, half: str, folder: Path, steps: int, examples: list[dict]):
    """A callback: progress bar, a stop at the first number that is not finite, a mark on each complete checkpoint.

    ``half``: the type of :func:`precision`, for the error message.
    """
    import time

    import torch
    from transformers import TrainerCallback

    names = {tuple(example["input_ids"][: recipe.max_length]): example["id"] for example in examples}

    class Watch(TrainerCallback):
        batches: list = []  # noqa: RUF012  (of the present update: token ids and mask)
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
            causes = [f"learning_rate {recipe.learning_rate} too high", "an attention back end (try trainer: trl)"]
            if half == "float16":
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
                        return  # loss scaling skips this update and halves its scale
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
