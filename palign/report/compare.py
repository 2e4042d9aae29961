"""Two studies compared, from their report folders only: ``palign compare reports/a reports/b``.

Two problems are the same if their questions are equal; ids do not matter. A benchmark of which both studies hold the
same problems is compared problem by problem; where fewer than half are shared, as two samples of problems.

>>> a, b = load(Path("reports/pocket")), load(Path("reports/pocket-other-teacher"))
>>> table(a, b).query("benchmark == 'average' and metric == 'pass@1'")
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..analysis import statistics
from ..params import ParamsError
from ..params import load as load_params
from ..tasks.store import visible
from .results import ANSWERED, METRICS, Outcomes, aligned, as_arrays, budgets, portable
from .tables import AVERAGE, UNTESTED, estimated, judged

OLDER = "the report is an older palign's; delete its report.html and run the study again"


class CompareError(ValueError):
    """A folder that is not a report, or two reports with nothing in common; the message is one line."""


@dataclass(frozen=True)
class Study:
    """A study's report folder, and what it keeps of the outcomes."""

    folder: Path
    outcomes: Outcomes

    @property
    def params(self):
        return self.outcomes.params

    @property
    def arms(self) -> list[str]:
        return self.params.arms

    @property
    def budgets(self) -> list[int]:
        """The response budgets in tokens, the main one first."""
        return budgets(self.params)


def load(folder: Path) -> Study:
    """Raises :class:`CompareError` for a folder that holds no report, for one without outcomes by problem, and for one
    whose parameters this palign does not know.
    """
    problems, params = folder / "tables" / "problems.csv", folder / "params.yaml"
    if not (folder / "headline.json").is_file():
        raise CompareError(f"{folder}: not a study's report folder, which has a headline.json")
    for path in (problems, params):
        if not path.is_file():
            raise CompareError(f"{path}: no such file: {OLDER}")
    try:
        study = Study(folder, Outcomes(load_params(params), _problems(problems)))
    except ParamsError as error:
        raise CompareError(f"{str(error).splitlines()[0]}: {OLDER}") from None
    sizes = {benchmark.name: benchmark.problems for benchmark in study.params.benchmarks}
    try:
        if study.outcomes.counts.groupby(level=0).size().to_dict() != sizes:
            raise ValueError(f"{len(study.outcomes.counts)} problems, not those of the study's benchmarks")
        study.outcomes.check()
        for arm, budget in itertools.product(study.params.arms, budgets(study.params)):
            study.outcomes.values(arm, "pass@1", budget)
    except (ValueError, KeyError) as error:
        raise _damaged(problems, error) from None
    return study


def _problems(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, header=[0, 1, 2], index_col=[0, 1], dtype={0: str, 1: str})
        table.columns = table.columns.set_levels(table.columns.levels[1].astype(int), level=1)
        table.columns.names, table.index.names = ["arm", "seed", "count"], ["benchmark", "problem"]
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    if ANSWERED not in table.columns.levels[2]:
        raise CompareError(f"{path}: does not say which responses were answered: {OLDER}")
    if table.index.duplicated().any():
        raise _damaged(path, "a problem twice")
    return table


def _damaged(path: Path, why: object) -> CompareError:
    return CompareError(
        f"{path}: not a palign report's outcomes by problem ({_short(why)}); delete report.html and run the study again"
    )


def table(a: Study, b: Study) -> pd.DataFrame:
    """One row per common arm, metric, budget (tokens) and benchmark, ``average`` last: fractions.

    ``a`` and ``b`` with ``_low`` and ``_high`` (95 %, over problems and training seeds), on the problems compared;
    ``value``, ``low``, ``high`` of b minus a; ``how`` they were compared, on ``n`` problems. The average also has the
    ``test``, its ``p`` and ``p_holm``, corrected for the arms compared, and ``clear``: an interval without zero and a
    corrected p below 0.05. An arm of whose responses more than 1 % are missing in either study is not tested. Raises
    :class:`CompareError` where the two have no arm, benchmark or budget in common.
    """
    arms, shared = _arms(a, b), _shared(a, b)
    tokens = [budget for budget in budgets(a.params) if budget in budgets(b.params)]
    for what, common in (("arm", arms), ("response budget", tokens), ("benchmark", shared)):
        if not common:
            raise CompareError(f"{a.folder} and {b.folder} have no {what} in common; there is nothing to compare")
    samples = min(a.params.n_samples, b.params.n_samples)
    rows = []
    for metric in (name for name, k in METRICS.items() if k <= samples):
        for budget in tokens:
            found = []
            for arm in arms:
                cells = _cells(*(study.outcomes.values(arm, metric, budget) for study in (a, b)), shared)
                at = {"arm": arm, "metric": metric, "budget": budget}
                each = [at | {"benchmark": name} | _row(*cell) for name, cell in cells.items()]
                x, y, paired = [*cells.values()][-1]
                each[-1] |= _test(x, y, paired)
                if any(arm in study.outcomes.incomplete for study in (a, b)):
                    each[-1] |= {"test": UNTESTED, "p": np.nan}
                found.append(each)
            averages = judged([each[-1] for each in found])
            rows += [row for each, last in zip(found, averages, strict=True) for row in (*each[:-1], last)]
    return pd.DataFrame(rows)


