"""From an arm to training rows: one prompt and one completion per problem (arms: ``palign.arms``).

>>> rows = build(params, "p-align")
>>> rows[0]
{'id': '1f0c', 'prompt': 'The dial starts ...', 'completion': '<Begin_of_Prefix>...', 'answers': True}
"""

from __future__ import annotations

import random

from .alignment import kept
from .arms import ARMS
from .engines.base import seed_of
from .params import FineTuning, Params
from .prompts import fill, mark
from .tasks.plan import Plan

OF_PAIRS = {
    "prefix+continuation": lambda pair: mark(pair["prefix"], pair["continuation"]),
    "prefix": lambda pair: pair["prefix"],
    "continuation": lambda pair: pair["continuation"],
}
"""Targets made of a kept pair. Arms of one strategy learn from the same pairs, so only the target differs."""

OF_TRACES = {
    "label": lambda trace: f"\\boxed{{{trace['answer']}}}",
    "trace": lambda trace: trace["trace"],
}
"""Targets made of a training problem and its trace."""


def build(params: Params, arm: str, tokenizer=None) -> list[dict]:
    """The rows of ``arm``: ``id``, ``prompt`` (the user's turn), ``completion`` (the assistant's) and ``answers``:
    whether the completion ends in an answer, which a cut would take away.

    A question that stands in a benchmark word for word gives no row. Only UPFT needs the ``tokenizer``. Raises
    ``ValueError`` for an arm that is not trained.
    """
    plan, target = Plan(params), ARMS[arm].target
    if target is None:
        raise ValueError(f"{arm} is not trained")
    return [row for row in _rows(params, plan, arm, target, tokenizer) if row["id"] not in plan.tested]


def _rows(params: Params, plan: Plan, arm: str, target: str, tokenizer) -> list[dict]:
    if target in OF_PAIRS:
        pairs = plan.alignment(ARMS[arm].strategy).read("pairs")
        return [
            _row(params.answer_prompt, pair, OF_PAIRS[target](pair), answers=target != "prefix")
            for pair in pairs
            if kept(pair, params.keep_cut_continuations)
        ]
    traces = plan.traces.read("traces")
    if target in OF_TRACES:
        return [_row(params.answer_prompt, trace, OF_TRACES[target](trace)) for trace in traces]
    return [_upft(params.part(FineTuning), trace, tokenizer, params.seed) for trace in traces]


def _row(instruction: str, record: dict, completion: str, answers: bool = True) -> dict:
    prompt = fill(instruction, question=record["question"])
    return {"id": record["id"], "prompt": prompt, "completion": completion, "answers": answers}


def _upft(recipe: FineTuning, trace: dict, tokenizer, seed: int) -> dict:
    """Unsupervised prefix fine-tuning (Ji et al. 2025, arXiv 2503.02875).

    Most rows ask for the first ``upft_tokens`` tokens of the trace, under a task prompt of their own. A share of
    ``upft_structure_share`` shows the whole trace under the ordinary prompt. Ji et al. sample the traces from the model
    itself; here they are the teacher's, as for every other arm. Each row is drawn by its own id, so that a changed
    training set does not change the draws of the rows that stay.
    """
    if random.Random(seed_of(seed, "upft", trace["id"])).random() < recipe.upft_structure_share:
        return _row(recipe.answer_prompt, trace, trace["trace"])
    ids = tokenizer(trace["trace"], add_special_tokens=False).input_ids[: recipe.upft_tokens]
    return _row(recipe.upft_prompt, trace, tokenizer.decode(ids), answers=False)
