"""The adaptive prefix: a search over sentences for the shortest prefix the student finds enough (Eq. 5-7).

A search is a generator: it yields the prefix lengths to judge next and receives ``True`` (ENOUGH) or ``False`` for
each. So a test can run one search by itself, and a study runs thousands in lockstep, with one batched judge call per
round.

>>> search(released(48), judge=lambda p: p >= 12)
SearchResult(sentences=12, sufficient=True)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import traces
from .engines.opening import open_engine
from .engines.tokenizers import load_tokenizer
from .judging import Judge, Verdict
from .params import Machine, Params
from .strategies import Cut, InfoGain, OneReading, cutter
from .tasks.plan import Plan, held
from .tasks.store import RunFolder
from .traces import Trace

SEARCHED = ("adaptive", "linear", "judge")
"""Strategies that search by verdicts."""
READ = ("infogain", "one-reading")
"""Strategies of ``palign.strategies`` that need a model."""


@dataclass(frozen=True)
class SearchResult:
    """A search's result in sentences. ``sufficient``: whether that prefix was judged ENOUGH."""

    sentences: int
    sufficient: bool


Search = Generator[Sequence[int], Sequence[bool], SearchResult]


def released(m: int) -> Search:
    """The released code's binary search over 1..``m`` sentences; Figure 9 shows it too.

    The search remembers an ENOUGH and goes on below it. Where no verdict was ENOUGH, the result is the whole trace,
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
    """Equation 7's binary search over 1..``m`` sentences. It narrows [l, r] and never judges the whole trace."""
    low, high = 1, m
    while low < high:
        p = (low + high) // 2
        (enough,) = yield [p]
        if enough:
            high = p
        else:
            low = p + 1
    return SearchResult(low, low < m)


def linear(m: int) -> Search:
    """The first ENOUGH, from the shortest prefix upwards (Table 2, without binary search; Table 5)."""
    for p in range(1, m + 1):
        (enough,) = yield [p]
        if enough:
            return SearchResult(p, True)
    return SearchResult(m, False)


SCAN_BLOCK = 8
"""Prefixes of a trace that are judged at once for a scan: one more verdict on a trace that is being read costs little.
What lies behind the first ENOUGH costs tokens, and is no part of the result.
"""
EVERY_BLOCK = 32
"""Prefixes that one pass of :func:`every` reads: its memory does not grow with the trace."""


