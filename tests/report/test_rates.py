"""What the plan expected beside what a study measured: every quantity from the records, by hand."""

import math

import pytest

from palign import params
from palign.analysis.estimates import Estimates
from palign.engines.tokenizers import load_tokenizer
from palign.report import rates
from palign.report.results import Results
from palign.tasks import store
from palign.tasks.plan import Plan, Task
from tests.conftest import POCKET

ARMS = ["zero-shot", "sft-long-cot", "p-align", "p-align-no-binary-search", "rft"]
TRACE = "The dial moves by one. It moves by two. So it is three."
GIB = 2**30


def finish(task: Task, seconds: float, files: dict[str, list[dict]], **facts) -> None:
    for name, records in files.items():
        task.folder.write(name, records)
    task.folder.write("seconds", [{"file": "any", "seconds": seconds}])
    task.finish(**facts)


def prefix(i: int, calls: int) -> dict:
    """40 tokens of a trace of 100, found by so many verdicts of 32 tokens each."""
    verdicts = [(p, "NOT_ENOUGH", None) for p in range(1, calls)] + [(calls, "ENOUGH", None)]
    record = {"id": str(i), "question": "Q", "status": "ok", "prefix": "x", "sentences": 1, "of": 3, "room": 3}
    record |= {"verdicts": verdicts, "oracle_sentences": None, "prefix_tokens": 40, "trace_tokens": 100}
    return record | {"sufficient": True, "tokens_read": 60, "tokens_demanded": 32 * calls, "tokens_generated": 0}


def pair(i: int, right: bool) -> dict:
    return {"id": str(i), "finish": "stop", "outcome": "right" if right else "wrong", "new_tokens": 30}


@pytest.fixture
def finished(project, monkeypatch):
    """``finished(**changes)``: a study of four traces and two test problems, of which every task is finished."""
    (project / "student").symlink_to(POCKET / "student")
    monkeypatch.setattr(store, "peak_memory", lambda: 2 * GIB)
    monkeypatch.setattr(store, "provenance", dict)  # which asks git, for every task

    def make(**changes) -> Results:
        values = {"study": "t", "student": "student", "training_data": "t.jsonl", "arms": ARMS, "second_budget": None}
        values |= {"benchmarks": [{"name": "b", "data": "b.jsonl", "problems": 2}], "judged_traces": 0}
        values |= {"sufficiency_samples": 0, "costs": params.POCKET_COSTS | {"training_problems": 4}}
        (project / "t.jsonl").touch()
        (project / "b.jsonl").touch()
        study = params.validate(values | {"preference_judge": None} | changes, "t")
        plan = Plan(study)
        problem = {"question": "What is 1+1?", "answer": "2", "benchmark": "b"}
        finish(plan.benchmarks, 0, {"problems": [problem | {"id": str(i)} for i in range(2)]})
        finish(plan.traces, 0, {"traces": [problem | {"id": str(i), "trace": TRACE} for i in range(4)]})
        finish(plan.overlap, 0, {"pairs": []})
        read = {"tokens_read": 1000, "tokens_generated": 0}
        written = {"tokens_read": 500, "tokens_generated": 200}
        if plan.is_adaptive:
            finish(plan.truncation("adaptive"), 2, {"prefixes": [prefix(i, 2) for i in range(4)]}, **read)
        if "linear" in plan.strategies:
            finish(plan.truncation("linear"), 3, {"prefixes": [prefix(i, 3) for i in range(4)]}, **read)
        for strategy in plan.strategies:
            pairs = [pair(i, right=i < (1 if strategy == "empty" else 3)) for i in range(4)]
            finish(plan.alignment(strategy), 4, {"pairs": pairs}, **written)
        if plan.entropy:
            finish(plan.entropy, 1, {"entropies": []}, tokens_read=400)
        asked = [("b", problem, sample) for problem in "01" for sample in range(3)]
        for arm, seed in plan.runs:
            if trained := plan.finetuning(arm, seed):
                finish(trained, 0, {"losses": []}, tokens_trained=9000, train_seconds=3.0)
            records = [
                {"id": f"{b}/{p}/{s}", "benchmark": b, "problem": p, "sample": s, "prompt_tokens": 50, "new_tokens": 70}
                | {"finish": "stop", "outcome": "right", "right": True, "lenient": "right", "answer": "2", "text": ""}
                for b, p, s in asked
            ]
            evaluated = plan.evaluation(arm, seed)
            finish(evaluated, 5, {"responses": records, "grades": records}, responses=6, **written)
        return Results(study)

    return make


