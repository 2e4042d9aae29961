"""Prefixes without a search: their laws, and what happens when a reading fails."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import traces, truncation
from palign.arms import PAPER_ARMS
from palign.engines.base import Engine, EngineStopped, PlainReader
from palign.engines.opening import open_engine
from palign.params import Machine, Model, Params, validate
from palign.problems import DataError
from palign.strategies import BLOCK, THIRDS, InfoGain, OneReading, cut_by_gain, cutter, fixed, oracle, segment
from palign.tasks.plan import Plan
from palign.traces import RULES, Trace
from tests.conftest import POCKET, read_jsonl

lengths = st.integers(min_value=1, max_value=400)
RATIOS = (10, 30, 50, 70, 90)


@given(lengths)
def test_fixed_ratios_are_nested_and_hold_what_they_say(m):
    ends = [fixed(m, percent).end for percent in RATIOS]
    assert ends == sorted(ends) and all(fixed(m, percent).start == 0 for percent in RATIOS)
    for percent, end in zip(RATIOS, ends, strict=True):
        assert end == max(1, math.ceil(m * percent / 100)) <= m


@given(lengths)
def test_segments_partition_the_trace(m):
    """Together the three arms are trained on the whole trace, once."""
    cuts = [segment(m, part) for part in THIRDS]
    covered = [i for cut in cuts if not cut.error for i in range(cut.start, cut.end)]
    assert covered == list(range(m))
    assert all((cut.error is None) == (cut.end > cut.start) for cut in cuts)
    if m >= 3:
        sizes = [cut.end - cut.start for cut in cuts]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0.01, 1))
def test_the_cut_by_gain_is_the_shortest_prefix_with_its_share(gains, share):
    end, positive = cut_by_gain(gains, share)
    assert positive == (max(gains) > 0)
    if positive:
        assert gains[end - 1] >= share * max(gains)
        assert all(gain < share * max(gains) for gain in gains[: end - 1])
    else:
        assert end == len(gains)


class Words:
    """A tokenizer of words and single signs, and a chat template that adds nothing."""

    chat_template = "plain"

    def __call__(self, text, add_special_tokens=False):
        return SimpleNamespace(input_ids=[t.split() for t in text] if isinstance(text, list) else text.split())

    def apply_chat_template(self, messages, **kwargs):
        return messages[0]["content"] + "\nReply: "


class Fake(Engine):
    """An engine whose log-probabilities come from a function of prompt and label."""

    def __init__(self, logprob, max_model_len=1024):
        self.source = Model(name="fake", max_model_len=max_model_len)
        self.tokenizer, self.logprob, self.asked = Words(), logprob, 0

    def choose(self, prompts, labels):
        self.asked += 1
        return [[self.logprob(prompt, label) for label in labels] for prompt in prompts]

    def reader(self, texts):
        return PlainReader(self)


PLAIN = RULES["released"]


def reading(strategy, engine, share=0.9):
    """What ``strategy`` reads with, by prompts that add nothing."""
    if strategy == "infogain":
        return InfoGain(engine, PLAIN, "{question} Draft: {prefix}", "{question}", share)
    return OneReading(engine, Params().boundary_prompt)


def trace_of(m: int) -> Trace:
    return Trace("t", "q?", "7", " ".join(f"w{i}." for i in range(m)))


@given(st.lists(st.floats(-8, 0), min_size=2, max_size=3 * BLOCK), st.sampled_from([0.5, 0.9, 1.0]))
def test_information_gain_against_its_definition(logprobs, share):
    """Recomputed from each prompt's own words: the text before the box, with the prefix and without."""
    m = len(logprobs) - 1

    def logprob(prompt, label):
        assert label == "7" and prompt.endswith("\\boxed{") and prompt.startswith("q?")
        return logprobs[sum(word.startswith("w") for word in prompt.split())]

    trace = trace_of(m)
    cut = reading("infogain", Fake(logprob), share)(trace, traces.split(trace.trace))
    gains = [math.exp(x) - math.exp(logprobs[0]) for x in logprobs[1:]]
    if max(gains) > 0:
        assert cut.end == min(p for p in range(1, m + 1) if gains[p - 1] >= share * max(gains)) and cut.sufficient
        assert next(p for p, label, _ in cut.probes if label == "ENOUGH") == cut.end
    else:
        assert (cut.end, cut.sufficient) == (m, False)
    assert [gain for *_, gain in cut.probes] == [pytest.approx(gain, abs=1e-6) for gain in gains]


def test_information_gain_goes_as_far_as_the_context_reaches():
    seen = []
    engine = Fake(lambda prompt, label: seen.append(len(prompt.split())) or -1.0 / len(prompt), max_model_len=15)
    trace = trace_of(50)
    cut = reading("infogain", engine)(trace, traces.split(trace.trace))
    assert max(seen) + 1 == 15 and 1 <= cut.end <= cut.room == max(p for p, *_ in cut.probes) < 50


