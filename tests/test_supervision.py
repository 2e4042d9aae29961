"""Each arm has the rows that the paper describes, and training and evaluation read the same prompts."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import alignment, finetuning, supervision, traces, truncation
from palign.arms import ARMS, PAIR
from palign.continuation import cut, kept
from palign.engines.base import NEVER_ANSWERED, Completion
from palign.engines.tokenizers import load_tokenizer
from palign.params import FineTuning, Params, validate
from palign.prompts import BEGIN, END, fill, mark, render
from palign.selection import Candidate
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
    known = {"upft", "text", *supervision.OF_TRACES, *supervision.OF_PAIRS}
    assert {arm.target for arm in ARMS.values()} - {None} == known
    for arm in ARMS.values():
        assert (arm.target == "text" or arm.target in supervision.OF_PAIRS) == (arm.strategy is not None)
        assert arm.target in supervision.OF_PAIRS or not (arm.fallback or arm.weight), "both are made beside pairs"


def test_training_seeds_differ_in_the_adapter_and_the_first_is_todays(params, collected):
    one = params.model_copy(update={"num_train_epochs": 1.0, "training_seeds": [0, 1]})
    facts = [finetuning.finetune(one, "sft-label", seed) for seed in (None, 0, 1)]
    assert [f["training_seed"] for f in facts] == [0, 0, 1]
    losses = [Plan(one).finetuning("sft-label", seed).folder.read("losses") for seed in (0, 1)]
    assert losses[0] != losses[1] and len(losses[0]) == len(losses[1])


def test_rft_learns_the_students_own_answers_without_markers(params, collected):
    pairs = alignment.align(params, "empty")
    rows = supervision.build(params, "rft")
    assert [row["completion"] for row in rows] == [pair["continuation"] for pair in pairs if kept(pair)]
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


# Rivals: rows of made-up pairs

RECIPE = Params().part(FineTuning)
OUTCOMES = ("right", "cut", "wrong", "no box", *NEVER_ANSWERED)
"""``cut``: right, but its budget ended it."""


def problem_of(i, states="right"):
    text = {"right": "Hm. So \\boxed{5}.", "wrong": "Hm. So \\boxed{6}.", "none": "Hm. So five."}[states]
    return {"id": f"t{i}", "question": f"What is {i}?", "answer": "5", "trace": f"Trace {i}. {text}"}


def pair_of(trace, outcome, number=None, text=None, prefix="A. B.", new_tokens=3):
    """A pair of ``trace``; with a ``number``, one of several."""
    own = {"id": trace["id"]} if number is None else {"id": f"{trace['id']}/{number}", "of": trace["id"]}
    finish = {"cut": "length"} | {outcome: outcome for outcome in NEVER_ANSWERED}
    facts = {"finish": finish.get(outcome, "stop"), "new_tokens": new_tokens, "prefix": prefix}
    own |= {key: trace[key] for key in ("question", "answer")} | facts
    return own | {"continuation": text or f"C{number}.", "outcome": "right" if outcome == "cut" else outcome}


@st.composite
def settled(draw):
    """Training problems, a pair of most of them, and three own answers of each."""
    states = draw(st.lists(st.sampled_from(["right", "wrong", "none"]), min_size=1, max_size=12))
    found = [problem_of(i, state) for i, state in enumerate(states)]
    pairs = [pair_of(t, outcome) for t in found if (outcome := draw(st.sampled_from([*OUTCOMES, None])))]
    own = [pair_of(t, draw(st.sampled_from(OUTCOMES)), i, prefix="") for t in found for i in range(3)]
    return found, pairs, own


def rows_of(arm, found, pairs, own=(), keep_cut=False, recipe=RECIPE, seed=0):
    rows = supervision.of_pairs(ARMS[arm], recipe, keep_cut, seed, found, pairs, own)
    assert len({row["id"] for row in rows}) == len(rows), "ids are unique"
    order = [trace["id"] for trace in found]
    assert [row["of"] for row in rows] == sorted((row["of"] for row in rows), key=order.index)
    return rows


@given(settled(), st.booleans())
def test_a_fallback_gives_each_problem_one_row_at_most_and_none_where_a_request_failed(study, keep_cut):
    """A failed request says nothing about the prefix, and a trace that ends in a wrong answer teaches it."""
    found, pairs, _ = study
    rows = rows_of("p-align-fallback", found, pairs, keep_cut=keep_cut)
    assert len({row["of"] for row in rows}) == len(rows) <= len(pairs)
    outcome = {pair["id"]: "cut" if cut(pair) else pair["outcome"] for pair in pairs}
    lost = {"wrong", "no box"} | (set() if keep_cut else {"cut"})
    sound = {trace["id"] for trace in found if "{6}" not in trace["trace"]}
    traces_of = {row["of"]: row["completion"] for row in rows if row["fallback"]}
    assert set(traces_of) == {one for one in sound if outcome.get(one) in lost}
    assert all(traces_of[trace["id"]] == trace["trace"] for trace in found if trace["id"] in traces_of)
    assert [row for row in rows if not row["fallback"]] == rows_of("p-align", found, pairs, keep_cut=keep_cut)


def test_fallbacks_differ_in_the_prompt_of_the_traces_alone():
    found = [problem_of(0), problem_of(1)]
    pairs = [pair_of(found[0], "right"), pair_of(found[1], "wrong")]
    recipe = RECIPE.model_copy(update={"fallback_prompt": "{question} At length."})
    plain, prompted = (rows_of(f"p-align-fallback{how}", found, pairs, recipe=recipe) for how in ("", "-prompt"))
    assert plain[0] == prompted[0] and plain[1]["completion"] == prompted[1]["completion"] == found[1]["trace"]
    assert plain[1]["prompt"] == fill(RECIPE.answer_prompt, question="What is 1?")
    assert prompted[1]["prompt"] == "What is 1? At length."
    unmarked = rows_of("p-align-fallback-unmarked", found, pairs, recipe=recipe)
    assert unmarked[0]["completion"] == "A. B. CNone." and unmarked[1] == plain[1]


@given(settled(), st.integers(0, 5))
def test_the_random_control_has_as_many_traces_as_the_fallback_beside_the_same_pairs(study, seed):
    found, pairs, _ = study
    wanted = sum(row["fallback"] for row in rows_of("p-align-fallback", found, pairs))
    own = rows_of("p-align", found, pairs)
    rows = rows_of("p-align-fallback-random", found, pairs, seed=seed)
    assert [row for row in rows if not row["fallback"]] == own
    sound = {row["of"] for row in own} - {trace["id"] for trace in found if "{6}" in trace["trace"]}
    times = Counter(row["of"] for row in rows if row["fallback"])
    assert set(times) <= sound and times.total() == (wanted if sound else 0)
    if times:
        assert max(times.values()) - min([times[one] for one in sound]) <= 1, "none twice before all were once"


@given(settled(), st.integers(1, 4), st.integers(0, 5))
def test_weights_repeat_the_rows_of_hard_problems_exactly_and_of_as_many_random_ones(study, weight, seed):
    found, pairs, own = study
    recipe = RECIPE.model_copy(update={"hard_weight": weight})
    plain = rows_of("p-align", found, pairs)
    hard = rows_of("p-align-hard", found, pairs, own, False, recipe, seed)
    control = rows_of("p-align-hard-random", found, pairs, own, False, recipe, seed)
    wrong = {o["id"] for o in own if o["outcome"] in ("wrong", "no box") or cut(o)}
    for row in plain:
        is_hard = {o["id"] for o in own if o["of"] == row["of"]} <= wrong
        copies = [one for one in hard if one["of"] == row["of"]]
        assert len(copies) == (weight if is_hard else 1)
        assert all(one | {"id": row["id"]} == row for one in copies)
    assert len(control) == len(hard) and {row["of"] for row in control} == {row["of"] for row in plain}
    assert set(Counter(row["of"] for row in control).values()) <= {1, weight}


@given(settled(), st.data())
def test_a_problem_that_leaves_changes_nothing_of_the_others(study, data):
    found, pairs, own = study
    gone = data.draw(st.sampled_from(found))["id"]

    def left(records):
        return [record for record in records if supervision.problem(record) != gone]

    for arm in ("p-align", "p-align-fallback", "p-align-hard", "p-align-unmarked"):
        assert rows_of(arm, left(found), left(pairs), left(own)) == left(rows_of(arm, found, pairs, own))
    for arm in ("rft-k", "shortest-of-k", "rft-k-fallback"):
        assert rows_of(arm, left(found), left(own)) == left(rows_of(arm, found, own))


@given(st.sets(st.text("abc", max_size=4), min_size=1), st.integers(0, 9), st.data())
def test_draws_are_of_each_problem_alone(ids, count, data):
    gone = data.draw(st.sampled_from(sorted(ids)))
    before, after = supervision.drawn(ids, count, 7), supervision.drawn(ids - {gone}, count, 7)
    assert [one for one in before if one != gone] == [one for one in after if one in before]
    assert supervision.drawn(ids, count + 1, 7)[:count] == before
    assert sorted(supervision.drawn(ids, len(ids), 7)) == sorted(ids)


@given(settled())
def test_of_k_own_answers_all_the_shortest_or_the_first_are_learnt(study):
    found, _, own = study
    rng = random.Random(len(own))
    own = [o | {"new_tokens": rng.randint(1, 3), "continuation": rng.choice("XY")} for o in own]
    right = {t["id"]: [o for o in own if o["of"] == t["id"] and kept(o)] for t in found}
    every, shortest = rows_of("rft-k", found, own), rows_of("shortest-of-k", found, own)
    rng.shuffle(own)
    first = [row for row in rows_of("rft-k-fallback", found, own) if not row["fallback"]]
    for of, good in right.items():
        texts = [row["completion"] for row in every if row["of"] == of]
        assert texts == list(dict.fromkeys(o["continuation"] for o in good)), "the same text counts once"
        least = [o["id"] for o in good if o["new_tokens"] == min(g["new_tokens"] for g in good)][:1]
        assert [row["id"] for row in shortest if row["of"] == of] == least
        assert [row["id"] for row in first if row["of"] == of] == [o["id"] for o in good][:1]


def test_a_trace_stands_in_for_k_own_answers_only_if_all_are_wrong():
    found = [problem_of(i) for i in range(3)]
    outcomes = [("wrong", "right"), ("wrong", "no box"), ("wrong", "endpoint error")]
    own = [pair_of(found[i], o, k, prefix="") for i, several in enumerate(outcomes) for k, o in enumerate(several)]
    rows = rows_of("rft-k-fallback", found, own)
    assert [(row["of"], row["completion"]) for row in rows] == [("t0", "C1."), ("t1", found[1]["trace"])]


@given(settled())
def test_a_mixture_has_one_whole_trace_to_four_own_right_answers(study):
    """arXiv 2502.12143."""
    found, pairs, _ = study
    short = rows_of("rft", found, pairs)
    rows = rows_of("mix-long", found, pairs)
    long = [row for row in rows if row["id"].endswith("/trace")]
    assert [row for row in rows if row not in long] == short
    sound = [trace["id"] for trace in found if "{6}" not in trace["trace"]]
    assert len(long) == min(round(len(short) / 4), len(sound)) and {row["of"] for row in long} <= set(sound)
    assert not any(row["fallback"] for row in rows)


def test_a_pair_without_a_prefix_has_no_marks():
    found = [problem_of(0)]
    (row,) = rows_of("select-likely", found, [pair_of(found[0], "right", prefix="", text=found[0]["trace"])])
    assert row["completion"] == found[0]["trace"] and row["answers"] and not row["fallback"]
    (row,) = rows_of("select-likely", found, [pair_of(found[0], "right", text="C.")])
    assert row["completion"] == mark("A. B.", "C.")


@given(st.sampled_from(["", "A.", f"A.{BEGIN}"]), st.sampled_from(["B.", f"{END}B."]))
def test_a_selection_scores_what_is_then_trained_on(prefix, continuation):
    pair = {"prefix": prefix, "continuation": continuation}
    assert Candidate("adaptive", pair).response == supervision.OF_PAIRS[PAIR](pair)


@pytest.mark.parametrize(
    ("prefix", "continuation", "joined"),
    [("A.", "B.", "A. B."), ("A.\n", "B.", "A.\nB."), ("A.", " B.", "A. B."), ("", "B.", "B.")],
)
def test_an_unmarked_target_parts_its_halves_by_white_space(prefix, continuation, joined):
    """Without a space, "nine.Second" has other tokens than a trace or an own answer ever has."""
    assert supervision.OF_PAIRS["unmarked"]({"prefix": prefix, "continuation": continuation}) == joined


def test_the_first_half_of_the_tokens_does_not_end_the_turn():
    """With an end of turn behind it the student learnt to stop in mid-sentence, and boxed no answer in 97 %."""
    records = [{"id": "1", "question": "?", "prefix": "A. B", "status": "ok"}]
    (half,), (solution,) = (
        supervision.of_texts(ARMS[arm], FineTuning(), records) for arm in ("essence-50", "first-solution")
    )
    assert not half["ends"] and solution["ends"]


def test_the_open_prefix_has_the_rows_of_the_prefix_arm_without_their_end():
    """That one gave no right answer, and the end of turn behind half a solution was the reason."""
    pair = {"id": "1", "question": "?", "prefix": "A.", "continuation": "B.", "finish": "stop", "outcome": "right"}
    traces = [{"id": "1", "question": "?", "answer": "1", "trace": "A. C."}]
    (closed,), (opened,) = (
        supervision.of_pairs(ARMS[arm], FineTuning(), False, 0, traces, [pair])
        for arm in ("sft-teacher-prefix", "sft-teacher-prefix-open")
    )
    assert closed["ends"] and not opened["ends"] and closed | {"ends": False} == opened


@pytest.fixture
def finished(params, collected):
    """A study that has traces, and pairs of them as a test gives them."""
    study = params.model_copy(update={"arms": ["p-align-fallback", "p-align-hard-random", "essence-50"]})

    def write(outcomes=("right", "wrong"), own=("right", "wrong")):
        plan = Plan(study)
        for strategy, cycle, number in (("adaptive", outcomes, None), ("own-k", own, 0)):
            pairs = [pair_of(vars(t), cycle[i % len(cycle)], number) for i, t in enumerate(collected)]
            plan.alignment(strategy).folder.write("pairs", pairs)
            plan.alignment(strategy).finish()
        return plan

    write.params = study
    return write


def test_a_question_of_a_benchmark_is_neither_a_fallback_nor_drawn(finished, collected, monkeypatch):
    plan, study = finished(), finished.params
    tested = {t.id: "dial-2" for t in collected[:4]}
    monkeypatch.setattr(Plan, "tested", tested)
    for arm in ("p-align-fallback", "p-align-fallback-random", "p-align-hard-random"):
        rows = supervision.build(study, arm)
        assert rows and not tested.keys() & {row["of"] for row in rows}
    learnt = [p for p in plan.alignment("adaptive").read("pairs") if p["id"] not in tested and p["outcome"] == "wrong"]
    for arm in ("p-align-fallback", "p-align-fallback-random"):
        assert sum(row["fallback"] for row in supervision.build(study, arm)) == len(learnt) == 4


def test_a_text_is_a_row_where_truncation_found_one(finished, collected):
    study = finished.params.model_copy(update={"arms": ["essence-50", "first-solution"]})
    for strategy in ("tokens-50", "first-solution"):
        records = [vars(t) | {"status": "ok", "prefix": f"Half of {t.id}."} for t in collected]
        records[2] |= {"status": "states no right answer", "prefix": ""}
        task = Plan(study).truncation(strategy)
        task.folder.write("prefixes", records)
        task.finish()
    half, solution = (supervision.build(study, arm) for arm in study.arms)
    assert [row["completion"] for row in half] == [f"Half of {t.id}." for t in collected if t is not collected[2]]
    assert not any(row["answers"] for row in half), "it ends in the middle, and may be cut"
    assert all(row["answers"] for row in solution)


def test_an_arm_of_texts_without_any_says_where_to_look(finished, collected):
    study = finished.params.model_copy(update={"arms": ["first-solution"]})
    task = Plan(study).truncation("first-solution")
    task.folder.write("prefixes", [vars(t) | {"status": "states no right answer", "prefix": ""} for t in collected])
    task.finish()
    count = len(collected)
    why = rf"truncation/first-solution found a text in none of {count} traces \({count} states no right answer\)"
    with pytest.raises(finetuning.TrainerError, match=rf"^first-solution: no training rows: {why}; leave the arm out"):
        finetuning.token_lengths(study, "first-solution")


def test_an_arm_without_a_right_continuation_says_what_they_were_and_what_may_help(finished):
    """`no continuation was right; see the pairs` stood there also where they were cut, or had failed."""
    finished(("wrong", "wrong", "no box", "engine error"))
    why = r"alignment/adaptive kept none of 12 continuations \(6 wrong, 3 no box, 3 engine error\)"
    with pytest.raises(
        finetuning.TrainerError, match=rf"^p-align: no training rows: {why}; try another prompt or [^\n]+$"
    ):
        finetuning.token_lengths(finished.params, "p-align")


HALF, MOST = ("right", "wrong"), ("right", "right", "right", "wrong")


@pytest.mark.parametrize(("outcomes", "whole", "warned"), [(HALF, 6, True), (MOST, 3, False)])
def test_many_whole_traces_are_warned_of_once_before_training(finished, capsys, outcomes, whole, warned):
    """Such an arm is long traces by another name."""
    finished(outcomes)
    finetuning.token_lengths(finished.params, "p-align-fallback")
    line = f"warning: p-align-fallback: of 12 rows {whole} are whole traces that its fallback adds\n"
    assert capsys.readouterr().out.count(line) == warned


def test_the_manifest_states_what_a_fallback_added_and_copies_are_trained_on(finished, capsys):
    finished(HALF, own=["wrong"])
    study = finished.params.model_copy(update={"num_train_epochs": 1.0, "equal_updates": False, "hard_weight": 4})
    facts = finetuning.finetune(study, "p-align-fallback")
    assert (facts["rows"], facts["rows_fallback"]) == (12, 6) and "warning" not in capsys.readouterr().out
    facts = finetuning.finetune(study, "p-align-hard")
    assert (facts["rows"], facts["rows_fallback"], facts["updates"]) == (24, 0, 6), "more rows than problems"
