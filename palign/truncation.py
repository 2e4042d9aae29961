"""The adaptive prefix: binary search over sentences for the shortest prefix the student finds enough (Eq. 5-7).

A search is a generator that yields a prefix length in sentences and receives ``True`` for ENOUGH. The same dozen
lines run alone in a test and in lockstep over a thousand traces, one batched judge call a round.

>>> search(released(48), judge=lambda p: p >= 12)
SearchResult(sentences=12, sufficient=True)
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from . import plan, traces
from .engines import open_engine
from .judging import Judge, Verdict
from .params import Params
from .traces import Trace


@dataclass(frozen=True)
class SearchResult:
    """``sufficient``: whether the chosen prefix itself was judged ENOUGH."""

    sentences: int
    sufficient: bool


Search = Generator[int, bool, SearchResult]


def released(m: int) -> Search:
    """The released code's binary search over 1..``m`` sentences, which Figure 9 shows too.

    An ENOUGH is remembered and the search goes on below it. When nothing was enough, the whole trace stands in,
    marked insufficient. At most floor(log2 m) + 1 verdicts.
    """
    low, high, best = 1, m, None
    while low <= high:
        p = (low + high) // 2
        if (yield p):
            best, high = p, p - 1
        else:
            low = p + 1
    return SearchResult(best or m, best is not None)


def equation7(m: int) -> Search:
    """Equation 7's binary search over 1..``m`` sentences: it narrows [l, r] and never judges the whole trace."""
    low, high = 1, m
    while low < high:
        p = (low + high) // 2
        if (yield p):
            high = p
        else:
            low = p + 1
    return SearchResult(low, low < m)


SEARCHES: dict[str, Callable[[int], Search]] = {"released": released, "equation7": equation7}


def search(strategy: Search, judge: Callable[[int], bool]) -> SearchResult:
    """Run one search to its end against a judge."""
    try:
        p = next(strategy)
        while True:
            p = strategy.send(judge(p))
    except StopIteration as stop:
        return stop.value


@dataclass(frozen=True)
class Prefix:
    """A truncated trace. ``status`` is ``ok``, or why there is no prefix; no prefix is ever chosen by an error.

    ``sentences`` of ``of`` are kept; ``verdicts`` lists the probes in order as (sentences, label, margin);
    ``prefix_tokens`` and ``trace_tokens`` are the student's; ``oracle_sentences`` where the data know it.
    """

    id: str
    question: str
    answer: str
    status: str
    prefix: str
    sentences: int
    of: int
    sufficient: bool
    verdicts: list[tuple[int, str, float | None]]
    oracle_sentences: int | None
    prefix_tokens: int
    trace_tokens: int
    tokens_read: int
    tokens_generated: int


def lockstep(batch: list[Trace], start: Callable[[int], Search], judge: Callable, count: Callable) -> list[Prefix]:
    """Advance one search per trace in rounds of one judge call each; an error verdict ends its search.

    ``judge`` takes (question, prefix) pairs and gives ``Verdict``s; ``count`` gives the tokens of a text.
    """
    sentences = [traces.split(trace.trace) for trace in batch]
    searches = [start(len(parts)) for parts in sentences]
    verdicts: list[list[tuple[int, Verdict]]] = [[] for _ in batch]
    results: dict[int, SearchResult | None] = {}
    pending: dict[int, int] = {}

    def advance(i: int, enough: bool | None) -> None:
        try:
            pending[i] = searches[i].send(enough)
        except StopIteration as stop:
            results[i] = stop.value

    for i in range(len(batch)):
        advance(i, None)
    while pending:
        asked, pending = pending, {}
        pairs = [(batch[i].question, traces.join(sentences[i][:p])) for i, p in asked.items()]
        for (i, p), verdict in zip(asked.items(), judge(pairs), strict=True):
            verdicts[i].append((p, verdict))
            if verdict.label == "error":
                results[i] = None
            else:
                advance(i, verdict.label == "ENOUGH")
    return [_record(trace, sentences[i], verdicts[i], results[i], count) for i, trace in enumerate(batch)]


def _record(trace: Trace, sentences: list[str], verdicts, result: SearchResult | None, count) -> Prefix:
    kept = traces.join(sentences[: result.sentences]) if result else ""
    return Prefix(
        id=trace.id,
        question=trace.question,
        answer=trace.answer,
        status="ok" if result else f"judge error: {verdicts[-1][1].reason}",
        prefix=kept,
        sentences=result.sentences if result else 0,
        of=len(sentences),
        sufficient=bool(result and result.sufficient),
        verdicts=[(p, verdict.label, verdict.margin) for p, verdict in verdicts],
        oracle_sentences=traces.sufficient_sentences(trace),
        prefix_tokens=count(kept),
        trace_tokens=count(trace.trace),
        tokens_read=sum(verdict.prompt_tokens for _, verdict in verdicts),
        tokens_generated=sum(verdict.new_tokens for _, verdict in verdicts),
    )


class JudgeFailed(RuntimeError):
    """Every verdict was an error; going on would turn P-ALIGN into something else."""


@plan.held(lambda params, strategy="adaptive": plan.truncation(params, strategy))
def truncate(params: Params, strategy: str = "adaptive") -> list[dict]:
    """The prefixes of all training traces as records, in the traces' order. Resumes what a kill left.

    Raises :class:`JudgeFailed` when no trace could be judged.
    """
    task = plan.truncation(params, strategy)
    if task.folder.done:
        return task.folder.read("prefixes")
    collected = traces.load(params)
    engine = open_engine(params)
    judge = Judge(engine, params)

    def count(text: str) -> int:
        return len(engine.tokenizer(text, add_special_tokens=False).input_ids)

    def work(batch: list[Trace]) -> list[dict]:
        return [vars(prefix) for prefix in lockstep(batch, SEARCHES[params.search], judge, count)]

    records = task.folder.fill("prefixes", collected, lambda t: t.id, work, params.batch_size, "truncation")
    failed = [record for record in records if record["status"] != "ok"]
    if len(failed) == len(records):
        raise JudgeFailed(f"all {len(records)} traces failed to be judged, the first by {failed[0]['status']}")
    task.finish(
        traces=len(records),
        failed=len(failed),
        tokens_read=sum(record["tokens_read"] for record in records),
        tokens_generated=sum(record["tokens_generated"] for record in records),
    )
    return records
