"""A finished study's records, each loaded once, when it is first asked for.

>>> study = Results(load("params/pocket.yaml"))      # what palign.open gives
>>> study.outcomes.values("p-align", "pass@1", 256)["dial-2"].mean()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis import statistics
from ..params import Params
from ..problems import asked
from ..tasks.plan import INPUTS, Plan

METRICS = {"pass@1": 1, "pass@3": 3}
"""Metric -> the number k of samples of which at least one must be right."""


@dataclass(frozen=True)
class Outcomes:
    """How many of a problem's samples are right, by arm, training seed and response budget.

    ``counts``: one row per problem, with index levels ``benchmark`` and ``problem`` (a hash of the question, since ids
    are often row numbers); one column per ``arm``, ``seed`` and ``budget`` (tokens).
    """

    params: Params
    counts: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        """The metrics that the study's number of samples allows."""
        return [name for name, k in METRICS.items() if k <= self.params.n_samples]

    def values(self, arm: str, metric: str, budget: int, seed: int | None = None) -> dict[str, pd.Series]:
        """Benchmark -> Pass@k of each problem (fractions): of one training seed, or the mean of all.

        Pass@k is computed within each seed: samples of two models are not exchangeable.
        """
        counts = self.counts[arm].xs(budget, axis=1, level="budget")
        counts = counts if seed is None else counts[[seed]]
        shares = counts.apply(lambda one: statistics.pass_at_k(one.to_numpy(), self.params.n_samples, METRICS[metric]))
        by_benchmark = shares.mean(axis=1)
        # in one order, whatever that of the file: sums of floats depend on it in their last digits
        return {b.name: by_benchmark.loc[b.name].sort_index() for b in self.params.benchmarks}


