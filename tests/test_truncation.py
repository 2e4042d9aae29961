"""The searches follow their definitions, for any judge."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.judging import Verdict
from palign.tasks.store import RunFolder
from palign.traces import RULES, Trace
from palign.truncation import (
    PATIENCE,
    SCAN_BLOCK,
    JudgeFailed,
    equation7,
    every,
    judged,
    linear,
    lockstep,
    portions,
    released,
    search,
    searched,
)

lengths = st.integers(min_value=1, max_value=400)


def probes(strategy, judge):
    """The prefix lengths a search asks for, and its result."""
    asked = []
    result = search(strategy, lambda p: asked.append(p) or judge(p))
    return asked, result


def test_figure_9():
    """The paper's worked case: 48 sentences, boundary 12."""
    answers = {24: True, 12: True, 6: False, 9: False, 10: False, 11: False}
    asked, result = probes(released(48), answers.__getitem__)
    assert asked == [24, 12, 6, 9, 10, 11]
    assert (result.sentences, result.sufficient) == (12, True)
    asked, result = probes(equation7(48), answers.__getitem__)
    assert asked == [24, 12, 6, 9, 11]
    assert result.sentences == 12


@given(m=lengths, data=st.data())
def test_on_a_monotone_judge_all_find_the_boundary(m, data):
    boundary = data.draw(st.integers(1, m))
    for strategy in (released, equation7, linear, every):
        assert search(strategy(m), lambda p: p >= boundary).sentences == boundary


@given(m=lengths)
def test_a_judge_that_is_never_satisfied_gives_the_whole_trace_marked_insufficient(m):
    for strategy in (released, equation7, linear, every):
        result = search(strategy(m), lambda p: False)
        assert (result.sentences, result.sufficient) == (m, False)


@given(m=lengths, seed=st.randoms(use_true_random=False))
def test_released_form_asks_at_most_log2_and_returns_a_length_it_saw_enough(m, seed):
    verdicts = {p: seed.random() < 0.5 for p in range(1, m + 1)}
    asked, result = probes(released(m), verdicts.__getitem__)
    assert len(asked) == len(set(asked)) <= math.floor(math.log2(m)) + 1
    enough = [p for p in asked if verdicts[p]]
    # every ENOUGH moves the search below it, so the last one remembered is the smallest one asked
    assert result.sentences == (min(enough) if enough else m)
    assert result.sufficient == bool(enough)


@given(m=lengths, seed=st.randoms(use_true_random=False))
def test_equation_7_as_written(m, seed):
    verdicts = {p: seed.random() < 0.5 for p in range(1, m + 1)}
    low, high, expected = 1, m, []
    while low != high:
        p = (low + high) // 2
        expected.append(p)
        low, high = (low, p) if verdicts[p] else (p + 1, high)
    asked, result = probes(equation7(m), verdicts.__getitem__)
    assert asked == expected and result.sentences == low
    assert m not in asked or m == 1


@given(m=lengths, seed=st.randoms(use_true_random=False))
def test_the_scan_finds_the_first_enough_of_any_judge_and_asks_no_further(m, seed):
    verdicts = {p: seed.random() < 0.1 for p in range(1, m + 1)}
    asked, result = probes(linear(m), verdicts.__getitem__)
    first = next((p for p in range(1, m + 1) if verdicts[p]), None)
    assert (result.sentences, result.sufficient) == (first or m, first is not None)
    assert asked == list(range(1, result.sentences + 1))
    assert search(every(m), verdicts.__getitem__) == result


class scripted:
    """A judge that knows each question's boundary in words, and can fail on one question."""

    def __init__(self, boundaries: dict[str, int], fail: str | None = None, room: int | None = None):
        self.boundaries, self.fail, self.limit = boundaries, fail, room

    def __call__(self, drafts):
        self.drafts = drafts
        self.room = [len(parts) if self.limit is None else min(self.limit, len(parts)) for _, parts in drafts]
        return self.judge

    @property
    def judge(self):
        def judge(asked):
            return [
                Verdict("error", reason="out of memory")
                if self.drafts[i][0] == self.fail
                else Verdict("ENOUGH" if p >= self.boundaries[self.drafts[i][0]] else "NOT_ENOUGH", 1)
                for i, p in asked
            ]

        judge.room = self.room
        return judge


def make_traces(sizes: dict[str, int]) -> list[Trace]:
    return [Trace(q, q, "1", " ".join(f"w{i}." for i in range(n))) for q, n in sizes.items()]


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(lengths, lengths), min_size=1, max_size=6),
    st.sampled_from([released, equation7, linear, every]),
)
def test_lockstep_gives_what_each_search_gives_alone(cases, strategy):
    sizes = {q: m for q, (m, _) in cases.items()}
    boundaries = {q: min(b, m) for q, (m, b) in cases.items()}
    records = lockstep(make_traces(sizes), strategy, scripted(boundaries), len)
    assert {r.id: r.sentences for r in records} == boundaries


