"""Is the judge monotone? The measures hold what their definitions say, and the task runs, resumes and adds up."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import params, traces, truncation
from palign.analysis import costs, rollouts, sufficiency
from palign.analysis.sufficiency import (
    calibration_error,
    confidence,
    evenly_spread,
    landings,
    turns,
    violating_pairs,
)
from palign.engines.tokenizers import load_tokenizer
from palign.report import figures, prefix_figures
from palign.tasks.plan import Plan

verdicts = st.lists(st.booleans(), min_size=1, max_size=80)
fractions = st.floats(0, 1)


@given(verdicts)
def test_no_turn_no_violating_pair_and_monotone_are_the_same(enough):
    monotone = enough == sorted(enough)
    assert (turns(enough) == 0) == (violating_pairs(enough) == 0) == monotone


@given(verdicts)
def test_turns_and_pairs_by_their_definitions(enough):
    m = len(enough)
    assert turns(enough) == sum(enough[p] and not enough[p + 1] for p in range(m - 1))
    violating = sum(enough[p] and not enough[q] for p in range(m) for q in range(p + 1, m))
    assert violating_pairs(enough) == pytest.approx(violating / (m * (m - 1) / 2) if m > 1 else 0)


@given(verdicts)
def test_searches_land_together_on_a_monotone_judge_and_the_scan_on_the_first_enough_of_any(enough):
    m, ordered = len(enough), sorted(enough)
    assert len(set(landings(ordered).values())) == 1
    found = landings(enough)
    assert found["linear"] == (enough.index(True) + 1 if any(enough) else m)
    assert found["linear"] <= found["released"] or not any(enough[: found["released"]])


@given(st.integers(1, 400), st.integers(1, 12))
def test_cuts_are_different_inner_prefixes_evenly_spread(m, k):
    found = evenly_spread(m, k)
    assert found == sorted(set(found)) and all(1 <= p < m for p in found)
    if m > 2 * (k + 1):
        assert len(found) == k
        gaps = np.diff([0, *found, m])
        assert gaps.max() - gaps.min() <= 1


def test_confidence_is_the_share_of_the_two_labels_probabilities():
    enough, other = 0.06, 0.02
    assert confidence(math.log(enough) - math.log(other)) == pytest.approx(enough / (enough + other))
    assert confidence([-1e4, 0, 1e4]) == pytest.approx([0, 0.5, 1])


@given(st.lists(st.tuples(fractions, fractions), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_is_the_mean_gap_of_the_bins_weighted_by_count(cases, bins):
    stated, success = (np.array(column) for column in zip(*cases, strict=True))
    expected = 0.0
    for i in range(bins):
        held = [j for j, s in enumerate(stated) if min(int(s * bins), bins - 1) == i]
        if held:
            expected += len(held) / len(stated) * abs(stated[held].mean() - success[held].mean())
    assert calibration_error(stated, success, bins) == pytest.approx(expected)
    assert calibration_error(stated, stated, bins) == pytest.approx(0)
    assert calibration_error(stated, success, bins) <= np.abs(stated - success).mean() + 1e-9


def test_the_task_judges_every_prefix_continues_the_cuts_and_resumes(small, project):
    loaded = params.load(project / "params" / "small.yaml")
    traces.collect(loaded)
    records = sufficiency.measure(loaded)
    task = Plan(loaded).sufficiency
    judged = task.read("judged")
    assert len(judged) == loaded.judged_traces
    for record in judged:
        assert [p for p, *_ in record["verdicts"]] == list(range(1, record["of"] + 1))
        assert record["tokens_read"] <= 1.05 * (record["trace_tokens"] + 60)  # the question and the template
    assert len(records) == loaded.judged_traces * loaded.judged_cuts
    assert all(0 <= r["right"] <= r["samples"] == loaded.judged_samples for r in records)
    table = sufficiency.summary(judged, records)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"]) | table["low"].isna()).all()
    assert (table["n"] <= loaded.judged_traces).all()
    assert sufficiency.reliability(records)["prefixes"].sum() == len(records)

    # the search of the same traces, by its own verdicts, ends where replaying all verdicts says it does
    per_trace = sufficiency.per_trace(judged).set_index("id")
    prefixes = truncation.truncate(loaded, "adaptive")
    for record in prefixes:
        if record["id"] in per_trace.index:
            assert record["sentences"] == per_trace.loc[record["id"], "released"]
    tokenizer = load_tokenizer(loaded.model("student"))
    counted = costs.reads(prefixes, [len(tokenizer.tokenize(record["question"])) for record in prefixes])
    assert counted.loc["trace and question", "value"] <= 1.05
    assert counted.loc["tokens of instruction and labels, a verdict", "value"] <= 32
    for figure in (
        prefix_figures.monotone(sufficiency.by_share(judged, records), sufficiency.per_trace(judged)),
        prefix_figures.reliability(sufficiency.reliability(records)),
        prefix_figures.reads(counted),
    ):
        figures.plt.close(figure)

    # a kill after the first continuations: what is there stays, the rest is the same again
    path = task.folder.path / "continuations.jsonl"
    whole = path.read_bytes()
    task.folder.manifest_path.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    assert sufficiency.measure(loaded) == records
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_every_prefix_of_some_traces_makes_a_table_of_rollouts(small, project):
    """The file that `palign rollouts` reads: each prefix once, the empty one and the whole trace among them."""
    loaded = params.validate({**small, "judged_traces": 2, "judged_cuts": 0, "judged_samples": 2}, "test")
    collected = traces.collect(loaded)
    cuts = sufficiency.measure(loaded)
    judged = Plan(loaded).sufficiency.read("judged")
    assert [cut["sentences"] for cut in cuts] == [p for record in judged for p in range(record["of"] + 1)]
    assert all((cut["label"] is None) == (cut["sentences"] == 0) for cut in cuts)
    assert sufficiency.per_cut(cuts)["sentences"].min() == 1, "the empty prefix was never judged"
    assert not sufficiency.summary(judged, cuts).isna().all(axis=None)
    path = project / "own.csv"
    sufficiency.as_rollouts(judged, cuts, collected, "student").to_csv(path, index=False)
    table = rollouts.load(path)
    assert all(curve.complete and curve.right for curve in rollouts.curves(table))
    assert table["hits"].tolist() == [cut["right"] for cut in cuts]


def test_prefixes_that_were_not_continued_have_no_rollouts():
    judged = [{"id": "a", "status": "ok", "of": 3}, {"id": "b", "status": "judge error: gone", "of": 2}]
    cuts = [{"of": "a", "sentences": 2, "right": 1, "samples": 4}]
    problem = {"question": "?", "answer": "7"}
    collected = [traces.Trace(id=name, trace="One. Two. \\boxed{8}.", **problem) for name in "ab"]
    table = sufficiency.as_rollouts(judged, cuts, collected, "m")
    assert table["rollouts"].tolist() == [0, 0, 4, 0] and table["success"].dropna().tolist() == [0.25]
    assert not table["right"].any(), "the trace's own answer is wrong"


def test_a_study_may_leave_it_out(small, project):
    for values in ({"judged_traces": 0}, {"arms": ["zero-shot"]}):
        loaded = params.validate({**small, **values}, "test")
        assert Plan(loaded).sufficiency is None and sufficiency.measure(loaded) == []
    assert sufficiency.summary([], []).empty and sufficiency.per_trace([]).empty
    assert sufficiency.by_share([], []).empty and sufficiency.reliability([]).empty
    for figure in (
        prefix_figures.monotone(sufficiency.by_share([], []), None),
        prefix_figures.reliability(sufficiency.reliability([])),
    ):
        figures.plt.close(figure)


def test_a_trace_without_a_prefix_does_not_count():
    """A judge error has no verdicts on every prefix; its trace would look short and monotone."""
    failed = {"id": "a", "status": "judge error: prompt too long", "verdicts": [(1, "error", None)]}
    failed |= {"oracle_sentences": None}
    assert sufficiency.per_trace([failed]).empty and sufficiency.per_prefix([failed]).empty
    assert sufficiency.summary([failed], []).empty
