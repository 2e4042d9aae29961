"""Which printed cells are attainable, which printed averages add up, which rows repeat.

With n problems and three samples of each, Pass@3 is k/n, and Pass@1 is k/n (one sample) or k/(3n) (the mean of three).
Accuracies are in percent as printed, differences in points. The counts are whole numbers; no library does this.

>>> cells().query("table == 'table1' and attainable == 'neither'")
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .printed import AVERAGE, SETTING, SIZES, TEACHER, accuracy, named


def attainable(percent: ArrayLike, n: int) -> np.ndarray:
    """Whether some k of ``n`` lies within 0.01 points of ``percent``, and so may be printed like that, rounded or cut.

    ``percent``: one number or an array, of two decimals at most; the result has its shape. Computed in whole numbers,
    so that rounding of floats decides nothing.
    """
    rest = np.rint(100 * np.asarray(percent)).astype(int) * n % 10_000
    return np.minimum(rest, 10_000 - rest) < n


def samples_needed(percent: float, n: int, metric: str) -> int:
    """The fewest samples per problem with which ``percent`` is attainable.

    The mean over s samples is k/(s n). Pass@3 by the unbiased estimator over s samples is a multiple of 1/(C(s,3) n).
    The search always ends: with 61 or more samples of 83 problems, every number of two decimals is attainable.
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
    """One row per printed cell, without the averages. With three samples Pass@3 is k/n, and Pass@1 k/n or k/(3n).

    ``attainable``: ``k/n``, ``k/(3n)`` or ``neither``. ``off``: points to the nearest value that the metric can take.
    ``nearest_n``, ``nearest_3n``: the two values around the cell. ``samples``: see :func:`samples_needed`.
    """
    table = accuracy()
    table = table[table["benchmark"] != AVERAGE].reset_index(drop=True)
    rows = []
    for cell in table.itertuples():
        n, mean = SIZES[cell.benchmark], cell.metric != "pass@3"  # Table 9's "accuracy" is taken to be Pass@1
        finest = 3 * n if mean else n
        grid = "k/n" if attainable(cell.percent, n) else "k/(3n)" if attainable(cell.percent, finest) else "neither"
        off = min(abs(100 * k / finest - cell.percent) for k in _around(cell.percent, finest))
        rows.append({"n": n, "attainable": grid, "off": round(off, 3), "nearest_n": _spelt(cell.percent, n)})
        rows[-1] |= {"nearest_3n": _spelt(cell.percent, finest) if mean else ""}
        rows[-1] |= {"samples": samples_needed(cell.percent, n, cell.metric)}
    return table.join(pd.DataFrame(rows))


def cell_counts() -> pd.DataFrame:
    """Tables x benchmarks: how many cells are printed, are not k/n, and are neither k/n nor (Pass@1) k/(3n)."""
    table = cells()
    groups = table.groupby(["table", "benchmark"])["attainable"]
    found = groups.agg(cells="size", not_n=lambda g: (g != "k/n").sum(), neither=lambda g: (g == "neither").sum())
    words = [f"{r.not_n} and {r.neither} of {r.cells}" if r.not_n else f"none of {r.cells}" for r in found.itertuples()]
    return pd.Series(words, index=found.index).unstack(fill_value="").rename_axis(columns=None)


def unattainable(table: str) -> pd.DataFrame:
    """The AMC12 cells of one table that are not k/n, each with the attainable values around it."""
    rows = cells().query("table == @table and benchmark == 'AMC12' and attainable != 'k/n'")
    shown = rows.assign(student=named(rows)).set_index(["student", "arm"])
    shown = shown[["metric", "percent", "nearest_n", "nearest_3n", "off", "attainable", "samples"]]
    return shown.rename(columns={"nearest_n": "nearest k/n", "nearest_3n": "nearest k/(3n)"})


def unattainable_text() -> str:
    """The finding on Table 1, in one paragraph."""
    table = cells().query("table == 'table1' and benchmark == 'AMC12'")
    off = table[table["attainable"] != "k/n"]
    neither = off[~attainable(off["percent"], 3 * SIZES["AMC12"])]
    near = neither.sort_values("off").iloc[0]
    return (
        f"In Table 1, {len(off)} of {len(table)} AMC12 cells are not k/83, and {len(neither)} of these are not k/249 "
        f"either. The closest of these is {near.percent} ({near.nearest_3n}), {near.off:.3f} points off. With a "
        f"tolerance of 0.015 points instead of 0.01, {len(neither) - 1} remain. All "
        f"{(table['arm'] == 'p-align').sum()} cells of P-ALIGN are k/83."
    )