def every(m: int) -> Search:
    """Judges all prefixes, to study the judge; the result is that of the linear scan."""
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
    """A truncated trace. ``status`` is ``ok``, or the reason why there is no prefix; an error never selects one.

    ``sentences`` of ``of`` are kept. The search went over 1..``room``, which is less than ``of`` where the whole trace
    does not fit the context. ``verdicts``: (sentences, label, margin) in the order asked; a scan's end with its first
    ENOUGH. ``unparsed`` of them stated no label and count as NOT_ENOUGH. ``oracle_sentences``: the length of the
    shortest truly sufficient prefix, if the data state it. ``prefix_tokens`` and ``trace_tokens`` are counted by the
    student's tokenizer. For all verdicts together, also those that a scan did not use, ``tokens_read`` tokens of the
    question and the trace and ``tokens_demanded`` other prompt tokens were read and ``tokens_generated`` decoded;
    reading every prompt from its start would take ``tokens_of_prompts``. For prefixes without a search see
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
    unparsed: int
    oracle_sentences: int | None
    prefix_tokens: int
    trace_tokens: int
    tokens_read: int
    tokens_demanded: int
    tokens_of_prompts: int
    tokens_generated: int


Session = Callable[[Sequence[tuple[int, int]]], list[Verdict]]
"""Gives verdicts on (trace index, sentences) pairs. Its ``room``: how many sentences of each trace can be judged."""


def lockstep(
    batch: list[Trace],
    start: Callable[[int], Search],
    open_session: Callable,
    count: Callable[[str], int],
    rule: traces.Rule = traces.RULES["released"],
    ahead: int = 1,
) -> list[Prefix]:
    """Advance one search per trace in rounds of one judge call; an error verdict ends the search of its trace.

    ``open_session`` takes (question, sentences) pairs and returns a :data:`Session`; ``count`` returns a text's tokens.
    ``ahead``: how many prefixes are judged at once where a search asks for one, itself and the next longer ones; a
    verdict that no search asks for is a cost and nothing else.
    """
    sentences = [rule.split(trace.trace) for trace in batch]
    session = open_session([(trace.question, parts) for trace, parts in zip(batch, sentences, strict=True)])
    searches = [start(room) for room in session.room]
    at_hand: list[dict[int, Verdict]] = [{} for _ in batch]
    used: list[list[tuple[int, Verdict]]] = [[] for _ in batch]
    results: dict[int, SearchResult | None] = {}
    pending: dict[int, Sequence[int]] = {}

    def advance(i: int, asked: Sequence[int]) -> None:
        """Answer a search from the verdicts at hand, until it needs others or ends. It begins with nothing asked."""
        while all(p in at_hand[i] for p in asked):
            found = [(p, at_hand[i][p]) for p in asked]
            used[i] += found
            if any(verdict.label == "error" for _, verdict in found):
                results[i] = None
                return
            try:
                asked = searches[i].send([verdict.label == "ENOUGH" for _, verdict in found] or None)
            except StopIteration as stop:
                results[i] = stop.value
                return
        pending[i] = asked

    for i, room in enumerate(session.room):
        if room:
            advance(i, [])
        else:
            used[i], results[i] = [(1, Verdict("error", reason="prompt too long"))], None
    while pending:
        waiting, pending = pending, {}
        asked = [
            (i, p)
            for i, lengths in waiting.items()
            for p in (*lengths, *range(lengths[-1] + 1, min(lengths[-1] + ahead, session.room[i] + 1)))
        ]
        for (i, p), verdict in zip(asked, session(asked), strict=True):
            at_hand[i][p] = verdict
        for i, lengths in waiting.items():
            advance(i, lengths)
    return [
        _record(trace, sentences[i], rule, session.room[i], used[i], [*at_hand[i].values()], results[i], count)
        for i, trace in enumerate(batch)
    ]


def _record(
    trace: Trace,
    sentences: list[str],
    rule: traces.Rule,
    room: int,
    used: list[tuple[int, Verdict]],
    paid: list[Verdict],
    result: SearchResult | None,
    count: Callable[[str], int],
) -> Prefix:
    """The record of a prefix found by a search, or of an error; ``paid``: every verdict, whether used or not."""
    error = next((verdict.reason for _, verdict in used if verdict.label == "error"), None)
    return _prefix(
        trace,
        sentences,
        rule.join(sentences[: result.sentences]) if result else "",
        rule,
        count,
        status="ok" if result else f"judge error: {error}",
        sentences=result.sentences if result else 0,
        room=room,
        sufficient=bool(result and result.sufficient),
        verdicts=[(p, verdict.label, verdict.margin) for p, verdict in used],
        unparsed=sum(verdict.unparsed for _, verdict in used),
        tokens_read=sum(verdict.trace_tokens for verdict in paid),
        tokens_demanded=sum(verdict.demand_tokens for verdict in paid),
        tokens_of_prompts=sum(verdict.prompt_tokens for verdict in paid),
        tokens_generated=sum(verdict.new_tokens for verdict in paid),
    )


def _prefix(
    trace: Trace, parts: list[str], kept: str, rule: traces.Rule, count: Callable[[str], int], **found: Any
) -> Prefix:
    """A record: ``found``, and what follows from the trace, its sentences (``parts``) and the ``kept`` text."""
    return Prefix(
        id=trace.id,
        question=trace.question,
        answer=trace.answer,
        prefix=kept,
        of=len(parts),
        oracle_sentences=traces.sufficient_sentences(trace, rule),
        prefix_tokens=count(kept),
        trace_tokens=count(trace.trace),
        **found,
    )


class JudgeFailed(RuntimeError):
    """Too many traces could not be judged; the remaining ones would not represent the study."""


FAILED_SHARE = 0.5
"""Share of the traces that may fail; prefixes of less than half of the traces would not represent them."""
PATIENCE = 64
"""Traces in a row that may fail before the judge counts as gone; the remaining traces are then not tried."""


def judged(
    folder: RunFolder,
    name: str,
    items: Sequence[Trace],
    work: Callable[[list[Trace]], list[dict]],
    batch_size: int,
    describe: str,
) -> list[dict]:
    """The folder's ``fill`` for records with a ``status``.

    Raises :class:`JudgeFailed` beyond the two limits above, and then removes the failed records from the file, so that
    a later call asks for them again.
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
        folder.discard(name, lambda record: record["status"] != "ok")
        raise JudgeFailed(
            f"{describe}: {how_many} failed to be judged, one by {record['status']}; fix it and run the same command "
            "again to continue"
        )

    records = folder.fill(name, items, lambda trace: trace.id, watched, batch_size, describe)
    failed = [record for record in records if record["status"] != "ok"]
    if len(failed) > FAILED_SHARE * len(records):
        stop(f"{len(failed)} of {len(records)} traces", failed[0])
    return records


