"""Which task depends on what: this file alone defines it.

A task is one result of a study: the traces, the prefixes of one strategy, one arm's adapter, one arm's responses. Its
key is a hash of the parameters it reads, of the local files they name (their whole content), of the commits of the hub
inputs, of its stage's version and of the keys of the tasks it needs; its folder is named after the key. So a changed
parameter changes exactly the folders of the tasks that depend on it: ``params/reruns.csv`` lists them.

What is only measured (success rates, entropy, the judge's verdicts on all prefixes, a second budget) is a task beside:
no adapter depends on it. How many samples a task holds is not in its key: more of them are added to those there are.

>>> task = Plan(params).evaluation("p-align")
>>> task.folder.done
False
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from pathlib import Path

from ..arms import ARMS
from ..params import Data, OneLine, Params, resolve, root
from ..prompts import BEGIN, END, LABELS
from . import resolved
from .store import RunFolder, StoreError, digest, fingerprint

NOTEBOOKS = {
    "traces": "01_generation",
    "benchmarks": "01_generation",
    "overlap": "01_generation",
    "truncation": "02_truncation",
    "entropy": "02_truncation",
    "alignment": "03_alignment",
    "success": "03_alignment",
    "sufficiency": "03_alignment",
    "finetuning": "04_finetuning",
    "evaluation": "05_evaluation",
    "shortened": "05_evaluation",
    "preference": "06_report",
    "report": "06_report",
}
"""The notebook that makes a stage's results."""

VERSIONS = dict.fromkeys(NOTEBOOKS, 1) | {"truncation": 2, "sufficiency": 2}
"""Each stage's version, to be raised when a change of its code changes results: old ones are then not reused."""

# What each stage reads. The benchmarks are a task of their own, and `study` and `training_seeds` name folders only.
DATA = tuple(name for name in Data.model_fields if name != "benchmarks")
TEACHER = ("teacher", "teacher_revision", "teacher_chat_template_kwargs")
TEACHER += ("teacher_max_new_tokens", "teacher_max_model_len")
TOKENIZER = ("student", "student_revision")
READER = (*TOKENIZER, "dtype", "max_model_len", "chat_template_kwargs")
STUDENT = (*READER, "engine")
VERDICTS = ("judge_prompt", "sentence_rule", "verdict", "verdict_max_new_tokens")
JUDGE = ("judge", "judge_revision", "judge_verdict", "judge_max_new_tokens", "judge_max_model_len")
JUDGE += ("judge_chat_template_kwargs",)
STRATEGIES = {
    "adaptive": (*STUDENT, *VERDICTS, "search"),
    "linear": (*STUDENT, *VERDICTS),
    "judge": (*TOKENIZER, "engine", "dtype", *JUDGE, "judge_prompt", "sentence_rule", "search"),
    "one-reading": (*STUDENT, "boundary_prompt", "sentence_rule"),
    "infogain": (*STUDENT, "infogain_share", "sentence_rule", "continue_prompt", "answer_prompt"),
    "entropy-pruned": (*READER, "answer_prompt", "pruned_share", "sentence_rule"),
}
"""The parameters that a strategy depends on. Strategies not listed only count sentences, and tokens of the prefix."""
SAMPLED = ("seed", "alignment_temperature", "alignment_top_p", "alignment_repetition_penalty")
SAMPLED += ("alignment_max_new_tokens",)
ALIGNMENT = (*SAMPLED, "continue_prompt")
STRATEGIES["calibrated"] = (*STUDENT, *VERDICTS, "search", "calibration_traces", *ALIGNMENT)
BACK_OFF = (*ALIGNMENT, "sentence_rule", "backoff_step", "backoff_tries")
SUCCESS = (*ALIGNMENT, "sentence_rule", "success_samples", "success_needed")
ATTEMPTS = {
    "own-k": (*SAMPLED, "answer_prompt", "own_samples"),
    "adaptive-k": (*ALIGNMENT, "own_samples"),
    "adaptive-backoff": BACK_OFF,
    "backoff": (*BACK_OFF, "backoff_start"),
    "backoff-30": BACK_OFF,
    "success-binary": SUCCESS,
    "success-first": SUCCESS,
    "success-last": SUCCESS,
    "rewrite": (*SAMPLED, "rewrite_prompt"),
}
"""The strategies that continue more than one prefix, or one more than once (``palign.attempts``), and the parameters
that they depend on beside the student's.
"""
CANDIDATES = ("adaptive", "fixed-30", "fixed-50", "empty")
"""The strategies whose right pairs a selection chooses from, beside the whole trace."""
SELECTED = ("likely", "rsr")
"""The strategies that choose among candidates (``palign.selection``)."""
CONSTANTS = {"truncation": LABELS, "sufficiency": LABELS, "finetuning": (BEGIN, END)}
CONSTANTS |= {f"alignment/{strategy}": (BEGIN, END) for strategy in SELECTED}  # they score responses with their marks
CONSTANTS |= {"truncation/tokens-50": (*LABELS, "its rows do not end the turn")}
"""Texts in the code that the results of a stage, or of one task, depend on."""
UPFT = ("upft_tokens", "upft_structure_share", "upft_prompt")
FINETUNING = ("seed", *TOKENIZER, "chat_template_kwargs", "answer_prompt", "load_in_4bit", "num_train_epochs")
FINETUNING += ("equal_updates", "learning_rate", "lr_scheduler_type", "warmup_ratio", "per_device_train_batch_size")
FINETUNING += ("gradient_accumulation_steps", "lora_r", "lora_alpha", "lora_dropout", "max_length")
EVALUATION = ("seed", "answer_prompt", "temperature", "top_p", "repetition_penalty", "max_new_tokens")
PREFERENCE = ("seed", "preference_judge", "preference_judge_revision", "preference_problems", "preference_prompt")
PREFERENCE += ("preference_max_new_tokens", "preference_max_model_len", "preference_chat_template_kwargs")
PREFERENCE += ("engine", "dtype")
REPORT = ("arms", "n_samples", "second_budget", "sufficiency_samples", "judged_traces", "entropy_traces")

