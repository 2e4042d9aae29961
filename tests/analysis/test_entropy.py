"""Entropy along a trace is the model's own, token by token, and each token counts in one chunk."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palign import params, traces
from palign.analysis import entropy
from palign.engines.opening import open_engine
from palign.engines.transformers import TransformersEngine
from palign.params import Machine, Model
from palign.report import figures, prefix_figures
from palign.tasks.plan import Plan
from tests.conftest import POCKET

pytestmark = pytest.mark.model


@given(st.integers(10, 500), st.integers(1, 10))
def test_chunks_partition_the_tokens(n, k):
    edges = entropy.bounds(n, k)
    assert edges[0] == 0 and edges[-1] == n and len(edges) == k + 1
    sizes = np.diff(edges)
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


@given(st.lists(st.floats(0, 10), min_size=10, max_size=200))
def test_chunk_means_weighted_by_size_are_the_mean(values):
    sizes = np.diff(entropy.bounds(len(values)))
    assert np.dot(entropy.chunk_means(values), sizes) / len(values) == pytest.approx(np.mean(values), abs=1e-9)


def test_fewer_tokens_than_chunks_have_none():
    with pytest.raises(ValueError, match="9 tokens"):
        entropy.chunk_means([0.0] * 9)
    assert entropy._record(5, [0.0] * 9)["status"] == "too short"
    assert entropy._record(5, None)["status"] == "too long"


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return open_engine(Model(name=str(POCKET / "student")), Machine(batch_size=3))


TEXTS = ["Now four. First pewter gives zero.", "Okay, the dial starts at four. Let me see. " * 3, "Wait."]
PROMPTS = ["The dial starts at four.", "First pewter.", "Where does it end?"]


def test_it_equals_a_direct_computation(engine, monkeypatch):
    """The whole text at once, without a cache; blocks of seven tokens give the same."""
    monkeypatch.setattr(TransformersEngine, "LOGITS", 7 * engine.model.config.vocab_size)
    found = engine.entropies(PROMPTS, TEXTS)
    for prompt, text, values in zip(PROMPTS, TEXTS, found, strict=True):
        head, tail = (engine.tokenizer(t, add_special_tokens=False).input_ids for t in (prompt, text))
        with torch.no_grad():
            logits = engine.model(torch.tensor([head + tail])).logits[0].double()
        p = logits.softmax(-1)[len(head) - 1 : -1]
        assert values == pytest.approx((-(p * p.log()).sum(-1)).tolist(), abs=1e-4)
        assert len(values) == len(tail)


def test_a_uniform_model_has_the_logarithm_of_its_vocabulary():
    engine = open_engine(Model(name=str(POCKET / "student")), Machine(batch_size=2))
    with torch.no_grad():
        engine.model.get_output_embeddings().weight.zero_()
    vocabulary = engine.model.get_output_embeddings().weight.shape[0]
    for values in engine.entropies(PROMPTS, TEXTS):
        assert values == pytest.approx([math.log(vocabulary)] * len(values), abs=1e-4)


def test_what_does_not_fit_is_left_out_and_its_neighbours_are_not(engine):
    source = engine.source.model_copy(update={"max_model_len": 20})
    short = TransformersEngine(source, engine.model, engine.tokenizer, 3)
    assert [values is None for values in short.entropies(PROMPTS, TEXTS)] == [False, True, False]


def test_the_task_runs_resumes_and_makes_its_table(small, project):
    loaded = params.validate({**small, "entropy_traces": 6}, "test")
    traces.collect(loaded)
    records = entropy.measure(loaded)
    assert len(records) == 6 and all(r["status"] == "ok" and len(r["chunks"]) == 10 for r in records)
    table = entropy.by_chunk(records)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all() and (table["n"] == 6).all()
    assert table.loc["last less first", "value"] == pytest.approx(table.loc["10", "value"] - table.loc["1", "value"])
    figures.plt.close(prefix_figures.entropy(table))

    task = Plan(loaded).entropy
    path = task.folder.path / "entropies.jsonl"
    whole = path.read_bytes()
    task.folder.manifest_path.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    assert entropy.measure(loaded) == records  # whatever batch a trace is in


def test_more_traces_are_added_to_those_there_are(small, project):
    """A larger sample used to begin anew, under another key."""
    few, more = (params.validate({**small, "entropy_traces": n}, "test") for n in (4, 6))
    traces.collect(few)
    first = entropy.measure(few)
    assert not Plan(more).entropy.folder.done
    assert entropy.measure(more)[:4] == first and len(entropy.measure(more)) == 6
    assert entropy.measure(few) == first, "a folder that holds more serves a study that asks for less"


def test_a_study_may_leave_it_out(small, project):
    for values in ({"entropy_traces": 0}, {"arms": ["zero-shot", "rft"]}):
        loaded = params.validate({**small, **values}, "test")
        assert Plan(loaded).entropy is None and entropy.measure(loaded) == []
    assert entropy.by_chunk([]).empty and entropy.by_chunk([entropy._record(5, None)]).empty
    figures.plt.close(prefix_figures.entropy(entropy.by_chunk([])))
