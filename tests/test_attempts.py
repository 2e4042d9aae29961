"""Strategies of several continuations do what they say, agree with the simulated policies, and resume after a kill."""

import random
import tempfile
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign import alignment, traces, truncation
from palign.analysis import rollouts
from palign.attempts import SEARCHES, Problem, attempt, back_off, every, lockstep, start, success, until_right
from palign.continuation import kept
from palign.engines.base import seed_of
from palign.params import Alignment, Params, validate
from palign.tasks.plan import ATTEMPTS, Plan, prefixes_of
from palign.tasks.store import RunFolder, StoreError
from palign.traces import Trace
from palign.truncation import equation7

SIMULATED = {"success-binary": "released", "success-first": "linear", "success-last": "backward"}
lengths = st.integers(1, 60)
chances = st.lists(st.floats(0, 1), min_size=2, max_size=5).map(np.array)


def asked(strategy, right):
    """The tries a strategy draws, in order, and those it ends with."""
    drawn = []
    left = attempt(strategy, lambda *one: drawn.append(one) or right(*one))
    return drawn, left


@given(p=lengths, longer=st.integers(1, 9), m=lengths, most=st.integers(1, 12), seed=st.randoms(use_true_random=False))
def test_back_off_lengthens_until_the_first_right_one_the_whole_trace_or_its_limit(p, longer, m, most, seed):
    p = min(p, m)
    rights = {q: seed.random() < 0.3 for q in range(m + 1)}
    drawn, left = asked(back_off(p, longer, m, most), lambda q, _: rights[q])
    lengths = [q for q, _ in drawn]
    assert lengths[0] == p and len(lengths) <= most
    assert all(b == min(a + longer, m) and b > a for a, b in pairwise(lengths))
    assert left == drawn[-1:]
    assert not any(rights[q] for q in lengths[:-1]), "it goes on only behind a wrong one"
    assert rights[lengths[-1]] or lengths[-1] == m or len(lengths) == most


@given(m=lengths, data=st.data())
def test_a_request_that_failed_selects_nothing_and_lengthens_nothing(m, data):
    """It says nothing about the prefix: the problem is left with it, whatever the strategy would have done next."""
    settings_of = Alignment()
    strategy = data.draw(st.sampled_from(sorted(ATTEMPTS)))
    fails = data.draw(st.integers(0, 3))
    drawn = []

    def right(p, number):
        drawn.append((p, number))
        return None if len(drawn) > fails else False

    left = attempt(start(strategy, settings_of, m, m, data.draw(st.integers(1, m))), right)
    lost = drawn[fails] if len(drawn) > fails else None
    if strategy == "own-k":
        assert left == drawn == [(0, i) for i in range(settings_of.own_samples)]
    elif lost:
        assert left == [lost]
        assert all(p <= lost[0] for p, _ in drawn[fails:]), "nothing longer is drawn behind it"


@given(m=lengths, samples=st.integers(1, 4), data=st.data())
def test_success_first_finds_the_shortest_prefix_that_qualifies_and_the_last_one_what_never_fails_again(
    m, samples, data
):
    needed = data.draw(st.integers(1, samples))
    draws = random.Random(data.draw(st.integers(0, 999)))
    rights = {(p, i): draws.random() < 0.6 for p in range(1, m + 1) for i in range(samples)}
    enough = [sum(rights[p, i] for i in range(samples)) >= needed for p in range(1, m + 1)]
    for name, expected in {
        "success-first": next((p for p in range(1, m + 1) if enough[p - 1]), None),
        "success-last": next((p for p in range(1, m + 1) if all(enough[p - 1 :])), None),
    }.items():
        drawn, [(p, number)] = asked(success(SEARCHES[name](m), m, samples, needed), lambda *one: rights[one])
        assert p == (expected or m)
        right = [i for i in range(samples) if rights[p, i]]
        assert number == (right[0] if right else samples - 1), "the first right one, else the last wrong one"
        assert len(drawn) == len(set(drawn)), "what was drawn is not drawn again"


def test_a_search_that_never_asks_for_the_whole_trace_draws_it_once_more_where_nothing_is_enough():
    drawn, left = asked(success(equation7(8), 8, 3, 1), lambda p, number: False)
    assert left == [(8, 0)] and drawn[-1] == (8, 0) and len(drawn) == 3 * 3 + 1


