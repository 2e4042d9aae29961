"""The paper's printed numbers beside this study's, in the form of its figures and tables (3c, 3d, 4b; 4, 5, 7).

Other students, other problems, other lengths: what can be compared is the order and the proportions, not the values.
The paper prints no intervals; those here are of the study, and of printed shares whose counts are known.

>>> table(params).query("form == 'figure3c'")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..analysis import preference, statistics
from ..paper import printed
from . import tables
from ..tasks import plan
from ..params import Params
from ..analysis.statistics import Estimate
from ..analysis.sufficiency import over_traces

COLUMNS = ["form", "source", "name", "value", "low", "high", "n", "note"]
HERE = "this study"


@dataclass(frozen=True)
class Form:
    """One figure or table. ``names``: printed quantity -> its row; ``measure`` gives the study's rows that there are.

    Values are in ``unit``; a share is in percent.
    """

    title: str
    unit: str
    names: dict[str, str]
    measure: Callable[[Params], dict[str, Estimate]]


def _mean(values) -> Estimate:
    """Of one value a problem or trace, with a percentile interval over them."""
    return over_traces(list(np.asarray(values, dtype=float)[:, None, None]), np.mean)


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, estimate.n)


def _response_tokens(params: Params) -> dict[str, Estimate]:
    arms = [arm for arm in preference.PAPER_ARMS if arm in params.arms]
    if not arms:
        return {}
    grades = tables.grades(params.model_copy(update={"arms": arms}))
    means = grades.groupby(["arm", "benchmark", "problem"])["new_tokens"].mean()
    return {arm: _mean(means[arm]) for arm in arms}


def _preferred(params: Params) -> dict[str, Estimate]:
    return {arm: _percent(Estimate(**row)) for arm, row in preference.best(params).to_dict("index").items()}


def _segments(params: Params) -> dict[str, Estimate]:
    arms = [arm for arm in params.arms if arm.startswith("segment-")]
    if not arms:
        return {}
    rows = tables.main_average(tables.accuracy(params.model_copy(update={"arms": arms})), params)
    return {r.arm.removeprefix("segment-"): _percent(Estimate(r.value, r.low, r.high, r.n)) for r in rows.itertuples()}


def _lengths(params: Params) -> dict[str, Estimate]:
    frame = tables.prefixes(params)
    if frame.empty:
        return {}
    good = frame[frame["status"] == "ok"].set_index("id")
    pairs = tables.pairs(params).set_index("id")
    kept = pairs[pairs["kept"]]
    found = {"trace": _mean(frame["trace_tokens"]), "prefix": _mean(good["prefix_tokens"])}
    if len(kept):
        found["target"] = _mean(kept["new_tokens"] + good.loc[kept.index, "prefix_tokens"])
    return found


def _calls(params: Params) -> dict[str, Estimate]:
    found = {}
    for strategy, name in (("adaptive", "binary search"), ("linear", "linear scan")):
        if strategy in plan.strategies(params) and not (strategy == "adaptive" and params.search == "linear"):
            records = plan.truncation(params, strategy).require().read("prefixes")
            found[name] = _mean([len(record["verdicts"]) for record in records])
    return found


def _retention(params: Params) -> dict[str, Estimate]:
    if "adaptive" not in plan.strategies(params):
        return {}
    return {"kept": _percent(statistics.interval(tables.pairs(params)["kept"]))}


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
        "verdicts a trace, mean",
        {"judge_calls_linear_scan_mean": "linear scan", "judge_calls_binary_search_mean": "binary search"},
        _calls,
    ),
    "table7": Form("Table 7: kept by the filter", "% of pairs", {"kept_percent": "kept"}, _retention),
}


def printed() -> pd.DataFrame:
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


def table(params: Params) -> pd.DataFrame:
    """One row a form, ``source`` (a student of the paper, or ``this study``) and ``name``, in the form's unit.

    ``value``; ``low`` and ``high`` (95 % over problems or traces), ``n`` of them; ``note``: who judged, where that is a
    matter. Only forms of which the study has something.
    """
    rows = [
        (form, HERE, name, e.value, e.low, e.high, e.n, preference.name_of(params) if form == "figure3d" else "")
        for form, spec in FORMS.items()
        for name, e in spec.measure(params).items()
    ]
    own = pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64"})
    other = printed()
    both = pd.concat([other[other["form"].isin(own["form"])], own], ignore_index=True)
    return both.sort_values("form", key=lambda c: c.map(list(FORMS).index), kind="stable", ignore_index=True)


def wide(params: Params) -> pd.DataFrame:
    """:func:`table` as a reader wants it: a row a quantity, a column a source."""
    found = table(params)
    cells = [
        f"{r.value:,.1f}" + (f" [{r.low:,.1f}, {r.high:,.1f}]" if pd.notna(r.low) else "") for r in found.itertuples()
    ]
    notes = {r.form: f"; this study's judge: {r.note}" for r in found.itertuples() if r.note}
    what = [f"{FORMS[form].title}, {FORMS[form].unit}{notes.get(form, '')}" for form in found["form"]]
    found = found.assign(cell=cells, what=what)
    index = found[["what", "name"]].drop_duplicates()
    wide = found.pivot(index=["what", "name"], columns="source", values="cell").fillna("")
    return wide.reindex(index=pd.MultiIndex.from_frame(index), columns=list(dict.fromkeys(found["source"])))
