"""Each arm has the rows that the paper describes, and training and evaluation read the same prompts."""

import pytest

from palign import alignment, finetuning, supervision, traces, truncation
from palign.arms import ARMS
from palign.engines.base import Completion
from palign.engines.tokenizers import load_tokenizer
from palign.params import FineTuning, validate
from palign.prompts import BEGIN, END, fill, mark, render
from palign.tasks.plan import Plan
from tests.test_finetuning import trainer_of

STUDIED = ["zero-shot", "sft-label", "sft-long-cot", "upft", "p-align", "rft"]


@pytest.fixture
def params(small):
    return validate({**small, "arms": STUDIED}, "test")


@pytest.fixture
def collected(params):
    return traces.collect(params)


def test_label_and_trace_targets(params, collected):
    labels = supervision.build(params, "sft-label")
    chains = supervision.build(params, "sft-long-cot")
    assert [row["completion"] for row in labels] == [f"\\boxed{{{t.answer}}}" for t in collected]
    assert [row["completion"] for row in chains] == [t.trace for t in collected]
    assert all(t.question in row["prompt"] for t, row in zip(collected, chains, strict=True))


def test_p_align_learns_kept_pairs_only_with_their_prefix_marked(params, collected):
    truncation.truncate(params, "adaptive")
    pairs = alignment.align(params, "adaptive")
    rows = supervision.build(params, "p-align")
    right = [pair["id"] for pair in pairs if pair["outcome"] == "right" and pair["finish"] == "stop"]
    assert [row["id"] for row in rows] == right
    golds = {trace.id: trace.answer for trace in collected}
    for pair in pairs:
        assert pair["answer"] == golds[pair["id"]]
    by_id = {pair["id"]: pair for pair in pairs}
    for row in rows:
        pair = by_id[row["id"]]
        assert row["completion"] == BEGIN + pair["prefix"] + END + pair["continuation"]


def test_ablated_targets_are_the_halves_of_p_aligns_own_rows(params, collected):
    """With other rows, or markers around a half, the arms would differ in more than the target."""
    truncation.truncate(params, "adaptive")
    pairs = {pair["id"]: pair for pair in alignment.align(params, "adaptive")}
    whole, prefix, continuation = (
        supervision.build(params, arm) for arm in ("p-align", "sft-teacher-prefix", "sft-student-cot")
    )
    assert whole and [r["id"] for r in whole] == [r["id"] for r in prefix] == [r["id"] for r in continuation]
    for all_, first, last in zip(whole, prefix, continuation, strict=True):
        assert all_["prompt"] == first["prompt"] == last["prompt"]
        assert first["completion"] == pairs[first["id"]]["prefix"]
        assert last["completion"] == pairs[last["id"]]["continuation"]
        assert all_["completion"] == mark(first["completion"], last["completion"])


def test_every_trained_arm_has_a_target_that_is_known(params):
    known = {"upft", *supervision.OF_TRACES, *supervision.OF_PAIRS}
    assert {arm.target for arm in ARMS.values()} - {None} == known
    for arm in ARMS.values():
        assert (arm.target in supervision.OF_PAIRS) == (arm.strategy is not None)


def test_training_seeds_differ_in_the_adapter_and_the_first_is_todays(params, collected):
    one = params.model_copy(update={"num_train_epochs": 1.0, "training_seeds": [0, 1]})
    facts = [finetuning.finetune(one, "sft-label", seed) for seed in (None, 0, 1)]
    assert [f["training_seed"] for f in facts] == [0, 0, 1]
    losses = [Plan(one).finetuning("sft-label", seed).folder.read("losses") for seed in (0, 1)]
    assert losses[0] != losses[1] and len(losses[0]) == len(losses[1])


def test_rft_learns_the_students_own_answers_without_markers(params, collected):
    pairs = alignment.align(params, "empty")
    rows = supervision.build(params, "rft")
    assert [row["completion"] for row in rows] == [pair["continuation"] for pair in pairs if alignment.kept(pair)]
    assert not any(BEGIN in row["completion"] for row in rows)


def test_upft_mixes_short_beginnings_with_whole_traces(params, collected):
    tokenizer = load_tokenizer(params.model("student"))
    half = params.model_copy(update={"upft_structure_share": 0.5})
    rows = supervision.build(half, "upft", tokenizer)
    whole = [row for row, t in zip(rows, collected, strict=True) if row["completion"] == t.trace]
    begun = [row for row, t in zip(rows, collected, strict=True) if row["completion"] != t.trace]
    assert whole and begun
    for row in begun:
        assert len(tokenizer(row["completion"], add_special_tokens=False).input_ids) == half.upft_tokens
        assert row["prompt"].endswith("Begin the draft.")
    for row in whole:
        assert row["prompt"].endswith("Box the answer.")


def test_an_untrained_arm_has_no_rows(params):
    with pytest.raises(ValueError, match="zero-shot is not trained"):
        supervision.build(params, "zero-shot")


