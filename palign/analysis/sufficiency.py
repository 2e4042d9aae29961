"""Is the judge monotone, and does it know what is enough? What no published figure says (PAPER.md, section 2).

A binary search finds the shortest ENOUGH prefix only if, once a prefix is enough, every longer one is. Here all
prefixes of some traces are judged, and the student continues a few prefixes of each: the share of continuations that
reach the gold answer is the prefix's empirical sufficiency. The unit of every interval is the trace.

>>> turns([False, True, False, True])      # ENOUGH, then NOT_ENOUGH again: once
1
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .. import traces, truncation
from ..tasks import plan
from ..alignment import sampling_of, user_turn
from ..engines.base import FAILED, generate, seed_of
from ..engines.opening import open_engine
from ..grading import grade
from ..judging import Judge
from ..params import Params
from ..prompts import render
from .statistics import Estimate, interval
from ..truncation import SEARCHES, every, lockstep, search

if TYPE_CHECKING:
    import pandas as pd

BINS = 10
RESAMPLES = 1000


def turns(enough: Sequence[bool]) -> int:
    """How often an ENOUGH is followed by a NOT_ENOUGH one sentence on; ``enough[p - 1]`` is the verdict on p sentences.

    0 exactly for a monotone judge.
    """
    return sum(a and not b for a, b in pairwise(enough))


def violating_pairs(enough: Sequence[bool]) -> float:
    """Of all pairs of a shorter and a longer prefix, the share that is ENOUGH and then NOT_ENOUGH: a fraction.

    0 exactly for a monotone judge; 0 where there is no pair.
    """
    seen = found = 0
    for label in enough:
        found += 0 if label else seen
        seen += label
    pairs = math.comb(len(enough), 2)
    return found / pairs if pairs else 0.0


def landings(enough: Sequence[bool]) -> dict[str, int]:
    """Where each search ends on these verdicts, in sentences: search name -> prefix length."""
    return {name: search(start(len(enough)), lambda p: enough[p - 1]).sentences for name, start in SEARCHES.items()}


def cuts(m: int, k: int) -> list[int]:
    """At most ``k`` prefix lengths of a trace of ``m`` sentences, evenly spread, without the whole trace.

    >>> cuts(70, 6)
    [10, 20, 30, 40, 50, 60]
    """
    return sorted({p for p in (round(m * i / (k + 1)) for i in range(1, k + 1)) if 1 <= p < m})


def confidence(margin: np.ndarray | float) -> np.ndarray:
    """The judge's probability of ENOUGH, of the two labels: the logistic function of the margin (nats)."""
    return 1 / (1 + np.exp(-np.clip(np.asarray(margin, dtype=float), -500, 500)))