@given(st.lists(st.floats(-9, 0), min_size=1, max_size=30))
def test_one_reading_takes_the_most_probable_number_and_reads_once(logprobs):
    trace = trace_of(len(logprobs))
    engine = Fake(lambda prompt, label: logprobs[int(label[1:-1]) - 1])
    cut = reading("one-reading", engine)(trace, traces.split(trace.trace))
    assert logprobs[cut.end - 1] == max(logprobs) and cut.end == logprobs.index(max(logprobs)) + 1
    assert engine.asked == 1


def test_the_trace_is_read_with_its_sentences_numbered():
    prompts = []
    engine = Fake(lambda prompt, label: prompts.append(prompt) or 0.0)
    trace = trace_of(3)
    reading("one-reading", engine)(trace, traces.split(trace.trace))
    assert "[1] w0. [2] w1. [3] w2." in prompts[0]


@pytest.mark.parametrize("strategy", ["infogain", "one-reading"])
@pytest.mark.parametrize("failure", [float("nan"), RuntimeError("out of\nmemory")])
def test_a_reading_that_fails_is_an_error_and_no_prefix(strategy, failure):
    """An error taken for an answer would silently train on prefixes that no rule chose."""

    def logprob(prompt, label):
        if isinstance(failure, Exception):
            raise failure
        return failure

    trace = trace_of(4)
    cut = cutter(strategy, PLAIN, reading(strategy, Fake(logprob)))(trace, traces.split(trace.trace))
    assert cut.error and "\n" not in cut.error and cut.end == 0
    record = truncation.of_cut(trace, traces.split(trace.trace), cut, PLAIN, len)
    assert record.status == cut.error and record.prefix == ""


@pytest.mark.parametrize("strategy", ["infogain", "one-reading"])
def test_an_engine_that_is_gone_stops_the_run(strategy):
    """It used to become the error of one trace after another, until all had failed."""

    def logprob(prompt, label):
        raise EngineStopped("the service refuses the key")

    trace = trace_of(4)
    with pytest.raises(EngineStopped):
        cutter(strategy, PLAIN, reading(strategy, Fake(logprob)))(trace, traces.split(trace.trace))


def test_a_prompt_that_does_not_fit_is_told():
    for strategy in ("infogain", "one-reading"):
        read = reading(strategy, Fake(lambda prompt, label: 0.0, max_model_len=3))
        cut = cutter(strategy, PLAIN, read)(trace_of(4), ["w0.", "w1.", "w2.", "w3."])
        assert cut.error == "prompt too long"


def test_the_oracle_needs_data_that_know_it():
    with pytest.raises(DataError, match="trace t has no sufficient_chars"):
        oracle(trace_of(3), PLAIN)
    assert oracle(Trace("t", "q?", "7", "A. B. C.", sufficient_chars=5), PLAIN).end == 2


def test_the_cached_reader_gives_what_reading_anew_gives(monkeypatch):
    """All prefixes of a trace in one pass: a mask that let one see another would move the cut."""
    params = Params(student=str(POCKET / "student"))
    engine = open_engine(params.model("student"), params.part(Machine))
    prompts = params.continue_prompt, params.answer_prompt, params.infogain_share
    row = read_jsonl(POCKET / "data" / "train.jsonl")[0]
    trace = Trace("t", row["question"], row["answer"], row["trace"])
    sentences = traces.split(trace.trace)
    for read in (InfoGain(engine, PLAIN, *prompts), OneReading(engine, params.boundary_prompt)):
        cached = read(trace, sentences)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "reader", lambda texts: PlainReader(engine), raising=False)
            anew = read(trace, sentences)
        assert cached.end == anew.end
        assert [v for *_, v in cached.probes] == pytest.approx([v for *_, v in anew.probes], abs=1e-3)
        assert cached.tokens_read + cached.tokens_demanded < anew.tokens_of_prompts or isinstance(read, OneReading)


def test_every_strategy_gives_records_of_one_kind(small, project):
    """Alignment, supervision and report read them without knowing how a prefix was found."""
    params = validate({**small, "arms": list(PAPER_ARMS), "judge": "student"}, "test")
    collected = traces.collect(params)
    truncation.truncate_all(params)
    found = {s: truncation.truncate(params, s) for s in Plan(params).strategies if s != "empty"}
    names = set(found["adaptive"][0])
    for records in found.values():
        assert [record["id"] for record in records] == [trace.id for trace in collected]
        for record, trace in zip(records, collected, strict=True):
            assert set(record) == names and record["status"] == "ok"
            assert record["prefix"] and record["prefix"] in traces.join(traces.split(trace.trace))
            assert 1 <= record["sentences"] <= record["of"]
    assert found["judge"] == found["adaptive"]  # the same model judges
    for record in found["linear"]:
        first = next((p for p, label, _ in record["verdicts"] if label == "ENOUGH"), record["of"])
        assert record["sentences"] == first
    for record in found["oracle"]:
        assert record["sentences"] == record["oracle_sentences"]


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="all-of-it: no such strategy"):
        cutter("all-of-it", PLAIN)
