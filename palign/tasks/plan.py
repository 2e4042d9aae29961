"""Which task depends on what: the one place that says so.

A task is one result of a study: the traces, the prefixes of one strategy, one arm's adapter, one arm's responses.
Its key is a hash of the parameter groups it reads and of the keys of the tasks it stands on; its folder bears the
key. Changing a parameter therefore changes exactly the folders of what depends on it.

>>> task = evaluation(params, "p-align")
>>> task.folder.done
False
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from pathlib import Path

from ..arms import ARMS
from ..params import Params, resolve, root
from .store import RunFolder, StoreError, digest, fingerprint


class TaskMissing(RuntimeError):
    """A task was asked for whose input has not been made yet; the message says what to run."""


@dataclass(frozen=True)
class Task:
    params: Params
    stage: str
    variant: str
    groups: tuple[str, ...]
    needs: tuple[Task, ...] = ()
    fields: tuple[str, ...] = ()  # single ones, of groups that the task does not depend on as a whole

    @cached_property
    def key(self) -> str:
        values = self.params.values(*self.groups, effect="result")
        values |= {name: value for name, value in self.params.model_dump(mode="json").items() if name in self.fields}
        for name in ("study", "training_seeds"):  # they name the folder, nothing else: a seed is in the variant
            values.pop(name, None)
        local = {name: _content(name) for name in _inputs(values)}
        return digest([self.stage, self.variant, values, local, [task.key for task in self.needs]])[:12]

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(root() / "runs" / self.params.study / self.stage / f"{self.variant}-{self.key}")

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.variant}"

    def require(self) -> RunFolder:
        """The folder of a finished task. Raises :class:`TaskMissing` when it is not finished."""
        if not self.folder.done:
            raise TaskMissing(
                f"{self.name} has not been run for these parameters; run notebook {NOTEBOOKS[self.stage]} with the "
                "same parameters first, or `palign run` with the params file"
            )
        found = self.folder.manifest().get("key")
        if found != self.key:
            raise StoreError(
                f"{self.folder.manifest_path}: holds {found}, not {self.key}; delete its folder to redo it"
            )
        return self.folder

    def finish(self, **facts) -> None:
        """Write the manifest, with the commits that a hub model was read from, whatever the params' revision said."""
        named = self.params.values(*self.groups)
        models = ((named.get(key), named.get(f"{key}_revision")) for key in ("student", "teacher"))
        commits = {model: commit for model, revision in models if model and (commit := commit_of(model, revision))}
        facts |= {"model_revisions": commits} if commits else {}
        self.folder.finish(self.params.model_dump(mode="json"), task=self.name, key=self.key, **facts)


def held(task_of: Callable[..., Task | None]) -> Callable:
    """Decorate the function that makes a task's result, and takes the same arguments: one process at a time runs it."""

    def decorate(function: Callable) -> Callable:
        @wraps(function)
        def alone(*args, **kwargs):
            task = task_of(*args, **kwargs)
            if task is None:
                return function(*args, **kwargs)
            if task.folder.done:
                task.require()  # not those of other parameters, copied here
                return function(*args, **kwargs)
            with task.folder.hold(), task.folder.claim(task.key):
                return function(*args, **kwargs)

        return alone

    return decorate


NOTEBOOKS = {
    "traces": "01_generation",
    "benchmarks": "01_generation",
    "overlap": "01_generation",
    "truncation": "02_truncation",
    "entropy": "02_truncation",
    "alignment": "03_alignment",
    "sufficiency": "03_alignment",
    "finetuning": "04_finetuning",
    "evaluation": "05_evaluation",
    "preference": "06_report",
    "report": "06_report",
}


INPUTS = ("training_data", "student", "judge", "teacher", "preference_judge")
"""Parameters that name a data set or a model, beside the benchmarks' data."""


def _inputs(values: dict) -> list[str]:
    """The data sets and models named in ``values``."""
    names = [values[key] for key in INPUTS if values.get(key)]
    return names + [benchmark["data"] for benchmark in values.get("benchmarks", [])]


def _content(name: str) -> str | None:
    """The content hash of a local input; ``None`` for a hub id, whose revision stands in the params."""
    path = Path(resolve(name))
    if not path.exists():
        return None
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return _fingerprint(path, tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in sorted(files)))


@lru_cache(maxsize=64)
def _fingerprint(path: Path, unchanged: tuple) -> str:
    """Remembered as long as no file's time or size changes."""
    return fingerprint(path)


def commit_of(model: str, revision: str | None) -> str | None:
    """The commit of a hub model in the local cache, which every engine loads through; ``None`` for a local folder, and
    for a service's model.
    """
    from huggingface_hub import try_to_load_from_cache

    if model.startswith("endpoint:") or Path(resolve(model)).exists():
        return None
    path = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def benchmarks(params: Params) -> Task:
    return Task(params, "benchmarks", "test", ("benchmarks",))


