"""A notebook that needs no study, run by itself and rendered as a report: the paper's audit, recorded rollouts.

>>> report("paper_audit", {}, root() / "reports" / "paper-audit")  # doctest: +SKIP
PosixPath('.../reports/paper-audit/report.html')
"""

from __future__ import annotations

from pathlib import Path

from ..params import root
from ..report import page
from .run import execute


def report(notebook: str, values: dict[str, str], folder: Path, title: str = "") -> Path:
    """Execute ``notebooks/<notebook>.ipynb`` with these parameters; returns the path of the page in ``folder``.

    ``title``: the page's, where it is not the notebook's.

    The notebook itself writes its tables and figures to ``folder``. The executed copy is kept in ``runs/``. Raises
    :class:`palign.study.run.StudyError` where the notebook fails.
    """
    executed = root() / "runs" / folder.name / f"{notebook}.ipynb"
    execute(root() / "notebooks" / f"{notebook}.ipynb", executed, values, notebook)
    target = folder / "report.html"
    page.render(executed, target, title=title)
    return target
