"""One response a problem, chosen by the student's own likelihood among those that several strategies offer.

Candidates are the right pairs of ``CANDIDATES``, each as it would be trained on, and the teacher's whole trace. The
student reads each after the answer prompt, as if it had written it. ``likely`` chooses the highest mean log-probability
by token (GRAPE, arXiv 2502.04194), ``rsr`` the lowest rank-surprisal ratio (arXiv 2601.14249). Both depend on a
response's length and on where it comes from, so the manifest counts what was offered and what was chosen by source.
The marks of a prefix are part of what is scored: a student that knows them expects a change of style behind them.

>>> pairs = select(params, "likely")
>>> Counter(pair["source"] for pair in pairs)
Counter({'empty': 201, 'fixed-50': 64, 'trace': 55})
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .continuation import cut, kept, target
from .engines.base import Engine
from .engines.opening import open_engine
from .grading import SOUND, grade_all
from .params import Machine, Params
from .prompts import fill, plain
from .tasks.plan import CANDIDATES, SELECTED, Plan, held

TRACE = "trace"
"""The source of a candidate that is the teacher's whole trace."""

SOURCES = (*CANDIDATES, TRACE)
"""Where candidates come from; of equal ones the earlier source's is chosen."""

SCORES = {"likely": ("mean_logprob", 1), "rsr": ("rsr", -1)}
"""What each strategy compares, and whether the highest (1) or the lowest (-1) is chosen."""

RANK_LIMIT = 100
"""Ranks are clipped here, as in the code that the authors of the rank-surprisal ratio released."""


def mean_logprob(logprobs: Sequence[float]) -> float:
    """Mean log-probability by token, in nats. Raises ``ZeroDivisionError`` without tokens."""
    return math.fsum(logprobs) / len(logprobs)


def rank_surprisal(logprobs: Sequence[float], ranks: Sequence[int]) -> float:
    """The rank-surprisal ratio: the mean rank, each clipped at ``RANK_LIMIT``, over the mean negative log-probability.

    Low where tokens are unlikely and yet among the student's first choices. ``logprobs`` (nats) and ``ranks`` (from 1)
    have shape (tokens,).
    """
    surprisal = max(-math.fsum(logprobs), 1e-12)  # not 0, where all have probability 1
    return sum(min(rank, RANK_LIMIT) for rank in ranks) / surprisal


class Candidate(NamedTuple):
    """A response to choose: ``source`` is a strategy or ``trace``, ``pair`` the record that it would become."""

    source: str
    pair: dict

    @property
    def id(self) -> str:
        return f"{self.pair['id']}/{self.source}"

    @property
    def response(self) -> str:
        """As it is trained on."""
        return target(self.pair)


def candidates(
    traces: Sequence[dict], pairs: dict[str, Sequence[dict]], keep_cut: bool = False
) -> list[list[Candidate]]:
    """The candidates of each trace, in the order of ``pairs`` (the records of each strategy), the whole trace last.

    A trace whose own box is wrong is none; one without a box is, as in ``sft-long-cot``.
    """
    right = {source: {pair["id"]: pair for pair in found if kept(pair, keep_cut)} for source, found in pairs.items()}
    grades = grade_all([t["trace"] for t in traces], [t["answer"] for t in traces], lenient=False)
    offered = []
    for trace, grade in zip(traces, grades, strict=True):
        own = [Candidate(source, found[trace["id"]]) for source, found in right.items() if trace["id"] in found]
        if grade.outcome in SOUND:
            own.append(Candidate(TRACE, _as_pair(trace)))
        offered.append(own)
    return offered


def _as_pair(trace: dict) -> dict:
    fields = {name: trace[name] for name in ("id", "question", "answer")}
    return fields | {"prefix": "", "continuation": trace["trace"], "finish": "stop", "outcome": "right"}


def best(offered: Sequence[Candidate], scores: dict[str, dict], strategy: str) -> Candidate | None:
    """The candidate that the strategy chooses, the first of equals; ``None`` where none has a score."""
    key, sign = SCORES[strategy]
    scored = [one for one in offered if scores[one.id][key] is not None]
    return max(scored, key=lambda one: sign * scores[one.id][key], default=None)


