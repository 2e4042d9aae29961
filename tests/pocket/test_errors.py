"""What a wrong response gets wrong is read off its stated steps, against the world's truth."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import problems, traces
from palign.engines.base import FAILED
from palign.params import validate
from palign.pocket import errors, world
from palign.pocket.curriculum import own_words
from palign.pocket.errors import ERRORS, asked, error, read
from palign.pocket.world import BELIEFS, RARE, TABLES, DialProblem, draw_problem, teach
from palign.tasks.plan import Plan, TaskMissing
from tests.conftest import read_jsonl

seeds = st.integers(0, 10**6)
PROBLEM = DialProblem(6, ("iron", "opal", "tin"))  # eight, five, eight
DOUBTED = "Now six. First iron gives eight. Second opal gives five. Third tin gives eight. So it ends on eight."


@given(seeds)
def test_a_problem_is_read_from_its_question_and_from_a_prompt(seed):
    problem = draw_problem(random.Random(seed), 1 + seed % 6, 0.3)
    assert asked(problem.question) == asked(f"{problem.question}\nWork step by step. Box the answer.") == problem


def test_another_question_is_refused():
    with pytest.raises(ValueError, match="no question of the dial world: 'What is 2 "):
        asked("What is 2 + 2?")


@given(seeds, st.sampled_from([0.0, 1.0]))
def test_what_a_teacher_states_last_is_the_truth_and_its_first_mistakes_are_seen(seed, mends):
    rng = random.Random(seed)
    problem = draw_problem(rng, rng.randint(2, 6), 0.3)
    account = read(problem, teach(problem, rng, mends=mends, slip=0.0).text)
    final = {step.position: step.value for step in account.steps if not step.aside}
    assert [final[i] for i in range(len(problem.keys))] == problem.values()
    assert account.conclusions[-1] == problem.values()[-1]
    mistaken = mends and not RARE.keys().isdisjoint(problem.keys)
    wrong = [step for step in account.steps if TABLES[step.key][step.before] != step.value]
    assert len(wrong) == (1 if mistaken else 0)  # the rest of the first pass follows from it
    assert all(step.key in RARE for step in wrong)


@given(seeds)
def test_a_solution_by_beliefs_is_right_or_lacks_knowledge(seed):
    rng = random.Random(seed)
    problem = draw_problem(rng, rng.randint(2, 6), 0.3)
    text = own_words(problem, None, BELIEFS, rng, skip=False)
    believed, truth = problem.values(BELIEFS), problem.values()
    kind = error(problem, text, right=believed[-1] == truth[-1])
    assert kind == ("right" if believed[-1] == truth[-1] else "missing knowledge")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Now six. First iron gives eight. Second opal gives two. Third tin gives five.", "missing knowledge"),
        ("Now six. First iron gives eight. The answer is \\boxed{3}.", "missing knowledge"),
        ("Now six. First iron gives seven. Second opal gives eight. Third tin gives one.", "slip"),
        ("Now six. First iron gives eight. Second opal gives five. Third tin gives nine.", "slip"),
        ("Now six. First iron gives eight. Second opal gives five. The answer is \\boxed{3}.", "skipped"),
        ("The answer is \\boxed{3}.", "skipped"),
        ("", "skipped"),
        (f"{DOUBTED} The last key worries me. Now nine. Third tin gives two. Good, still two.", "doubt"),
        (f"{DOUBTED} What if it had started at one. Now one. First iron gives three. The answer is", "doubt"),
        ("Now one. First iron gives three. Second opal gives nine. Third tin gives two.", "other"),
        ("Now six. First zinc gives one. Second opal gives seven. Third tin gives zero.", "other"),
    ],
)
def test_a_wrong_response_is_told_by_its_first_wrong_or_absent_step(text, kind):
    assert error(PROBLEM, text) == kind


def test_a_mended_step_is_no_error_and_a_supposed_start_is_not_the_problems():
    mended = "Now six. First iron gives nine. Wait, iron takes six to eight. First iron gives eight. Second opal gives"
    assert error(PROBLEM, f"{mended} two. Third tin gives five.") == "missing knowledge"
    supposed = "What if it had started at one. Now one. First iron gives three. But that was not the question."
    said = "Now six. First iron gives eight. Second opal gives two. Third tin gives five. That leaves five."
    assert error(PROBLEM, f"{said} {supposed} I am sure now. The answer is \\boxed{{5}}.") == "missing knowledge"
    assert [step.aside for step in read(PROBLEM, f"{said} {supposed}").steps] == [False] * 3 + [True]


def test_a_continuation_repeats_the_step_before_it():
    marked = "<Begin_of_Prefix>Now six. First iron gives eight.<End_of_Prefix>"
    text = f"{marked}First iron gives eight. Second opal gives two."
    assert [(s.position, s.before, s.value) for s in read(PROBLEM, text).steps] == [(0, 6, 8), (0, 6, 8), (1, 8, 2)]
    (alone,) = read(PROBLEM, "Second opal gives five.").steps
    assert alone.before is None


def test_the_grade_decides_what_is_right_and_what_has_no_answer():
    assert error(PROBLEM, "whatever", right=True) == "right"
    assert error(PROBLEM, DOUBTED, boxed=False) == "no answer"


@pytest.fixture
def finished(small):
    """A study whose responses are written by hand: on every problem the answer at once, and the truth, twice right."""
    params = validate({**small, "arms": ["zero-shot", "sft-long-cot"], "n_samples": 3}, "test")
    tests = problems.collect_benchmarks(params)
    traces.collect(params)
    task = Plan(params).evaluation("zero-shot")
    items = [(test, sample) for test in tests for sample in range(3)]
    record = [{"benchmark": t["benchmark"], "problem": t["id"], "sample": s, "finish": "stop"} for t, s in items]
    task.folder.write("responses", [r | {"text": "The answer is \\boxed{x}."} for r in record])
    grades = [r | {"outcome": ("right", "right", "wrong")[r["sample"]], "right": r["sample"] < 2} for r in record]
    task.folder.write("grades", grades)
    task.finish()
    return params, task


def test_shares_are_over_problems_and_add_up(finished):
    params, _ = finished
    table = errors.errors(params.model_copy(update={"arms": ["zero-shot"]}))
    assert len(table) == 3 * len(ERRORS)
    assert table.groupby("benchmark")["value"].sum().tolist() == pytest.approx([1, 1, 1])
    shares = table.set_index(["benchmark", "error"])
    assert shares.loc[("dial-2", "right"), "value"] == pytest.approx(2 / 3)
    assert shares.loc[("average", "skipped"), "value"] == pytest.approx(1 / 3)
    assert shares.loc[("average", "slip"), "low"] == 0 < shares.loc[("average", "slip"), "high"]
    assert shares.loc["average", "n"].eq(8).all() and shares.loc["dial-3", "n"].eq(4).all()


def test_a_response_that_was_never_answered_is_no_error(finished):
    params, task = finished
    only = params.model_copy(update={"arms": ["zero-shot"]})
    failed = [r | {"finish": FAILED[0]} if r["sample"] == 2 else r for r in task.read("responses")]
    task.folder.write("responses", failed)
    task.finish()
    table = errors.errors(only).set_index(["benchmark", "error"])
    assert table.loc[("average", "right"), "value"] == 1
    lost = [r | {"finish": FAILED[0]} if r["problem"] == failed[0]["problem"] else r for r in failed]
    task.folder.write("responses", lost)
    task.finish()
    table = errors.errors(only).set_index(["benchmark", "error"])
    assert table.loc["dial-2", "n"].eq(3).all() and table.loc["dial-3", "n"].eq(4).all()
    assert table.groupby("benchmark")["value"].sum().tolist() == pytest.approx([1, 1, 1])
    task.folder.write("responses", [r | {"finish": FAILED[0]} if r["benchmark"] == "dial-2" else r for r in lost])
    task.finish()
    assert set(errors.errors(only)["benchmark"]) == {"dial-3"}, "an average needs all benchmarks"


def test_an_unfinished_arm_is_said(finished):
    params, _ = finished
    with pytest.raises(TaskMissing, match="evaluation/sft-long-cot"):
        errors.errors(params)


def test_whole_traces_teach_every_hard_key_of_their_problems(finished, project):
    params, _ = finished
    (row,) = errors.hard_keys(params).to_dict("records")
    records = read_jsonl(project / "train.jsonl")
    hard = [r for r in records if not RARE.keys().isdisjoint(asked(r["question"]).keys)]
    assert 0 < len(hard) < len(records)
    assert row["arm"] == "sft-long-cot" and row["rows"] == row["problems"] == len(records)
    assert row["hard_problems"] == row["taught_problems"] == len(hard)
    assert row["cells"] <= row["right_steps"] and row["cells"] <= 40


def test_both_tables_are_written_beside_the_report(finished, project, monkeypatch):
    params, _ = finished
    monkeypatch.setattr(errors, "errors", lambda _: errors.hard_keys(params))
    errors.write(params)
    written = project / "reports" / "small" / "tables"
    assert {path.name for path in written.iterdir()} == {"errors.csv", "hard_keys.csv"}
    assert (written / "hard_keys.csv").read_text().startswith("arm,rows,problems,hard_problems,")


def test_every_doubt_and_every_end_of_the_world_is_read():
    """A sentence that the world gains and this reader does not know would be read as nothing."""
    for words in (*world.DROPS, *world.CHECKS, *world.READS, *world.LAST_LOOKS, *world.SURE):
        assert errors._SAID.fullmatch(words)["back"]
    for words in world.WHAT_IFS:
        assert errors._SAID.fullmatch(words.format(start="six"))["aside"]
    for words in (*world.ENDS, "Good, still {end}."):
        assert read(PROBLEM, words.format(end="six")).conclusions == [6]
