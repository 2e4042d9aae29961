"""A finished study's records, each loaded once, when it is first asked for.

>>> study = Results(load("params/pocket.yaml"))      # palign.open gives one that can show problems, too
>>> study.outcomes.values("p-align", "pass@1", 256)["dial-2"].mean()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import alignment
from ..analysis import statistics
from ..engines.base import NEVER_ANSWERED
from ..params import Params
from ..problems import asked
from ..tasks.plan import INPUTS, Plan

METRICS = {"pass@1": 1, "pass@3": 3}
"""Metric -> the number k of samples of which at least one must be right."""


ANSWERED = "answered"
"""The name of the column that counts a problem's answered samples, beside those of :func:`right_in`."""

TOLERATED = 0.01
"""The largest share of an arm's responses that may be missing if it is to be compared with another arm."""


def right_in(budget: int) -> str:
    """The name of the column that counts a problem's right samples under a response budget in tokens."""
    return f"right in {budget} tokens"


@dataclass(frozen=True)
class Outcomes:
    """How many of a problem's samples were answered and how many are right, by arm, training seed and response budget.

    ``counts``: one row per problem, with index levels ``benchmark`` and ``problem`` (a hash of the question, since ids
    are often row numbers); column levels ``arm``, ``seed`` and ``count``, which is :data:`ANSWERED` or a name that
    :func:`right_in` gives. A sample without a response (``palign.engines.base.NEVER_ANSWERED``) is missing: it is
    neither right nor wrong.
    """

    params: Params
    counts: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        """The metrics that the study's number of samples allows."""
        return [name for name, k in METRICS.items() if k <= self.params.n_samples]

    def values(self, arm: str, metric: str, budget: int, seed: int | None = None) -> dict[str, pd.DataFrame]:
        """Benchmark -> Pass@k of each problem (fractions): one row per problem, one column per training seed.

        Pass@k is computed within each seed, since samples of two models are not exchangeable, and within the answered
        samples. It is NaN where fewer than k of them were answered. ``seed``: only that one.
        """
        key = (arm, metric, budget, seed)
        if key not in self._values:
            self._values[key] = self._each(arm, metric, budget, lambda right, answered: (right, answered), seed)
        return self._values[key]

    @cached_property
    def _values(self) -> dict[tuple, dict[str, pd.DataFrame]]:
        """What :meth:`values` gave: a report asks for an arm's some ten times."""
        return {}

    def pair(self, a: str, b: str, metric: str, budget: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The values of two arms, as :func:`aligned` gives them."""
        return aligned(self.values(a, metric, budget), self.values(b, metric, budget))

    def bounds(self, arm: str, metric: str, budget: int) -> dict[str, tuple[float, float]]:
        """Benchmark -> its Pass@k, over all problems, if every missing response were wrong, and if each were right."""
        n = self.params.n_samples
        worst = self._each(arm, metric, budget, lambda right, answered: (right, n))
        best = self._each(arm, metric, budget, lambda right, answered: (right + n - answered, n))
        return {name: (worst[name].to_numpy().mean(), best[name].to_numpy().mean()) for name in worst}

    @cached_property
    def missing(self) -> pd.DataFrame:
        """How many responses were never answered: one row per arm, one column per benchmark."""
        lacking = self.params.n_samples - self.counts.xs(ANSWERED, axis=1, level="count")
        return lacking.groupby(level="benchmark").sum().T.groupby(level="arm").sum().reindex(self.params.arms)

    @cached_property
    def asked(self) -> pd.Series:
        """How many responses each arm was asked for: problems x samples x training seeds."""
        seeds = self.counts.xs(ANSWERED, axis=1, level="count").columns.get_level_values("arm").value_counts()
        return (seeds * len(self.counts) * self.params.n_samples).reindex(self.params.arms)

    @cached_property
    def incomplete(self) -> dict[str, float]:
        """Arms of which more than :data:`TOLERATED` of the responses are missing -> that share."""
        shares = self.missing.sum(axis=1) / self.asked
        return shares[shares > TOLERATED].to_dict()

    def check(self) -> None:
        """Raises ``ValueError`` where a count is no whole number, or more are right than answered, or than asked."""
        every = self.counts.to_numpy()
        if not (every % 1 == 0).all():  # nan compares false
            raise ValueError(f"counts must be whole numbers, not {every[every % 1 != 0][0]}")
        answered = self.counts.xs(ANSWERED, axis=1, level="count")
        if (answered > self.params.n_samples).any(axis=None):
            raise ValueError(f"more than {self.params.n_samples} responses to a problem")
        for name in self.counts.columns.unique("count").drop(ANSWERED):
            right = self.counts.xs(name, axis=1, level="count")[answered.columns]
            if ((right < 0) | (right > answered)).any(axis=None):
                raise ValueError(f"{name}: counts must be between 0 and that of the answered samples")

    def _each(
        self, arm: str, metric: str, budget: int, of: Callable, seed: int | None = None
    ) -> dict[str, pd.DataFrame]:
        """Pass@k by problem and seed, where ``of`` makes the right and all samples from the right and answered ones."""
        right = self.counts[arm].xs(right_in(budget), axis=1, level="count")
        answered = self.counts[arm].xs(ANSWERED, axis=1, level="count")
        right, n = of(right, answered) if seed is None else of(right[[seed]], answered[[seed]])
        values = _pass_at_k(right.to_numpy(), np.broadcast_to(n, right.shape), METRICS[metric])
        table = pd.DataFrame(values, right.index, right.columns)
        # in one order, whatever that of the file: sums of floats depend on it in their last digits
        return {b.name: table.loc[b.name].sort_index() for b in self.params.benchmarks}


def _pass_at_k(right: np.ndarray, n: np.ndarray, k: int) -> np.ndarray:
    """``statistics.pass_at_k`` where ``n`` differs between problems; NaN where it is below ``k``."""
    values = np.full(right.shape, np.nan)
    for size in np.unique(n[n >= k]):
        values[n == size] = statistics.pass_at_k(right[n == size], int(size), k)
    return values


class Results:
    """The records of one study, as tables. Raises ``TaskMissing`` for a task that is not finished."""

    def __init__(self, params: Params):
        self.plan = Plan(params)
        self.params = self.plan.params  # with the commits that the study kept
        self._loaded: dict[tuple, Any] = {}

    def _once(self, name: tuple, load: Callable[[], Any]) -> Any:
        """What a method loads, once for each of its arguments; ``cached_property`` does the same for properties."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    def only(self, arm: str, seed: int) -> Results:
        """The same study of one arm and one training seed."""
        return type(self)(self.params.model_copy(update={"arms": [arm], "training_seeds": [seed]}))

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
        if strategy not in self.plan.cuts:
            return pd.DataFrame()
        frame = pd.DataFrame(self.plan.truncation(strategy).read("prefixes"))
        return frame.assign(
            ratio=frame["prefix_tokens"] / frame["trace_tokens"],
            calls=frame["verdicts"].map(len),
            sentence_ratio=frame["sentences"] / frame["of"],
            oracle_ratio=frame["oracle_sentences"] / frame["of"],
        )

    def pairs(self, strategy: str = "adaptive") -> pd.DataFrame:
        """A strategy's aligned pairs, one row per prefix (``own-k``: one per continuation): those of
        ``palign.alignment.align`` and beside them

        ``kept`` (for training), ``cut`` (right, but cut at the budget) and ``success_rate``, the share of right answers
        among further continuations, measured for the adaptive prefixes only, else NaN. Empty where the study does not
        use the strategy.
        """
        return self._once(("pairs", strategy), lambda: self._pairs(strategy))

    def _pairs(self, strategy: str) -> pd.DataFrame:
        if strategy not in self.plan.strategies:
            return pd.DataFrame()
        records, keep_cut = self.plan.alignment(strategy).read("pairs"), self.params.keep_cut_continuations
        found = [
            {"cut": alignment.cut(record), "kept": alignment.kept(record, keep_cut), "success_rate": None}
            for record in records
        ]
        frame = pd.DataFrame(records).assign(**pd.DataFrame(found))
        if strategy == "adaptive" and self.plan.success:
            tried = pd.DataFrame(self.plan.success.read("grades")).dropna(subset="right")
            frame["success_rate"] = frame["id"].map(tried["right"].astype(float).groupby(tried["of"]).mean())
        return frame.astype({"success_rate": float})

    def responses(self, arm: str | None = None, seed: int | None = None) -> pd.DataFrame:
        """The responses with their texts and grades, one row each: of all arms and training seeds, or of these.

        ``arm``, ``seed``, ``benchmark``, ``problem``, ``sample`` and ``id`` say which; ``answer`` (the gold one),
        ``text``, ``finish``, ``reason`` (empty unless a request failed), ``prompt_tokens`` and ``new_tokens``; then the
        fields of the grades (:attr:`grades`). An arm that is not trained has one seed, the study's first. Raises
        ``ValueError`` for an arm or a seed that the study does not have.
        """
        runs = [run for run in self.plan.runs if arm in (None, run[0]) and seed in (None, run[1])]
        if not runs:
            wanted = " ".join(str(part) for part in (arm, None if seed is None else f"seed {seed}") if part is not None)
            known = ", ".join(f"{a} seed {s}" for a, s in self.plan.runs)
            raise ValueError(f"no responses of {wanted} in this study; it has {known}")
        frames = [self._once(("responses", *run), partial(self._responses, *run)) for run in runs]
        return pd.concat(frames, ignore_index=True)

    def _responses(self, arm: str, seed: int) -> pd.DataFrame:
        found = pd.DataFrame(self.plan.evaluation(arm, seed).read("responses")).drop(
            columns="token_ids", errors="ignore"
        )
        reason = found["reason"].fillna("") if "reason" in found else ""
        grades = self._graded(arm, seed).set_index("id")
        grades = grades[[name for name in grades if name not in found]]  # of what both files hold, the responses'
        found = found.assign(reason=reason).join(grades, on="id")
        first = ["arm", "seed", "benchmark", "problem", "sample", "id"]
        return found[first + [name for name in found if name not in first]]

    def _graded(self, arm: str, seed: int) -> pd.DataFrame:
        frame = pd.DataFrame(self.plan.evaluation(arm, seed).read("grades")).assign(arm=arm, seed=seed)
        if shortened := self.plan.shortened(arm, seed):
            right = {record["id"]: record["right"] for record in shortened.read("grades")}
            frame["right_cut"] = frame["id"].map(right)
        return frame

    @cached_property
    def grades(self) -> pd.DataFrame:
        """The grades of all arms and training seeds, one row per response. Raises ``ValueError`` if one is missing."""
        expected = {b.name: b.problems * self.params.n_samples for b in self.params.benchmarks}
        frames = []
        for arm, seed in self.plan.runs:
            frame = self._graded(arm, seed)
            counts = frame.groupby("benchmark").size().to_dict()
            if counts != expected:
                raise ValueError(f"{arm} seed {seed}: responses {counts}, expected {expected}")
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def outcomes(self) -> Outcomes:
        """Answered and right samples by problem."""
        return Outcomes(self.params, self._counts())

    def _counts(self) -> pd.DataFrame:
        tests = pd.DataFrame(self.tests).set_index(["benchmark", "id"])
        names = tests["question"].map(asked)
        twin = names.groupby([names.index.get_level_values(0), names]).cumcount()  # a benchmark may repeat a question
        names = names.where(twin == 0, names + "-" + twin.astype(str))
        frame = self.grades
        frame = frame.assign(**{ANSWERED: ~frame["finish"].isin(NEVER_ANSWERED)})
        frame = frame.assign(problem=names.loc[list(zip(frame["benchmark"], frame["problem"], strict=True))].to_numpy())
        columns = dict(zip(self.budgets, ("right", "right_cut"), strict=False))
        frame = frame.assign(**{right_in(b): frame[column] & frame[ANSWERED] for b, column in columns.items()})
        groups = frame.groupby(["benchmark", "problem", "arm", "seed"], sort=False)
        counts = groups[[ANSWERED, *map(right_in, columns)]].sum().unstack(["arm", "seed"])
        return counts.reorder_levels([1, 2, 0], axis=1).rename_axis(columns=["arm", "seed", "count"])

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


def answered(records: pd.DataFrame) -> pd.DataFrame:
    """The responses or pairs to which the model gave a response."""
    return records[~records["finish"].isin(NEVER_ANSWERED)]


def problems_of(records: pd.DataFrame) -> pd.Series:
    """The id of the training problem of each pair: several continuations of one problem have ids of their own."""
    return records["of"].fillna(records["id"]) if "of" in records else records["id"]


def as_arrays(values: dict[str, pd.DataFrame]) -> list[np.ndarray]:
    """The groups of values that :mod:`palign.analysis.statistics` takes: one array of shape (problems, seeds) per
    benchmark, without the problems that lack a value in some seed. A group may be empty.
    """
    return [group.dropna().to_numpy() for group in values.values()]


def aligned(a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As :func:`as_arrays`, for each benchmark of ``a`` on the problems that both have a value of in every seed."""
    both = {name: a[name].dropna().index.intersection(b[name].dropna().index).sort_values() for name in a}
    x, y = ([values[name].loc[index].to_numpy() for name, index in both.items()] for values in (a, b))
    return x, y


def _read(task, name: str) -> list[dict]:
    return task.read(name) if task else []
