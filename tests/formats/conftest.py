"""The tokenizers of real models, without their weights (`make test-formats`; tests/formats/build.py makes them)."""

from functools import lru_cache
from pathlib import Path

import pytest

from tests.formats.build import FORMATS, SOURCES

SWITCHES = {"qwen2_5": {}, "qwen3": {"enable_thinking": False}, "llama3_2": {"date_string": "26 Jul 2024"}}
"""``chat_template_kwargs`` of the families' studies."""
STOPS = {
    "qwen2_5": ["<|im_end|>", "<|endoftext|>"],
    "qwen3": ["<|im_end|>", "<|endoftext|>"],
    "llama3_2": ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
}
"""End-of-sequence tokens in the published generation configs."""


def pytest_collection_modifyitems(items):
    missing = [family for family in SOURCES if not (FORMATS / family / "tokenizer_config.json").exists()]
    skip = pytest.mark.skip(reason=f"no tokenizer of {', '.join(missing)} in .formats/: run `make test-formats`")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.formats)
            item.add_marker(pytest.mark.model)
            if missing:
                item.add_marker(skip)


def pytest_configure(config):
    config.addinivalue_line("markers", "formats: needs the tokenizers of real models (`make test-formats`)")


@lru_cache
def tokenizer_of(family: str):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FORMATS / family)


@pytest.fixture(params=SOURCES)
def family(request) -> str:
    return request.param


@pytest.fixture
def tokenizer(family):
    return tokenizer_of(family)


CONFIGS = {"qwen2_5": ("Qwen2Config", 152064), "qwen3": ("Qwen3Config", 151936), "llama3_2": ("LlamaConfig", 128256)}
"""Class and vocabulary of the published models."""


@pytest.fixture
def student(family, tmp_path, monkeypatch) -> Path:
    """A student with the family's tokenizer, template, vocabulary and stop tokens: two layers of random weights.

    Its tokenizer is loaded once for all tests: that takes seconds.
    """
    import torch
    import transformers

    name, vocabulary = CONFIGS[family]
    stops = tokenizer_of(family).convert_tokens_to_ids(STOPS[family])
    config = getattr(transformers, name)(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=stops,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config = transformers.GenerationConfig(eos_token_id=stops)
    folder = tmp_path / "real-student"
    model.save_pretrained(folder)
    for file in (FORMATS / family).iterdir():
        (folder / file.name).symlink_to(file)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer_of(family))
    return folder
