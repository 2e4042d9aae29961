"""One process with the real unsloth: ``python -m tests.unsloth.worker FOLDER JSON``. Prints a JSON object last.

The object given: ``dtype``; ``stop``, the update at which the process kills itself; ``train``, without which the
trainer is built only.
"""

from tests.unsloth import on_cpu  # noqa: I001  (first of all)

import inspect
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from palign import finetuning
from palign.tasks import resolved
from benchmarks.gpu import _load_start, settings
from tests.unsloth import study

finetuning.on_cuda = resolved.on_cuda = lambda device: True
finetuning.prepare(SimpleNamespace(trainer="unsloth", device="auto"))
on_cpu.claim_bfloat16()


def signatures() -> dict[str, list[str]]:
    """The arguments that unsloth's two functions know by name."""
    from unsloth import FastLanguageModel
    from unsloth.models.llama import FastLlamaModel

    real = {
        "from_pretrained": FastLanguageModel.from_pretrained,
        "get_peft_model": FastLlamaModel.get_peft_model,
    }
    return {name: list(inspect.signature(inspect.unwrap(function)).parameters) for name, function in real.items()}


def refusal(folder: Path, **changes) -> str:
    """The one line that a trainer with these changes is refused with."""
    try:
        study.trainer(folder, "unsloth", **changes)
    except finetuning.TrainerError as error:
        return str(error)
    return "not refused"


def main(folder: Path, asked: dict) -> dict:
    trainer = study.trainer(folder, "unsloth", dtype=asked["dtype"])
    from unsloth_zoo import gradient_checkpointing

    found = {
        "settings": settings(trainer),
        "exact_offload": gradient_checkpointing.FP32_OFFLOAD_EXACT,
        "class": type(trainer).__mro__[1].__name__,
    }
    if not asked.get("train"):
        return found | {
            "signatures": signatures(),
            "4 bits": refusal(folder, load_in_4bit=True),
            "window": refusal(folder, max_length=study.WINDOW + 1),
        }
    _load_start(trainer.model, folder / "start.safetensors")
    if stop := asked.get("stop"):
        step = trainer.training_step

        def training_step(*args, **kwargs):
            if trainer.state.global_step == stop:
                os._exit(9)
            return step(*args, **kwargs)

        trainer.training_step = training_step
    trainer.train(resume_from_checkpoint=finetuning._last_checkpoint(folder / "unsloth" / "checkpoints"))
    finetuning.save_adapter(trainer.model, folder / "unsloth" / "adapter", study.model(folder))
    return found | {"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]}


if __name__ == "__main__":
    print("\n" + json.dumps(main(Path(sys.argv[1]), json.loads(sys.argv[2]))))
    sys.stdout.flush()
    os._exit(0)  # unsloth's threads are not waited for