def by_samples(most: int = 61) -> pd.DataFrame:
    """Whether another number of samples would explain the cells: one row per number ``samples``, 1 to ``most``.

    ``cells``: the share (a fraction) of the distinct AMC12 Pass@1 cells that are not k/83 but are k/(samples x 83);
    ``any_number``: the share of all numbers of two decimals from 0 to 100 that are. ``n``: how many such cells.
    """
    n = SIZES["AMC12"]
    table = cells().query("benchmark == 'AMC12' and metric != 'pass@3' and attainable != 'k/n'")
    percents = table.drop_duplicates(["student", "arm", "percent"])["percent"]
    numbers = np.arange(10_001) / 100
    rows = [
        {"samples": s, "cells": attainable(percents, s * n).mean(), "any_number": attainable(numbers, s * n).mean()}
        for s in range(1, most + 1)
    ]
    return pd.DataFrame(rows).assign(n=len(percents))


def samples_text(table: pd.DataFrame) -> str:
    """The finding of :func:`by_samples`, in words."""
    whole = table[table["cells"] == 1].iloc[0]
    ahead = (table["cells"] - table["any_number"]).max()
    return (
        f"No number of samples below {whole['samples']:.0f} explains all {whole['n']:.0f} cells. With "
        f"{whole['samples']:.0f} samples, {100 * whole['any_number']:.0f} % of all numbers of two decimals are "
        "attainable. The share of these cells that is attainable exceeds the share of all numbers by at most "
        f"{100 * ahead:.0f} points, at any number of samples."
    )


def one_sample_text() -> str:
    """Whether Pass@1 is one sample or the mean of three, judged by the benchmarks whose cells are all attainable."""
    table = cells().query("metric == 'pass@1' and benchmark != 'AMC12' and table != 'table8'")
    whole = (table["attainable"] == "k/n").sum()
    return (
        f"{whole} of the {len(table)} Pass@1 cells on AIME24, AIME25 and MATH500 (Tables 1, 2, 6) are k/n. A mean of "
        "three samples is k/n about one time in three, so these cells are single samples. On AIME one problem is "
        f"{100 / SIZES['AIME24']:.2f} points."
    )


def averages(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per printed average: ``mean`` of the printed cells, ``gap`` (printed - mean, in points), ``adds_up``.

    Rounding moves each cell and the average by up to 0.005 points, and cutting lowers each by up to 0.01 points, so an
    average with a gap of up to 0.01 points adds up. ``arithmetic``: the mean, written out.
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
    """The chance that two independent runs with these accuracies print the same number in every cell.

    ``percents`` and ``sizes``: accuracy and number of problems, one per cell. Every problem is taken to be solved with
    the same probability. If three problems in four are always or never solved, a cell repeats about twice as often.
    """
    from scipy.stats import binom

    agree = [(binom.pmf(np.arange(n + 1), n, p / 100) ** 2).sum() for p, n in zip(percents, sizes, strict=True)]
    return float(np.prod(agree))


def repeats(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Pairs of rows of one metric, with three or more benchmarks in common, that agree in all cells or in all but one.

    ``cells``: how many they have in common. ``apart``: the cell that differs, or empty. ``expected``: why the rows
    should agree, or empty. ``one_in``: 1 / :func:`chance` of the cells that agree; ``one_in_at_least``: the same with
    each cell repeating twice as often.
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
    """The finding of :func:`repeats` on the pairs that have no reason to agree, in words."""
    open_ = table[table["expected"] == ""]
    whole, apart = open_[open_["apart"] == ""], open_[open_["apart"] != ""]
    return (
        f"{len(open_)} pairs of P-ALIGN's rows under different teachers agree: {len(whole)} in all four cells, "
        f"{len(apart)} in all but one ({', '.join(apart['apart'].unique())}). Two independent runs would print four "
        f"equal cells about once in {whole['one_in'].min():,} to {whole['one_in'].max():,} cases; if most problems are "
        f"always or never solved, once in {whole['one_in_at_least'].min():,} cases or more."
    )


def _where(key: tuple) -> str:
    return f"{key[0]}, {key[2]}"


def _expected(a: tuple, b: tuple) -> str:
    """Why two rows should agree, or empty. ``a`` and ``b``: their values of :data:`palign.paper.printed.SETTING`."""
    if a[1:] == b[1:]:
        return "the same setting, printed twice"
    if a[3] == b[3] == "zero-shot" and a[1] == b[1]:
        return "the teacher has no part in zero-shot"
    return ""


def repeated_cells() -> pd.DataFrame:
    """AMC12 cells that are not k/83 and are printed for two settings of one student; zero-shot rows are left out."""
    table = cells().query("benchmark == 'AMC12' and attainable != 'k/n' and arm != 'zero-shot'")
    twice = table[table.duplicated(["student", "metric", "percent"], keep=False)]
    under = twice["teacher"].map(lambda name: "" if name == TEACHER else f" ({name})")
    groups = (
        twice.assign(where=twice["table"] + ", " + twice["arm"] + under)
        .groupby(["student", "metric", "percent"])["where"]
        .agg(" and ".join)
    )
    return groups.to_frame("printed for").reset_index("percent")
