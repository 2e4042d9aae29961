"""The report claims what an interval and a corrected test support, and counts before it computes."""

import numpy as np
import pytest

from palign.report import tables
from palign.tasks import plan
from palign.params import Benchmark, Params

SIZES = {"easy": 40, "hard": 60}


@pytest.fixture
def study(monkeypatch):
    """A study of made-up grades: arm -> chance of a right response on a problem that is as hard as its number."""

    def make(**skills: float) -> Params:
        params = Params(
            arms=list(skills),
            benchmarks=[Benchmark(name=name, data=f"{name}.jsonl", problems=n) for name, n in SIZES.items()],
            second_budget=None,
        )

        def load_grades(params, arm, seed=None):
            rng = np.random.default_rng(0)  # the same luck for every arm
            return [
                {"benchmark": name, "problem": str(i), "sample": sample, "right": bool(rng.random() < skills[arm])}
                for name, n in SIZES.items()
                for i in range(n)
                for sample in range(3)
            ]

        monkeypatch.setattr(tables.evaluation, "load_grades", load_grades)
        return params

    return make


def pass_1(table):
    return table[table["metric"] == "pass@1"].set_index("arm")


def test_a_difference_inside_its_interval_is_not_called_one(study):
    params = study(**{"zero-shot": 0.5, "sft-label": 0.51, "rft": 0.9})
    table = pass_1(tables.differences(params))
    assert table.loc["sft-label", "value"] > 0 and not table.loc["sft-label", "clear"]
    assert table.loc["rft", "clear"]
    text = tables.finding(params)
    assert "above zero-shot: rft" in text and "not distinguishable from zero-shot: sft-label" in text


def test_what_is_clear_alone_may_not_be_among_several(study):
    """Holm: the more arms are compared, the more evidence each needs."""
    alone = study(**{"zero-shot": 0.5, "rft": 0.56})
    among = study(**{"zero-shot": 0.5, "rft": 0.56, "upft": 0.5, "sft-label": 0.5})
    p, corrected = pass_1(tables.differences(alone)), pass_1(tables.differences(among))
    assert p.loc["rft", "p"] == p.loc["rft", "p_holm"] == corrected.loc["rft", "p"] < 0.05
    assert corrected.loc["rft", "p_holm"] == pytest.approx(3 * p.loc["rft", "p"])


def test_benchmarks_of_unlike_size_have_both_averages(study):
    table = tables.accuracy(study(**{"zero-shot": 0.5})).set_index(["metric", "benchmark"])["value"]
    easy, hard = table["pass@1", "easy"], table["pass@1", "hard"]
    assert table["pass@1", tables.AVERAGE] == pytest.approx((easy + hard) / 2)
    assert table["pass@1", tables.POOLED] == pytest.approx((40 * easy + 60 * hard) / 100)


def test_a_missing_response_stops_the_report(study, monkeypatch):
    params = study(**{"zero-shot": 0.5})
    whole = tables.evaluation.load_grades
    monkeypatch.setattr(tables.evaluation, "load_grades", lambda params, arm, seed=None: whole(params, arm)[1:])
    with pytest.raises(ValueError, match="zero-shot seed 0: responses"):
        tables.accuracy(params)


def test_power_is_stated_for_each_benchmark_and_their_average(study):
    table = tables.power(study(**{"zero-shot": 0.5}))
    assert table.index.tolist() == ["easy", "hard", tables.AVERAGE]
    independent = table["points, correlation 0"]
    assert independent["easy"] > independent["hard"] > independent[tables.AVERAGE] > 0


def test_a_study_of_one_arm_has_nothing_to_compare(study):
    params = study(**{"zero-shot": 0.5})
    assert tables.differences(params).empty and tables.differences_wide(params).empty
    assert "nothing to compare" in tables.finding(params)


def test_a_tiny_p_is_not_printed_as_none(study):
    shown = tables.differences_wide(study(**{"zero-shot": 0.1, "rft": 0.9}))
    assert (shown[shown["test"] == "exact McNemar"]["p"] == "< 0.0001").all()


def test_a_table_is_computed_anew_when_the_grades_are_others(small):
    params = Params(**small | {"arms": ["zero-shot"], "second_budget": None})
    task = plan.evaluation(params, "zero-shot")

    def accuracy(right: bool) -> float:
        task.folder.write(
            "grades",
            [
                {"benchmark": benchmark.name, "problem": str(i), "sample": sample, "right": right}
                for benchmark in params.benchmarks
                for i in range(benchmark.problems)
                for sample in range(params.n_samples)
            ],
        )
        task.finish()
        return tables.accuracy(params)["value"].mean()

    assert accuracy(False) == 0 and accuracy(True) == 1
