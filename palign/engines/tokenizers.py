"""The tokenizer of a model, as every stage uses it."""

from __future__ import annotations

from collections.abc import Sequence

from ..params import Model
from ..prompts import check_date


def load_tokenizer(model: Model):
    """The model's own tokenizer; for a service's model, whose tokenizer is not known, :class:`Characters`.

    Raises ``ValueError`` where its chat template depends on today's date.
    """
    if model.is_service:
        return Characters()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path, revision=model.revision, trust_remote_code=model.trusted)
    check_date(tokenizer, model.chat_template_kwargs)
    return tokenizer


class Characters:
    """Stands in for the tokenizer of a service: a rendered prompt is the user's text, a token about four characters."""

    chat_template = "the service's own"
    name_or_path = "endpoint"

    @staticmethod
    def apply_chat_template(messages: list[dict], **_) -> str:
        return messages[0]["content"]

    class _Encoded:
        def __init__(self, input_ids):
            self.input_ids = input_ids

    def __call__(self, text: str | Sequence[str], **_) -> _Encoded:
        if isinstance(text, str):
            return self._Encoded(list(range(-(-len(text) // 4))))
        return self._Encoded([self(one).input_ids for one in text])
