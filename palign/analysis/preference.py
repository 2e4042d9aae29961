"""Which arm's response does a judge prefer? Pairs of responses to one problem, blinded, in both orders (Figure 3d).

The judge sees a problem and two responses, A and B, and answers [A], [B] or [TIE]. Every pair is asked twice, with the
responses changed about; a verdict counts where both orders agree (Zheng et al. 2023, arXiv 2306.05685, section 3.4).
The judge is any model an engine runs, or ``rubric``: a scripted rubric over the same criteria, a function of the two
texts and no model, which stands in where there is none.

>>> verdict("Both finish, B does not repeat itself: [B]")
'B'
>>> outcome("A", "B")      # the response shown as A, then, changed about, as B: the same one both times
'win'
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from . import statistics
from ..tasks import plan
from ..behaviour import describe
from ..engines.base import Completion, Sampling, generate, seed_of
from ..engines.opening import open_engine
from ..grading import last_box
from ..params import Params
from ..prompts import BEGIN, END, fill, render

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["win", "tie", "loss", "inconsistent", "unparseable"]
OUTCOMES: tuple[Outcome, ...] = ("win", "tie", "inconsistent", "unparseable", "loss")

RUBRIC = "rubric"
REFERENCE = "p-align"
PAPER_ARMS = ("sft-long-cot", "upft", "p-align")
"""The arms of Figure 3d, of which the paper's judge names the best."""

MARGIN = 0.1
"""Points of the rubric that two responses must differ by, or they tie."""
STEPS = 2
"""Sentences before the answer that make a response of the rubric a stated chain and no bare answer."""

