"""The report's tables: from a finished study's records to numbers with intervals. Nothing here runs a model.

Every function takes the study's :class:`palign.report.results.Results` and returns a table; fractions are in 0..1,
lengths in tokens. ``palign.report.texts`` formats them for a reader, ``palign.report.write`` keeps them.

>>> accuracy(study).query("arm == 'p-align' and metric == 'pass@1'")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..analysis import costs as reading
from ..analysis import entropy, preference, statistics, sufficiency
from ..arms import ARMS
from ..engines.base import NEVER_ANSWERED
from ..engines.tokenizers import load_tokenizer
from ..overlap import SIZES
from ..tasks.plan import CANDIDATES, SELECTED, Task, prefixes_of
from ..traces import RULES
from .results import Results, aligned, answered, as_arrays, problems_of

AVERAGE, POOLED = "average", "pooled"
UNTESTED = "not tested"
# Assumed correlations of two arms' outcomes on a problem: independent arms, and arms that find the same problems hard.
CORRELATIONS = (0.0, 0.5)


def collect(study: Results) -> dict[str, pd.DataFrame]:
    """The tables of a study's report by name, each computed once; empty where the study has no such data."""
    kept = {"accuracy": accuracy(study), "differences": differences(study), "responses": responses(study)}
    kept |= {"power": power(study), "grading": grading(study), "overlap": overlap(study)}
    kept |= {"costs": costs(study), "arms": arms(study), "spent": spent(study), "problems": study.outcomes.counts}
    kept |= {"strategies": strategies(study), "choices": choices(study), "seeds": seeds(study, kept["accuracy"])}
    kept |= {"truncation": truncation(study), "judge": judge(study), "reads": reads(study)}
    kept["monotone"] = sufficiency.summary(study.judged, study.cuts).rename_axis("measure")
    kept["reliability"] = sufficiency.reliability(study.cuts)
    kept["entropy"] = entropy.by_chunk(study.entropies)
    kept["preference"] = preference.table(study.preferences, study.arms)
    return kept


# Accuracy


def accuracy(study: Results) -> pd.DataFrame:
    """One row per arm, benchmark, metric and budget: ``value``, ``low``, ``high`` (95 %, over problems and training
    seeds), of ``n`` problems that were answered in every seed.

    ``missing``: responses that were never answered; ``at_least`` and ``at_most``: the accuracy if all of them were
    wrong, or right. After the benchmarks come their ``average`` (each weighs the same) and, if their sizes differ,
    ``pooled`` (each problem weighs the same).
    """
    sizes = {b.name: b.problems for b in study.params.benchmarks}
    unlike = len(set(sizes.values())) > 1  # with equal sizes the two means are equal
    weights = {AVERAGE: None, **({POOLED: list(sizes.values())} if unlike else {})} if len(sizes) > 1 else {}
    rows = []
    for arm in study.arms:
        missing = study.outcomes.missing.loc[arm, list(sizes)]
        for budget in study.budgets:
            for metric in study.outcomes.metrics:
                groups = as_arrays(study.outcomes.values(arm, metric, budget))
                bounds = study.outcomes.bounds(arm, metric, budget)
                found = {
                    name: (estimated(statistics.average, [group]), missing[name], *bounds[name])
                    for name, group in zip(sizes, groups, strict=True)
                }
                for name, weight in weights.items():
                    weigh = "benchmarks" if weight is None else "problems"
                    ends = np.average([bounds[b] for b in sizes], axis=0, weights=weight)
                    found[name] = (estimated(statistics.average, groups, weigh=weigh), missing.sum(), *ends)
                rows += [
                    {"arm": arm, "benchmark": name, "metric": metric, "budget": budget, **vars(estimate)}
                    | {"missing": int(missed), "at_least": low, "at_most": high}
                    for name, (estimate, missed, low, high) in found.items()
                ]
    return pd.DataFrame(rows)