def test_own_answers_are_all_kept_and_one_prefix_is_drawn_until_right():
    assert asked(every(3), lambda p, number: number == 0) == ([(0, 0), (0, 1), (0, 2)],) * 2
    assert asked(until_right(5, 4), lambda p, number: number == 2) == ([(5, 0), (5, 1), (5, 2)], [(5, 2)])
    assert asked(until_right(5, 2), lambda p, number: False) == ([(5, 0), (5, 1)], [(5, 1)])
    assert asked(start("rewrite", Alignment(), 9, 9), lambda p, number: False) == ([(0, 0)], [(0, 0)])


def test_back_off_begins_and_grows_by_shares_of_the_trace_that_are_at_least_one_sentence():
    settings_of = Alignment(backoff_start=0.3, backoff_step=0.1, backoff_tries=99)
    wrong = {"right": lambda p, number: False}
    other = Alignment(backoff_start=0.9, backoff_step=0.1, backoff_tries=99)
    assert [p for p, _ in asked(start("backoff-30", other, 20, 20), **wrong)[0]] == [6, 8, 10, 12, 14, 16, 18, 20]
    assert [p for p, _ in asked(start("backoff", settings_of, 20, 20), **wrong)[0]] == [6, 8, 10, 12, 14, 16, 18, 20]
    assert [p for p, _ in asked(start("backoff", settings_of, 3, 3), **wrong)[0]] == [1, 2, 3]
    # of 20 sentences 12 fit the context
    assert [p for p, _ in asked(start("backoff", settings_of, 20, 12), **wrong)[0]] == [6, 8, 10, 12]
    assert [p for p, _ in asked(start("adaptive-backoff", settings_of, 20, 20, 17), **wrong)[0]] == [17, 19, 20]
    assert asked(start("adaptive-backoff", settings_of, 20, 12, 17), **wrong)[0] == [(17, 0)]


def expected(make, chances: np.ndarray) -> rollouts.Kept:
    """Retention, share and continuations of a strategy, over all ways it can go, as the simulated policies have them.

    ``chances``: of a right continuation, by prefix.
    """
    m, found, waiting = len(chances) - 1, [], [()]
    while waiting:
        answers = waiting.pop()
        strategy, chance, drawn = make(), 1.0, {}
        try:
            tries = next(strategy)
            for answer in answers:
                drawn |= dict(zip(tries, answer, strict=True))
                chance *= np.prod(
                    [chances[p] if r else 1 - chances[p] for (p, _), r in zip(tries, answer, strict=True)]
                )
                tries = strategy.send(answer)
        except StopIteration as stop:
            (left,) = stop.value
            found.append((chance, drawn[left], left[0] / m, len(drawn)))
            continue
        if chance:
            waiting += [(*answers, answer) for answer in product((True, False), repeat=len(tries))]
    weights, *measures = np.array(found).T
    return rollouts.Kept(*(float(weights @ measure) for measure in measures))


def close(found: rollouts.Kept, policy: rollouts.Kept) -> bool:
    return vars(found) == pytest.approx(vars(policy), abs=1e-9)


@given(chances, st.data())
def test_what_the_simulated_policies_expect_is_what_back_off_and_several_samples_do(chances, data):
    m = len(chances) - 1
    p, longer, most = (data.draw(st.integers(1, n)) for n in (m, m, 4))
    assert close(expected(lambda: back_off(p, longer, m, 99), chances), rollouts.back_off(chances, p / m, longer / m))
    assert close(expected(lambda: until_right(p, most), chances), rollouts.several(chances, p / m, most))


@given(chances, st.sampled_from(sorted(SEARCHES)), st.integers(1, 3), st.data())
@settings(max_examples=40)
def test_what_the_simulated_verified_search_expects_is_what_the_success_strategies_do(chances, name, samples, data):
    """But for a trace without an ENOUGH: there the simulated search continues the whole trace once more, and the
    strategy takes a right one of those drawn, where fewer than needed are right.
    """
    m, needed = len(chances) - 1, data.draw(st.integers(1, samples))
    found = expected(lambda: success(SEARCHES[name](m), m, samples, needed), chances)
    policy = rollouts.verified(chances, samples, needed / samples, SIMULATED[name])
    chance = rollouts.chance_of_enough(chances, needed / samples, samples)
    end = rollouts.landing(SIMULATED[name], chance)
    failed, whole = float((end.at - end.sufficient).sum()), float(chances[m])
    some = 1 - (1 - whole) ** samples / (1 - chance[m]) if failed else 0.0
    assert found.share == pytest.approx(policy.share)
    assert found.continuations == pytest.approx(policy.continuations - failed)
    assert found.retention == pytest.approx(policy.retention - failed * whole + failed * some)


# Many problems in lockstep


