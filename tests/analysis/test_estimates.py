"""The cost of a study is computed before a run, by formulas that a finished run can check."""

import pandas as pd
import pytest

from palign import params
from palign.analysis import estimates
from palign.analysis.estimates import Estimates
from palign.arms import ARMS
from palign.study.cli import main
from palign.tasks.plan import Plan
from tests.conftest import PROJECT

FILES = sorted((PROJECT / "params").glob("*.yaml"))
POCKET = params.load(PROJECT / "params" / "pocket.yaml")
PAPER = params.load(PROJECT / "params" / "paper-qwen2.5-7b.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_head_of_every_params_file_says_what_palign_plan_computes(path):
    """An estimate that was true of an earlier version of the file misleads the person who rents the machine."""
    stated = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# Expected:")]
    assert stated == [f"# {Estimates(params.load(path)).line()}"], "copy the line that `palign plan` prints"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_task_that_costs_is_in_the_estimate(path):
    loaded = params.load(path)
    free = {"benchmarks", "overlap", "report"} | (set() if loaded.teacher else {"traces"})
    tasks = {task.name for task in Plan(loaded).tasks() if task.stage not in free}
    assert tasks <= set(Estimates(loaded).table().index)


def test_the_pocket_estimate_lies_near_what_its_report_measured():
    """Tokens of each kind, within a third; seconds are the machine's own."""
    pocket = Estimates(POCKET)
    total = pocket.versus(pocket.measured()).loc["total"].drop("seconds")
    assert total.between(0.67, 1.5).all(), total


def test_tokens_follow_from_lengths_by_hand():
    table = Estimates(POCKET).table()
    responses = 4 * 250 * 3
    assert table.loc["evaluation/zero-shot", "tokens_generated"] == responses * 21
    assert table.loc["evaluation/zero-shot", "tokens_read"] == responses * (25 + 20)
    assert table.loc["evaluation/sft-label", "tokens_generated"] == responses * estimates.ANSWER_TOKENS
    assert table.loc["finetuning/sft-long-cot", "tokens_trained"] == 120 * 8 * (25 + 20 + 140)
    assert table.loc["alignment/adaptive, success rate", "tokens_generated"] == 320 * 4 * 31


def test_budgets_cut_what_is_expected():
    table = Estimates(POCKET.model_copy(update={"max_new_tokens": 100, "max_length": 64})).table()
    assert table.loc["evaluation/sft-long-cot", "tokens_generated"] == 3000 * 100
    assert table.loc["finetuning/sft-long-cot", "tokens_trained"] == 120 * 8 * 64


def test_a_decoding_judge_generates_and_a_comparing_one_does_not():
    decoding = Estimates(POCKET.model_copy(update={"verdict": "decode"})).table()
    assert decoding.loc["truncation/adaptive", "tokens_generated"] > 0
    assert Estimates(POCKET).table().loc["truncation/adaptive", "tokens_generated"] == 0


def test_a_teacher_that_writes_the_traces_is_paid_for():
    taught = POCKET.model_copy(update={"teacher": "made-up/teacher"})
    assert Estimates(taught).table().loc["traces/training", "tokens_generated"] == 320 * 140


def test_lora_parameters_are_those_the_pocket_student_trained():
    assert estimates.lora_parameters(POCKET.costs, POCKET.lora_r) == 143_360


def test_memory_of_the_7b_student_by_hand():
    """15.24 GB of bfloat16 weights, 57,344 bytes of keys and values a token, 40 M adapter parameters."""
    assert estimates.weights(PAPER.costs, PAPER.dtype) == pytest.approx(15.24e9)
    assert estimates.kv_per_token(PAPER.costs, PAPER.dtype) == 57_344
    assert estimates.lora_parameters(PAPER.costs, PAPER.lora_r) == 40_370_176
    held = Estimates(PAPER).table()["gpu_gb"]
    per_response = (150 + 70 + 900) * 57_344
    assert held["evaluation/zero-shot"] == pytest.approx(15.24 + 64 * per_response / 1e9)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_memory_expected_fits_the_machine_named(path):
    loaded = params.load(path)
    size = {"one H100 80 GB": 80, "one T4 16 GB": 16, "two CPU cores": 4}[loaded.costs.device]
    assert Estimates(loaded).table()["gpu_gb"].max() < 0.9 * size


def test_arms_at_once_share_the_hours():
    alone, two = (Estimates(POCKET.model_copy(update={"jobs": jobs})).total_hours() for jobs in (1, 2))
    assert two < alone < 2 * two


def test_another_student_needs_costs_of_its_own():
    other = params.validate({"study": "t", "student": "made-up/student"}, "t")
    with pytest.raises(params.ParamsError, match=r"costs: missing; .* made-up/student"):
        Estimates(other).table()
    assert not Estimates(other).stated and Estimates(other).versus(pd.DataFrame()).empty


def test_costs_without_the_untrained_students_length_are_refused():
    values = params.POCKET_COSTS | {"response_tokens": {"p-align": 5}}
    with pytest.raises(params.ParamsError, match="response_tokens: needs zero-shot"):
        params.validate({"study": "t", "costs": values}, "t")


def test_palign_plan_prints_the_table_the_line_and_the_comparison(capsys):
    assert main(["plan", str(PROJECT / "params" / "pocket.yaml")]) == 0
    out = capsys.readouterr().out
    assert Estimates(POCKET).line() in out and "all tasks" in out and "divided by what the last report measured" in out


def test_costs_change_no_result():
    other = POCKET.model_copy(update={"costs": POCKET.costs.model_copy(update={"trace_tokens": 1})})
    keys = [[task.key for task in Plan(p).tasks()] for p in (POCKET, other)]
    assert keys[0] == keys[1]


PAPERS = [params.load(path) for path in FILES if path.name.startswith("paper-")]
PROMPTS = ("answer_prompt", "judge_prompt", "continue_prompt", "upft_prompt")


def test_the_paper_studies_differ_in_the_student_alone():
    """A difference between two students that is a difference between two prompts."""
    assert len(PAPERS) == 4
    own = {"study", "student", "chat_template_kwargs", "batch_size", "costs"}
    first = PAPERS[0].model_dump(exclude=own)
    assert all(paper.model_dump(exclude=own) == first for paper in PAPERS)
    assert len({paper.student for paper in PAPERS}) == 4


def test_colab_asks_what_the_paper_studies_ask():
    colab = params.load(PROJECT / "params" / "colab-t4.yaml")
    assert all(getattr(colab, name) == getattr(PAPER, name) for name in PROMPTS)
    assert colab.dtype == "float16" and colab.training_limit < 1000  # a T4 has no bfloat16; a subset, and says so


def test_the_papers_own_settings():
    """As the paper and its released scripts state them."""
    assert PAPER.training_data == "simplescaling/s1K-1.1" and PAPER.training_answers == "solution"
    assert {b.name: b.problems for b in PAPER.benchmarks} == {"AIME24": 30, "AIME25": 30, "AMC12": 83, "MATH500": 500}
    assert (PAPER.num_train_epochs, PAPER.learning_rate, PAPER.max_new_tokens) == (3, 5e-5, 4096)
    assert PAPER.protocol == "paper" and PAPER.search == "released" and not PAPER.equal_updates
    assert {"zero-shot", "sft-label", "sft-long-cot", "upft", "p-align"} <= set(PAPER.arms) <= set(ARMS)