@pytest.mark.parametrize("arm", ["sft-label", "sft-long-cot"])
def test_training_and_evaluation_render_the_same_template(params, collected, arm, tmp_path):
    """Templates that differ by a newline measure the base model, not the trained one."""
    tokenizer = load_tokenizer(params.model("student"))
    rows = supervision.build(params, arm)
    trainer = trainer_of(params, tmp_path, rows)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])
    for ids, labels, trace, row in zip(batch["input_ids"], batch["labels"], collected, rows, strict=True):
        asked = fill(params.answer_prompt, question=trace.question)
        prompt = tokenizer(render(tokenizer, asked, params.chat_template_kwargs), add_special_tokens=False).input_ids
        target = tokenizer(row["completion"] + tokenizer.eos_token, add_special_tokens=False).input_ids
        ids, labels = ids.tolist(), labels.tolist()
        assert ids[: len(prompt) + len(target)] == prompt + target
        assert labels[: len(prompt)] == [-100] * len(prompt)
        assert labels[len(prompt) : len(prompt) + len(target)] == target


def test_a_row_that_would_lose_its_answer_is_left_out(params, collected, tmp_path):
    """A trace cut at max_length was trained without its answer and its end: the arm learnt to stop half-way."""
    rows = supervision.build(params, "sft-long-cot")
    trainer = trainer_of(params.model_copy(update={"max_length": 150}), tmp_path, rows)
    end = load_tokenizer(params.model("student")).eos_token_id
    kept = [row["input_ids"] for row in trainer.train_dataset]
    assert 0 < len(kept) < 12 and all(end in ids[-2:] for ids in kept)
    facts = finetuning.finetune(params.model_copy(update={"max_length": 150, "num_train_epochs": 1.0}), "sft-long-cot")
    assert facts["rows"] == 12 == facts["rows_left_out"] + len(kept) and facts["rows_cut"] == 0


def test_a_row_without_an_answer_is_cut_and_counted(params, collected, tmp_path):
    """UPFT's beginnings of traces end in the middle anyway."""
    tokenizer = load_tokenizer(params.model("student"))
    begun = params.model_copy(update={"upft_tokens": 60, "upft_structure_share": 0.0, "max_length": 70})
    rows = supervision.build(begun, "upft", tokenizer)
    examples = finetuning.encode(rows, tokenizer, params.chat_template_kwargs)
    found = finetuning.fates(examples, 70)
    assert found["cut"] > 0 == found["left out"]
    assert len(trainer_of(begun, tmp_path, rows).train_dataset) == 12


def test_a_continuation_that_its_budget_cut_is_left_out_unless_it_is_asked_for(params, collected, monkeypatch):
    """A right box half-way through a loop was trained with an end behind it; Eq. 9 asks for the box only."""
    truncation.truncate(params, "adaptive")

    def loops(engine, params, strategy, batch):
        """Every second continuation repeats itself until its budget ends."""
        texts = [f"Thus \\boxed{{{record['answer']}}}." for record, _ in batch]
        ends = ["length" if i % 2 else "stop" for i in range(len(batch))]
        return enumerate(
            Completion(f"{text} Thus" if end == "length" else text, end, 9, 9)
            for text, end in zip(texts, ends, strict=True)
        )

    monkeypatch.setattr(alignment, "_continue", loops)
    pairs = alignment.align(params, "adaptive")
    cut = {pair["id"] for pair in pairs if pair["finish"] == "length"}
    keep = params.model_copy(update={"keep_cut_continuations": True})
    ids, with_cut = ({row["id"] for row in supervision.build(p, "p-align")} for p in (params, keep))
    assert with_cut == {pair["id"] for pair in pairs} and ids == with_cut - cut and cut
    assert Plan(keep).alignment("adaptive").key == Plan(params).alignment("adaptive").key, "nothing is continued anew"
    assert Plan(keep).finetuning("p-align").key != Plan(params).finetuning("p-align").key
    assert Plan(params).alignment("adaptive").folder.manifest()["cut"] == len(cut)


def test_equal_updates_give_every_arm_the_steps_of_a_full_set(params):
    recipe = params.part(FineTuning)
    assert finetuning.updates(recipe, rows=5, full=12) == 6
    assert finetuning.updates(recipe.model_copy(update={"equal_updates": False}), rows=5, full=12) == 4


def test_a_number_that_is_none_stops_the_training(params, collected, monkeypatch):
    """Some attention back ends gave NaN gradients from the second step on while the logged loss read 0.0."""
    import torch

    def broken(model, optimizer_step=None):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda grad: torch.full_like(grad, float("nan")))

    original = finetuning._trainer

    def build(*args):
        trainer = original(*args)
        broken(trainer.model)
        return trainer

    monkeypatch.setattr(finetuning, "_trainer", build)
    with pytest.raises(
        finetuning.NotFinite, match=r"update 1, rows (\w+, ){3}\w+; likely causes: learning_rate"
    ) as stop:
        finetuning.finetune(params, "sft-label")
    named = str(stop.value).split("rows ")[1].split(";")[0].split(", ")
    assert set(named) <= {trace.id for trace in collected} and len(set(named)) == 4


def test_marked_target_is_prefix_then_continuation():
    assert mark("A. B.", "C.") == "<Begin_of_Prefix>A. B.<End_of_Prefix>C."
