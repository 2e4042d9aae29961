"""A study is read once, from finished tasks only, and Pass@k is computed within each training seed."""

import numpy as np
import pandas as pd
import pytest

from palign.params import Benchmark, Params
from palign.report.results import Outcomes, Results
from palign.tasks.plan import Plan, TaskMissing


def test_results_opened_after_a_new_grading_are_the_new_ones(small, project):
    """Results load each record once: what is opened later must not see what was loaded before."""
    params = Params(**small | {"arms": ["zero-shot"], "second_budget": None})
    plan = Plan(params)
    problems = [(b.name, str(i)) for b in params.benchmarks for i in range(b.problems)]
    plan.benchmarks.folder.write("problems", [{"benchmark": b, "id": i, "question": b + i} for b, i in problems])
    plan.benchmarks.finish()

    def accuracy(right: bool) -> float:
        task = Plan(params).evaluation("zero-shot")
        grades = [
            {"benchmark": b, "problem": i, "sample": sample, "right": right}
            for b, i in problems
            for sample in range(params.n_samples)
        ]
        task.folder.write("grades", grades)
        task.finish()
        return np.mean(Results(params).outcomes.values("zero-shot", "pass@1", params.max_new_tokens)["dial-2"])

    assert accuracy(False) == 0 and accuracy(True) == 1


def test_a_study_is_opened_by_its_params_file(small, project):
    """``palign.open`` gives a study's records in Python."""
    import palign

    assert palign.open("params/small.yaml").params == Params(**small)


def test_what_is_not_finished_says_which_notebook_makes_it(small, project):
    study = Results(Params(**small))
    with pytest.raises(TaskMissing, match="run notebook 02_truncation"):
        study.prefixes()
    assert study.prefixes("linear").empty, "a strategy that no arm of the study has"


def test_samples_of_two_seeds_are_not_put_together():
    """A problem right in all samples of one seed and in none of the other: one of three is right half of the time."""
    columns = pd.MultiIndex.from_tuples([("rft", 0, 8), ("rft", 1, 8)], names=["arm", "seed", "budget"])
    index = pd.MultiIndex.from_tuples([("set", "a"), ("set", "b")], names=["benchmark", "problem"])
    params = Params(benchmarks=[Benchmark(name="set", data="set.jsonl", problems=2)])
    outcomes = Outcomes(params, pd.DataFrame([[3, 0], [1, 1]], index, columns))
    assert outcomes.values("rft", "pass@3", 8)["set"].tolist() == [0.5, 1.0]
    assert outcomes.values("rft", "pass@1", 8)["set"].tolist() == pytest.approx([0.5, 1 / 3])
    assert outcomes.values("rft", "pass@1", 8, seed=1)["set"].tolist() == pytest.approx([0, 1 / 3])


def test_the_order_of_a_file_does_not_reach_the_last_digits():
    columns = pd.MultiIndex.from_tuples([("rft", 0, 8)], names=["arm", "seed", "budget"])
    index = pd.MultiIndex.from_tuples([("set", name) for name in "bca"], names=["benchmark", "problem"])
    counts = pd.DataFrame([[1], [2], [3]], index, columns)
    params = Params(benchmarks=[Benchmark(name="set", data="set.jsonl", problems=3)])
    there, back = (Outcomes(params, table).values("rft", "pass@1", 8)["set"] for table in (counts, counts[::-1]))
    assert there.tolist() == back.tolist() == pytest.approx([1, 1 / 3, 2 / 3])
