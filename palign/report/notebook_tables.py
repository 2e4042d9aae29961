"""The tables of notebooks 01 to 05 as a reader sees them: words for names, percent for fractions.

The numbers are those of ``palign.report.tables``. Functions return what ``palign.report.display.table`` makes.

>>> benchmarks(problems.collect_benchmarks(params))
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from . import tables, texts
from .display import Table, table
from .results import Results

QUANTILES = {
    "min": "shortest",
    "5%": "5 %",
    "25%": "25 %",
    "50%": "median",
    "75%": "75 %",
    "95%": "95 %",
    "max": "longest",
}


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.1f} %"


def _stated(values: Mapping[str, object], header: str = "value") -> Table:
    """Names with one value each."""
    return table(pd.DataFrame({header: pd.Series(values, dtype=object)}))


# 01


def benchmarks(problems: list[dict]) -> Table:
    """Each test set: how many problems, and its first one."""
    groups = pd.DataFrame(problems).groupby("benchmark", sort=False)
    shown = groups.agg(problems=("id", "size"), question=("question", "first"), answer=("answer", "first"))
    return table(shown, labels={"question": "first question", "answer": "its answer", "benchmark": "test set"})


def account(study: Results) -> Table:
    """What became of the training rows (``tables.account``)."""
    shown = tables.account(study).assign(share=lambda rows: 100 * rows["share"])
    return table(shown, labels={"count": "training rows", "share": "of all (%)", "what": ""})


def lengths(found: pd.DataFrame) -> Table:
    """Lengths of traces (``tables.lengths``): mean and quantiles."""
    shown = found.describe(percentiles=[0.05, 0.5, 0.95]).T.drop(columns=["count", "std"])
    return table(shown, labels=QUANTILES | {"tokens": "student's tokens"}, digits=0)


def overlap(study: Results) -> Table:
    """Questions that share words in a row (``tables.overlap``)."""
    shown = tables.overlap(study).set_index(["words in a row", "benchmark"])
    heads = {n: f"{n} words in a row" for n in shown.index.get_level_values(0)}
    return table(shown, labels=heads | {"benchmark": "test set"})


def overlapping(study: Results) -> Table:
    """The pairs that share the longest stretch (``tables.overlapping``)."""
    shown = tables.overlapping(study).rename(columns={"n": "words compared", "shared": "stretches shared"})
    return table(shown, labels={"training": "training question", "test": "test question"}, first=3)


# 02


def truncation(study: Results) -> Table:
    """The adaptive prefixes (``texts.truncation``): mean and quantiles."""
    shown = texts.truncation(study)
    if shown.empty:
        return table(shown)
    shown = shown.T.drop(columns=["count", "std"])
    shown.loc["ratio"] *= 100
    shown = pd.DataFrame({name: shown[name].map(("{:.1f}" if name == "mean" else "{:.0f}").format) for name in shown})
    names = {
        "sentences": "prefix (sentences)",
        "of": "trace (sentences)",
        "calls": "verdicts asked for",
        "prefix_tokens": "prefix (tokens)",
        "trace_tokens": "trace (tokens)",
        "ratio": "prefix (% of the trace's tokens)",
    }
    return table(shown, labels=QUANTILES | names | {"min": "least", "max": "most"})


def judge(study: Results) -> Table:
    """The judge against the oracle (``tables.judge``)."""
    found = tables.judge(study)
    if found.empty:
        return table(found)
    counts = ("verdicts", "without a label, read as NOT_ENOUGH")

    def text(name: str, value: float) -> str:
        if name in counts:
            return f"{value:,.0f}"
        return f"{value:.3f}" if name.startswith("AUC") else _percent(value)

    return _stated({name: text(name, value) for name, value in found["value"].items()}, "all searches")


def one_search(search: Mapping) -> Table:
    """The verdicts of one search, in the order asked; ``search``: as ``prefix_figures.one_search`` takes it."""
    rows = search["verdicts"] if search else []
    shown = pd.DataFrame(rows, columns=["prefix (sentences)", "verdict", "margin (nats)"])
    return table(shown.set_axis(range(1, len(shown) + 1)).rename_axis("asked"), digits=2)


# 03


def retention(study: Results) -> Table:
    """What each strategy's continuations led to (``tables.retention``)."""
    shown = tables.retention(study).assign(retention=lambda rows: 100 * rows["retention"])
    whole = [name for name in shown if name != "retention"]
    return table(shown.astype(dict.fromkeys(whole, int)), labels={"pairs": "continuations", "retention": "kept (%)"})