def score(engine: Engine, answer_prompt: str, batch: Iterable[Candidate]) -> Iterator[dict]:
    """The scores of candidates, one record each: ``mean_logprob`` (nats), ``rsr``, and the ``tokens`` of the response,
    without its end of turn. Both scores are ``None`` where the response does not fit the context behind its prompt, or
    has no finite score.
    """
    for one in batch:
        prompt = engine.prompt(fill(answer_prompt, question=one.pair["question"]))
        response = plain(engine.tokenizer, one.response, response=True)
        tokens, read = engine.count(response), engine.count(prompt)
        (found,) = engine.likelihoods([prompt], [response]) if tokens else (None,)
        values = (mean_logprob(found[0]), rank_surprisal(*found)) if found else (None, None)
        finite = found and all(map(math.isfinite, values))
        record = {"id": one.id, "prompt_tokens": read, "tokens": tokens}
        yield record | dict(zip(("mean_logprob", "rsr"), values if finite else (None, None), strict=True))


@held("alignment")
def select(params: Params, strategy: str) -> list[dict]:
    """The chosen pairs as records of alignment, in the order of the traces: the candidate's own fields, its ``source``,
    its ``score`` and ``response_tokens``; a problem without a candidate has none. Resumes after a kill.

    A chosen trace has no prefix and the trace as its continuation, of which the student generated nothing. transformers
    reads, whatever the study's ``engine``: the others do not give their predictions for a given text. The two
    strategies need the same scores: what one has finished, the other copies, and counts as read too.
    """
    plan = Plan(params)
    task = plan.alignment(strategy)
    if task.folder.done:
        return task.read("pairs")
    pairs = {source: plan.alignment(source).read("pairs") for source in CANDIDATES}
    offered = candidates(plan.traces.read("traces"), pairs, params.keep_cut_continuations)
    known, settings = {}, None
    for other in (plan.alignment(name).folder for name in SELECTED if name != strategy):
        if other.done:
            known |= {record["id"]: record for record in other.read("scores")}
            settings = other.manifest()["engine"]
    if not settings:
        student = params.model("student").model_copy(update={"engine": "transformers"})
        engine = open_engine(student, params.part(Machine))
        settings = engine.settings

    def work(batch: list[Candidate]) -> Iterator[dict]:
        if known:
            return (known[one.id] for one in batch)
        return score(engine, params.answer_prompt, batch)

    every = [one for own in offered for one in own]
    records = task.folder.fill("scores", every, lambda one: one.id, work, task.name)
    scores = {record["id"]: record for record in records}
    found = [choice for own in offered if (choice := best(own, scores, strategy))]
    chosen = [_chosen(choice, scores[choice.id], strategy) for choice in found]
    task.folder.write("pairs", chosen)
    task.finish(
        engine=settings,
        pairs=len(chosen),
        without=len(offered) - len(chosen),
        never_answered=0,
        cut=sum(map(cut, chosen)),
        kept=sum(map(kept, chosen)),
        unscored=sum(record["rsr"] is None for record in records),
        offered=_by_source(every, scores),
        chosen=_by_source(found, scores),
        tokens_read=sum(r["prompt_tokens"] + r["tokens"] for r in records if r["rsr"] is not None),
        tokens_generated=0,
    )
    return chosen


def _chosen(one: Candidate, record: dict, strategy: str) -> dict:
    """The pair of a chosen candidate. A trace's counts are those of its reading."""
    pair = {"prompt_tokens": record["prompt_tokens"], "new_tokens": record["tokens"]} | one.pair
    return pair | {"source": one.source, "score": record[SCORES[strategy][0]], "response_tokens": record["tokens"]}


def _by_source(some: Sequence[Candidate], scores: dict[str, dict]) -> dict[str, dict]:
    """How many candidates each source has, and their mean length in tokens."""
    lengths = {source: [scores[one.id]["tokens"] for one in some if one.source == source] for source in SOURCES}
    return {source: {"count": len(n), "mean_tokens": round(sum(n) / len(n), 1)} for source, n in lengths.items() if n}
