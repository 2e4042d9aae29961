"""Prefixes found without a search: shares, thirds, the oracle, one reading, information gain (PAPER.md section 3).

Each gives, for every trace, a :class:`Cut`: which sentences stand in for the prefix. ``palign.truncation`` turns cuts
into the same records as the adaptive prefixes, so that what comes after need not know how a prefix was found.

>>> fixed(48, 30)
Cut(start=0, end=15, ...)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .engines.base import Engine, Reading, said
from .params import Params
from .problems import DataError
from .prompts import fill, plain, render
from .traces import RULES, Rule, Trace, sufficient_sentences


@dataclass(frozen=True)
class Cut:
    """Sentences ``start`` (from 0) to ``end`` (excluded) of a trace; ``error`` says why there are none.

    ``sufficient``: whether something vouches for them. ``probes`` are (sentences, label, value) as in a prefix's
    ``verdicts``, the value being what the strategy compares. Tokens are counted as there.
    """

    start: int = 0
    end: int = 0
    sufficient: bool = False
    error: str | None = None
    room: int | None = None
    probes: tuple[tuple[int, str, float], ...] = ()
    tokens_read: int = 0
    tokens_demanded: int = 0
    tokens_of_prompts: int = 0


def fixed(m: int, percent: int) -> Cut:
    """The first ``percent`` % of ``m`` sentences, rounded up, at least one (Figure 3a-b).

    The paper says a ratio of the trace and not of what; sentences, since the adaptive prefix is cut between them too.
    """
    return Cut(end=max(1, -(-percent * m // 100)))


THIRDS = ("prefix", "middle", "suffix")


def segment(m: int, part: str) -> Cut:
    """One of three runs of sentences that together are the trace, the earlier ones the longer (Figure 4b).

    Of one or two sentences, the later thirds are empty: an error, for an empty prefix would be another arm.
    """
    i = THIRDS.index(part)
    start, end = -(-i * m // 3), -(-(i + 1) * m // 3)
    return Cut(start, end) if start < end else Cut(error=f"a trace of {m} sentences has no {part} third")


def oracle(trace: Trace, rule: Rule) -> Cut:
    """The shortest truly sufficient prefix: a judge that is never wrong. Raises ``DataError`` where none is known."""
    known = sufficient_sentences(trace, rule)
    if known is None:
        raise DataError(f"p-align-oracle: trace {trace.id} has no sufficient_chars; only artificial data know it")
    return Cut(end=known, sufficient=True)


def cut_by_gain(gains: Sequence[float], share: float) -> tuple[int, bool]:
    """The smallest p (from 1) whose gain reaches ``share`` of the largest; all, and ``False``, where none is positive.

    ``gains``: of the prefixes of 1, 2, ... sentences, shape (sentences,).
    """
    largest = max(gains)
    if largest <= 0:
        return len(gains), False
    return next(p for p, gain in enumerate(gains, start=1) if gain >= share * largest), True


BLOCK = 64  # prefixes of a trace asked about in one pass: bounds the memory of a long trace


class InfoGain:
    """Cuts where the student's information gain about the answer levels off (Table 2).

    The paper cites InfoGain-RAG's criterion, the model's confidence in the gold answer with a text less that without
    it, and leaves open how confidence is read and where the gain levels off. Here confidence is the probability of the
    gold answer's tokens right behind an opened box at the start of the reply, to the continue prompt for a prefix and
    to the answer prompt for none: the belief about the answer, not the habit of boxing at once. The closing brace is
    left out, since tokenizers join it with what follows. The cut is the shortest prefix that has ``infogain_share`` of
    the trace's largest gain, which a dip behind it cannot move; a trace that ends by stating its answer draws the cut
    towards that statement, which is the criterion's own doing. Where no prefix has a positive gain the whole trace
    stands in, marked insufficient.
    """

    def __init__(self, engine: Engine, params: Params):
        self.engine, self.params, self.rule = engine, params, RULES[params.sentence_rule]

    def __call__(self, trace: Trace, sentences: Sequence[str]) -> Cut:
        def tokens(p: int) -> int:
            return _tokens(self.engine, self.prompt(trace, sentences[:p]))

        answer = plain(self.engine.tokenizer, trace.answer)
        room = _room(tokens, len(sentences), self.params.max_model_len - _tokens(self.engine, answer))
        if not room:
            return Cut(error="prompt too long")
        reader = self.engine.reader([self.prompt(trace, sentences[:room])])
        readings: list[Reading] = []
        for first in range(0, room + 1, BLOCK):
            lengths = range(first, min(first + BLOCK, room + 1))
            prompts = [(0, self.prompt(trace, sentences[:p])) for p in lengths]
            readings += reader.choose(prompts, (answer,))
        if any(reading.value is None or reading.value[0] != reading.value[0] for reading in readings):
            why = next((reading.reason for reading in readings if reading.reason), None)
            return Cut(error=why or "log-probability of the answer is not a number", **_cost(readings))
        without, *confidences = (math.exp(reading.value[0]) for reading in readings)
        gains = [confidence - without for confidence in confidences]
        end, positive = cut_by_gain(gains, self.params.infogain_share)
        least = self.params.infogain_share * max(gains) if positive else math.inf
        labels = ["ENOUGH" if gain >= least else "NOT_ENOUGH" for gain in gains]
        probes = tuple((p, label, round(gain, 6)) for p, (label, gain) in enumerate(zip(labels, gains, strict=True), 1))
        return Cut(end=end, sufficient=positive, room=room, probes=probes, **_cost(readings))

    def prompt(self, trace: Trace, kept: Sequence[str]) -> str:
        template = self.params.continue_prompt if kept else self.params.answer_prompt
        asked = fill(template, question=trace.question, prefix=self.rule.join(kept))
        return render(self.engine.tokenizer, asked, self.params.chat_template_kwargs) + "\\boxed{"


class OneReading:
    """The student reads the whole trace once, its sentences numbered, and names the boundary (Table 2).

    The paper does not show this ablation's prompt; ``boundary_prompt`` is ours. The boundary is the most probable of
    "[1]" to "[m]", so that there always is one. The labels' log-probabilities are sums over their tokens and are
    compared as they stand: no label begins another one, thanks to the closing bracket, so they are probabilities of
    events that exclude each other, and dividing by the number of tokens would favour long numbers.
    """

    def __init__(self, engine: Engine, params: Params):
        self.engine, self.params = engine, params

    def __call__(self, trace: Trace, sentences: Sequence[str]) -> Cut:
        def tokens(p: int) -> int:
            return _tokens(self.engine, self.prompt(trace, sentences[:p]))

        longest = _tokens(self.engine, f"[{len(sentences)}]")
        room = _room(tokens, len(sentences), self.params.max_model_len - longest)
        if not room:
            return Cut(error="prompt too long")
        prompt = self.prompt(trace, sentences[:room])
        (reading,) = self.engine.reader([prompt]).choose([(0, prompt)], [f"[{p}]" for p in range(1, room + 1)])
        if reading.value is None or any(value != value for value in reading.value):
            why = reading.reason or "log-probability of a label is not a number"
            return Cut(error=why, **_cost([reading]))
        end = max(range(1, room + 1), key=lambda p: reading.value[p - 1])
        probes = ((end, "ENOUGH", round(reading.value[end - 1], 4)),)
        return Cut(end=end, sufficient=True, room=room, probes=probes, **_cost([reading]))

    def prompt(self, trace: Trace, sentences: Sequence[str]) -> str:
        numbered = " ".join(f"[{p}] {sentence.strip()}" for p, sentence in enumerate(sentences, start=1))
        asked = fill(self.params.boundary_prompt, question=trace.question, numbered=numbered)
        return render(self.engine.tokenizer, asked, self.params.chat_template_kwargs)


def _tokens(engine: Engine, text: str) -> int:
    return len(engine.tokenizer(text, add_special_tokens=False).input_ids)


def _room(tokens: Callable[[int], int], m: int, limit: int) -> int:
    """How many of ``m`` sentences a prompt of ``limit`` tokens holds; 0 where not even one."""
    return m if tokens(m) <= limit else bisect_right(range(1, m), limit, key=tokens)


def _cost(readings: Sequence[Reading]) -> dict[str, int]:
    return {
        "tokens_read": sum(reading.shared_tokens for reading in readings),
        "tokens_demanded": sum(reading.own_tokens for reading in readings),
        "tokens_of_prompts": sum(reading.prompt_tokens for reading in readings),
    }


def reads(strategy: str) -> bool:
    """Whether the strategy needs a model; the others only count sentences."""
    return strategy in ("infogain", "one-reading")


def cutter(strategy: str, params: Params, engine: Engine | None) -> Callable[[Trace, Sequence[str]], Cut]:
    """The strategy as a function of a trace and its sentences. A reading that fails is an error of that trace alone.

    Raises ``ValueError`` for a name that is no strategy of this module.
    """
    kind, _, which = strategy.partition("-")
    if kind == "fixed":
        return lambda trace, sentences: fixed(len(sentences), int(which))
    if kind == "segment":
        return lambda trace, sentences: segment(len(sentences), which)
    if strategy == "oracle":
        return lambda trace, sentences: oracle(trace, RULES[params.sentence_rule])
    if not reads(strategy):
        raise ValueError(f"{strategy}: no such strategy")
    read = {"infogain": InfoGain, "one-reading": OneReading}[strategy](engine, params)

    def guarded(trace: Trace, sentences: Sequence[str]) -> Cut:
        try:
            return read(trace, sentences)
        except (RuntimeError, OSError) as error:  # out of memory, a server that is gone
            return Cut(error=f"engine error: {said(error)}")

    return guarded
