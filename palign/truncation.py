"""The adaptive prefix: a search over sentences for the shortest prefix the student finds enough (Eq. 5-7).

A search is a generator that yields the prefix lengths to judge next and receives, for each, ``True`` for ENOUGH. The
same dozen lines run alone in a test and in lockstep over a thousand traces, one batched judge call a round.

>>> search(released(48), judge=lambda p: p >= 12)
SearchResult(sentences=12, sufficient=True)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from . import strategies, traces
from .tasks import plan
from .engines.base import Engine
from .engines.opening import open_engine
from .engines.tokenizers import load_tokenizer
from .judging import Judge, Verdict
from .params import Params
from .tasks.store import RunFolder
from .traces import Trace


@dataclass(frozen=True)
class SearchResult:
    """``sufficient``: whether the chosen prefix itself was judged ENOUGH."""

    sentences: int
    sufficient: bool


Search = Generator[Sequence[int], Sequence[bool], SearchResult]


def released(m: int) -> Search:
    """The released code's binary search over 1..``m`` sentences, which Figure 9 shows too.

    An ENOUGH is remembered and the search goes on below it. When nothing was enough, the whole trace stands in,
    marked insufficient. At most floor(log2 m) + 1 verdicts.
    """
    low, high, best = 1, m, None
    while low <= high:
        p = (low + high) // 2
        (enough,) = yield [p]
        if enough:
            best, high = p, p - 1
        else:
            low = p + 1
    return SearchResult(best or m, best is not None)


def equation7(m: int) -> Search:
    """Equation 7's binary search over 1..``m`` sentences: it narrows [l, r] and never judges the whole trace."""
    low, high = 1, m
    while low < high:
        p = (low + high) // 2
        (enough,) = yield [p]
        if enough:
            high = p
        else:
            low = p + 1
    return SearchResult(low, low < m)


SCAN_BLOCK = 8


def linear(m: int) -> Search:
    """The first ENOUGH from the shortest prefix on (Table 2, without binary search; Table 5).

    It asks for eight prefixes at once, since many verdicts on one trace cost little more than one. Those behind the
    first ENOUGH are not part of the scan.
    """
    for start in range(1, m + 1, SCAN_BLOCK):
        asked = range(start, min(start + SCAN_BLOCK, m + 1))
        for p, enough in zip(asked, (yield asked), strict=True):
            if enough:
                return SearchResult(p, True)
    return SearchResult(m, False)


EVERY_BLOCK = 32


def every(m: int) -> Search:
    """Judges all prefixes; the result is the linear scan's. What a study of the judge itself asks for.

    It asks for 32 at a time: what one pass reads, and so its memory, does not grow with the trace.
    """
    first = None
    for start in range(1, m + 1, EVERY_BLOCK):
        asked = range(start, min(start + EVERY_BLOCK, m + 1))
        answers = yield asked
        first = first or next((p for p, enough in zip(asked, answers, strict=True) if enough), None)
    return SearchResult(first or m, first is not None)


SEARCHES: dict[str, Callable[[int], Search]] = {"released": released, "equation7": equation7, "linear": linear}


def search(strategy: Search, judge: Callable[[int], bool]) -> SearchResult:
    """Run one search to its end against a judge."""
    try:
        asked = next(strategy)
        while True:
            asked = strategy.send([judge(p) for p in asked])
    except StopIteration as stop:
        return stop.value


@dataclass(frozen=True)
class Prefix:
    """A truncated trace. ``status`` is ``ok``, or why there is no prefix; no prefix is ever chosen by an error.

    ``sentences`` of ``of`` are kept. The search went over 1..``room``: less than ``of`` where the context does not hold
    the whole trace. ``verdicts`` lists the probes in order as (sentences, label, margin); a scan's end with its first
    ENOUGH. ``prefix_tokens`` and ``trace_tokens`` are the student's; ``oracle_sentences`` where the data know it.
    ``tokens_read`` were read of the question and the trace for all verdicts together, ``tokens_demanded`` beside them;
    ``tokens_of_prompts`` is what reading every prompt from its start takes. For prefixes without a search see
    ``palign.strategies.Cut``.
    """

    id: str
    question: str
    answer: str
    status: str
    prefix: str
    sentences: int
    of: int
    room: int
    sufficient: bool
    verdicts: list[tuple[int, str, float | None]]
    oracle_sentences: int | None
    prefix_tokens: int
    trace_tokens: int
    tokens_read: int
    tokens_demanded: int
    tokens_of_prompts: int
    tokens_generated: int


