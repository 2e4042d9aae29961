"""One small study of each family, from traces to the report's tables, on random weights."""

import pytest

from palign import alignment, evaluation, finetuning, overlap, problems, supervision, traces, truncation
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
