"""Is the judge monotone, and is it right? The paper does not measure it.

A binary search finds the shortest ENOUGH prefix only if every longer prefix is ENOUGH as well. Here all prefixes of
some traces are judged, and the student continues a few prefixes of each: the share of continuations that reach the gold
answer is the prefix's empirical sufficiency. The unit of every interval is the trace.

>>> turns([False, True, False, True])      # ENOUGH, then NOT_ENOUGH again: once
1
>>> records = measure(params)
>>> summary(Plan(params).sufficiency.read("judged"), records)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .. import traces, truncation
from ..continuation import sampling_of, user_turn
from ..engines.base import FAILED, seed_of, stream
from ..engines.opening import open_engine
from ..grading import grade, grade_all
from ..judging import Judge
from ..params import Alignment, Machine, Params
from ..tasks.plan import Plan, held
from ..truncation import SEARCHES, every, search
from .statistics import interval, mean_over_traces, over_traces, rank_auc, table_of

if TYPE_CHECKING:
    import pandas as pd

BINS = 10


def turns(enough: Sequence[bool]) -> int:
    """How often the next longer prefix of an ENOUGH one is NOT_ENOUGH; ``enough[p - 1]`` is the verdict on p sentences.

    0 exactly if the judge is monotone.
    """
    return sum(a and not b for a, b in pairwise(enough))


def violating_pairs(enough: Sequence[bool]) -> float:
    """The share of pairs of a shorter and a longer prefix where the shorter is ENOUGH and the longer NOT_ENOUGH.

    A fraction: 0 exactly if the judge is monotone, or if there is no pair.
    """
    seen = found = 0
    for label in enough:
        found += 0 if label else seen
        seen += label
    pairs = math.comb(len(enough), 2)
    return found / pairs if pairs else 0.0


def landings(enough: Sequence[bool]) -> dict[str, int]:
    """Where each search ends with these verdicts: search name -> prefix length in sentences."""
    return {name: search(start(len(enough)), lambda p: enough[p - 1]).sentences for name, start in SEARCHES.items()}


def evenly_spread(m: int, k: int) -> list[int]:
    """At most ``k`` prefix lengths of a trace of ``m`` sentences, evenly spread; the whole trace is not among them.

    With ``k`` 0 all lengths, from the empty prefix to the whole trace.

    >>> evenly_spread(70, 6)
    [10, 20, 30, 40, 50, 60]
    """
    if not k:
        return list(range(m + 1))
    return sorted({p for p in (round(m * i / (k + 1)) for i in range(1, k + 1)) if 1 <= p < m})


def confidence(margin: ArrayLike) -> np.ndarray:
    """The judge's probability of ENOUGH, of the two labels: the logistic function of the margin (nats)."""
    from scipy.special import expit

    return expit(np.asarray(margin, dtype=float))


