"""A preference is counted only where both orders agree; the scripted rubric is symmetric and reads only text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import params
from palign.analysis import preference
from palign.analysis.preference import OUTCOMES, arm_pairs, outcome, points, rubric, verdict
from palign.arms import ARMS
from palign.behaviour import DOUBTS
from palign.engines.base import Completion, Engine
from palign.problems import collect_benchmarks
from palign.prompts import mark
from palign.report import figures
from palign.tasks.plan import Plan, TaskMissing
from tests.tasks.test_plan import BASE, changed

LABELS = [None, "A", "B", "TIE"]
STEPS = "Now four. First pewter gives zero. So it ends on zero."
GOOD = STEPS + r" The answer is \boxed{0}."


@pytest.mark.parametrize(
    "text, label",
    [
        *[("[A]", "A"), ("A is shorter, so [B].", "B"), ("[TIE]", "TIE"), ("[A], yes: [A]", "A")],
        *[("<think>[A]? [B]?</think>[B]", "B"), ("Both end.\n**A**", "A"), (r"\[B\]", "B")],
        *[(text, None) for text in ("", "[A] or [B]", "[A][TIE]", "A good one", "[a]", "[C]", "<think>[A]")],
    ],
)
def test_a_verdict_is_exactly_one_label(text, label):
    assert verdict(text) == label


def test_an_unparseable_verdict_is_never_a_win():
    for label in LABELS:
        assert outcome(None, label) == outcome(label, None) == "unparseable"


def test_a_request_that_failed_has_no_verdict():
    assert preference._verdict(Completion("[A]", "stop", 1, 1)) == "A"
    assert preference._verdict(Completion("500: [A]", "endpoint error", 1, 0)) is None


@given(st.sampled_from(LABELS), st.sampled_from(LABELS))
def test_the_other_arm_has_the_mirrored_outcome(first, second):
    """Where one arm is shown first the other is shown second: the same two verdicts, swapped."""
    mirrored = {"win": "loss", "loss": "win"}
    found = outcome(first, second)
    assert outcome(second, first) == mirrored.get(found, found)


def test_only_agreeing_orders_prefer():
    found = {(a, b): outcome(a, b) for a in LABELS[1:] for b in LABELS[1:]}
    assert [pair for pair, o in found.items() if o == "win"] == [("A", "B")]
    assert [pair for pair, o in found.items() if o == "loss"] == [("B", "A")]
    assert [pair for pair, o in found.items() if o == "tie"] == [("TIE", "TIE")]


sentences = st.lists(
    st.sampled_from(["Now four.", "Wait, once more.", "First gives two.", r"The answer is \boxed{2}.", r"\boxed{2}"]),
    max_size=8,
).map(" ".join)


@given(sentences | st.text(), sentences | st.text())
def test_the_rubric_does_not_mind_the_order_and_ties_equals(one, other):
    swap = {"[A]": "[B]", "[B]": "[A]", "[TIE]": "[TIE]"}
    assert rubric(other, one) == swap[rubric(one, other)]
    assert rubric(one, one) == "[TIE]"


def test_the_rubrics_criteria_one_by_one():
    assert rubric(GOOD, r"\boxed{0}") == "[A]"  # steps stated
    assert rubric(GOOD, STEPS) == "[A]"  # ends in a box
    assert rubric(GOOD, STEPS + " " + GOOD) == "[A]"  # nothing repeated
    assert rubric(GOOD, GOOD.replace("zero.", "zero, as one sees from the key's own line in the list.")) == "[A]"
    assert rubric("Wait, is it four? " + GOOD, GOOD) == "[A]"  # reflects
    assert points(STEPS, GOOD) == points("", GOOD) == 0
    assert "wait" in DOUBTS


def test_arms_are_compared_with_p_align_and_those_of_figure_3d_among_each_other():
    assert arm_pairs(["zero-shot", "sft-long-cot", "upft", "p-align"]) == [
        ("p-align", "zero-shot"),
        ("p-align", "sft-long-cot"),
        ("p-align", "upft"),
        ("sft-long-cot", "upft"),
    ]
    assert arm_pairs(["zero-shot", "rft"]) == [("zero-shot", "rft")]
    pairs = [frozenset(pair) for pair in arm_pairs(list(ARMS))]
    assert len(set(pairs)) == len(pairs) and all(len(pair) == 2 for pair in pairs)


def test_it_touches_nothing_else_and_may_be_left_out():
    assert changed(preference_problems=7) == set()
    for values in ({"preference_problems": 7}, {"top_p": 0.5}):
        assert Plan(BASE.model_copy(update=values)).preference.key != Plan(BASE).preference.key
    for values in ({"preference_judge": None}, {"arms": ["zero-shot"]}):
        left_out = BASE.model_copy(update=values)
        assert Plan(left_out).preference is None and preference.compare(left_out) == []
    empty = preference.table([], BASE.arms)
    assert empty.empty and preference.best([], list(preference.PAPER_ARMS)).empty
    figures.plt.close(figures.preference(empty, preference.name_of(None)))


def test_a_prompt_must_show_both_responses():
    with pytest.raises(params.ParamsError, match=r"preference_prompt: must contain \{second\} exactly once"):
        params.validate({"study": "t", "preference_prompt": "{question} {first}"}, "t")


@pytest.fixture
def answered(small, project, monkeypatch):
    """A study whose arms have answered: p-align in its block's marks, sft-label barely; no model has run."""
    loaded = params.validate({**small, "arms": ["zero-shot", "sft-label", "p-align"]}, "test")
    problems = collect_benchmarks(loaded)
    said = {"zero-shot": GOOD, "sft-label": r"\boxed{0}", "p-align": mark("Now four.", GOOD.removeprefix("Now four. "))}
    for arm in loaded.arms:
        task = Plan(loaded).evaluation(arm)
        common = [{"benchmark": p["benchmark"], "problem": p["id"]} for p in problems]
        records = [c | {"id": str(i), "sample": 0, "text": said[arm]} for i, c in enumerate(common)]
        task.folder.path.mkdir(parents=True, exist_ok=True)
        task.folder.write("responses", records)
        task.finish()
    return loaded


