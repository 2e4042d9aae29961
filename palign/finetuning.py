"""Supervised fine-tuning with LoRA: TRL's ``SFTTrainer`` and PEFT, loss on the response only (Eq. 2).

>>> manifest = finetune(params, "p-align")
>>> manifest["updates"]
69
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from . import plan, supervision, traces
from .engines import seed_of
from .engines.transformers import load_tokenizer
from .params import Params, resolve


class NotFinite(RuntimeError):
    """A loss or a gradient that is not a number stops the run: a model trained on past it would be noise."""


def conversation(row: dict[str, str], params: Params) -> dict:
    """A row in TRL's conversational prompt/completion form, rendered by the template evaluation uses."""
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
        "chat_template_kwargs": params.chat_template_kwargs,
    }


def updates(params: Params, rows: int, full: int) -> int:
    """Optimizer steps: the epochs over this arm's rows or, with ``equal_updates``, over all ``full`` problems."""
    per_update = params.per_device_train_batch_size * params.gradient_accumulation_steps
    return math.ceil(params.num_train_epochs * math.ceil((full if params.equal_updates else rows) / per_update))


@plan.held(plan.finetuning)
def finetune(params: Params, arm: str) -> dict | None:
    """Train the arm's adapter and return the manifest; ``None`` for an arm that is not trained.

    Checkpoints every ``save_steps`` updates, and goes on from the last one after a kill. Raises :class:`NotFinite`,
    and ``ValueError`` when the arm has no rows.
    """
    task = plan.finetuning(params, arm)
    if task is None:
        return None
    folder = task.folder
    if folder.done:
        return folder.manifest()
    tokenizer = load_tokenizer(params)
    rows = supervision.build(params, arm, tokenizer)
    if not rows:
        raise ValueError(f"{arm}: no training rows: no continuation was right; see the alignment's pairs")
    steps = updates(params, len(rows), len(traces.load(params)))
    trainer = _trainer(params, task.folder.path, rows, tokenizer, steps)
    lengths = [len(example["input_ids"]) for example in trainer.train_dataset]
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder.path / "checkpoints"))
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    trainer.model.save_pretrained(folder.path / "adapter")
    folder.write("losses", [{"step": entry["step"], "loss": round(entry["loss"], 6)} for entry in history])
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    task.finish(
        trainer="trl",
        rows=len(rows),
        updates=steps,
        epochs=round(trainer.state.epoch, 3),
        longest_row_tokens=max(lengths),
        rows_cut=sum(length >= params.max_length for length in lengths),
        tokens_trained=round(sum(lengths) * trainer.state.epoch),
        trainable_parameters=sum(p.numel() for p in parameters),
        last_loss=history[-1]["loss"],
        train_seconds=round(sum(record["seconds"] for record in folder.read("train_seconds")), 1),
    )
    shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)  # the manifest stands: nothing will resume
    return folder.manifest()


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written whole; a torn one is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        newest = found.pop()
        if (newest / "whole").exists():
            return str(newest)
        shutil.rmtree(newest)
    return None


def _trainer(params: Params, folder: Path, rows: list[dict], tokenizer, steps: int):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback, Trainer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(params.threads)
    cuda = torch.cuda.is_available() and params.device != "cpu"

    class ResponseTrainer(SFTTrainer):
        """Off a GPU, TRL's fused loss head has no kernel to run on; the plain loss gives the same numbers."""

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if cuda:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            inputs["use_cache"] = False
            return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)

    model = AutoModelForCausalLM.from_pretrained(
        resolve(params.student), revision=params.student_revision, dtype=params.dtype, use_safetensors=True
    )
    seed = seed_of(params.seed, "finetuning") % 2**31
    half = next(model.parameters()).dtype
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
        gradient_checkpointing=cuda,
        bf16=cuda and half == torch.bfloat16,
        fp16=cuda and half == torch.float16,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        save_steps=params.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = ResponseTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([conversation(row, params) for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=params.lora_r,
            lora_alpha=params.lora_alpha,
            lora_dropout=params.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[_watch(folder, steps)],
    )
    trainer.remove_callback(PrinterCallback)  # the progress bar says it all
    return trainer


def _watch(folder: Path, steps: int):
    """A callback: progress bar, a stop at the first number that is none, and marks on whole checkpoints."""
    import time

    import torch
    from transformers import TrainerCallback

    from .store import RunFolder, progress

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.bar = progress("fine-tuning", steps, state.global_step)
            self.began = time.perf_counter()

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                    raise NotFinite(
                        f"gradient of {name} is not finite at update {state.global_step + 1}; lower learning_rate, "
                        "use bfloat16 or float32, or another attention back end"
                    )

        def on_log(self, args, state, control, logs=None, **kwargs):
            loss = (logs or {}).get("loss")
            if loss is not None:
                if not math.isfinite(loss):
                    raise NotFinite(f"loss is {loss} at update {state.global_step}; lower learning_rate")
                self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        def on_step_end(self, args, state, control, **kwargs):
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
