"""A study from its params file: runs the notebooks that are not done yet, each once what it needs is done, and deletes
failed requests.

>>> run(load("params/pocket.yaml"))
PosixPath('.../reports/pocket/report.html')
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..engines.base import failed
from ..params import OneLine, Params, root
from ..tasks import resolved
from ..tasks.plan import Plan, Step
from ..tasks.store import lock
from . import stopping
from .showing import Lines, Shown, headline, shown
from .stopping import Crew


class StudyError(OneLine, RuntimeError):
    """A study that cannot continue; the message is one line and says what to do."""


def run(params: Params, dry_run: bool = False) -> Path:
    """Execute what is not done yet and return the report's path.

    Raises :class:`StudyError`, or :class:`KeyboardInterrupt` once Ctrl-C has stopped everything.
    """
    with stopping.listening():
        return _all_of(params, dry_run)


def _all_of(params: Params, dry_run: bool) -> Path:
    if not dry_run:
        print(f"study {params.study}", flush=True)  # what follows reads models and may ask the hub
    plan = Plan(params if dry_run else resolved.settled(params))
    steps = plan.steps()
    todo = [step for step in steps if not step.done]
    if dry_run:
        for step in todo:
            print(f"would run {step.title}")
    if not todo:
        print(f"{params.study}: nothing to do, every step is done for these parameters")
    if dry_run:
        return plan.report_path
    if todo:
        _run(plan, steps, todo)
    for line in headline(plan.report_path.parent / "tables" / "accuracy.csv"):
        print(line)
    return plan.report_path


def _run(plan: Plan, steps: list[Step], todo: list[Step]) -> None:
    os.environ["OMP_NUM_THREADS"] = str(plan.params.threads)  # before a kernel starts and imports torch
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # TRL stops where several GPUs are visible
    began, jobs = time.time(), plan.params.jobs
    titles, before = [step.title for step in steps], [step.title for step in steps if step not in todo]
    plans, done = {}, set()

    def now(title: str) -> Step:
        """The step with its tasks' keys, which are final once the overlap is known."""
        known = plan.overlap.folder.done
        if known not in plans:
            plans[known] = {step.title: step for step in Plan(plan.params).steps()}
        return plans[known][title]

    def ready(title: str) -> bool:
        """Whether what the step needs is there, be it that the notebook that made it still shows tables."""
        left = [need.folder for need in now(title).needs if need.folder.path not in done]
        done.update(folder.path for folder in left if folder.done)
        return all(folder.path in done for folder in left)

    def work(title: str) -> None:
        _execute(now(title), progress)

    with (
        alone(plan.params.study),
        shown(titles, before, jobs) as progress,
        Crew(jobs, progress) as crew,
    ):
        # of those that could begin, the first in the plan: so 02 and 03, which arms wait for, come before other arms
        crew.work({step.title: partial(work, step.title) for step in todo}, ready)
    print(f"{len(todo)} notebooks in {time.time() - began:.0f} s")


def _execute(step: Step, progress: Shown | None = None) -> None:
    with (progress or Shown([step.title])).running(step.title) as lines:
        own = {"arm": step.arm, "training_seed": step.seed} if step.arm else {}
        values = step.plan.params.model_dump(mode="json") | own
        _notebook(root() / "notebooks" / f"{step.notebook}.ipynb", step.executed, values, step.title, lines)
        # papermill calls an interrupted cell completed, so only the task's own manifest counts
        if not all(task.folder.done for task in step.tasks):
            fault = f"stopped before its end; run the study again to continue (see {step.executed})"
            raise StudyError(f"{step.title}: {fault}")
        if step.is_report:
            from ..report import page  # which imports pandas and matplotlib: too slow for a command's first line

            page.render(step.executed, step.plan.report_path)


def execute(notebook: Path, executed: Path, values: dict, title: str) -> None:
    """Execute a notebook with these parameters, keeping the executed copy, and show how far it is.

    Raises :class:`StudyError` if it fails, or :class:`KeyboardInterrupt` once Ctrl-C has stopped it.
    """

    def work() -> None:
        with progress.running(title) as lines:
            _notebook(notebook, executed, values, title, lines)

    with shown([title]) as progress, Crew(1, progress) as crew:
        crew.work({title: work})


