"""Changing a parameter reruns exactly what depends on it."""

import pytest

from palign.arms import ARMS
from palign.params import POCKET_COSTS, Costs, Params, effect_of
from palign.tasks.plan import Plan, TaskMissing

BASE = Params()


def keys(params: Params) -> dict[str, str]:
    """Without the report and the preferences, which depend on every arm."""
    tasks = {task.name: task.key for task in Plan(params).tasks()}
    return {name: key for name, key in tasks.items() if not name.startswith(("report", "preference"))}


def changed(**values) -> set[str]:
    before, after = keys(BASE), keys(Params(**values))
    return {name for name in before if before[name] != after[name]}


ALL = set(keys(BASE))
TRAINED = {name for name in ALL if name.startswith("finetuning/")}
EVALUATED = {name for name in ALL if name.startswith("evaluation/")}


def test_a_study_of_the_same_parameters_is_the_same():
    assert changed() == set()


@pytest.mark.parametrize("field", [name for name in Params.model_fields if effect_of(name) == "speed"])
def test_speed_parameters_change_nothing(field):
    others = {"device": "cpu", "gpu_memory_utilization": 0.7, "endpoint_urls": ["address"], "protocol": "own"}
    others |= {"trust_remote_code": ["a/model"], "costs": Costs(**POCKET_COSTS | {"layers": 5})}
    assert changed(**{field: others.get(field, 7)}) == set()


def test_every_other_parameter_is_read_by_some_task():
    """One that no task names would leave stale results in place when it changes."""
    whole = Params(arms=list(ARMS), judge="a/judge", teacher="a/teacher")
    read = {name for task in Plan(whole).tasks() for name in task.reads}
    names = {name for name in Params.model_fields if effect_of(name) == "result"}
    assert read == names - {"study", "training_seeds"}  # these two name folders


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
    assert changed(judged_traces=2) == {"sufficiency/judge"}


def test_entropy_along_traces_touches_nothing_else():
    assert changed(entropy_traces=7) == {"entropy/student"}


def test_training_data_do_not_touch_the_untrained_student():
    assert changed(training_limit=5) == ALL - {"benchmarks/test", "evaluation/zero-shot"}


def test_benchmarks_touch_evaluation_and_overlap_only():
    assert changed(benchmarks=list(BASE.benchmarks[:2])) == EVALUATED | {"benchmarks/test", "overlap/train-test"}


def test_a_data_file_that_changes_is_seen(project):
    data = project / "train.jsonl"
    data.write_text("{}\n")
    params = Params(training_data="train.jsonl")
    before = Plan(params).traces.key
    data.write_text("{} \n")
    assert Plan(Params(training_data="train.jsonl")).traces.key != before


def test_arms_left_out_are_not_planned():
    names = {step.title for step in Plan(Params(arms=["zero-shot", "sft-label"])).steps()}
    assert names == {
        "01_generation",
        "05_evaluation zero-shot",
        "04_finetuning sft-label",
        "05_evaluation sft-label",
        "06_report",
    }


def test_what_is_missing_is_told_with_the_notebook_that_makes_it(project):
    with pytest.raises(TaskMissing, match="run notebook 01_generation"):
        Plan(Params(study="none")).traces.read("traces")


EVERY = Params(arms=[arm for arm in ARMS if arm != "p-align-other-judge"])


def touched(**values) -> set[str]:
    """The strategies whose prefixes a change recomputes, in a study with every arm."""
    before, after = keys(EVERY), keys(Params(**{"arms": EVERY.arms} | values))
    return {
        name.removeprefix("truncation/") for name in before if "truncation/" in name and before[name] != after[name]
    }


def test_a_strategy_depends_on_what_it_reads_only():
    """An arm's own prompt must not recompute the other arms' prefixes, and a fixed ratio depends on no prompt."""
    assert touched(search="equation7") == {"adaptive"}
    assert touched(judge_prompt="{question} {prefix}") == {"adaptive", "linear"}
    assert touched(boundary_prompt="{question} {numbered}") == {"one-reading"}
    assert touched(infogain_share=0.5) == {"infogain"}
    assert touched(continue_prompt="{question} {prefix}") == {"infogain"}
    assert touched(alignment_temperature=0.9) == set()
    assert touched(sentence_rule="reversible") == set(Plan(EVERY).strategies) - {"empty"}


def test_another_judge_is_part_of_its_own_arm_only():
    arms = ["p-align", "p-align-other-judge"]
    one, two = (keys(Params(arms=arms, judge=judge)) for judge in ("someone/a", "someone/b"))
    assert {name for name in one if one[name] != two[name]} == {
        "truncation/judge",
        "alignment/judge",
        "finetuning/p-align-other-judge",
        "evaluation/p-align-other-judge",
    }


def test_arms_of_one_strategy_share_its_prefixes_and_continuations():
    plan = Plan(Params(arms=["p-align", "sft-teacher-prefix", "sft-student-cot"]))
    assert plan.strategies == ["adaptive"]
    needed = {task.key for arm in plan.params.arms for task in plan.finetuning(arm).needs}
    assert needed == {plan.traces.key, plan.alignment("adaptive").key}


def test_more_training_seeds_keep_what_there_is():
    """Adding a seed to a finished study must cost only that seed."""
    more = keys(Params(training_seeds=[0, 1]))
    assert {name: key for name, key in more.items() if name in ALL} == keys(BASE)
    assert set(more) - ALL == {f"{name}-seed-1" for name in (TRAINED | EVALUATED) - {"evaluation/zero-shot"}}
    assert keys(Params(training_seeds=[1]))["finetuning/p-align-seed-1"] == more["finetuning/p-align-seed-1"]


def test_a_title_tells_the_seed_only_where_there_are_several():
    titles = [step.title for step in Plan(Params(arms=["zero-shot", "rft"], training_seeds=[0, 2])).steps()]
    assert titles[2:] == [
        "05_evaluation zero-shot",
        "04_finetuning rft seed 0",
        "05_evaluation rft seed 0",
        "04_finetuning rft seed 2",
        "05_evaluation rft seed 2",
        "06_report",
    ]
    assert "04_finetuning rft" in {step.title for step in Plan(Params(arms=["rft"], training_seeds=[3])).steps()}
