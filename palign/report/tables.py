"""The report's tables and sentences: from a finished study's records to what a reader sees.

Every function reads finished tasks and returns a table (pandas) or a sentence; ``06_report`` shows them in order and
:func:`write` keeps them under ``reports/<study>/``. Nothing here computes with a model.

>>> accuracy(params).query("arm == 'p-align' and metric == 'pass@1'")
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from .. import evaluation, overlap
from ..analysis import entropy, preference, statistics, sufficiency
from ..tasks import plan
from ..arms import ARMS
from ..analysis.costs import reads
from ..params import GROUPS, Params
from ..problems import asked
from ..tasks.store import visible, write_atomically
from ..tasks.plan import report_path

AVERAGE, POOLED = "average", "pooled"
CORRELATIONS = (0.0, 0.5)  # of two arms' outcomes on one problem: none, and that of arms that find the same ones hard

pd.set_option("display.max_colwidth", None)  # a sentence cut short in a table helps nobody


def runs(params: Params) -> list[tuple[str, int]]:
    """Every arm with every training seed it has."""
    return [(arm, seed) for arm in params.arms for seed in plan.seeds(params, arm)]


def only(params: Params, arm: str, seed: int) -> Params:
    """The same study of one arm and one training seed."""
    return params.model_copy(update={"arms": [arm], "training_seeds": [seed]})


def remembered(table: Callable) -> Callable:
    """Compute a table of the grades once, as long as they stay the same: a report shows most of them in several places.

    Callers must leave what they get as it is.
    """
    kept = {}

    @wraps(table)
    def recall(params: Params, *args):
        folders = [plan.evaluation(params, arm, seed).folder for arm, seed in runs(params)]
        if not all(folder.done for folder in folders):
            return table(params, *args)  # which says what is missing
        stamps = [(folder.path, folder.manifest_path.stat().st_mtime_ns) for folder in folders]
        key = (params.model_dump_json(), args, *stamps)
        if key not in kept:
            kept[key] = table(params, *args)
        return kept[key]

    return recall


def grades(params: Params) -> pd.DataFrame:
    """All grades of all arms and training seeds, one row a response. Raises ``ValueError`` when one is missing."""
    frames = []
    for arm, seed in runs(params):
        frame = pd.DataFrame(evaluation.load_grades(params, arm, seed)).assign(arm=arm, seed=seed)
        counts = frame.groupby("benchmark").size().to_dict()
        expected = {b.name: b.problems * params.n_samples for b in params.benchmarks}
        if counts != expected:
            raise ValueError(f"{arm} seed {seed}: responses {counts}, expected {expected}")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def budgets(params: Params) -> dict[int, str]:
    """Response budget in tokens -> the grade's column under it."""
    found = {params.max_new_tokens: "right"}
    return found if params.second_budget is None else found | {params.second_budget: "right_cut"}


def _per_problem(frame: pd.DataFrame, column: str, metric: str, n: int) -> dict[str, np.ndarray]:
    """Benchmark -> one value a problem, in problem order: the share right, or whether any sample is.

    Computed within each training seed, then averaged over the seeds: samples of two models are no samples of one.
    """
    k = int(metric.split("@")[1])
    counts = frame.groupby(["benchmark", "problem", "seed"])[column].sum()
    return {
        benchmark: statistics.pass_at_k(counts[benchmark].sort_index().to_numpy(), n, k)
        .reshape(-1, frame["seed"].nunique())
        .mean(axis=1)
        for benchmark in frame["benchmark"].unique()
    }


def problems(params: Params) -> pd.DataFrame:
    """How many of a problem's samples are right: a row a problem of every benchmark, named by a hash of what it asks,
    since ids are often places; a column an arm, training seed and budget (tokens). What :mod:`palign.compare` reads.
    """
    tests = pd.DataFrame(plan.benchmarks(params).require().read("problems")).set_index(["benchmark", "id"])
    names = tests["question"].map(asked)
    twin = names.groupby([names.index.get_level_values(0), names]).cumcount()  # a set may ask the same twice
    names = names.where(twin == 0, names + "-" + twin.astype(str))
    frame = grades(params)
    frame["problem"] = names.loc[list(zip(frame["benchmark"], frame["problem"], strict=True))].to_numpy()
    groups = frame.groupby(["benchmark", "problem", "arm", "seed"], sort=False)
    counts = {budget: groups[column].sum().unstack(["arm", "seed"]) for budget, column in budgets(params).items()}
    return pd.concat(counts, axis=1).reorder_levels([1, 2, 0], axis=1).rename_axis(columns=["arm", "seed", "budget"])


