"""The pocket world agrees with its records, and its command rebuilds the shipped files."""

import hashlib
import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from palign.grading import last_box
from palign.params import Params
from palign.pocket import curriculum, make_data, world
from palign.pocket.world import TABLES, draw_problem, draw_problems, teach
from palign.traces import split
from tests.conftest import POCKET, read_jsonl

pytestmark = pytest.mark.model

seeds = st.integers(0, 10**6)
RARE = frozenset(world.RARE)


def test_every_key_is_a_permutation_and_beliefs_differ_only_in_rare_keys():
    for name, table in (TABLES | world.BELIEFS).items():
        assert sorted(table) == list(range(10)), name
    for name in world.RARE:
        wrong = sum(a != b for a, b in zip(TABLES[name], world.BELIEFS[name], strict=True))
        assert wrong == world.MISREMEMBERED


@given(seeds)
def test_the_teacher_is_right_and_its_oracle_prefix_is_the_shortest_that_states_every_step(seed):
    rng = random.Random(seed)
    problem = draw_problem(rng, rng.randint(2, 6), 0.3)
    trace = teach(problem, rng)
    assert last_box(trace.text) == problem.answer
    assert split(trace.text) == trace.sentences
    done = [state == (len(problem.keys), problem.values()[-1]) for state in trace.states]
    assert done.index(True) + 1 == trace.sufficient
    assert trace.text[: trace.sufficient_chars].endswith(f"gives {world.NUMBERS[problem.values()[-1]]}.")


@given(seeds)
def test_traces_are_at_least_twice_as_long_as_the_students_own_solution(seed):
    rng = random.Random(seed)
    problem = draw_problem(rng, rng.randint(2, 6), 0.3)
    terse = curriculum.own_words(problem, None, TABLES, rng, skip=False)
    assert len(teach(problem, rng).text.split()) >= 2 * len(terse.split()) - 12


@given(seeds)
def test_a_mended_trace_errs_at_a_rare_key_and_only_its_check_states_the_step_rightly(seed):
    rng = random.Random(seed)
    problem = draw_problem(rng, rng.randint(2, 6), 0.3)
    trace = teach(problem, rng, slip=0.0, mends=1.0)
    first = next(i for i, state in enumerate(trace.states) if state and state[0] == len(problem.keys))
    if RARE.isdisjoint(problem.keys):
        assert first + 1 == trace.sufficient
        return
    # from the first conclusion to the last mended step, what stands is wrong
    assert first + 1 < trace.sufficient
    assert all(state[1] != problem.values()[-1] for state in trace.states[first : first + 2])
    (mended,) = [i for i, s in enumerate(trace.sentences) if s.startswith("Wait, ") and " takes " in s]
    assert first < mended < trace.sufficient
    position = trace.states[mended + 1][0] - 1
    assert problem.keys[position] in RARE
    about = f"{world.ORDINALS[position]} {problem.keys[position]} gives "
    (wrong,) = [sentence for sentence in trace.sentences[:mended] if sentence.startswith(about)]
    right = trace.sentences[mended + 1]
    assert right.startswith(about) and right != wrong
    assert right in trace.text[: trace.sufficient_chars]


def test_the_mending_teacher_mends_a_step_of_every_hard_problem_and_of_no_other():
    records = read_jsonl(POCKET / "data" / "train-mending.jsonl")
    hard = [record for record in records if not RARE.isdisjoint(re.findall(r"\w+", record["question"]))]
    mended = [r for r in records if r["trace"][: r["sufficient_chars"]].count("Now ") == 2]
    assert (len(records), len(hard)) == (320, 156)
    assert {r["question"] for r in mended} == {r["question"] for r in hard}
    assert all(last_box(record["trace"]) == record["answer"] for record in records)


def test_the_mending_teacher_says_no_word_that_the_first_does_not():
    """The student's pre-training knows the first teacher's words."""

    def words(name: str) -> set[str]:
        traces = [record["trace"] for record in read_jsonl(POCKET / "data" / f"{name}.jsonl")]
        return set(re.findall(r"\w+", " ".join(traces)))

    assert words("train-mending") <= words("train")


def test_traces_vary_and_some_go_wrong_first():
    rng = random.Random(0)
    problem = draw_problem(rng, 4, 0.3)
    texts = {teach(problem, rng).text for _ in range(100)}
    assert len(texts) > 90
    corrected = [text for text in texts if re.search(r"Wait, \w+ takes", text)]
    assert 0 < len(corrected) < 50


