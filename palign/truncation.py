"""The adaptive prefix: a search over sentences for the shortest prefix the student finds enough (Eq. 5-7).

A search is a generator: it yields the prefix lengths to judge next and receives ``True`` (ENOUGH) or ``False`` for
each. So a test can run one search by itself, and a study runs thousands in lockstep, with one batched judge call per
round.

>>> search(released(48), judge=lambda p: p >= 12)
SearchResult(sentences=12, sufficient=True)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import calibration, traces
from .continuation import sampling_of
from .engines.base import said, seed_of
from .engines.memory import out_of_memory, release
from .engines.opening import open_engine
from .engines.tokenizers import load_tokenizer
from .judging import Judge, Verdict
from .params import Alignment, Machine, OneLine, Params
from .strategies import SOLUTIONS, Cut, EntropyPruned, HalfOfTokens, InfoGain, OneReading, cutter
from .tasks.plan import Plan, held
from .tasks.store import RunFolder
from .traces import Trace

SEARCHED = ("adaptive", "linear", "judge", "calibrated")
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


def backward(m: int) -> Search:
    """Back from the whole trace to the last NOT_ENOUGH: the shortest prefix behind which every verdict is ENOUGH."""
    for p in range(m, 0, -1):
        (enough,) = yield [p]
        if not enough:
            return SearchResult(min(p + 1, m), p < m)
    return SearchResult(1, True)


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


@dataclass
class _Running:
    """The search of one trace. ``asked``: the lengths it waits for; ``at_hand``: every verdict that was paid for;
    ``used``: those the search asked for, in order. ``result`` stays ``None`` after an error.
    """

    trace: Trace
    sentences: list[str]
    room: int = 0
    search: Search | None = None
    asked: Sequence[int] = ()
    at_hand: dict[int, Verdict] = field(default_factory=dict)
    used: list[tuple[int, Verdict]] = field(default_factory=list)
    result: SearchResult | None = None
    over: bool = False

    def begin(self, start: Callable[[int], Search], room: int) -> None:
        self.room, self.search = room, start(room) if room else None
        if room:
            self.advance()
        else:
            self.fail(1, "prompt too long")

    def advance(self) -> None:
        """Answer the search from the verdicts at hand, until it needs others or ends."""
        while not self.over and all(p in self.at_hand for p in self.asked):
            found = [(p, self.at_hand[p]) for p in self.asked]
            self.used += found
            if any(verdict.label == "error" for _, verdict in found):
                self.over = True
                return
            try:
                self.asked = self.search.send([verdict.label == "ENOUGH" for _, verdict in found] or None)
            except StopIteration as stop:
                self.result, self.over = stop.value, True

    def wanted(self, ahead: int) -> Sequence[int]:
        """The lengths to judge next: those asked for, and ``ahead`` - 1 longer ones."""
        last = self.asked[-1]
        return *self.asked, *range(last + 1, min(last + ahead, self.room + 1))

    def fail(self, p: int, reason: str) -> None:
        self.used.append((p, Verdict("error", reason=reason)))
        self.over = True

    def record(self, rule: traces.Rule, count: Callable[[str], int]) -> Prefix:
        """The record of the prefix found, or of an error."""
        result = self.result
        error = next((verdict.reason for _, verdict in self.used if verdict.label == "error"), None)
        paid = self.at_hand.values()
        return _prefix(
            self.trace,
            self.sentences,
            rule.join(self.sentences[: result.sentences]) if result else "",
            rule,
            count,
            status="ok" if result else f"judge error: {error}",
            sentences=result.sentences if result else 0,
            room=self.room,
            sufficient=bool(result and result.sufficient),
            verdicts=[(p, verdict.label, verdict.margin) for p, verdict in self.used],
            unparsed=sum(verdict.unparsed for _, verdict in self.used),
            tokens_read=sum(verdict.trace_tokens for verdict in paid),
            tokens_demanded=sum(verdict.demand_tokens for verdict in paid),
            tokens_of_prompts=sum(verdict.prompt_tokens for verdict in paid),
            tokens_generated=sum(verdict.new_tokens for verdict in paid),
        )


def lockstep(
    batch: Sequence[Trace],
    start: Callable[[int], Search],
    open_session: Callable,
    count: Callable[[str], int],
    rule: traces.Rule = traces.RULES["released"],
    ahead: int = 1,
) -> Iterator[Prefix]:
    """Advance one search per trace in rounds of one judge call; an error verdict ends the search of its trace.

    Prefixes come as their searches end. ``open_session`` takes (question, sentences) pairs and returns a
    :data:`Session`; ``count`` returns a text's tokens. ``ahead``: how many prefixes are judged at once where a search
    asks for one, itself and the next longer ones; a verdict that no search asks for is a cost and nothing else.

    Out of memory, the searches that go on are halved; they keep their verdicts, and their texts are read again. Only a
    trace that does not fit by itself is an error.
    """
    groups = [[_Running(trace, rule.split(trace.trace)) for trace in batch]]
    while groups:
        group = groups.pop()
        try:
            for one in _rounds(group, start, open_session, ahead):
                yield one.record(rule, count)
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = said(error)
        release()
        left = [one for one in group if not one.over]
        if len(group) == 1:
            left[0].fail(left[0].asked[0] if left[0].asked else 1, f"engine error: {reason}")
            yield left[0].record(rule, count)
        else:
            half = -(-len(left) // 2)
            groups += filter(None, (left[half:], left[:half]))
            print(f"out of memory while judging {len(group)} traces at once; going on with {half}", file=sys.stderr)


def _rounds(
    group: list[_Running], start: Callable[[int], Search], open_session: Callable, ahead: int
) -> Iterator[_Running]:
    """Ask for what the searches of a group want until all are over; each is given when it is."""
    session = open_session([(one.trace.question, one.sentences) for one in group])
    for one, room in zip(group, session.room, strict=True):
        if one.search is None:
            one.begin(start, room)
            if one.over:
                yield one
    while pending := [i for i, one in enumerate(group) if not one.over]:
        asked = [(i, p) for i in pending for p in group[i].wanted(ahead)]
        for (i, p), verdict in zip(asked, session(asked), strict=True):
            group[i].at_hand[p] = verdict
        for i in pending:
            group[i].advance()
            if group[i].over:
                yield group[i]


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


class JudgeFailed(OneLine, RuntimeError):
    """Too many traces could not be judged; the remaining ones would not represent the study."""


FAILED_SHARE = 0.5
"""Share of the traces that may fail; prefixes of less than half of the traces would not represent them."""
PATIENCE = 64
"""Traces in a row that may fail before the judge counts as gone; the remaining traces are then not tried."""


def judged(
    folder: RunFolder,
    name: str,
    items: Sequence[Trace],
    work: Callable[[Sequence[Trace]], Iterable[dict]],
    describe: str,
) -> list[dict]:
    """The folder's ``fill`` for records with a ``status``.

    Raises :class:`JudgeFailed` beyond the two limits above, and then removes the failed records from the file, so that
    a later call asks for them again.
    """

    streak = 0

    def watched(batch: Sequence[Trace]) -> Iterator[dict]:
        nonlocal streak
        for record in work(batch):
            yield record
            streak = 0 if record["status"] == "ok" else streak + 1
            if streak >= PATIENCE:
                raise failure(f"{streak} traces one after another", record)

    def failure(how_many: str, record: dict) -> JudgeFailed:
        return JudgeFailed(
            f"{describe}: {how_many} failed to be judged, one by {record['status']}; fix it and run the same command "
            "again to continue"
        )

    try:
        records = folder.fill(name, items, lambda trace: trace.id, watched, describe)
        failed = [record for record in records if record["status"] != "ok"]
        if len(failed) > FAILED_SHARE * len(records):
            raise failure(f"{len(failed)} of {len(records)} traces", failed[0])
    except JudgeFailed:
        folder.discard(name, lambda record: record["status"] != "ok")
        raise
    return records


@held("truncation")
def truncate(params: Params, strategy: str) -> list[dict]:
    """The prefixes of all training traces as records, in the traces' order. Resumes after a kill.

    ``adaptive``: the search that ``search`` names, by the student's verdicts. ``linear``: a scan, independent of
    ``search``. ``judge``: the same search as ``adaptive``, by the verdicts of the model ``judge``, with its own budget,
    context and template switches. ``calibrated``: the same search as ``adaptive``, ENOUGH from a margin on that a pilot
    of the traces decides (``palign.calibration``). The other strategies are those of ``palign.strategies``. Raises
    :class:`JudgeFailed` when too many traces could not be judged, and ``DataError`` if the data do not state the
    oracle.
    """
    task = Plan(params).truncation(strategy)
    if task.folder.done:
        return task.read("prefixes")
    collected, rule = traces.load(params), traces.RULES[params.sentence_rule]
    tokenizer, engine, read = load_tokenizer(params.model("student")), None, None
    pilot: dict[str, Any] = {"tokens_read": 0, "tokens_generated": 0}

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    if strategy in (*SEARCHED, *READ):
        engine = open_engine(params.model("judge" if strategy == "judge" else "student"), params.part(Machine))
    if strategy == "infogain":
        read = InfoGain(engine, rule, params.continue_prompt, params.answer_prompt, params.infogain_share)
    elif strategy == "one-reading":
        read = OneReading(engine, params.boundary_prompt)
    elif strategy == "entropy-pruned":
        student = params.model("student").model_copy(update={"engine": "transformers"})  # others give no predictions
        engine = open_engine(student, params.part(Machine))
        read = EntropyPruned(engine, rule, params.answer_prompt, params.pruned_share)
    elif strategy == "tokens-50":
        read = HalfOfTokens(tokenizer, rule)
    if strategy in SEARCHED:
        how = (params.verdict, params.verdict_max_new_tokens)
        if strategy == "judge":
            how = (params.judge_verdict, params.judge_max_new_tokens)
        judge = Judge(engine, params.judge_prompt, rule, *how)
        start = linear if strategy == "linear" else SEARCHES[params.search]
        if strategy == "calibrated":
            sample = traces.sample(collected, params.calibration_traces, seed_of(params.seed, "calibration"))
            ask = {"continue_prompt": params.continue_prompt, "sampling": sampling_of(params.part(Alignment))}
            ask["keep_cut"] = params.keep_cut_continuations
            pilot = _calibrate(task.folder, sample, judge, start, count, params.batch_size, **ask, seed=params.seed)
            judge.threshold = pilot["threshold"]

        def work(batch: Sequence[Trace]) -> Iterator[dict]:
            return map(vars, searched(batch, start, judge, count, params.batch_size))
    else:
        cut = cutter(strategy, rule, read)

        def work(batch: Sequence[Trace]) -> Iterator[dict]:
            for trace in batch:
                sentences = rule.split(trace.trace)
                yield vars(of_cut(trace, sentences, cut(trace, sentences), rule, count))

    if strategy in SOLUTIONS:  # a trace that states no right answer is no failure
        records = task.folder.fill("prefixes", collected, lambda trace: trace.id, work, task.name)
    else:
        records = judged(task.folder, "prefixes", collected, work, task.name)
    task.finish(
        **({"engine": engine.settings} if engine else {}),
        traces=len(records),
        failed=sum(record["status"] != "ok" for record in records),
        unparsed=sum(record["unparsed"] for record in records),
        **pilot
        | {
            "tokens_read": pilot["tokens_read"] + _read(records),
            "tokens_generated": pilot["tokens_generated"] + sum(record["tokens_generated"] for record in records),
        },
    )
    return records


def _read(records: Iterable[dict]) -> int:
    """The tokens that were read for all verdicts of some prefixes."""
    return sum(record["tokens_read"] + record["tokens_demanded"] for record in records)


def _calibrate(
    folder: RunFolder,
    pilot: Sequence[Trace],
    judge: Judge,
    start: Callable[[int], Search],
    count: Callable[[str], int],
    most: int,
    **asked: Any,
) -> dict[str, Any]:
    """What :func:`palign.calibration.calibrate` finds on a ``pilot`` of traces of which every prefix is judged, with
    the tokens of that.

    Prefixes that were stored under another threshold are removed: a request of the pilot had failed and was repeated.
    """

    def work(batch: Sequence[Trace]) -> Iterator[dict]:
        return map(vars, searched(batch, every, judge, count, most))

    def find(m: int, enough: Callable[[int], bool]) -> int:
        return search(start(m), enough).sentences

    names = {trace.id for trace in pilot}
    folder.discard("judged", lambda record: record["id"] not in names)
    records = judged(folder, "judged", pilot, work, "judging the pilot")
    before = folder.read("pilot")
    good = [record for record in records if record["status"] == "ok"]
    texts = {trace.id: judge.rule.split(trace.trace) for trace in pilot}
    found = calibration.calibrate(folder, good, texts, find, judge.engine, judge.rule, **asked)
    if found["pilot"] != before:
        folder.discard("prefixes", lambda _: True)
        folder.write("pilot", found["pilot"])
    return found | {
        "tokens_read": found["tokens_read"] + _read(records),
        "tokens_generated": found["tokens_generated"] + sum(record["tokens_generated"] for record in records),
    }


def truncate_all(params: Params) -> None:
    """:func:`truncate` for every strategy the study's arms need."""
    for strategy in Plan(params).cuts:
        truncate(params, strategy)


