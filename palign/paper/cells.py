"""Which printed cells can be what they are said to be, which averages add up, which rows repeat.

With n problems and three samples of each, Pass@3 is k/n, and Pass@1 is k/n (one sample) or k/(3n) (their mean).
Accuracies are in percent as printed, differences in points. No library does this; it is counting in whole numbers.

>>> cells().query("table == 'table1' and attainable == 'neither'")
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .printed import AVERAGE, SETTING, SIZES, TEACHER, accuracy, named


def attainable(percent: float, n: int) -> bool:
    """Whether some k of ``n``, rounded or cut to two decimals, is printed as ``percent``: within 0.01 points of it.

    In whole numbers, so that no float decides. ``percent`` has at most two decimals.
    """
    rest = round(100 * percent) * n % 10_000
    return min(rest, 10_000 - rest) < n


def samples_needed(percent: float, n: int, metric: str) -> int:
    """The fewest samples a problem with which ``percent`` is attainable.

    The mean over s samples is k/(s n). Pass@3 by the unbiased estimator over s samples is a multiple of 1/(C(s,3) n).
    Always found: from 61 samples of 83 problems on, every number of two decimals is attainable.
    """
    if metric == "pass@3":
        return next(s for s in itertools.count(3) if attainable(percent, math.comb(s, 3) * n))
    return next(s for s in itertools.count(1) if attainable(percent, s * n))


def _around(percent: float, n: int) -> list[int]:
    """The whole numbers k below and above ``percent`` of ``n``."""
    below = math.floor(percent * n / 100)
    return [k for k in (below, below + 1) if k <= n]


def _spelt(percent: float, n: int) -> str:
    return ", ".join(f"{k}/{n} = {100 * k / n:.2f}" for k in _around(percent, n))


def cells() -> pd.DataFrame:
    """One row a printed cell, averages left out. With three samples Pass@3 is k/n, and Pass@1 k/n or k/(3n).

    ``attainable``: ``k/n``, ``k/(3n)`` or ``neither``. ``off``: points to the nearest value that the metric can take.
    ``nearest_n``, ``nearest_3n``: the values around the cell. ``samples``: see :func:`samples_needed`.
    """
    table = accuracy()
    table = table[table["benchmark"] != AVERAGE].reset_index(drop=True)
    rows = []
    for cell in table.itertuples():
        n, mean = SIZES[cell.benchmark], cell.metric != "pass@3"  # Table 9's "accuracy" is taken for a Pass@1
        finest = 3 * n if mean else n
        grid = "k/n" if attainable(cell.percent, n) else "k/(3n)" if attainable(cell.percent, finest) else "neither"
        off = min(abs(100 * k / finest - cell.percent) for k in _around(cell.percent, finest))
        rows.append({"n": n, "attainable": grid, "off": round(off, 3), "nearest_n": _spelt(cell.percent, n)})
        rows[-1] |= {"nearest_3n": _spelt(cell.percent, finest) if mean else ""}
        rows[-1] |= {"samples": samples_needed(cell.percent, n, cell.metric)}
    return table.join(pd.DataFrame(rows))


def cell_counts() -> pd.DataFrame:
    """Tables x benchmarks: printed cells, of these not k/n, and of these neither k/n nor (Pass@1) k/(3n)."""
    table = cells()
    groups = table.groupby(["table", "benchmark"])["attainable"]
    found = groups.agg(cells="size", not_n=lambda g: (g != "k/n").sum(), neither=lambda g: (g == "neither").sum())
    words = [f"{r.not_n} and {r.neither} of {r.cells}" if r.not_n else f"none of {r.cells}" for r in found.itertuples()]
    return pd.Series(words, index=found.index).unstack(fill_value="").rename_axis(columns=None)


def unattainable(table: str) -> pd.DataFrame:
    """The AMC12 cells of one table that are not k/n, each with the nearest values it could take."""
    rows = cells().query("table == @table and benchmark == 'AMC12' and attainable != 'k/n'")
    shown = rows.assign(student=named(rows)).set_index(["student", "arm"])
    shown = shown[["metric", "percent", "nearest_n", "nearest_3n", "off", "attainable", "samples"]]
    return shown.rename(columns={"nearest_n": "nearest k/n", "nearest_3n": "nearest k/(3n)"})


def unattainable_text() -> str:
    """The finding on Table 1 in one paragraph."""
    table = cells().query("table == 'table1' and benchmark == 'AMC12'")
    off = table[table["attainable"] != "k/n"]
    neither = off[~off["percent"].map(lambda p: attainable(p, 3 * SIZES["AMC12"]))]
    near = neither.sort_values("off").iloc[0]
    return (
        f"In Table 1, {len(off)} of {len(table)} AMC12 cells are not k/83, and {len(neither)} of these are not k/249 "
        f"either. The closest call is {near.percent} ({near.nearest_3n}), {near.off:.3f} points off: who allows 0.015 "
        f"instead of 0.01 counts {len(neither) - 1}. P-ALIGN's {(table['arm'] == 'p-align').sum()} cells are all k/83."
    )


def by_samples(most: int = 61) -> pd.DataFrame:
    """Would another number of samples explain the cells? One row a number ``samples``, 1 to ``most``.

    ``cells``: of the distinct AMC12 Pass@1 cells that are not k/83, the share that is k/(samples x 83); ``any_number``:
    of all numbers of two decimals, the share that is. Fractions.
    """
    n = SIZES["AMC12"]
    table = cells().query("benchmark == 'AMC12' and metric != 'pass@3' and attainable != 'k/n'")
    percents = table.drop_duplicates(["student", "arm", "percent"])["percent"]
    numbers = np.arange(10_001) / 100
    rows = [
        {
            "samples": s,
            "cells": np.mean([attainable(p, s * n) for p in percents]),
            "any_number": np.mean([attainable(p, s * n) for p in numbers]),
        }
        for s in range(1, most + 1)
    ]
    return pd.DataFrame(rows).assign(n=len(percents))


def samples_text(table: pd.DataFrame) -> str:
    """What :func:`by_samples` says, in a sentence."""
    whole = table[table["cells"] == 1].iloc[0]
    ahead = (table["cells"] - table["any_number"]).max()
    return (
        f"The fewest samples that make all {whole['n']:.0f} cells attainable are {whole['samples']:.0f}, with which "
        f"{100 * whole['any_number']:.0f} % of all numbers of two decimals are. At no number of samples are the cells "
        f"more than {100 * ahead:.0f} points ahead of any numbers: no single number of samples below "
        f"{whole['samples']:.0f} explains them all."
    )


def one_sample_text() -> str:
    """Whether Pass@1 is one sample or the mean of three, by the benchmarks whose cells are all attainable."""
    table = cells().query("metric == 'pass@1' and benchmark != 'AMC12' and table != 'table8'")
    whole = (table["attainable"] == "k/n").sum()
    return (
        f"{whole} of the {len(table)} Pass@1 cells on AIME24, AIME25 and MATH500 (Tables 1, 2, 6) are k/n. A mean of "
        "three samples falls on k/n about one time in three, so these are single samples, and on AIME one problem "
        f"is {100 / SIZES['AIME24']:.2f} points."
    )


def averages(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a printed average: ``mean`` of the printed cells, ``gap`` (printed - mean), ``adds_up``.

    Cells and average each may be 0.005 off by rounding (or up to 0.01 low by cutting, all of them): a gap of up to
    0.01 points adds up.
    """
    table = accuracy() if table is None else table
    rows = []
    for key, group in table.groupby(SETTING, sort=False):
        by_name = group.set_index("benchmark")["percent"]
        if AVERAGE in by_name:
            parts = by_name.drop(AVERAGE)
            gap = 100 * by_name[AVERAGE] - (100 * parts).round().sum() / len(parts)
            words = f"({' + '.join(f'{p:.2f}' for p in parts)}) / {len(parts)} = {parts.mean():.4f}"
            rows.append(
                dict(zip(SETTING, key, strict=True))
                | {"printed": by_name[AVERAGE], "mean": parts.mean(), "gap": round(gap / 100, 4)}
                | {"adds_up": bool(abs(gap) <= 1 + 1e-9), "arithmetic": words}
            )
    return pd.DataFrame(rows)


