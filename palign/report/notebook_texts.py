"""The answers of notebooks 01 to 05 in a sentence or two, from the records behind the tables below them.

Functions return Markdown; empty where the study has no such data.

>>> prefixes(Results(params))  # doctest: +SKIP
'In the median the student keeps 32 % of a trace...'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from . import tables, texts
from .results import Results


def lengths(found: pd.DataFrame, budgets: Sequence[int]) -> str:
    """01: how long the traces (``tables.lengths``) are, and how many fit into the response budgets (tokens)."""
    if found.empty:
        return ""
    middle = found.median()
    fits = [f"{(found['tokens'] < budget).sum():,} into {budget:,} tokens" for budget in budgets]
    return (
        f"The median trace has {middle['tokens']:,.0f} tokens in {middle['sentences']:,.0f} sentences. Of "
        f"{len(found):,} traces, these fit whole into a response: {', '.join(fits)}."
    )


def prefixes(study: Results) -> str:
    """02: how much of a trace the search keeps, and what it asks for."""
    if not study.plan.is_adaptive:
        return ""
    found = study.prefixes()
    good = found[found["status"] == "ok"]
    whole, failed = int((~good["sufficient"]).sum()), len(found) - len(good)
    more = f" {failed:,} searches failed." if failed else ""
    return (
        f"In the median the student keeps {100 * good['ratio'].median():.0f} % of a trace's tokens, after "
        f"{found['calls'].mean():.1f} verdicts per trace (mean). It finds no prefix enough in {whole:,} of "
        f"{len(good):,} traces, which are kept whole.{more}"
    )


def pairs(study: Results) -> str:
    """03: how many of the adaptive prefixes the student finishes rightly."""
    if not study.plan.is_adaptive or study.pairs().empty:
        return ""
    found, right = tables.kept(study), int(study.pairs()["kept"].sum())
    share = texts.percent(found).replace(" ", " % ", 1)
    return f"The student finishes {share} of its prefixes rightly: {right:,} of {found.n:,} pairs become training rows."


def training(facts: Mapping, losses: pd.DataFrame) -> str:
    """04: what an arm was trained on (``facts``: its manifest), and whether the loss settled."""
    told = f"{facts['updates']:,} updates on {facts['rows']:,} rows"
    tenth = len(losses) // 10
    if not tenth:
        return f"{told}."
    first, last = losses["loss"].iloc[:tenth].mean(), losses["loss"].iloc[-tenth:].mean()
    return f"{told}; the loss went from {first:.3f} to {last:.3f} (means of the first and the last tenth)."


def accuracy(found: pd.DataFrame, arm: str) -> str:
    """05: the Pass@1 of one arm (``tables.accuracy``) under each response budget."""
    rows = found[(found["benchmark"] == tables.single(found)) & (found["metric"] == "pass@1")]
    reached = [f"{texts.percent(row).replace(' ', ' % ', 1)} in {row.budget:,} tokens" for row in rows.itertuples()]
    over = "averaged over benchmarks" if tables.single(found) == tables.AVERAGE else f"on {tables.single(found)}"
    return f"`{arm}` answers {' and '.join(reached)} rightly (Pass@1, {over}, 95 % intervals)."
