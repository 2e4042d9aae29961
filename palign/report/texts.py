"""The report's tables and records formatted for reading: percent with intervals, sentences, worked cases.

The numbers are those of ``palign.report.tables``, rounded.

>>> accuracy(tables.accuracy(study)).loc["p-align", ("pass@1", "average")]
'82.6 [80.4, 84.5]'
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from ..analysis import preference
from ..arms import ARMS
from ..engines.base import NEVER_ANSWERED
from ..tasks.store import visible
from ..traces import REPEATED
from . import tables
from .results import Results, shown_name

pd.set_option("display.max_colwidth", None)  # pandas would cut sentences in tables at 50 characters
pd.set_option("display.max_rows", 250)  # and of 60 rows, as the costs of many arms have, show the first and last five


def cell(value: float, low: float, high: float, number: str = "{:.1f}") -> str:
    """A value with its interval: ``82.6 [80.4, 84.5]``; empty where there is none."""
    return "" if pd.isna(value) else f"{number} [{number}, {number}]".format(value, low, high)


def percent(row, number: str = "{:.1f}") -> str:
    """The ``value``, ``low`` and ``high`` of a table's row (fractions), in percent or points."""
    return cell(*(100 * bound for bound in (row.value, row.low, row.high)), number)


def accuracy(accuracies: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, one column per metric and benchmark: percent with intervals, at the main budget.

    Where responses are missing, further columns say how many, and between which bounds the summary would lie if all
    of them were wrong, or right.
    """
    table = accuracies[accuracies["budget"] == accuracies["budget"].max()]
    table = table.assign(cell=[percent(row) for row in table.itertuples()])
    wide = table.pivot(index="arm", columns=["metric", "benchmark"], values="cell")
    columns = table.set_index(["metric", "benchmark"]).index.unique()
    wide = wide.reindex(index=table["arm"].unique(), columns=columns).rename_axis("arm")
    if table["missing"].any():
        name = tables.single(table)
        for metric, rows in table[table["benchmark"] == name].set_index("arm").groupby("metric", sort=False):
            spans = [f"{100 * row.at_least:.1f} to {100 * row.at_most:.1f}" for row in rows.itertuples()]
            wide[metric, f"{name}, missing ones wrong to right"] = pd.Series(spans, rows.index)
            wide["missing", "responses"] = rows["missing"]
    return wide


def differences(differences: pd.DataFrame) -> pd.DataFrame:
    """Differences in points with intervals, p to two digits."""
    rows = [
        {
            "arm": row.arm,
            "metric": row.metric,
            "tokens": row.budget,
            f"less {row.reference} (points)": percent(row, "{:+.1f}"),
            "gains": row.gains,
            "losses": row.losses,
            "test": row.test,
            "p": _p(row.p),
            "p, Holm": _p(row.p_holm),
            "clear": tables.UNTESTED if row.test == tables.UNTESTED else "yes" if row.clear else "no",
        }
        for row in differences.sort_values("metric", kind="stable").itertuples()
    ]
    return pd.DataFrame(rows).set_index(["metric", "tokens", "arm"]) if rows else pd.DataFrame()


def _p(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def missing(study: Results) -> str:
    """Of which arms more than 1 % of the responses are missing, and why the first one is; empty if of none."""
    counts, outcomes = study.outcomes.missing.sum(axis=1), study.outcomes
    if not outcomes.incomplete:
        return ""
    arms = ", ".join(
        f"{arm} {counts[arm]:,} of {outcomes.asked[arm]:,} ({100 * share:.1f} %)"
        for arm, share in outcomes.incomplete.items()
    )
    grades = study.grades[study.grades["finish"].isin(NEVER_ANSWERED)]
    first = grades[grades["arm"].isin(outcomes.incomplete)].iloc[0]
    record = study.responses(first["arm"], int(first["seed"])).set_index("id").loc[first["id"]]
    reason = f": {visible(record['reason'])}" if record["reason"] else ""
    return (
        f"**Responses are missing**, since the model never answered: {arms}. The first: {record['finish']}{reason}. "
        "They count as neither right nor wrong; these arms are not compared. `palign retry` has the next run ask again."
    )


def one_seed(study: Results) -> str:
    """What the intervals of a study with one training seed leave out; empty with several, or if no arm is trained."""
    if len(study.params.training_seeds) > 1 or not any(ARMS[arm].target for arm in study.arms):
        return ""
    return "With one training seed, the spread between training runs is not in the intervals."


def finding(study: Results, differences: pd.DataFrame) -> str:
    """What the accuracy table says, in sentences that claim only what an interval and a corrected test support. First
    what is missing, last what the intervals leave out and which rows are whole traces by fallback.
    """
    parts = [missing(study), _compared(study, differences), one_seed(study), fallbacks(study)]
    return "\n\n".join(part for part in parts if part)


def _compared(study: Results, differences: pd.DataFrame) -> str:
    rows, reference = tables.main(differences), study.arms[0]
    tested = rows["test"] != tables.UNTESTED
    groups = {
        "above": rows["clear"] & (rows["value"] > 0),
        "below": rows["clear"] & (rows["value"] < 0),
        "not distinguishable from": tested & ~rows["clear"],
        "not tested against": ~tested,
    }
    parts = [f"{words} {reference}: {', '.join(rows[which]['arm'])}" for words, which in groups.items() if which.any()]
    if not parts:
        return f"{reference} is this study's only arm; there is nothing to compare it with."
    text = f"By average Pass@1 at {study.budget} tokens, " + "; ".join(parts) + "."
    if {"p-align", "sft-long-cot"} <= set(study.arms):
        rows = tables.differences(study, "sft-long-cot").query("arm == 'p-align'")
        for row in rows[rows["test"] != tables.UNTESTED].itertuples():
            verdict = "a clear difference" if row.clear else "not distinguishable from none"
            text += (
                f" In {row.metric.capitalize()} with {row.budget} tokens p-align minus sft-long-cot is "
                f"{100 * row.value:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}], {verdict}."
            )
    return text


def fallbacks(study: Results) -> str:
    """Which share of an arm's training rows are whole traces by fallback; empty if no arm has a fallback."""
    shares = []
    for arm in (arm for arm in study.arms if ARMS[arm].fallback):
        facts = study.plan.finetuning(arm).require().manifest()
        whole, rows = facts["rows_fallback"], facts["rows"]
        shares.append(f"{arm} {whole:,} of {rows:,} ({100 * whole / rows:.0f} %)")
    return f"Rows that are whole traces by fallback: {', '.join(shares)}." if shares else ""


def samples(study: Results) -> str:
    """How many samples and seeds an accuracy averages over, and what its interval is over, for captions."""
    seeds = len(study.params.training_seeds)
    untrained = " (zero-shot: one)" if "zero-shot" in study.arms else ""
    each = f"{study.params.n_samples} samples each"
    if seeds > 1:
        return f"{each} of {seeds} training seeds{untrained}; intervals are over problems and seeds"
    without = ", without the spread between training seeds" if one_seed(study) else ""
    return f"{each}; intervals are over problems{without}"


def setting(study: Results) -> pd.DataFrame:
    """What was asked, in one table."""
    params = study.params
    rows = {
        "student": shown_name(params.student),
        "training problems": len(study.traces),
        "training questions left out": left_out(study),
        "benchmarks": ", ".join(f"{b.name} ({b.problems})" for b in params.benchmarks),
        "search, verdict": f"{params.search}, {params.verdict}",
        "responses": f"{params.protocol} protocol: {params.n_samples} a problem, T={params.temperature}, "
        f"top-p {params.top_p}, repetition penalty {params.repetition_penalty}",
        "response budgets (tokens)": " and ".join(map(str, study.budgets)),
        "fine-tuning": f"LoRA r={params.lora_r}, alpha={params.lora_alpha}, learning rate {params.learning_rate:g}, "
        f"{params.num_train_epochs:g} epochs, " + ("equal updates" if params.equal_updates else "own updates"),
        "seed, training seeds": f"{params.seed}, {' '.join(map(str, params.training_seeds))}",
    }
    return pd.Series(rows, name="").to_frame()


def left_out(study: Results) -> str:
    """How many training questions repeat, or stand in a benchmark: no arm is trained on them."""
    repeats = study.plan.traces.require().manifest()["excluded"].get(REPEATED, 0)
    twins = Counter(study.plan.tested.values())
    named = f" ({', '.join(f'{name} {count}' for name, count in sorted(twins.items()))})" if twins else ""
    return f"{repeats} repeat an earlier one, {twins.total()} stand in a benchmark{named}"


def limits(study: Results) -> str:
    """What the numbers cannot show, from the study's own settings."""
    params, count = study.params, len(study.params.training_seeds)
    rows = [
        f"One training seed ({params.training_seeds[0]}): the intervals cover the choice of test problems and samples, "
        "not the variation between training runs."
        if count == 1
        else f"{count} training seeds: values are averages over them, and the intervals cover the choice of test "
        "problems, samples and training runs.",
        f"The response budget ({' and '.join(map(str, study.budgets))} tokens) decides how long answers fare; "
        "another budget may rank the arms otherwise.",
        *(["Three samples a problem: Pass@3 has no averaging over samples."] if params.n_samples == 3 else []),
        "Equal updates are not equal tokens: see the cost table."
        if params.equal_updates
        else "Arms with fewer rows took fewer updates: see the cost table.",
    ]
    if study.plan.is_adaptive and study.prefixes()["oracle_sentences"].notna().all():
        rows.append(
            "The problems and the teacher are artificial, the student is tiny: this shows that the pipeline works and "
            "how its parts interact, not how large a gain to expect on real problems."
        )
    return "\n".join(f"- {row}" for row in rows)


# What a stage did, for its notebook


def truncation(study: Results) -> pd.DataFrame:
    """Counts and quantiles of the adaptive prefixes."""
    if not study.plan.is_adaptive:
        return pd.DataFrame()
    return study.prefixes()[["sentences", "of", "calls", "prefix_tokens", "trace_tokens", "ratio"]].describe().round(2)


def pairs(study: Results, rows: int = 3) -> pd.DataFrame:
    """The first few pairs of the study's first strategy, the adaptive one where it has that."""
    found = study.plan.strategies
    if not found:
        return pd.DataFrame()
    table = study.pairs("adaptive" if "adaptive" in found else found[0])
    return table[["question", "prefix", "continuation", "outcome"]].head(rows)


def training(manifest: dict) -> pd.DataFrame:
    """What one fine-tuning did, from its manifest (``palign.finetuning.finetune``)."""
    names = ("trainer", "rows", "rows_left_out", "rows_cut", "updates", "epochs", "longest_row_tokens")
    names += ("tokens_trained", "last_loss", "train_seconds")
    names += ("rows_fallback",) if manifest.get("rows_fallback") else ()
    return pd.Series({name: manifest[name] for name in names}, name="value", dtype=object).to_frame()


# Preferences


def preferences(table: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of arms, one column per measure: percent with intervals; ``table`` of ``preference.table``."""
    cells = [percent(row, "{:.0f}") for row in table.itertuples()]
    table = table.assign(cell=cells, pair=table["arm"] + " over " + table["against"])
    order = list(dict.fromkeys(table["pair"])), list(dict.fromkeys(table["measure"]))
    return table.pivot(index="pair", columns="measure", values="cell").reindex(index=order[0], columns=order[1])


def preferred(study: Results, table: pd.DataFrame) -> str:
    """What the judge preferred, in a sentence that names the judge; ``table`` of ``preference.table``."""
    if table.empty:
        return "This study asks no judge which response it prefers."
    rows = table[table["measure"] == "win less loss"]
    clear = rows[(rows["low"] > 0) | (rows["high"] < 0)]
    parts = [
        f"{r.arm if r.value > 0 else r.against} over {r.against if r.value > 0 else r.arm} "
        f"({100 * abs(r.value):.0f} points more wins than losses)"
        for r in clear.itertuples()
    ]
    judge = preference.name_of(study.params.preference_judge)
    text = f"Judge: {judge}; {int(rows['n'].iloc[0])} problems. "
    return text + ("Preferred beyond chance: " + "; ".join(parts) + "." if parts else "No preference beyond chance.")


# Worked cases


def worked_case(study: Results) -> dict:
    """One kept pair whose prefix ratio is the median: trace, verdicts, prefix, continuation. Empty if none was kept."""
    aligned = study.pairs()
    if aligned.empty or not aligned["kept"].any():
        return {}
    frame = study.prefixes().set_index("id")
    kept = frame.loc[aligned[aligned["kept"]]["id"]]
    order = (kept["ratio"] - kept["ratio"].median()).abs()
    chosen = order.index[np.lexsort((order.index, order.to_numpy()))[0]]
    trace = next(t for t in study.traces if t["id"] == chosen)
    pair = aligned.set_index("id").loc[chosen]
    return {**trace, **kept.loc[chosen].to_dict(), "continuation": pair["continuation"]}


def case(study: Results) -> str:
    """The worked case as Markdown; all data are in code blocks, so that nothing in them is read as markup."""
    if not study.plan.is_adaptive:
        return "No arm of this study uses adaptive prefixes."
    case = worked_case(study)
    if not case:
        return "This study kept no pair with one continuation of an adaptive prefix."
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


def answers(study: Results, arm: str = "p-align", other: str = "sft-long-cot") -> str:
    """Two test problems as Markdown, with the first response of either arm's first training seed (Tables 10 and 11).
    Only ``arm`` solves one and only ``other`` solves the other; each is the first of its kind by the problem's id.
    """
    if not {arm, other} <= set(study.arms):
        return f"This study has no {arm} or no {other}."
    seed, grades = study.params.training_seeds[0], study.grades
    grades = grades[(grades["sample"] == 0) & (grades["seed"] == seed)].set_index(["arm", "id"])["right"]
    texts = {name: study.responses(name, seed).set_index("id")["text"] for name in (arm, other)}
    problems = {f"{p['benchmark']}/{p['id']}/0": p for p in study.tests}
    parts = []
    for winner, loser in ((arm, other), (other, arm)):
        right, lost = grades.loc[winner].astype(bool), ~grades.loc[loser].astype(bool)
        ids = sorted(right.index[right & lost])
        parts.append(f"**Right: {winner}, wrong: {loser}** (so are {len(ids)} of {len(right)} problems)")
        if ids:
            problem = problems[ids[0]]
            shown = {"Question": problem["question"], "Gold answer": problem["answer"]}
            shown |= {name: texts[name][ids[0]] for name in (winner, loser)}
            parts += [f"{title}\n\n{_block(text)}" for title, text in shown.items()]
    return "\n\n".join(parts)


def _block(text: str) -> str:
    """A code block: indented, since a text can end a fence but not an indentation."""
    return "\n".join("    " + line for line in visible(text).splitlines())
