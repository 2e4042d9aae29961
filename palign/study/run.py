"""A study from its params file: which notebook for which arm, in which order, and what is already done.

>>> for step in steps(load("params/pocket.yaml")):
...     print(step.title, step.done)
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..tasks import plan
from ..params import Params, root
from ..tasks.store import visible


class StudyError(RuntimeError):
    """A study that cannot go on; the message is one line and says what to do."""


@dataclass(frozen=True)
class Step:
    """One execution of one notebook. ``seed``: of training, where the notebook belongs to an arm."""

    params: Params
    notebook: str
    arm: str | None
    tasks: tuple[plan.Task, ...]
    seed: int | None = None

    @property
    def title(self) -> str:
        """The seed is told only where the arm has several."""
        several = self.arm and len(plan.seeds(self.params, self.arm)) > 1
        return " ".join([self.notebook, *([self.arm] if self.arm else []), *([f"seed {self.seed}"] if several else [])])

    @property
    def done(self) -> bool:
        finished = all(task.folder.done for task in self.tasks)
        return finished and (self.notebook != plan.NOTEBOOKS["report"] or report_path(self.params).exists())

    @property
    def executed(self) -> Path:
        """Where the executed copy goes: beside the run, not beside the source."""
        return root() / "runs" / self.params.study / "notebooks" / f"{self.title.replace(' ', '-')}.ipynb"




def steps(params: Params) -> list[Step]:
    """All steps in order: the shared notebooks once, fine-tuning and evaluation once an arm and seed, the report."""
    found = [Step(params, "01_generation", None, (plan.benchmarks(params), plan.traces(params), plan.overlap(params)))]
    strategies = plan.strategies(params)
    searched = [plan.truncation(params, s) for s in strategies if s != "empty"]
    if searched:
        tasks = [*searched, plan.entropy(params)]
        found.append(Step(params, "02_truncation", None, tuple(task for task in tasks if task)))
    if strategies:
        tasks = [*(plan.alignment(params, s) for s in strategies), plan.sufficiency(params)]
        found.append(Step(params, "03_alignment", None, tuple(task for task in tasks if task)))
    for arm in params.arms:
        for seed in plan.seeds(params, arm):
            trained = plan.finetuning(params, arm, seed)
            if trained:
                found.append(Step(params, "04_finetuning", arm, (trained,), seed))
            found.append(Step(params, "05_evaluation", arm, (plan.evaluation(params, arm, seed),), seed))
    compared = plan.preference(params)
    found.append(Step(params, "06_report", None, (*((compared,) if compared else ()), plan.report(params))))
    return found


def run(params: Params, dry_run: bool = False) -> Path:
    """Execute what is not done yet and return the report's path. Raises :class:`StudyError`."""
    todo = [step for step in steps(params) if not step.done]
    if dry_run:
        for step in todo:
            print(f"would run {step.title}")
    if not todo:
        print(f"{params.study}: nothing to do, every step is done for these parameters")
    if dry_run or not todo:
        return report_path(params)
    _prepare(params)
    began = time.time()
    # before the arms, each arm's (and seed's) own steps in order and arms beside each other, after the arms
    arms = {(s.arm, s.seed): [t for t in todo if (t.arm, t.seed) == (s.arm, s.seed)] for s in todo if s.arm}
    shared = [step for step in todo if step.arm is None]
    with _alone(params), concurrent.futures.ThreadPoolExecutor(params.jobs) as pool:
        for step in shared:
            if step.notebook != plan.NOTEBOOKS["report"]:
                _execute(step)
        chains = [pool.submit(_execute_all, steps) for steps in arms.values()]
        try:
            for chain in concurrent.futures.as_completed(chains):
                chain.result()
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            raise
        if shared and shared[-1].notebook == plan.NOTEBOOKS["report"]:
            _execute(shared[-1])
    print(f"{len(todo)} notebooks in {time.time() - began:.0f} s")
    return report_path(params)


REQUESTS = ("generated", "prefixes", "continuations", "sufficiency", "judged", "responses", "verdicts")
"""The files of tasks' requests; what is made of them, as pairs and grades are, is made anew with them."""
EACH_ALONE = ("truncation", "alignment")
"""Stages whose records each depend on one trace alone: more traces add to them, and change none."""


def failures(params: Params) -> dict[str, int]:
    """How many requests of each task failed, in the study's order; a task of none is left out."""
    from ..engines.base import failed

    return {
        task.name: count
        for task in _tasks(params)
        if (count := sum(failed(record) for name in REQUESTS for record in task.folder.read(name)))
    }


