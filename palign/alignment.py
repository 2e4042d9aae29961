"""Prefix alignment: the student completes the prefix in its own words, and only right answers stay (Eq. 8-9).

>>> pairs = align(params, "adaptive")
>>> sum(pair["kept"] for pair in pairs) / len(pairs)      # retention, Table 7
"""

from __future__ import annotations

from collections import defaultdict

from . import traces
from .tasks import plan
from .engines.base import Completion, FAILED, NEVER_ANSWERED, Sampling, generate, seed_of
from .engines.opening import open_engine
from .grading import grade_all
from .params import Params
from .prompts import fill, render


def sources(params: Params, strategy: str) -> list[dict]:
    """What to continue: the strategy's prefixes, or, for ``empty``, every question with no prefix at all."""
    if strategy == "empty":
        return [
            {"id": trace.id, "question": trace.question, "answer": trace.answer, "prefix": ""}
            for trace in traces.load(params)
        ]
    prefixes = plan.truncation(params, strategy).require().read("prefixes")
    return [
        {key: record[key] for key in ("id", "question", "answer", "prefix")}
        for record in prefixes
        if record["status"] == "ok"
    ]


def user_turn(params: Params, question: str, prefix: str) -> str:
    """What the student is asked: to continue the prefix, or plainly to answer where there is none."""
    if prefix:
        return fill(params.continue_prompt, question=question, prefix=prefix)
    return fill(params.answer_prompt, question=question)


def sampling_of(params: Params) -> Sampling:
    """How continuations are sampled."""
    return Sampling(
        params.alignment_max_new_tokens,
        params.alignment_temperature,
        params.alignment_top_p,
        params.alignment_repetition_penalty,
    )


@plan.held(plan.alignment)
def align(params: Params, strategy: str) -> list[dict]:
    """Aligned pairs as records: the source's fields, ``continuation``, its ``outcome`` and whether it is ``kept``.

    One continuation a prefix, sampled with a seed of the study's seed and the record's id. ``success_rate`` is the
    share right among ``sufficiency_samples`` further ones: how sufficient the prefix is for this student, measured
    and not used. Resumes after a kill.
    """
    task = plan.alignment(params, strategy)
    if task.folder.done:
        return task.folder.read("pairs")
    records = sources(params, strategy)
    engine = open_engine(params)
    sampling = sampling_of(params)

    def continue_all(batch: list[tuple[dict, int]]) -> list[Completion]:
        prompts = [
            render(engine.tokenizer, user_turn(params, r["question"], r["prefix"]), params.chat_template_kwargs)
            for r, _ in batch
        ]
        seeds = [seed_of(params.seed, "alignment", strategy, r["id"], sample) for r, sample in batch]
        return generate(engine, prompts, sampling, seeds)

    def work(batch: list[dict]) -> list[dict]:
        return [
            {
                **record,
                "continuation": completion.text,
                "finish": completion.finish,
                "prompt_tokens": completion.prompt_tokens,
                "new_tokens": completion.new_tokens,
            }
            | completion.why
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
        if sample.get("finish") not in FAILED:  # a service that was down says nothing of the prefix
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
    for strategy in plan.strategies(params):
        align(params, strategy)
