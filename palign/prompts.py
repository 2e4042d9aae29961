"""Instructions filled in, prompts rendered by a model's own chat template, and the prefix markers.

The instructions are parameters (``answer_prompt``, ``judge_prompt``, ``continue_prompt`` and others). In the judge's,
the question and the prefix come first and the demand for a label last, so that the prompts of nested prefixes share
their beginning, which the prefix cache then reads once.

Text that others wrote (problems, traces, responses) must not act as a control token or a prefix marker. Both are broken
by a space after their first character (``< |im_end|>``). The text itself is changed, so that every engine, training and
evaluation read the same.

>>> fill("{question}\\nDraft: {prefix}", question="1+1?", prefix="One and one.")
'1+1?\\nDraft: One and one.'
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

LABELS = ("[ENOUGH]", "[NOT_ENOUGH]")
BEGIN, END = "<Begin_of_Prefix>", "<End_of_Prefix>"

MARKERS = re.compile("|".join(map(re.escape, (BEGIN, END))))
CONTROL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think>"
)
"""Control tokens of common chat templates, for counts and for services with an unknown tokenizer."""


def fill(template: str, **values: str) -> str:
    """``template`` with values in place of ``{name}``. Other braces (LaTeX) stay, in the template and in the values.

    Prefix markers are broken in the values, not in the template.
    """
    return re.sub(r"\{(\w+)\}", lambda m: broken(values[m[1]], MARKERS) if m[1] in values else m[0], template)


def broken(text: str, pattern: re.Pattern) -> str:
    """``text`` with a space after the first character of each match of ``pattern``, until there are no matches."""
    while (found := pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
        text = found
    return text


def plain(tokenizer, text: str, response: bool = False) -> str:
    """``text`` with every control token of ``tokenizer`` broken.

    Control tokens are its special tokens and those other added tokens that the chat template writes (``<think>``). The
    latter stay in a ``response``, where a reasoning student or teacher wrote them itself.
    """
    pattern = _control(tokenizer, response)
    try:
        text.encode()
    except UnicodeEncodeError:  # tokenizers fail on half of a surrogate pair
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return broken(text, pattern) if pattern else text


@lru_cache(maxsize=16)
def _control(tokenizer, response: bool) -> re.Pattern | None:
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if added is None:
        return CONTROL
    template = "" if response else str(tokenizer.chat_template or "")
    names = {t.content.strip() for t in added.values() if t.special or t.content in template}
    # the longest first: where one token is the beginning of another, the tokenizer reads the longer one
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


FIXED = {"date_string": "26 Jul 2024"}
"""The date that Llama 3.2's own template falls back to, as a switch of the template."""


def check_date(tokenizer, chat_template_kwargs: dict) -> None:
    """Raise ``ValueError`` where the chat template writes today's date into prompts.

    Prompts would change at midnight, between training and evaluation too, and no record's key would tell.
    transformers gives templates its clock as ``strftime_now``; here a prompt is rendered under two other clocks.
    """
    if "strftime_now" not in str(tokenizer.chat_template):
        return

    def changes(switches: dict) -> bool:
        clocks = (datetime(2001, 1, 1).strftime, datetime(2012, 11, 10, 9, 8, 7).strftime)
        return len({render(tokenizer, "", switches | {"strftime_now": clock}) for clock in clocks}) > 1

    if changes(chat_template_kwargs):
        remedy = "give its folder a chat_template.jinja with a fixed date"
        if not changes(chat_template_kwargs | FIXED):
            remedy = f"set chat_template_kwargs: {{date_string: {FIXED['date_string']}}} (of the role that it has)"
        raise ValueError(f"{tokenizer.name_or_path}: its chat template writes today's date into every prompt; {remedy}")


def mark(prefix: str, continuation: str) -> str:
    """The training target: the prefix between its markers, then the continuation (paper section 3).

    Markers inside either are broken, so that a target has one prefix block.
    """
    return f"{BEGIN}{broken(prefix, MARKERS)}{END}{broken(continuation, MARKERS)}"