INPUTS = ("training_data", "student", "judge", "teacher", "preference_judge")
"""Parameters that name a data set or a model, beside the benchmarks' data."""


class TaskMissing(OneLine, RuntimeError):
    """A needed task is not finished; the message says what to run."""


@dataclass(frozen=True)
class Task:
    """One result of a study. ``reads``: the parameters that it depends on, beside the tasks it ``needs``.

    ``amount``: how many samples (or sampled traces) the study asks of it. ``without``: ids of the training problems
    that it leaves out (``None``: not yet known); only where there are any they are part of its key.
    """

    params: Params
    stage: str
    variant: str
    reads: tuple[str, ...]
    needs: tuple[Task, ...] = ()
    amount: int = 0
    without: tuple[str, ...] | None = ()

    @cached_property
    def key(self) -> str:
        values = self.params.values(*self.reads) if self.reads else {}
        local = {name: _content(name) for name in _inputs(values)}
        code = [self.stage, VERSIONS[self.stage], CONSTANTS.get(self.name, CONSTANTS.get(self.stage))]
        chosen = resolved.training(self.params) if self.stage == "finetuning" else None
        without = [sorted(self.without)] if self.without else []
        return digest([code, self.variant, values, local, chosen, [task.key for task in self.needs], *without])[:12]

    @cached_property
    def folder(self) -> RunFolder:
        path = root() / "runs" / self.params.study / self.stage / f"{self.variant}-{self.key}"
        return RunFolder(path, self.amount)

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

    def read(self, name: str) -> list[dict]:
        """The records of one file of a finished task. Raises :class:`TaskMissing` when it is not finished."""
        return self.require().read(name)

    def finish(self, **facts) -> None:
        """Write the manifest, with the task's key and the parameters, in which each known commit is pinned."""
        self.folder.finish(self.params.model_dump(mode="json"), task=self.name, key=self.key, **facts)


