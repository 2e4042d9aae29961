"""``palign pages``: the executed notebooks of a finished study as pages, beside its report.

>>> run(Path("params/pocket.yaml"), load("params/pocket.yaml"))  # doctest: +SKIP
[PosixPath('.../reports/pocket/notebooks/01_generation.html'), ...]
"""

from __future__ import annotations

from pathlib import Path

from ..params import Params
from ..report import page
from ..tasks.plan import Plan, Step
from .run import StudyError


def run(path: Path, params: Params) -> list[Path]:
    """Render 01 to 05 into ``reports/<study>/notebooks``; returns the pages' paths. 04 and 05 are those of p-align, or
    of the study's last arm where it has no p-align, with the first training seed. ``path``: the params file.

    Raises :class:`StudyError` where a notebook has not been executed or is stale.
    """
    plan = Plan(params)
    steps = plan.steps()
    if todo := [step.title for step in steps if not (step.done and step.executed.exists())]:
        more = f" and {len(todo) - 1} others" if todo[1:] else ""
        raise StudyError(f"study {params.study} is not finished: {todo[0]}{more} to do; run `palign run {path}`")
    chosen = _chosen(plan, steps)
    folder = plan.report_path.parent / "notebooks"
    pages = [(_title(step), f"{step.notebook}.html") for step in chosen] + [("Report", page.REPORT)]
    for step in chosen:
        page.render(step.executed, folder / f"{step.notebook}.html", pages)
    return [folder / f"{step.notebook}.html" for step in chosen]


def _chosen(plan: Plan, steps: list[Step]) -> list[Step]:
    """One execution of each notebook but the report, in their order."""
    arms = plan.params.arms
    arm = "p-align" if "p-align" in arms else arms[-1]
    own = [step for step in steps if step.arm in (None, arm) and not step.is_report]
    return sorted({step.notebook: step for step in reversed(own)}.values(), key=lambda step: step.notebook)


def _title(step: Step) -> str:
    """The words before the colon of the notebook's title."""
    import nbformat

    title = nbformat.read(step.executed, as_version=4).cells[0].source.partition("\n")[0]
    return title.removeprefix("# ").partition(":")[0]
