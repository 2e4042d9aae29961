"""The tables of the paper's audit as a reader sees them; ``palign.paper`` has the numbers.

>>> gains(main(paper_gains())).frame.columns[1]
('gain, points', 'independent')
"""

from __future__ import annotations

import math

import pandas as pd

from ..paper.printed import AVERAGE, SIZES, SOURCES, named
from .display import Table, table
from .texts import cell
from .views import metric_name


def _place(key: str) -> str:
    """``table1`` -> Table 1."""
    return SOURCES[key].split(":")[0] if key in SOURCES else key


def _places(text: str) -> str:
    for key in SOURCES:
        text = text.replace(key, _place(key))
    return text


def _setting(rows: pd.DataFrame) -> pd.Series:
    return named(rows) + ", " + rows["metric"].map(metric_name)


def cell_counts(found: pd.DataFrame) -> Table:
    """How many cells of each table and benchmark are not attainable."""
    return table(found.rename(index=_place).rename_axis("cells"))


def unattainable(found: pd.DataFrame) -> Table:
    """Cells that are not k/n, by student."""
    frame = pd.DataFrame(
        {
            "metric": found["metric"].map(metric_name),
            "printed, %": found["percent"].map("{:.2f}".format),
            "nearest k/n": found["nearest k/n"],
            "nearest k/(3n)": found["nearest k/(3n)"],
            "off, points": found["off"].map("{:.3f}".format),
            "attainable as": found["attainable"],
            "fewest samples": found["samples"],
        }
    )
    return table(frame)


def averages(found: pd.DataFrame) -> Table:
    """The printed averages that do not add up."""
    rows = found[~found["adds_up"]]
    frame = pd.DataFrame(
        {
            "student": rows["student"],
            "metric": rows["metric"].map(metric_name),
            "mean of the cells, %": rows["arithmetic"],
            "printed, %": rows["printed"].map("{:.2f}".format),
            "gap, points": rows["gap"].map("{:+.2f}".format),
        }
    )
    return table(frame.set_index([rows["table"].map(_place), rows["arm"]]))


def repeats(found: pd.DataFrame) -> Table:
    """Pairs of rows that agree without a reason."""
    rows = found[found["expected"] == ""]
    frame = pd.DataFrame(
        {
            ("row", ""): rows["row"].map(_places),
            ("repeats", ""): rows["repeats"].map(_places),
            ("apart", ""): rows["apart"],
            ("by chance once in", "problems alike"): rows["one_in"],
            ("by chance once in", "problems unlike, at least"): rows["one_in_at_least"],
        }
    )
    return table(frame.set_index([rows["student"], rows["metric"].map(metric_name)]))


def repeated_cells(found: pd.DataFrame) -> Table:
    """Single cells that are printed twice."""
    frame = pd.DataFrame(
        {"printed, %": found["percent"].map("{:.2f}".format), "printed for": found["printed for"].map(_places)}
    )
    return table(frame, labels={metric: metric_name(metric) for _, metric in found.index})


def gains(found: pd.DataFrame, scope: str = AVERAGE) -> Table:
    """The gains of one scope (``average``, ``pooled`` or a benchmark) with both intervals."""
    rows = found[found["scope"] == scope]
    both = {
        name: [cell(*one, "{:+.1f}") for one in rows[["gain", *bounds]].itertuples(index=False)]
        for name, bounds in (("independent", ("low", "high")), ("best pairing", ("best_low", "best_high")))
    }
    frame = pd.DataFrame({("gain, points", name): cells for name, cells in both.items()})
    frame["p", "best pairing"] = [f"{p:.2g}" for p in rows["p_best"]]
    return table(frame.set_index([pd.Index(_setting(rows), name="setting"), pd.Index(rows["worse"], name="minus")]))