class Results:
    """The records of one study, as tables. Raises ``TaskMissing`` for a task that is not finished."""

    def __init__(self, params: Params):
        self.params, self.plan = params, Plan(params)
        self._loaded: dict[tuple, Any] = {}

    def _once(self, name: tuple, load: Callable[[], Any]) -> Any:
        """What a method loads, once for each of its arguments; ``cached_property`` does the same for properties."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    def only(self, arm: str, seed: int) -> Results:
        """The same study of one arm and one training seed."""
        return Results(self.params.model_copy(update={"arms": [arm], "training_seeds": [seed]}))

    @property
    def arms(self) -> list[str]:
        return self.params.arms

    @property
    def budget(self) -> int:
        """The main response budget in tokens."""
        return self.params.max_new_tokens

    @property
    def budgets(self) -> list[int]:
        """The response budgets in tokens, the main one first."""
        return budgets(self.params)

    @cached_property
    def tests(self) -> list[dict]:
        """The test problems: ``benchmark``, ``id``, ``question``, ``answer``."""
        return self.plan.benchmarks.read("problems")

    @cached_property
    def traces(self) -> list[dict]:
        """The training problems with their traces: the fields of ``palign.traces.Trace``."""
        return self.plan.traces.read("traces")

    @cached_property
    def overlaps(self) -> list[dict]:
        """Pairs of a training and a test question that share a run of words (``palign.overlap.find``)."""
        return self.plan.overlap.read("pairs")

    def prefixes(self, strategy: str = "adaptive") -> pd.DataFrame:
        """A strategy's prefixes, one row per trace: the fields of ``palign.truncation.Prefix`` and, beside them,

        ``calls`` (verdicts asked for), ``ratio`` (of the trace's tokens), ``sentence_ratio`` and ``oracle_ratio`` (of
        its sentences). Empty where the study does not use the strategy.
        """
        return self._once(("prefixes", strategy), lambda: self._prefixes(strategy))

    def _prefixes(self, strategy: str) -> pd.DataFrame:
        if strategy not in self.plan.strategies:
            return pd.DataFrame()
        frame = pd.DataFrame(self.plan.truncation(strategy).read("prefixes"))
        return frame.assign(
            ratio=frame["prefix_tokens"] / frame["trace_tokens"],
            calls=frame["verdicts"].map(len),
            sentence_ratio=frame["sentences"] / frame["of"],
            oracle_ratio=frame["oracle_sentences"] / frame["of"],
        )

    def pairs(self, strategy: str = "adaptive") -> pd.DataFrame:
        """A strategy's aligned pairs, one row per prefix (``palign.alignment.align``)."""
        return self._once(("pairs", strategy), lambda: pd.DataFrame(self.plan.alignment(strategy).read("pairs")))

    def responses(self, arm: str, seed: int | None = None) -> list[dict]:
        """One arm's responses with their texts (``palign.evaluation.respond``), of one training seed."""
        return self._once(("responses", arm, seed), lambda: self.plan.evaluation(arm, seed).read("responses"))

    @cached_property
    def grades(self) -> pd.DataFrame:
        """The grades of all arms and training seeds, one row per response. Raises ``ValueError`` if one is missing."""
        expected = {b.name: b.problems * self.params.n_samples for b in self.params.benchmarks}
        frames = []
        for arm, seed in self.plan.runs:
            frame = pd.DataFrame(self.plan.evaluation(arm, seed).read("grades")).assign(arm=arm, seed=seed)
            counts = frame.groupby("benchmark").size().to_dict()
            if counts != expected:
                raise ValueError(f"{arm} seed {seed}: responses {counts}, expected {expected}")
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def outcomes(self) -> Outcomes:
        """Right samples by problem."""
        return Outcomes(self.params, self._counts())

    def _counts(self) -> pd.DataFrame:
        tests = pd.DataFrame(self.tests).set_index(["benchmark", "id"])
        names = tests["question"].map(asked)
        twin = names.groupby([names.index.get_level_values(0), names]).cumcount()  # a benchmark may repeat a question
        names = names.where(twin == 0, names + "-" + twin.astype(str))
        frame = self.grades
        frame = frame.assign(problem=names.loc[list(zip(frame["benchmark"], frame["problem"], strict=True))].to_numpy())
        groups = frame.groupby(["benchmark", "problem", "arm", "seed"], sort=False)
        columns = dict(zip(self.budgets, ("right", "right_cut"), strict=False))
        counts = {budget: groups[column].sum().unstack(["arm", "seed"]) for budget, column in columns.items()}
        table = pd.concat(counts, axis=1).reorder_levels([1, 2, 0], axis=1)
        return table.rename_axis(columns=["arm", "seed", "budget"])

    @cached_property
    def judged(self) -> list[dict]:
        """Traces of which every prefix was judged (see ``palign.analysis.sufficiency``), if any."""
        return _read(self.plan.sufficiency, "judged")

    @cached_property
    def cuts(self) -> list[dict]:
        """The prefixes of these traces that the student continued."""
        return _read(self.plan.sufficiency, "cuts")

    @cached_property
    def entropies(self) -> list[dict]:
        """The student's entropy along traces (``palign.analysis.entropy``); empty if ``entropy_traces`` is 0."""
        return _read(self.plan.entropy, "entropies")

    @cached_property
    def preferences(self) -> list[dict]:
        """Outcomes of pairs of responses (``palign.analysis.preference``); empty without a judge."""
        return _read(self.plan.preference, "outcomes")

    def losses(self, arm: str, seed: int | None = None) -> pd.DataFrame:
        """Training loss (nats a token) by update (``step``); empty for an arm that is not trained."""
        return pd.DataFrame(_read(self.plan.finetuning(arm, seed), "losses"), columns=["step", "loss"])


def shown_name(name: str) -> str:
    """A data set or a model without private paths: a local path outside the project becomes its last part."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() else name


def portable(params: Params) -> dict:
    """The parameters that decide the results, as plain values for other readers: without addresses, without keys that
    only change the speed, and without the folders of data and models outside the project.
    """
    values = params.values(effect="result")
    for holder, key in [(values, key) for key in INPUTS] + [(b, "data") for b in values["benchmarks"]]:
        holder[key] = holder[key] and shown_name(holder[key])
    return values


def budgets(params: Params) -> list[int]:
    """The response budgets in tokens, the main one first."""
    return [params.max_new_tokens, *([params.second_budget] if params.second_budget is not None else [])]


def as_arrays(values: dict[str, pd.Series]) -> list[np.ndarray]:
    """The groups of values that :mod:`palign.analysis.statistics` takes: one array per benchmark."""
    return [group.to_numpy() for group in values.values()]


def _read(task, name: str) -> list[dict]:
    return task.read(name) if task else []