def _notebook(notebook: Path, executed: Path, values: dict, title: str, lines: Lines) -> None:
    from . import kernels  # which imports papermill: too slow for a command's first line

    try:
        kernels.execute(notebook, executed, values, lines)
    except kernels.Failed as error:
        raise StudyError(f"{title}: {error} (see {executed})") from None


@contextlib.contextmanager
def alone(study: str) -> Iterator[None]:
    """Hold the study's lock. Raises :class:`StudyError` where another process runs the same study."""
    with lock(root() / "runs" / study / ".lock") as held:
        if not held:
            raise StudyError(f"study {study} is already running; wait for it or stop it first")
        yield


REQUESTS = ("generated", "prefixes", "continuations", "attempts", "sufficiency", "judged", "responses", "verdicts")
"""The files that hold a task's requests; files made from them, such as pairs and grades, are made again with them."""
EACH_ALONE = ("truncation", "alignment", "success")
"""Stages whose records each depend on one trace only: more traces add records and change none."""
TOGETHER = "truncation/calibrated"
"""The task whose records depend on all of its pilot's: what follows from it is made again as a whole."""


def failures(plan: Plan) -> dict[str, int]:
    """How many requests of each task failed, in the study's order; a task without failures is left out."""
    return {
        task.name: count
        for task in plan.tasks()
        if (count := sum(failed(record) for name in REQUESTS for record in task.folder.read(name)))
    }


def retry(params: Params, dry_run: bool = False) -> Iterator[str]:
    """Remove the records of requests that failed, so that a run asks again; yields a line for each task concerned.

    What was made from such a task is removed as well. Stages of ``EACH_ALONE`` keep their records, unless they stand on
    ``TOGETHER``. From the last task to the first: if it is killed, the remaining failures are still found, and no
    remaining result depends on a removed one. Raises :class:`StudyError` where the study is running.
    """
    plan = Plan(params)
    with alone(params.study):
        tasks, lost, stale = plan.tasks(), failures(plan), {}
        for task in tasks:
            stale[task.key] = any(stale.get(need.key) or need.name in lost for need in task.needs)
        for task in reversed(tasks):
            if not task.folder.path.exists() or not (stale[task.key] or task.name in lost):
                continue
            if count := lost.get(task.name):
                yield f"{task.name}: {count} requests failed and will be asked again"
            else:
                yield f"{task.name}: depends on these and will be updated"
            if dry_run:
                continue
            with task.folder.hold():
                task.folder.manifest_path.unlink(missing_ok=True)  # first, so that a kill leaves the task not done
                if stale[task.key] and (task.stage not in EACH_ALONE or TOGETHER in [need.name for need in task.needs]):
                    shutil.rmtree(task.folder.path)
                    continue
                for name in REQUESTS:
                    task.folder.discard(name, failed)


WITHIN = 0.01
"""How far a share may lie from the expected one: one point. Processors differ in the last digits of a log-probability,
and now and then these decide a token.
"""


def verify(study: str, expected: dict[str, float | int], headline: dict[str, float | int]) -> list[str]:
    """One line per headline number that is not the expected one: a share within :data:`WITHIN`, a count (a whole
    number in ``expected``) exactly. A number that only one of the two has is a fault too.
    """
    faults = []
    for name in expected | headline:
        if name not in headline:
            faults.append(f"{study}: {name}: missing from the report, expected {expected[name]}")
        elif name not in expected:
            faults.append(f"{study}: {name}: {headline[name]} is new; nothing is expected")
        else:
            value, stated = headline[name], expected[name]
            same = value == stated if isinstance(stated, int) else abs(value - stated) <= WITHIN + 1e-9  # nan is not
            if not same:
                faults.append(f"{study}: {name}: {value} instead of {stated}")
    return faults
