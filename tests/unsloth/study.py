"""Four updates on a two-layer Llama, for both trainers."""

import shutil
from pathlib import Path

from palign import finetuning
from palign.params import FineTuning, Machine, Model

UPDATES, WINDOW = 4, 64


def model(folder: Path, dtype: str = "float32") -> Model:
    return Model(name=str(folder / "llama"), dtype=dtype, max_model_len=WINDOW)


def make(folder: Path) -> None:
    """Write the Llama, with the pocket student's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    pocket = Path(finetuning.__file__).parent / "pocket" / "student"
    shutil.copytree(pocket, folder / "llama", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(pocket)),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=WINDOW,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")


def trainer(folder: Path, kind: str, dtype: str = "float32", device: str = "auto", **changes):
    """The project's trainer on eight rows of 6 to 13 tokens, the first three of each without loss."""
    from palign.engines.tokenizers import load_tokenizer

    values = {
        "lora_dropout": 0.0,
        "max_length": 32,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "save_steps": 2,
    }
    rows = [
        {
            "id": str(i),
            "answers": False,
            "input_ids": [(37 * i + 11 * k) % 600 for k in range(6 + i)],
            "prompt_tokens": 3,
        }
        for i in range(2 * UPDATES)
    ]
    recipe, student, machine = FineTuning(**values | changes), model(folder, dtype), Machine(device=device)
    tokenizer = load_tokenizer(student)
    return finetuning._trainer(recipe, student, machine, folder / kind, rows, tokenizer, UPDATES, 7, kind)
