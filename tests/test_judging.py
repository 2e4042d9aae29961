"""Verdicts on nested prefixes: the cache gives what reading from the start gives, and a failure is not a verdict."""

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.engines.base import Engine, EngineStopped, PlainReader, Sampling
from palign.engines.cached import CachedReader
from palign.engines.opening import open_engine
from palign.judging import Judge
from palign.params import Machine, Model, Params
from palign.prompts import LABELS
from palign.traces import RULES, split
from palign.truncation import SEARCHES, lockstep, search
from tests.conftest import POCKET, read_jsonl
from tests.test_truncation import make_traces

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def engine():
    return open_engine(Model(name=str(POCKET / "student")), Machine(batch_size=8))


def judge_of(engine, verdict="compare"):
    return Judge(engine, Params().judge_prompt, RULES["released"], verdict)


DRAFTS = [(r["question"], split(r["trace"])) for r in read_jsonl(POCKET / "data" / "train.jsonl")[:6]]

drafts = st.lists(st.sampled_from(DRAFTS), min_size=1, max_size=4, unique_by=lambda draft: draft[0])


def rounds(data, chosen, most=3):
    """Rounds of (trace, sentences), each trace asked once or several times until it drops out for good."""
    alive, found = list(range(len(chosen))), []
    for _ in range(data.draw(st.integers(1, 4))):
        asked = []
        for i in alive:
            lengths = data.draw(st.lists(st.integers(1, len(chosen[i][1])), min_size=1, max_size=most))
            asked += [(i, p) for p in lengths]
        found.append(asked)
        alive = [i for i in alive if data.draw(st.booleans())] or alive
    return found


@settings(max_examples=25, deadline=None)
@given(drafts, st.data())
def test_cached_verdicts_are_those_of_reading_from_scratch(engine, chosen, data):
    """Questions in any order: longer, shorter, the same again, several at once, fewer traces."""
    judge = judge_of(engine)
    session = judge.open(chosen)
    assert isinstance(session.reader, CachedReader)
    read = 0
    for asked in rounds(data, chosen):
        prompts = [(i, judge.prompt(chosen[i][0], chosen[i][1][:p])) for i, p in asked]
        readings = session.reader.choose(prompts, LABELS)
        for reading, direct in zip(readings, engine.choose([prompt for _, prompt in prompts], LABELS), strict=True):
            assert reading.value == pytest.approx(direct, abs=1e-4)
            assert reading.own_tokens <= 32
        read += sum(reading.shared_tokens for reading in readings)
    assert read <= sum(map(len, session.reader.texts))


@settings(max_examples=15, deadline=None)
@given(drafts, st.data())
def test_cached_decoding_is_greedy_decoding(engine, chosen, data):
    judge = judge_of(engine)
    session = judge.open(chosen)
    for asked in rounds(data, chosen, most=2):
        prompts = [(i, judge.prompt(chosen[i][0], chosen[i][1][:p])) for i, p in asked]
        direct = engine.generate([prompt for _, prompt in prompts], Sampling(8), [0] * len(prompts))
        assert [reading.value for reading in session.reader.generate(prompts, 8)] == direct


@pytest.mark.parametrize("search_name", SEARCHES)
@pytest.mark.parametrize("verdict", ["compare", "decode"])
def test_a_search_takes_the_same_way_with_and_without_the_cache(engine, monkeypatch, search_name, verdict):
    traces = make_traces({question: 1 for question, _ in DRAFTS})
    traces = [
        type(t)(t.id, t.question, t.answer, " ".join(parts)) for t, (_, parts) in zip(traces, DRAFTS, strict=True)
    ]

    def run():
        return [
            (r.id, r.sentences, [(p, label) for p, label, _ in r.verdicts], r.tokens_of_prompts)
            for r in lockstep(traces, SEARCHES[search_name], judge_of(engine, verdict).open, len)
        ]

    cached = run()
    monkeypatch.setattr(engine, "reader", lambda texts: PlainReader(engine))
    assert run() == cached


def test_a_text_longer_than_one_pass_is_read_in_several(engine, monkeypatch):
    monkeypatch.setattr(CachedReader, "TOKENS", 7)
    monkeypatch.setattr(CachedReader, "AREA", 300)
    test_a_search_takes_the_same_way_with_and_without_the_cache(engine, monkeypatch, "linear", "compare")


def test_the_range_shrinks_to_what_the_context_holds(engine):
    question, sentences = DRAFTS[0]
    whole, short = judge_of(engine), copy.copy(engine)
    tokens = [engine.count(whole.prompt(question, sentences[:p])) for p in range(len(sentences) + 1)]
    for limit in (tokens[0] + 1, tokens[1] + 2, tokens[5] + 2, tokens[-1] + 1, tokens[-1] + 2):
        short.source = engine.source.model_copy(update={"max_model_len": limit})
        room = judge_of(short).open([DRAFTS[0]]).room
        assert room == [max((p for p in range(1, len(tokens)) if tokens[p] + 2 <= limit), default=0)]


class Flaky(Engine):
    """An engine that fails so many times, then works."""

    def __init__(self, engine, times):
        self.engine, self.times, self.source, self.tokenizer = engine, times, engine.source, engine.tokenizer

    def choose(self, prompts, labels):
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("no answer")
        return self.engine.choose(prompts, labels)

    def reader(self, texts):
        return PlainReader(self)


def test_a_failure_is_asked_again_and_then_recorded(engine):
    """Counted as NOT_ENOUGH, errors would silently turn P-ALIGN into training on whole traces."""
    expected = judge_of(engine).open(DRAFTS[:2])([(0, 3), (1, 3)])
    once = judge_of(Flaky(engine, 1)).open(DRAFTS[:2])([(0, 3), (1, 3)])
    assert [v.label for v in once] == [v.label for v in expected]
    session = judge_of(Flaky(engine, 2)).open(DRAFTS[:2])
    twice = session([(0, 3), (1, 3)])
    assert {v.label for v in twice} == {"error"} and "no answer" in twice[0].reason
    assert [v.label for v in session([(0, 3), (1, 3)])] == [v.label for v in expected]


def test_an_engine_that_is_gone_is_no_traces_outcome(engine):
    """Every later trace would have been recorded as failed for good; stopping loses nothing."""

    class Gone(Engine):
        source, tokenizer = engine.source, engine.tokenizer

        def reader(self, texts):
            return self

        def choose(self, asked, labels):
            raise EngineStopped("gone")

    with pytest.raises(EngineStopped):
        judge_of(Gone()).open([("1+1?", ["One and one.", "Two."])])([(0, 1)])


def test_a_trace_is_read_once_whatever_the_judge_says(engine):
    """The limit: each trace once and 32 tokens a verdict, for every search and every boundary."""
    judge = judge_of(engine)
    for name in SEARCHES:
        for boundary in random.Random(name).sample(range(1, len(DRAFTS[0][1])), 3):
            session, spent, probes = judge.open(DRAFTS[:1]), [], []

            def scripted(p, boundary=boundary, session=session, spent=spent, probes=probes):
                spent.extend(session([(0, p)]))
                probes.append(p)
                return p >= boundary

            search(SEARCHES[name](len(DRAFTS[0][1])), scripted)
            assert sum(v.trace_tokens for v in spent) <= len(session.reader.texts[0])
            assert sum(v.demand_tokens for v in spent) <= 32 * len(probes)