def test_splits_are_disjoint_whoever_draws():
    drawn = {split: set(draw_problems(split, 200, (2, 3), 0.1, seed="x")) for split in world.SPLITS}
    assert sum(map(len, drawn.values())) == len(set().union(*drawn.values()))
    for name, problems in drawn.items():
        assert {problem.split for problem in problems} == {name}


def test_no_training_or_pretraining_question_is_a_test_question():
    train = {r["question"] for name in make_data.TEACHERS for r in read_jsonl(POCKET / "data" / f"{name}.jsonl")}
    tests = {r["question"] for name in world.BENCHMARKS for r in read_jsonl(POCKET / "data" / f"{name}.jsonl")}
    rng = random.Random(1)
    read = {curriculum.document(kind, rng)[0].split("\n")[0] for kind in curriculum.MIXTURE for _ in range(2000)}
    assert not train & tests and not read & tests and not read & train


@pytest.mark.parametrize("name", [*world.BENCHMARKS, *make_data.TEACHERS])
def test_the_shipped_data_are_what_the_command_writes(name):
    taught = name in make_data.TEACHERS
    records = make_data.training_records(**make_data.TEACHERS[name]) if taught else make_data.benchmark_records(name)
    assert read_jsonl(POCKET / "data" / f"{name}.jsonl") == records


def test_the_pocket_prompts_are_the_ones_the_student_was_trained_with():
    params = Params()
    assert {
        "answer": params.answer_prompt,
        "judge": params.judge_prompt,
        "continue": params.continue_prompt,
    } == curriculum.PROMPTS


@given(seeds)
def test_success_chance_is_that_of_the_habits_it_describes(seed):
    """The judge's training label depends on this number: compare it with simulated own words."""
    rng = random.Random(seed)
    problem = draw_problem(rng, rng.randint(2, 4), 0.3)
    trace = teach(problem, rng)
    state = trace.states[rng.randrange(len(trace.states))]
    chance = curriculum.success_chance(problem, state)
    assert 0 <= chance <= 1
    if state and state[0] and state[1] != problem.values()[state[0] - 1]:
        assert chance == 0.0
    if state == (len(problem.keys), problem.values()[-1]):
        assert chance == 1.0


def test_tokenizer_keeps_its_ids_through_a_save_and_a_load(tmp_path):
    """AutoTokenizer has silently given a tokenizer of its own other ids; ours must come back the same."""
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "student")
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((POCKET / "student" / "config.json").read_text())
    again = AutoTokenizer.from_pretrained(tmp_path)
    rng = random.Random(0)
    texts = ["".join(curriculum.document(kind, rng)) for kind in curriculum.MIXTURE for _ in range(20)]
    for text in [*texts, "<|im_start|>user\nÅ≠∑ 12.5 \\frac{1}{2}<|im_end|>\n"]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert again(text, add_special_tokens=False).input_ids == ids
        assert tokenizer.decode(ids) == text


def test_every_word_of_the_world_is_one_token():
    tokenizer = AutoTokenizer.from_pretrained(POCKET / "student")
    for word in [*TABLES, *world.NUMBERS, *world.ORDINALS]:
        assert len(tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1


def test_the_shipped_weights_are_those_of_the_card():
    student = POCKET / "student"
    card = json.loads((student / "training.json").read_text())
    assert hashlib.sha256((student / "model.safetensors").read_bytes()).hexdigest() == card["sha256"]
    assert card["sha256"] in (student / "README.md").read_text()
    assert sum(file.stat().st_size for file in student.iterdir()) < 12 * 10**6


def test_the_card_states_skills_within_what_the_study_needs():
    """The bands the pocket study was designed for; a student outside them would make it uninformative."""
    probes = json.loads((POCKET / "student" / "training.json").read_text())["probes"]
    zero_shot = [probes[f"{name}: zero-shot"] for name in world.BENCHMARKS]
    assert all(0.15 <= share <= 0.80 for share in zero_shot)
    assert zero_shot == sorted(zero_shot, reverse=True)
    for name in ("dial-2", "dial-3"):
        assert probes[f"{name}: made to go step by step"] >= 0.90
        assert probes[f"{name}: from the oracle prefix"] >= 0.80
    assert 0.6 < probes["judge: agrees with the oracle"] < 0.98 and probes["judge: AUC against the oracle"] > 0.6
    assert 0.2 <= probes["judge: share ENOUGH"] <= 0.8
