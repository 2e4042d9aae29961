"""The report's sentences and worked cases. ``palign.report.views`` has its tables.

>>> cell(82.63, 80.41, 84.52)
'82.6 [80.4, 84.5]'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..analysis import preference
from ..arms import ARMS
from ..engines.base import NEVER_ANSWERED
from ..params import Params, is_pocket
from ..tasks.store import visible
from ..traces import REPEATED, RULES
from . import tables
from .results import Results

if TYPE_CHECKING:
    from IPython.display import Markdown

pd.set_option("display.max_colwidth", None)  # pandas would cut sentences in tables at 50 characters
pd.set_option("display.max_rows", 250)  # and of 60 rows, as the costs of many arms have, show the first and last five


def cell(value: float, low: float, high: float, number: str = "{:.1f}") -> str:
    """A value with its interval: ``82.6 [80.4, 84.5]``, a rounded zero without a sign; empty where there is none."""
    if pd.isna(value):
        return ""
    texts = [number.format(one) for one in (value, low, high)]
    value, low, high = (text.lstrip("+-") if float(text) == 0 else text for text in texts)
    return f"{value} [{low}, {high}]"


def percent(row, number: str = "{:.1f}") -> str:
    """The ``value``, ``low`` and ``high`` of a table's row (fractions), in percent or points."""
    return cell(*(100 * bound for bound in (row.value, row.low, row.high)), number)


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
        f"**Responses are missing**: {arms}. The first: {record['finish']}{reason}. "
        "They count as neither right nor wrong; these arms are not compared. `palign retry` has the next run ask again."
    )


def one_seed(study: Results) -> str:
    """What the intervals of a study with one training seed leave out; empty with several, or if no arm is trained."""
    if len(study.params.training_seeds) > 1 or not any(ARMS[arm].target for arm in study.arms):
        return ""
    return "With one training seed, the spread between training runs is not in the intervals."


def finding(study: Results, accuracies: pd.DataFrame, differences: pd.DataFrame) -> str:
    """What the accuracy table says at the main budget, in a few short sentences that claim only what an interval and a
    corrected test support. Before them what the study varies and what is missing, behind them what the intervals leave
    out.
    """
    told = " ".join(filter(None, (_reached(study, accuracies), _best(accuracies), _against_first(study, differences))))
    return "\n\n".join(part for part in (varied(study.params), missing(study), told, one_seed(study)) if part)


VARIED = {
    "student": "student",
    "training_data": "training data",
    "seed": "seed of sampling",
    "num_train_epochs": "epochs",
    "own_samples": "continuations per problem",
    "max_new_tokens": "response budget in tokens",
}
"""Keys by which studies of the pocket world differ from the pocket study, in words."""


def varied(params: Params) -> str:
    """What a study of the pocket world varies beside arms and training seeds; empty if nothing, or of another world."""
    pocket = Params()
    changed = {key: getattr(params, key) for key in VARIED if getattr(params, key) != getattr(pocket, key)}
    if not changed or not is_pocket(params.student):
        return ""
    parts = [
        f"{VARIED[key]} {_short(value)} instead of {_short(getattr(pocket, key))}" for key, value in changed.items()
    ]
    return f"**Unlike the pocket study**: {'; '.join(parts)}."


def _short(value: str | float) -> str:
    """A number, or the last part of a path."""
    return value.rpartition("/")[2] if isinstance(value, str) else f"{value:g}"


def _reached(study: Results, accuracies: pd.DataFrame, arm: str = "p-align", other: str = "sft-long-cot") -> str:
    """What an arm reaches by each metric, and how far it lies above or below the other; empty without the arm."""
    rows = accuracies[(accuracies["arm"] == arm) & (accuracies["budget"] == study.budget)]
    rows = rows[rows["benchmark"] == tables.single(accuracies)].dropna(subset="value")
    if rows.empty:
        return ""
    less = pd.DataFrame()
    if other in study.arms:
        less = tables.differences(study, other).query("arm == @arm and budget == @study.budget")
        less = less[less["test"] != tables.UNTESTED].set_index("metric")
    sentences = []
    for row in rows.itertuples():
        begin = "Its" if sentences else f"In {study.budget} tokens `{arm}` reaches a"
        text = f"{begin} {row.metric.capitalize()}{' is' if sentences else ' of'} {percent(row).replace(' ', ' % ', 1)}"
        if row.metric in less.index:
            difference = less.loc[row.metric]
            text += f", {100 * abs(difference['value']):.1f} points {'above' if difference['value'] > 0 else 'below'}"
            text += f" `{other}`" if sentences else f" training on whole traces (`{other}`)"
            text += "" if difference["clear"] else ", which is not clear"
        sentences.append(f"{text}.")
    return " ".join(sentences)


def _best(accuracies: pd.DataFrame) -> str:
    """Which of several arms has the highest Pass@1, as an average over benchmarks at the main budget."""
    values = tables.averages(accuracies)["value"].dropna()
    if len(values) < 2:
        return ""
    best = list(values.index[values == values.max()])
    return f"The highest average Pass@1, {100 * values.max():.1f} %, is that of {_listed(best)}."


