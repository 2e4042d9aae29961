"""How the student is asked to continue a prefix, and which continuations are kept (paper section 3, Eq. 8-9).

>>> user_turn(params.continue_prompt, params.answer_prompt, "What is 1+1?", "One and one.")
'What is 1+1?\\nDraft: One and one.\\nTake the draft as known. Finish it and box the answer.'
"""

from __future__ import annotations

from .engines.base import Sampling
from .params import Alignment
from .prompts import fill, mark


def user_turn(continue_prompt: str, answer_prompt: str, question: str, prefix: str) -> str:
    """The student's instruction: to continue the prefix, or to answer the question where the prefix is empty."""
    if prefix:
        return fill(continue_prompt, question=question, prefix=prefix)
    return fill(answer_prompt, question=question)


def sampling_of(settings: Alignment) -> Sampling:
    """How continuations are sampled."""
    return Sampling(
        settings.alignment_max_new_tokens,
        settings.alignment_temperature,
        settings.alignment_top_p,
        settings.alignment_repetition_penalty,
    )


def cut(pair: dict) -> bool:
    """Whether the continuation is right but was cut at its budget: its text ends in the middle, often of a loop."""
    return pair["outcome"] == "right" and pair["finish"] == "length"


def kept(pair: dict, keep_cut: bool = False) -> bool:
    """Whether the filter keeps a pair for training (Eq. 9): its continuation is right, and was not cut.

    Eq. 9 asks only for a right answer; ``keep_cut`` does the same.
    """
    return pair["outcome"] == "right" and (keep_cut or not cut(pair))


def target(pair: dict) -> str:
    """The pair as it is trained on: the continuation behind its marked prefix, or alone where there is no prefix."""
    return mark(pair["prefix"], pair["continuation"]) if pair["prefix"] else pair["continuation"]
