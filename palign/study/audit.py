"""``palign audit``: run ``notebooks/paper_audit.ipynb`` and render it as a report.

The report goes to ``reports/paper-audit``, or to ``reports/paper-audit-released`` where released outputs are given. The
arithmetic is in :mod:`palign.paper`.

>>> run(released="outputs.jsonl", released_benchmark="AIME25")  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

from ..paper import released
from ..paper.printed import SIZES, Audit
from ..params import ParamsError, near, validate
from . import single

TITLE = "The paper audit with released outputs: do their labels hold, and what do the printed numbers support?"
"""The title of a page with released outputs; the notebook's own is that of one without."""


def run(**values: str) -> Path:
    """Execute the notebook with the given parameters of :class:`palign.paper.printed.Audit`; returns the report's path.

    Raises, in one line each, :class:`palign.params.ParamsError` for impossible parameters,
    :class:`palign.problems.DataError` for released outputs that cannot be read, and
    :class:`palign.study.run.StudyError` where the notebook fails.
    """
    benchmark = values.get("released_benchmark")
    if benchmark is not None and benchmark not in SIZES:
        hint = near(benchmark, SIZES) or f"; one of {', '.join(SIZES)}"
        raise ParamsError(f"--benchmark: {benchmark!r}: the paper prints no such benchmark{hint}")
    audit = validate(values, "audit", Audit)
    if audit.released is not None:
        released.read(audit)  # a file that cannot be read stops here, before the notebook starts
    return single.report("paper_audit", values, audit.folder, TITLE if audit.released else "")