def _against_first(study: Results, differences: pd.DataFrame) -> str:
    """Which arms lie on which side of the first one, in Pass@1 at the main budget."""
    rows, reference = tables.main(differences), study.arms[0]
    if rows.empty:
        return f"{reference} is this study's only arm; there is nothing to compare it with."
    tested = rows["test"] != tables.UNTESTED
    sides = {
        "clearly above": rows["clear"] & (rows["value"] > 0),
        "clearly below": rows["clear"] & (rows["value"] < 0),
        "not distinguishable from": tested & ~rows["clear"],
        "not tested against": ~tested,
    }
    parts = [f"{words} {reference}: {_listed(rows[at]['arm'], len(rows))}" for words, at in sides.items() if at.any()]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _listed(arms: Sequence[str], of: int = 0) -> str:
    """The names of a few arms, of more than four their number among ``of``."""
    if of and len(arms) > 4:
        return f"all {of} arms" if len(arms) == of else f"{len(arms)} of {of} arms"
    return ", ".join(f"`{arm}`" for arm in arms)


def fallbacks(study: Results) -> str:
    """Which share of an arm's training rows are whole traces by fallback; empty if no arm has a fallback."""
    shares = []
    for arm in (arm for arm in study.arms if ARMS[arm].fallback):
        facts = study.plan.finetuning(arm).require().manifest()
        shares.append(f"`{arm}` {100 * facts['rows_fallback'] / facts['rows']:.0f} %")
    return f"Of an arm's training rows these are whole traces by fallback: {', '.join(shares)}." if shares else ""


def choices(found: pd.DataFrame) -> str:
    """What the table of :func:`palign.report.tables.choices` shows; empty where no arm chooses among responses."""
    if found.empty:
        return ""
    return (
        "What `select-likely` (`likely`) and `select-rsr` (`rsr`) chose from, and what they chose. Both scores depend "
        "on a response's length and on who wrote it, so a gain may come from either."
    )


def successes(study: Results) -> str:
    """What the tables of success by prefix show; empty where there are no pairs of adaptive prefixes."""
    pairs = study.pairs()
    if pairs.empty:
        return ""
    measured = pairs["success_rate"].notna().any()
    if measured:
        return "Success is the share of further continuations of the same prefix that reach the gold answer."
    return "The table has the share of pairs that the filter kept, by the share of the trace that their prefix holds."


def paragraph(text: str) -> Markdown | None:
    """A notebook's output; none for no text, so that a page leaves out a section that has nothing else."""
    from IPython.display import Markdown

    return Markdown(text) if text else None


def samples(study: Results) -> str:
    """How many samples and seeds an accuracy averages over, and what its interval is over, for captions."""
    seeds = len(study.params.training_seeds)
    untrained = " (zero-shot: one)" if "zero-shot" in study.arms else ""
    each = f"{study.params.n_samples} samples each"
    if seeds > 1:
        return f"{each} of {seeds} training seeds{untrained}; intervals are over problems and seeds"
    without = ", without the spread between training seeds" if one_seed(study) else ""
    return f"{each}; intervals are over problems{without}"


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
        *(["Three samples per problem: Pass@3 has no averaging over samples."] if params.n_samples == 3 else []),
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


def preferred(study: Results, table: pd.DataFrame) -> str:
    """What the judge preferred, in a sentence that names the judge and says what it saw; empty without a judge.
    ``table`` of ``preference.table``.
    """
    if table.empty:
        return ""
    rows = table[table["measure"] == "win less loss"]
    clear = rows[(rows["low"] > 0) | (rows["high"] < 0)]
    judge = preference.name_of(study.params.preference_judge)
    text = f"The judge ({judge}) saw each pair's responses to {int(rows['n'].iloc[0])} problems."
    if clear.empty:
        return f"{text} It has no preference beyond chance."
    parts = []
    for arm, own in clear.groupby("arm", sort=False):
        for words, some in (("{} over {}", own[own["value"] > 0]), ("{1} over {0}", own[own["value"] < 0])):
            ordered = some.loc[some["value"].abs().sort_values(ascending=False, kind="stable").index]
            others = ", ".join(f"`{row.against}` ({100 * abs(row.value):.0f})" for row in ordered.itertuples())
            parts += [words.format(f"`{arm}`", others)] if others else []
    return f"{text} Beyond chance it prefers {'; '.join(parts)}. In brackets: wins minus losses, points."


# Worked cases


LONGEST_QUESTION = 170
"""Characters; a picture shows the beginning of a longer one."""
MOST_LINES = 45
"""Sentences of a trace that a picture shows as text; of a longer trace there is only a bar."""


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
    """What the picture of the worked case (``prefix_figures.one_search``) has no place for, as Markdown: the student's
    continuation and the gold answer, and of a long question or trace what the picture cuts. All data are in code
    blocks, so that nothing in them is read as markup. Empty where no pair with one continuation of an adaptive prefix
    was kept.
    """
    case = worked_case(study)
    if not case:
        return ""
    parts = {}
    if len(case["question"]) > LONGEST_QUESTION:
        parts["Question"] = case["question"]
    if case["of"] > MOST_LINES:
        parts["The last sentences of the prefix"] = " ".join(
            RULES[study.params.sentence_rule].split(case["prefix"])[-3:]
        )
    parts |= {"The student continues": case["continuation"], "Gold answer": case["answer"]}
    return "\n\n".join(f"**{title}**\n\n{_block(text)}" for title, text in parts.items())


def answers(study: Results, arm: str = "p-align", other: str = "sft-long-cot") -> str:
    """Two test problems as Markdown, with the first response of either arm's first training seed (Tables 10 and 11).
    Only ``arm`` solves one and only ``other`` solves the other; each is the first of its kind by the problem's id.
    Empty where the study lacks one of the two arms.
    """
    if not {arm, other} <= set(study.arms):
        return ""
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