def test_every_length_is_that_of_the_records(finished):
    study = finished()
    table = rates.table(study)
    measured = table["measured"]
    tokenizer = load_tokenizer(study.params.model("student"))
    question = len(tokenizer("What is 1+1?", add_special_tokens=False).input_ids)
    assert measured["training_problems"] == 4 and measured["question_tokens"] == question
    assert measured["instruction_tokens"] == 50 - question
    assert measured["verdict_tokens"] == 32
    boxed = len(tokenizer(f"\\boxed{{{study.traces[0]['answer']}}}", add_special_tokens=False).input_ids)
    assert measured["answer_tokens"] == boxed + 1  # a response that is a boxed answer has the token that ends it too
    assert measured["judge_calls"] == 2 and measured["judge_calls, linear"] == 3
    assert measured["prefix_share"] == pytest.approx(0.4) and measured["continuation_tokens"] == 30
    assert measured["retention"] == 0.75 and measured["student_right"] == 0.25
    assert measured["sentence_tokens"] == pytest.approx(measured["trace_tokens"] / 3) and measured["trace_spread"] == 0
    assert (measured[[f"response_tokens, {arm}" for arm in ARMS]] == 70).all()


def test_the_predicted_values_are_those_that_the_estimate_uses(finished):
    """All that `palign plan` computes a study's hours from, or the table would leave out what is wrong."""
    study = finished()
    table, costs, estimates = rates.table(study), study.params.costs, Estimates(study.params)
    shown = set(table.index)
    kept_apart = {"device", "start_seconds", "process_gb", "gpu_memory_gb", "teacher"}
    kept_apart |= {"rewrite_right"}  # of an arm that this study has not
    kept_apart |= {"parameters_billion", "layers", "heads", "kv_heads", "head_dim", "hidden_size"}
    assert set(dict(costs)) - kept_apart - {"intermediate_size", "vocabulary", "response_tokens"} <= shown
    assert table.loc["trace_tokens", "predicted"] == 140 and table.loc["judge_calls", "predicted"] == 4.8
    assert table.loc["judge_calls, linear", "predicted"] == estimates.verdicts("linear")
    assert table.loc["response_tokens, sft-long-cot", "predicted"] == estimates.response("sft-long-cot") == 140
    assert table.loc["retention", "ratio"] == pytest.approx(0.75 / 0.75)


def test_a_study_with_the_measured_lengths_and_rates_is_predicted_right(finished):
    """The table states what to put into `costs`: the hours then follow but for what the formulas leave out."""
    table = rates.table(finished())["measured"]
    assert table["read_tokens_per_second"] == pytest.approx((1000 + 1000 + 400) / (2 + 3 + 1))
    reading = (3 + 5) * 500 / table["read_tokens_per_second"]  # of three strategies' pairs and five arms' responses
    assert table["generate_tokens_per_second"] == pytest.approx(8 * 200 / (3 * 4 + 5 * 5 - reading))
    assert table["train_tokens_per_second"] == 3000


def test_hours_are_the_seconds_of_all_tasks_arms_at_a_time(finished):
    shared, inside = 2 + 3 + 1 + 3 * 4, 4 * 3 + 5 * 5
    assert rates.table(finished(jobs=2)).loc["hours", "measured"] == pytest.approx((shared + inside / 2) / 3600)
    assert rates.table(finished(jobs=1)).loc["hours", "measured"] == pytest.approx((shared + inside) / 3600)
    study = finished()
    without_starts = study.params.model_copy(
        update={"costs": study.params.costs.model_copy(update={"start_seconds": 0})}
    )
    assert rates.table(study).loc["hours", "predicted"] == pytest.approx(Estimates(without_starts).total_hours())


def test_memory_is_that_of_the_largest_process_or_of_training_on_a_gpu(finished):
    study = finished()
    row = rates.table(study).loc["peak_gb"]
    assert row["measured"] == pytest.approx(2 * GIB / 1e9)
    assert row["predicted"] == Estimates(study.params).table()["memory_gb"].max() > study.params.costs.process_gb
    gpu = finished(costs=params.POCKET_COSTS | {"gpu_memory_gb": 16.0})
    training = Estimates(gpu.params).table()["memory_gb"].filter(like="finetuning/").max()
    assert rates.table(gpu).loc["peak_gb", "predicted"] == training < 1.1


def test_the_share_of_right_rewritings_is_stated_and_measured_where_a_study_rewrites(finished):
    row = rates.table(finished(arms=["zero-shot", "self-rewrite"])).loc["rewrite_right"]
    assert row["predicted"] == params.POCKET_COSTS["rewrite_right"] == 0.19 and row["measured"] == 0.75


def test_what_a_study_does_not_measure_is_empty(finished):
    table = rates.table(finished(arms=["zero-shot", "sft-label"]))
    lacking = ["prefix_share", "retention", "student_right", "verdict_tokens", "read_tokens_per_second"]
    assert table.loc[lacking, "measured"].isna().all() and table.loc[lacking, "ratio"].isna().all()
    assert "judge_calls" not in table.index and table.loc["train_tokens_per_second", "measured"] == 3000


def test_a_study_that_states_no_costs_shows_what_it_measured(finished, project):
    (project / "other").symlink_to(POCKET / "student-deep")
    table = rates.table(finished(student="other", costs=params.POCKET_COSTS))
    assert table["predicted"].isna().all() and table.loc["retention", "measured"] == 0.75
    assert not math.isnan(table.loc["hours", "measured"])
