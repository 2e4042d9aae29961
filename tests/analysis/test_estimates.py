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
    assert table.loc["evaluation/sft-label", "tokens_generated"] == responses * POCKET.costs.answer_tokens
    assert table.loc["finetuning/sft-long-cot", "tokens_trained"] == 120 * 8 * (25 + 20 + 140)
    assert table.loc["success/adaptive", "tokens_generated"] == 320 * 4 * 31
    assert table.loc["truncation/adaptive", "tokens_read"] == round(320 * (25 + 140 * 0.53 + 4.8 * 29))


def test_budgets_cut_what_is_expected():
    table = Estimates(POCKET.model_copy(update={"max_new_tokens": 100, "max_length": 64})).table()
    assert table.loc["evaluation/sft-long-cot", "tokens_generated"] == 3000 * 100
    assert table.loc["finetuning/sft-label", "tokens_trained"] == 120 * 8 * (25 + 20 + 6)


def test_a_decoding_judge_generates_and_a_comparing_one_does_not():
    decoding = Estimates(POCKET.model_copy(update={"verdict": "decode"})).table()
    assert decoding.loc["truncation/adaptive", "tokens_generated"] == round(320 * 4.8 * POCKET.costs.answer_tokens)
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
    each = SCAN.judge_max_new_tokens if strategy == "judge" else POCKET.costs.answer_tokens
    assert row["tokens_generated"] == pytest.approx(320 * asked * each, abs=1)


def test_a_scan_asks_no_more_than_the_trace_has_sentences():
    whole = SCAN.model_copy(update={"costs": SCAN.costs.model_copy(update={"prefix_share": 1.0})})
    row = Estimates(whole).table().loc["truncation/linear"]
    assert row["tokens_read"] == pytest.approx(320 * (25 + 140 + 140 / 5.1 * 29), abs=1)


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
    assert "GPU memory 43 GB (estimated)" in Estimates(PAPER).line()


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
    """Of a T4's whole traces most exceeded a max_length of 4,096."""
    assert main(["plan", str(PROJECT / "params" / "colab-t4.yaml"), "-p", "max_length", "4096"]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^warning: about \d\d % of sft-long-cot's rows \(9,511 tokens on average\) would exceed max_length 4096 and "
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
    pass_gb = 8192 * 2 * (8 * 3584 + 4 * 18944) / 1e9
    work = 1 + pass_gb + 64 * 8 * 152_064 / 1e9  # CUDA, a pass of prompts, logits
    assert held["evaluation/zero-shot"] == pytest.approx(15.24 + work + 64 * per_response / 1e9)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_memory_expected_fits_the_machine_named(path):
    loaded = params.load(path)
    sizes = {"one H100 80 GB": 80, "one RTX 4090 24 GB": 24, "one T4 16 GB": 16, "two CPU cores": 4}
    size = sizes[loaded.costs.device]
    assert loaded.costs.gpu_memory_gb == (size if size > 4 else None)
    assert Estimates(loaded).peak_gb() < estimates.GPU_SHARE * size
    assert not [warning for warning in Estimates(loaded).warnings() if " GB" in warning]


SMALL = params.load(PROJECT / "params" / "gpu-24gb.yaml")


def test_a_card_of_24_gb_by_hand():
    """The arithmetic in the head of params/gpu-24gb.yaml."""
    memory = Estimates(SMALL).memory
    training = memory["finetuning"]
    embeddings = 7.62 - 28 * (128 * 3584 * (2 * 28 + 2 * 4) + 3 * 3584 * 18944) / 1e9
    assert embeddings == pytest.approx(1.09, abs=0.01)
    assert training.weights == pytest.approx(1e9 * (2 * embeddings + 0.56 * (7.62 - embeddings)))
    activations = 16384 * 2 * (28 * 3584 + 8 * 3584 + 9 * 18944)  # TRL's, which are more than unsloth's
    assert training.work == pytest.approx(activations + 16 * 40_370_176 + 1e9)
    generating = memory["evaluation"]
    assert generating.room == pytest.approx((0.9 * 24e9 - 15.24e9 - generating.work) / 57_344)
    assert generating.room > SMALL.max_model_len and generating.rows == generating.room / generating.length
    assert generating.held == pytest.approx(0.9 * 24e9)


def test_memory_beyond_the_gpus_is_said_by_stage():
    whole = Estimates(SMALL.model_copy(update={"load_in_4bit": False}))
    assert [
        w for w in whole.warnings() if w.startswith("finetuning: 26.7 GB exceed 92 % of the GPU's 24; a smaller max")
    ]
    sixteen = SMALL.model_copy(update={"costs": SMALL.costs.model_copy(update={"gpu_memory_gb": 16.0})})
    assert [w for w in Estimates(sixteen).warnings() if "evaluation: 0 tokens of cache fit beside the weights" in w]


def test_a_teacher_that_fills_the_gpu_has_few_rows_at_once_and_the_plan_says_so(capsys):
    """QwQ-32B's weights leave an 80 GB card 14 GB; the plan took it for a model of 7 B and said 5.6 h instead of 50."""
    path = str(PROJECT / "params" / "paper-qwen2.5-7b.yaml")
    assert main(["plan", path, "-p", "teacher", "Qwen/QwQ-32B"]) == 0
    out = capsys.readouterr().out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("traces ")]
    assert row[1] == "65.6" and float(row[-1]) < 3
    assert (
        "warning: traces: 10,830 tokens of cache fit beside the weights; to start, vLLM wants room for a whole" in out
    )
    taught = Estimates(params.load(path, [("teacher", "Qwen/QwQ-32B")])).table()
    assert taught.loc["traces/training", "hours"] == pytest.approx(43, abs=0.5)


