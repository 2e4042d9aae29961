"""Prefix alignment: the student completes the prefix in its own words, and only right answers are kept (Eq. 8-9).

>>> pairs = align(params, "adaptive")
>>> sum(kept(pair) for pair in pairs) / len(pairs)      # retention, Table 7
"""

from __future__ import annotations

from collections.abc import Iterator

from . import attempts, judging, traces
from .attempts import Problem
from .continuation import cut, kept, sampling_of, user_turn
from .engines.base import FAILED, NEVER_ANSWERED, Completion, Engine, seed_of, stream
from .engines.opening import open_engine
from .grading import grade_all
from .params import Alignment, Machine, Params
from .prompts import fill
from .selection import select
from .tasks.plan import ATTEMPTS, SELECTED, Plan, Task, held, prefixes_of
from .traces import Trace


def sources(records: list[dict]) -> list[dict]:
    """Records to continue: the ``id``, ``question``, ``answer`` and ``prefix`` of traces or of a strategy's prefixes.

    Traces have an empty prefix. Records without a prefix because of an error are left out.
    """
    return [
        {"id": record["id"], "question": record["question"], "answer": record["answer"]}
        | {"prefix": record.get("prefix", "")}
        for record in records
        if record.get("status", "ok") == "ok"
    ]


def _continue(
    engine: Engine, params: Params, strategy: str, batch: list[tuple[dict, int]]
) -> Iterator[tuple[int, Completion]]:
    """One continuation for each (record, number), as they finish, with its index. Its seed is made of the study's seed,
    the record's id and the number.
    """
    turns = [user_turn(params.continue_prompt, params.answer_prompt, r["question"], r["prefix"]) for r, _ in batch]
    prompts = [engine.prompt(turn) for turn in turns]
    seeds = [seed_of(params.seed, "alignment", strategy, r["id"], number) for r, number in batch]
    return stream(engine, prompts, sampling_of(params.part(Alignment)), seeds)


@held("alignment")
def align(params: Params, strategy: str) -> list[dict]:
    """Aligned pairs as records: the source's fields, ``continuation`` and its ``outcome``; :func:`kept` filters them.

    Each prefix gets one continuation. With the strategy ``empty`` there is no prefix: the student answers the question.
    The strategies of ``palign.attempts`` draw several; a problem is left with one record (``own-k``: with all, each
    ``of`` a trace), which also has the ``sentences`` of its prefix and the ``tries``, the continuations drawn for the
    problem. The manifest's tokens are those of all continuations. Resumes after a kill.
    """
    task = Plan(params).alignment(strategy)
    if task.folder.done:
        return task.read("pairs")
    engine = open_engine(params.model("student"), params.part(Machine))
    make = _attempted if strategy in ATTEMPTS else _continued
    pairs, drawn = make(params, strategy, task, engine)
    task.folder.write("pairs", pairs)
    task.finish(
        engine=engine.settings,
        pairs=len(pairs),
        continuations=len(drawn),
        never_answered=sum(record["finish"] in NEVER_ANSWERED for record in drawn),
        cut=sum(map(cut, pairs)),
        kept=sum(map(kept, pairs)),
        tokens_read=sum(record["prompt_tokens"] for record in drawn),
        tokens_generated=sum(record["new_tokens"] for record in drawn),
    )
    return pairs


def _continued(params: Params, strategy: str, task: Task, engine: Engine) -> tuple[list[dict], list[dict]]:
    """The pairs of a strategy with one continuation a prefix, and all continuations: the same records."""
    plan = Plan(params)
    empty = strategy == "empty"
    records = sources(plan.traces.read("traces") if empty else plan.truncation(strategy).read("prefixes"))

    def work(batch: list[dict]) -> Iterator[dict]:
        for i, completion in _continue(engine, params, strategy, [(record, 0) for record in batch]):
            yield batch[i] | {"continuation": completion.text} | completion.facts

    filled = task.folder.fill("continuations", records, lambda r: r["id"], work, task.name)
    judged = grade_all([r["continuation"] for r in filled], [r["answer"] for r in filled], False, "grading")
    pairs = [
        record | {"outcome": record["finish"] if record["finish"] in NEVER_ANSWERED else grade.outcome}
        for record, grade in zip(filled, judged, strict=True)
    ]
    return pairs, pairs


