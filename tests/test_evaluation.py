"""Responses are sampled once: more samples, another second budget and other success rates use what there is."""

import pytest

from palign import alignment, evaluation, traces, truncation
from palign.engines.tokenizers import load_tokenizer
from palign.grading import grade
from palign.params import validate
from palign.problems import collect_benchmarks
from palign.report.results import Results
from palign.tasks.plan import Plan


@pytest.fixture
def study(small):
    """Makes the untrained student's study with other values; counts the prompts that an engine was given."""
    return lambda **values: validate({**small, "protocol": "own", "arms": ["zero-shot"], **values}, "test")


@pytest.fixture
def asked(monkeypatch):
    counts = []
    for module in (evaluation, alignment):
        real = module.stream
        monkeypatch.setattr(
            module,
            "stream",
            lambda e, prompts, *rest, real=real: counts.append(len(prompts)) or real(e, prompts, *rest),
        )
    return counts


def test_more_samples_keep_those_there_are(study, asked):
    """Going from 3 to 16 samples threw the first three away."""
    three, five = study(n_samples=3), study(n_samples=5)
    collect_benchmarks(three)
    first = evaluation.respond(three, "zero-shot")
    asked.clear()
    more = evaluation.respond(five, "zero-shot")
    assert sum(asked) == 2 * 8, "two further samples of eight problems"
    assert [r for r in more if r["sample"] < 3] == first
    asked.clear()
    assert evaluation.respond(three, "zero-shot") == first and not asked
    grades = Plan(three).evaluation("zero-shot").read("grades")
    assert {g["sample"] for g in grades} == {0, 1, 2} and len(grades) == 24


def test_another_second_budget_cuts_the_stored_tokens(study, asked):
    """It generated everything anew."""
    one, two = study(second_budget=10), study(second_budget=4)
    collect_benchmarks(one)
    evaluation.respond(one, "zero-shot")
    asked.clear()
    shortened = {p.second_budget: evaluation.shorten(p, "zero-shot") for p in (one, two)}
    assert evaluation.respond(two, "zero-shot") and not asked
    tokenizer = load_tokenizer(one.model("student"))
    for record in evaluation.respond(one, "zero-shot"):
        for budget, grades in shortened.items():
            text = tokenizer.decode(record["token_ids"][:budget], skip_special_tokens=True)
            (right,) = [g["right"] for g in grades if g["id"] == record["id"]]
            assert right == grade(text, record["answer"]).right
    assert evaluation.shorten(study(second_budget=None), "zero-shot") == []


def test_the_second_budgets_grades_stand_beside_the_first_ones(study):
    params = study(second_budget=10)
    collect_benchmarks(params)
    evaluation.respond(params, "zero-shot")
    evaluation.shorten(params, "zero-shot")
    frame = Results(params).grades
    assert frame["right_cut"].sum() < frame["right"].sum(), "few answers fit ten tokens"
    assert not (frame["right_cut"] & ~frame["right"] & (frame["new_tokens"] <= 10)).any()


def test_other_success_rates_leave_the_training_pairs_alone(study, asked):
    """Another `sufficiency_samples`, which is only measured, continued every prefix and trained every arm anew."""
    one, two = (study(arms=["zero-shot", "p-align"], sufficiency_samples=n) for n in (1, 2))
    traces.collect(one)
    truncation.truncate(one, "adaptive")
    pairs = alignment.align(one, "adaptive")
    first = alignment.measure_success(one)
    asked.clear()
    assert alignment.align(two, "adaptive") == pairs and not asked
    second = alignment.measure_success(two)
    assert sum(asked) == len(first) == 12 and [g for g in second if g["sample"] == 0] == first
    rates = Results(two).pairs().set_index("id")["success_rate"]
    for name, rate in rates.items():
        assert rate == sum(g["right"] for g in second if g["of"] == name) / 2
    none = study(arms=["zero-shot", "p-align"], sufficiency_samples=0)
    assert alignment.measure_success(none) == [] and Results(none).pairs()["success_rate"].isna().all()
