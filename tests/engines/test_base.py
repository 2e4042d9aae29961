"""An engine that fails costs the prompts it failed on, and an engine that is gone stops the run."""

import shutil

import pytest
import torch

from palign import evaluation, params, problems
from palign.engines.base import Engine, EngineStopped, Sampling, generate
from palign.engines.opening import open_engine
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
    """Batches before it are kept; the rerun asks only for the others, and the result is that of an undisturbed run."""
    loaded = params.validate(small | {"batch_size": 2}, "test")
    problems.collect_benchmarks(loaded)
    evaluation.respond(loaded, "zero-shot")
    folder = Plan(loaded).evaluation("zero-shot").folder
    whole = {record["id"]: record["text"] for record in folder.read("responses")}
    shutil.rmtree(folder.path)
    real = open_engine(loaded.model("student"), loaded.part(Machine))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "open_engine", lambda *_, **__: Dying(real, left=4))
        with pytest.raises(EngineStopped):
            evaluation.respond(loaded, "zero-shot")
    assert len(folder.read("responses")) == 8 and not folder.done
    evaluation.respond(loaded, "zero-shot")
    assert {record["id"]: record["text"] for record in folder.read("responses")} == whole
    assert folder.manifest()["never_answered"] == 0