def _arms(a: Study, b: Study) -> list[str]:
    return [arm for arm in a.params.arms if arm in b.params.arms]


def _shared(a: Study, b: Study) -> dict[str, pd.Index | None]:
    """Benchmark of both -> the problems to compare on, in one order; ``None``: each study's own."""
    found = {}
    ours, theirs = (study.outcomes.counts.index for study in (a, b))
    for name in ours.unique(0):
        if name in theirs.unique(0):
            x, y = (index[index.get_level_values(0) == name].droplevel(0) for index in (ours, theirs))
            both = x.intersection(y).sort_values()
            found[name] = both if len(both) > 1 and 2 * len(both) >= min(len(x), len(y)) else None
    return found


def _cells(x: dict[str, pd.DataFrame], y: dict[str, pd.DataFrame], shared: dict) -> dict[str, tuple[list, list, bool]]:
    """Benchmark, and the average of several -> both studies' values by problem and seed, and whether these are the same
    problems.
    """
    cells = {}
    for name, both in shared.items():
        ours, theirs = ({name: values[name] if both is None else values[name].loc[both]} for values in (x, y))
        pair = (as_arrays(ours), as_arrays(theirs)) if both is None else aligned(ours, theirs)
        cells[name] = (*pair, both is not None)
    if len(cells) > 1:
        x, y = ([group for cell in cells.values() for group in cell[side]] for side in (0, 1))
        cells[AVERAGE] = (x, y, all(paired for *_, paired in cells.values()))
    return cells


def _row(x: list[np.ndarray], y: list[np.ndarray], paired: bool) -> dict:
    a, b = estimated(statistics.average, x), estimated(statistics.average, y)
    difference = estimated(statistics.paired_difference if paired else statistics.unpaired_difference, y, x)
    return {
        **{"a": a.value, "a_low": a.low, "a_high": a.high, "b": b.value, "b_low": b.low, "b_high": b.high},
        **vars(difference),
        "how": "paired" if paired else "unpaired",
    }


def _test(x: list[np.ndarray], y: list[np.ndarray], paired: bool) -> dict:
    if not all(map(len, (*x, *y))):
        return {"test": UNTESTED, "p": np.nan}
    if not paired:
        return {"test": "interval of two samples", "p": statistics.unpaired_test(y, x)}
    test = statistics.paired_test(y, x)
    return {"test": test.name, "p": test.p}


def settings(a: Study, b: Study) -> pd.DataFrame:
    """The parameters that differ, one row each; of the benchmarks each that differs."""
    x, y = (_flat(portable(study.params)) for study in (a, b))
    rows = {key: (x.get(key), y.get(key)) for key in x | y if x.get(key) != y.get(key)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["a", "b"], dtype=object)


def _flat(values: dict) -> dict:
    """``values`` with each benchmark as an entry of its own, and without the study's name."""
    benchmarks = {f"benchmark {benchmark['name']}": benchmark for benchmark in values.pop("benchmarks")}
    return {key: value for key, value in (values | benchmarks).items() if key != "study"}


def beside(a: Study, b: Study) -> pd.DataFrame:
    """Mean tokens of a response, and the student's tokens until an arm is trained, from the reports' tables."""
    parts = {}
    for file, column, name in (("responses", "tokens_mean", "a response"), ("spent", "total", "until trained")):
        for which, study in (("a", a), ("b", b)):
            path = study.folder / "tables" / f"{file}.csv"
            if path.is_file():
                try:
                    parts[name, which] = pd.read_csv(path, index_col=0)[column].astype(float)
                except (ValueError, KeyError, IndexError) as error:
                    raise CompareError(f"{path}: no number of tokens in column {column} ({_short(error)})") from None
    table = pd.concat(parts, axis=1) if parts else pd.DataFrame()
    return table.reindex(_arms(a, b))


