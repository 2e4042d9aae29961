"""The paper's printed numbers beside this study's, in the form of its figures and tables (3c, 3d, 4b; 4, 5, 7).

Students, problems and lengths differ, so compare order and proportions, not values. The paper prints no intervals;
those here belong to the study (over problems and training seeds, traces or pairs), and to printed shares whose counts
are known.

>>> table(study, kept).query("form == 'figure3c'")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..analysis import preference
from ..analysis.statistics import Estimate, mean_over_traces
from ..paper import printed
from . import display, tables
from .display import Table
from .results import Results
from .texts import cell

COLUMNS = ["form", "source", "name", "value", "low", "high", "n", "note"]
HERE = "this study"

Kept = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Form:
    """One figure or table. ``names``: printed quantity -> its row; ``measure`` gives the rows that the study has.

    Values are in ``unit``; a share is in percent.
    """

    title: str
    unit: str
    names: dict[str, str]
    measure: Callable[[Results, Kept], dict[str, Estimate]]


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, estimate.n)


def _response_tokens(study: Results, kept: Kept) -> dict[str, Estimate]:
    arms = [arm for arm in preference.PAPER_ARMS if arm in study.arms]
    return {arm: tables.tokens(study, arm) for arm in arms}


def _preferred(study: Results, kept: Kept) -> dict[str, Estimate]:
    found = preference.best(study.preferences, study.arms)
    return {arm: _percent(Estimate(**row)) for arm, row in found.to_dict("index").items()}


def _segments(study: Results, kept: Kept) -> dict[str, Estimate]:
    arms = [arm for arm in study.arms if arm.startswith("segment-")]
    rows = tables.averages(kept["accuracy"])[["value", "low", "high", "n"]].loc[arms] if arms else pd.DataFrame()
    return {row.Index.removeprefix("segment-"): _percent(Estimate(*row[1:])) for row in rows.itertuples()}


def _lengths(study: Results, kept: Kept) -> dict[str, Estimate]:
    frame = study.prefixes()
    if frame.empty or study.pairs().empty:
        return {}
    good = frame[frame["status"] == "ok"].set_index("id")
    pairs = study.pairs().set_index("id")
    right = pairs[pairs["kept"]]
    found = {"trace": mean_over_traces(frame["trace_tokens"]), "prefix": mean_over_traces(good["prefix_tokens"])}
    if len(right):
        found["target"] = mean_over_traces(right["new_tokens"] + good.loc[right.index, "prefix_tokens"])
    return found


def _calls(study: Results, kept: Kept) -> dict[str, Estimate]:
    return {name: mean_over_traces(calls) for name, calls in tables.calls(study).items()}


def _retention(study: Results, kept: Kept) -> dict[str, Estimate]:
    return {} if study.pairs().empty else {"kept": _percent(tables.kept(study))}


FORMS = {
    "figure3c": Form(
        "Figure 3c: response length",
        "tokens, mean",
        {f"response_tokens_mean:{arm}": arm for arm in preference.PAPER_ARMS},
        _response_tokens,
    ),
    "figure3d": Form(
        "Figure 3d: preferred by a judge",
        "% of problems",
        {f"judge_preference_percent:{arm}": arm for arm in preference.PAPER_ARMS},
        _preferred,
    ),
    "figure4b": Form(
        "Figure 4b: which third of the trace",
        "average accuracy (%)",
        {f"average_accuracy_percent:{part}": part for part in ("prefix", "middle", "suffix")},
        _segments,
    ),
    "table4": Form(
        "Table 4: lengths",
        "tokens, mean",
        {"long_cot_tokens_mean": "trace", "prefix_tokens_mean": "prefix", "p_align_tokens_mean": "target"},
        _lengths,
    ),
    "table5": Form(
        "Table 5: calls of the judge",
        "verdicts per trace, mean",
        {"judge_calls_linear_scan_mean": "linear scan", "judge_calls_binary_search_mean": "binary search"},
        _calls,
    ),
    "table7": Form("Table 7: kept by the filter", "% of pairs", {"kept_percent": "kept"}, _retention),
}


def as_printed() -> pd.DataFrame:
    """The paper's own rows of every form; ``source`` is the student. Intervals where the count is printed (Table 7)."""
    rows = printed.other_figures()
    rows = rows[rows["source"].isin(FORMS)]
    found = []
    for (form, student), group in rows.groupby(["source", "student"], sort=False):
        own = group.set_index("quantity")["value"]
        if form == "table7":
            n = int(own["pairs_before_filter"])
            share = own["pairs_after_filter"] / n
            low, high = printed.wilson(share, n)
            found.append((form, student, "kept", 100 * share, 100 * low, 100 * high, n, ""))
            continue
        names = FORMS[form].names
        found += [(form, student, names[quantity], value, np.nan, np.nan, pd.NA, "") for quantity, value in own.items()]
    return pd.DataFrame(found, columns=COLUMNS).astype({"n": "Int64"})


def table(study: Results, kept: Kept) -> pd.DataFrame:
    """One row per form, ``source`` (a student of the paper, or ``this study``) and ``name``, in the form's unit.

    ``value``; ``low`` and ``high`` (95 % over problems or traces), ``n`` of them; ``note``: the judge, if there is one.
    Only forms of which the study has something. ``kept``: the tables of ``palign.report.tables.collect``.
    """
    judge = preference.name_of(study.params.preference_judge)
    rows = [
        (form, HERE, name, e.value, e.low, e.high, e.n, judge if form == "figure3d" else "")
        for form, spec in FORMS.items()
        for name, e in spec.measure(study, kept).items()
    ]
    own = pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64"})
    other = as_printed()
    both = pd.concat([other[other["form"].isin(own["form"])], own], ignore_index=True)
    return both.sort_values("form", key=lambda c: c.map(list(FORMS).index), kind="stable", ignore_index=True)


def wide(found: pd.DataFrame) -> Table:
    """:func:`table` for a reader: one row per quantity, one column per source."""
    if found.empty:
        return display.table(found)
    cells = [
        cell(r.value, r.low, r.high, "{:,.1f}")
        if pd.notna(r.low)
        else f"{r.value:,.0f}"
        if float(r.value).is_integer()
        else f"{r.value:,.1f}"
        for r in found.itertuples()
    ]
    notes = {r.form: f"; this study's judge: {r.note}" for r in found.itertuples() if r.note}
    what = [f"{FORMS[form].title}, {FORMS[form].unit}{notes.get(form, '')}" for form in found["form"]]
    found = found.assign(cell=cells, what=what)
    index = found[["what", "name"]].drop_duplicates()
    wide = found.pivot(index=["what", "name"], columns="source", values="cell").fillna("")
    order = sorted(dict.fromkeys(found["source"]), key=lambda source: source == HERE)
    wide = wide.reindex(index=pd.MultiIndex.from_frame(index), columns=order).rename_axis(index=["what", None])
    wide.columns = pd.MultiIndex.from_tuples([(name, "") if name == HERE else ("paper", name) for name in order])
    return display.table(wide)
