"""The student as judge: does a prefix already hold the essential steps? (paper section 3, Eq. 4-6)

>>> judge = Judge(engine, params)
>>> judge([("What is 1+1?", "One and one.")])
[Verdict(label='ENOUGH', ...)]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .engines import Engine, Sampling
from .params import Params
from .prompts import LABELS, fill, render


@dataclass(frozen=True)
class Verdict:
    """One judgement. ``error`` is an outcome of its own: it never stands for NOT_ENOUGH.

    ``margin``: log-probability of ENOUGH minus that of NOT_ENOUGH in nats (``compare`` only).
    ``reason`` says what went wrong in an error. ``prompt_tokens`` were read, ``new_tokens`` decoded.
    """

    label: Literal["ENOUGH", "NOT_ENOUGH", "error"]
    prompt_tokens: int
    new_tokens: int = 0
    margin: float | None = None
    reason: str | None = None


def parse(text: str) -> str | None:
    """The one label a decoded verdict holds; ``None`` for none or for both.

    >>> parse("I think [NOT_ENOUGH].")
    'NOT_ENOUGH'
    """
    found = set(re.findall(r"\[(ENOUGH|NOT_ENOUGH)\]", text))
    return found.pop() if len(found) == 1 else None


class Judge:
    """Verdicts on (question, prefix) pairs, a batch at a time, by comparing label probabilities or by decoding."""

    def __init__(self, engine: Engine, params: Params):
        self.engine, self.params = engine, params

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        prompts = [
            render(
                self.engine.tokenizer,
                fill(self.params.judge_prompt, question=question, prefix=prefix),
                self.params.chat_template_kwargs,
            )
            for question, prefix in pairs
        ]
        return self._compare(prompts) if self.params.verdict == "compare" else self._decode(prompts)

    def _compare(self, prompts: list[str]) -> list[Verdict]:
        verdicts = []
        for prompt, logprobs in zip(prompts, self.engine.choose(prompts, LABELS), strict=True):
            tokens = len(self.engine.tokenizer(prompt, add_special_tokens=False).input_ids)
            if logprobs is None:
                verdicts.append(Verdict("error", tokens, reason="prompt too long"))
                continue
            margin = logprobs[0] - logprobs[1]
            if margin != margin:
                verdicts.append(Verdict("error", tokens, reason="label probability is not a number"))
            else:
                verdicts.append(Verdict("ENOUGH" if margin > 0 else "NOT_ENOUGH", tokens, margin=round(margin, 4)))
        return verdicts

    def _decode(self, prompts: list[str]) -> list[Verdict]:
        sampling = Sampling(max_new_tokens=self.params.verdict_max_new_tokens)
        verdicts = []
        for completion in self.engine.generate(prompts, sampling, seeds=[0] * len(prompts)):
            label = parse(completion.text)
            tokens = (completion.prompt_tokens, completion.new_tokens)
            if completion.finish == "prompt too long":
                verdicts.append(Verdict("error", *tokens, reason="prompt too long"))
            elif label is None:
                verdicts.append(Verdict("error", *tokens, reason=f"no single label in {completion.text[:80]!r}"))
            else:
                verdicts.append(Verdict(label, *tokens))
        return verdicts