@dataclass(frozen=True)
class Step:
    """One execution of one notebook, and the tasks it makes. ``seed``: the arm's training seed."""

    plan: Plan
    notebook: str
    tasks: tuple[Task, ...]
    arm: str | None = None
    seed: int | None = None

    @property
    def title(self) -> str:
        """The title names the seed only if the arm has several."""
        several = self.arm and len(self.plan.seeds(self.arm)) > 1
        return " ".join([self.notebook, *([self.arm] if self.arm else []), *([f"seed {self.seed}"] if several else [])])

    @property
    def is_report(self) -> bool:
        return self.notebook == NOTEBOOKS["report"]

    @property
    def needs(self) -> list[Task]:
        """The tasks of other steps that must be done first: those it reads and the overlap, which decides what is
        trained on.
        """
        needed = [self.plan.overlap, *(need for task in self.tasks for need in task.needs)]
        return [need for need in needed if need not in self.tasks]

    @property
    def done(self) -> bool:
        finished = all(task.folder.done for task in self.tasks)
        if any(task.without is None for task in self.tasks):  # the overlap decides what is trained on
            return False
        return finished and (not self.is_report or self.plan.report_path.exists())

    @property
    def executed(self) -> Path:
        """Where the executed copy goes: beside the run, not beside the source."""
        return root() / "runs" / self.plan.params.study / "notebooks" / f"{self.title.replace(' ', '-')}.ipynb"


