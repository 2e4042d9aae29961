"""``palign rollouts``: run ``notebooks/recorded_rollouts.ipynb`` and render it as a report.

The report goes to ``reports/recorded-rollouts``, or to ``reports/rollouts-<name>`` for a file of one's own. The
measures are in :mod:`palign.analysis.rollouts`.

>>> run(rollouts="mine.csv")  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

from .. import params, traces
from ..analysis import sufficiency
from ..analysis.rollouts import Rollouts, load
from ..params import ParamsError, root, validate
from ..tasks.plan import Plan
from . import single


def run(**values: str) -> Path:
    """Execute the notebook with the given parameters of :class:`palign.analysis.rollouts.Rollouts`; returns the path of
    the report.

    Raises, in one line each, :class:`palign.params.ParamsError` for impossible parameters,
    :class:`palign.analysis.rollouts.RolloutError` for a file that is no table of rollouts, and
    :class:`palign.study.run.StudyError` where the notebook fails.
    """
    recorded = validate(values, "rollouts", Rollouts)
    for path in filter(None, (recorded.path, recorded.other)):
        load(path)  # a file that cannot be read stops here, before the notebook starts
    return single.report("recorded_rollouts", values, recorded.folder)


def of_study(path: Path) -> Path:
    """Write the continuations of a study's ``sufficiency`` task as a table of rollouts; returns its path, in the folder
    that the report on it goes to.

    ``path``: the study's params file. Raises, in one line each, :class:`palign.params.ParamsError` where the study
    continues no prefixes, and :class:`palign.tasks.plan.TaskMissing` where they have not been continued yet.
    """
    study = params.load(path)
    task = Plan(study).sufficiency
    if task is None:
        raise ParamsError(f"{path}: judged_traces: continues no prefixes; set it above 0, in a study with p-align")
    cuts, judged = task.read("cuts"), task.read("judged")
    table = sufficiency.as_rollouts(judged, cuts, traces.load(study), Path(study.student).name)
    target = root() / "reports" / f"rollouts-{study.study}" / f"{study.study}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(target, index=False, float_format="%.6g", lineterminator="\n")
    return target