Session = Callable[[Sequence[tuple[int, int]]], list[Verdict]]
"""Verdicts on (trace index, sentences) pairs, with ``room``: how many sentences of each trace can be judged."""


def lockstep(
    batch: list[Trace],
    start: Callable[[int], Search],
    open_session: Callable,
    count: Callable[[str], int],
    rule: traces.Rule = traces.RULES["released"],
) -> list[Prefix]:
    """Advance one search per trace in rounds of one judge call each; an error verdict ends its search.

    ``open_session`` takes (question, sentences) pairs and gives a :data:`Session`; ``count`` gives a text's tokens.
    """
    sentences = [rule.split(trace.trace) for trace in batch]
    session = open_session([(trace.question, parts) for trace, parts in zip(batch, sentences, strict=True)])
    searches = [start(room) for room in session.room]
    verdicts: list[list[tuple[int, Verdict]]] = [[] for _ in batch]
    results: dict[int, SearchResult | None] = {}
    pending: dict[int, Sequence[int]] = {}

    def advance(i: int, enough: list[bool] | None) -> None:
        try:
            pending[i] = searches[i].send(enough)
        except StopIteration as stop:
            results[i] = stop.value

    for i, room in enumerate(session.room):
        if room:
            advance(i, None)
        else:
            verdicts[i], results[i] = [(1, Verdict("error", reason="prompt too long"))], None
    while pending:
        asked, pending = pending, {}
        answers = iter(session([(i, p) for i, lengths in asked.items() for p in lengths]))
        for i, lengths in asked.items():
            found = [(p, next(answers)) for p in lengths]
            verdicts[i] += found
            if any(verdict.label == "error" for _, verdict in found):
                results[i] = None
            else:
                advance(i, [verdict.label == "ENOUGH" for _, verdict in found])
    return [
        _record(trace, sentences[i], rule, session.room[i], verdicts[i], results[i], count)
        for i, trace in enumerate(batch)
    ]


def _record(
    trace: Trace,
    sentences: list[str],
    rule: traces.Rule,
    room: int,
    verdicts: list[tuple[int, Verdict]],
    result: SearchResult | None,
    count: Callable[[str], int],
) -> Prefix:
    kept = rule.join(sentences[: result.sentences]) if result else ""
    error = next((verdict.reason for _, verdict in verdicts if verdict.label == "error"), None)
    return Prefix(
        id=trace.id,
        question=trace.question,
        answer=trace.answer,
        status="ok" if result else f"judge error: {error}",
        prefix=kept,
        sentences=result.sentences if result else 0,
        of=len(sentences),
        room=room,
        sufficient=bool(result and result.sufficient),
        verdicts=[(p, verdict.label, verdict.margin) for p, verdict in verdicts],
        oracle_sentences=traces.sufficient_sentences(trace, rule),
        prefix_tokens=count(kept),
        trace_tokens=count(trace.trace),
        tokens_read=sum(verdict.trace_tokens for _, verdict in verdicts),
        tokens_demanded=sum(verdict.demand_tokens for _, verdict in verdicts),
        tokens_of_prompts=sum(verdict.prompt_tokens for _, verdict in verdicts),
        tokens_generated=sum(verdict.new_tokens for _, verdict in verdicts),
    )


class JudgeFailed(RuntimeError):
    """Too many traces got no verdict; what is left would not be the study that was asked for."""


FAILED_SHARE = 0.5
"""Share of the traces that may fail; the prefixes of fewer would say little of all."""
PATIENCE = 64
"""Traces that may fail one after another, before a judge counts as gone: of many thousands none need be asked more."""


def judged(
    folder: RunFolder,
    name: str,
    items: Sequence[Trace],
    work: Callable[[list[Trace]], list[dict]],
    batch_size: int,
    describe: str,
) -> list[dict]:
    """The folder's ``fill`` for records with a ``status``. Raises :class:`JudgeFailed` beyond the two limits above;
    what failed is then taken out of the file, so that a later call asks again.
    """
    streak = 0

    def watched(batch: list[Trace]) -> list[dict]:
        nonlocal streak
        records = work(batch)
        for record in records:
            streak = 0 if record["status"] == "ok" else streak + 1
            if streak >= PATIENCE:
                stop(f"{streak} traces one after another", record)
        return records

    def stop(how_many: str, record: dict) -> None:
        folder.write(name, [record for record in folder.read(name) if record["status"] == "ok"])
        raise JudgeFailed(
            f"{describe}: {how_many} failed to be judged, one by {record['status']}; mend that, and the same command "
            "goes on from here"
        )

    records = folder.fill(name, items, lambda trace: trace.id, watched, batch_size, describe)
    failed = [record for record in records if record["status"] != "ok"]
    if len(failed) > FAILED_SHARE * len(records):
        stop(f"{len(failed)} of {len(records)} traces", failed[0])
    return records


