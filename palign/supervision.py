"""From an arm to training rows: prompts and completions (arms: ``palign.arms``).

>>> rows = build(params, "p-align")
>>> rows[0]
{'id': '1f0c', 'of': '1f0c', 'prompt': 'The dial ...', 'completion': '<Begin_of_Prefix>...', 'answers': True, ...}
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from .arms import ARMS, PAIR, Arm
from .continuation import kept, target
from .engines.base import NEVER_ANSWERED, seed_of
from .grading import SOUND, grade_all
from .params import FineTuning, Params
from .prompts import fill
from .tasks.plan import Plan


def _unmarked(pair: dict) -> str:
    """The pair as one text. Marks keep prefix and continuation apart; without them a space does, where none stands."""
    prefix, continuation = pair["prefix"], pair["continuation"]
    apart = not prefix or prefix[-1:].isspace() or continuation[:1].isspace()
    return prefix + ("" if apart else " ") + continuation


OF_PAIRS: dict[str, Callable[[dict], str]] = {
    PAIR: target,
    "unmarked": _unmarked,
    "prefix": lambda pair: pair["prefix"],
    "continuation": lambda pair: pair["continuation"],
    "mixed": lambda pair: pair["continuation"],
}
"""Targets made of a kept pair. Arms of one strategy learn from the same pairs, so only the target differs."""

OF_TRACES: dict[str, Callable[[dict], str]] = {
    "label": lambda trace: f"\\boxed{{{trace['answer']}}}",
    "trace": lambda trace: trace["trace"],
}
"""Targets made of a training problem and its trace."""

LONG_SHARE = 0.25
"""Whole traces to one own right answer, for the target ``mixed`` (Li et al. 2025, arXiv 2502.12143)."""


def build(params: Params, arm: str, tokenizer=None) -> list[dict]:
    """The rows of ``arm``: ``id``, ``of`` (the problem's id), ``prompt`` (the user's turn), ``completion`` (the
    assistant's), ``answers``: whether the completion ends in an answer, which a cut would take away, and ``fallback``:
    whether it is a whole trace that the arm's fallback adds.

    Rows stand in the traces' order, and no two have one ``id``. Most arms have at most one row a problem. A question
    that stands in a benchmark word for word gives no row, and is drawn for none. Only UPFT needs the ``tokenizer``.
    Raises ``ValueError`` for an arm that is not trained.
    """
    plan, spec, recipe = Plan(params), ARMS[arm], params.part(FineTuning)
    if spec.target is None:
        raise ValueError(f"{arm} is not trained")

    def learnt(records: list[dict]) -> list[dict]:
        return [record for record in records if problem(record) not in plan.tested]

    if spec.target == "text":
        return of_texts(spec, recipe, learnt(plan.truncation(spec.strategy).read("prefixes")))
    traces = learnt(plan.traces.read("traces"))
    if spec.target == "upft":
        return [_upft(recipe, trace, tokenizer, params.seed) for trace in traces]
    if spec.target in OF_TRACES:
        return [_row(recipe.answer_prompt, trace, OF_TRACES[spec.target](trace)) for trace in traces]
    pairs = learnt(plan.alignment(spec.strategy).read("pairs"))
    own = learnt(plan.alignment("own-k").read("pairs")) if spec.weight else []
    return of_pairs(spec, recipe, params.keep_cut_continuations, params.seed, traces, pairs, own)


def problem(record: dict) -> str:
    """The id of the problem that a trace, a prefix or a pair belongs to."""
    return record.get("of", record["id"])


def of_texts(spec: Arm, recipe: FineTuning, records: Iterable[dict]) -> list[dict]:
    """Rows of the texts that truncation left; where it found none, there is no row.

    All of them end where the trace states an answer, but for the first half of the tokens: its rows may be cut.
    """
    return [
        _row(recipe.answer_prompt, record, record["prefix"], answers=spec.ends, ends=spec.ends)
        for record in records
        if record["status"] == "ok"
    ]


def of_pairs(
    spec: Arm,
    recipe: FineTuning,
    keep_cut: bool,
    seed: int,
    traces: Sequence[dict],
    pairs: Iterable[dict],
    own: Iterable[dict] = (),
) -> list[dict]:
    """Rows of the right pairs that ``spec`` picks, repeated by its weight, and of the traces that it adds.

    ``pairs``: right and wrong ones of the training problems ``traces``. ``own``: the student's K own answers, for a
    weight. Problems are drawn by ``seed`` and each by its own id, so that a changed training set does not change the
    draws of those that stay.
    """
    tries = _by_problem(pairs)
    right = {of: found for of, several in tries.items() if (found := [p for p in several if kept(p, keep_cut)])}
    weights = _weights(spec, recipe, seed, right, failures(own, keep_cut))
    added = _added(spec, seed, traces, right, failures(pairs, keep_cut))
    rows = []
    for trace in traces:
        for pair in PICKS[spec.pick](right.get(trace["id"], [])):
            completion = OF_PAIRS[spec.target](pair)
            row = _row(recipe.answer_prompt, pair, completion, answers=spec.target != "prefix", ends=spec.ends)
            rows += _copies(row, weights.get(trace["id"], 1))
        if trace["id"] in added:
            instruction = recipe.fallback_prompt if spec.fallback == "prompted" else recipe.answer_prompt
            row = _row(instruction, trace, trace["trace"], fallback=spec.fallback is not None)
            rows += _copies(row | {"id": f"{row['id']}/trace"}, added[trace["id"]])
    return rows


def failures(pairs: Iterable[dict], keep_cut: bool = False) -> set[str]:
    """The problems whose continuations were all answered, and none of which the filter keeps.

    A request that failed is no wrong answer: its problem is not among them.
    """
    return {
        of
        for of, several in _by_problem(pairs).items()
        if not any(kept(pair, keep_cut) or pair["outcome"] in NEVER_ANSWERED for pair in several)
    }


def drawn(ids: Iterable[str], count: int, *seed: object) -> list[str]:
    """``count`` of the ids (all, if there are fewer) at random; one that leaves gives its place to the next one."""
    return sorted(ids, key=lambda one: seed_of(*seed, one))[:count]


def _by_problem(pairs: Iterable[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for pair in pairs:
        found.setdefault(problem(pair), []).append(pair)
    return found


def _number(pair: dict) -> int:
    """Which of its problem's continuations a pair is."""
    return int(pair["id"].rpartition("/")[2]) if "of" in pair else 0


def _different(right: list[dict]) -> Iterable[dict]:
    """Of those that say the same, the first."""
    found: dict[str, dict] = {}
    for pair in sorted(right, key=_number):
        found.setdefault(pair["continuation"], pair)
    return found.values()


PICKS: dict[str, Callable[[list[dict]], Iterable[dict]]] = {
    "first": lambda right: sorted(right, key=_number)[:1],
    "shortest": lambda right: sorted(right, key=lambda pair: (pair["new_tokens"], _number(pair)))[:1],
    "all": _different,
}
"""Which of a problem's right pairs become rows."""


def _weights(spec: Arm, recipe: FineTuning, seed: int, right: Collection[str], hard: set[str]) -> dict[str, int]:
    """How often the rows of a problem count, where not once. Only problems with a row are counted as hard ones."""
    if spec.weight is None:
        return {}
    hard = hard & set(right)
    chosen = hard if spec.weight == "hard" else drawn(right, len(hard), seed, "weight")
    return dict.fromkeys(chosen, recipe.hard_weight)


def _added(spec: Arm, seed: int, traces: Sequence[dict], right: Collection[str], failed: set[str]) -> Counter[str]:
    """How often the whole trace of a problem is a row beside those of its pairs.

    A trace that states a wrong answer is none; one that states no answer may be. The random control has as many as the
    fallback that it is the control of: more than one of a problem where fewer problems than that have a right pair.
    """
    if spec.target == "mixed":
        sound = _sound(traces)
        return Counter(drawn(sound, round(LONG_SHARE * len(right)), seed, "mixed"))
    if spec.fallback is None:
        return Counter()
    lacking = _sound(trace for trace in traces if trace["id"] in failed)
    if spec.fallback != "random":
        return Counter(lacking)
    order = drawn(_sound(trace for trace in traces if trace["id"] in right), len(right), seed, "fallback")
    return Counter(order[i % len(order)] for i in range(len(lacking) if order else 0))


def _sound(traces: Iterable[dict]) -> list[str]:
    """The ids of traces whose own answer is right, or that box none (:data:`SOUND`)."""
    traces = list(traces)
    grades = grade_all([trace["trace"] for trace in traces], [trace["answer"] for trace in traces], lenient=False)
    return [trace["id"] for trace, grade in zip(traces, grades, strict=True) if grade.outcome in SOUND]


def _copies(row: dict, count: int) -> list[dict]:
    """The row ``count`` times, each under an id of its own."""
    return [row | ({"id": f"{row['id']}/copy-{i}"} if i else {}) for i in range(count)]


def _row(
    instruction: str, record: dict, completion: str, *, answers: bool = True, fallback: bool = False, ends: bool = True
) -> dict:
    prompt = fill(instruction, question=record["question"])
    row = {"id": record["id"], "of": problem(record), "prompt": prompt, "completion": completion}
    return row | {"answers": answers, "fallback": fallback, "ends": ends}


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
