"""The student as judge: does a prefix already hold the essential steps? (paper section 3, Eq. 4-6)

A decoded verdict is read as the released code reads it: a reply that states ENOUGH is ENOUGH, any other reply is
NOT_ENOUGH. What states a label is wider here (:func:`label`): the released code knows no thoughts and no decoration.

>>> judge = Judge(engine, params.judge_prompt, RULES["released"])
>>> session = judge.open([("What is 1+1?", ["One and one.", "Two."])])
>>> session([(0, 1)])  # the first sentence of the first trace
[Verdict(label='ENOUGH', ...)]
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .engines.base import NEVER_ANSWERED, Engine, EngineStopped, PlainReader, Reader, Reading, said
from .engines.labels import LabelReader, parting
from .engines.memory import out_of_memory
from .prompts import LABELS, fill
from .traces import Rule


@dataclass(frozen=True)
class Verdict:
    """One judgement. ``error`` is an outcome of its own and never counts as NOT_ENOUGH; ``reason`` says what failed.

    ``unparsed``: the reply states no label, so its ``label`` is NOT_ENOUGH (``decode`` only). Such a reply is an
    answer, not an error: the same prompt would be answered in the same way again.

    ``margin``: log-probability of ENOUGH minus that of NOT_ENOUGH in nats (``compare`` only), of the first token in
    which the two labels differ, after what both begin with. Costs in tokens: ``trace_tokens`` of the question and the
    trace and ``demand_tokens`` of the rest of the prompt, the labels' common beginning included, were read, and
    ``new_tokens`` were decoded. ``prompt_tokens`` is the length of the whole prompt: what this verdict would have cost
    without the prefix cache.
    """

    label: Literal["ENOUGH", "NOT_ENOUGH", "error"]
    trace_tokens: int = 0
    demand_tokens: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    margin: float | None = None
    reason: str | None = None
    unparsed: bool = False


_STATES = tuple(name.strip("[]") for name in LABELS)

THINK, THOUGHT = "<think>", "</think>"

_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
# LaTeX commands, and underscores at the edge of a word (Markdown's, or those of NOT\_ENOUGH)
_DECORATION = re.compile(r"\\[a-z]+\*?|(?<![^\W_])_+|_+(?![^\W_])")
_BETWEEN = r"(?:[^\w.,;:!?]|_)+"  # between the words of a label: spaces, decoration, a line break; no end of a clause
_DENIED = re.compile(r"(?:\b(?:not|never)|n['\u2019]t)[^\w.,;:!?]*$", re.IGNORECASE)


def reply(prompt: str, text: str) -> str:
    """A reply with the thinking mark that its prompt ended with: some chat templates open the block."""
    return THINK + text if prompt.rstrip().endswith(THINK) and not text.lstrip().startswith(THINK) else text


def answer(text: str) -> str:
    """A reply without its thoughts: what follows the last ``</think>``; empty while a block is still open.

    >>> answer("Is it [ENOUGH]? No.</think>[NOT_ENOUGH]")
    '[NOT_ENOUGH]'
    """
    rest = text.rpartition(THOUGHT)[2]
    return "" if THINK in rest else rest


def label(text: str, labels: Sequence[str]) -> str | None:
    r"""The label that a reply states: that of the last line with exactly one; ``None`` where there is no such line.

    Thoughts do not count (see :func:`answer`). Labels are in capitals, with or without decoration: brackets,
    backslashes, bold, LaTeX. ``NOT ENOUGH`` is NOT_ENOUGH, and a label after "not" is not stated. A single letter is a
    word of prose too ("A good response"): it needs brackets or a box, or the whole line, or the line after a colon.

    >>> label("A is longer, [B] is right. \\boxed{\\text{B}}", ("A", "B", "TIE"))
    'B'
    """
    plain = _DECORATION.sub(" ", _BOX.sub("[", answer(text)).replace("}", "]"))
    for name in labels:
        *words, last = name.split("_")
        if words:  # "not ENOUGH" in small letters denies ENOUGH as well
            whole = _BETWEEN.join([*(f"(?i:{word})" for word in words), last])
            plain = re.sub(rf"(?<!\w){whole}(?!\w)", name, plain)
    for line in reversed(plain.splitlines()):
        if len(found := _stated(line, labels)) == 1:
            return found.pop()
    return None


def _stated(line: str, labels: Sequence[str]) -> set[str]:
    """The labels that a line states."""
    words = "|".join(name for name in labels if len(name) > 1)
    letters = "|".join(name for name in labels if len(name) == 1)
    found = list(re.finditer(rf"(?<!\w)(?<!\w-)({words})(?!-?\w)", line)) if words else []
    if letters:
        found += re.finditer(rf"\[[^\w\[\]]*({letters})[^\w\[\]]*\]", line)
        tail = line.rpartition(":")[2]
        found += re.finditer(rf"\A\W*({letters})\W*\Z", tail)
    return {match[1] for match in found if not _DENIED.search(match.string[: match.start()][-20:])}


def parse(text: str) -> str | None:
    r"""The label, ENOUGH or NOT_ENOUGH, that a decoded verdict states; ``None`` where it states none.

    >>> parse("<think>[ENOUGH]?</think>I say **NOT\\_ENOUGH**.")
    'NOT_ENOUGH'
    """
    return label(text, _STATES)


class Judge:
    """A model that judges prefixes; :meth:`open` starts a session for a few traces at once.

    ``instruction``: the prompt, with ``{question}`` and ``{prefix}``. ``rule``: joins the sentences of a prefix.
    ``verdict``: how a verdict is read, ``compare`` (the labels' log-probabilities where they part, see
    :func:`palign.engines.labels.parting`) or ``decode`` (a greedy reply of at most ``max_new_tokens`` tokens, thoughts
    included). Raises ``EngineError`` where the labels cannot be compared. ``threshold``: the margin from which on a
    compared verdict is ENOUGH; ``None``: where that label is the likelier one.
    """

    def __init__(
        self,
        engine: Engine,
        instruction: str,
        rule: Rule,
        verdict: Literal["compare", "decode"] = "compare",
        max_new_tokens: int = 16,
        threshold: float | None = None,
    ):
        self.engine, self.instruction, self.rule, self.threshold = engine, instruction, rule, threshold
        self.verdict, self.max_new_tokens = verdict, max_new_tokens
        self.labels = parting(engine.tokenizer, LABELS) if verdict == "compare" else []

    def open(self, drafts: Sequence[tuple[str, list[str]]]) -> Session:
        """A session on (question, sentences of the trace) pairs."""
        return Session(self, drafts)

    def prompt(self, question: str, sentences: Sequence[str]) -> str:
        return self.engine.prompt(fill(self.instruction, question=question, prefix=self.rule.join(sentences)))


class Session:
    """Verdicts on prefixes of a few traces. Each trace is read once.

    ``room``: for each trace, the sentences of the longest prefix whose prompt and verdict fit the context.
    """

    def __init__(self, judge: Judge, drafts: Sequence[tuple[str, list[str]]]):
        self.judge, self.drafts = judge, drafts
        self.room = [self._room(*draft) for draft in drafts]
        texts = [
            judge.prompt(question, trace[:room]) for (question, trace), room in zip(drafts, self.room, strict=True)
        ]
        self.reader = judge.engine.reader(texts)

    def __call__(self, asked: Sequence[tuple[int, int]]) -> list[Verdict]:
        """Verdicts on (trace index, sentences) pairs. Once a call leaves a trace out, later calls must not ask for it.

        A prompt that fails is read once more, from its start, before it counts as an error; a reply that states no
        label is not a failure. Out of memory, the session is not to be used again: raises what the engine raised.
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
            if self.judge.verdict == "compare":
                readings = reader.choose(prompts, self.judge.labels)
                return [_compared(reading, self.judge.threshold) for reading in readings]
            readings = reader.generate(prompts, self.judge.max_new_tokens)
            return [_decoded(reading, prompt) for reading, (_, prompt) in zip(readings, prompts, strict=True)]
        except EngineStopped:  # the engine no longer answers: the run stops without a verdict on any trace
            raise
        except (RuntimeError, OSError) as error:  # a server that is gone
            if out_of_memory(error):
                raise
            self.reader = self._afresh()
            return [Verdict("error", reason=f"engine error: {said(error)}")] * len(asked)

    def _afresh(self) -> Reader:
        """A reader without the state of the failed one, which may have stopped half-way; the same if it has none."""
        return self.reader if isinstance(self.reader, LabelReader) else PlainReader(self.judge.engine)

    def _room(self, question: str, trace: list[str]) -> int:
        judge, engine = self.judge, self.judge.engine
        verdict = len(judge.labels[0]) if judge.verdict == "compare" else judge.max_new_tokens
        limit = engine.source.max_model_len - verdict

        def tokens(p: int) -> int:
            return engine.count(judge.prompt(question, trace[:p]))

        return room(tokens, len(trace), limit)


