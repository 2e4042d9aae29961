"""Changing a parameter reruns exactly what depends on it."""

import csv
import functools
from unittest.mock import patch

import pytest

from palign.arms import ARMS
from palign.params import POCKET_COSTS, Costs, Params, effect_of
from palign.prompts import BEGIN, END, LABELS
from palign.tasks import plan
from palign.tasks.plan import NOTEBOOKS, Plan, TaskMissing
from tests.conftest import PROJECT

RERUNS = PROJECT / "params" / "reruns.csv"

BASE = Params()


def keys(params: Params) -> dict[str, str]:
    """Without the report and the preferences, which depend on every arm."""
    tasks = {task.name: task.key for task in Plan(params).tasks()}
    return {name: key for name, key in tasks.items() if not name.startswith(("report", "preference"))}


def changed(**values) -> set[str]:
    before, after = keys(BASE), keys(Params(**values))
    return {name for name in before if before[name] != after[name]}


EVERY = Params(arms=[arm for arm in ARMS if arm != "p-align-other-judge"])
ALL = set(keys(BASE))
TRAINED = {name for name in ALL if name.startswith("finetuning/")}
EVALUATED = {name for name in ALL if name.startswith(("evaluation/", "shortened/"))}
LEARNT = {name for name in EVALUATED if not name.endswith("/zero-shot")}


def test_a_study_of_the_same_parameters_is_the_same():
    assert changed() == set()


@pytest.mark.parametrize("field", [name for name in Params.model_fields if effect_of(name) == "speed"])
def test_speed_parameters_change_nothing(field):
    others = {"device": "cpu", "gpu_memory_utilization": 0.7, "endpoint_urls": ["address"], "protocol": "own"}
    others |= {"trust_remote_code": ["a/model"], "costs": Costs(**POCKET_COSTS | {"layers": 5})}
    assert changed(**{field: others.get(field, 7)}) == set()


WHOLE = Params(arms=list(ARMS), judge="a/judge", teacher="a/teacher", preference_judge="b/judge")
"""A study that has every task."""
OTHERWISE = {
    "training_columns": {"question": "q", "answer": "a"},
    "training_answers": "solution",
    "training_limit": 5,
    "benchmarks": WHOLE.benchmarks[:2],
    "trust_remote_code": ["a/model"],
    "engine": "vllm",
    "dtype": "bfloat16",
    "device": "cpu",
    "endpoint_urls": ["http://a/v1"],
    "sentence_rule": "reversible",
    "search": "equation7",
    "verdict": "decode",
    "judge_verdict": "decode",
    "trainer": "unsloth",
    "lr_scheduler_type": "linear",
    "training_seeds": [0, 1],
    "protocol": "own",
    "arms": WHOLE.arms[:-1],
    "costs": Costs(**POCKET_COSTS | {"layers": 5}),
}
"""Another value of each parameter whose kind does not suggest one."""