class Student:
    """Draws continuations that are right by a seed of their own, and can fail, be cut, or be killed."""

    def __init__(self, seed: int = 0, fails: float = 0.0, kill: int | None = None):
        self.seed, self.fails, self.kill, self.drawn = seed, fails, kill, []

    def __call__(self, batch):
        shuffled = list(enumerate(batch))
        random.Random(self.seed).shuffle(shuffled)
        for i, (trace, p, number) in shuffled:
            if len(self.drawn) == self.kill:
                raise KeyboardInterrupt
            self.drawn.append((trace.id, p, number))
            luck = random.Random(seed_of(self.seed, trace.id, p, number)).random()
            finish = "engine error" if luck < self.fails else "length" if luck < 0.1 else "stop"
            answer = trace.answer if luck < 0.4 else "7"
            yield i, {"continuation": f"\\boxed{{{answer}}}", "finish": finish, "prompt_tokens": p, "new_tokens": 1}


def problems(strategy: str, sizes: list[int]) -> list[Problem]:
    items = [Trace(f"t{i}", "q", "1", " ".join(["w."] * m)) for i, m in enumerate(sizes)]
    options = Alignment(backoff_step=0.2, success_samples=2, success_needed=1, own_samples=3)
    return [Problem(one, start(strategy, options, m, m, (m + 1) // 2)) for one, m in zip(items, sizes, strict=True)]


def outcome(folder: Path, strategy: str, sizes: list[int], student: Student) -> tuple[list, str]:
    found = problems(strategy, sizes)
    lockstep(RunFolder(folder), found, student, "test")
    return [(one.left, one.drawn) for one in found], (folder / "attempts.jsonl").read_text()


cases = {"sizes": st.lists(st.integers(1, 9), min_size=1, max_size=4), "strategy": st.sampled_from(sorted(ATTEMPTS))}


@given(**cases, seed=st.integers(0, 99), kill=st.integers(0, 20))
@settings(max_examples=25)
def test_a_kill_costs_nothing_that_was_drawn_and_changes_nothing(sizes, strategy, seed, kill):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        whole = Student(seed, fails=0.05)
        expected = outcome(Path(one), strategy, sizes, whole)
        killed, again = Student(seed, fails=0.05, kill=kill), Student(seed, fails=0.05)
        try:
            outcome(Path(two), strategy, sizes, killed)
        except KeyboardInterrupt:
            assert len(killed.drawn) == kill
        assert outcome(Path(two), strategy, sizes, again) == expected
        assert sorted(killed.drawn + again.drawn) == sorted(whole.drawn), "nothing is drawn twice"


@given(**cases, seed=st.integers(0, 99))
@settings(max_examples=25)
def test_a_failed_request_that_is_asked_again_gives_what_would_have_been(sizes, strategy, seed):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        expected = outcome(Path(one), strategy, sizes, Student(seed))
        found, _ = outcome(Path(two), strategy, sizes, Student(seed, fails=0.2))
        for left, drawn in found:
            lost = [key for key, record in drawn.items() if record["finish"] == "engine error"]
            assert left == list(drawn) if strategy == "own-k" else (left == lost[:1] or not lost)
        RunFolder(Path(two)).discard("attempts", lambda record: record["finish"] == "engine error")
        assert outcome(Path(two), strategy, sizes, Student(seed)) == expected


@given(**cases, seed=st.integers(0, 99))
@settings(max_examples=25)
def test_a_problem_is_left_with_a_right_continuation_exactly_if_its_end_is_one_that_was_not_cut(sizes, strategy, seed):
    """A continuation that its budget cut is right by its answer, but nothing to learn from: the search goes on."""
    with tempfile.TemporaryDirectory() as folder:
        for left, drawn in outcome(Path(folder), strategy, sizes, Student(seed))[0]:
            right = {one for one, record in drawn.items() if kept(record)}
            if strategy in ("adaptive-k", "adaptive-backoff", "backoff"):
                assert right == set(left) & right and list(drawn)[-1:] == left
            if strategy.startswith("success"):
                assert left[0] in right or not {one for one in right if one[0] == left[0][0]}


@pytest.mark.parametrize("strategy", ["adaptive-k", "adaptive-backoff", "backoff", "success-first"])
def test_a_right_continuation_that_was_cut_ends_the_search_of_a_study_that_trains_on_it(tmp_path, strategy):
    """The search went on, and ended with a wrong continuation where there was one to train on."""

    def draw(batch):
        for i, (trace, _, number) in enumerate(batch):
            first = not number and not problem.drawn
            yield i, {"continuation": f"\\boxed{{{trace.answer if first else 7}}}", "finish": "length"}

    for keep_cut in (True, False):
        (problem,) = problems(strategy, [9])
        problem.keep_cut = keep_cut
        lockstep(RunFolder(tmp_path / str(keep_cut)), [problem], draw, "test")
        assert any(kept(problem.drawn[one], keep_cut) for one in problem.left) == keep_cut


def test_records_of_other_data_are_refused_in_one_line(tmp_path):
    outcome(tmp_path, "own-k", [3, 3], Student())
    with pytest.raises(StoreError, match=r"attempts.jsonl: id 't1/0/0' is foreign[^\n]*$"):
        outcome(tmp_path, "own-k", [3], Student())


# The real student


@pytest.fixture
def study(small) -> Params:
    values = {"arms": ["p-align-backoff", "success-prefix", "self-rewrite", "rft-k"], "training_limit": 4}
    values |= {"success_samples": 2, "success_needed": 1, "own_samples": 2, "judged_traces": 0, "entropy_traces": 0}
    params = validate({**small, **values}, "test")
    traces.collect(params)
    truncation.truncate_all(params)
    return params


def test_a_study_of_attempts_keeps_its_promises_and_survives_kills(study, monkeypatch):
    """One study, since the model is the cost: what the records hold, and what a kill between any two draws leaves."""
    alignment.align_all(study)
    sentences = {trace.id: len(traces.RULES["released"].split(trace.trace)) for trace in traces.load(study)}
    stood = {}
    for strategy in Plan(study).strategies:
        task = Plan(study).alignment(strategy)
        pairs, drawn, facts = task.read("pairs"), task.read("attempts"), task.folder.manifest()
        stood[strategy] = {path.name: path.read_text() for path in task.folder.path.glob("[ap]*.jsonl")}
        assert facts["tokens_read"] == sum(record["prompt_tokens"] for record in drawn)
        assert facts["tokens_generated"] == sum(record["new_tokens"] for record in drawn)
        assert facts["kept"] == sum(map(kept, pairs)) and facts["continuations"] == len(drawn)
        if strategy == "own-k":
            assert [pair["id"] for pair in pairs] == [f"{name}/{i}" for name in sentences for i in range(2)]
            assert [pair["of"] for pair in pairs] == [name for name in sentences for _ in range(2)]
        else:
            assert [pair["id"] for pair in pairs] == list(sentences)
        if cut := prefixes_of(strategy):
            first = {record["id"]: record["sentences"] for record in Plan(study).truncation(cut).read("prefixes")}
            assert all(pair["sentences"] >= first[pair["id"]] for pair in pairs)
        for pair in pairs:
            mine = [record for record in drawn if record["of"] == pair.get("of", pair["id"])]
            assert pair["tries"] == len(mine)
            assert bool(pair["prefix"]) == bool(pair["sentences"]) == (strategy not in ("own-k", "rewrite"))
            assert pair["continuation"] in [r["continuation"] for r in mine if r["sentences"] == pair["sentences"]]

    real, left = alignment.stream, 0

    def killed(*args):
        nonlocal left
        for one in real(*args):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            yield one

    for strategy in ("adaptive-backoff", "success-binary"):
        task = Plan(study).alignment(strategy)
        for name in ("manifest.json", "attempts.jsonl", "pairs.jsonl"):
            (task.folder.path / name).unlink()
        monkeypatch.setattr(alignment, "stream", killed)
        for left in (0, 1, 2):  # noqa: B007 - `killed` reads it
            with pytest.raises(KeyboardInterrupt):
                alignment.align(study, strategy)
        assert len(task.folder.read("attempts")) == 3
        monkeypatch.setattr(alignment, "stream", real)
        alignment.align(study, strategy)
        assert {path.name: path.read_text() for path in task.folder.path.glob("[ap]*.jsonl")} == stood[strategy]


def test_a_search_stays_within_the_context_and_a_question_that_does_not_fit_is_said(small):
    """Behind the context every continuation would fail, and a binary search would look for its prefix there."""
    values = {"arms": ["backoff", "success-prefix"], "training_limit": 2, "judged_traces": 0, "entropy_traces": 0}
    for room, outcomes in ((14, {"prompt too long"}), (100, {"right", "wrong", "no box"})):
        limits = {"max_model_len": 256 + room, "max_new_tokens": 100, "second_budget": 50}
        params = validate({**small, **values, **limits}, "test")
        traces.collect(params)
        for strategy in ("backoff", "success-binary"):
            pairs = alignment.align(params, strategy)
            assert {pair["outcome"] for pair in pairs} <= outcomes
            assert all(pair["prompt_tokens"] <= room for pair in pairs if "right" in outcomes)
