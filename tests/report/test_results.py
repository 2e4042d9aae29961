"""A study is read once, from finished tasks only, and Pass@k is computed within each training seed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.params import Benchmark, Params
from palign.report.results import ANSWERED, Outcomes, Results, aligned, as_arrays, right_in
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
            {"benchmark": b, "problem": i, "sample": sample, "right": right, "finish": "stop"}
            for b, i in problems
            for sample in range(params.n_samples)
        ]
        task.folder.write("grades", grades)
        task.finish()
        values = Results(params).outcomes.values("zero-shot", "pass@1", params.max_new_tokens)
        return values["dial-2"].to_numpy().mean()

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


def outcomes(problems: str, answered: list, right: list, seeds: tuple = (0,)) -> Outcomes:
    """Of one arm and one benchmark, whose problems are single letters: one row per problem, one column per seed."""
    columns = [("rft", seed, name) for name in (ANSWERED, right_in(8)) for seed in seeds]
    index = pd.MultiIndex.from_tuples([("set", name) for name in problems], names=["benchmark", "problem"])
    counts = pd.DataFrame(np.hstack([answered, right]), index, pd.MultiIndex.from_tuples(columns))
    counts.columns.names = ["arm", "seed", "count"]
    benchmark = Benchmark(name="set", data="set.jsonl", problems=len(problems))
    return Outcomes(Params(arms=["rft"], benchmarks=[benchmark], training_seeds=list(seeds)), counts)


def test_samples_of_two_seeds_are_not_put_together():
    """A problem right in all samples of one seed and in none of the other: one of three is right half of the time."""
    made = outcomes("ab", [[3, 3], [3, 3]], [[3, 0], [1, 1]], seeds=(0, 1))
    assert made.values("rft", "pass@3", 8)["set"].to_numpy().tolist() == [[1, 0], [1, 1]]
    values = made.values("rft", "pass@1", 8)["set"]
    assert list(values.columns) == [0, 1] and list(values.index) == ["a", "b"]
    assert values.to_numpy() == pytest.approx(np.array([[1, 0], [1 / 3, 1 / 3]]))
    assert made.values("rft", "pass@1", 8, seed=1)["set"][1].tolist() == pytest.approx([0, 1 / 3])


def test_the_order_of_a_file_does_not_reach_the_last_digits():
    there = outcomes("bca", [[3]] * 3, [[1], [2], [3]])
    back = Outcomes(there.params, there.counts[::-1])
    there, back = (one.values("rft", "pass@1", 8)["set"][0].tolist() for one in (there, back))
    assert there == back == pytest.approx([1, 1 / 3, 2 / 3])


def test_a_sample_that_was_never_answered_is_neither_right_nor_wrong():
    """A request that failed counted as a wrong answer."""
    made = outcomes("abcd", [[3], [2], [1], [0]], [[1], [1], [1], [0]])
    one, three = (made.values("rft", metric, 8) for metric in ("pass@1", "pass@3"))
    assert one["set"][0].tolist() == pytest.approx([1 / 3, 1 / 2, 1, np.nan], nan_ok=True)
    assert three["set"][0].isna().tolist() == [False, True, True, True]
    (values,) = as_arrays(one)
    assert values.shape == (3, 1)
    assert made.missing.loc["rft", "set"] == 6 and made.asked["rft"] == 12 and made.incomplete == {"rft": 0.5}


def test_two_arms_are_compared_on_the_problems_that_both_answered_in_every_seed():
    a = outcomes("abc", [[3, 3], [3, 0], [3, 3]], [[3, 3], [3, 0], [0, 0]], seeds=(0, 1)).values("rft", "pass@1", 8)
    b = outcomes("abc", [[0], [3], [3]], [[0], [3], [3]]).values("rft", "pass@1", 8)
    (x,), (y,) = aligned(a, b)
    assert x.tolist() == [[0, 0]] and y.tolist() == [[1]]


COUNTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).map(sorted), min_size=1, max_size=8)


@settings(max_examples=25)  # each builds six tables
@given(counts=COUNTS.filter(lambda counts: any(answered == 3 for _, answered in counts)))
def test_the_accuracy_lies_between_what_the_missing_responses_allow(counts):
    """With every missing one wrong it is the lower bound, with every one right the upper."""
    right, answered = ([[pair[i]] for pair in counts] for i in (0, 1))
    made = outcomes("abcdefgh"[: len(counts)], answered, right)
    for metric, k in (("pass@1", 1), ("pass@3", 3)):
        (values,) = as_arrays(made.values("rft", metric, 8))
        low, high = made.bounds("rft", metric, 8)["set"]
        if k == 1 or all(a == 3 for (a,) in answered):
            assert low - 1e-9 <= values.mean() <= high + 1e-9
        filled = [[r + 3 - a] for (r,), (a,) in zip(right, answered, strict=True)]
        for end, all_right in ((low, right), (high, filled)):
            whole = outcomes("abcdefgh"[: len(counts)], [[3]] * len(counts), all_right)
            assert end == pytest.approx(whole.values("rft", metric, 8)["set"].to_numpy().mean())