def another(name: str):
    value = getattr(WHOLE, name)
    if name in OTHERWISE:
        return OTHERWISE[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {"a": 1} if isinstance(value, dict) else f"{value or ''} other"


STAGES = list(NOTEBOOKS)


@functools.cache
def reruns() -> list[list[str]]:
    """What each parameter reruns, by stage: all tasks, all but those named, those named, none, or none of those there
    are (it adds others).
    """
    with patch.object(plan, "_content", functools.cache(plan._content)):  # no file changes here
        return [["parameter", *STAGES], *_reruns()]


def _reruns() -> list[list[str]]:
    before, rows = {task.name: task for task in Plan(WHOLE).tasks()}, []
    for name in Params.model_fields:
        if name == "study":  # it names the folder of all tasks
            continue
        after = {task.name: task for task in Plan(WHOLE.model_copy(update={name: another(name)})).tasks()}
        row = [name]
        for stage in STAGES:
            own = [n for n in before if n.startswith(f"{stage}/")]
            changed = [n for n in own if n in after and after[n].key != before[n].key]
            adds = any(n.startswith(f"{stage}/") and n not in before for n in after)
            adds |= any(n in after and after[n].amount > before[n].amount for n in own)
            row.append(_told(stage, own, changed) or ("adds" if adds else ""))
        rows.append(row)
    return rows


def _told(stage: str, own: list[str], changed: list[str]) -> str:
    left = [name for name in own if name not in changed]
    if changed and len(left) < len(changed):
        return " ".join(["all", *(["but"] if left else []), *(name.removeprefix(f"{stage}/") for name in left)])
    return " ".join(name.removeprefix(f"{stage}/") for name in changed)


def test_every_parameter_reruns_what_the_committed_table_says():
    """`python -m tests.tasks.test_plan` writes the table anew: read its difference before you commit it."""
    with RERUNS.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == reruns()


def test_every_parameter_that_changes_results_reruns_something():
    """One that no task names would leave stale results in place when it changes."""
    for name, *stages in reruns()[1:]:
        assert any(stages) == (effect_of(name) == "result"), name


MEASURED = {"sufficiency_samples": 8, "second_budget": 64, "entropy_traces": 300, "judged_traces": 99, "n_samples": 16}


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_only_measured_reruns_nothing_that_exists(name):
    """More samples threw the first three away; more success rates retrained every arm."""
    values = {name: MEASURED[name], "protocol": "own"}
    assert {n for n in changed(**values) if not n.startswith("shortened/")} == set()


def test_entropy_is_read_whatever_engine_generates():
    """`-p engine transformers -p entropy_traces 200` was a study of its own."""
    tasks = Plan(Params(engine="vllm")).entropy, Plan(Params()).entropy
    assert tasks[0].key == tasks[1].key
    service = Params(student="endpoint:x", verdict="decode", second_budget=None, arms=["zero-shot"])
    assert Plan(service).entropy is None


def test_settings_of_generation_do_not_retrain_arms_that_generate_nothing():
    generated = {"finetuning/p-align", "finetuning/rft"}
    for values in ({"engine": "vllm"}, {"max_model_len": 2048}):
        assert {name for name in changed(**values) if name.startswith("finetuning/")} == generated


def test_the_version_of_a_stage_is_in_its_keys(monkeypatch):
    before = keys(BASE)
    monkeypatch.setitem(plan.VERSIONS, "alignment", plan.VERSIONS["alignment"] + 1)
    after = keys(BASE)
    stages = {name.split("/")[0] for name in before if before[name] != after[name]}
    assert stages == {"alignment", "finetuning", "evaluation", "shortened"}
    assert before["truncation/adaptive"] == after["truncation/adaptive"]


@pytest.mark.parametrize(
    ("texts", "direct"),
    [
        (LABELS, {"truncation", "sufficiency"}),
        ((BEGIN, END), {"finetuning", "alignment/likely", "alignment/rsr"}),
    ],
    ids=["labels", "marks"],
)
def test_the_labels_and_the_marks_are_in_the_keys_of_what_reads_them(monkeypatch, texts, direct):
    """A selection scores responses with their marks; other marks left its choice as it was."""
    before = {task.name: (task, task.key) for task in Plan(EVERY).tasks()}
    for name, value in plan.CONSTANTS.items():
        monkeypatch.setitem(plan.CONSTANTS, name, ("<a>", "</a>", *value[2:]) if value[:2] == texts else value)
    found = {task.name for task in Plan(EVERY).tasks() if task.key != before[task.name][1]}

    def follows(task) -> bool:
        return bool({task.stage, task.name} & direct) or any(map(follows, task.needs))

    assert found == {name for name, (task, _) in before.items() if follows(task)}


def test_evaluation_parameters_rerun_evaluation_only():
    assert changed(temperature=0.7, protocol="own") == EVALUATED


def test_learning_rate_reruns_training_and_the_trained_arms_evaluation():
    assert changed(learning_rate=1.0e-3) == TRAINED | LEARNT


def test_training_data_do_not_touch_the_untrained_student():
    assert changed(training_limit=5) == ALL - {"benchmarks/test", "evaluation/zero-shot", "shortened/zero-shot"}


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


def touched(**values) -> set[str]:
    """The strategies whose prefixes a change recomputes, in a study with every arm."""
    before, after = keys(EVERY), keys(Params(**{"arms": EVERY.arms} | values))
    return {
        name.removeprefix("truncation/") for name in before if "truncation/" in name and before[name] != after[name]
    }


def test_a_strategy_depends_on_what_it_reads_only():
    """An arm's own prompt must not recompute the other arms' prefixes, and a fixed ratio depends on no prompt."""
    assert touched(search="equation7") == {"adaptive", "calibrated"}
    assert touched(judge_prompt="{question} {prefix}") == {"adaptive", "linear", "calibrated"}
    assert touched(boundary_prompt="{question} {numbered}") == {"one-reading"}
    assert touched(infogain_share=0.5) == {"infogain"}
    assert touched(pruned_share=0.7) == {"entropy-pruned"}
    assert touched(calibration_traces=9) == {"calibrated"}
    assert touched(continue_prompt="{question} {prefix}") == {"infogain", "calibrated"}
    assert touched(alignment_temperature=0.9) == {"calibrated"}
    assert touched(sentence_rule="reversible") == set(Plan(EVERY).cuts)


def retrained(**values) -> set[str]:
    """The arms that a change trains anew, in a study with every arm."""
    before, after = keys(EVERY), keys(Params(**{"arms": EVERY.arms} | values))
    return {n.removeprefix("finetuning/") for n in before if "finetuning/" in n and before[n] != after[n]}


def test_the_filter_is_in_the_keys_of_the_searches_that_go_by_it_where_it_is_not_the_default():
    """Back-off searched on where its continuation would have been trained on."""
    before, after = (keys(EVERY.model_copy(update={"keep_cut_continuations": cut})) for cut in (False, True))
    found = {name for name in before if before[name] != after[name] and name.startswith(("truncation", "alignment"))}
    searched = {f"alignment/{name}" for name in plan.ATTEMPTS if name not in ("own-k", "rewrite")}
    chosen = {f"alignment/{name}" for name in plan.SELECTED}
    assert found == searched | chosen | {"truncation/calibrated", "alignment/calibrated"}


SUCCESS = {"success-prefix", "success-prefix-first", "success-prefix-last"}
HARD = {"p-align-hard", "p-align-hard-random"}
OWN = {"rft-k", "shortest-of-k", "rft-k-fallback"}


@pytest.mark.parametrize(
    ("values", "arms"),
    [
        ({"backoff_start": 0.3}, {"backoff"}),
        ({"backoff_step": 0.3}, {"backoff", "backoff-30", "p-align-backoff"}),
        ({"backoff_tries": 3}, {"backoff", "backoff-30", "p-align-backoff"}),
        ({"own_samples": 9}, OWN | HARD | {"p-align-k"}),
        ({"success_samples": 9}, SUCCESS),
        ({"success_needed": 3}, SUCCESS),
        ({"hard_weight": 9}, HARD),
        ({"fallback_prompt": "{question}"}, {"p-align-fallback-prompt"}),
        ({"rewrite_prompt": "{question} {trace}"}, {"self-rewrite"}),
        ({"calibration_traces": 9}, {"p-align-calibrated"}),
        ({"pruned_share": 0.7}, {"prune-entropy"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_rivals_own_parameter_trains_that_rival_anew_and_no_other(values, arms):
    assert retrained(**values) == arms


def test_arms_that_draw_the_same_continuations_share_them():
    """K own answers of every problem are the largest cost of the arms that stand on them."""
    plan = Plan(Params(arms=["rft-k", "shortest-of-k", "rft-k-fallback", "p-align-hard", "p-align-fallback"]))
    assert plan.strategies == ["own-k", "adaptive"] and plan.cuts == ["adaptive"]


def test_a_selection_comes_after_what_it_chooses_from():
    plan = Plan(Params(arms=["select-rsr"]))
    assert plan.strategies == ["adaptive", "fixed-30", "fixed-50", "empty", "rsr"]
    assert plan.cuts == ["adaptive", "fixed-30", "fixed-50"]
    order = [task.name for task in plan.tasks()]
    assert all(order.index(need.name) < order.index("alignment/rsr") for need in plan.alignment("rsr").needs)


def test_an_arm_of_a_text_continues_nothing():
    plan = Plan(Params(arms=["essence-50"]))
    assert plan.strategies == [] and plan.cuts == ["tokens-50"]
    assert plan.truncation("tokens-50") in plan.finetuning("essence-50").needs


def test_another_judge_is_part_of_its_own_arm_only():
    arms = ["p-align", "p-align-other-judge"]
    one, two = (keys(Params(arms=arms, judge=judge)) for judge in ("someone/a", "someone/b"))
    assert {name for name in one if one[name] != two[name]} == {
        "truncation/judge",
        "alignment/judge",
        "finetuning/p-align-other-judge",
        "evaluation/p-align-other-judge",
        "shortened/p-align-other-judge",
    }


@pytest.mark.parametrize("name", plan.JUDGE)
def test_the_other_judges_own_settings_leave_the_students_search_alone(name):
    one, two = keys(WHOLE), keys(WHOLE.model_copy(update={name: another(name)}))
    searched = {task for task in one if task.startswith("truncation/") and one[task] != two[task]}
    assert searched == {"truncation/judge"}


def test_arms_of_one_strategy_share_its_prefixes_and_continuations():
    plan = Plan(Params(arms=["p-align", "sft-teacher-prefix", "sft-student-cot"]))
    assert plan.strategies == ["adaptive"]
    needed = {task.key for arm in plan.params.arms for task in plan.finetuning(arm).needs}
    assert needed == {plan.traces.key, plan.alignment("adaptive").key}


def test_more_training_seeds_keep_what_there_is():
    """Adding a seed to a finished study must cost only that seed."""
    more = keys(Params(training_seeds=[0, 1]))
    assert {name: key for name, key in more.items() if name in ALL} == keys(BASE)
    assert set(more) - ALL == {f"{name}-seed-1" for name in TRAINED | LEARNT}
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


if __name__ == "__main__":
    with RERUNS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(reruns())
