"""What a plan expects of arms with several continuations, a fallback or a part of the trace, by hand and by law."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import params
from palign.analysis import rollouts
from palign.analysis.estimates import CONTINUED, Estimates
from palign.analysis.expected import Expected, enough, growing, until_right, wrong
from palign.arms import ARMS
from palign.study.cli import main
from palign.tasks.plan import ATTEMPTS, Plan
from tests.conftest import PROJECT

POCKET = params.load(PROJECT / "params" / "pocket.yaml")
COSTS = POCKET.costs
EVERY = POCKET.model_copy(update={"arms": list(ARMS), "judge": "j"})
EXPECTED = Expected.of(POCKET)
CHANCES = st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=1, max_size=8)


@given(CHANCES, st.data())
def test_continuing_until_right_is_what_enumeration_says(chances, data):
    shares = sorted(data.draw(st.lists(st.floats(0, 1), min_size=len(chances), max_size=len(chances))))
    found = until_right(chances, shares)
    reached = np.cumprod([1, *(1 - np.array(chances))])
    assert found.number == pytest.approx(reached[:-1].sum()) and 1 <= found.number <= len(chances)
    assert found.right == pytest.approx(1 - reached[-1])
    assert shares[0] - 1e-9 <= found.share <= shares[-1] + 1e-9 and shares[0] - 1e-9 <= found.ends <= shares[-1] + 1e-9


@given(st.integers(2, 40), st.integers(1, 8), st.floats(0.05, 1), st.data())
def test_the_plan_and_the_recorded_rollouts_expect_the_same_of_one_curve(m, samples, start, data):
    """Two descriptions of one policy; a step of whole sentences, so that both name the same prefixes."""
    success = np.array(data.draw(st.lists(st.floats(0, 1), min_size=m + 1, max_size=m + 1)))
    first = max(round(start * m), 1)
    kept, own = rollouts.several(success, first / m, samples), until_right([success[first]] * samples, [0.0] * samples)
    assert (own.number, own.right) == pytest.approx((kept.continuations, kept.retention))
    shares = growing(first / m, 1 / m, m + 1)
    kept = rollouts.back_off(success, first / m, 1 / m)
    own = until_right([success[round(share * m)] for share in shares], shares)
    assert (own.number, own.right) == pytest.approx((kept.continuations, kept.retention))


@given(st.floats(0, 1), st.floats(0.01, 1), st.integers(1, 20))
def test_back_off_grows_to_the_whole_trace_and_no_further(start, step, limit):
    shares = growing(start, step, limit)
    assert shares == sorted(shares) and shares[0] == start and len(shares) <= limit and shares[-1] <= 1
    assert shares[-1] == pytest.approx(1) or len(shares) == limit


def test_several_continuations_by_hand():
    """After i wrong ones, a right one is 1 / (1 + i) as likely: hard problems stay hard."""
    missed = np.cumprod([1, 1 - 0.75, 1 - 0.75 / 2, 1 - 0.75 / 3, 1 - 0.75 / 4])
    some = EXPECTED.tries("adaptive-k")
    assert some.number == pytest.approx(missed[:4].sum()) and some.right == pytest.approx(1 - missed[4])
    assert some.share == pytest.approx(COSTS.prefix_share) and some.ends == pytest.approx(COSTS.prefix_share)
    assert EXPECTED.tries("own-k").number == 4
    assert EXPECTED.tries("own-k").right == pytest.approx(1 - 0.64 * (1.64 / 2) * (2.64 / 3) * (3.64 / 4))
    grown, free = EXPECTED.tries("adaptive-backoff"), EXPECTED.tries("backoff")
    assert COSTS.prefix_share < grown.ends < COSTS.prefix_share + 0.1, "longer prefixes only after a wrong one"
    assert free.ends < COSTS.prefix_share and free.number > grown.number
    binary, first, last = (EXPECTED.tries(f"success-{how}") for how in ("binary", "first", "last"))
    assert binary.number == POCKET.success_samples * COSTS.judge_calls
    assert first.ends < COSTS.prefix_share < 0.5 < last.ends, "the first success comes early, the last failure late"
    whole = Expected.of(POCKET.model_copy(update={"costs": COSTS.model_copy(update={"sentence_tokens": 140.0})}))
    assert whole.tries("success-first").number == whole.tries("success-last").number == POCKET.success_samples


@given(st.floats(0.01, 0.99), st.integers(1, 8), st.data())
def test_verdicts_by_success_are_those_of_problems_of_unlike_difficulty(chance, samples, data):
    from scipy.stats import betabinom

    needed = data.draw(st.integers(1, samples))
    drawn = betabinom(samples, chance, 1 - chance)
    assert enough(chance, samples, needed) == pytest.approx(drawn.sf(needed - 1), abs=1e-9)
    assert wrong(chance, samples) == pytest.approx(1 - enough(chance, samples, 1), abs=1e-9)


def test_a_better_student_needs_fewer_tries():
    worse = POCKET.model_copy(update={"costs": COSTS.model_copy(update={"retention": 0.4, "student_right": 0.1})})
    for strategy in ("adaptive-k", "adaptive-backoff", "backoff"):
        a, b = EXPECTED.tries(strategy), Expected.of(worse).tries(strategy)
        assert a.number < b.number and a.right > b.right


def test_what_continuations_cost_is_in_the_table():
    table, n = Estimates(EVERY).table(), 320
    own = table.loc["alignment/own-k"]
    assert own["tokens_generated"] == n * 4 * 21 and own["tokens_read"] == n * 4 * 45
    rewritten = table.loc["alignment/rewrite"]
    assert rewritten["tokens_read"] == n * (45 + 140), "its prompt holds the whole trace"
    tries = EXPECTED.tries("adaptive-k").number
    assert table.loc["alignment/adaptive-k", "tokens_generated"] == pytest.approx(n * 31 * tries, abs=1)
    for strategy in ("likely", "rsr"):
        chosen = table.loc[f"alignment/{strategy}"]
        assert chosen["tokens_generated"] == 0 and chosen["tokens_read"] > n * (45 + 140), "every candidate is read"
    assert table.loc["truncation/entropy-pruned", "tokens_read"] == n * (45 + 140)
    assert table.loc["truncation/tokens-50", "tokens_read"] == 0
    pilot = table.loc["truncation/calibrated"] - table.loc["truncation/adaptive"]
    assert pilot["tokens_generated"] == 40 * CONTINUED * 31
    judged = 25 + 140 + 140 / 5.1 * 29
    assert pilot["tokens_read"] == pytest.approx(40 * (judged + CONTINUED * (45 + 0.31 * 140)), abs=1)


def test_a_plan_of_all_arms_has_every_task():
    free = {"benchmarks", "overlap", "shortened", "report", "traces"}
    tasks = {task.name for task in Plan(EVERY).tasks() if task.stage not in free}
    assert tasks == set(Estimates(EVERY).table().index)
    assert {f"alignment/{strategy}" for strategy in ATTEMPTS} <= tasks
    assert Estimates(EVERY).warnings() == []
    for arm in (arm for arm in ARMS if ARMS[arm].target):
        rows = Estimates(EVERY).rows(arm)
        assert 0 < rows.left <= 1 and rows.tokens > 45, arm


def test_rows_of_arms_that_mix_targets_by_hand():
    def parts(arm):
        return [(part.rows, part.tokens) for part in EXPECTED.parts(arm)]

    pair = 0.31 * 140 + 31 + COSTS.marks_tokens
    assert parts("p-align-fallback") == [(0.75, pytest.approx(pair)), (0.25, 140)]
    assert parts("p-align-fallback-unmarked")[0] == (0.75, pytest.approx(pair - COSTS.marks_tokens))
    assert parts("rft-k") == [(pytest.approx(4 * 0.36), 21)] and parts("shortest-of-k")[0][0] < 1
    assert parts("mix-long") == [(0.36, 21), (0.09, 140)]
    assert parts("essence-50") == parts("prune-entropy") == [(1, 70)]
    assert not EXPECTED.parts("essence-50")[0].answers and EXPECTED.parts("prune-entropy")[0].answers
    hard = (pytest.approx(0.75 * (1 + 2 * wrong(0.36, 4))), pytest.approx(pair))
    assert parts("p-align-hard") == parts("p-align-hard-random") == [hard]
    assert parts("self-rewrite") == [(0.19, 21), (0.81, 140)]
    unknown = POCKET.model_copy(update={"costs": COSTS.model_copy(update={"rewrite_right": None})})
    assert [part.rows for part in Expected.of(unknown).parts("self-rewrite")] == [0.75, 0.25]
    one = Estimates(POCKET.model_copy(update={"equal_updates": False, "arms": ["rft-k"]})).table()
    assert one.loc["finetuning/rft-k", "tokens_trained"] == round(320 * 1.44) * 3 * 66


def test_the_plan_says_what_a_fallback_could_bring(capsys):
    """The share of whole traces decides whether such an arm is still one of prefixes."""
    line = "p-align-fallback: about 80 of 320 rows (25 %) would be whole traces"
    assert main(["plan", str(PROJECT / "params" / "pocket.yaml")]) == 0
    assert line in capsys.readouterr().out.splitlines()
    said = Estimates(EVERY).fallbacks()
    assert line in said and len(said) == sum(arm.fallback is not None for arm in ARMS.values())
    assert [text for text in said if re.match(r"rft-k-fallback: about 134 of 320 rows \(42 %\)", text)]
    assert Estimates(POCKET.model_copy(update={"arms": ["zero-shot", "rft"]})).fallbacks() == []


def test_whole_traces_beyond_the_context_are_said_once_for_all_that_read_them():
    short = EVERY.model_copy(update={"max_model_len": 400, "alignment_max_new_tokens": 230, "max_new_tokens": 300})
    said = Estimates(short.model_copy(update={"arms": ["prune-entropy", "select-rsr", "self-rewrite"]})).warnings()
    assert [text for text in said if text.startswith("about") and "(rewrite) cannot be continued" in text]
    tight = short.model_copy(update={"max_model_len": 200, "arms": ["prune-entropy", "select-rsr"]})
    (read,) = [text for text in Estimates(tight).warnings() if "too long to be read" in text]
    assert "(entropy-pruned, rsr)" in read