def _attempted(params: Params, strategy: str, task: Task, engine: Engine) -> tuple[list[dict], list[dict]]:
    """The pairs of a strategy of ``palign.attempts``, and all continuations that were drawn for them."""
    plan, settings = Plan(params), params.part(Alignment)
    rule, sampling = traces.RULES[params.sentence_rule], sampling_of(settings)
    collected = traces.load(params)
    found = {trace.id: 0 for trace in collected}
    if cut_by := prefixes_of(strategy):
        prefixes = plan.truncation(cut_by).read("prefixes")
        found = {record["id"]: record["sentences"] for record in prefixes if record["status"] == "ok"}
    sentences = {trace.id: rule.split(trace.trace) for trace in collected}

    def prefix(trace: Trace, p: int) -> str:
        return rule.join(sentences[trace.id][:p])

    def prompt(trace: Trace, p: int) -> str:
        if strategy == "rewrite":
            return engine.prompt(fill(params.rewrite_prompt, question=trace.question, trace=trace.trace))
        turn = user_turn(params.continue_prompt, params.answer_prompt, trace.question, prefix(trace, p))
        return engine.prompt(turn)

    def draw(batch: list[tuple[Trace, int, int]]) -> Iterator[tuple[int, dict]]:
        seeds = [seed_of(params.seed, "alignment", strategy, trace.id, p, number) for trace, p, number in batch]
        prompts = [prompt(trace, p) for trace, p, _ in batch]
        for i, completion in stream(engine, prompts, sampling, seeds):
            yield i, {"continuation": completion.text} | completion.facts

    def begin(trace: Trace) -> Problem:
        of, limit = len(sentences[trace.id]), engine.source.max_model_len - sampling.max_new_tokens
        # where no sentence fits, one is tried all the same, so that the record says "prompt too long"
        room = max(1, judging.room(lambda p: engine.count(prompt(trace, p)), of, limit))
        strategy_of = attempts.start(strategy, settings, of, room, found[trace.id])
        return Problem(trace, strategy_of, settings.keep_cut_continuations)

    problems = [begin(trace) for trace in collected if trace.id in found]
    attempts.lockstep(task.folder, problems, draw, task.name)
    pairs = []
    for problem in problems:
        trace = problem.trace
        for one in problem.left or ():
            own = {"id": f"{trace.id}/{one[1]}", "of": trace.id} if strategy == "own-k" else {"id": trace.id}
            own |= {"question": trace.question, "answer": trace.answer, "prefix": prefix(trace, one[0])}
            facts = {key: value for key, value in problem.drawn[one].items() if key not in ("id", "of", "number")}
            pairs.append(own | facts | {"tries": len(problem.drawn)})
    return pairs, [record for problem in problems for record in problem.drawn.values()]


def align_all(params: Params) -> None:
    """The pairs of every strategy the study's arms need, by :func:`align` or, chosen among such, by
    ``palign.selection``.
    """
    for strategy in Plan(params).strategies:
        if strategy in SELECTED:
            select(params, strategy)
        else:
            align(params, strategy)


@held("success")
def measure_success(params: Params) -> list[dict]:
    """How often the student reaches the gold answer from its adaptive prefixes: one record per continuation, with its
    ``right`` (``None`` where the request failed, which says nothing about the prefix).

    ``sufficiency_samples`` continuations of each prefix, ``of`` a trace; they measure, and select nothing. Empty where
    there are none. Resumes after a kill.
    """
    plan = Plan(params)
    task = plan.success
    if task is None or task.folder.done:
        return task.read("grades") if task else []
    records = sources(plan.truncation().read("prefixes"))
    engine = open_engine(params.model("student"), params.part(Machine))
    items = [(record, sample) for record in records for sample in range(params.sufficiency_samples)]

    def key(item: tuple[dict, int]) -> str:
        return f"{item[0]['id']}/{item[1]}"

    def work(batch: list[tuple[dict, int]]) -> Iterator[dict]:
        # number 0 is the continuation to train on
        numbered = [(record, 1 + sample) for record, sample in batch]
        for i, completion in _continue(engine, params, "adaptive", numbered):
            record, sample = batch[i]
            own = {"id": key(batch[i]), "of": record["id"], "sample": sample, "text": completion.text}
            yield own | completion.facts

    filled = task.folder.fill("sufficiency", items, key, work, task.name)
    graded = grade_all([r["text"] for r in filled], [record["answer"] for record, _ in items], False, "grading")
    grades = [
        {"id": r["id"], "of": r["of"], "sample": r["sample"]}
        | {"right": None if r["finish"] in FAILED else grade.right}
        for r, grade in zip(filled, graded, strict=True)
    ]
    task.folder.write("grades", grades)
    task.finish(
        engine=engine.settings,
        samples_lost=sum(grade["right"] is None for grade in grades),
        tokens_read=sum(r["prompt_tokens"] for r in filled),
        tokens_generated=sum(r["new_tokens"] for r in filled),
    )
    return grades
