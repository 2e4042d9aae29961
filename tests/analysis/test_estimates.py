"""The cost of a study is computed before a run, by formulas that a finished run can check."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign import params
from palign.analysis import estimates
from palign.analysis.estimates import Estimates
from palign.arms import ARMS
from palign.study.cli import main
from palign.tasks.plan import Plan
from palign.truncation import SCAN_BLOCK
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
    free = {"benchmarks", "overlap", "shortened", "report"} | (set() if loaded.teacher else {"traces"})
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
    assert table.loc["success/adaptive", "tokens_generated"] == 320 * 4 * 31
    assert table.loc["truncation/adaptive", "tokens_read"] == 320 * (25 + 140 / 2 + 4.8 * 32)


def test_budgets_cut_what_is_expected():
    table = Estimates(POCKET.model_copy(update={"max_new_tokens": 100, "max_length": 64})).table()
    assert table.loc["evaluation/sft-long-cot", "tokens_generated"] == 3000 * 100
    assert table.loc["finetuning/sft-label", "tokens_trained"] == 120 * 8 * (25 + 20 + 6)


def test_a_decoding_judge_generates_and_a_comparing_one_does_not():
    decoding = Estimates(POCKET.model_copy(update={"verdict": "decode"})).table()
    assert decoding.loc["truncation/adaptive", "tokens_generated"] == round(320 * 4.8 * estimates.ANSWER_TOKENS)
    assert Estimates(POCKET).table().loc["truncation/adaptive", "tokens_generated"] == 0


SCAN = POCKET.model_copy(update={"arms": ["p-align", "p-align-no-binary-search", "p-align-other-judge"], "judge": "j"})


@pytest.mark.parametrize(("search", "strategy"), [("released", "linear"), ("linear", "adaptive"), ("linear", "judge")])
def test_a_scan_is_paid_by_its_own_verdicts_and_its_look_ahead(search, strategy):
    """A scan asks about every sentence of its prefix, in blocks whose rest is read too: 8.5 verdicts, not 4.8."""
    costs = POCKET.costs
    scan = Estimates(SCAN.model_copy(update={"search": search, "verdict": "decode", "judge_verdict": "decode"}))
    sentences = costs.prefix_share * costs.trace_tokens / costs.sentence_tokens
    assert scan.verdicts(strategy) == pytest.approx(sentences) and sentences == pytest.approx(8.5, abs=0.05)
    asked = sentences + (SCAN_BLOCK - 1) / 2
    row = scan.table().loc[f"truncation/{strategy}"]
    by_hand = 320 * (25 + asked * (costs.sentence_tokens + costs.verdict_tokens))
    assert row["tokens_read"] == pytest.approx(by_hand, abs=1)
    each = SCAN.judge_max_new_tokens if strategy == "judge" else estimates.ANSWER_TOKENS
    assert row["tokens_generated"] == pytest.approx(320 * asked * each, abs=1)


def test_a_scan_asks_no_more_than_the_trace_has_sentences():
    whole = SCAN.model_copy(update={"costs": SCAN.costs.model_copy(update={"prefix_share": 1.0})})
    row = Estimates(whole).table().loc["truncation/linear"]
    assert row["tokens_read"] == pytest.approx(320 * (25 + 140 + 140 / 5.1 * 32), abs=1)


def test_the_papers_scan_takes_as_many_verdicts_as_table_5_says():
    """144.6 of a scan, 7.4 of the binary search: the hours of Table 2 rest on it."""
    other_arms = PAPER.model_copy(update={"arms": ["p-align", "p-align-no-binary-search"]})
    found = Estimates(other_arms)
    assert found.verdicts("linear") == pytest.approx(144.6, rel=0.01) and found.verdicts("adaptive") == 7.4
    generated = found.table()["tokens_generated"]
    assert generated["truncation/linear"] > 15 * generated["truncation/adaptive"]


def test_what_the_report_of_all_arms_read_for_its_prefixes_was_expected():
    """Tokens read of each strategy that reads, within a sixth."""
    full = Estimates(params.load(PROJECT / "params" / "pocket-full.yaml"))
    versus = full.versus(full.measured())["tokens_read"]
    read = versus[versus.index.str.startswith("truncation/")].dropna()
    assert {"truncation/linear", "truncation/infogain", "truncation/one-reading"} <= set(read.index)
    assert read.between(5 / 6, 6 / 5).all(), read


def test_a_judge_of_its_own_has_its_own_verdict_mode_and_budget():
    own = SCAN.model_copy(update={"judge_verdict": "decode", "judge_max_new_tokens": 900})
    generated = Estimates(own).table()["tokens_generated"]
    assert generated["truncation/judge"] == 320 * 4.8 * 900 and generated["truncation/adaptive"] == 0
    student = Estimates(SCAN.model_copy(update={"verdict": "decode"})).table()["tokens_generated"]
    assert student["truncation/judge"] == 0 and student["truncation/adaptive"] > 0


def test_the_pocket_studys_memory_is_that_of_its_processes():
    """Two processes that train hold 1.65 GB together; the model in them a tenth of one."""
    assert Estimates(POCKET).peak_gb() == pytest.approx(1.65, rel=0.1)
    alone = Estimates(POCKET.model_copy(update={"jobs": 1}))
    assert alone.peak_gb() == pytest.approx(Estimates(POCKET).peak_gb() / 2)
    assert "peak memory 1.7 GB" in Estimates(POCKET).line()
    assert "GPU memory 36 GB (estimated)" in Estimates(PAPER).line()


@settings(max_examples=30)
@given(
    mean=st.floats(50, 5000), spread=st.floats(0.05, 1.2), limit=st.floats(50, 10_000), seed=st.integers(0, 2**32 - 1)
)
def test_rows_that_fit_are_those_of_a_log_normal_length(mean, spread, limit, seed):
    drawn = np.random.default_rng(seed).lognormal(np.log(mean) - spread**2 / 2, spread, 40_000)
    share, length = estimates.fitting(mean, spread, limit)
    fits = drawn[drawn <= limit]
    assert share == pytest.approx(len(fits) / len(drawn), abs=0.02)
    if len(fits) > 2000:
        assert length == pytest.approx(fits.mean(), rel=0.05)


def test_rows_too_long_are_left_out_where_an_answer_would_be_and_else_cut():
    short = POCKET.model_copy(update={"max_length": 185, "equal_updates": False, "arms": ["sft-teacher-prefix"]})
    long_cot = Estimates(short).rows("sft-long-cot")
    assert long_cot.over == pytest.approx(0.46, abs=0.01)  # the mean row has 185 tokens
    assert long_cot.left == 1 - long_cot.over and long_cot.trained < long_cot.tokens == 185
    cut = Estimates(short.model_copy(update={"max_length": 80})).rows("sft-teacher-prefix")
    assert cut.over > 0.5 and cut.left == 1 and 0 < cut.trained <= 80
    assert Estimates(short).rows("sft-label") == estimates.Rows(0, 1, 51, 51)
    none = Estimates(short.model_copy(update={"max_length": 46, "arms": ["sft-long-cot"]}))
    assert none.rows("sft-long-cot").left == 0
    assert none.table().loc["finetuning/sft-long-cot", "tokens_trained"] == 0


def test_the_plan_warns_of_rows_that_training_would_leave_out(capsys):
    """Most of colab-t4's rows of whole traces exceed its max_length."""
    assert main(["plan", str(PROJECT / "params" / "colab-t4.yaml")]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^warning: about \d\d % of sft-long-cot's rows \(8,220 tokens on average\) would exceed max_length 4096 and "
        r"be left out$",
        out,
        re.MULTILINE,
    )
    assert Estimates(POCKET).warnings() == []
    cut = POCKET.model_copy(update={"arms": ["sft-teacher-prefix"], "max_length": 80})
    assert [warning.endswith("max_length 80 and be cut") for warning in Estimates(cut).warnings()] == [True]


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
    held = Estimates(PAPER).table()["memory_gb"]
    per_response = (150 + 70 + 900) * 57_344
    assert held["evaluation/zero-shot"] == pytest.approx(15.24 + 64 * per_response / 1e9)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_memory_expected_fits_the_machine_named(path):
    loaded = params.load(path)
    size = {"one H100 80 GB": 80, "one T4 16 GB": 16, "two CPU cores": 4}[loaded.costs.device]
    assert loaded.costs.gpu_memory_gb == (size if size > 4 else None)
    assert Estimates(loaded).peak_gb() < 0.9 * size


def test_arms_at_once_share_the_hours():
    alone, two = (Estimates(POCKET.model_copy(update={"jobs": jobs})).total_hours() for jobs in (1, 2))
    assert two < alone < 2 * two


def test_another_student_needs_costs_of_its_own():
    other = params.validate({"study": "t", "student": "made-up/student"}, "t")
    with pytest.raises(params.ParamsError, match=r"costs: missing; .* made-up/student"):
        Estimates(other).table()
    assert not Estimates(other).stated and Estimates(other).versus(pd.DataFrame()).empty


def test_costs_on_a_cpu_without_the_processs_memory_are_refused():
    with pytest.raises(params.ParamsError, match="process_gb: null; without a GPU"):
        params.validate({"study": "t", "costs": params.POCKET_COSTS | {"process_gb": None}}, "t")


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
