"""Two studies side by side, from their report folders alone: ``palign compare reports/a reports/b``.

Problems are the same where they ask the same, whatever their place. A benchmark of which both studies hold the same
problems is compared problem by problem; where fewer than half are shared, as two samples of problems.

>>> a, b = load(Path("reports/pocket")), load(Path("reports/pocket-other-teacher"))
>>> table(a, b).query("benchmark == 'average' and metric == 'pass@1'")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from . import statistics
from .report import AVERAGE
from .store import visible

METRICS = {"pass@1": 1, "pass@3": 3}
NOT_SETTINGS = {"study", "costs"}


class CompareError(ValueError):
    """A folder that is no report, or two reports with nothing in common; the message is one line."""


@dataclass(frozen=True)
class Study:
    """``problems`` as :func:`palign.report.problems` gives it; ``params`` as they took effect."""

    folder: Path
    params: dict
    problems: pd.DataFrame

    @property
    def name(self) -> str:
        return self.params["study"]

    def arms(self) -> list[str]:
        return [arm for arm in self.params["arms"] if arm in self.problems.columns.levels[0]]

    def budgets(self) -> list[int]:
        return [b for b in (self.params["max_new_tokens"], self.params["second_budget"]) if b]

    def values(self, arm: str, metric: str, budget: int) -> dict[str, pd.Series]:
        """Benchmark -> Pass@k by problem, of each training seed, then averaged over the seeds."""
        counts = self.problems[arm].xs(budget, axis=1, level="budget")
        shares = counts.apply(
            lambda seed: statistics.pass_at_k(seed.to_numpy(), self.params["n_samples"], METRICS[metric])
        )
        return {name: group.droplevel(0) for name, group in shares.mean(axis=1).groupby(level=0, sort=False)}


def load(folder: Path) -> Study:
    """Raises :class:`CompareError` for a folder that holds no report, or one that keeps no outcomes by problem."""
    problems, params = folder / "tables" / "problems.csv", folder / "params.yaml"
    for path in (problems, params):
        if not path.is_file():
            raise CompareError(f"{path}: no such file; run the study again, its report now keeps what is compared")
    try:
        table = pd.read_csv(problems, header=[0, 1, 2], index_col=[0, 1], dtype={1: str})
        table.columns = table.columns.set_levels([table.columns.levels[i].astype(int) for i in (1, 2)], level=[1, 2])
        values = yaml.safe_load(params.read_text(encoding="utf-8"))
        table.columns.names, table.index.names = ["arm", "seed", "budget"], ["benchmark", "problem"]
        study = Study(folder, values, table)
        study.name, study.budgets(), study.arms()
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CompareError(f"{folder}: not a report of palign ({type(error).__name__}); run the study again") from error
    return study


def table(a: Study, b: Study) -> pd.DataFrame:
    """One row an arm of both, metric, budget (tokens) and benchmark, ``average`` last: fractions.

    ``a`` and ``b`` with ``_low`` and ``_high`` (95 %), on the problems compared; ``value``, ``low``, ``high`` of b less
    a; ``how`` they were compared, on ``n`` problems. For the average also ``p``, ``p_holm``, corrected for the arms
    compared, and ``clear``: an interval without zero and a corrected p below 0.05. Raises :class:`CompareError` where
    the two have no arm, benchmark or budget in common.
    """
    arms = [arm for arm in a.arms() if arm in b.arms()]
    budgets = [budget for budget in a.budgets() if budget in b.budgets()]
    shared = _shared(a, b)
    for what, common in (("arm", arms), ("response budget", budgets), ("benchmark", shared)):
        if not common:
            raise CompareError(f"{a.folder} and {b.folder} have no {what} in common; there is nothing to compare")
    samples = min(a.params["n_samples"], b.params["n_samples"])
    rows = []
    for metric in (name for name, k in METRICS.items() if k <= samples):
        for budget in budgets:
            averages = []
            for arm in arms:
                cells = _cells(a.values(arm, metric, budget), b.values(arm, metric, budget), shared)
                at = {"arm": arm, "metric": metric, "budget": budget}
                rows += [at | {"benchmark": name} | _row(*cell) for name, cell in cells.items()]
                x, y, paired = [*cells.values()][-1]
                rows[-1]["p"] = statistics.paired_test(y, x).p if paired else statistics.unpaired_test(y, x)
                averages.append(rows[-1])
            for row, p in zip(averages, statistics.holm([row["p"] for row in averages]), strict=True):
                row |= {"p_holm": p, "clear": bool(p < 0.05 and (row["low"] > 0 or row["high"] < 0))}
    return pd.DataFrame(rows)


def _shared(a: Study, b: Study) -> dict[str, pd.Index | None]:
    """Benchmark of both -> the problems to compare on, in one order; ``None``: each study's own."""
    found = {}
    ours, theirs = (study.problems.index for study in (a, b))
    for name in ours.unique(0):
        if name in theirs.unique(0):
            x, y = (index[index.get_level_values(0) == name].droplevel(0) for index in (ours, theirs))
            both = x.intersection(y).sort_values()
            found[name] = both if len(both) > 1 and 2 * len(both) >= min(len(x), len(y)) else None
    return found