def calibration_error(stated: Sequence[float], success: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error: the mean over equal-width bins of |mean confidence - mean success|, by count.

    ``stated`` (the confidence) and ``success``: fractions of shape (cases,). 0 where the two have the same mean in
    every bin.
    """
    stated, success = np.asarray(stated, dtype=float), np.asarray(success, dtype=float)
    index = _bin(stated, bins)
    gaps = [abs((stated[index == i] - success[index == i]).sum()) for i in np.unique(index)]
    return float(sum(gaps) / stated.size)


def _bin(fractions: np.ndarray, bins: int) -> np.ndarray:
    """The number of the bin of equal width that holds each fraction; 1 is in the last one."""
    return np.minimum((fractions * bins).astype(int), bins - 1)


@held("sufficiency")
def measure(params: Params) -> list[dict]:
    """Judge every prefix of a sample of the traces, continue some, and grade: one record per continued prefix.

    Three files: ``judged`` (one prefix record per trace, with all verdicts), ``continuations`` (one per attempt) and
    ``cuts`` (one per continued prefix: ``of`` the trace, ``sentences``, ``label``, ``margin``, ``right`` of
    ``samples``); ``sample`` is the trace's number in the sample. The empty prefix has no label: it is answered under
    the answer prompt, and not judged. Resumes after a kill. Empty where ``judged_traces`` is 0. Raises ``JudgeFailed``
    when too few traces could be judged.
    """
    task = Plan(params).sufficiency
    if task is None or task.folder.done:
        return task.read("cuts") if task else []
    sample = traces.sample(traces.load(params), params.judged_traces, seed_of(params.seed, "sufficiency"))
    engine, rule = open_engine(params.model("student"), params.part(Machine)), traces.RULES[params.sentence_rule]
    judge = Judge(engine, params.judge_prompt, rule, params.verdict, params.verdict_max_new_tokens)

    numbers = {trace.id: number for number, trace in enumerate(sample)}

    def work(batch: Sequence[traces.Trace]) -> Iterator[dict]:
        for prefix in truncation.searched(batch, every, judge, engine.count, params.batch_size):
            yield asdict(prefix) | {"sample": numbers[prefix.id]}

    judged = truncation.judged(task.folder, "judged", sample, work, "judging all prefixes")
    good = {record["id"]: record for record in judged if record["status"] == "ok"}
    texts = {trace.id: rule.split(trace.trace) for trace in sample}
    asked = [
        (record, p, i)
        for record in good.values()
        for p in evenly_spread(record["of"], params.judged_cuts)
        for i in range(params.judged_samples)
        if p <= record["room"]
    ]
    sampling = sampling_of(params.part(Alignment))

    def key(item: tuple[dict, int, int]) -> str:
        return f"{item[0]['id']}/{item[1]}/{item[2]}"

    def prompt(record: dict, p: int) -> str:
        prefix = rule.join(texts[record["id"]][:p])
        return engine.prompt(user_turn(params.continue_prompt, params.answer_prompt, record["question"], prefix))

    def go_on(batch: list[tuple[dict, int, int]]) -> Iterator[dict]:
        seeds = [seed_of(params.seed, "sufficiency", key(item)) for item in batch]
        prompts = [prompt(record, p) for record, p, _ in batch]
        for i, completion in stream(engine, prompts, sampling, seeds):
            record, p, _ = batch[i]
            yield (
                {"id": key(batch[i]), "of": record["id"], "sample": record["sample"], "sentences": p}
                | {"text": completion.text, **completion.facts}
            )

    continued = task.folder.fill("continuations", asked, key, go_on, "continuing prefixes")
    records = _cuts(good, continued)
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


def _cuts(good: dict[str, dict], continued: list[dict]) -> list[dict]:
    """Grade the continuations and count the right ones of each prefix. ``good``: prefix records by trace."""
    found: dict[tuple[str, int], list[bool]] = {}
    for record in continued:
        if record.get("finish") in FAILED:  # a request that failed says nothing about the prefix
            continue
        right = grade(record["text"], good[record["of"]]["answer"]).right
        found.setdefault((record["of"], record["sentences"]), []).append(right)
    records = []
    for (name, p), right in found.items():
        _, label, margin = good[name]["verdicts"][p - 1] if p else (0, None, None)
        cut = {"id": f"{name}/{p}", "of": name, "sample": good[name]["sample"], "sentences": p, "label": label}
        cut |= {"share": p / good[name]["of"]}
        records.append(cut | {"margin": margin, "right": sum(right), "samples": len(right)})
    return records


def as_rollouts(judged: list[dict], cuts: list[dict], collected: Sequence[traces.Trace], model: str) -> pd.DataFrame:
    """The continuations as a table of rollouts, which ``palign.analysis.rollouts.load`` reads: one row per prefix.

    ``model``: the student's name. A prefix that was not continued has 0 ``rollouts`` and no ``success``. A trace is
    ``right`` if the answer that it boxes is the gold one.
    """
    import pandas as pd

    by_id = {trace.id: trace for trace in collected}
    texts = [by_id[record["id"]] for record in _ok(judged)]
    right = [one.right for one in grade_all([t.trace for t in texts], [t.answer for t in texts])]
    found = {(cut["of"], cut["sentences"]): cut for cut in cuts}
    rows = []
    for record, good in zip(_ok(judged), right, strict=True):
        for p in range(record["of"] + 1):
            cut = found.get((record["id"], p), {"right": 0, "samples": 0})
            row = {"trace": record["id"], "model": model, "right": good, "sentences": p, "rollouts": cut["samples"]}
            rows.append(row | {"success": cut["right"] / cut["samples"] if cut["samples"] else None})
    return pd.DataFrame(rows, columns=["trace", "model", "right", "sentences", "rollouts", "success"])


def per_trace(judged: list[dict]) -> pd.DataFrame:
    """One row per judged trace: ``of`` sentences, ``turns``, violating ``pairs``, where each search lands, ``oracle``.

    ``judged``: the stored records; those without a prefix do not count. ``right``: the share of a trace's prefixes on
    which judge and oracle agree. Empty where there are no records.
    """
    import pandas as pd

    rows = []
    for record in _ok(judged):
        enough = [label == "ENOUGH" for _, label, _ in record["verdicts"]]
        row = {"id": record["id"], "of": len(enough), "turns": turns(enough), "pairs": violating_pairs(enough)}
        oracle = record["oracle_sentences"]
        known = oracle is not None
        agree = np.mean([e == (p >= oracle) for p, e in enumerate(enough, start=1)]) if known else None
        rows.append(row | landings(enough) | {"oracle": oracle, "right": agree})
    return pd.DataFrame(rows)


def per_prefix(judged: list[dict]) -> pd.DataFrame:
    """One row per judged prefix: ``id`` of the trace, ``sentences``, ``share``, ``enough``, ``margin``, ``truly``."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"id": r["id"], "sentences": p, "share": p / len(r["verdicts"]), "enough": label == "ENOUGH"}
            | {"margin": margin, "truly": None if r["oracle_sentences"] is None else p >= r["oracle_sentences"]}
            for r in _ok(judged)
            for p, label, margin in r["verdicts"]
        ]
    )


