"""Prefix alignment: the student completes the prefix in its own words, and only right answers are kept (Eq. 8-9).

>>> pairs = align(params, "adaptive")
>>> sum(pair["kept"] for pair in pairs) / len(pairs)      # retention, Table 7
"""

from __future__ import annotations

from collections import defaultdict

from .engines.base import FAILED, NEVER_ANSWERED, Completion, Sampling, generate, seed_of
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


@held("alignment")
def align(params: Params, strategy: str) -> list[dict]:
    """Aligned pairs as records: the source's fields, ``continuation``, its ``outcome`` and whether it is ``kept``.

    Each prefix gets one continuation; its seed is made of the study's seed and the record's id. ``success_rate`` is the
    share of right answers among ``sufficiency_samples`` further continuations: it measures how sufficient the prefix is
    for this student, and does not select pairs. With the strategy ``empty`` there is no prefix: the student answers the
    question. Resumes after a kill.
    """
    plan = Plan(params)
    task = plan.alignment(strategy)
    if task.folder.done:
        return task.read("pairs")
    empty = strategy == "empty"
    records = sources(plan.traces.read("traces") if empty else plan.truncation(strategy).read("prefixes"))
    engine = open_engine(params.model("student"), params.part(Machine))
    sampling = sampling_of(params.part(Alignment))

    def continue_all(batch: list[tuple[dict, int]]) -> list[Completion]:
        turns = [user_turn(params.continue_prompt, params.answer_prompt, r["question"], r["prefix"]) for r, _ in batch]
        prompts = [engine.prompt(turn) for turn in turns]
        seeds = [seed_of(params.seed, "alignment", strategy, r["id"], sample) for r, sample in batch]
        return generate(engine, prompts, sampling, seeds)

    def work(batch: list[dict]) -> list[dict]:
        return [
            record | {"continuation": completion.text} | completion.facts
            for record, completion in zip(batch, continue_all([(r, 0) for r in batch]), strict=True)
        ]

    def measure(batch: list[tuple[dict, int]]) -> list[dict]:
        return [
            {"id": f"{record['id']}/{sample}", "of": record["id"], "text": completion.text, "finish": completion.finish}
            for (record, sample), completion in zip(batch, continue_all(batch), strict=True)
        ]

    filled = task.folder.fill("continuations", records, lambda r: r["id"], work, params.batch_size, "alignment")
    further = [(r, sample) for r in records for sample in range(1, 1 + params.sufficiency_samples) if r["prefix"]]
    measured = task.folder.fill(
        "sufficiency", further, lambda item: f"{item[0]['id']}/{item[1]}", measure, params.batch_size, "success rate"
    )
    gold = {record["id"]: record["answer"] for record in records}
    judged = grade_all([r["continuation"] for r in filled], [r["answer"] for r in filled], False, "grading")
    right = defaultdict(list)
    checked = grade_all([s["text"] for s in measured], [gold[s["of"]] for s in measured], False, "grading")
    for sample, grade in zip(measured, checked, strict=True):
        if sample.get("finish") not in FAILED:  # a failed request says nothing about the prefix
            right[sample["of"]].append(grade.right)
    pairs = []
    for record, grade in zip(filled, judged, strict=True):
        of = right[record["id"]]
        rate = sum(of) / len(of) if of else None
        outcome = record["finish"] if record["finish"] in NEVER_ANSWERED else grade.outcome
        pairs.append({**record, "outcome": outcome, "kept": grade.right, "success_rate": rate})
    task.folder.write("pairs", pairs)
    task.finish(
        engine=engine.settings,
        pairs=len(pairs),
        never_answered=sum(pair["finish"] in NEVER_ANSWERED for pair in pairs),
        samples_lost=sum(sample.get("finish") in FAILED for sample in measured),
        kept=sum(pair["kept"] for pair in pairs),
        tokens_read=sum(pair["prompt_tokens"] for pair in pairs),
        tokens_generated=sum(pair["new_tokens"] for pair in pairs),
    )
    return pairs


def align_all(params: Params) -> None:
    """:func:`align` for every strategy the study's arms need."""
    for strategy in Plan(params).strategies:
        align(params, strategy)
