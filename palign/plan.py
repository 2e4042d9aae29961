"""Which task depends on what: the one place that says so.

A task is one result of a study: the traces, the prefixes of one strategy, one arm's adapter, one arm's responses.
Its key is a hash of the parameter groups it reads and of the keys of the tasks it stands on; its folder bears the
key. Changing a parameter therefore changes exactly the folders of what depends on it.

>>> task = evaluation(params, "p-align")
>>> task.folder.done
False
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from .arms import ARMS
from .params import Params, resolve, root
from .store import RunFolder, digest, fingerprint


class TaskMissing(RuntimeError):
    """A task was asked for whose input has not been made yet; the message says what to run."""


@dataclass(frozen=True)
class Task:
    params: Params
    stage: str
    variant: str
    groups: tuple[str, ...]
    needs: tuple[Task, ...] = ()

    @cached_property
    def key(self) -> str:
        values = self.params.values(*self.groups, effect="result")
        values.pop("study", None)  # it names the folder, nothing else
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
        return self.folder

    def finish(self, **facts) -> None:
        """Write the manifest, with the commits that a hub model was read from, whatever the params' revision said."""
        named = self.params.values(*self.groups)
        models = ((named.get(key), named.get(f"{key}_revision")) for key in ("student", "teacher"))
        commits = {model: commit for model, revision in models if model and (commit := commit_of(model, revision))}
        facts |= {"model_revisions": commits} if commits else {}
        self.folder.finish(self.params.model_dump(mode="json"), task=self.name, key=self.key, **facts)


NOTEBOOKS = {
    "traces": "01_generation",
    "benchmarks": "01_generation",
    "overlap": "01_generation",
    "truncation": "02_truncation",
    "alignment": "03_alignment",
    "finetuning": "04_finetuning",
    "evaluation": "05_evaluation",
    "report": "06_report",
}


def _inputs(values: dict) -> list[str]:
    """The data sets and models named in ``values``."""
    names = [values[key] for key in ("training_data", "student", "teacher") if values.get(key)]
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
    """The commit of a hub model in the local cache, which every engine loads through; ``None`` for a local folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(resolve(model)).exists():
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


def truncation(params: Params, strategy: str) -> Task:
    return Task(params, "truncation", strategy, ("student", "truncation"), (traces(params),))


def alignment(params: Params, strategy: str) -> Task:
    """Without a prefix the student answers under the answer prompt, and the judge has no part in it."""
    groups = ("study", "student", "alignment")
    if strategy == "empty":
        return Task(params, "alignment", strategy, (*groups, "answering"), (traces(params),))
    return Task(params, "alignment", strategy, groups, (truncation(params, strategy),))


def finetuning(params: Params, arm: str) -> Task | None:
    """``None`` for an arm that is not trained."""
    spec = ARMS[arm]
    if spec.target is None:
        return None
    groups = ("study", "student", "answering", "finetuning", *(("upft",) if spec.target == "upft" else ()))
    source = alignment(params, spec.strategy) if spec.strategy else traces(params)
    return Task(params, "finetuning", arm, groups, (traces(params), source) if spec.strategy else (source,))


def evaluation(params: Params, arm: str) -> Task:
    trained = finetuning(params, arm)
    groups = ("study", "student", "answering", "evaluation")
    return Task(params, "evaluation", arm, groups, (benchmarks(params), *((trained,) if trained else ())))


def strategies(params: Params) -> list[str]:
    """The distinct prefix strategies the study's arms need; each is computed once."""
    return list(dict.fromkeys(ARMS[arm].strategy for arm in params.arms if ARMS[arm].strategy))


def report(params: Params) -> Task:
    needs = tuple(evaluation(params, arm) for arm in params.arms)
    return Task(params, "report", params.study, ("report",), needs)
