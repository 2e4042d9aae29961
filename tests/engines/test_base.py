"""An engine that fails costs the prompts it failed on, and an engine that is gone stops the run."""

import shutil
import weakref

import pytest
import torch

from palign import alignment, evaluation, params, problems, traces, truncation
from palign.analysis import entropy
from palign.engines.base import Engine, EngineStopped, Sampling, generate
from palign.engines.opening import close_engines, open_engine
from palign.engines.transformers import TransformersEngine
from palign.params import Machine
from palign.tasks.plan import Plan

pytestmark = pytest.mark.model

SAMPLING = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.05)


class Dying(Engine):
    """An engine that crashes on some prompts, or on everything after a while."""

    def __init__(self, engine, poison=(), left=10**9):
        self.engine, self.poison, self.left = engine, poison, left
        self.source, self.tokenizer, self.settings = engine.source, engine.tokenizer, engine.settings

    def generate(self, prompts, sampling, seeds):
        self.left -= 1
        if self.left < 0 or any(prompt in self.poison for prompt in prompts):
            raise torch.OutOfMemoryError("no memory\nleft")
        return self.engine.generate(prompts, sampling, seeds)


class Streaming(Dying):
    """It answers one prompt after another."""

    def stream(self, prompts, sampling, seeds):
        for i, prompt in enumerate(prompts):
            yield i, self.generate([prompt], sampling, [seeds[i]])[0]


def test_an_engine_that_dies_of_a_prompt_costs_that_record_alone(engine, prompts):
    """A prompt that did not fit into memory used to end the stage, at the same place in every rerun."""
    expected = engine.generate(prompts, SAMPLING, range(len(prompts)))
    found = generate(Dying(engine, poison=prompts[3:4]), prompts, SAMPLING, range(len(prompts)))
    assert (found[3].finish, found[3].text) == ("engine error", "") and found[3].reason.endswith("no memory left")
    assert [c.text for i, c in enumerate(found) if i != 3] == [c.text for i, c in enumerate(expected) if i != 3]


def test_an_engine_that_is_dead_stops_the_run(engine, prompts):
    """Its errors are not outcomes of records: a recorded error would never be asked again."""
    with pytest.raises(EngineStopped, match=r"answers nothing: OutOfMemoryError: no memory left; run the study again"):
        generate(Dying(engine, left=0), prompts, SAMPLING, range(len(prompts)))


def test_an_engine_that_dies_in_mid_round_loses_no_record_and_invents_none(small, project):
    """What came before is kept; the rerun asks only for the others, and the result is that of an undisturbed run."""
    loaded = params.validate(small | {"batch_size": 2}, "test")
    problems.collect_benchmarks(loaded)
    evaluation.respond(loaded, "zero-shot")
    folder = Plan(loaded).evaluation("zero-shot").folder
    whole = {record["id"]: record["text"] for record in folder.read("responses")}
    shutil.rmtree(folder.path)
    real = open_engine(loaded.model("student"), loaded.part(Machine))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "open_engine", lambda *_, **__: Streaming(real, left=8))
        with pytest.raises(EngineStopped):
            evaluation.respond(loaded, "zero-shot")
    assert len(folder.read("responses")) == 8 and not folder.done
    evaluation.respond(loaded, "zero-shot")
    assert {record["id"]: record["text"] for record in folder.read("responses")} == whole
    assert folder.manifest()["never_answered"] == 0


def test_an_engine_that_fails_often_is_asked_in_halves(engine, prompts):
    """A failed batch of 250 became 250 calls of one."""
    dying = Dying(engine, poison=prompts[3:4])
    found = generate(dying, prompts * 10, SAMPLING, range(10 * len(prompts)))
    assert sum(c.finish == "engine error" for c in found) == 10
    assert 10**9 - dying.left < 100


def test_prompts_that_are_all_at_fault_do_not_stop_an_engine_that_answers(engine, prompts):
    """The two that were left did not fit into memory, in every rerun."""

    found = generate(Streaming(engine, poison=prompts[-2:]), prompts, SAMPLING, range(len(prompts)))
    assert [c.finish == "engine error" for c in found] == [False] * (len(prompts) - 2) + [True] * 2


def opened(monkeypatch) -> list:
    """What every engine opened from now on holds: weak references to its model."""
    close_engines()
    models, real = [], TransformersEngine.open.__func__

    def counted(cls, *args):
        assert all(model() is None for model in models), "two models live at once"
        engine = real(cls, *args)
        models.append(weakref.ref(engine.model))
        return engine

    monkeypatch.setattr(TransformersEngine, "open", classmethod(counted))
    return models


def test_a_notebook_opens_one_engine_for_all_strategies(small, monkeypatch):
    """vLLM was started once a strategy, and nothing closed one: two did not fit on a GPU."""
    loaded = params.validate(small | {"arms": ["zero-shot", "p-align", "p-align-oracle"]}, "test")
    problems.collect_benchmarks(loaded)
    traces.collect(loaded)
    models = opened(monkeypatch)
    entropy.measure(loaded)
    truncation.truncate_all(loaded)
    alignment.align_all(loaded)
    alignment.measure_success(loaded)
    assert len(Plan(loaded).strategies) > 1 and len(models) == 1
    close_engines()
    assert models[0]() is None


def test_another_model_takes_the_place_of_the_first(engine, monkeypatch):
    models = opened(monkeypatch)
    for limit in (512, 513, 512):
        found = open_engine(engine.source.model_copy(update={"max_model_len": limit}), Machine())
        assert found is open_engine(found.source, Machine())
        del found
    assert len(models) == 3
    close_engines()


def test_an_engine_that_stopped_is_not_given_out_again(engine):
    first = open_engine(engine.source, Machine())
    first.stopped = True
    assert open_engine(engine.source, Machine()) is not first
    close_engines()
