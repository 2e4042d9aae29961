"""The audit: what the printed numbers of the paper allow to be said, by arithmetic alone.

``notebooks/paper_audit.ipynb`` shows it in order; this module runs that notebook and keeps its tables and figures under
``reports/paper-audit``, or ``reports/paper-audit-released`` where released outputs are given: an audit of the printed
numbers alone deletes nothing of theirs. The arithmetic is in :mod:`palign.published`: ``cells`` (what can be printed,
what adds up, what repeats), ``gains`` (intervals, and what would settle them), ``released`` (the released outputs),
``verdicts``.

>>> run(released="outputs.jsonl")  # doctest: +SKIP
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from .. import params
from ..report import page
from . import run
from ..params import Strict, root
from ..paper import released
from ..paper.printed import SIZES
from ..paper.claims import MAIN
from ..tasks.store import write_atomically

if TYPE_CHECKING:
    import matplotlib.pyplot as plt

pd.set_option("display.max_colwidth", None)  # a sentence cut short in a table helps nobody








def write(params: Audit, tables: dict[str, pd.DataFrame | None], shown: dict[str, plt.Figure]) -> Path:
    """Keep tables (CSV) and figures (SVG, PNG) in the report's folder, and nothing of an earlier run there."""
    from ..analysis import style

    folder = folder_of(params)
    for old in (*folder.glob("tables/*.csv"), *folder.glob("figures/*.svg"), *folder.glob("figures/*.png")):
        old.unlink()
    for name, table in tables.items():
        if table is not None:  # no released outputs, no tables of them
            indexed = isinstance(table.index, pd.MultiIndex) or table.index.name is not None
            write_atomically(folder / "tables" / f"{name}.csv", table.to_csv(index=indexed, float_format="%.6g"))
    for name, figure in shown.items():
        if figure is not None:
            style.save(figure, folder / "figures", name)
    return folder


def run(**values: str) -> Path:
    """Execute the notebook with the given :class:`Audit` parameters, render it and return the report's path.

    Raises, in one line each, :class:`palign.params.ParamsError` for impossible parameters,
    :class:`palign.problems.DataError` for released outputs that cannot be read, and :class:`palign.study.StudyError`
    when the notebook stops.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    chosen = params.validate(values, "audit", Audit)
    if chosen.released is not None:
        released.read(chosen)  # a file that cannot be read is told at once, not by a notebook
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    executed = root() / "runs" / "paper-audit" / "paper_audit.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            root() / "notebooks" / "paper_audit.ipynb",
            executed,
            parameters=values,
            cwd=str(root()),
            progress_bar=False,
            kernel_name="python3",
            extra_arguments=run.QUIET,
        )
    except PapermillExecutionError as error:
        raise run.StudyError(f"paper_audit: {error.ename}: {error.evalue} (see {executed})") from None
    report = folder_of(chosen) / "report.html"
    page.render(executed, report)
    return report