def traces(params: Params) -> Task:
    """Without the test questions, unless those decide which training problems stay."""
    groups = ("study", "data", "teacher") if params.teacher else ("data",)
    return Task(params, "traces", "training", groups, (benchmarks(params),) if params.drop_overlap else ())


def overlap(params: Params) -> Task:
    return Task(params, "overlap", "train-test", (), (traces(params), benchmarks(params)))


READS = {
    "adaptive": (("judge", "truncation"), ()),
    "linear": (("judge",), ()),
    "judge": (("judge", "truncation", "other-judge"), ()),
    "one-reading": (("boundary",), ("sentence_rule",)),
    "infogain": (("infogain",), ("sentence_rule", "continue_prompt", "answer_prompt")),
}
"""The parameter groups and single fields that a strategy reads; those not listed only count sentences."""


def truncation(params: Params, strategy: str) -> Task:
    groups, fields = READS.get(strategy, ((), ("sentence_rule",)))
    return Task(params, "truncation", strategy, ("student", *groups), (traces(params),), fields)


def entropy(params: Params) -> Task | None:
    """``None`` where it is not measured, or no arm has prefixes, which it is to explain."""
    if not params.entropy_traces or set(strategies(params)) <= {"empty"}:
        return None
    groups = ("study", "student", "answering", "entropy")
    return Task(params, "entropy", "student", groups, (traces(params),))


def alignment(params: Params, strategy: str) -> Task:
    """Without a prefix the student answers under the answer prompt, and the judge has no part in it."""
    groups = ("study", "student", "alignment")
    if strategy == "empty":
        return Task(params, "alignment", strategy, (*groups, "answering"), (traces(params),))
    return Task(params, "alignment", strategy, groups, (truncation(params, strategy),))


def sufficiency(params: Params) -> Task | None:
    """``None`` where the judge is not studied. It stands on the traces alone: no search has a part in it."""
    if not params.judged_traces or "adaptive" not in strategies(params):
        return None
    groups = ("study", "student", "judge", "alignment", "sufficiency")
    return Task(params, "sufficiency", "judge", groups, (traces(params),))


def seeds(params: Params, arm: str) -> list[int]:
    """The training seeds of an arm; the first alone where nothing is trained."""
    return params.training_seeds if ARMS[arm].target else params.training_seeds[:1]


def finetuning(params: Params, arm: str, seed: int | None = None) -> Task | None:
    """``None`` for an arm that is not trained. ``seed``: of training; without one, the study's first."""
    spec = ARMS[arm]
    if spec.target is None:
        return None
    groups = ("study", "student", "answering", "finetuning", *(("upft",) if spec.target == "upft" else ()))
    source = alignment(params, spec.strategy) if spec.strategy else traces(params)
    needs = (traces(params), source) if spec.strategy else (source,)
    return Task(params, "finetuning", _seeded(params, arm, seed), groups, needs)


def evaluation(params: Params, arm: str, seed: int | None = None) -> Task:
    """``seed`` as in :func:`finetuning`: it says which adapter answers, not how responses are sampled."""
    trained = finetuning(params, arm, seed)
    groups = ("study", "student", "answering", "evaluation")
    needs = (benchmarks(params), *((trained,) if trained else ()))
    return Task(params, "evaluation", _seeded(params, arm, seed) if trained else arm, groups, needs)


def preference(params: Params) -> Task | None:
    """``None`` without a judge or a second arm. It compares the responses of each arm's first training seed."""
    if params.preference_judge is None or len(params.arms) < 2:
        return None
    needs = (benchmarks(params), *(evaluation(params, arm) for arm in params.arms))
    return Task(params, "preference", "responses", ("study", "preference"), needs)


def _seeded(params: Params, arm: str, seed: int | None) -> str:
    """Training seed 0 bears the arm's name alone: a study that adds seeds keeps what it has."""
    seed = params.training_seeds[0] if seed is None else seed
    return f"{arm}-seed-{seed}" if seed else arm


def strategies(params: Params) -> list[str]:
    """The distinct prefix strategies the study's arms need; each is computed once."""
    return list(dict.fromkeys(ARMS[arm].strategy for arm in params.arms if ARMS[arm].strategy))


def report(params: Params) -> Task:
    needs = [evaluation(params, arm, seed) for arm in params.arms for seed in seeds(params, arm)]
    needs += [task for task in (entropy(params), sufficiency(params), preference(params)) if task]
    return Task(params, "report", params.study, ("report",), tuple(needs))


def report_path(params: Params) -> Path:
    return root() / "reports" / params.study / "report.html"