def _tasks(params: Params) -> list[plan.Task]:
    return [task for step in steps(params) for task in step.tasks]


def retry(params: Params, dry_run: bool = False) -> Iterator[str]:
    """Take back the records of requests that failed, so that a run asks again; a line for each task concerned.

    What was made from such a task is taken back as well. Stages of ``EACH_ALONE`` keep their records. From the last
    task to the first: a kill leaves failures where they were found, and nothing that stands on what is gone. Raises
    :class:`StudyError` where the study is running.
    """
    from ..engines.base import failed

    with _alone(params):
        tasks, lost, stale = _tasks(params), failures(params), {}
        for task in tasks:
            stale[task.key] = any(stale.get(need.key) or need.name in lost for need in task.needs)
        for task in reversed(tasks):
            if not task.folder.path.exists() or not (stale[task.key] or task.name in lost):
                continue
            if count := lost.get(task.name):
                yield f"{task.name}: {count} requests failed and will be asked again"
            else:
                yield f"{task.name}: stands on these, and will be brought up to date"
            if dry_run:
                continue
            with task.folder.hold():
                task.folder.manifest_path.unlink(missing_ok=True)  # first: what a kill leaves of the rest is not done
                if stale[task.key] and task.stage not in EACH_ALONE:
                    shutil.rmtree(task.folder.path)
                    continue
                for name in REQUESTS:
                    records = task.folder.read(name)
                    good = [record for record in records if not failed(record)]
                    if len(good) < len(records):
                        task.folder.write(name, good)


def _execute_all(steps: list[Step]) -> None:
    for step in steps:
        _execute(step)


def _prepare(params: Params) -> None:
    """What must stand in the environment before a kernel starts, hence before torch is imported there."""
    os.environ["OMP_NUM_THREADS"] = str(params.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")


class Lines:
    """A notebook's progress bars as lines under its title: bars of arms at work together would overwrite each other.

    A line at most every ``every`` seconds, and one for each bar that is full.
    """

    def __init__(self, title: str, every: float = 10):
        self.title, self.every, self.last = title, every, time.monotonic()

    def write(self, text: str) -> None:
        for piece in re.split(r"[\r\n]+", text):
            full = "100%|" in piece
            if "%|" in piece and (full or time.monotonic() - self.last >= self.every):
                self.last = time.monotonic()
                print(f"  {self.title} | {visible(piece.strip())}", file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


@contextlib.contextmanager
def _alone(params: Params) -> Iterator[None]:
    """Hold the study's lock; a second run of the same study refuses rather than write beside the first."""
    folder = root() / "runs" / params.study
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StudyError(f"study {params.study} is already running; wait for it or stop it first") from None
        yield


QUIET = ["--IPKernelApp.log_level=40"]  # a kernel of this machine's own need not warn that it is not encrypted


def _execute(step: Step) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    # papermill warns of each parameter a notebook's own cell does not show; the notebook's second cell is stricter
    logging.getLogger("papermill").setLevel(logging.ERROR)
    began = time.time()
    print(f"{step.title} ...", flush=True)
    step.executed.parent.mkdir(parents=True, exist_ok=True)
    parameters = step.params.model_dump(mode="json") | (
        {"arm": step.arm, "training_seed": step.seed} if step.arm else {}
    )
    try:
        papermill.execute_notebook(
            root() / "notebooks" / f"{step.notebook}.ipynb",
            step.executed,
            parameters=parameters,
            cwd=str(root()),
            progress_bar=False,
            stderr_file=Lines(step.title),  # the stages' own progress bars
            kernel_name="python3",
            extra_arguments=QUIET,
        )
    except PapermillExecutionError as error:
        raise StudyError(f"{step.title}: {error.ename}: {error.evalue} (see {step.executed})") from None
    # papermill calls an interrupted cell completed, so only the task's own manifest counts
    if not all(task.folder.done for task in step.tasks):
        raise StudyError(f"{step.title}: stopped before its end; run the study again to go on (see {step.executed})")
    if step.notebook == plan.NOTEBOOKS["report"]:
        render(step.executed, report_path(step.params))
    print(f"{step.title}: done in {time.time() - began:.0f} s", flush=True)










def verify(params: Params, ranges: dict[str, list[float]], headline: dict[str, float]) -> list[str]:
    """One line per headline number that is missing or outside its stated [low, high]."""
    faults = []
    for name, (low, high) in ranges.items():
        value = headline.get(name)
        if value is None:
            faults.append(f"{params.study}: {name}: missing from the report")
        elif not low <= value <= high:
            faults.append(f"{params.study}: {name}: {value:.4f} is outside its stated range {low} to {high}")
    return faults