class Scripted(Engine):
    """An engine that gives what ``answer`` makes of a prompt."""

    class tokenizer:
        chat_template = "x"

        @staticmethod
        def apply_chat_template(messages, **kwargs):
            return messages[0]["content"]

    def __init__(self, source, answer):
        self.source, self.answer, self.prompts = source, answer, []

    def generate(self, prompts, sampling, seeds):
        self.prompts += prompts
        return [Completion(self.answer(prompt), "stop", 9, 3) for prompt in prompts]


def judged(loaded, monkeypatch, answer):
    other = loaded.model_copy(update={"preference_judge": "made-up/judge"})
    engine = Scripted(other.model("preference_judge"), answer)
    monkeypatch.setattr(preference, "open_engine", lambda model, machine: engine if model == engine.source else None)
    return other, preference.compare(other), engine


def test_a_judge_that_always_says_a_prefers_nothing(answered, monkeypatch):
    loaded, records, engine = judged(answered, monkeypatch, lambda prompt: "[A]")
    assert {r["outcome"] for r in records} == {"inconsistent"}
    table = preference.table(records, loaded.arms).set_index(["arm", "against", "measure"])["value"]
    for pair in arm_pairs(loaded.arms):
        assert table[(*pair, "win less loss")] == 0 and table[(*pair, "orders agree")] == 0
        assert table[(*pair, "shown first preferred")] == 1
    assert not any("Prefix" in prompt or "p-align" in prompt for prompt in engine.prompts)  # blinded
    assert len(engine.prompts) == 2 * len(records) == 2 * 2 * 8
    manifest = Plan(loaded).preference.folder.manifest()
    assert manifest["tokens_read"] == 9 * len(engine.prompts) and manifest["judge"] == "made-up/judge"


def test_a_judge_whose_template_opens_its_thoughts_is_read_behind_them(answered, monkeypatch):
    """Cut in its thoughts, it has given no verdict, whatever labels they hold."""
    monkeypatch.setattr(Scripted, "prompt", lambda self, user: f"{user}<think>\n")
    _, records, _ = judged(answered, monkeypatch, lambda prompt: "Reply [A]?")
    assert {r["outcome"] for r in records} == {"unparseable"}
    kept = Plan(answered.model_copy(update={"preference_judge": "made-up/judge"})).preference.folder.read("verdicts")
    assert {r["text"] for r in kept} == {"<think>Reply [A]?"}


def test_a_judge_that_says_nothing_is_counted_as_such(answered, monkeypatch):
    loaded, records, _ = judged(answered, monkeypatch, lambda prompt: "Both are fine.")
    assert {r["outcome"] for r in records} == {"unparseable"}
    assert "orders agree" not in set(preference.table(records, loaded.arms)["measure"])


def test_the_rubric_in_a_study(answered):
    records = preference.compare(answered)
    table = preference.table(records, answered.arms)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all() and (table["n"] == 8).all()
    shares = table[table["measure"].isin(OUTCOMES)].groupby(["arm", "against"])["value"].sum()
    assert shares.to_numpy() == pytest.approx(1)
    found = {(r["against"], r["outcome"]) for r in records}
    assert found == {("zero-shot", "tie"), ("sft-label", "win")}  # the same text but for the marks; a bare answer
    name = preference.name_of(answered.preference_judge)
    assert name == Plan(answered).preference.folder.manifest()["judge"] == "scripted rubric, not a model"
    figures.plt.close(figures.preference(table, name))

    task = Plan(answered).preference  # a kill halfway: what there is stays, the rest is the same again
    path = task.folder.path / "verdicts.jsonl"
    whole = path.read_bytes()
    task.folder.manifest_path.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    assert preference.compare(answered) == records and sorted(path.read_bytes()) == sorted(whole)


def test_the_best_of_figure_3ds_arms_has_won_over_both_others():
    class Row:
        def __init__(self, arm, against, outcome):
            self.arm, self.against, self.outcome = arm, against, outcome

    rows = [Row("p-align", "upft", "win"), Row("p-align", "sft-long-cot", "loss"), Row("p-align", "zero-shot", "loss")]
    assert preference._winner([*rows, Row("sft-long-cot", "upft", "win")]) == "sft-long-cot"
    assert preference._winner([*rows, Row("sft-long-cot", "upft", "tie")]) is None


def test_the_best_is_counted_over_all_problems():
    """A problem without a winner counts among the n, or the shares would always add up to one."""
    pairs = [("p-align", "sft-long-cot"), ("p-align", "upft"), ("sft-long-cot", "upft")]
    outcomes = [
        {"arm": arm, "against": against, "benchmark": "b", "problem": str(i), "outcome": "win" if i < 3 else "tie"}
        for i in range(4)
        for arm, against in pairs
    ]
    found = preference.best(outcomes, ["zero-shot", *preference.PAPER_ARMS])
    assert found["value"].to_dict() == {"sft-long-cot": 0, "upft": 0, "p-align": 0.75} and (found["n"] == 4).all()
    assert preference.best(outcomes, ["p-align", "upft"]).empty


def test_before_the_arms_have_answered_it_says_what_to_run(small, project):
    loaded = params.load(project / "params" / "small.yaml")
    with pytest.raises(TaskMissing, match="05_evaluation"):
        preference.compare(loaded)