def per_problem(params: Params, arm: str, metric: str) -> dict[str, np.ndarray]:
    """Benchmark -> one value a problem of an arm, at the main budget; over its training seeds, their mean."""
    return _only_arm(params.model_copy(update={"arms": [arm]}), metric)


@remembered
def _only_arm(params: Params, metric: str) -> dict[str, np.ndarray]:
    return _per_problem(grades(params), "right", metric, params.n_samples)


def metrics(params: Params) -> list[str]:
    return ["pass@1"] if params.n_samples < 3 else ["pass@1", "pass@3"]


@remembered
def accuracy(params: Params) -> pd.DataFrame:
    """One row per arm, benchmark, metric and budget: ``value``, ``low``, ``high`` (95 %), ``n`` problems.

    Beside the benchmarks stand their ``average`` (each weighs the same) and, where their sizes differ, ``pooled`` (each
    problem weighs the same).
    """
    table, rows = grades(params), []
    for arm in params.arms:
        frame = table[table["arm"] == arm]
        for budget, column in budgets(params).items():
            for metric in metrics(params):
                values = _per_problem(frame, column, metric, params.n_samples)
                estimates = {name: statistics.interval(v) for name, v in values.items()}
                if len(values) > 1:
                    groups = list(values.values())
                    estimates[AVERAGE] = statistics.average(groups)
                    if len({len(group) for group in groups}) > 1:  # otherwise the two are one
                        estimates[POOLED] = statistics.average(groups, weigh="problems")
                rows += [
                    {"arm": arm, "benchmark": name, "metric": metric, "budget": budget, **vars(estimate)}
                    for name, estimate in estimates.items()
                ]
    return pd.DataFrame(rows)


def seeds(params: Params) -> pd.DataFrame:
    """The spread between training seeds beside that between problems: Pass@1 at the main budget, one row an arm.

    ``value`` with its interval over problems (``low``, ``high``) is the average over seeds and benchmarks; then each
    seed's own, and their ``min``, ``max`` and standard deviation ``sd``: all fractions. Empty with one seed.
    """
    if len(params.training_seeds) < 2:
        return pd.DataFrame()
    single = AVERAGE if len(params.benchmarks) > 1 else params.benchmarks[0].name

    def value(chosen: Params) -> pd.DataFrame:
        table = _main(accuracy(chosen), chosen)
        return table[table["benchmark"] == single].set_index("arm")

    trained = [arm for arm in params.arms if len(plan.seeds(params, arm)) > 1]
    if not trained:
        return pd.DataFrame()
    params = params.model_copy(update={"arms": trained})
    own = pd.DataFrame(
        {
            f"seed {seed}": value(params.model_copy(update={"training_seeds": [seed]}))["value"]
            for seed in params.training_seeds
        }
    )
    spread = own.agg(["min", "max", "std"], axis=1).rename(columns={"std": "sd"})
    return pd.concat([value(params)[["value", "low", "high"]], own, spread], axis=1).loc[trained]


def accuracy_wide(params: Params) -> pd.DataFrame:
    """The accuracy table as a reader wants it: one row an arm, percent with intervals, at the main budget."""
    table = accuracy(params)
    table = table[table["budget"] == params.max_new_tokens]
    table = table.assign(
        cell=[f"{100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]" for r in table.itertuples()]
    )
    wide = table.pivot(index="arm", columns=["metric", "benchmark"], values="cell")
    return wide.reindex(index=params.arms, columns=table.set_index(["metric", "benchmark"]).index.unique())


def power(params: Params) -> pd.DataFrame:
    """The smallest true difference in Pass@1, in points, that this design finds four times in five."""
    sizes = {b.name: [b.problems] for b in params.benchmarks}
    if len(sizes) > 1:
        sizes[AVERAGE] = [b.problems for b in params.benchmarks]
    rows = []
    for name, groups in sizes.items():
        found = [round(100 * statistics.minimum_detectable_effect(groups, correlation=r), 1) for r in CORRELATIONS]
        rows.append({"benchmark": name, "problems": sum(groups)} | dict(zip(CORRELATIONS, found, strict=True)))
    table = pd.DataFrame(rows).set_index("benchmark")
    return table.rename(columns={r: f"points, correlation {r:g}" for r in CORRELATIONS})


