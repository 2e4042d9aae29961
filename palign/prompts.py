"""The three instructions, their rendering by the student's own chat template, and the prefix markers.

The wording is a parameter (``answer_prompt``, ``judge_prompt``, ``continue_prompt``); this module only fills it in.
In the judge's prompt the question and the prefix come first and the demand for a label last, so that the prompts of
nested prefixes share their beginning.

>>> fill("{question}\\nDraft: {prefix}", question="1+1?", prefix="One and one.")
'1+1?\\nDraft: One and one.'
"""

import re

LABELS = ("[ENOUGH]", "[NOT_ENOUGH]")
BEGIN, END = "<Begin_of_Prefix>", "<End_of_Prefix>"


def fill(template: str, **values: str) -> str:
    """Put values in place of ``{name}``; braces elsewhere (LaTeX) are left alone, in the template and the values."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def render(tokenizer, user: str, chat_template_kwargs: dict) -> str:
    """One user turn and the opening of the reply, as text. Raises ``ValueError`` without a chat template."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; use an instruct model, "
            "or add chat_template.jinja to its folder"
        )
    messages = [{"role": "user", "content": user}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **chat_template_kwargs)


def mark(prefix: str, continuation: str) -> str:
    """The training target: the prefix between its markers, then the continuation (paper section 3)."""
    return f"{BEGIN}{prefix}{END}{continuation}"