def _cells(x: dict[str, pd.Series], y: dict[str, pd.Series], shared: dict) -> dict[str, tuple[list, list, bool]]:
    """Benchmark, and the average of several -> both studies' values by problem, and whether these are the same ones."""
    cells = {}
    for name, both in shared.items():
        pair = [values[name] if both is None else values[name].loc[both] for values in (x, y)]
        cells[name] = (*([values.to_numpy()] for values in pair), both is not None)
    if len(cells) > 1:
        x, y = ([group for cell in cells.values() for group in cell[side]] for side in (0, 1))
        cells[AVERAGE] = (x, y, all(paired for *_, paired in cells.values()))
    return cells


def _row(x: list[np.ndarray], y: list[np.ndarray], paired: bool) -> dict:
    a, b = statistics.average(x), statistics.average(y)
    difference = statistics.paired_difference(y, x) if paired else statistics.unpaired_difference(y, x)
    return {
        **{"a": a.value, "a_low": a.low, "a_high": a.high, "b": b.value, "b_low": b.low, "b_high": b.high},
        **vars(difference),
        "how": "paired" if paired else "unpaired",
    }


def settings(a: Study, b: Study) -> pd.DataFrame:
    """The parameters that differ, one row each; what is missing in one is empty."""
    keys = [key for key in {**a.params, **b.params} if key not in NOT_SETTINGS]
    rows = {key: (a.params.get(key), b.params.get(key)) for key in keys if a.params.get(key) != b.params.get(key)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["a", "b"])


def beside(a: Study, b: Study) -> pd.DataFrame:
    """Mean tokens of a response, and the student's until an arm is trained: from the reports' own tables."""
    parts = {}
    for file, column, name in (("responses", "tokens_mean", "a response"), ("spent", "total", "until trained")):
        for which, study in (("a", a), ("b", b)):
            path = study.folder / "tables" / f"{file}.csv"
            if path.is_file():
                parts[name, which] = pd.read_csv(path, index_col=0)[column]
    table = pd.concat(parts, axis=1) if parts else pd.DataFrame()
    return table.reindex([arm for arm in a.arms() if arm in b.arms()])


def text(a: Study, b: Study) -> str:
    """What the terminal shows: the settings that differ, the averages (benchmarks are in :func:`table`), the tokens."""
    parts = [
        f"a: {a.name} ({a.folder})\nb: {b.name} ({b.folder})",
        "Settings that differ\n\n" + (_lines(settings(a, b).map(_short)) or "none"),
        "In points, 95 % intervals over problems; clear: an interval without zero and p, Holm below 0.05\n\n"
        + _lines(_shown(table(a, b).dropna(subset="p"))),
        "Tokens\n\n" + _lines(beside(a, b).round(0)),
    ]
    return "\n\n".join(part for part in parts if not part.endswith("\n\n"))


def _lines(table: pd.DataFrame) -> str:
    return table.to_string() if len(table) else ""


def _short(value: object) -> str:
    text = visible(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    def points(value: str, sign: str = "") -> list[str]:
        bounds = [name if value == "value" else f"{value}_{name}" for name in ("low", "high")]
        return [
            "{:{s}.1f} [{:{s}.1f}, {:{s}.1f}]".format(*cell, s=sign)
            for cell in (100 * rows[[value, *bounds]]).itertuples(index=False)
        ]

    shown = rows[["metric", "budget", "arm"]].assign(
        a=points("a"), b=points("b"), **{"b - a": points("value", "+"), "n": rows["n"], "how": rows["how"]}
    )
    shown["p, Holm"] = [f"{p:.2g}" for p in rows["p_holm"]]
    shown["clear"] = ["yes" if clear else "no" for clear in rows["clear"]]
    return shown.set_index(["metric", "budget", "arm"])