@given(m=lengths, boundary=lengths, ahead=st.integers(1, 12))
def test_looking_ahead_costs_tokens_and_is_no_part_of_the_record(m, boundary, ahead):
    """Table 5 counts verdicts up to the first ENOUGH: whole blocks were counted, 12.95 where it is 8.9."""
    boundary = min(boundary, m)
    (record,) = lockstep(make_traces({"a": m}), linear, scripted({"a": boundary}), len, ahead=ahead)
    expected = [(p, "ENOUGH" if p == boundary else "NOT_ENOUGH", None) for p in range(1, boundary + 1)]
    assert record.verdicts == expected and record.sentences == boundary
    assert record.tokens_read == min(m, -(-boundary // ahead) * ahead), "one token a verdict, whole blocks of them"


class behind(scripted):
    """A judge that fails on every prefix longer than the boundary."""

    @property
    def judge(self):
        judge = super().judge
        limits = {i: self.boundaries[question] for i, (question, _) in enumerate(self.drafts)}

        def failing(asked):
            failed = Verdict("error", reason="out of memory")
            return [failed if p > limits[i] else v for (i, p), v in zip(asked, judge(asked), strict=True)]

        failing.room = self.room
        return failing


def test_a_failure_behind_the_first_enough_is_nobodys():
    """It used to lose the trace, although the scan had found its prefix."""
    (record,) = lockstep(make_traces({"a": 50}), linear, behind({"a": 3}), len, ahead=SCAN_BLOCK)
    assert (record.status, record.sentences, len(record.verdicts)) == ("ok", 3, 3)


def test_an_error_is_never_a_verdict():
    """Counted as NOT_ENOUGH, errors would silently turn P-ALIGN into training on whole traces."""
    records = lockstep(make_traces({"a": 8, "b": 8}), released, scripted({"a": 3, "b": 3}, fail="b"), len)
    found = {record.id: record for record in records}
    assert found["a"].status == "ok" and found["a"].sentences == 3
    assert found["b"].status == "judge error: out of memory" and found["b"].prefix == ""


def test_a_trace_longer_than_the_context_is_searched_as_far_as_that_reaches():
    """Otherwise its first probe is an over-long prompt, and the trace is lost."""
    for strategy in (released, linear):
        (record,) = lockstep(make_traces({"a": 50}), strategy, scripted({"a": 12}, room=20), len)
        assert (record.sentences, record.room, record.of, record.sufficient) == (12, 20, 50, True)
        (record,) = lockstep(make_traces({"a": 50}), strategy, scripted({"a": 30}, room=20), len)
        assert (record.sentences, record.sufficient) == (20, False)
        assert max(p for p, *_ in record.verdicts) <= 20
    (record,) = lockstep(make_traces({"a": 50}), released, scripted({"a": 1}, room=0), len)
    assert record.status == "judge error: prompt too long" and record.prefix == ""


def test_a_trace_of_one_sentence_is_judged_once():
    (record,) = lockstep(make_traces({"a": 1}), released, scripted({"a": 1}), len)
    assert (record.sentences, record.of, len(record.verdicts), record.sufficient) == (1, 1, 1, True)


@pytest.mark.parametrize(
    "limit, most, expected",
    [
        (0, None, [[3, 9, 2, 4, 4, 1]]),
        (9, None, [[3], [9], [2, 4], [4, 1]]),
        (5, None, [[3], [9], [2], [4], [4, 1]]),
        (0, 4, [[3, 9, 2, 4], [4, 1]]),
        (12, 2, [[3, 9], [2, 4], [4, 1]]),
    ],
)
def test_portions_fit_the_prefix_cache_and_lose_nothing(limit, most, expected):
    """250 traces at once push each other's blocks out of the cache, and every round reads everything again."""
    batch = [Trace(str(size), "", "", "x" * size) for size in (3, 9, 2, 4, 4, 1)]
    found = list(portions(batch, limit, lambda trace: len(trace.trace), most))
    assert [[len(trace.trace) for trace in portion] for portion in found] == expected


class Cramped(scripted):
    """A judge whose memory holds so many traces, each with a verdict or more; it counts what it is asked."""

    def __init__(self, boundaries, holds, too_large=None):
        super().__init__(boundaries)
        self.holds, self.too_large, self.asked = holds, too_large, []

    @property
    def judge(self):
        judge, drafts = super().judge, self.drafts

        def cramped(asked):
            if len({i for i, _ in asked}) > self.holds or any(drafts[i][0] == self.too_large for i, _ in asked):
                raise MemoryError("no memory left")
            self.asked += [(drafts[i][0], p) for i, p in asked]
            return judge(asked)

        cramped.room = self.room
        return cramped


short = st.integers(1, 40)


@settings(max_examples=40)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(short, short), min_size=1, max_size=9),
    st.sampled_from([released, linear, every]),
    st.integers(1, 4),
    st.booleans(),
)
def test_out_of_memory_halves_the_traces_and_asks_nothing_twice(cases, strategy, holds, one_too_large):
    """Every trace used to err: all were asked again, in a way that needs more memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palign.truncation.release", lambda: None)  # seconds of garbage collection
        halved(cases, strategy, holds, one_too_large)


def halved(cases, strategy, holds, one_too_large):
    sizes = {q: m for q, (m, _) in cases.items()}
    boundaries = {q: min(b, m) for q, (m, b) in cases.items()}
    too_large = next(iter(sizes)) if one_too_large else None
    judge = Cramped(boundaries, holds, too_large)
    records = {record.id: record for record in lockstep(make_traces(sizes), strategy, judge, len)}
    alone = {record.id: record for record in lockstep(make_traces(sizes), strategy, scripted(boundaries), len)}
    assert records.keys() == alone.keys() and len(judge.asked) == len(set(judge.asked))
    for q, record in records.items():
        if q == too_large:
            assert record.status == "judge error: engine error: MemoryError: no memory left" and not record.prefix
        else:
            assert record == alone[q]


def test_out_of_memory_says_in_one_line_how_many_traces_go_on(capsys):
    list(lockstep(make_traces(dict.fromkeys("abcd", 5)), released, Cramped(dict.fromkeys("abcd", 2), 2), len))
    assert capsys.readouterr().err == "out of memory while judging 4 traces at once; going on with 2\n"


def test_another_error_of_the_judge_is_not_taken_for_want_of_memory():
    def judge(drafts):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(lockstep(make_traces({"a": 5, "b": 5}), released, judge, len))


def test_long_traces_are_judged_together_and_records_come_as_searches_end():
    """In the order of the data, a batch is padded to its longest trace; a kill lost what the batch had found."""
    opened = []

    class judge:
        engine, rule = SimpleNamespace(cache_tokens=28), RULES["released"]

        @staticmethod
        def open(drafts):
            opened.append([len(parts) for _, parts in drafts])
            return scripted({q: 1 for q, _ in drafts})(drafts)

    traces = make_traces({"a": 2, "b": 9, "c": 3, "d": 8, "e": 1})
    found = searched(traces, released, judge, lambda text: len(text.split()), most=3)
    assert next(found).id in "bd"
    assert [record.id for record in found][-2:] == ["a", "e"] and opened == [[9], [8, 3], [2, 1]]


class Gone:
    """A judge's work on a batch that fails for the traces named."""

    def __init__(self, failing):
        self.failing, self.asked = set(failing), 0

    def __call__(self, batch):
        for trace in batch:
            self.asked += 1
            yield {"id": trace.id, "status": "judge error: gone" if trace.id in self.failing else "ok"}


