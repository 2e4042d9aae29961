"""From an arm to training rows: one prompt and one completion a problem (PAPER.md section 3).

>>> rows = build(params, "p-align")
>>> rows[0]
{'id': '1f0c', 'prompt': 'The dial starts ...', 'completion': '<Begin_of_Prefix>...'}
"""

from __future__ import annotations

import random

from . import traces
from .tasks import plan
from .arms import ARMS
from .engines.base import seed_of
from .params import Params
from .prompts import fill, mark

COMPLETIONS = {
    "prefix+continuation": lambda pair: mark(pair["prefix"], pair["continuation"]),
    "prefix": lambda pair: pair["prefix"],
    "continuation": lambda pair: pair["continuation"],
}
"""What of a kept pair is learned. Arms of one strategy learn from the same pairs, so only the target differs."""


def build(params: Params, arm: str, tokenizer=None) -> list[dict[str, str]]:
    """The rows of ``arm``: ``id``, ``prompt`` (the user's turn) and ``completion`` (the assistant's).

    ``tokenizer`` is needed by UPFT only. Raises ``ValueError`` for an arm that is not trained.
    """
    target = ARMS[arm].target
    if target is None:
        raise ValueError(f"{arm} is not trained")
    if target in COMPLETIONS:
        pairs = plan.alignment(params, ARMS[arm].strategy).require().read("pairs")
        return [_row(params, pair, COMPLETIONS[target](pair)) for pair in pairs if pair["kept"]]
    records = [vars(trace) for trace in traces.load(params)]
    if target == "label":
        return [_row(params, record, f"\\boxed{{{record['answer']}}}") for record in records]
    if target == "trace":
        return [_row(params, record, record["trace"]) for record in records]
    return [_upft(params, record, tokenizer) for record in records]


def _row(params: Params, record: dict, completion: str, template: str | None = None) -> dict[str, str]:
    prompt = fill(template or params.answer_prompt, question=record["question"])
    return {"id": record["id"], "prompt": prompt, "completion": completion}


def _upft(params: Params, record: dict, tokenizer) -> dict[str, str]:
    """Unsupervised prefix fine-tuning (Ji et al. 2025, arXiv 2503.02875).

    Most rows ask, under a task prompt of their own, for the first ``upft_tokens`` tokens of the trace; a share of
    ``upft_structure_share``, chosen by the record's id, shows the whole trace under the ordinary prompt. There the
    traces are sampled from the model itself; in this comparison they are the teacher's, as for every other arm. The
    share is drawn row by row, so that a changed training set does not move the others.
    """
    if random.Random(seed_of(params.seed, "upft", record["id"])).random() < params.upft_structure_share:
        return _row(params, record, record["trace"])
    ids = tokenizer(record["trace"], add_special_tokens=False).input_ids[: params.upft_tokens]
    return _row(params, record, tokenizer.decode(ids), params.upft_prompt)