def pairs(study: Results) -> Table:
    """The first prefixes with their continuations (``texts.pairs``)."""
    return table(texts.pairs(study).reset_index(drop=True))


# 04


def token_lengths(found: pd.DataFrame) -> Table:
    """Tokens of the training rows (``finetuning.token_lengths``)."""
    lengths = ["shortest", "5 %", "median", "95 %", "longest"]
    shown = found.set_axis(
        pd.MultiIndex.from_tuples([("tokens", name) if name in lengths else ("", name) for name in found]), axis=1
    )
    return table(shown, labels={"row": "whole row"})


TRAINING = {
    "rows": "rows trained on",
    "rows_left_out": "rows left out: too long",
    "rows_cut": "rows cut: too long",
    "rows_fallback": "rows that are whole traces",
    "longest_row_tokens": "longest row (tokens)",
    "tokens_trained": "tokens trained on",
    "last_loss": "last loss (nats per token)",
    "train_seconds": "training (seconds)",
}


def training(manifest: dict) -> Table:
    """What one fine-tuning did (``texts.training``)."""
    values = texts.training(manifest)["value"]
    shown = {
        TRAINING.get(name, name): (f"{value:,.3g}" if isinstance(value, float) and value < 1000 else value)
        for name, value in values.items()
    }
    return _stated(shown)


# 05


def accuracy(found: pd.DataFrame) -> Table:
    """One arm's accuracy (``tables.accuracy``): a row per benchmark, percent with intervals."""
    cells = found.assign(cell=[texts.percent(row) for row in found.itertuples()])
    columns = cells.set_index(["budget", "metric"]).index.unique()
    shown = cells.pivot(index="benchmark", columns=["budget", "metric"], values="cell")
    shown = shown.reindex(index=found["benchmark"].unique(), columns=columns).rename_axis("test set")
    heads = {budget: f"{budget} tokens" for budget in found["budget"].unique()}
    if found["missing"].any():
        shown["", "never answered"] = found.groupby("benchmark", sort=False)["missing"].first()
    return table(shown, labels=heads | {metric: f"{metric.capitalize()} (%)" for metric in found["metric"].unique()})


RESPONSES = {
    "tokens_mean": "tokens, mean",
    "tokens_p5": "tokens, 5 %",
    "tokens_p50": "tokens, median",
    "tokens_p95": "tokens, 95 %",
    "missing": "never answered",
    "hit_limit": "ended by the budget",
    "no_box": "without a box",
    "loop": "repeats itself",
    "prefix_format": "begins with a closed prefix block",
    "prefix_unclosed": "leaves that block open",
    "doubts_per_1000": "doubts per 1,000 words",
}


def responses(study: Results) -> Table:
    """How one arm's responses behaved (``tables.responses``)."""
    row = tables.responses(study).iloc[0]
    shares = ("hit_limit", "no_box", "loop", "prefix_format", "prefix_unclosed")

    def text(name: str) -> str:
        if name in shares:
            return _percent(row[name])
        return "" if pd.isna(row[name]) else f"{row[name]:,.2f}" if name.startswith("doubts") else f"{row[name]:,.0f}"

    return _stated({words: text(name) for name, words in RESPONSES.items()})


def grading(study: Results) -> Table:
    """One arm's strict and lenient grades (``tables.grading``), in responses."""
    return _stated(tables.grading(study).iloc[0].astype(int).to_dict(), "responses")