ANSWERED = ("stop", "length")
_LABEL = re.compile(r"\[(A|B|TIE)\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def verdict(text: str) -> str | None:
    """The one label of ``[A]``, ``[B]``, ``[TIE]`` that a judge's answer holds; ``None`` for none or several."""
    found = set(_LABEL.findall(text))
    return found.pop() if len(found) == 1 else None


def _verdict(answer: Completion) -> str | None:
    """Of an answer; a prompt too long or a failed request has none, whatever its text says."""
    return verdict(answer.text) if answer.finish in ANSWERED else None


def outcome(shown_first: str | None, shown_second: str | None) -> Outcome:
    """Of one response, from the verdicts (A, B, TIE) on it shown first and on it shown second."""
    if shown_first is None or shown_second is None:
        return "unparseable"
    return {("A", "B"): "win", ("B", "A"): "loss", ("TIE", "TIE"): "tie"}.get(
        (shown_first, shown_second), "inconsistent"
    )


def blind(text: str) -> str:
    """A response without the marks that name its arm."""
    return text.replace(BEGIN, "").replace(END, " ").strip()


def points(text: str, other: str) -> float:
    """The scripted rubric: 0 for an incomplete response, else 1 and up to a point for each other criterion.

    Complete and logical: at least ``STEPS`` different sentences, then a box in the last one. Reflective: some word of
    doubt (``behaviour.DOUBTS``). No redundancy: the share of sentences that repeat none before. Concise: the shorter
    one's words over its own. A function of the texts alone: it does not know what is right.
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


def name_of(params: Params) -> str:
    """The judge, in words that claim no more than it is."""
    return "scripted rubric, not a model" if params.preference_judge == RUBRIC else str(params.preference_judge)


def arm_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are compared: p-align (without it the first arm) with every other, and those of Figure 3d."""
    reference = REFERENCE if REFERENCE in arms else arms[0]
    pairs = [(reference, arm) for arm in arms if arm != reference]
    among = [arm for arm in PAPER_ARMS if arm in arms and arm != reference]
    return pairs + [pair for pair in combinations(among, 2) if len(among) > 1]


def _ask(params: Params) -> Callable[[list[dict]], list[Completion]]:
    """What answers a batch of (``question``, ``shown``) items."""
    if params.preference_judge == RUBRIC:
        return lambda batch: [Completion(rubric(*item["shown"]), "stop", 0, 0) for item in batch]
    own = {"student": params.preference_judge, "student_revision": params.preference_judge_revision}
    engine = open_engine(params.model_copy(update=own | {"engine": params.preference_engine}))
    sampling = Sampling(params.preference_max_new_tokens)

    def ask(batch: list[dict]) -> list[Completion]:
        prompts = []
        for item in batch:
            first, second = item["shown"]
            user = fill(params.preference_prompt, question=item["question"], first=first, second=second)
            prompts.append(render(engine.tokenizer, user, params.chat_template_kwargs))
        return generate(engine, prompts, sampling, [seed_of(params.seed, "preference", i["id"]) for i in batch])

    return ask


def _items(params: Params) -> list[dict]:
    """Every question to the judge, in an order that tells it nothing: pairs of arms x problems x two orders.

    First samples of each arm's first training seed.
    """
    texts = {
        arm: {
            (r["benchmark"], r["problem"]): blind(r["text"])
            for r in plan.evaluation(params, arm).require().read("responses")
            if r["sample"] == 0
        }
        for arm in params.arms
    }
    questions = {(p["benchmark"], p["id"]): p["question"] for p in plan.benchmarks(params).require().read("problems")}
    rng = random.Random(seed_of(params.seed, "preference"))
    sample = sorted(rng.sample(sorted(questions), min(params.preference_problems, len(questions))))
    items = []
    for arm, against in arm_pairs(params.arms):
        for problem in sample:
            both = (texts[arm][problem], texts[against][problem])
            common = {"arm": arm, "against": against, "benchmark": problem[0], "problem": problem[1]}
            for place, shown in (("first", both), ("second", both[::-1])):
                name = f"{arm}/{against}/{'/'.join(problem)}/{place}"
                items.append({"id": name, **common, "place": place, "question": questions[problem], "shown": shown})
    rng.shuffle(items)
    return items


@plan.held(plan.preference)
def compare(params: Params) -> list[dict]:
    """Ask the judge about every pair in both orders: one record a pair of arms and problem, with its ``outcome``.

    ``first`` and ``second`` are the verdicts with the arm's response shown there. ``outcome`` is the arm's over
    ``against``; ``inconsistent`` where the two orders do not agree, ``unparseable`` where one verdict has not exactly
    one label. Resumes after a kill; nothing where there is no judge or a single arm.
    """
    task = plan.preference(params)
    if task is None or task.folder.done:
        return task.folder.read("outcomes") if task else []
    items, ask = _items(params), _ask(params)
    kept = ("id", "arm", "against", "benchmark", "problem", "place")

    def work(batch: list[dict]) -> list[dict]:
        return [
            {key: item[key] for key in kept}
            | {"text": answer.text, "verdict": _verdict(answer), "finish": answer.finish}
            | {"prompt_tokens": answer.prompt_tokens, "new_tokens": answer.new_tokens}
            | answer.why
            for item, answer in zip(batch, ask(batch), strict=True)
        ]

    asked = task.folder.fill("verdicts", items, lambda item: item["id"], work, params.batch_size, "preferences")
    found = {tuple(r[k] for k in kept[1:]): r["verdict"] for r in asked}
    records = []
    for key in sorted({key[:-1] for key in found}):
        first, second = found[*key, "first"], found[*key, "second"]
        record = dict(zip(kept[1:-1], key, strict=True)) | {"first": first, "second": second}
        records.append(record | {"id": "/".join(key), "outcome": outcome(first, second)})
    task.folder.write("outcomes", records)
    task.finish(
        judge=name_of(params),
        verdicts=len(asked),
        unparseable=sum(r["verdict"] is None for r in asked),
        never_answered=sum(r["finish"] not in ANSWERED for r in asked),
        tokens_read=sum(r["prompt_tokens"] for r in asked),
        tokens_generated=sum(r["new_tokens"] for r in asked),
    )
    return records


def _frame(params: Params) -> pd.DataFrame:
    import pandas as pd

    task = plan.preference(params)
    return pd.DataFrame(task.require().read("outcomes") if task else [])


COLUMNS = ["arm", "against", "measure", "value", "low", "high", "n"]


def table(params: Params) -> pd.DataFrame:
    """One row a pair of arms and measure: ``value``, ``low``, ``high`` (95 % over problems), ``n`` problems.

    Measures: the share of problems with each outcome; ``win less loss``, paired; ``orders agree``, of the problems with
    two verdicts; ``shown first preferred``, of verdicts that are no tie (1/2: the judge does not mind the order).
    """
    import pandas as pd

    frame, rows = _frame(params), []
    for arm, against in arm_pairs(params.arms) if len(frame) else []:
        group = frame[(frame["arm"] == arm) & (frame["against"] == against)]
        found = {name: statistics.interval(group["outcome"] == name) for name in OUTCOMES}
        won, lost = (group["outcome"] == name for name in ("win", "loss"))
        found["win less loss"] = statistics.paired_difference([won], [lost])
        both = group[group["outcome"] != "unparseable"]
        if len(both):
            found["orders agree"] = statistics.interval(both["outcome"] != "inconsistent")
        # A is the response shown first, whichever arm's it is
        votes = group[["first", "second"]].replace({"A": 1.0, "B": 0.0, "TIE": None}).astype(float).mean(axis=1)
        if votes.notna().any():
            found["shown first preferred"] = statistics.interval(votes.dropna())
        rows += [{"arm": arm, "against": against, "measure": m, **vars(e)} for m, e in found.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def wide(params: Params) -> pd.DataFrame:
    """:func:`table` as a reader wants it: a row a pair of arms, percent with intervals."""
    found = table(params)
    cells = [f"{100 * r.value:.0f} [{100 * r.low:.0f}, {100 * r.high:.0f}]" for r in found.itertuples()]
    found = found.assign(cell=cells, pair=found["arm"] + " over " + found["against"])
    order = list(dict.fromkeys(found["pair"])), list(dict.fromkeys(found["measure"]))
    return found.pivot(index="pair", columns="measure", values="cell").reindex(index=order[0], columns=order[1])


def best(params: Params) -> pd.DataFrame:
    """Figure 3d's arms: on which share of problems each wins over all the others. ``value``, ``low``, ``high``, ``n``.

    What is left of the whole are problems without a winner. Empty unless the study has all three.
    """
    import pandas as pd

    frame = _frame(params)
    if frame.empty or not set(PAPER_ARMS) <= set(params.arms):
        return pd.DataFrame(columns=["value", "low", "high", "n"])
    winners = {
        problem: _winner(group.itertuples()) for problem, group in frame.groupby(["benchmark", "problem"], sort=True)
    }
    won = np.array(list(winners.values()), dtype=object)
    return pd.DataFrame({arm: vars(statistics.interval(won == arm)) for arm in PAPER_ARMS}).T.astype({"n": int})


def _winner(rows) -> str | None:
    wins = dict.fromkeys(PAPER_ARMS, 0)
    for row in rows:
        if row.arm in wins and row.against in wins and row.outcome in ("win", "loss"):
            wins[row.arm if row.outcome == "win" else row.against] += 1
    return next((arm for arm, count in wins.items() if count == len(PAPER_ARMS) - 1), None)


def finding(params: Params) -> str:
    """What the judge preferred, in a sentence that names the judge."""
    found = table(params)
    if found.empty:
        return "This study asks no judge which response it prefers."
    rows = found[found["measure"] == "win less loss"]
    clear = rows[(rows["low"] > 0) | (rows["high"] < 0)]
    parts = [
        f"{r.arm if r.value > 0 else r.against} over {r.against if r.value > 0 else r.arm} "
        f"({100 * abs(r.value):.0f} points more wins than losses)"
        for r in clear.itertuples()
    ]
    text = f"Judge: {name_of(params)}; {int(rows['n'].iloc[0])} problems. "
    return text + ("Preferred beyond chance: " + "; ".join(parts) + "." if parts else "No preference beyond chance.")
