"""Which arm's response does a judge prefer? Pairs of responses to one problem, blinded, in both orders (Figure 3d).

The judge sees a problem and two responses, A and B, and answers [A], [B] or [TIE]. Every pair is asked twice, in
both orders; a preference counts only where the two verdicts agree (Zheng et al. 2023, arXiv 2306.05685, section 3.4).
The judge is any model that an engine runs, or ``rubric``: a scripted rubric with the same criteria, computed from the
two texts without any model, for a study that has no judge.

>>> verdict("Both finish, B does not repeat itself: [B]")
'B'
>>> outcome("A", "B")      # preferred when it is shown as A, and again when it is shown as B
'win'
>>> table(compare(params), params.arms)
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..behaviour import describe
from ..engines.base import Completion, Engine, Sampling, seed_of, stream
from ..engines.opening import open_engine
from ..grading import last_box
from ..judging import label, reply
from ..params import Machine, Params
from ..prompts import BEGIN, END, fill
from ..tasks.plan import Plan, held
from .statistics import interval, paired_difference, table_of

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["win", "tie", "loss", "inconsistent", "unparseable"]
OUTCOMES: tuple[Outcome, ...] = ("win", "tie", "inconsistent", "unparseable", "loss")

RUBRIC = "rubric"
REFERENCE = "p-align"
PAPER_ARMS = ("sft-long-cot", "upft", "p-align")
"""The arms that the paper's judge compares in Figure 3d."""

MARGIN = 0.1
"""Points of the rubric: responses that differ by less are a tie."""
STEPS = 2
"""Different sentences before the answer; with fewer, the rubric treats a response as a bare answer."""

ANSWERED = ("stop", "length")
"""Values of a completion's ``finish`` with which there is a verdict to read."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def verdict(text: str) -> str | None:
    """A, B or TIE, as a judge's answer states it (see :func:`palign.judging.label`); ``None`` where it states none."""
    return label(text, ("A", "B", "TIE"))


def _verdict(answer: Completion) -> str | None:
    """The verdict of an answer. A prompt that is too long or a failed request has none."""
    return verdict(answer.text) if answer.finish in ANSWERED else None


def outcome(shown_first: str | None, shown_second: str | None) -> Outcome:
    """The outcome of one response, from the verdicts (A, B, TIE) when it is shown first and when it is shown second."""
    if shown_first is None or shown_second is None:
        return "unparseable"
    return {("A", "B"): "win", ("B", "A"): "loss", ("TIE", "TIE"): "tie"}.get(
        (shown_first, shown_second), "inconsistent"
    )


def blind(text: str) -> str:
    """A response without the prefix markers, which would reveal its arm."""
    return text.replace(BEGIN, "").replace(END, " ").strip()


def points(text: str, other: str) -> float:
    """The scripted rubric: 0 for an incomplete response, else 1 and up to a point for each other criterion.

    Complete and logical: at least ``STEPS`` different sentences, then a box in the last one. Reflective: some word of
    doubt (``behaviour.DOUBTS``). No redundancy: the share of sentences that repeat no earlier one. Concise: the shorter
    response's words over its own. It reads only the texts and does not know the right answer.
    """
    sentences = [s.strip().lower() for s in _SENTENCE.split(text) if s.strip()]
    different = set(sentences[:-1])
    if len(different) < STEPS or last_box(sentences[-1]) is None:
        return 0.0
    words = [max(1, len(t.split())) for t in (text, other)]
    return 1 + (describe(text)["doubts"] > 0) + len(set(sentences)) / len(sentences) + min(words) / words[0]


def rubric(first: str, second: str) -> str:
    """The scripted rubric's verdict, as a judge would write it."""
    difference = points(first, second) - points(second, first)
    return "[TIE]" if abs(difference) < MARGIN else "[A]" if difference > 0 else "[B]"


def name_of(judge: str | None) -> str:
    """The judge's name in words; for the rubric it says that the rubric is not a model."""
    return "scripted rubric, not a model" if judge == RUBRIC else str(judge)