class Plan:
    """The tasks of one study, each made once."""

    def __init__(self, params: Params):
        self.params = resolved.pinned(params)
        self._made: dict[tuple, Task] = {}

    def _task(
        self,
        stage: str,
        variant: str,
        reads: tuple[str, ...],
        needs: tuple[Task, ...] = (),
        amount: int = 0,
        without: tuple[str, ...] | None = (),
    ) -> Task:
        return self._made.setdefault((stage, variant), Task(self.params, stage, variant, reads, needs, amount, without))

    @property
    def strategies(self) -> list[str]:
        """The distinct strategies whose continuations the study's arms need, each after those it chooses from."""
        found = [strategy for arm in self.params.arms for strategy in ARMS[arm].continued]
        needed = [(*(CANDIDATES if strategy in SELECTED else ()), strategy) for strategy in found]
        return list(dict.fromkeys(one for several in needed for one in several))

    @property
    def cuts(self) -> list[str]:
        """The distinct strategies whose prefixes truncation finds."""
        found = [prefixes_of(strategy) for strategy in self.strategies]
        found += [ARMS[arm].strategy for arm in self.params.arms if ARMS[arm].target == "text"]
        return list(dict.fromkeys(strategy for strategy in found if strategy))

    @property
    def is_adaptive(self) -> bool:
        """Whether some arm has prefixes that the student's own search found."""
        return "adaptive" in self.cuts

    def seeds(self, arm: str) -> list[int]:
        """The training seeds of an arm; only the first if nothing is trained."""
        return self.params.training_seeds if ARMS[arm].target else self.params.training_seeds[:1]

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every arm with every training seed it has."""
        return [(arm, seed) for arm in self.params.arms for seed in self.seeds(arm)]

    @property
    def benchmarks(self) -> Task:
        return self._task("benchmarks", "test", ("benchmarks",))

    @property
    def traces(self) -> Task:
        """Does not depend on the benchmarks, unless ``drop_overlap`` removes training problems by them."""
        reads = (*DATA, "seed", "answer_prompt", *TEACHER) if self.params.teacher else DATA
        return self._task("traces", "training", reads, (self.benchmarks,) if self.params.drop_overlap else ())

    @property
    def overlap(self) -> Task:
        return self._task("overlap", "train-test", (), (self.traces, self.benchmarks))

    @cached_property
    def tested(self) -> dict[str, str]:
        """The training problems whose question stands in a benchmark word for word, with the benchmark's name.

        No arm is trained on them. ``overlap`` finds them: another benchmark that has none of them reruns no training.
        Empty until it is done, which is before anything is trained.
        """
        folder = self.overlap.folder
        return folder.manifest().get("twins", {}) if folder.done else {}

    def truncation(self, strategy: str = "adaptive") -> Task:
        reads = STRATEGIES.get(strategy, (*TOKENIZER, "sentence_rule")) + self._filter(strategy)
        return self._task("truncation", strategy, reads, (self.traces,))

    def _filter(self, strategy: str) -> tuple[str, ...]:
        """What the filter reads, for a strategy whose search goes by it, where it is not the default: studies of the
        default keep the keys that they had before it was read.
        """
        searched = (strategy in ATTEMPTS and strategy not in ("own-k", "rewrite")) or strategy == "calibrated"
        return ("keep_cut_continuations",) if searched and self.params.keep_cut_continuations else ()

    @property
    def entropy(self) -> Task | None:
        """``None`` if entropy is not measured, no arm has prefixes, or a service runs the student.

        It is read by transformers, whatever ``engine`` generates.
        """
        params = self.params
        if not params.entropy_traces or not self.cuts or params.model("student").is_service:
            return None
        reads = ("seed", *READER, "answer_prompt")
        return self._task("entropy", "student", reads, (self.traces,), params.entropy_traces)

    def alignment(self, strategy: str) -> Task:
        """Without a prefix the student answers under the answer prompt, and the result does not depend on the judge."""
        if strategy in SELECTED:
            reads = (*READER, "answer_prompt", "keep_cut_continuations")
            return self._task("alignment", strategy, reads, (self.traces, *map(self.alignment, CANDIDATES)))
        if strategy in ATTEMPTS:
            cut = prefixes_of(strategy)
            needs = (self.truncation(cut),) if cut else (self.traces,)
            return self._task("alignment", strategy, (*STUDENT, *ATTEMPTS[strategy], *self._filter(strategy)), needs)
        if strategy == "empty":
            return self._task("alignment", strategy, (*STUDENT, *SAMPLED, "answer_prompt"), (self.traces,))
        return self._task("alignment", strategy, (*STUDENT, *ALIGNMENT), (self.truncation(strategy),))

    @property
    def success(self) -> Task | None:
        """How often the student succeeds from the adaptive prefixes; ``None`` if it is not measured."""
        samples = self.params.sufficiency_samples
        if not samples or not self.is_adaptive:
            return None
        return self._task("success", "adaptive", (*STUDENT, *ALIGNMENT), (self.truncation(),), samples)

    @property
    def sufficiency(self) -> Task | None:
        """``None`` if the judge is not studied. It depends only on the traces, not on any search."""
        if not self.params.judged_traces or not self.is_adaptive:
            return None
        reads = (*STUDENT, *VERDICTS, *ALIGNMENT, "judged_cuts", "judged_samples")
        if not self.params.judged_cuts:  # the empty prefix is continued too
            reads += ("answer_prompt",)
        return self._task("sufficiency", "judge", reads, (self.traces,), self.params.judged_traces)

    def finetuning(self, arm: str, seed: int | None = None) -> Task | None:
        """``None`` for an arm that is not trained. ``seed``: the training seed; without one, the study's first."""
        spec = ARMS[arm]
        if spec.target is None:
            return None
        reads = FINETUNING
        if spec.target == "upft":
            reads += UPFT
        if spec.continued:
            reads += ("keep_cut_continuations",)
        if spec.fallback == "prompted":
            reads += ("fallback_prompt",)
        if spec.weight:
            reads += ("hard_weight",)
        needs = (self.traces, *map(self.alignment, spec.continued))
        if spec.target == "text":
            needs += (self.truncation(spec.strategy),)
        without = tuple(self.tested) if self.overlap.folder.done else None
        return self._task("finetuning", self._variant(arm, seed), reads, needs, without=without)

    def evaluation(self, arm: str, seed: int | None = None) -> Task:
        """``seed`` as in :meth:`finetuning`: it selects the adapter and does not change how responses are sampled."""
        trained = self.finetuning(arm, seed)
        needs = (self.benchmarks, *((trained,) if trained else ()))
        variant = self._variant(arm, seed) if trained else arm
        return self._task("evaluation", variant, (*STUDENT, *EVALUATION), needs, self.params.n_samples)

    def shortened(self, arm: str, seed: int | None = None) -> Task | None:
        """The grades of the same responses under the second budget; ``None`` without one."""
        if self.params.second_budget is None:
            return None
        whole = self.evaluation(arm, seed)
        return self._task("shortened", whole.variant, ("second_budget",), (whole,), self.params.n_samples)

    def _variant(self, arm: str, seed: int | None) -> str:
        """Seed 0 has only the arm's name, so a study that adds seeds keeps its finished tasks."""
        seed = self.params.training_seeds[0] if seed is None else seed
        return f"{arm}-seed-{seed}" if seed else arm

    @property
    def preference(self) -> Task | None:
        """``None`` without a judge or a second arm. It compares the responses of each arm's first training seed."""
        if self.params.preference_judge is None or len(self.params.arms) < 2:
            return None
        needs = (self.benchmarks, *(self.evaluation(arm) for arm in self.params.arms))
        return self._task("preference", "responses", PREFERENCE, needs)

    @property
    def report(self) -> Task:
        needs = [self.evaluation(arm, seed) for arm, seed in self.runs]
        needs += [task for task in (self.entropy, self.success, self.sufficiency, self.preference) if task]
        return self._task("report", self.params.study, REPORT, tuple(needs))

    @property
    def report_path(self) -> Path:
        return root() / "reports" / self.params.study / "report.html"

    def steps(self) -> list[Step]:
        """All notebooks in order: the shared ones once, fine-tuning and evaluation per arm and seed, the report."""
        found = [Step(self, "01_generation", (self.benchmarks, self.traces, self.overlap))]
        searched = [self.truncation(strategy) for strategy in self.cuts]
        if searched:
            found.append(Step(self, "02_truncation", _present(*searched, self.entropy)))
        if self.strategies:
            aligned = map(self.alignment, self.strategies)
            found.append(Step(self, "03_alignment", _present(*aligned, self.success, self.sufficiency)))
        for arm, seed in self.runs:
            if trained := self.finetuning(arm, seed):
                found.append(Step(self, "04_finetuning", (trained,), arm, seed))
            graded = _present(self.evaluation(arm, seed), self.shortened(arm, seed))
            found.append(Step(self, "05_evaluation", graded, arm, seed))
        found.append(Step(self, "06_report", _present(self.preference, self.report)))
        return found

    def tasks(self) -> list[Task]:
        """The tasks of all steps, each after those it needs."""
        return [task for step in self.steps() for task in step.tasks]