def room(tokens: Callable[[int], int], m: int, limit: int) -> int:
    """How many of ``m`` sentences fit a prompt of ``limit`` tokens; 0 if not even one fits.

    ``tokens``: the length of a prompt that holds that many sentences.
    """
    return m if tokens(m) <= limit else bisect_right(range(1, m), limit, key=tokens)


def _cost(reading: Reading) -> dict[str, int]:
    return {
        "trace_tokens": reading.shared_tokens,
        "demand_tokens": reading.own_tokens,
        "prompt_tokens": reading.prompt_tokens,
    }


def _compared(reading: Reading, threshold: float | None = None) -> Verdict:
    cost = _cost(reading)
    if reading.value is None:
        return Verdict("error", **cost, reason="prompt too long")
    margin = reading.value[0] - reading.value[1]
    if margin != margin:
        return Verdict("error", **cost, reason=reading.reason or "label probability is not a number")
    stated = round(margin, 4)  # what a record states: a threshold finds the same when it is replayed on records
    enough = margin > 0 if threshold is None else stated >= threshold
    return Verdict("ENOUGH" if enough else "NOT_ENOUGH", **cost, margin=stated)


def _decoded(reading: Reading, prompt: str) -> Verdict:
    completion, cost = reading.value, _cost(reading)
    cost["new_tokens"] = completion.new_tokens
    if completion.finish in NEVER_ANSWERED:
        return Verdict("error", **cost, reason=": ".join(filter(None, (completion.finish, completion.reason))))
    stated = parse(reply(prompt, completion.text))
    return Verdict(stated or "NOT_ENOUGH", **cost, unparsed=stated is None)
