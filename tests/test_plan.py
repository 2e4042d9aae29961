"""Changing a parameter reruns exactly what depends on it."""

import pytest

from palign import plan
from palign.params import Params, fields_of
from palign.study import steps

BASE = Params()


def keys(params: Params) -> dict[str, str]:
    tasks = {task.name: task.key for step in steps(params) for task in step.tasks}
    return {name: key for name, key in tasks.items() if not name.startswith("report")}


def changed(**values) -> set[str]:
    before, after = keys(BASE), keys(Params(**values))
    return {name for name in before if before[name] != after[name]}


ALL = set(keys(BASE))
TRAINED = {name for name in ALL if name.startswith("finetuning/")}
EVALUATED = {name for name in ALL if name.startswith("evaluation/")}


def test_a_study_of_the_same_parameters_is_the_same():
    assert changed() == set()


@pytest.mark.parametrize("field", fields_of("student", "finetuning", effect="speed"))
def test_speed_parameters_change_nothing(field):
    other = {"device": "cpu"}.get(field, 7)
    assert changed(**{field: other}) == set()


def test_evaluation_parameters_rerun_evaluation_only():
    assert changed(temperature=0.7, protocol="own") == EVALUATED


def test_learning_rate_reruns_training_and_the_trained_arms_evaluation():
    assert changed(learning_rate=1.0e-3) == TRAINED | EVALUATED - {"evaluation/zero-shot"}


def test_upft_parameters_touch_upft_only():
    assert changed(upft_tokens=8) == {"finetuning/upft", "evaluation/upft"}


def test_the_search_touches_only_what_stands_on_prefixes():
    expected = {"truncation/adaptive", "alignment/adaptive", "finetuning/p-align", "evaluation/p-align"}
    assert changed(search="equation7") == expected


def test_alignment_sampling_touches_both_strategies():
    arms = {f"{stage}/{arm}" for stage in ("finetuning", "evaluation") for arm in ("p-align", "rft")}
    aligned = {"alignment/adaptive", "alignment/empty", "sufficiency/judge"}
    assert changed(alignment_temperature=0.9) == aligned | arms


def test_the_study_of_the_judge_touches_nothing_else():
    assert changed(judged_samples=2) == {"sufficiency/judge"}


def test_training_data_do_not_touch_the_untrained_student():
    assert changed(training_limit=5) == ALL - {"benchmarks/test", "evaluation/zero-shot"}


def test_benchmarks_touch_evaluation_and_overlap_only():
    assert changed(benchmarks=list(BASE.benchmarks[:2])) == EVALUATED | {"benchmarks/test", "overlap/train-test"}


def test_a_data_file_that_changes_is_seen(project):
    data = project / "train.jsonl"
    data.write_text("{}\n")
    params = Params(training_data="train.jsonl")
    before = plan.traces(params).key
    data.write_text("{} \n")
    assert plan.traces(Params(training_data="train.jsonl")).key != before


def test_arms_left_out_are_not_planned():
    names = {step.title for step in steps(Params(arms=["zero-shot", "sft-label"]))}
    assert names == {
        "01_generation",
        "05_evaluation zero-shot",
        "04_finetuning sft-label",
        "05_evaluation sft-label",
        "06_report",
    }


def test_what_is_missing_is_told_with_the_notebook_that_makes_it(project):
    with pytest.raises(plan.TaskMissing, match="run notebook 01_generation"):
        plan.traces(Params(study="none")).require()