def estimated(statistic: Callable[..., statistics.Estimate], *arms: list[np.ndarray], **how) -> statistics.Estimate:
    """A statistic of the arms' groups of values; NaN where some benchmark has no problem that was answered."""
    if not all(len(group) for arm in arms for group in arm):
        return statistics.Estimate(np.nan, np.nan, np.nan, min(sum(map(len, arm)) for arm in arms))
    return statistic(*arms, **how)


def main(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main metric, Pass@1, at the main (largest) budget."""
    return table[(table["metric"] == "pass@1") & (table["budget"] == table["budget"].max())]


def single(accuracies: pd.DataFrame) -> str:
    """The ``benchmark`` that summarises an accuracy table: the average, or the only one."""
    return AVERAGE if AVERAGE in set(accuracies["benchmark"]) else accuracies["benchmark"].iloc[0]


def averages(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Each arm's average over benchmarks (or its one benchmark) at the main metric and budget of an accuracy table."""
    rows = main(accuracies)
    return rows[rows["benchmark"] == single(accuracies)].set_index("arm")


def seeds(study: Results, accuracies: pd.DataFrame) -> pd.DataFrame:
    """The spread between training seeds beside that between problems: Pass@1 at the main budget, one row per arm.

    ``value`` with its interval over problems and seeds (``low``, ``high``) is the average over seeds and benchmarks;
    then each seed's own, and their ``min``, ``max`` and standard deviation ``sd``: all fractions. Empty with one seed.
    """
    trained = [arm for arm in study.arms if len(study.plan.seeds(arm)) > 1]
    if not trained:
        return pd.DataFrame()

    def value(arm: str, seed: int) -> float:
        groups = as_arrays(study.outcomes.values(arm, "pass@1", study.budget, seed))
        return estimated(statistics.average, groups).value

    own = pd.DataFrame(
        {f"seed {seed}": {arm: value(arm, seed) for arm in trained} for seed in study.params.training_seeds}
    )
    spread = own.agg(["min", "max", "std"], axis=1).rename(columns={"std": "sd"})
    overall = averages(accuracies)[["value", "low", "high"]]
    return pd.concat([overall.loc[trained], own, spread], axis=1).rename_axis("arm")


def power(study: Results) -> pd.DataFrame:
    """The smallest true difference in Pass@1, in points, that this design finds four times in five."""
    sizes = {b.name: [b.problems] for b in study.params.benchmarks}
    if len(sizes) > 1:
        sizes[AVERAGE] = [b.problems for b in study.params.benchmarks]
    rows = []
    for name, groups in sizes.items():
        found = [round(100 * statistics.minimum_detectable_effect(groups, correlation=r), 1) for r in CORRELATIONS]
        rows.append({"benchmark": name, "problems": sum(groups)} | dict(zip(CORRELATIONS, found, strict=True)))
    table = pd.DataFrame(rows).set_index("benchmark")
    return table.rename(columns={r: f"points, correlation {r:g}" for r in CORRELATIONS})


def differences(study: Results, reference: str | None = None) -> pd.DataFrame:
    """Each arm's average minus the reference arm's (the first without one), paired by problem, per metric and budget.

    ``value``, ``low``, ``high`` (95 %, over problems and training seeds); ``gains`` and ``losses``, the problems on
    which the arm is above and below; the ``test``, its ``p`` and ``p_holm``, corrected for the arms compared.
    ``clear``: the interval excludes zero and the corrected p is below 0.05. An arm of whose responses more than 1 % are
    missing is not tested: its ``test`` is ``not tested``, without a p.
    """
    reference = reference or study.arms[0]
    rows = []
    for budget in study.budgets:
        for metric in study.outcomes.metrics:
            found = []
            for arm in (arm for arm in study.arms if arm != reference):
                at = {"arm": arm, "reference": reference, "metric": metric, "budget": budget}
                found.append(at | compared(*study.outcomes.pair(arm, reference, metric, budget)))
                if {arm, reference} & set(study.outcomes.incomplete):
                    found[-1] |= {"test": UNTESTED, "p": np.nan}
            rows += judged(found)
    columns = ["arm", "reference", "metric", "budget", "value", "low", "high", "n", "gains", "losses", "test", "p"]
    table = pd.DataFrame(rows, columns=[*columns, "p_holm", "clear"])
    return table.astype({"clear": bool})  # typed even if there is no second arm


def compared(a: list[np.ndarray], b: list[np.ndarray]) -> dict:
    """The paired difference a - b with its test, as a table's row."""
    difference = estimated(statistics.paired_difference, a, b)
    if np.isnan(difference.value):
        return {**vars(difference), "gains": 0, "losses": 0, "test": UNTESTED, "p": np.nan}
    test = statistics.paired_test(a, b)
    return {**vars(difference), "gains": test.gains, "losses": test.losses, "test": test.name, "p": test.p}


def judged(rows: list[dict]) -> list[dict]:
    """The rows of differences, with ``p_holm``, corrected for those that have a ``p``, and ``clear``: an interval
    without zero and a corrected p below 0.05.
    """
    p = np.array([row["p"] for row in rows], dtype=float)
    tested = ~np.isnan(p)
    p[tested] = statistics.holm(p[tested])
    return [
        row | {"p_holm": holm, "clear": bool(holm < 0.05 and (row["low"] > 0 or row["high"] < 0))}
        for row, holm in zip(rows, p, strict=True)
    ]


def grading(study: Results) -> pd.DataFrame:
    """Strict and lenient grades beside each other, in responses: how often they differ, and why one is not right.

    All but the first column count answered responses only.
    """
    table = answered(study.grades)
    lenient = table["lenient"] == "right"
    columns = {
        "answered": pd.Series(True, table.index),
        "right (strict: last box)": table["right"],
        "right (lenient: whole text)": lenient,
        "only strict": table["right"] & ~lenient,
        "only lenient": ~table["right"] & lenient,
    }
    columns |= {name: table["outcome"] == name for name in ("no box", "unparseable", "timed out")}
    counts = pd.DataFrame(columns).groupby(table["arm"], sort=False).sum().reindex(study.arms, fill_value=0)
    counts.insert(0, "never answered", study.outcomes.missing.sum(axis=1))
    return counts


def responses(study: Results) -> pd.DataFrame:
    """How the arms' responses behaved: tokens (mean and quantiles), shares of responses, doubts per 1,000 words.

    ``missing`` counts the responses that were never answered; all else is of the answered ones.
    """
    by_arm = answered(study.grades).groupby("arm", sort=False)
    out = pd.DataFrame(
        {
            "missing": study.outcomes.missing.sum(axis=1),
            "tokens_mean": by_arm["new_tokens"].mean(),
            "tokens_p5": by_arm["new_tokens"].quantile(0.05),
            "tokens_p50": by_arm["new_tokens"].quantile(0.5),
            "tokens_p95": by_arm["new_tokens"].quantile(0.95),
            "hit_limit": by_arm["finish"].apply(lambda s: (s == "length").mean()),
            "no_box": by_arm["outcome"].apply(lambda s: (s == "no box").mean()),
            "loop": by_arm["loop"].mean(),
            "prefix_format": by_arm["format"].mean(),
            "prefix_unclosed": by_arm["unclosed"].mean(),
            "doubts_per_1000": 1000 * by_arm["doubts"].sum() / by_arm["words"].sum().clip(lower=1),
        }
    )
    return out.reindex(study.arms)


def tokens(study: Results, arm: str) -> statistics.Estimate:
    """An arm's mean tokens of an answered response, over problems and training seeds; ``n`` problems."""
    values, most = response_tokens(study, arm)
    return _times(most, estimated(statistics.average, as_arrays(values), weigh="problems"))


def tokens_less(study: Results, a: str, b: str) -> statistics.Estimate:
    """How many tokens a response of arm ``a`` has more than one of ``b``, paired by problem; ``n`` problems."""
    (x, most), (y, _) = (response_tokens(study, arm) for arm in (a, b))
    return _times(most, estimated(statistics.paired_difference, *aligned(x, y), weigh="problems"))


def response_tokens(study: Results, arm: str) -> tuple[dict[str, pd.DataFrame], int]:
    """Benchmark -> an arm's mean tokens of an answered response by problem and, in columns, training seed: as shares of
    the study's longest response, which the statistics of accuracies take. And the length of that response.
    """
    grades = study.grades
    grades = grades.assign(new_tokens=grades["new_tokens"].mask(grades["finish"].isin(NEVER_ANSWERED)))
    most = int(grades["new_tokens"].max())
    means = grades[grades["arm"] == arm].groupby(["benchmark", "problem", "seed"])["new_tokens"].mean()
    shares = means.unstack("seed") / most
    return {b.name: shares.loc[b.name] for b in study.params.benchmarks}, most


def _times(factor: float, estimate: statistics.Estimate) -> statistics.Estimate:
    return statistics.Estimate(*(factor * x for x in (estimate.value, estimate.low, estimate.high)), estimate.n)


# Data


def account(study: Results) -> pd.DataFrame:
    """Counts of training rows: kept, left out by reason, standing in a benchmark word for word, and where their gold
    answers were found.
    """
    manifest = study.plan.traces.require().manifest()
    rows = [("rows", "kept", manifest["kept"])]
    rows += [("rows", f"left out: {reason}", count) for reason, count in manifest["excluded"].items()]
    twins = Counter(study.plan.tested.values())
    rows += [("in a benchmark, never trained on", name, count) for name, count in sorted(twins.items())]
    rows += [("answers", kind, count) for kind, count in sorted(manifest["answers"].items())]
    rows += [("text", f"{what} broken", count) for what, count in manifest.get("broken", {}).items() if count]
    if study.params.teacher:
        rows.append(("teacher", "cut at the budget", manifest["traces_cut"]))
    table = pd.DataFrame(rows, columns=["of", "what", "count"])
    return table.assign(share=(table["count"] / manifest["rows"]).round(3)).set_index(["of", "what"])


def lengths(study: Results) -> pd.DataFrame:
    """Sentences, characters and student tokens of every trace."""
    tokenizer, split = load_tokenizer(study.params.model("student")), RULES[study.params.sentence_rule].split
    texts = [trace["trace"] for trace in study.traces]
    return pd.DataFrame(
        {
            "sentences": [len(split(text)) for text in texts],
            "characters": [len(text) for text in texts],
            "tokens": [len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids],
        }
    )


def fits(study: Results, lengths: pd.DataFrame) -> pd.DataFrame:
    """The share of traces that fit whole into a response budget; the lengths decide it, before any training."""
    shares = [(lengths["tokens"] < budget).mean() for budget in study.budgets]
    return pd.DataFrame({"response budget (tokens)": study.budgets, "share of traces that fit": shares}).round(3)


def overlap(study: Results) -> pd.DataFrame:
    """How many training and test questions share words in a row, per benchmark and number of words."""
    pairs, training = pd.DataFrame(study.overlaps), len(study.traces)
    rows = []
    for n in SIZES:
        for benchmark in study.params.benchmarks:
            found = pairs[(pairs["n"] == n) & (pairs["benchmark"] == benchmark.name)] if len(pairs) else pairs
            rows.append(
                {
                    "words in a row": n,
                    "benchmark": benchmark.name,
                    "test questions": benchmark.problems,
                    "of them overlapping": found["test"].nunique() if len(found) else 0,
                    "training questions": training,
                    "of these overlapping": found["training"].nunique() if len(found) else 0,
                    "pairs": len(found),
                }
            )
    return pd.DataFrame(rows)


def overlapping(study: Results, rows: int = 10) -> pd.DataFrame:
    """The pairs of questions that share the longest stretch, ``rows`` of them."""
    pairs = pd.DataFrame(study.overlaps, columns=["n", "training", "benchmark", "test", "shared", "example"])
    return pairs.sort_values(["n", "shared"], ascending=False, kind="stable").head(rows).reset_index(drop=True)


# Prefixes, the judge and the filter


def strategies(study: Results) -> pd.DataFrame:
    """Each strategy's prefixes: how many there are, how long (sentences and tokens), how many verdicts were asked for
    and tokens read to find them, and the share of pairs that the filter kept.

    A scan's look-ahead, verdicts on the same trace that it asked for and did not need, costs tokens and no verdicts.
    The prefixes of a strategy that makes them as it continues are those that its problems end with. Where a strategy
    continues more than once: ``continuations a problem``, and the share of ``problems with a kept pair``; where it
    chooses among pairs: how many are ``chosen`` from which strategy (:func:`choices` has their lengths).
    """
    rows = []
    for strategy in dict.fromkeys((*study.plan.strategies, *study.plan.cuts)):
        row = {"strategy": strategy, "arms": _named(arms_of(study, strategy))}
        if strategy in study.plan.cuts:
            frame = study.prefixes(strategy)
            good = frame[frame["status"] == "ok"]
            row |= {
                "prefixes": len(good),
                "left out": len(frame) - len(good),
                "share of sentences, median": good["sentence_ratio"].median(),
                "prefix tokens, mean": good["prefix_tokens"].mean(),
                "verdicts a trace": frame["calls"].mean(),
                "tokens read a trace": (frame["tokens_read"] + frame["tokens_demanded"]).mean(),
            }
            if frame["calls"].any():
                row["of them without a label"] = frame["unparsed"].sum() / frame["calls"].sum()
            if frame["oracle_sentences"].notna().all():
                row["shorter than the oracle"] = (good["sentences"] < good["oracle_sentences"]).mean()
        if strategy in study.plan.strategies:
            row |= _continued(study, strategy)
        rows.append(row)
    table = pd.DataFrame(rows).set_index("strategy") if rows else pd.DataFrame()
    last = ("continuations a problem", "retention", "problems with a kept pair", "chosen")
    last = [name for name in last if name in table]
    return table[[name for name in table if name not in last] + last]


def arms_of(study: Results, strategy: str) -> list[str]:
    """The study's arms that use a strategy, in any of their rows or to weigh these."""
    return [arm for arm in study.arms if strategy in (ARMS[arm].strategy, *ARMS[arm].continued)]


def _named(arms: list[str]) -> str:
    """Three names and the number of the others: a column of a table has little room."""
    return ", ".join(arms) if len(arms) <= 3 else f"{', '.join(arms[:2])} and {len(arms) - 2} others"


def _continued(study: Results, strategy: str) -> dict[str, float | str]:
    """What a strategy's pairs add to its row of :func:`strategies`."""
    pairs = study.pairs(strategy)
    of, found = problems_of(pairs), {}
    if strategy in SELECTED:
        found["chosen"] = ", ".join(f"{source} {n}" for source, n in pairs["source"].value_counts().items())
    if "sentences" in pairs and strategy not in study.plan.cuts and pairs["sentences"].fillna(0).any():
        split = RULES[study.params.sentence_rule].split
        lengths = {trace["id"]: len(split(trace["trace"])) for trace in study.traces}
        found["share of sentences, median"] = (pairs["sentences"] / of.map(lengths)).median()
    if "tries" in pairs:
        found["continuations a problem"] = pairs.groupby(of)["tries"].first().mean()
        found["problems with a kept pair"] = answered(pairs)["kept"].groupby(of).any().mean()
    return found | {"retention": answered(pairs)["kept"].mean()}


def choices(study: Results) -> pd.DataFrame:
    """What each selection chose from and what it chose, by source: how many responses, and their mean ``tokens``.

    One row per ``strategy`` and ``source``. Both scores depend on a response's length and on who wrote it, so a gain of
    a selection may be one of either. Empty without a selection.
    """
    rows = []
    for strategy in (name for name in study.plan.strategies if name in SELECTED):
        manifest = study.plan.alignment(strategy).folder.manifest()
        for source, offered in manifest["offered"].items():
            chosen = manifest["chosen"].get(source, {"count": 0, "mean_tokens": None})
            row = {"strategy": strategy, "source": source}
            row |= {"offered": offered["count"], "offered tokens": offered["mean_tokens"]}
            rows.append(row | {"chosen": chosen["count"], "chosen tokens": chosen["mean_tokens"]})
    return pd.DataFrame(rows)


def truncation(study: Results) -> pd.DataFrame:
    """What truncation and the filter did (Tables 4, 5, 7): counts, medians, shares.

    Shares of pairs and tokens of continuations are of those that were answered; there are none where no arm continues
    each prefix once. A verdict without a label counts as NOT_ENOUGH.
    """
    if not study.plan.is_adaptive:
        return pd.DataFrame()
    frame, pairs = study.prefixes(), study.pairs()
    good = frame[frame["status"] == "ok"]
    rows = {
        "traces": len(frame),
        "judge errors": int((frame["status"] != "ok").sum()),
        "judge calls a trace, mean": frame["calls"].mean(),
        "verdicts without a label": int(frame["unparsed"].sum()),
        "trace tokens, mean": frame["trace_tokens"].mean(),
        "prefix tokens, mean": good["prefix_tokens"].mean(),
        "prefix ratio, median": good["ratio"].median(),
        "whole trace, never enough": int((~good["sufficient"]).sum()),
    }
    if len(pairs):
        aligned = answered(pairs)
        rows |= {
            "continuation tokens, mean": aligned["new_tokens"].mean(),
            "never answered": len(pairs) - len(aligned),
            "right, but cut by the budget": int(aligned["cut"].sum()),
            "kept by the filter": int(aligned["kept"].sum()),
            "retention": aligned["kept"].mean(),
        }
    return pd.Series(rows).to_frame("value")


def calls(study: Results) -> dict[str, pd.Series]:
    """Verdicts asked for by trace (its id), of the binary search and of the linear scan, where the study has them."""
    found = {}
    if study.plan.is_adaptive and study.params.search != "linear":
        found["binary search"] = study.prefixes().set_index("id")["calls"]
    if "linear" in study.plan.cuts:
        found["linear scan"] = study.prefixes("linear").set_index("id")["calls"]
    return found


def kept(study: Results) -> statistics.Estimate:
    """The share of the answered adaptive pairs that the filter kept (Table 7)."""
    return statistics.interval(answered(study.pairs())["kept"].astype(float))


def verdicts(study: Results) -> pd.DataFrame:
    """Every verdict of the search beside the oracle: ``distance`` is sentences past the oracle prefix (0 = exactly)."""
    if not study.plan.is_adaptive:
        return pd.DataFrame()
    rows = [
        {"id": row.id, "sentences": p, "of": row.of, "label": label, "margin": margin, "oracle": row.oracle_sentences}
        for row in study.prefixes().itertuples()
        for p, label, margin in row.verdicts
    ]
    table = pd.DataFrame(rows)
    table["distance"] = table["sentences"] - table["oracle"]
    table["enough"] = table["label"] == "ENOUGH"
    return table


def judge(study: Results) -> pd.DataFrame:
    """The judge against the oracle; empty if the data state no oracle."""
    table, frame = verdicts(study), study.prefixes()
    if table.empty or table["oracle"].isna().any():
        return pd.DataFrame()
    valid = table[table["label"] != "error"]
    truly = valid["distance"] >= 0
    good = frame[frame["status"] == "ok"]
    rows = {
        "verdicts": len(table),
        "without a label, read as NOT_ENOUGH": int(frame["unparsed"].sum()),
        "share ENOUGH": valid["enough"].mean(),
        "agrees with the oracle": (valid["enough"] == truly).mean(),
        "ENOUGH where the oracle says so": valid.loc[truly, "enough"].mean(),
        "ENOUGH where it does not": valid.loc[~truly, "enough"].mean(),
        "cut exactly at the oracle": (good["sentences"] == good["oracle_sentences"]).mean(),
        "cut before the oracle": (good["sentences"] < good["oracle_sentences"]).mean(),
    }
    if valid["margin"].notna().all():
        rows["AUC of the margin against the oracle"] = statistics.rank_auc(valid["margin"], truly)
    return pd.Series(rows).to_frame("value")


def success_by_cut(study: Results) -> pd.DataFrame:
    """The student's own success rate from the chosen prefixes, by where they were cut relative to the oracle. This is
    the second notion of sufficiency: a prefix is enough for a student that continues it to the gold answer.
    """
    if study.pairs().empty:
        return pd.DataFrame()
    frame = study.prefixes().set_index("id").rename(columns={"oracle_sentences": "oracle"})
    table = study.pairs().set_index("id").join(frame[["sentences", "oracle"]])
    if table["oracle"].isna().any() or table["success_rate"].isna().any():
        return pd.DataFrame()
    where = pd.cut(table["sentences"] - table["oracle"], [-1000, -1, 0, 1000], labels=["before", "exactly at", "past"])
    groups = table.groupby(where.rename("prefix cut, beside the oracle"), observed=True)
    return pd.DataFrame({"prefixes": groups.size(), "success rate": groups["success_rate"].mean()}).round(3)


def success_by_ratio(study: Results) -> pd.DataFrame:
    """The student's success rate from the chosen prefixes, by the share of the trace's tokens they hold."""
    if study.pairs().empty:
        return pd.DataFrame()
    table = study.pairs()
    ratio = table["id"].map(study.prefixes().set_index("id")["ratio"])
    groups = table.groupby(pd.cut(ratio, [0, 0.2, 0.4, 0.6, 0.8, 1.0]).rename("prefix ratio"), observed=True)
    return pd.DataFrame(
        {"prefixes": groups.size(), "success rate": groups["success_rate"].mean(), "kept": groups["kept"].mean()}
    ).round(3)


def retention(study: Results) -> pd.DataFrame:
    """Per strategy: pairs, the share of the answered ones that the filter kept (Table 7), and counts of the outcomes.

    ``right, but cut``: a right answer stands in it, but its budget cut it; it is left out of training unless
    ``keep_cut_continuations``. The counts add up to the pairs; ``own-k`` has several a problem.
    """
    rows = []
    for strategy in study.plan.strategies:
        table = study.pairs(strategy)
        outcomes = table["outcome"].mask(table["cut"], "right, but cut").value_counts().to_dict()
        kept = answered(table)["kept"].mean()
        rows.append({"strategy": strategy, "pairs": len(table), "retention": kept, **outcomes})
    return pd.DataFrame(rows).set_index("strategy").fillna(0).round(3)


# Costs


def costs(study: Results) -> pd.DataFrame:
    """What each task cost: tokens read, generated and trained on, updates, and seconds of computing.

    Of the training rows, ``rows_left_out`` were dropped because ``max_length`` would have cut their answer, and
    ``rows_cut`` end in no answer and were cut there. ``rows_fallback`` are whole traces, since no continuation was
    right (of the control: as many of other problems); absent where no arm has a fallback. Summed over an arm's training
    seeds, except rows and epochs, which are per seed.
    """
    plan = study.plan
    tasks = [(plan.traces, 0)] if study.params.teacher else []  # otherwise they were only read
    tasks += [(plan.truncation(strategy), 0) for strategy in plan.cuts]
    tasks += [(plan.alignment(strategy), 0) for strategy in plan.strategies]
    tasks += [(task, 0) for task in (plan.entropy, plan.success, plan.sufficiency) if task]
    tasks += [(task, seed) for arm, seed in plan.runs if (task := plan.finetuning(arm, seed))]
    tasks += [(plan.evaluation(arm, seed), seed) for arm, seed in plan.runs]
    tasks += [(plan.preference, 0)] if plan.preference else []  # tokens of the judge, not of the student
    of_rows = ("rows", "rows_left_out", "rows_cut")
    of_rows += ("rows_fallback",) if any(ARMS[arm].fallback for arm in study.arms) else ()
    columns = ("tokens_read", "tokens_generated", "tokens_trained", *of_rows, "updates", "epochs")
    rows = []
    for task, seed in tasks:
        manifest = task.require().manifest()
        seconds = manifest.get("train_seconds", manifest["seconds"])
        name = task.name.removesuffix(f"-seed-{seed}")
        rows.append({"task": name, "seeds": 1, **{c: manifest.get(c) for c in columns}, "seconds": seconds})
    table = pd.DataFrame(rows)
    counts = [c for c in columns if c != "epochs"]
    table = table.astype({c: "Int64" for c in counts}).astype({"epochs": float})
    each = dict.fromkeys((*of_rows, "epochs"), "first")
    total = {c: each.get(c, lambda column: column.sum(min_count=1)) for c in table.columns[1:]}
    table = table.groupby("task", sort=False).agg(total)
    return table if len(study.params.training_seeds) > 1 else table.drop(columns="seeds")


def spent(study: Results) -> pd.DataFrame:
    """Tokens that each arm costs by itself until it is trained, with one training seed (the mean of several).

    ``judged``: read and generated to find its prefixes or to shorten its traces; ``continued``: the same to continue
    them, and to choose among pairs; ``trained``: seen in training; ``total``. Arms that share prefixes each count them
    whole, and one that chooses counts its candidates. The teacher's traces and the evaluation are not included.
    """
    plan, rows = study.plan, []
    of_student = ("tokens_read", "tokens_generated")
    for arm in study.arms:
        spec = ARMS[arm]
        several = [(*(CANDIDATES if strategy in SELECTED else ()), strategy) for strategy in spec.continued]
        strategies = dict.fromkeys(one for found in several for one in found)
        cuts = dict.fromkeys(map(prefixes_of, strategies)) | ({spec.strategy: None} if spec.target == "text" else {})
        judged = sum(_tokens(plan.truncation(cut), *of_student) for cut in cuts if cut)
        continued = sum(_tokens(plan.alignment(strategy), *of_student) for strategy in strategies)
        tasks = [plan.finetuning(arm, seed) for seed in plan.seeds(arm)]
        trained = round(np.mean([_tokens(task, "tokens_trained") if task else 0 for task in tasks]))
        rows.append({"arm": arm, "judged": judged, "continued": continued, "trained": trained})
    table = pd.DataFrame(rows).set_index("arm")
    return table.assign(total=table.sum(axis=1))


def _tokens(task: Task, *names: str) -> int:
    manifest = task.require().manifest()
    return sum(manifest.get(name) or 0 for name in names)


def reads(study: Results) -> pd.DataFrame:
    """How often truncation read each token (``palign.analysis.costs``); empty without adaptive prefixes."""
    if not study.plan.is_adaptive:
        return pd.DataFrame()
    records = study.prefixes().to_dict("records")
    tokenizer = load_tokenizer(study.params.model("student"))
    questions = tokenizer([record["question"] for record in records], add_special_tokens=False).input_ids
    return reading.reads(records, [len(ids) for ids in questions])


# The study as a whole


def arms(study: Results) -> pd.DataFrame:
    """Each arm's definition, and what was chosen where the paper leaves it open."""
    rows = [{"arm": a, "trained on": ARMS[a].description, "left open, chosen here": ARMS[a].chosen} for a in study.arms]
    return pd.DataFrame(rows).set_index("arm")


def headline(study: Results, kept: dict[str, pd.DataFrame]) -> dict[str, float]:
    """The numbers that ``palign verify`` compares with those of the committed report, from the tables of
    :func:`collect`: shares, and counts as whole numbers.
    """
    numbers = {f"pass@1 {r.arm} {r.benchmark}": r.value for r in main(kept["accuracy"]).itertuples()}
    against = main(kept["differences"])
    numbers[f"arms clearly above {study.arms[0]}"] = int((against["clear"] & (against["value"] > 0)).sum())
    numbers["responses never answered"] = int(study.outcomes.missing.to_numpy().sum())
    if len(kept["truncation"]):
        for name in ("retention", "prefix ratio, median"):
            if name in kept["truncation"].index:
                numbers[name] = kept["truncation"].loc[name, "value"]
        if "p-align" in study.arms:
            numbers["prefix format of p-align"] = kept["responses"].loc["p-align", "prefix_format"]
    return {name: value if isinstance(value, int) else round(float(value), 6) for name, value in numbers.items()}