@plan.held(lambda params, strategy="adaptive": plan.truncation(params, strategy))
def truncate(params: Params, strategy: str = "adaptive") -> list[dict]:
    """The prefixes of all training traces as records, in the traces' order. Resumes what a kill left.

    ``adaptive`` searches as ``search`` says by the student's verdicts, ``linear`` scans whatever it says, ``judge``
    searches by the verdicts of the model ``judge``; the other strategies are those of ``palign.strategies``. Raises
    :class:`JudgeFailed` when too few traces could be judged, ``DataError`` for an oracle that does not know.
    """
    task = plan.truncation(params, strategy)
    if task.folder.done:
        return task.folder.read("prefixes")
    collected = traces.load(params)
    work, engine = _work(params, strategy)
    records = judged(task.folder, "prefixes", collected, work, params.batch_size, task.name)
    task.finish(
        **({"engine": engine.settings} if engine else {}),
        traces=len(records),
        failed=sum(record["status"] != "ok" for record in records),
        tokens_read=sum(record["tokens_read"] + record["tokens_demanded"] for record in records),
        tokens_generated=sum(record["tokens_generated"] for record in records),
    )
    return records


def truncate_all(params: Params) -> None:
    """:func:`truncate` for every strategy the study's arms need."""
    for strategy in plan.strategies(params):
        if strategy != "empty":
            truncate(params, strategy)


def _work(params: Params, strategy: str) -> tuple[Callable[[list[Trace]], list[dict]], Engine | None]:
    tokenizer, rule = load_tokenizer(params), traces.RULES[params.sentence_rule]

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    if strategy in ("adaptive", "linear", "judge"):
        reader = params
        if strategy == "judge":
            reader = params.model_copy(update={"student": params.judge, "student_revision": params.judge_revision})
        judge = Judge(open_engine(reader), reader)
        start = linear if strategy == "linear" else SEARCHES[params.search]
        # half: what a prompt has beside its trace takes room in the cache as well
        limit = judge.engine.cache_tokens and judge.engine.cache_tokens // 2

        def searched(batch: list[Trace]) -> list[dict]:
            return [
                vars(prefix)
                for part in portions(batch, limit, lambda trace: count(trace.question) + count(trace.trace))
                for prefix in lockstep(part, start, judge.open, count, rule)
            ]

        return searched, judge.engine
    engine = open_engine(params) if strategies.reads(strategy) else None
    cut = strategies.cutter(strategy, params, engine)

    def work(batch: list[Trace]) -> list[dict]:
        parts = [rule.split(trace.trace) for trace in batch]
        cuts = [cut(trace, sentences) for trace, sentences in zip(batch, parts, strict=True)]
        return [vars(of_cut(*each, rule, count)) for each in zip(batch, parts, cuts, strict=True)]

    return work, engine


def portions(batch: list[Trace], limit: int | None, tokens: Callable[[Trace], int]) -> Iterator[list[Trace]]:
    """Consecutive traces of together at most ``limit`` tokens, a longer trace alone; all at once without a limit.

    What searches of one portion have read is still in the engine's prefix cache in their next round.
    """
    portion, total = [], 0
    for trace in batch:
        size = tokens(trace) if limit else 0
        if portion and limit and total + size > limit:
            yield portion
            portion, total = [], 0
        portion.append(trace)
        total += size
    if portion:
        yield portion


def of_cut(
    trace: Trace, sentences: list[str], cut: strategies.Cut, rule: traces.Rule, count: Callable[[str], int]
) -> Prefix:
    """The record of a prefix that no search found. A segment's ``prefix`` need not begin where the trace does."""
    kept = rule.join(sentences[cut.start : cut.end])
    return Prefix(
        id=trace.id,
        question=trace.question,
        answer=trace.answer,
        status=cut.error or "ok",
        prefix=kept,
        sentences=cut.end - cut.start,
        of=len(sentences),
        room=len(sentences) if cut.room is None else cut.room,
        sufficient=cut.sufficient,
        verdicts=list(cut.probes),
        oracle_sentences=traces.sufficient_sentences(trace, rule),
        prefix_tokens=count(kept),
        trace_tokens=count(trace.trace),
        tokens_read=cut.tokens_read,
        tokens_demanded=cut.tokens_demanded,
        tokens_of_prompts=cut.tokens_of_prompts,
        tokens_generated=0,
    )
