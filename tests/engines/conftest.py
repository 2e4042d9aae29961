"""The pocket student, opened once for the tests of a file."""

import pytest

from palign.engines.opening import open_engine
from palign.engines.transformers import TransformersEngine
from palign.params import Machine, Model, Params
from palign.pocket.world import draw_problems
from palign.prompts import fill
from tests.conftest import POCKET


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return open_engine(Model(name=str(POCKET / "student")), Machine(batch_size=5))


@pytest.fixture(scope="module")
def prompts(engine) -> list[str]:
    drawn = draw_problems("probe", 12, (2, 3, 4, 6), 0.2, seed="engine test")
    return [engine.prompt(fill(Params().answer_prompt, question=p.question)) for p in drawn]
