"""Evaluation: n sampled responses per test problem, their grades and their behaviour.

>>> responses = respond(params, "p-align")
>>> grades = Plan(params).evaluation("p-align").read("grades")
"""

from __future__ import annotations

from collections.abc import Iterator

from . import traces
from .behaviour import describe
from .engines.base import NEVER_ANSWERED, Sampling, seed_of, stream
from .engines.opening import open_engine
from .engines.tokenizers import load_tokenizer
from .grading import grade_all
from .params import Machine, Params
from .problems import check_disjoint
from .prompts import fill
from .tasks.plan import Plan, held


@held("evaluation")
def respond(params: Params, arm: str, seed: int | None = None) -> list[dict]:
    """The arm's responses, ``n_samples`` per problem, and their grades as records. Resumes after a kill.

    ``seed``: the adapter's training seed (without one, the study's first); it does not change how responses are
    sampled. ``token_ids`` are those of the response. Where ``grades.jsonl`` is missing, the stored responses are graded
    and nothing is sampled. Raises ``DataError`` for a trained arm that was trained on a test question.
    """
    plan = Plan(params)
    task = plan.evaluation(arm, seed)
    folder = task.folder
    if folder.done:
        return task.read("responses")
    trained = plan.finetuning(arm, seed)
    tests = plan.benchmarks.read("problems")
    if trained:
        check_disjoint([trace for trace in traces.load(params) if trace.id not in plan.tested], tests)
    items = [
        {
            **problem,
            "problem": problem["id"],
            "sample": sample,
            "id": f"{problem['benchmark']}/{problem['id']}/{sample}",
        }
        for problem in tests
        for sample in range(params.n_samples)
    ]
    adapter = trained.require().path / "adapter" if trained else None
    engine = open_engine(params.model("student"), params.part(Machine), adapter)
    sampling = Sampling(params.max_new_tokens, params.temperature, params.top_p, params.repetition_penalty)

    def work(batch: list[dict]) -> Iterator[dict]:
        prompts = [engine.prompt(fill(params.answer_prompt, question=item["question"])) for item in batch]
        # the seeds are the same for all arms: arms differ in the model, not in the random numbers
        seeds = [seed_of(params.seed, "evaluation", item["id"]) for item in batch]
        for i, completion in stream(engine, prompts, sampling, seeds):
            yield (
                {key: batch[i][key] for key in ("id", "benchmark", "problem", "sample", "answer")}
                | {"text": completion.text, **completion.facts, "token_ids": completion.token_ids}
            )

    responses = folder.fill("responses", items, lambda item: item["id"], work, task.name)
    folder.write("grades", _grade(responses, arm))
    task.finish(
        engine=engine.settings,
        responses=len(responses),
        never_answered=sum(record["finish"] in NEVER_ANSWERED for record in responses),
        tokens_read=sum(record["prompt_tokens"] for record in responses),
        tokens_generated=sum(record["new_tokens"] for record in responses),
    )
    return responses


def _grade(responses: list[dict], arm: str) -> list[dict]:
    """The responses' grades, strict and lenient, and their behaviour."""
    golds = [record["answer"] for record in responses]
    graded = grade_all([record["text"] for record in responses], golds, describe=f"grading {arm}")
    kept = ("id", "benchmark", "problem", "sample", "finish", "new_tokens")
    return [
        {key: record[key] for key in kept}
        | {"outcome": grade.outcome, "right": grade.right, "lenient": grade.lenient}
        | describe(record["text"])
        for record, grade in zip(responses, graded, strict=True)
    ]


@held("shortened")
def shorten(params: Params, arm: str, seed: int | None = None) -> list[dict]:
    """The grades of the same responses under the budget of ``second_budget`` tokens: each text cut there, because
    sampling does not depend on the budget. Empty without a second budget.
    """
    plan = Plan(params)
    task = plan.shortened(arm, seed)
    if task is None or task.folder.done:
        return task.read("grades") if task else []
    whole = plan.evaluation(arm, seed)
    long = [r for r in whole.read("responses") if len(r["token_ids"]) > params.second_budget]
    tokenizer = load_tokenizer(params.model("student"))
    texts = [tokenizer.decode(r["token_ids"][: params.second_budget], skip_special_tokens=True) for r in long]
    graded = grade_all(texts, [r["answer"] for r in long], lenient=False, describe=f"grading {task.name}")
    cut = {record["id"]: grade.right for record, grade in zip(long, graded, strict=True)}
    records = [
        {"id": record["id"], "sample": record["sample"], "right": cut.get(record["id"], record["right"])}
        for record in whole.read("grades")
    ]
    task.folder.write("grades", records)
    task.finish(responses=len(records), cut=len(cut))
    return records