def test_without_a_gpu_the_loss_holds_all_logits():
    """8.1 GB were measured at 4,096 tokens of a vocabulary of 152,064."""
    recipe = PAPER.part(params.FineTuning).model_copy(update={"max_length": 4096})
    cpu = PAPER.costs.model_copy(update={"gpu_memory_gb": None, "process_gb": 1.0})
    logits = [estimates.training(costs, recipe, "bfloat16") for costs in (cpu, cpu.model_copy(update=NO_WORDS))]
    assert logits[0] - logits[1] == pytest.approx(8.1e9, rel=0.01)


NO_WORDS = {"vocabulary": 0}
COLAB = params.load(PROJECT / "params" / "colab-t4.yaml")


@pytest.mark.parametrize(
    ("costs", "trainer", "length", "gib"),
    [
        (PAPER.costs, "trl", 4096, 17.186),
        (PAPER.costs, "trl", 16384, 23.937),
        (PAPER.costs, "unsloth", 4096, 15.67),
        (PAPER.costs, "unsloth", 16384, 18.065),
        (COLAB.costs, "trl", 1024, 3.473),
        (COLAB.costs, "trl", 4096, 4.23),
        (COLAB.costs, "trl", 16384, 7.269),
        (COLAB.costs, "unsloth", 1024, 3.842),
        (COLAB.costs, "unsloth", 4096, 3.898),
    ],
)
def test_memory_of_training_is_what_an_h200_measured(costs, trainer, length, gib):
    """reports/benchmarks/gpu.md, without CUDA's own. It was up to 28 % too much for unsloth, which offloads."""
    recipe = PAPER.part(params.FineTuning).model_copy(update={"trainer": trainer, "max_length": length})
    expected = estimates.training(costs, recipe, "bfloat16") - estimates.RUNTIME
    assert expected == pytest.approx(gib * 2**30, rel=0.125)
    auto = estimates.training(costs, recipe.model_copy(update={"trainer": "auto"}), "bfloat16")
    assert auto >= expected + estimates.RUNTIME


@given(st.integers(1, 500), st.floats(1, 30_000), st.floats(18, 200))
def test_rows_at_once_never_hold_more_than_the_gpu(rows, tokens, gpu):
    costs = PAPER.costs.model_copy(update={"gpu_memory_gb": gpu})
    memory = Estimates(PAPER.model_copy(update={"costs": costs, "batch_size": rows}))._generation(500, tokens)
    assert 1 <= memory.rows <= rows
    assert memory.held <= 0.9e9 * gpu * (1 + 1e-9) or memory.rows == 1


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


PAPERS = [params.load(path) for path in FILES if re.match("paper-(?!beyond)", path.name)]
PROMPTS = ("answer_prompt", "judge_prompt", "continue_prompt", "upft_prompt")


def test_the_paper_studies_differ_in_the_student_alone():
    """A difference between two students that is a difference between two prompts."""
    assert len(PAPERS) == 4
    own = {"study", "student", "chat_template_kwargs", "batch_size", "costs"}
    first = PAPERS[0].model_dump(exclude=own)
    assert all(paper.model_dump(exclude=own) == first for paper in PAPERS)
    assert len({paper.student for paper in PAPERS}) == 4


def test_the_rivals_on_the_papers_data_differ_from_its_study_in_the_arms_alone():
    rivals = params.load(PROJECT / "params" / "paper-beyond-qwen2.5-7b.yaml")
    own = {"study", "arms", "entropy_traces"}  # what is measured beside the arms is measured once
    assert rivals.model_dump(exclude=own) == PAPER.model_dump(exclude=own)


def test_colab_asks_what_the_paper_studies_ask():
    colab = params.load(PROJECT / "params" / "colab-t4.yaml")
    assert all(getattr(colab, name) == getattr(PAPER, name) for name in PROMPTS)
    assert all(getattr(SMALL, name) == getattr(PAPER, name) for name in (*params.PAPER, "max_model_len", "dtype"))
    assert colab.dtype == "float16" and colab.training_limit < 1000  # a T4 has no bfloat16; a subset, and says so


def test_the_papers_own_settings():
    """As the paper and its released scripts state them."""
    assert PAPER.training_data == "simplescaling/s1K-1.1" and PAPER.training_answers == "solution"
    assert {b.name: b.problems for b in PAPER.benchmarks} == {"AIME24": 30, "AIME25": 30, "AMC12": 83, "MATH500": 500}
    assert (PAPER.num_train_epochs, PAPER.learning_rate, PAPER.max_new_tokens) == (3, 5e-5, 4096)
    assert PAPER.protocol == "paper" and PAPER.search == "released" and not PAPER.equal_updates
    assert {"zero-shot", "sft-label", "sft-long-cot", "upft", "p-align"} <= set(PAPER.arms) <= set(ARMS)
