"""Looking at a finished study's problems one by one: what ``notebooks/explore.ipynb`` shows.

>>> explore.check(study, "params/pocket.yaml")
>>> explore.Chooser(study)
"""

from __future__ import annotations

from typing import Any

from ..params import OneLine, unattended
from .door import Study
from .problem import Problem

EVERY = "all arms"


class Unfinished(OneLine, RuntimeError):
    """A study that cannot be explored yet; the message says what to run."""


def check(study: Study, params_file: str) -> str:
    """That all but the study's report is done, in one line. Raises :class:`Unfinished` with one line, else."""
    steps = [step for step in study.plan.steps() if not step.is_report]
    todo = [step.title for step in steps if not step.done]
    if todo:
        raise Unfinished(
            f"The study {study.params.study} is not finished: {todo[0]} and {len(todo) - 1} others of {len(steps)} "
            f"notebooks have not run. Run `palign run {params_file}` first."
        )
    return f"The study {study.params.study}: {len(study.arms)} arms, {len(study.problems())} problems."


def show(study: Study, name: str = "", arm: str = "") -> Problem:
    """The problem of this name as one arm sees it; without a name the study's first, without an arm all of them."""
    return study.problem(name or study.problems()["name"].iloc[0], arm or None)


class Chooser:
    """Choose a set, a problem and an arm, and see the problem. Where widgets do not work, the first choice is shown.

    ``name`` and ``arm`` are chosen at first, as in :func:`show`. ``set``, ``problem``, ``arm`` are dropdown lists and
    ``shown`` is what they choose.
    """

    def __init__(self, study: Study, name: str = "", arm: str = ""):
        import ipywidgets

        self._study, self._static = study, show(study, name, arm)
        problems = study.problems()
        chosen = problems[problems["name"] == study.full_name(name)].iloc[0] if name else problems.iloc[0]
        self._names = {which: rows["name"].tolist() for which, rows in problems.groupby("set", sort=False)}
        self.set = ipywidgets.Dropdown(options=list(self._names), value=chosen["set"], description="set")
        self.problem = ipywidgets.Dropdown(
            options=self._names[chosen["set"]], value=chosen["name"], description="problem"
        )
        self.arm = ipywidgets.Dropdown(options=[EVERY, *study.arms], value=arm or EVERY, description="arm")
        self.shown = ipywidgets.HTML(self._static._repr_html_())
        self.set.observe(self._list, "value")
        for choice in (self.problem, self.arm):
            choice.observe(self._show, "value")
        self._box = ipywidgets.VBox([ipywidgets.HBox([self.set, self.problem, self.arm]), self.shown])

    def _list(self, change: dict) -> None:
        self.problem.options = self._names[change["new"]]  # chooses its first, which shows it

    def _show(self, change: dict) -> None:
        if self.problem.value:
            arm = None if self.arm.value == EVERY else self.arm.value
            self.shown.value = self._study.problem(self.problem.value, arm)._repr_html_()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        static = {"text/html": self._static._repr_html_(), "text/plain": repr(self._static)}
        return static if unattended() else self._box._repr_mimebundle_(**kwargs) | static
