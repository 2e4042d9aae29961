"""What a study's strategies and arms are expected to give: continuations, prefixes, rows and their lengths in tokens.

Everything follows from ``costs`` and the study's own parameters by simple formulas. Each problem has its own chance of
a right continuation. Over the problems it is taken to be beta-distributed with parameters that sum to 1: most problems
are easy or hard, and after i wrong continuations the chance of a right one is 1 / (1 + i) of the first one's. A prefix
shorter than the judge's is taken to raise the chance in proportion to its length, from ``student_right`` to
``retention``; a longer one does not raise it further. On 24 traces of the pocket study each strategy drew between 0.8
and 1.3 times the continuations expected of it.

>>> expected = Expected.of(load("params/pocket-beyond.yaml"))
>>> expected.tries("adaptive-k").number
1.52...
>>> expected.fallback("p-align-fallback")       # rows that are whole traces, of all rows, by training problem
(0.25, 1.0)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..arms import ARMS
from ..attempts import BACK_OFF_FROM
from ..params import Alignment, Costs, FineTuning, Params, Truncation
from ..supervision import LONG_SHARE
from ..tasks.plan import ATTEMPTS, CANDIDATES, SELECTED


@dataclass(frozen=True)
class Tries:
    """The continuations of one problem: their ``number``; the ``share`` of the trace in a prompt; the chance ``right``
    that the problem ends with a right one; the share of the trace in the prefix that it then ``ends`` with.
    """

    number: float
    share: float
    right: float
    ends: float


@dataclass(frozen=True)
class Part:
    """Rows of one kind: how many ``rows`` a training problem, mean ``tokens`` of the target, the ``spread`` of its
    length as of the traces' (0: all are as long), and whether it ``answers``: a cut would take the answer away.
    """

    rows: float
    tokens: float
    spread: float
    answers: bool


def until_right(chances: Sequence[float], shares: Sequence[float]) -> Tries:
    """Continuations one after another until one is right. ``chances``: of each one; ``shares``: of the trace in its
    prefix.

    >>> until_right([0.5, 0.5], [0.2, 0.4])
    Tries(number=1.5, share=0.2666666666666667, right=0.75, ends=0.26666666666666666)
    """
    reached, number, read, right, ends = 1.0, 0.0, 0.0, 0.0, 0.0
    for chance, share in zip(chances, shares, strict=True):
        number, read = number + reached, read + reached * share
        right, ends = right + reached * chance, ends + reached * chance * share
        reached *= 1 - chance
    return Tries(number, read / number, right, ends / right if right else shares[-1])


def wrong(chance: float, tries: int) -> float:
    """The chance that all of so many continuations of a problem are wrong, the mean ``chance`` of a right one given.

    >>> wrong(0.5, 2)
    0.375
    """
    return math.prod((1 - chance + i) / (1 + i) for i in range(tries))


def enough(chance: float, samples: int, needed: int) -> float:
    """The chance that at least ``needed`` of ``samples`` continuations of a problem are right (beta-binomial).

    >>> enough(0.5, 2, 2)
    0.375
    """

    def rising(x: float, n: int) -> float:
        return math.prod(x + i for i in range(n))

    counts = range(needed, samples + 1)
    ways = (math.comb(samples, j) * rising(chance, j) * rising(1 - chance, samples - j) for j in counts)
    return sum(ways) / math.factorial(samples)


def growing(start: float, step: float, limit: int) -> list[float]:
    """The shares of the trace that back-off tries: longer by ``step`` each time, the last one at most the whole trace.

    >>> growing(0.8, 0.15, 8)
    [0.8, 0.9500000000000001, 1.0]
    """
    steps = max(
        0, math.ceil((1 - start) / step - 1e-9)
    )  # 1e-9: a step more for rounding would be the whole trace again
    return [min(1.0, start + i * step) for i in range(min(steps + 1, limit))]


@dataclass(frozen=True)
class Expected:
    """What is expected of one study's strategies and arms."""

    costs: Costs
    truncation: Truncation
    alignment: Alignment
    recipe: FineTuning

    @classmethod
    def of(cls, params: Params) -> Expected:
        return cls(params.costs, params.part(Truncation), params.part(Alignment), params.part(FineTuning))

    @property
    def sentences(self) -> float:
        """Sentences of a trace."""
        return max(1, self.costs.trace_tokens / self.costs.sentence_tokens)

    def chance(self, share: float) -> float:
        """Of a right continuation of this share of the trace."""
        c = self.costs
        grown = min(1.0, share / c.prefix_share) if c.prefix_share else 1.0
        return c.student_right + (c.retention - c.student_right) * grown

    def tries(self, strategy: str) -> Tries:
        """The continuations of a strategy that makes its own."""
        c, a = self.costs, self.alignment
        if strategy == "own-k":
            return Tries(a.own_samples, 0, 1 - wrong(c.student_right, a.own_samples), 0)
        if strategy == "adaptive-k":
            return self._until_right([c.prefix_share] * a.own_samples)
        if strategy in ("adaptive-backoff", *BACK_OFF_FROM):
            share = BACK_OFF_FROM.get(strategy) or a.backoff_start
            start = c.prefix_share if strategy == "adaptive-backoff" else max(share, 1 / self.sentences)
            return self._until_right(growing(start, max(a.backoff_step, 1 / self.sentences), a.backoff_tries))
        if strategy.startswith("success-"):
            return self._by_success(strategy.removeprefix("success-"))
        if strategy == "rewrite":
            return Tries(1, 1, c.retention if c.rewrite_right is None else c.rewrite_right, 0)
        share = self.prefix(strategy) / c.trace_tokens
        return Tries(1, share, c.student_right if strategy == "empty" else c.retention, share)

    def _until_right(self, shares: Sequence[float]) -> Tries:
        """One continuation of each of these shares of the trace, until one is right."""
        return until_right([self.chance(share) / (1 + i) for i, share in enumerate(shares)], shares)

    def _by_success(self, search: str) -> Tries:
        """Of a search whose verdicts take all their ``success_samples``.

        A scan ends at the first verdict that is ENOUGH, of which the chance falls with each that is not, as that of a
        right continuation does; going back it ends at the first that is not, by itself for each prefix. The binary
        search asks as often as the judge's, about prefixes between the one found, as long as the judge's, and half of
        the trace.
        """
        c, samples, needed = self.costs, self.alignment.success_samples, self.alignment.success_needed
        right = 1 - wrong(c.retention, samples)
        if search == "binary":
            return Tries(samples * c.judge_calls, (c.prefix_share + 0.5) / 2, right, c.prefix_share)
        shares = growing(1 / self.sentences, 1 / self.sentences, math.ceil(self.sentences))
        chances = [enough(self.chance(share), samples, needed) for share in shares]
        if search == "first":
            chances = [chance / (1 + i) for i, chance in enumerate(chances)]
        else:
            shares, chances = shares[::-1], [1 - chance for chance in chances[::-1]]
        found = until_right(chances, shares)
        return Tries(samples * found.number, found.share, right, found.ends)

    def prefix(self, strategy: str) -> float:
        """Tokens of the prefix that a problem of the strategy ends with: a fixed share is in the strategy's name; a
        search has the expected share.
        """
        c = self.costs
        if strategy == "empty":
            return 0
        if strategy.startswith("segment-"):
            return c.trace_tokens / 3
        if strategy in ATTEMPTS:
            return c.trace_tokens * self.tries(strategy).ends
        fixed = re.fullmatch(r"fixed-(\d+)", strategy)
        return c.trace_tokens * (int(fixed[1]) / 100 if fixed else c.prefix_share)

    def new(self, strategy: str) -> float:
        """Tokens of a continuation before any budget; without a prefix, or rewriting a trace, of an own answer."""
        c = self.costs
        return c.continuation_tokens if self.prefix(strategy) else c.response_tokens["zero-shot"]

    def text(self, strategy: str) -> float:
        """Tokens of a part of the trace that is trained on alone.

        The first right answer is taken to stand where the judge's prefix ends, the second half-way from there to the
        end; the sentence that boxes it is an answer more.
        """
        c = self.costs
        share = {
            "tokens-50": 0.5,
            "entropy-pruned": 1 - self.truncation.pruned_share,
            "first-solution": c.prefix_share,
            "second-solution": (1 + c.prefix_share) / 2,
        }[strategy]
        return share * c.trace_tokens + (c.answer_tokens if strategy.endswith("-solution") else 0)

    def candidates(self) -> list[tuple[float, float]]:
        """What a selection chooses from: how many a training problem, and tokens; the last is the trace."""
        offered = [(self.tries(one).right, self._pair(one)) for one in CANDIDATES]
        return [*offered, (1.0, self.costs.trace_tokens)]

    def _pair(self, strategy: str, marked: bool = True) -> float:
        """Tokens of a prefix and its continuation; marks stand around a prefix only."""
        prefix = self.prefix(strategy)
        return prefix + self.new(strategy) + (self.costs.marks_tokens if marked and prefix else 0)

    def parts(self, arm: str) -> list[Part]:
        """The arm's rows by kind, before ``max_length``. A selection's choice is taken to be as long as its candidates
        are on average, and targets made of a trace to be as spread as the traces.
        """
        c, recipe, spec = self.costs, self.recipe, ARMS[arm]
        if spec.target is None:
            return []
        trace = Part(1, c.trace_tokens, c.trace_spread, True)
        if spec.target == "label":
            return [Part(1, c.answer_tokens, 0, True)]
        if spec.target == "trace":
            return [trace]
        if spec.target == "upft":
            share, beginning = recipe.upft_structure_share, min(recipe.upft_tokens, c.trace_tokens)
            return [Part(share, c.trace_tokens, c.trace_spread, True), Part(1 - share, beginning, 0, False)]
        if spec.target == "text":
            return [Part(1, self.text(spec.strategy), c.trace_spread, spec.strategy != "tokens-50")]
        rows, tokens = self._pairs(arm)
        whole, _ = self.fallback(arm)
        if spec.target == "mixed":
            whole = rows * LONG_SHARE
        made = Part(rows, tokens, c.trace_spread, spec.target != "prefix")
        return [made, Part(whole, c.trace_tokens, c.trace_spread, True)] if whole else [made]

    def _pairs(self, arm: str) -> tuple[float, float]:
        """Rows made of kept continuations, by training problem, and the mean tokens of their targets."""
        c, spec, samples = self.costs, ARMS[arm], self.alignment.own_samples
        if spec.strategy in SELECTED:
            offered = self.candidates()
            return 1.0, sum(n * tokens for n, tokens in offered) / sum(n for n, _ in offered)
        rows = samples * c.student_right if spec.pick == "all" else self.tries(spec.strategy).right
        if spec.weight:  # the problems without an own right answer
            rows *= 1 + wrong(c.student_right, samples) * (self.recipe.hard_weight - 1)
        tokens = {
            "prefix": self.prefix(spec.strategy),
            "continuation": self.new(spec.strategy),
            "mixed": self.new(spec.strategy),
        }.get(spec.target, self._pair(spec.strategy, marked=spec.target != "unmarked"))
        return rows, tokens

    def fallback(self, arm: str) -> tuple[float, float]:
        """An arm's rows that are whole traces since no continuation was right (of the control: as many of others), and
        all its rows, both by training problem.
        """
        spec = ARMS[arm]
        if not spec.fallback:
            return 0.0, self._pairs(arm)[0] if spec.continued else 1.0
        right = self.tries(spec.strategy).right
        return 1 - right, 1.0

    def target(self, arm: str) -> float:
        """Tokens of the arm's training targets: the mean over its rows, before any is cut or left out."""
        parts = self.parts(arm)
        rows = sum(part.rows for part in parts)
        return sum(part.rows * part.tokens for part in parts) / rows if rows else 0.0