@remembered
def differences(params: Params, reference: str | None = None) -> pd.DataFrame:
    """Each arm's average less the reference arm's, paired by problem, per metric and budget.

    ``value``, ``low``, ``high`` (95 %); ``gains`` and ``losses``, the problems on which the arm is above and below;
    the ``test``, its ``p`` and ``p_holm``, corrected for the arms compared. ``clear``: the interval excludes zero and
    the corrected p is below 0.05.
    """
    reference = reference or params.arms[0]
    others = [arm for arm in params.arms if arm != reference]
    table, rows = grades(params), []
    for budget, column in budgets(params).items():
        for metric in metrics(params):
            groups = {
                arm: list(_per_problem(table[table["arm"] == arm], column, metric, params.n_samples).values())
                for arm in params.arms
            }
            tests = [statistics.paired_test(groups[arm], groups[reference]) for arm in others]
            corrected = statistics.holm([test.p for test in tests])
            for arm, test, p in zip(others, tests, corrected, strict=True):
                estimate = statistics.paired_difference(groups[arm], groups[reference])
                rows.append(
                    {"arm": arm, "reference": reference, "metric": metric, "budget": budget, **vars(estimate)}
                    | {"gains": test.gains, "losses": test.losses, "test": test.name, "p": test.p, "p_holm": p}
                    | {"clear": bool(p < 0.05 and (estimate.low > 0 or estimate.high < 0))}
                )
    columns = ["arm", "reference", "metric", "budget", "value", "low", "high", "n", "gains", "losses", "test", "p"]
    table = pd.DataFrame(rows, columns=[*columns, "p_holm", "clear"])
    return table.astype({"clear": bool})  # typed also where there is no second arm


