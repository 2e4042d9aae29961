"""``palign rivals``: run ``notebooks/rivals.ipynb`` on the studies' reports and render it as a report.

>>> run()  # doctest: +SKIP
PosixPath('.../reports/rivals/report.html')
"""

from __future__ import annotations

from pathlib import Path

from ..params import validate
from ..report.compare import CompareError
from ..report.rivals import MAIN, Rivals, load
from . import single


def run(**values: str) -> Path:
    """Execute the notebook with the parameters of :class:`palign.report.rivals.Rivals`; returns the report's path.

    Raises, in one line each, :class:`palign.params.ParamsError` for impossible parameters,
    :class:`palign.report.compare.CompareError` where the main study has no report or one cannot be read, and
    :class:`palign.study.run.StudyError` where the notebook fails.
    """
    rivals = validate(values, "rivals", Rivals)
    if MAIN not in load(rivals.path):  # a report that cannot be read stops here, before the notebook starts
        raise CompareError(f"{rivals.path / MAIN}: no such report; run `palign run params/{MAIN}.yaml`")
    return single.report("rivals", values, rivals.folder)