def per_cut(cuts: list[dict]) -> pd.DataFrame:
    """One row per continued prefix that was judged: as stored, with ``enough``, the ``success`` rate and the judge's
    ``confidence``.
    """
    import pandas as pd

    table = pd.DataFrame([cut for cut in cuts if cut["sentences"]])
    if not table.empty:
        table["enough"] = table["label"] == "ENOUGH"
        table["success"] = table["right"] / table["samples"]
        table["confidence"] = confidence(table["margin"])  # nan where verdicts are decoded
    return table


def _ok(judged: list[dict]) -> list[dict]:
    return [record for record in judged if record["status"] == "ok"]


def summary(judged: list[dict], cuts: list[dict]) -> pd.DataFrame:
    """Is the judge monotone, and right? One row per question: ``value``, ``low``, ``high`` (95 %), ``n`` traces."""
    table = per_trace(judged)
    if table.empty:
        return table_of({})
    prefixes, continued = per_prefix(judged), per_cut(cuts)
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
        rows[f"{name} from the first ENOUGH (sentences)"] = mean_over_traces(gap)
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
    return table_of(rows)


def reliability(cuts: list[dict], bins: int = BINS) -> pd.DataFrame:
    """The judge's confidence against empirical success: one row per bin of equal width that holds any prefix.

    ``confidence``: its mean. ``value``, ``low``, ``high``: the mean over traces of the success rate from the bin's
    prefixes, 95 %. ``prefixes`` and ``n`` (traces): how many there are. Empty where verdicts have no margin.
    """
    import pandas as pd

    table = per_cut(cuts)
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


def by_share(judged: list[dict], cuts: list[dict], bins: int = BINS) -> pd.DataFrame:
    """The judge's verdicts and the student's success, by the share of a trace's sentences in the prefix. One row per
    ``what`` (judged ENOUGH; continuations right; enough by the oracle) and bin (``share``: its middle): the mean over
    traces with its 95 % interval, ``n`` traces. Empty where there are no records.
    """
    import pandas as pd

    prefixes, continued = per_prefix(judged), per_cut(cuts)
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


def _by_trace(table: pd.DataFrame, trace: str, *columns: str) -> list[np.ndarray]:
    """The named columns of each trace's rows, as :func:`over_traces` takes them."""
    return [group[list(columns)].to_numpy(dtype=float) for _, group in table.groupby(trace, sort=False)]


def _auc(rows: np.ndarray) -> float:
    """The AUC of (score, label) rows."""
    return rank_auc(*rows.T)