def some(n):
    return [Trace(str(i), "q", "a", "One. Two.") for i in range(n)]


def test_a_judge_that_fails_too_often_stops_the_run_in_one_line(tmp_path):
    """With error verdicts on most traces, the run used to go on with the few remaining traces."""
    folder, items = RunFolder(tmp_path / "task"), some(10)
    half = judged(folder, "half", items, Gone("01234"), "truncation")
    assert [record["status"] == "ok" for record in half] == [False] * 5 + [True] * 5
    with pytest.raises(JudgeFailed, match="truncation: 6 of 10 traces failed to be judged, one by judge error: gone"):
        judged(folder, "more", items, Gone("012345"), "truncation")
    mended = Gone("")
    records = judged(folder, "more", items, mended, "truncation")
    assert mended.asked == 6 and [record["id"] for record in records] == [t.id for t in items]


def test_records_are_stored_as_they_come_and_the_file_ends_in_the_datas_order(tmp_path):
    folder, items, done = RunFolder(tmp_path / "task"), some(6), {"id": "5", "status": "ok"}

    def killed(batch):
        yield done
        yield {"id": "4", "status": "judge error: gone"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(folder, "a", items, killed, "truncation")
    assert folder.read("a")[0] == done
    records = judged(folder, "a", items, lambda batch: Gone("")(batch[::-1]), "truncation")
    assert [record["id"] for record in records] == [record["id"] for record in folder.read("a")] == list("012345")


def test_of_many_traces_a_judge_that_is_gone_is_not_asked_to_the_end(tmp_path):
    folder, items = RunFolder(tmp_path / "task"), some(500)
    gone = Gone(map(str, range(100, 500)))
    with pytest.raises(JudgeFailed, match=f"{PATIENCE} traces one after another"):
        judged(folder, "a", items, gone, "truncation")
    assert gone.asked < 100 + PATIENCE + 10
    assert all(record["status"] == "ok" for record in folder.read("a"))
    assert len(judged(folder, "a", items, Gone(""), "truncation")) == 500