def differences_wide(params: Params) -> pd.DataFrame:
    """:func:`differences` as a reader wants it: points with intervals, p to two digits."""
    table = differences(params)
    rows = [
        {
            "arm": row.arm,
            "metric": row.metric,
            "tokens": row.budget,
            f"less {row.reference} (points)": f"{100 * row.value:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
            "gains": row.gains,
            "losses": row.losses,
            "test": row.test,
            "p": _p(row.p),
            "p, Holm": _p(row.p_holm),
            "clear": "yes" if row.clear else "no",
        }
        for row in table.sort_values("metric", kind="stable").itertuples()
    ]
    return pd.DataFrame(rows).set_index(["metric", "tokens", "arm"]) if rows else pd.DataFrame()


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def _main(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The rows of the main metric and budget."""
    return table[(table["metric"] == "pass@1") & (table["budget"] == params.max_new_tokens)]


def main_average(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Of an accuracy table, each arm's average over benchmarks (or its one benchmark) at the main metric and budget."""
    rows = _main(table, params)
    single = AVERAGE if len(params.benchmarks) > 1 else params.benchmarks[0].name
    return rows[rows["benchmark"] == single]


def grading(params: Params) -> pd.DataFrame:
    """Strict and lenient grades beside each other, in responses: how often they differ, and why one is not right."""
    table = grades(params)
    lenient = table["lenient"] == "right"
    columns = {
        "responses": pd.Series(True, table.index),
        "right (strict: last box)": table["right"],
        "right (lenient: whole text)": lenient,
        "only strict": table["right"] & ~lenient,
        "only lenient": ~table["right"] & lenient,
    }
    columns |= {name: table["outcome"] == name for name in ("no box", "unparseable", "timed out")}
    return pd.DataFrame(columns).groupby(table["arm"], sort=False).sum().reindex(params.arms)


@remembered
def responses(params: Params) -> pd.DataFrame:
    """How the arms' responses behaved: tokens (mean and quantiles), shares of responses, doubts per 1,000 words."""
    by_arm = grades(params).groupby("arm", sort=False)
    out = pd.DataFrame(
        {
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
    return out.reindex(params.arms)


def _adaptive(params: Params) -> bool:
    return "adaptive" in plan.strategies(params)


def prefixes(params: Params) -> pd.DataFrame:
    """The adaptive prefixes, one row a trace: ``ratio`` (of the trace's tokens), ``oracle_ratio``, ``calls``."""
    if not _adaptive(params):
        return pd.DataFrame()
    records = plan.truncation(params, "adaptive").require().read("prefixes")
    frame = pd.DataFrame(records)
    frame["ratio"] = frame["prefix_tokens"] / frame["trace_tokens"]
    frame["calls"] = frame["verdicts"].map(len)
    frame["sentence_ratio"] = frame["sentences"] / frame["of"]
    frame["oracle_ratio"] = frame["oracle_sentences"] / frame["of"]
    return frame


def strategies(params: Params) -> pd.DataFrame:
    """Each strategy's prefixes: how many there are, how long (sentences and tokens), what reading they took, and the
    filter's share of kept pairs."""
    rows = []
    for strategy in plan.strategies(params):
        aligned = pairs(params, strategy)
        row = {"strategy": strategy, "arms": ", ".join(a for a in params.arms if ARMS[a].strategy == strategy)}
        if strategy != "empty":
            frame = pd.DataFrame(plan.truncation(params, strategy).require().read("prefixes"))
            good = frame[frame["status"] == "ok"]
            row |= {
                "prefixes": len(good),
                "left out": len(frame) - len(good),
                "share of sentences, median": (good["sentences"] / good["of"]).median(),
                "prefix tokens, mean": good["prefix_tokens"].mean(),
                "tokens read a trace": (frame["tokens_read"] + frame["tokens_demanded"]).mean(),
            }
            if frame["oracle_sentences"].notna().all():
                row["shorter than the oracle"] = (good["sentences"] < good["oracle_sentences"]).mean()
        rows.append(row | {"retention": aligned["kept"].mean()})
    return pd.DataFrame(rows).set_index("strategy") if rows else pd.DataFrame()


def pairs(params: Params, strategy: str = "adaptive") -> pd.DataFrame:
    """A strategy's aligned pairs."""
    return pd.DataFrame(plan.alignment(params, strategy).require().read("pairs"))


def truncation_summary(params: Params) -> pd.Series:
    """What truncation and the filter did (Tables 4, 5, 7): counts, medians, shares."""
    if not _adaptive(params):
        return pd.Series(dtype=float)
    frame, aligned = prefixes(params), pairs(params)
    good = frame[frame["status"] == "ok"]
    kept = aligned[aligned["kept"]]
    return pd.Series(
        {
            "traces": len(frame),
            "judge errors": int((frame["status"] != "ok").sum()),
            "judge calls a trace, mean": frame["calls"].mean(),
            "trace tokens, mean": frame["trace_tokens"].mean(),
            "prefix tokens, mean": good["prefix_tokens"].mean(),
            "prefix ratio, median": good["ratio"].median(),
            "whole trace, never enough": int((~good["sufficient"]).sum()),
            "continuation tokens, mean": aligned["new_tokens"].mean(),
            "kept by the filter": len(kept),
            "retention": len(kept) / len(aligned),
        }
    )


def verdicts(params: Params) -> pd.DataFrame:
    """Every verdict of the search beside the oracle: ``distance`` is sentences past the oracle prefix (0 = exactly)."""
    if not _adaptive(params):
        return pd.DataFrame()
    frame = prefixes(params)
    rows = [
        {"id": row.id, "sentences": p, "of": row.of, "label": label, "margin": margin, "oracle": row.oracle_sentences}
        for row in frame.itertuples()
        for p, label, margin in row.verdicts
    ]
    table = pd.DataFrame(rows)
    table["distance"] = table["sentences"] - table["oracle"]
    table["enough"] = table["label"] == "ENOUGH"
    return table


def judge_summary(params: Params) -> pd.Series:
    """The judge against the oracle; empty where the data know none."""
    if not _adaptive(params):
        return pd.Series(dtype=float)
    table, frame = verdicts(params), prefixes(params)
    if table["oracle"].isna().any():
        return pd.Series(dtype=float)
    valid = table[table["label"] != "error"]
    truly = valid["distance"] >= 0
    good = frame[frame["status"] == "ok"]
    summary = {
        "verdicts": len(table),
        "share ENOUGH": valid["enough"].mean(),
        "agrees with the oracle": (valid["enough"] == truly).mean(),
        "ENOUGH where the oracle says so": valid.loc[truly, "enough"].mean(),
        "ENOUGH where it does not": valid.loc[~truly, "enough"].mean(),
        "cut exactly at the oracle": (good["sentences"] == good["oracle_sentences"]).mean(),
        "cut before the oracle": (good["sentences"] < good["oracle_sentences"]).mean(),
    }
    if valid["margin"].notna().all():
        summary["AUC of the margin against the oracle"] = statistics.rank_auc(valid["margin"], truly)
    return pd.Series(summary)


def success_summary(params: Params) -> pd.DataFrame:
    """The student's own success rate from the chosen prefixes, by where they were cut beside the oracle.

    The second notion of sufficiency: a prefix is enough for a student that goes on from it and arrives.
    """
    if not _adaptive(params):
        return pd.DataFrame()
    frame = prefixes(params).set_index("id").rename(columns={"oracle_sentences": "oracle"})
    table = pairs(params).set_index("id").join(frame[["sentences", "oracle"]])
    if table["oracle"].isna().any() or table["success_rate"].isna().any():
        return pd.DataFrame()
    where = pd.cut(table["sentences"] - table["oracle"], [-1000, -1, 0, 1000], labels=["before", "exactly at", "past"])
    groups = table.groupby(where.rename("prefix cut, beside the oracle"), observed=True)
    return pd.DataFrame({"prefixes": groups.size(), "success rate": groups["success_rate"].mean()}).round(3)


def costs(params: Params) -> pd.DataFrame:
    """What each task cost: tokens read, generated and trained on, updates, and seconds of computing.

    Summed over an arm's training seeds, but for rows and epochs, which are each seed's own.
    """
    tasks = [(plan.traces(params), 0)] if params.teacher else []  # otherwise they were only read
    tasks += [(plan.truncation(params, s), 0) for s in plan.strategies(params) if s != "empty"]
    tasks += [(plan.alignment(params, s), 0) for s in plan.strategies(params)]
    tasks += [(task, 0) for task in (plan.entropy(params), plan.sufficiency(params)) if task]
    tasks += [(t, seed) for arm, seed in runs(params) if (t := plan.finetuning(params, arm, seed))]
    tasks += [(plan.evaluation(params, arm, seed), seed) for arm, seed in runs(params)]
    tasks += [(task, 0) for task in (plan.preference(params),) if task]  # tokens of the judge, not of the student
    columns = ("tokens_read", "tokens_generated", "tokens_trained", "rows", "updates", "epochs")
    rows = []
    for task, seed in tasks:
        manifest = task.require().manifest()
        seconds = manifest.get("train_seconds", manifest["seconds"])
        name = task.name.removesuffix(f"-seed-{seed}")
        rows.append({"task": name, "seeds": 1, **{c: manifest.get(c) for c in columns}, "seconds": seconds})
    table = pd.DataFrame(rows)
    counts = [c for c in columns if c != "epochs"]
    table = table.astype({c: "Int64" for c in counts}).astype({"epochs": float})
    each = {"rows": "first", "epochs": "first"}
    total = {c: each.get(c, lambda column: column.sum(min_count=1)) for c in table.columns[1:]}
    table = table.groupby("task", sort=False).agg(total)
    return table if len(params.training_seeds) > 1 else table.drop(columns="seeds")


def spent(params: Params) -> pd.DataFrame:
    """Tokens that each arm costs by itself until it is trained, with one training seed (the mean of several).

    ``judged``: read and generated to find its prefixes; ``continued``: the same to continue them; ``trained``: seen in
    training; ``total``. Arms that share prefixes each count them whole. The teacher's traces and the evaluation are not
    in it.
    """

    def tokens(task: plan.Task, *names: str) -> int:
        manifest = task.require().manifest()
        return sum(manifest.get(name) or 0 for name in names)

    rows = []
    for arm in params.arms:
        strategy, of_student = ARMS[arm].strategy, ("tokens_read", "tokens_generated")
        judged = tokens(plan.truncation(params, strategy), *of_student) if strategy not in (None, "empty") else 0
        continued = tokens(plan.alignment(params, strategy), *of_student) if strategy else 0
        tasks = [plan.finetuning(params, arm, seed) for seed in plan.seeds(params, arm)]
        trained = round(np.mean([tokens(task, "tokens_trained") if task else 0 for task in tasks]))
        rows.append({"arm": arm, "judged": judged, "continued": continued, "trained": trained})
    table = pd.DataFrame(rows).set_index("arm")
    return table.assign(total=table.sum(axis=1))


def worked_case(params: Params) -> dict:
    """One kept pair whose prefix ratio is the median: trace, verdicts, prefix, continuation."""
    aligned = pairs(params)
    frame = prefixes(params).set_index("id")
    kept = frame.loc[aligned[aligned["kept"]]["id"]]
    order = (kept["ratio"] - kept["ratio"].median()).abs()
    chosen = order.index[np.lexsort((order.index, order.to_numpy()))[0]]
    trace = next(t for t in plan.traces(params).require().read("traces") if t["id"] == chosen)
    pair = aligned.set_index("id").loc[chosen]
    return {**trace, **kept.loc[chosen].to_dict(), "continuation": pair["continuation"]}


def headline(params: Params) -> dict[str, float]:
    """The numbers ``palign verify`` holds against their stated ranges."""
    numbers = {f"pass@1 {r.arm} {r.benchmark}": r.value for r in _main(accuracy(params), params).itertuples()}
    against = _main(differences(params), params)
    numbers[f"arms clearly above {params.arms[0]}"] = float((against["clear"] & (against["value"] > 0)).sum())
    if _adaptive(params):
        summary = truncation_summary(params)
        numbers["retention"] = summary["retention"]
        numbers["prefix ratio, median"] = summary["prefix ratio, median"]
        if "p-align" in params.arms:
            numbers["prefix format of p-align"] = responses(params).loc["p-align", "prefix_format"]
    return {name: round(float(value), 6) for name, value in numbers.items()}


def write(params: Params, figures: dict) -> Path:
    """Keep the tables (csv), the figures (svg, png) and the headline numbers; returns the report's folder."""
    from . import beside, ledger  # they read this module
    from ..analysis.style import save

    tables = {"accuracy": accuracy(params), "differences": differences(params), "responses": responses(params)}
    tables |= {"power": power(params), "grading": grading(params), "overlap": overlap.summary(params)}
    tables |= {"costs": costs(params), "arms": arms_table(params), "spent": spent(params)}
    tables["problems"] = problems(params)
    if plan.strategies(params):
        tables["strategies"] = strategies(params)
    if len(params.training_seeds) > 1:
        tables["seeds"] = seeds(params)
    if _adaptive(params):
        tables["truncation"] = truncation_summary(params).to_frame("value")
        tables["judge"] = judge_summary(params).to_frame("value")
        tables["reads"] = reads(params)
    if plan.sufficiency(params):
        tables["monotone"] = sufficiency.summary(params).rename_axis("measure")
        tables["reliability"] = sufficiency.reliability(params)
    if plan.entropy(params):
        tables["entropy"] = entropy.by_chunk(params)
    if plan.preference(params):
        tables["preference"] = preference.table(params)
    tables["claims"] = ledger.table(params)
    if len(printed := beside.table(params)):
        tables["beside"] = printed
    target = report_path(params).parent
    for name, table in tables.items():
        indexed = table.index.name is not None or not isinstance(table.index, pd.RangeIndex)
        write_atomically(target / "tables" / f"{name}.csv", table.to_csv(index=indexed, float_format="%.6g"))
    for name, figure in figures.items():
        if figure is not None:
            save(figure, target / "figures", name)
    write_atomically(target / "params.yaml", yaml.safe_dump(portable(params), sort_keys=False, allow_unicode=True))
    write_atomically(target / "headline.json", json.dumps(headline(params), indent=1) + "\n")
    plan.report(params).finish()
    return target


def portable(params: Params) -> dict:
    """The parameters that decide the results, as plain values that can be sent around: of data and models outside the
    project the names alone, and neither addresses nor what only concerns speed.
    """
    values = params.values(*itertools.chain(*GROUPS.values()), effect="result")
    for holder, key in [(values, key) for key in plan.INPUTS] + [(b, "data") for b in values["benchmarks"]]:
        if holder[key] and Path(holder[key]).expanduser().is_absolute():
            holder[key] = Path(holder[key]).name
    return values


def finding(params: Params) -> str:
    """What the accuracy table says, in sentences that only claim what an interval and a corrected test support."""
    main, reference = _main(differences(params), params), params.arms[0]
    above = main[main["clear"] & (main["value"] > 0)]["arm"].tolist()
    below = main[main["clear"] & (main["value"] < 0)]["arm"].tolist()
    unclear = main[~main["clear"]]["arm"].tolist()
    parts = []
    for names, words in ((above, "above"), (below, "below"), (unclear, "not distinguishable from")):
        if names:
            parts.append(f"{words} {reference}: {', '.join(names)}")
    if not parts:
        return f"{reference} is this study's only arm; there is nothing to compare it with."
    text = f"By average Pass@1 at {params.max_new_tokens} tokens, " + "; ".join(parts) + "."
    if {"p-align", "sft-long-cot"} <= set(params.arms):
        for row in differences(params, "sft-long-cot").query("arm == 'p-align'").itertuples():
            verdict = "a clear difference" if row.clear else "not distinguishable from none"
            text += (
                f" In {row.metric.capitalize()} with {row.budget} tokens p-align less sft-long-cot is "
                f"{100 * row.value:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}], {verdict}."
            )
    return text


def arms_table(params: Params) -> pd.DataFrame:
    """What each arm is, and what was chosen where the paper leaves its definition open."""
    rows = [
        {"arm": a, "trained on": ARMS[a].description, "left open, chosen here": ARMS[a].chosen} for a in params.arms
    ]
    return pd.DataFrame(rows).set_index("arm")


def truncation_lengths(params: Params) -> pd.DataFrame:
    if not _adaptive(params):
        return pd.DataFrame()
    return prefixes(params)[["sentences", "of", "calls", "prefix_tokens", "trace_tokens", "ratio"]].describe().round(2)


def show_verdicts(params: Params) -> pd.DataFrame:
    """The probes of the worked case's kind: the first trace with the most verdicts."""
    table = verdicts(params)
    if table.empty:
        return table
    longest = table.groupby("id", sort=False).size().idxmax()
    return table[table["id"] == longest][["sentences", "of", "label", "margin", "oracle"]]


def retention(params: Params) -> pd.DataFrame:
    """Per strategy: pairs, how many the filter kept (Table 7), and why the others fell."""
    rows = []
    for strategy in plan.strategies(params):
        table = pairs(params, strategy)
        outcomes = table["outcome"].value_counts().to_dict()
        rows.append({"strategy": strategy, "pairs": len(table), "retention": table["kept"].mean(), **outcomes})
    return pd.DataFrame(rows).set_index("strategy").fillna(0).round(3)


def success_by_ratio(params: Params) -> pd.DataFrame:
    """The student's success rate from the chosen prefixes, by the share of the trace's tokens they hold."""
    if not _adaptive(params):
        return pd.DataFrame()
    ratio = prefixes(params).set_index("id")["ratio"]
    table = pairs(params)
    bins = pd.cut(table["id"].map(ratio), [0, 0.2, 0.4, 0.6, 0.8, 1.0]).rename("prefix ratio")
    groups = table.groupby(bins, observed=True)
    return pd.DataFrame(
        {"prefixes": groups.size(), "success rate": groups["success_rate"].mean(), "kept": groups["kept"].mean()}
    ).round(3)


def shown_pairs(params: Params, rows: int = 3) -> pd.DataFrame:
    """The first few pairs of the study's first strategy, the adaptive one where it has that."""
    found = plan.strategies(params)
    if not found:
        return pd.DataFrame()
    table = pairs(params, "adaptive" if _adaptive(params) else found[0])
    return table[["question", "prefix", "continuation", "outcome"]].head(rows)


def training_facts(manifest: dict) -> pd.Series:
    names = (
        "trainer",
        "rows",
        "updates",
        "epochs",
        "longest_row_tokens",
        "rows_cut",
        "rows_dropped",
        "tokens_trained",
        "last_loss",
        "train_seconds",
    )
    return pd.Series({name: manifest[name] for name in names}, name="value", dtype=object).to_frame()


def setting(params: Params) -> pd.DataFrame:
    """What was asked, in one table."""
    training = plan.traces(params).require().manifest()
    rows = {
        "student": portable(params)["student"],
        "training problems": training["kept"],
        "benchmarks": ", ".join(f"{b.name} ({b.problems})" for b in params.benchmarks),
        "search, verdict": f"{params.search}, {params.verdict}",
        "responses": f"{params.protocol} protocol: {params.n_samples} a problem, T={params.temperature}, "
        f"top-p {params.top_p}, repetition penalty {params.repetition_penalty}",
        "response budgets (tokens)": " and ".join(str(b) for b in budgets(params)),
        "fine-tuning": f"LoRA r={params.lora_r}, alpha={params.lora_alpha}, learning rate {params.learning_rate:g}, "
        f"{params.num_train_epochs:g} epochs, " + ("equal updates" if params.equal_updates else "own updates"),
        "seed, training seeds": f"{params.seed}, {' '.join(map(str, params.training_seeds))}",
    }
    return pd.Series(rows, name="").to_frame()


def case_text(params: Params) -> str:
    """The worked case as Markdown; all data stand in code blocks, so none of it is read as markup."""
    if not _adaptive(params):
        return "No arm of this study uses adaptive prefixes."
    case = worked_case(params)
    probes = ", ".join(f"{p}: {label}" for p, label, _ in case["verdicts"])
    oracle = f" (the oracle: {case['oracle_sentences']:.0f})" if pd.notna(case["oracle_sentences"]) else ""
    parts = {
        "Question": case["question"],
        f"Trace ({case['of']} sentences, {case['trace_tokens']} tokens)": case["trace"],
        "Verdicts (sentences: label)": probes,
        f"Prefix kept: {case['sentences']} sentences{oracle}": case["prefix"],
        "Gold answer": case["answer"],
        "The student's continuation": case["continuation"],
    }
    return "\n\n".join(f"**{title}**\n\n{_block(text)}" for title, text in parts.items())


def answers_text(params: Params, arm: str = "p-align", other: str = "sft-long-cot") -> str:
    """Two test problems as Markdown, with the first response of either arm's first training seed (Tables 10 and 11).

    One that only ``arm`` gets right and one that only ``other`` does, each the first of its kind by the problem's id.
    """
    if not {arm, other} <= set(params.arms):
        return f"This study has no {arm} or no {other}."
    first = {}
    for name in (arm, other):
        folder = plan.evaluation(params, name).require()
        right = {grade["id"]: grade["right"] for grade in folder.read("grades") if grade["sample"] == 0}
        first[name] = {r["id"]: (right[r["id"]], r["text"]) for r in folder.read("responses") if r["id"] in right}
    asked = {f"{p['benchmark']}/{p['id']}/0": p for p in plan.benchmarks(params).require().read("problems")}
    parts = []
    for winner, loser in ((arm, other), (other, arm)):
        ids = sorted(i for i, (right, _) in first[winner].items() if right and not first[loser][i][0])
        parts.append(f"**Right: {winner}, wrong: {loser}** (so are {len(ids)} of {len(first[winner])} problems)")
        if ids:
            problem = asked[ids[0]]
            texts = {"Question": problem["question"], "Gold answer": problem["answer"]}
            texts |= {name: first[name][ids[0]][1] for name in (winner, loser)}
            parts += [f"{title}\n\n{_block(text)}" for title, text in texts.items()]
    return "\n\n".join(parts)


def _block(text: str) -> str:
    """A code block: indented, since no text can end that as it could a fence."""
    return "\n".join("    " + line for line in visible(text).splitlines())


def limits(params: Params) -> str:
    """What the numbers cannot carry, from the study's own settings."""
    count = len(params.training_seeds)
    rows = [
        f"One training seed ({params.training_seeds[0]}): the intervals cover the choice of test problems and samples, "
        "not the luck of training."
        if count == 1
        else f"{count} training seeds: values are averages over them, and the intervals cover the choice of test "
        "problems and samples; the luck of training stands beside them as the spread between seeds.",
        f"The response budget ({' and '.join(map(str, budgets(params)))} tokens) decides how long answers fare; "
        "another budget may rank the arms otherwise.",
        *(["Three samples a problem: Pass@3 has no averaging over samples."] if params.n_samples == 3 else []),
        "Equal updates are not equal tokens: see the cost table."
        if params.equal_updates
        else "Arms with fewer rows took fewer updates: see the cost table.",
    ]
    if _adaptive(params) and prefixes(params)["oracle_sentences"].notna().all():
        rows.append(
            "The problems and the teacher are artificial, the student is tiny: this shows that the pipeline works and "
            "how its parts interact, not how large a gain to expect on real problems."
        )
    return "\n".join(f"- {row}" for row in rows)