def arm_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are compared: p-align (without it the first arm) with every other, and those of Figure 3d."""
    reference = REFERENCE if REFERENCE in arms else arms[0]
    pairs = [(reference, arm) for arm in arms if arm != reference]
    among = [arm for arm in PAPER_ARMS if arm in arms and arm != reference]
    return pairs + [pair for pair in combinations(among, 2) if len(among) > 1]


Ask = Callable[[list[dict]], Iterable[tuple[int, Completion]]]
"""Answers items that hold an ``id``, a ``question`` and the two responses ``shown``: by their index, in any order."""


def _ask_rubric(batch: list[dict]) -> Iterator[tuple[int, Completion]]:
    return ((i, Completion(rubric(*item["shown"]), "stop", 0, 0)) for i, item in enumerate(batch))


def _ask_model(engine: Engine, instruction: str, max_new_tokens: int, seed: int) -> Ask:
    def ask(batch: list[dict]) -> Iterator[tuple[int, Completion]]:
        prompts = []
        for item in batch:
            first, second = item["shown"]
            prompts.append(engine.prompt(fill(instruction, question=item["question"], first=first, second=second)))
        seeds = [seed_of(seed, "preference", item["id"]) for item in batch]
        for i, answer in stream(engine, prompts, Sampling(max_new_tokens), seeds):
            yield i, replace(answer, text=reply(prompts[i], answer.text))

    return ask


Problem = tuple[str, str]
"""A test problem: its benchmark and its id there."""


def _items(texts: dict[str, dict[Problem, str]], questions: dict[Problem, str], problems: int, seed: int) -> list[dict]:
    """Every question to the judge, in shuffled order: pairs of arms x problems x two orders.

    ``texts``: arm -> problem -> its response. ``problems``: how many of them to sample.
    """
    rng = random.Random(seed_of(seed, "preference"))
    sample = sorted(rng.sample(sorted(questions), min(problems, len(questions))))
    items = []
    for arm, against in arm_pairs(list(texts)):
        for problem in sample:
            both = (texts[arm][problem], texts[against][problem])
            common = {"arm": arm, "against": against, "benchmark": problem[0], "problem": problem[1]}
            for place, shown in (("first", both), ("second", both[::-1])):
                name = f"{arm}/{against}/{'/'.join(problem)}/{place}"
                items.append({"id": name, **common, "place": place, "question": questions[problem], "shown": shown})
    rng.shuffle(items)
    return items


@held("preference")
def compare(params: Params) -> list[dict]:
    """Ask the judge about every pair in both orders: one record per pair of arms and problem, with its ``outcome``.

    It compares the first samples of each arm's first training seed. ``first`` and ``second`` are the verdicts when the
    arm's response is shown there. ``outcome`` is the arm's over ``against``: ``inconsistent`` where the two orders do
    not agree, ``unparseable`` where a verdict states no label. Resumes after a kill. Empty where there
    is no judge or a single arm. Raises ``TaskMissing`` before all arms are evaluated.
    """
    plan = Plan(params)
    task = plan.preference
    if task is None or task.folder.done:
        return task.read("outcomes") if task else []
    texts = {
        arm: {
            (r["benchmark"], r["problem"]): blind(r["text"])
            for r in plan.evaluation(arm).read("responses")
            if r["sample"] == 0
        }
        for arm in params.arms
    }
    questions = {(p["benchmark"], p["id"]): p["question"] for p in plan.benchmarks.read("problems")}
    items = _items(texts, questions, params.preference_problems, params.seed)
    if params.preference_judge == RUBRIC:
        ask = _ask_rubric
    else:
        engine = open_engine(params.model("preference_judge"), params.part(Machine))
        ask = _ask_model(engine, params.preference_prompt, params.preference_max_new_tokens, params.seed)
    kept = ("id", "arm", "against", "benchmark", "problem", "place")

    def work(batch: list[dict]) -> Iterator[dict]:
        for i, answer in ask(batch):
            own = {key: batch[i][key] for key in kept}
            yield own | {"text": answer.text, "verdict": _verdict(answer)} | answer.facts

    asked = task.folder.fill("verdicts", items, lambda item: item["id"], work, "preferences")
    found = {tuple(r[k] for k in kept[1:]): r["verdict"] for r in asked}
    records = []
    for key in sorted({key[:-1] for key in found}):
        first, second = found[*key, "first"], found[*key, "second"]
        record = dict(zip(kept[1:-1], key, strict=True)) | {"first": first, "second": second}
        records.append(record | {"id": "/".join(key), "outcome": outcome(first, second)})
    task.folder.write("outcomes", records)
    task.finish(
        judge=name_of(params.preference_judge),
        verdicts=len(asked),
        unparseable=sum(r["verdict"] is None for r in asked),
        never_answered=sum(r["finish"] not in ANSWERED for r in asked),
        tokens_read=sum(r["prompt_tokens"] for r in asked),
        tokens_generated=sum(r["new_tokens"] for r in asked),
    )
    return records


COLUMNS = ["arm", "against", "measure", "value", "low", "high", "n"]


def table(outcomes: list[dict], arms: Sequence[str]) -> pd.DataFrame:
    """One row per pair of arms and measure: ``value``, ``low``, ``high`` (95 % over problems), ``n`` problems.

    ``outcomes``: the records of :func:`compare`; empty if there are none. Measures: the share of problems with each
    outcome; ``win less loss``, paired; ``orders agree``, of the problems with two verdicts; ``shown first preferred``,
    of verdicts that are not a tie (1/2 for a judge without a position bias).
    """
    import pandas as pd

    frame, rows = pd.DataFrame(outcomes), []
    for arm, against in arm_pairs(arms) if outcomes else []:
        group = frame[(frame["arm"] == arm) & (frame["against"] == against)]
        found = {name: interval(group["outcome"] == name) for name in OUTCOMES}
        won, lost = (group["outcome"] == name for name in ("win", "loss"))
        found["win less loss"] = paired_difference([won], [lost])
        both = group[group["outcome"] != "unparseable"]
        if len(both):
            found["orders agree"] = interval(both["outcome"] != "inconsistent")
        # A is the response shown first, whichever arm's it is
        votes = group[["first", "second"]].replace({"A": 1.0, "B": 0.0, "TIE": None}).astype(float).mean(axis=1)
        if votes.notna().any():
            found["shown first preferred"] = interval(votes.dropna())
        rows += [{"arm": arm, "against": against, "measure": m, **vars(e)} for m, e in found.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def best(outcomes: list[dict], arms: Sequence[str]) -> pd.DataFrame:
    """Figure 3d's arms: the share of problems on which each wins over all the others. ``value``, ``low``, ``high``,
    ``n``. On the remaining problems none does. Empty unless the study has all three arms.
    """
    import pandas as pd

    if not outcomes or not set(PAPER_ARMS) <= set(arms):
        return table_of({})
    groups = pd.DataFrame(outcomes).groupby(["benchmark", "problem"], sort=True)
    won = np.array([_winner(group.itertuples()) for _, group in groups], dtype=object)
    return table_of({arm: interval(won == arm) for arm in PAPER_ARMS})


def _winner(rows) -> str | None:
    wins = dict.fromkeys(PAPER_ARMS, 0)
    for row in rows:
        if row.arm in wins and row.against in wins and row.outcome in ("win", "loss"):
            wins[row.arm if row.outcome == "win" else row.against] += 1
    return next((arm for arm, count in wins.items() if count == len(PAPER_ARMS) - 1), None)
