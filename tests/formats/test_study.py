"""One small study of each family, from traces to the report's tables, on random weights."""

import pytest

from palign import alignment, arms, attempts, evaluation, finetuning, overlap, problems, supervision, traces, truncation
from palign.analysis import entropy, preference, sufficiency
from palign.engines.base import NEVER_ANSWERED
from palign.grading import grade_all
from palign.params import validate
from palign.report import write
from palign.report.results import Results
from tests.formats.conftest import SWITCHES

ARMS = ["zero-shot", "p-align", "p-align-infogain", "upft"]


@pytest.fixture
def params(small, student, family):
    return validate(
        {
            **small,
            "student": student.name,
            "chat_template_kwargs": SWITCHES[family],
            "arms": ARMS,
            "training_limit": 3,
            "n_samples": 1,
            "protocol": "own",
            "max_new_tokens": 12,
            "second_budget": 6,
            "alignment_max_new_tokens": 12,
            "keep_cut_continuations": True,
            "judged_traces": 1,
            "entropy_traces": 1,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 1.0,
            "max_length": 1024,
        },
        "test",
    )


def test_a_study_runs_from_traces_to_the_report(params, tokenizer, monkeypatch):
    """Lengths, rows and tables with a real vocabulary, and a p-align row that ends its turn."""
    problems.collect_benchmarks(params)
    assert len(traces.collect(params)) == 3
    overlap.find(params)
    entropy.measure(params)
    truncation.truncate_all(params)

    def right(*args, **kwargs):  # no such student is ever right, and then no pair would be kept
        return [grade.__class__(**{**vars(grade), "outcome": "right"}) for grade in grade_all(*args, **kwargs)]

    with monkeypatch.context() as patched:
        patched.setattr(alignment, "grade_all", right)
        alignment.align_all(params)
        alignment.measure_success(params)
    sufficiency.measure(params)
    for arm in params.arms:
        if arm != "zero-shot":
            lengths = finetuning.token_lengths(params, arm)
            facts = finetuning.finetune(params, arm)
            assert facts["rows"] == 3 and facts["longest_row_tokens"] == lengths.loc["row", "longest"]
        responses = evaluation.respond(params, arm)
        evaluation.shorten(params, arm)
        assert not any(record["finish"] in NEVER_ANSWERED for record in responses)
    rows = supervision.build(params, "p-align", tokenizer)
    for row, example in zip(rows, finetuning.encode(rows, tokenizer, params.chat_template_kwargs), strict=True):
        tail = tokenizer.decode(example["input_ids"][example["prompt_tokens"] :])
        assert tail.startswith("<Begin_of_Prefix>") and tokenizer.eos_token in tail, row["id"]
    preference.compare(params)
    kept = write.collect(Results(params))
    assert set(kept["accuracy"].reset_index()["arm"]) == set(ARMS)


@pytest.mark.parametrize("family", ["qwen2_5"], indirect=True)
def test_every_rival_makes_rows_that_end_their_turn(params, tokenizer, monkeypatch):
    """Strategies that cut by tokens, score by tokens or draw several continuations meet a real vocabulary."""
    left_out = {"second-solution", "success-prefix-first"}  # the first has no rows here, the second draws too many
    rivals = [arm for arm in arms.ARMS if arm not in {*arms.PAPER_ARMS, *left_out}]
    own = {"arms": rivals, "entropy_traces": 0, "judged_traces": 0, "own_samples": 2, "calibration_traces": 2}
    own |= {"sufficiency_samples": 0, "success_samples": 2, "success_needed": 1, "backoff_tries": 2}
    study = validate(params.values() | own, "test")
    problems.collect_benchmarks(study)
    traces.collect(study)
    overlap.find(study)
    truncation.truncate_all(study)

    def right(texts, *args, **kwargs):  # the first continuation of every round, so that searches end and others fail
        grades = grade_all(texts, *args, **kwargs)
        return [g.__class__(**{**vars(g), "outcome": "right"}) if i % 2 == 0 else g for i, g in enumerate(grades)]

    for module in (alignment, attempts):
        monkeypatch.setattr(module, "grade_all", right)
    monkeypatch.setattr(attempts, "kept", lambda pair, _: pair["outcome"] == "right")  # random weights end no turn
    alignment.align_all(study)
    for arm in rivals:
        rows = supervision.build(study, arm, tokenizer)
        assert rows and len({row["id"] for row in rows}) == len(rows), arm
        for row, example in zip(rows, finetuning.encode(rows, tokenizer, study.chat_template_kwargs), strict=True):
            tail = tokenizer.decode(example["input_ids"][example["prompt_tokens"] :])
            assert row["completion"].strip()[:20] in tail, (arm, row["id"])
            assert (tokenizer.eos_token in tail) == arms.ARMS[arm].ends, (arm, row["id"])
    assert finetuning.finetune(study, "p-align-fallback")["rows"] == 3