def chance(percents: Sequence[float], sizes: Sequence[int]) -> float:
    """The chance that two independent runs of these accuracies print the same cells, all of them.

    As if each problem were solved with the same chance. Where three problems in four are always solved or never, each
    cell repeats about twice as easily.
    """
    from scipy.stats import binom

    agree = [(binom.pmf(np.arange(n + 1), n, p / 100) ** 2).sum() for p, n in zip(percents, sizes, strict=True)]
    return float(np.prod(agree))


def repeats(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Pairs of rows with at least three benchmarks in common that agree in all of their cells, or in all but one.

    Rows are compared metric by metric. ``expected``: why the repeat says nothing, or empty. ``one_in``: see
    :func:`chance`, for the cells that agree, as 1 in so many; ``one_in_at_least`` with the factor of two a cell.
    """
    table = accuracy() if table is None else table
    table = table[table["benchmark"] != AVERAGE]
    rows = {
        key: group.set_index("benchmark")["percent"] for key, group in table.groupby(SETTING, sort=False, dropna=False)
    }
    found = []
    for (a, x), (b, y) in itertools.combinations(rows.items(), 2):
        shared = [name for name in x.index if name in y.index]
        same = [name for name in shared if x[name] == y[name]]
        if a[-1] != b[-1] or len(shared) < 3 or len(same) < len(shared) - 1:
            continue
        p = chance(x[same], [SIZES[name] for name in same])
        apart = "; ".join(f"{name} {x[name]} and {y[name]}" for name in shared if name not in same)
        found.append(
            {"student": a[1], "arm": a[3], "metric": a[4], "row": _where(a), "repeats": _where(b)}
            | {"cells": len(shared), "apart": apart, "expected": _expected(a, b)}
            | {"one_in": round(1 / p), "one_in_at_least": round(1 / p / 2 ** len(same))}
        )
    return pd.DataFrame(found)


def repeats_text(table: pd.DataFrame) -> str:
    """What :func:`repeats` says of the pairs that nothing makes expect, in a sentence."""
    open_ = table[table["expected"] == ""]
    whole, apart = open_[open_["apart"] == ""], open_[open_["apart"] != ""]
    return (
        f"{len(open_)} pairs of P-ALIGN's rows under different teachers agree: {len(whole)} in all four cells, "
        f"{len(apart)} in all but one ({', '.join(apart['apart'].unique())}). Two independent runs would print "
        f"four equal cells about once in {whole['one_in'].min():,} to {whole['one_in'].max():,}, once in "
        f"{whole['one_in_at_least'].min():,} or more if most problems are always solved or never."
    )


def _where(key: tuple) -> str:
    return f"{key[0]}, {key[2]}"


def _expected(a: tuple, b: tuple) -> str:
    """Why two rows should agree; empty where nothing says so. Keys as in ``SETTING``."""
    if a[1:] == b[1:]:
        return "the same setting, printed twice"
    if a[3] == b[3] == "zero-shot" and a[1] == b[1]:
        return "the teacher has no part in zero-shot"
    return ""


def repeated_cells() -> pd.DataFrame:
    """AMC12 cells that are not k/83 and are printed for two settings, where no whole row repeats."""
    table = cells().query("benchmark == 'AMC12' and attainable != 'k/n' and arm != 'zero-shot'")
    twice = table[table.duplicated(["student", "metric", "percent"], keep=False)]
    under = twice["teacher"].map(lambda name: "" if name == TEACHER else f" ({name})")
    groups = (
        twice.assign(where=twice["table"] + ", " + twice["arm"] + under)
        .groupby(["student", "metric", "percent"])["where"]
        .agg(" and ".join)
    )
    return groups.to_frame("printed for").reset_index("percent")