@held("truncation")
def truncate(params: Params, strategy: str) -> list[dict]:
    """The prefixes of all training traces as records, in the traces' order. Resumes after a kill.

    ``adaptive``: the search that ``search`` names, by the student's verdicts. ``linear``: a scan, independent of
    ``search``. ``judge``: the same search as ``adaptive``, by the verdicts of the model ``judge``, with its own budget,
    context and template switches. The other strategies are those of ``palign.strategies``. Raises
    :class:`JudgeFailed` when too many traces could not be judged, and ``DataError`` if the data do not state the
    oracle.
    """
    task = Plan(params).truncation(strategy)
    if task.folder.done:
        return task.read("prefixes")
    collected, rule = traces.load(params), traces.RULES[params.sentence_rule]
    tokenizer, engine, read = load_tokenizer(params.model("student")), None, None

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    if strategy in (*SEARCHED, *READ):
        engine = open_engine(params.model("judge" if strategy == "judge" else "student"), params.part(Machine))
    if strategy == "infogain":
        read = InfoGain(engine, rule, params.continue_prompt, params.answer_prompt, params.infogain_share)
    elif strategy == "one-reading":
        read = OneReading(engine, params.boundary_prompt)
    if strategy in SEARCHED:
        how = (params.verdict, params.verdict_max_new_tokens)
        if strategy == "judge":
            how = (params.judge_verdict, params.judge_max_new_tokens)
        judge = Judge(engine, params.judge_prompt, rule, *how)
        start = linear if strategy == "linear" else SEARCHES[params.search]

        def work(batch: list[Trace]) -> list[dict]:
            return [vars(prefix) for prefix in searched(batch, start, judge, count)]
    else:
        cut = cutter(strategy, rule, read)

        def work(batch: list[Trace]) -> list[dict]:
            parts = [rule.split(trace.trace) for trace in batch]
            cuts = [cut(trace, sentences) for trace, sentences in zip(batch, parts, strict=True)]
            return [vars(of_cut(*each, rule, count)) for each in zip(batch, parts, cuts, strict=True)]

    records = judged(task.folder, "prefixes", collected, work, params.batch_size, task.name)
    task.finish(
        **({"engine": engine.settings} if engine else {}),
        traces=len(records),
        failed=sum(record["status"] != "ok" for record in records),
        unparsed=sum(record["unparsed"] for record in records),
        tokens_read=sum(record["tokens_read"] + record["tokens_demanded"] for record in records),
        tokens_generated=sum(record["tokens_generated"] for record in records),
    )
    return records


def truncate_all(params: Params) -> None:
    """:func:`truncate` for every strategy the study's arms need."""
    for strategy in Plan(params).strategies:
        if strategy != "empty":
            truncate(params, strategy)


def searched(
    batch: list[Trace], start: Callable[[int], Search], judge: Judge, count: Callable[[str], int]
) -> list[Prefix]:
    """The prefixes of a batch by a search, in portions that the engine's prefix cache can hold.

    A portion takes half of the cache: the prompts of its traces hold more than the traces themselves.
    """
    limit = judge.engine.cache_tokens and judge.engine.cache_tokens // 2
    found = portions(batch, limit, lambda trace: count(trace.question) + count(trace.trace))
    ahead = SCAN_BLOCK if start is linear else 1
    return [prefix for part in found for prefix in lockstep(part, start, judge.open, count, judge.rule, ahead)]


def portions(batch: list[Trace], limit: int | None, tokens: Callable[[Trace], int]) -> Iterator[list[Trace]]:
    """Consecutive traces of at most ``limit`` tokens together; a longer trace makes its own portion; one portion
    without a limit.

    In the next round of its searches, the engine's prefix cache still holds what was read for a portion.
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


def of_cut(trace: Trace, parts: list[str], cut: Cut, rule: traces.Rule, count: Callable[[str], int]) -> Prefix:
    """The record of a prefix found without a search. The ``prefix`` of a segment may begin later than the trace."""
    return _prefix(
        trace,
        parts,
        rule.join(parts[cut.start : cut.end]),
        rule,
        count,
        status=cut.error or "ok",
        sentences=cut.end - cut.start,
        room=len(parts) if cut.room is None else cut.room,
        sufficient=cut.sufficient,
        verdicts=list(cut.probes),
        unparsed=0,
        tokens_read=cut.tokens_read,
        tokens_demanded=cut.tokens_demanded,
        tokens_of_prompts=cut.tokens_of_prompts,
        tokens_generated=0,
    )
