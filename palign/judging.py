"""The student as judge: does a prefix already hold the essential steps? (paper section 3, Eq. 4-6)

>>> session = Judge(engine, params).open([("What is 1+1?", ["One and one.", "Two."])])
>>> session([(0, 1)])  # the first trace's first sentence
[Verdict(label='ENOUGH', ...)]
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .engines.base import Engine, EngineStopped, NEVER_ANSWERED, PlainReader, Reader, Reading, said
from .engines.labels import LabelReader
from .params import Params
from .prompts import LABELS, fill, render
from .traces import RULES


@dataclass(frozen=True)
class Verdict:
    """One judgement. ``error`` is an outcome of its own: it never stands for NOT_ENOUGH.

    ``margin``: log-probability of ENOUGH minus that of NOT_ENOUGH in nats (``compare`` only). ``reason`` says what went
    wrong in an error. For it ``trace_tokens`` of the question and the trace were read, ``demand_tokens`` of what the
    prompt holds beside them, the labels included, and ``new_tokens`` were decoded; ``prompt_tokens`` is what reading
    the whole prompt for this verdict alone would have taken.
    """

    label: Literal["ENOUGH", "NOT_ENOUGH", "error"]
    trace_tokens: int = 0
    demand_tokens: int = 0
    prompt_tokens: int = 0
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
    """Opens a session for a few traces at once; ``params`` say how a verdict is read: by comparing or by decoding."""

    def __init__(self, engine: Engine, params: Params):
        self.engine, self.params, self.rule = engine, params, RULES[params.sentence_rule]

    def open(self, drafts: Sequence[tuple[str, list[str]]]) -> Session:
        """A session on (question, sentences of the trace) pairs."""
        return Session(self, drafts)

    def prompt(self, question: str, sentences: Sequence[str]) -> str:
        text = fill(self.params.judge_prompt, question=question, prefix=self.rule.join(sentences))
        return render(self.engine.tokenizer, text, self.params.chat_template_kwargs)


class Session:
    """Verdicts on prefixes of a few traces, each trace read once.

    ``room`` holds for each trace the longest prefix, in sentences, whose prompt and verdict the context can hold.
    """

    def __init__(self, judge: Judge, drafts: Sequence[tuple[str, list[str]]]):
        self.judge, self.drafts = judge, drafts
        self.room = [self._room(*draft) for draft in drafts]
        texts = [
            judge.prompt(question, trace[:room]) for (question, trace), room in zip(drafts, self.room, strict=True)
        ]
        self.reader = judge.engine.reader(texts)

    def __call__(self, asked: Sequence[tuple[int, int]]) -> list[Verdict]:
        """Verdicts on (trace index, sentences) pairs. A trace left out of a call is done with.

        What fails is asked once more, read from its start, before it counts as an error.
        """
        verdicts = self._ask(asked, self.reader)
        failed = [k for k, verdict in enumerate(verdicts) if verdict.label == "error"]
        if failed:
            again = self._ask([asked[k] for k in failed], self._afresh())
            for k, verdict in zip(failed, again, strict=True):
                verdicts[k] = verdict
        return verdicts

    def _ask(self, asked: Sequence[tuple[int, int]], reader: Reader) -> list[Verdict]:
        prompts = [(i, self.judge.prompt(self.drafts[i][0], self.drafts[i][1][:p])) for i, p in asked]
        try:
            if self.judge.params.verdict == "compare":
                return [_compared(reading) for reading in reader.choose(prompts, LABELS)]
            budget = self.judge.params.verdict_max_new_tokens
            return [_decoded(reading) for reading in reader.generate(prompts, budget)]
        except EngineStopped:  # nothing will be answered any more: no verdict on any trace
            raise
        except (RuntimeError, OSError) as error:  # out of memory, a server that is gone
            self.reader = self._afresh()
            return [Verdict("error", reason=f"engine error: {said(error)}")] * len(asked)

    def _afresh(self) -> Reader:
        """A reader that owes nothing to what failed: ours may have stopped half-way, unless it keeps nothing."""
        return self.reader if isinstance(self.reader, LabelReader) else PlainReader(self.judge.engine)

    def _room(self, question: str, trace: list[str]) -> int:
        tokenizer, params = self.judge.engine.tokenizer, self.judge.params
        labels = [len(tokenizer(label, add_special_tokens=False).input_ids) for label in LABELS]
        verdict = max(labels) if params.verdict == "compare" else params.verdict_max_new_tokens

        def tokens(p: int) -> int:
            return len(tokenizer(self.judge.prompt(question, trace[:p]), add_special_tokens=False).input_ids)

        if tokens(len(trace)) + verdict <= params.max_model_len:
            return len(trace)
        return bisect_right(range(1, len(trace)), params.max_model_len - verdict, key=tokens)


def _cost(reading: Reading) -> dict[str, int]:
    return {
        "trace_tokens": reading.shared_tokens,
        "demand_tokens": reading.own_tokens,
        "prompt_tokens": reading.prompt_tokens,
    }


def _compared(reading: Reading) -> Verdict:
    cost = _cost(reading)
    if reading.value is None:
        return Verdict("error", **cost, reason="prompt too long")
    margin = reading.value[0] - reading.value[1]
    if margin != margin:
        return Verdict("error", **cost, reason=reading.reason or "label probability is not a number")
    return Verdict("ENOUGH" if margin > 0 else "NOT_ENOUGH", **cost, margin=round(margin, 4))


def _decoded(reading: Reading) -> Verdict:
    completion, label = reading.value, parse(reading.value.text)
    cost = _cost(reading)
    cost["new_tokens"] = completion.new_tokens
    if completion.finish in NEVER_ANSWERED:
        return Verdict("error", **cost, reason=": ".join(filter(None, (completion.finish, completion.reason))))
    if label is None:
        return Verdict("error", **cost, reason=f"no single label in {completion.text[:80]!r}")
    return Verdict(label, **cost)
