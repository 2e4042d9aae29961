"""``palign rollouts``: run ``notebooks/recorded_rollouts.ipynb`` and render it as a report.

The report goes to ``reports/recorded-rollouts``, or to ``reports/rollouts-<name>`` for a file of one's own. The
measures are in :mod:`palign.analysis.rollouts`.

>>> run(rollouts="mine.csv")  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

from ..analysis.rollouts import Rollouts, load
from ..params import validate
from . import single


def run(**values: str) -> Path:
    """Execute the notebook with the given parameters of :class:`palign.analysis.rollouts.Rollouts`; returns the path of
    the report.

    Raises, in one line each, :class:`palign.params.ParamsError` for impossible parameters,
    :class:`palign.analysis.rollouts.RolloutError` for a file that is no table of rollouts, and
    :class:`palign.study.run.StudyError` where the notebook fails.
    """
    recorded = validate(values, "rollouts", Rollouts)
    load(recorded.path)  # a file that cannot be read stops here, before the notebook starts
    return single.report("recorded_rollouts", values, recorded.folder)