def needed(found: pd.DataFrame) -> Table:
    """Problems that would settle each gain, if it is the true one: under independence, in brackets at best pairing."""
    cells = [_needed(*pair) for pair in zip(found["needed"], found["needed_best"], strict=True)]
    rows = found.assign(setting=_setting(found), cell=cells)
    keys = ["setting", "worse"]
    wide = rows.pivot(index=keys, columns="scope", values="cell")
    wide = wide.reindex(index=rows.set_index(keys).index.unique(), columns=[*SIZES, *_summaries(rows)])
    wide.columns = pd.MultiIndex.from_product([["problems"], wide.columns])
    samples = rows[rows["scope"] == AVERAGE].set_index(keys)["samples"]
    wide["samples per problem", AVERAGE] = samples.map(lambda n: "" if math.isnan(n) else f"{n:,.0f}")
    return table(wide.rename_axis(index=["setting", "minus"]))


def _summaries(rows: pd.DataFrame) -> list[str]:
    return [scope for scope in rows["scope"].unique() if scope not in SIZES]


def _needed(independent: float, best: float) -> str:
    return "no gain" if math.isnan(independent) else f"{independent:,.0f} ({best:,.0f})"


def detectable(found: pd.DataFrame) -> Table:
    """The smallest true differences that the benchmarks find."""
    frame = found.copy()
    start, title = "correlation ", "points, if two arms' outcomes correlate by"
    frame.columns = pd.MultiIndex.from_tuples(
        [(title, name.removeprefix(start)) if name.startswith(start) else (name, "") for name in found]
    )
    return table(frame)


def claims(found: pd.DataFrame) -> Table:
    """Every claim, by the table or figure of the paper: its verdict, gain, and in how many settings it is clear."""
    frame = pd.DataFrame(
        {
            ("verdict", ""): found["verdict"],
            ("gain, points", ""): found["gain (points)"],
            ("distinguishable in settings", "independent"): found["independent"],
            ("distinguishable in settings", "best pairing"): found["best pairing"],
            ("remarks", ""): found["remarks"],
        }
    )
    return table(frame.set_index([found["where"], found.index]))


def lengths(found: pd.DataFrame) -> Table:
    """Table 4: tokens of trace, prefix and target."""
    titles = {"long_cot_tokens": "trace", "prefix_tokens": "prefix", "p_align_tokens": "target"}
    parts = {"prefix_of_trace": "of the trace", "prefix_of_target": "of the target"}
    spans = {name: ("tokens, mean", title) for name, title in titles.items()}
    spans |= {name: ("prefix, %", title) for name, title in parts.items()}
    frame = found[list(spans)]
    frame.columns = pd.MultiIndex.from_tuples(spans.values())
    return table(frame)


def response_lengths(found: pd.DataFrame) -> Table:
    """Figure 3c: tokens of responses."""
    frame = found.copy()
    frame.columns = pd.MultiIndex.from_tuples(
        [("tokens per response, mean", name) if name != "saved" else ("p-align shorter by, %", "") for name in found]
    )
    return table(frame)


def preferences(found: pd.DataFrame) -> Table:
    """Figure 3d: comparisons won."""
    frame = found.copy()
    titles = {"comparisons_needed": ("comparisons needed", "")}
    frame.columns = pd.MultiIndex.from_tuples([titles.get(name, ("% of comparisons won", name)) for name in found])
    return table(frame)


def thirds(found: pd.DataFrame) -> Table:
    """Figure 4b: accuracy by third of the trace, and the beginning's lead."""
    titles = {
        "over_middle": ("lead of the prefix, points", "over the middle"),
        "over_suffix": ("lead of the prefix, points", "over the suffix"),
        "half_width": ("lead of the prefix, points", "half of its 95 % interval"),
    }
    frame = found.copy()
    frame.columns = pd.MultiIndex.from_tuples([titles.get(name, ("average accuracy, %", name)) for name in found])
    return table(frame)


def released(found: pd.DataFrame | None, digits: int = 1) -> Table:
    """A table on the released outputs; empty where none are given."""
    found = pd.DataFrame() if found is None else found
    return table(found.rename(columns=_united), labels={"right (%)": "right, %"}, digits=digits)


def _united(name: str) -> str:
    return name.replace(" (%)", ", %")
