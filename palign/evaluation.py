"""Evaluation: n sampled responses a test problem, their grades and their behaviour.

>>> responses = respond(params, "p-align")
>>> grades = grade_responses(params, "p-align")
"""

from __future__ import annotations

from . import traces
from .tasks import plan
from .behaviour import describe
from .engines.base import NEVER_ANSWERED, Sampling, generate, seed_of
from .engines.opening import open_engine
from .grading import grade_all
from .params import Params
from .problems import check_disjoint
from .prompts import fill, render


@plan.held(plan.evaluation)
def respond(params: Params, arm: str, seed: int | None = None) -> list[dict]:
    """The arm's responses as records, ``n_samples`` a problem; resumes after a kill.

    ``seed`` is the adapter's training seed (without one, the study's first); responses are sampled alike for all.

    Raises ``DataError`` for a trained arm when a training question is also a test question.

    ``cut`` is the response as it would have been under ``second_budget`` tokens: the same text cut there, since a
    sampled response does not know its budget.
    """
    task = plan.evaluation(params, arm, seed)
    folder = task.folder
    if folder.done:
        return folder.read("responses")
    trained = plan.finetuning(params, arm, seed)
    tests = plan.benchmarks(params).require().read("problems")
    if trained:
        check_disjoint(traces.load(params), tests)
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
    engine = open_engine(params, adapter=trained.require().path / "adapter" if trained else None)
    sampling = Sampling(params.max_new_tokens, params.temperature, params.top_p, params.repetition_penalty)

    def work(batch: list[dict]) -> list[dict]:
        prompts = [
            render(
                engine.tokenizer,
                fill(params.answer_prompt, question=item["question"]),
                params.chat_template_kwargs,
            )
            for item in batch
        ]
        # the arms share their seeds: what differs between two arms is then the model, not the luck of the draw
        seeds = [seed_of(params.seed, "evaluation", item["id"]) for item in batch]
        records = []
        for item, completion in zip(batch, generate(engine, prompts, sampling, seeds), strict=True):
            record = {key: item[key] for key in ("id", "benchmark", "problem", "sample", "answer")}
            record |= {
                "text": completion.text,
                "finish": completion.finish,
                "prompt_tokens": completion.prompt_tokens,
                "new_tokens": completion.new_tokens,
            } | completion.why
            if params.second_budget is not None:
                record["cut"] = engine.tokenizer.decode(
                    completion.token_ids[: params.second_budget], skip_special_tokens=True
                )
            records.append(record)
        return records

    responses = folder.fill("responses", items, lambda item: item["id"], work, params.batch_size, task.name)
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
    """The responses' grades, strict and lenient, the strict one also under the second budget, and their behaviour."""
    golds = [record["answer"] for record in responses]
    graded = grade_all([record["text"] for record in responses], golds, describe=f"grading {arm}")
    kept = ("id", "benchmark", "problem", "sample", "finish", "new_tokens")
    records = [
        {key: record[key] for key in kept}
        | {"outcome": grade.outcome, "right": grade.right, "lenient": grade.lenient}
        | describe(record["text"])
        for record, grade in zip(responses, graded, strict=True)
    ]
    if all("cut" in record for record in responses):
        for record, grade in zip(records, grade_all([r["cut"] for r in responses], golds, lenient=False), strict=True):
            record["right_cut"] = grade.right
    return records


def regrade(params: Params, arm: str, seed: int | None = None) -> list[dict]:
    """Grade the stored responses anew; nothing is generated."""
    folder = plan.evaluation(params, arm, seed).require()
    grades = _grade(folder.read("responses"), arm)
    folder.write("grades", grades)
    return grades


def load_grades(params: Params, arm: str, seed: int | None = None) -> list[dict]:
    """The arm's grades. Raises ``TaskMissing`` before :func:`respond`."""
    return plan.evaluation(params, arm, seed).require().read("grades")
