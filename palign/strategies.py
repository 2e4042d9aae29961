"""Prefixes without a search: shares, thirds, the oracle, one reading, information gain (paper, Table 2, Figures 3, 4),
and shorter traces as others make them: half of the tokens, up to a right answer, without sentences of low entropy.

A strategy returns a :class:`Cut` for every trace: the sentences that are used as its prefix. ``palign.truncation``
turns cuts into the same records as the adaptive prefixes, so that later stages need not know how a prefix was found.

>>> fixed(48, 30)
Cut(start=0, end=15, ...)
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from .engines.base import Engine, EngineStopped, Reading, said
from .grading import grade_all, last_box
from .judging import room
from .problems import DataError
from .prompts import fill, plain
from .traces import Rule, Trace, split_reversibly, sufficient_sentences


@dataclass(frozen=True)
class Cut:
    """Sentences ``start`` (from 0) to ``end`` (excluded) of a trace; ``error`` says why there are none.

    ``sufficient``: whether the strategy found them sufficient; strategies that count sentences never do. ``room``: how
    many sentences fitted the context (``None``: all). ``probes``: (sentences, label, value) as in
    ``palign.truncation.Prefix.verdicts``, where the value is what the strategy compares; tokens are counted as there.
    ``text``: the prefix where it is not these sentences joined; the cut then has as many sentences as the text.
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
    text: str | None = None