def searched(
    batch: Sequence[Trace],
    start: Callable[[int], Search],
    judge: Judge,
    count: Callable[[str], int],
    most: int | None = None,
) -> Iterator[Prefix]:
    """The prefixes of traces by a search, as they are found: the longest traces first, in portions of at most ``most``
    traces that the engine's cache can hold.

    A portion takes half of the cache: the prompts of its traces hold more than the traces themselves.
    """
    limit = (judge.engine.cache_tokens or 0) // 2
    ordered = sorted(batch, key=lambda trace: len(trace.question) + len(trace.trace), reverse=True)
    ahead = SCAN_BLOCK if start is linear else 1
    for part in portions(ordered, limit, lambda trace: count(trace.question) + count(trace.trace), most):
        yield from lockstep(part, start, judge.open, count, judge.rule, ahead)


def portions(
    batch: Sequence[Trace], limit: int, tokens: Callable[[Trace], int], most: int | None = None
) -> Iterator[list[Trace]]:
    """Consecutive traces, at most ``most`` and of at most ``limit`` tokens together; a longer trace makes its own
    portion. A limit of 0 is none.

    In the next round of its searches, the engine's prefix cache still holds what was read for a portion.
    """
    portion, total = [], 0
    for trace in batch:
        size = tokens(trace) if limit else 0
        if portion and (total + size > limit > 0 or len(portion) == most):
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
        rule.join(parts[cut.start : cut.end]) if cut.text is None else cut.text,
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