def prefixes_of(strategy: str) -> str | None:
    """The strategy whose prefixes one continues; ``None`` where it has none, or makes them as it goes."""
    if strategy in ("adaptive-k", "adaptive-backoff"):
        return "adaptive"
    return None if strategy == "empty" or strategy in SELECTED or strategy in ATTEMPTS else strategy


def _present(*tasks: Task | None) -> tuple[Task, ...]:
    return tuple(task for task in tasks if task)


def held(stage: str) -> Callable:
    """Decorate the function that makes a stage's result: one process at a time runs it for one task.

    ``stage`` names the task in :class:`Plan`. The function takes ``params``, then the arguments that identify the task.
    It gets the parameters with every known commit pinned; what is not yet known of the hub's commits is looked up.
    """

    def decorate(function: Callable) -> Callable:
        @wraps(function)
        def alone(params: Params, *args, **kwargs):
            params = resolved.settled(params)
            task = getattr(Plan(params), stage)
            task = task(*args, **kwargs) if callable(task) else task
            if task is None:
                return function(params, *args, **kwargs)
            if task.folder.done:
                task.require()  # raises if the folder was copied from other parameters
                return function(params, *args, **kwargs)
            with task.folder.hold(), task.folder.claim(task.key):
                return function(params, *args, **kwargs)

        return alone

    return decorate


def _inputs(values: dict) -> list[str]:
    """The data sets and models named in ``values``."""
    names = [values[key] for key in INPUTS if values.get(key)]
    return names + [benchmark["data"] for benchmark in values.get("benchmarks", [])]


def _content(name: str) -> str | None:
    """The content hash of a local input; ``None`` for a hub id, whose revision is in the params."""
    path = Path(resolve(name))
    if not path.exists():
        return None
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return _fingerprint(path, tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in sorted(files)))


@lru_cache(maxsize=64)
def _fingerprint(path: Path, unchanged: tuple) -> str:
    """Remembered as long as no file's time or size changes: here of all inputs, in ``runs/`` of large files."""
    return fingerprint(path, root() / "runs" / ".hashes.json")
