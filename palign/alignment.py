"""Prefix alignment: the student completes the prefix in its own words, and only right answers are kept (Eq. 8-9).

>>> pairs = align(params, "adaptive")
>>> sum(kept(pair) for pair in pairs) / len(pairs)      # retention, Table 7
"""

from __future__ import annotations

from collections.abc import Iterator

from .engines.base import FAILED, NEVER_ANSWERED, Completion, Engine, Sampling, seed_of, stream
from .engines.opening import open_engine
from .grading import grade_all
from .params import Alignment, Machine, Params
from .prompts import fill
from .tasks.plan import Plan, held


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


def user_turn(continue_prompt: str, answer_prompt: str, question: str, prefix: str) -> str:
    """The student's instruction: to continue the prefix, or to answer the question where the prefix is empty."""
    if prefix:
        return fill(continue_prompt, question=question, prefix=prefix)
    return fill(answer_prompt, question=question)


def sampling_of(settings: Alignment) -> Sampling:
    """How continuations are sampled."""
    return Sampling(
        settings.alignment_max_new_tokens,
        settings.alignment_temperature,
        settings.alignment_top_p,
        settings.alignment_repetition_penalty,
    )


def cut(pair: dict) -> bool:
    """Whether the continuation is right but was cut at its budget: its text ends in the middle, often of a loop."""
    return pair["outcome"] == "right" and pair["finish"] == "length"


def kept(pair: dict, keep_cut: bool = False) -> bool:
    """Whether the filter keeps a pair for training (Eq. 9): its continuation is right, and was not cut.

    Eq. 9 asks only for a right answer; ``keep_cut`` does the same.
    """
    return pair["outcome"] == "right" and (keep_cut or not cut(pair))


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
    Resumes after a kill.
    """
    plan = Plan(params)
    task = plan.alignment(strategy)
    if task.folder.done:
        return task.read("pairs")
    empty = strategy == "empty"
    records = sources(plan.traces.read("traces") if empty else plan.truncation(strategy).read("prefixes"))
    engine = open_engine(params.model("student"), params.part(Machine))

    def work(batch: list[dict]) -> Iterator[dict]:
        for i, completion in _continue(engine, params, strategy, [(record, 0) for record in batch]):
            yield batch[i] | {"continuation": completion.text} | completion.facts

    filled = task.folder.fill("continuations", records, lambda r: r["id"], work, task.name)
    judged = grade_all([r["continuation"] for r in filled], [r["answer"] for r in filled], False, "grading")
    pairs = [
        record | {"outcome": record["finish"] if record["finish"] in NEVER_ANSWERED else grade.outcome}
        for record, grade in zip(filled, judged, strict=True)
    ]
    task.folder.write("pairs", pairs)
    task.finish(
        engine=engine.settings,
        pairs=len(pairs),
        never_answered=sum(pair["finish"] in NEVER_ANSWERED for pair in pairs),
        cut=sum(map(cut, pairs)),
        kept=sum(map(kept, pairs)),
        tokens_read=sum(pair["prompt_tokens"] for pair in pairs),
        tokens_generated=sum(pair["new_tokens"] for pair in pairs),
    )
    return pairs


def align_all(params: Params) -> None:
    """:func:`align` for every strategy the study's arms need."""
    for strategy in Plan(params).strategies:
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