def fixed(m: int, percent: int) -> Cut:
    """The first ``percent`` % of ``m`` sentences, rounded up, at least one (Figure 3a-b).

    The paper does not say whether its ratio is of tokens or of sentences. We use sentences because the adaptive prefix
    is cut between sentences too.
    """
    return Cut(end=max(1, -(-percent * m // 100)))


THIRDS = ("prefix", "middle", "suffix")


def segment(m: int, part: str) -> Cut:
    """One third of ``m`` sentences; where they cannot be divided evenly, earlier thirds are longer (Figure 4b).

    The later thirds of one or two sentences are empty. That is an error: an empty prefix would be another arm.
    """
    i = THIRDS.index(part)
    start, end = -(-i * m // 3), -(-(i + 1) * m // 3)
    return Cut(start, end) if start < end else Cut(error=f"a trace of {m} sentences has no {part} third")


def oracle(trace: Trace, rule: Rule) -> Cut:
    """The shortest truly sufficient prefix. Raises ``DataError`` if the data do not state it."""
    known = sufficient_sentences(trace, rule)
    if known is None:
        raise DataError(f"p-align-oracle: trace {trace.id} has no sufficient_chars; only artificial data state it")
    return Cut(end=known, sufficient=True)


def cut_by_gain(gains: Sequence[float], share: float) -> tuple[int, bool]:
    """The fewest sentences whose gain reaches ``share`` of the largest gain, and ``True``.

    Where no gain is positive: all sentences, and ``False``. ``gains``: of the prefixes of 1, 2, ... sentences, shape
    (sentences,).
    """
    largest = max(gains)
    if largest <= 0:
        return len(gains), False
    return next(p for p, gain in enumerate(gains, start=1) if gain >= share * largest), True


def opened(tokenizer, answer: str) -> tuple[str, str]:
    """``\\boxed{`` and the ``answer`` in two parts: what the prompt ends in, and what is scored.

    Tokenizers join the brace with punctuation behind it (``{\\`` and ``frac`` for a fraction). It is then scored with
    the answer, so that the tokens that are scored are those of the text.
    """

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    whole, splits = ids("\\boxed{" + answer), [("\\boxed{", answer), ("\\boxed", "{" + answer)]
    return next(((box, tail) for box, tail in splits if ids(box) + ids(tail) == whole), splits[0])


BLOCK = 64
"""Prefixes of a trace that one pass reads: it limits the memory that a long trace takes."""


class InfoGain:
    """Cuts where the student's information gain about the answer levels off (Table 2).

    The paper cites InfoGain-RAG's criterion: the model's confidence in the gold answer with a text, minus its
    confidence without the text. It does not say how confidence is read and where the gain levels off. Here confidence
    is the probability of the gold answer's tokens after a box that we open at the start of the reply, so that it does
    not depend on whether the model would have opened one (:func:`opened`). The prompt is ``continue_prompt`` for a
    prefix and ``answer_prompt`` without one. Tokenizers join the closing brace with what follows: it is left out.

    The cut is the shortest prefix that has ``share`` of the trace's largest gain; later dips of the gain do not change
    it. Where a trace ends by stating its answer, this criterion moves the cut towards that statement. Where no prefix
    has a positive gain, the prefix is the whole trace, marked insufficient.
    """

    def __init__(self, engine: Engine, rule: Rule, continue_prompt: str, answer_prompt: str, share: float):
        self.engine, self.rule, self.share = engine, rule, share
        self.continue_prompt, self.answer_prompt = continue_prompt, answer_prompt

    def __call__(self, trace: Trace, sentences: Sequence[str]) -> Cut:
        def tokens(p: int) -> int:
            return self.engine.count(self.prompt(trace, sentences[:p]))

        _, answer = self.box(trace)
        fitting = room(tokens, len(sentences), self.engine.source.max_model_len - self.engine.count(answer))
        if not fitting:
            return Cut(error="prompt too long")
        reader = self.engine.reader([self.prompt(trace, sentences[:fitting])])
        readings: list[Reading] = []
        for first in range(0, fitting + 1, BLOCK):
            lengths = range(first, min(first + BLOCK, fitting + 1))
            prompts = [(0, self.prompt(trace, sentences[:p])) for p in lengths]
            readings += reader.choose(prompts, (answer,))
        if any(reading.value is None or reading.value[0] != reading.value[0] for reading in readings):
            why = next((reading.reason for reading in readings if reading.reason), None)
            return Cut(error=why or "log-probability of the answer is not a number", **_cost(readings))
        without, *confidences = (math.exp(reading.value[0]) for reading in readings)
        gains = [confidence - without for confidence in confidences]
        end, positive = cut_by_gain(gains, self.share)
        least = self.share * max(gains) if positive else math.inf
        labels = ["ENOUGH" if gain >= least else "NOT_ENOUGH" for gain in gains]
        probes = tuple((p, label, round(gain, 6)) for p, (label, gain) in enumerate(zip(labels, gains, strict=True), 1))
        return Cut(end=end, sufficient=positive, room=fitting, probes=probes, **_cost(readings))

    def prompt(self, trace: Trace, kept: Sequence[str]) -> str:
        instruction = self.continue_prompt if kept else self.answer_prompt
        asked = fill(instruction, question=trace.question, prefix=self.rule.join(kept))
        return self.engine.prompt(asked) + self.box(trace)[0]

    def box(self, trace: Trace) -> tuple[str, str]:
        return opened(self.engine.tokenizer, plain(self.engine.tokenizer, trace.answer))


class OneReading:
    """The student reads the whole trace once, its sentences numbered, and names the boundary (Table 2).

    The paper does not show this ablation's prompt; ``boundary_prompt`` is ours. The boundary is the most probable of
    the labels "[1]" to "[m]", so there always is one. A label's log-probability is the sum over its tokens and is not
    divided by their number: no label is the beginning of another one (they end in a bracket), so they are probabilities
    of events that exclude each other, and dividing would favour long numbers.
    """

    def __init__(self, engine: Engine, boundary_prompt: str):
        self.engine, self.boundary_prompt = engine, boundary_prompt

    def __call__(self, trace: Trace, sentences: Sequence[str]) -> Cut:
        def tokens(p: int) -> int:
            return self.engine.count(self.prompt(trace, sentences[:p]))

        longest = self.engine.count(f"[{len(sentences)}]")
        fitting = room(tokens, len(sentences), self.engine.source.max_model_len - longest)
        if not fitting:
            return Cut(error="prompt too long")
        prompt = self.prompt(trace, sentences[:fitting])
        (reading,) = self.engine.reader([prompt]).choose([(0, prompt)], [f"[{p}]" for p in range(1, fitting + 1)])
        if reading.value is None or any(value != value for value in reading.value):
            why = reading.reason or "log-probability of a label is not a number"
            return Cut(error=why, **_cost([reading]))
        end = max(range(1, fitting + 1), key=lambda p: reading.value[p - 1])
        probes = ((end, "ENOUGH", round(reading.value[end - 1], 4)),)
        return Cut(end=end, sufficient=True, room=fitting, probes=probes, **_cost([reading]))

    def prompt(self, trace: Trace, sentences: Sequence[str]) -> str:
        numbered = " ".join(f"[{p}] {sentence.strip()}" for p, sentence in enumerate(sentences, start=1))
        return self.engine.prompt(fill(self.boundary_prompt, question=trace.question, numbered=numbered))


def token_ends(tokenizer, text: str) -> list[int]:
    """How many characters of ``text`` each of its tokens and those before it reach to, in order.

    A character that several tokens share counts from the first of them on.
    """
    if getattr(tokenizer, "is_fast", False):
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return list(accumulate((end for _, end in spans), max))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    decoded = (tokenizer.decode(ids[:i], skip_special_tokens=False) for i in range(1, len(ids) + 1))
    common = (
        sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(text, part, strict=False))) for part in decoded
    )
    return list(accumulate(common, max))


class HalfOfTokens:
    """The first half of a trace's tokens by the student's tokenizer, rounded up (arXiv 2512.21002).

    The text is a true prefix of the trace, character by character; it may end inside a sentence, which then counts.
    """

    def __init__(self, tokenizer, rule: Rule):
        self.tokenizer, self.rule = tokenizer, rule

    def __call__(self, trace: Trace, sentences: Sequence[str]) -> Cut:
        ends = token_ends(self.tokenizer, trace.trace)
        if not ends:
            return Cut(error="the trace has no tokens")
        return _of_text(trace.trace[: ends[-(-len(ends) // 2) - 1]], sentences, self.rule)


def _of_text(text: str, sentences: Sequence[str], rule: Rule, ending: str = "", sufficient: bool = False) -> Cut:
    """A cut whose text is given, with the number of sentences that it begins; ``ending`` is not part of the trace."""
    return Cut(end=min(len(rule.split(text)), len(sentences)), text=text + ending, sufficient=sufficient)


# A formula between its marks, or a number by itself: no operand, index or argument, and no part of a word.
_EXPRESSION = re.compile(
    r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]"
    r"|(?:(?<![^\s=:$])|(?<=\s\())(?<![-+*/^<>×·÷≤≥]\s)([-−+]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?)"
    r"(?=%?[.,;:!)]*(?:\s|$))(?!\s*[-+*/^=<>×·÷≤≥])",
    re.DOTALL,
)
_EQUALS = re.compile(r"(?<![<>!:])=")


def stated(sentence: str) -> str | None:
    r"""What a sentence states, if anything: its last box; else its last formula (``$...$``, ``\(...\)``, ``\[...\]``)
    behind its last equals sign, or its last number that stands by itself, whichever comes later. A question states
    nothing. Only signs decide, no words: a number in words is not found, nor a formula without marks.

    >>> stated("Adding up, m + n = 204.")
    '204'
    """
    if sentence.rstrip().endswith(("?", "\uff1f")):
        return None
    if (box := last_box(sentence)) is not None:
        return box.strip()
    unmarked = re.sub(r"(?<!\S)\*\*(\S.*?)\*\*(?!\w)", r"\1", sentence)  # bold
    found = [next(filter(None, match.groups())) for match in _EXPRESSION.finditer(unmarked)]
    return _EQUALS.split(found[-1])[-1].strip(" \n&.,;:").replace("\u2212", "-") if found else None


SOLUTIONS = ("first-solution", "second-solution")


def solution(trace: Trace, sentences: Sequence[str], rule: Rule, which: int) -> Cut:
    r"""The trace up to and including the sentence with its first (``which`` 1) or second (2) right answer, after
    arXiv 2412.21187, whose authors let a model cut a trace into solutions. Here grading alone finds them.

    Sentences are those of :func:`split_reversibly`, so the text is a true prefix of the trace. One is right if what it
    states (:func:`stated`) grades right; right ones in a row are one answer. An intermediate value that equals the gold
    answer is taken for it. The text ends in a box: where its last sentence has none, what it states is appended in one.
    Where the trace states too few right answers, the cut is an error.
    """
    parts = split_reversibly(trace.trace)
    states = [stated(part) for part in parts]
    distinct = [f"\\boxed{{{value}}}" for value in dict.fromkeys(filter(None, states))]
    grades = grade_all(distinct, [trace.answer] * len(distinct), lenient=False)
    good = {box for box, grade in zip(distinct, grades, strict=True) if grade.right}
    right = [f"\\boxed{{{value}}}" in good for value in states]
    begins = [i for i, now in enumerate(right) if now and not (i and right[i - 1])]
    if len(begins) < which:
        return Cut(error="states no right answer" + (" again" if begins else ""))
    end = begins[which - 1]
    text = "".join(parts[: end + 1]).rstrip()
    ending = "" if last_box(parts[end]) is not None else f" \\boxed{{{states[end]}}}"
    return _of_text(text, sentences, rule, ending, sufficient=True)


def pruned(entropies: Sequence[float], share: float) -> list[int]:
    """Which sentences stay (from 0, in order) where ``share`` of them, rounded down, is left out: those of the lowest
    entropy, of equals the earlier, never the last. ``entropies``: one a sentence, shape (sentences,).
    """
    last = len(entropies) - 1
    count = min(math.floor(share * len(entropies) + 1e-9), last)
    out = set(sorted(range(last), key=lambda i: entropies[i])[:count])
    return [i for i in range(len(entropies)) if i not in out]


class EntropyPruned:
    """The trace without the ``share`` of its sentences whose tokens have the lowest summed entropy (arXiv 2508.03346).

    The student reads the trace after the answer prompt, as if it had written it (``palign.analysis.entropy``). A token
    belongs to the sentence that its last character stands in. The authors put a mark in the place of what they leave
    out, and take paragraphs for steps; here there is no mark, and a step is a sentence by the study's rule.
    """

    def __init__(self, engine: Engine, rule: Rule, answer_prompt: str, share: float):
        self.engine, self.rule, self.answer_prompt, self.share = engine, rule, answer_prompt, share

    def __call__(self, trace: Trace, sentences: Sequence[str]) -> Cut:
        prompt = self.engine.prompt(fill(self.answer_prompt, question=trace.question))
        read = [plain(self.engine.tokenizer, sentence, response=True) for sentence in sentences]
        text = self.rule.join(read)
        (values,) = self.engine.entropies([prompt], [text])
        if values is None:
            return Cut(error="prompt too long")
        gap = len(self.rule.join(["", ""]))
        ends = list(accumulate(len(sentence) + gap for sentence in read))
        sums = [0.0] * len(sentences)
        for end, value in zip(token_ends(self.engine.tokenizer, text), values, strict=True):
            sums[min(bisect.bisect_right(ends, max(0, end - 1)), len(sums) - 1)] += value
        if not all(map(math.isfinite, sums)):
            return Cut(error="entropy of a token is not a number")
        kept = pruned(sums, self.share)
        tokens = self.engine.count(prompt) + len(values)
        joined = self.rule.join([sentences[i] for i in kept])
        return Cut(end=len(kept), text=joined, tokens_read=tokens, tokens_of_prompts=tokens)


def _cost(readings: Sequence[Reading]) -> dict[str, int]:
    return {
        "tokens_read": sum(reading.shared_tokens for reading in readings),
        "tokens_demanded": sum(reading.own_tokens for reading in readings),
        "tokens_of_prompts": sum(reading.prompt_tokens for reading in readings),
    }


Finder = Callable[[Trace, Sequence[str]], Cut]
"""A strategy as a function of a trace and its sentences."""


def cutter(strategy: str, rule: Rule, read: Finder | None = None) -> Finder:
    """The strategy as a function.

    ``read`` finds the cut of those that need a model or a tokenizer; where it fails, the error is that of one trace.
    The other strategies count sentences or grade what they state. Raises ``ValueError`` for an unknown strategy, and
    the function passes on ``EngineStopped``.
    """
    kind, _, which = strategy.partition("-")
    if kind == "fixed":
        return lambda trace, sentences: fixed(len(sentences), int(which))
    if kind == "segment":
        return lambda trace, sentences: segment(len(sentences), which)
    if strategy == "oracle":
        return lambda trace, sentences: oracle(trace, rule)
    if strategy in SOLUTIONS:
        return lambda trace, sentences: solution(trace, sentences, rule, 1 + SOLUTIONS.index(strategy))
    if read is None:
        raise ValueError(f"{strategy}: no such strategy")

    def guarded(trace: Trace, sentences: Sequence[str]) -> Cut:
        try:
            return read(trace, sentences)
        except EngineStopped:  # the engine no longer answers: the run stops, and no trace gets an outcome
            raise
        except (RuntimeError, OSError) as error:  # out of memory, a server that is gone
            return Cut(error=f"engine error: {said(error)}")

    return guarded