def calibration_error(stated: Sequence[float], success: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error: the mean over equal-width bins of |mean confidence - mean success|, by count.

    ``stated`` and ``success``: fractions of shape (cases,). 0 where every bin's success is what was stated.
    """
    stated, success = np.asarray(stated, dtype=float), np.asarray(success, dtype=float)
    index = _bin(stated, bins)
    gaps = [abs((stated[index == i] - success[index == i]).sum()) for i in np.unique(index)]
    return float(sum(gaps) / stated.size)


def _bin(stated: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((stated * bins).astype(int), bins - 1)


def over_traces(
    groups: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float], level: float = 0.95, seed: int = 0
) -> Estimate:
    """A statistic of the rows of all traces, with a percentile interval over traces, resampled whole.

    ``groups``: one array a trace, of shape (rows, columns); ``statistic`` takes the rows put together. A resample in
    which it is not defined (``nan``) does not count. The interval contains the value; where all traces agree it has no
    bounds (``nan``), since resampling them would claim certainty.
    """
    rng, value = np.random.default_rng(seed), float(statistic(np.concatenate(groups)))
    draws = [
        statistic(np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    if np.isnan(value) or np.isnan(draws).all():
        return Estimate(math.nan, math.nan, math.nan, len(groups))
    if np.nanmax(draws) == np.nanmin(draws):
        return Estimate(value, math.nan, math.nan, len(groups))
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(min(low, value)), float(max(high, value)), len(groups))


@plan.held(plan.sufficiency)
def measure(params: Params) -> list[dict]:
    """Judge every prefix of a sample of the traces, continue some, and grade: one record a continued prefix.

    Three files: ``judged`` (a prefix record a trace, with all verdicts), ``continuations`` (one a sample) and ``cuts``
    (one a continued prefix: ``of`` the trace, ``sentences``, ``label``, ``margin``, ``right`` of ``samples``). Resumes
    after a kill; nothing where ``judged_traces`` is 0. Raises ``JudgeFailed`` when too few traces could be judged.
    """
    task = plan.sufficiency(params)
    if task is None or task.folder.done:
        return task.folder.read("cuts") if task else []
    collected = traces.load(params)
    rng = random.Random(seed_of(params.seed, "sufficiency"))
    sample = sorted(rng.sample(range(len(collected)), min(params.judged_traces, len(collected))))
    sample = [collected[i] for i in sample]
    engine = open_engine(params)
    judge = Judge(engine, params)

    def count(text: str) -> int:
        return len(engine.tokenizer(text, add_special_tokens=False).input_ids)

    def work(batch: list[traces.Trace]) -> list[dict]:
        return [asdict(prefix) for prefix in lockstep(batch, every, judge.open, count, judge.rule)]

    judged = truncation.judged(task.folder, "judged", sample, work, params.batch_size, "judging all prefixes")
    good = {record["id"]: record for record in judged if record["status"] == "ok"}
    texts = {trace.id: judge.rule.split(trace.trace) for trace in sample}
    asked = [
        (record, p, i)
        for record in good.values()
        for p in cuts(record["of"], params.judged_cuts)
        for i in range(params.judged_samples)
        if p <= record["room"]
    ]

    def key(item: tuple[dict, int, int]) -> str:
        return f"{item[0]['id']}/{item[1]}/{item[2]}"

    def go_on(batch: list[tuple[dict, int, int]]) -> list[dict]:
        prompts = [
            render(
                engine.tokenizer,
                user_turn(params, record["question"], judge.rule.join(texts[record["id"]][:p])),
                params.chat_template_kwargs,
            )
            for record, p, _ in batch
        ]
        seeds = [seed_of(params.seed, "sufficiency", key(item)) for item in batch]
        completions = generate(engine, prompts, sampling_of(params), seeds)
        return [
            {"id": key(item), "of": item[0]["id"], "sentences": item[1], "text": completion.text}
            | {"finish": completion.finish}
            | {"prompt_tokens": completion.prompt_tokens, "new_tokens": completion.new_tokens}
            for item, completion in zip(batch, completions, strict=True)
        ]

    continued = task.folder.fill("continuations", asked, key, go_on, params.batch_size, "continuing prefixes")
    found: dict[tuple[str, int], list[bool]] = {}
    for record in continued:
        if record.get("finish") in FAILED:  # a service that was down says nothing of the prefix
            continue
        right = grade(record["text"], good[record["of"]]["answer"]).right
        found.setdefault((record["of"], record["sentences"]), []).append(right)
    records = []
    for (name, p), right in found.items():
        _, label, margin = good[name]["verdicts"][p - 1]
        cut = {"id": f"{name}/{p}", "of": name, "sentences": p, "share": p / good[name]["of"], "label": label}
        records.append(cut | {"margin": margin, "right": sum(right), "samples": len(right)})
    task.folder.write("cuts", records)
    task.finish(
        engine=engine.settings,
        traces=len(judged),
        failed=len(judged) - len(good),
        cuts=len(records),
        samples_lost=sum(record.get("finish") in FAILED for record in continued),
        tokens_read=sum(r["tokens_read"] + r["tokens_demanded"] for r in judged)
        + sum(r["prompt_tokens"] for r in continued),
        tokens_generated=sum(r["tokens_generated"] for r in judged) + sum(r["new_tokens"] for r in continued),
    )
    return records


def _pandas():
    import pandas as pd

    return pd


def per_trace(params: Params) -> pd.DataFrame:
    """One row a judged trace: ``of`` sentences, ``turns``, ``violating_pairs``, where each search lands, ``oracle``.

    ``right``: the share of its prefixes on which judge and oracle agree. Empty where the judge is not studied.
    """
    pd, rows = _pandas(), []
    for record in _judged(params):
        enough = [label == "ENOUGH" for _, label, _ in record["verdicts"]]
        row = {"id": record["id"], "of": len(enough), "turns": turns(enough), "pairs": violating_pairs(enough)}
        oracle = record["oracle_sentences"]
        known = oracle is not None
        agree = np.mean([e == (p >= oracle) for p, e in enumerate(enough, start=1)]) if known else None
        rows.append(row | landings(enough) | {"oracle": oracle, "right": agree})
    return pd.DataFrame(rows)


def per_prefix(params: Params) -> pd.DataFrame:
    """One row a judged prefix: ``id`` of the trace, ``sentences``, ``share``, ``enough``, ``margin``, ``truly``."""
    pd = _pandas()
    return pd.DataFrame(
        [
            {"id": r["id"], "sentences": p, "share": p / len(r["verdicts"]), "enough": label == "ENOUGH"}
            | {"margin": margin, "truly": None if r["oracle_sentences"] is None else p >= r["oracle_sentences"]}
            for r in _judged(params)
            for p, label, margin in r["verdicts"]
        ]
    )


def per_cut(params: Params) -> pd.DataFrame:
    """One row a continued prefix: as stored, with ``enough``, the ``success`` rate and the judge's ``confidence``."""
    pd, task = _pandas(), plan.sufficiency(params)
    table = pd.DataFrame(task.require().read("cuts") if task else [])
    if not table.empty:
        table["enough"] = table["label"] == "ENOUGH"
        table["success"] = table["right"] / table["samples"]
        table["confidence"] = confidence(table["margin"].astype(float))  # nan where verdicts are decoded
    return table


def _judged(params: Params) -> list[dict]:
    task = plan.sufficiency(params)
    records = task.require().read("judged") if task else []
    return [record for record in records if record["status"] == "ok"]


def summary(params: Params) -> pd.DataFrame:
    """Is the judge monotone, and is it right? One row a question: ``value``, ``low``, ``high`` (95 %), ``n`` traces."""
    pd, table = _pandas(), per_trace(params)
    if table.empty:
        return pd.DataFrame(columns=["value", "low", "high", "n"])
    prefixes, continued = per_prefix(params), per_cut(params)
    lengths = table["of"]
    rows = {
        "traces with any turn back": interval(table["turns"] > 0),
        "steps that turn back (share)": interval(table["turns"] / (lengths - 1).clip(lower=1)),
        "pairs of prefixes that violate (share)": interval(table["pairs"]),
    }
    for name in ("released", "equation7"):
        gap = (table[name] - table["linear"]).abs()
        rows[f"{name} does not land on the first ENOUGH"] = interval(gap > 0)
        rows[f"{name} from the first ENOUGH (share of the trace)"] = interval(gap / lengths)
        rows[f"{name} from the first ENOUGH (sentences)"] = over_traces(_columns(gap), np.mean)
    if table["oracle"].notna().all():
        rows["prefixes on which judge and oracle agree"] = interval(table["right"].astype(float))
        for name in SEARCHES:
            rows[f"{name} lands on the oracle"] = interval(table[name] == table["oracle"])
            rows[f"{name} lands before the oracle"] = interval(table[name] < table["oracle"])
        if prefixes["margin"].notna().all():
            rows["AUC of the margin, oracle"] = over_traces(_by_trace(prefixes, "id", "margin", "truly"), _auc)
    if not continued.empty:
        agree = continued["enough"] == (continued["success"] > 0.5)
        rows["judge agrees with success likelier than not"] = interval(agree.groupby(continued["of"]).mean())
        for label, group in continued.groupby("label"):
            rows[f"success rate from {label}"] = interval(group.groupby("of")["success"].mean())
        if continued["margin"].notna().all():
            cases = continued.loc[continued.index.repeat(continued["samples"])]
            number = cases.groupby(["of", "sentences"]).cumcount()
            cases = cases.assign(hit=number < cases["right"])
            rows["AUC of the margin, success of a continuation"] = over_traces(
                _by_trace(cases, "of", "margin", "hit"), _auc
            )
            rows["expected calibration error"] = over_traces(
                _by_trace(continued, "of", "confidence", "success"), lambda rows: calibration_error(*rows.T)
            )
    return pd.DataFrame({name: vars(estimate) for name, estimate in rows.items()}).T.astype({"n": int})


def reliability(params: Params, bins: int = BINS) -> pd.DataFrame:
    """The judge's confidence against empirical success: a row a bin of equal width that holds any prefix.

    ``confidence``: its mean. ``value``, ``low``, ``high``: the mean over traces of the success rate from the bin's
    prefixes, 95 %. ``prefixes`` and ``n`` (traces): how many there are.
    """
    pd, table = _pandas(), per_cut(params)
    if table.empty or table["margin"].isna().any():
        return pd.DataFrame()
    groups = table.groupby(_bin(table["confidence"].to_numpy(), bins))
    return pd.DataFrame(
        [
            {"from": i / bins, "confidence": group["confidence"].mean(), "prefixes": len(group)}
            | vars(interval(group.groupby("of")["success"].mean()))
            for i, group in groups
        ]
    )


def by_share(params: Params, bins: int = BINS) -> pd.DataFrame:
    """What the judge says and how the student fares, by the share of a trace's sentences in the prefix.

    One row a ``what`` (judged ENOUGH; continuations that are right; enough by the oracle) and bin (``share``: its
    middle): the mean over traces with its 95 % interval, ``n`` traces.
    """
    pd = _pandas()
    prefixes, continued = per_prefix(params), per_cut(params)
    if prefixes.empty:
        return pd.DataFrame()
    prefixes = prefixes.rename(columns={"id": "of"})
    series = {"judged ENOUGH": (prefixes, "enough"), "continuations right": (continued, "success")}
    if prefixes["truly"].notna().all():
        series["enough by the oracle"] = (prefixes, "truly")
    rows = []
    for what, (table, column) in series.items():
        if table.empty:
            continue
        where = _bin(table["share"].to_numpy(), bins)
        for i, group in table.groupby(where):
            estimate = interval(group[column].astype(float).groupby(group["of"]).mean())
            rows.append({"what": what, "share": (i + 0.5) / bins, **vars(estimate)})
    return pd.DataFrame(rows)


def _columns(values) -> list[np.ndarray]:
    """One row a trace."""
    return list(np.asarray(values, dtype=float)[:, None, None])


def _by_trace(table: pd.DataFrame, trace: str, *columns: str) -> list[np.ndarray]:
    return [group[list(columns)].to_numpy(dtype=float) for _, group in table.groupby(trace, sort=False)]


def _auc(rows: np.ndarray) -> float:
    """``statistics.rank_auc`` of (score, label) rows, by sorting alone: a bootstrap asks for it a thousand times."""
    true, false = rows[rows[:, 1] > 0, 0], np.sort(rows[rows[:, 1] <= 0, 0])
    if not true.size or not false.size:
        return math.nan
    below = np.searchsorted(false, true, "left") + np.searchsorted(false, true, "right")
    return float(below.mean() / (2 * false.size))
