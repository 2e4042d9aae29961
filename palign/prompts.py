"""The three instructions, their rendering by the student's own chat template, and the prefix markers.

The wording is a parameter (``answer_prompt``, ``judge_prompt``, ``continue_prompt``); this module only fills it in.
In the judge's prompt the question and the prefix come first and the demand for a label last, so that the prompts of
nested prefixes share their beginning.

What others wrote (problems, traces, responses) is text and nothing else: no control token and no prefix marker in it
is left whole. It is broken by a space behind its first character, ``< |im_end|>``, in the text itself, so that every
engine, training and evaluation read the same.

>>> fill("{question}\\nDraft: {prefix}", question="1+1?", prefix="One and one.")
'1+1?\\nDraft: One and one.'
"""

from __future__ import annotations

import re
from functools import lru_cache

LABELS = ("[ENOUGH]", "[NOT_ENOUGH]")
BEGIN, END = "<Begin_of_Prefix>", "<End_of_Prefix>"

MARKERS = re.compile("|".join(map(re.escape, (BEGIN, END))))
CONTROL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think>"
)
"""Control tokens of the chat templates in use, for counts, and for a service whose own tokens are not known."""


def fill(template: str, **values: str) -> str:
    """Put values in place of ``{name}``; braces elsewhere (LaTeX) are left alone, in the template and the values.

    Prefix markers in the values are broken, those of the template are not.
    """
    return re.sub(r"\{(\w+)\}", lambda m: broken(values[m[1]], MARKERS) if m[1] in values else m[0], template)


def broken(text: str, pattern: re.Pattern) -> str:
    """``text`` with a space behind the first character of whatever ``pattern`` finds, until it finds nothing."""
    while (found := pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
        text = found
    return text


def plain(tokenizer, text: str, response: bool = False) -> str:
    """``text`` without anything that ``tokenizer`` reads as a control token.

    Control tokens are its special tokens and, of its other added ones, those that the chat template writes
    (``<think>``): not in a ``response``, where a reasoning student wrote them itself.
    """
    pattern = _control(tokenizer, response)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, on which tokenizers fail
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return broken(text, pattern) if pattern else text


@lru_cache(maxsize=16)
def _control(tokenizer, response: bool) -> re.Pattern | None:
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if added is None:
        return CONTROL
    template = "" if response else str(tokenizer.chat_template or "")
    names = {t.content.strip() for t in added.values() if t.special or t.content in template}
    # the longest first: of two that begin alike it is the one the tokenizer reads
    names = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))) if names else None


def render(tokenizer, user: str, chat_template_kwargs: dict) -> str:
    """One user turn and the opening of the reply, as text. Raises ``ValueError`` without a chat template."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; use an instruct model, "
            "or add chat_template.jinja to its folder"
        )
    messages = [{"role": "user", "content": plain(tokenizer, user)}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **chat_template_kwargs)


def mark(prefix: str, continuation: str) -> str:
    """The training target: the prefix between its markers, then the continuation (paper section 3).

    Markers within either are broken: a target has one block.
    """
    return f"{BEGIN}{broken(prefix, MARKERS)}{END}{broken(continuation, MARKERS)}"