def text(a: Study, b: Study) -> str:
    """The text for the terminal: the settings that differ, the averages, each benchmark's difference, the tokens."""
    rows = table(a, b)
    parts = [
        f"a: {a.params.study} ({a.folder})\nb: {b.params.study} ({b.folder})",
        "\n".join(_missing(study, name) for name, study in (("a", a), ("b", b)) if study.outcomes.incomplete),
        "Settings that differ\n\n" + (_settings(settings(a, b)) or "none"),
        "In points, 95 % intervals over problems and training seeds; clear: an interval without zero and p, Holm below "
        f"0.05{_one_seed(a, b)}\n\n" + _lines(_shown(rows.dropna(subset="test"))),
        "By benchmark, b - a in points\n\n" + _lines(_by_benchmark(rows)),
        "Tokens\n\n" + _lines(beside(a, b).round(0)),
    ]
    return "\n\n".join(part for part in parts if part and not part.endswith("\n\n"))


WIDE = 40  # characters of a value that has a place in a table; a longer one gets a line of its own


def _settings(rows: pd.DataFrame) -> str:
    """Short values as a table, long ones (prompts, benchmarks) each on its line. None is cut: two long texts often
    differ in their last words only.
    """
    shown = rows.map(_whole)
    wide = (shown.map(len) > WIDE).any(axis=1)
    parts = [_lines(shown[~wide]), *(f"{key}\n  a: {a}\n  b: {b}" for key, a, b in shown[wide].itertuples())]
    return "\n".join(part for part in parts if part)


def _whole(value: object) -> str:
    """The whole value on one line: a text with ends of line, or with white space around it, is quoted."""
    plain = isinstance(value, str) and value == " ".join(value.split())
    return visible(value if plain else repr(value))


def _missing(study: Study, name: str) -> str:
    shares = ", ".join(f"{arm} {100 * share:.1f} %" for arm, share in study.outcomes.incomplete.items())
    return f"{name}: responses were never answered, so these arms are not tested: {shares}"


def _one_seed(a: Study, b: Study) -> str:
    alone = [name for name, study in (("a", a), ("b", b)) if len(study.params.training_seeds) == 1]
    if not alone:
        return ""
    return f"; {' and '.join(alone)}: one training seed, whose spread no interval contains"


def _lines(table: pd.DataFrame) -> str:
    return table.to_string() if len(table) else ""


def _short(value: object) -> str:
    text = visible(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _points(rows: pd.DataFrame, names: tuple[str, str, str], sign: str = "") -> list[str]:
    """A value with its bounds, in percent or points."""
    cells = (100 * rows[list(names)]).itertuples(index=False)
    return ["" if np.isnan(cell[0]) else "{:{s}.1f} [{:{s}.1f}, {:{s}.1f}]".format(*cell, s=sign) for cell in cells]


DIFFERENCE = ("value", "low", "high")


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[["metric", "budget", "arm"]].assign(
        **{side: _points(rows, (side, f"{side}_low", f"{side}_high")) for side in ("a", "b")},
        **{"b - a": _points(rows, DIFFERENCE, "+"), "n": rows["n"], "how": rows["how"], "test": rows["test"]},
    )
    shown["p, Holm"] = ["" if np.isnan(p) else f"{p:.2g}" for p in rows["p_holm"]]
    shown["clear"] = ["yes" if clear else "no" for clear in rows["clear"]]
    return shown.set_index(["metric", "budget", "arm"])


def _by_benchmark(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per metric, budget and arm, one column per benchmark, which says if it is not paired."""
    rows = rows[rows["benchmark"] != AVERAGE]
    names = rows["benchmark"].where(rows["how"] == "paired", rows["benchmark"] + " (unpaired)")
    cells = rows.assign(cell=_points(rows, DIFFERENCE, "+"), benchmark=names)
    wide = cells.pivot(index=["metric", "budget", "arm"], columns="benchmark", values="cell")
    index = cells[["metric", "budget", "arm"]].drop_duplicates()
    return wide.reindex(index=pd.MultiIndex.from_frame(index), columns=list(dict.fromkeys(names))).rename_axis(
        columns=None
    )
