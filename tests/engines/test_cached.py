"""A text is read once for all prompts that begin as it does, and the results are those of reading each prompt."""

import pytest

from palign.engines.cached import CachedReader
from palign.prompts import LABELS

pytestmark = pytest.mark.model


def test_a_prompt_that_is_not_of_the_text_is_read_whole(engine, prompts):
    (reading,) = CachedReader(engine, ["something else"]).choose([(0, prompts[0])], LABELS)
    assert reading.value == pytest.approx(engine.choose(prompts[:1], LABELS)[0], abs=1e-4)
    assert reading.shared_tokens == 0


def test_prompts_of_one_text_read_what_they_share_once(engine, prompts):
    longer = [prompts[0], prompts[0] + " One.", prompts[0] + " One. Two."]
    readings = CachedReader(engine, prompts[:1]).choose([(0, prompt) for prompt in longer], LABELS)
    assert sum(reading.shared_tokens for reading in readings) <= engine.count(prompts[0])
    for reading, value in zip(readings, engine.choose(longer, LABELS), strict=True):
        assert reading.value == pytest.approx(value, abs=1e-4)


def test_generation_behind_a_text_is_that_of_the_whole_prompt(engine, prompts):
    longer = [prompts[0], prompts[0] + "Now four."]
    readings = CachedReader(engine, prompts[:1]).generate([(0, prompt) for prompt in longer], 12)
    plain = [engine.reader([prompt]).generate([(0, prompt)], 12)[0] for prompt in longer]
    assert [reading.value.text for reading in readings] == [reading.value.text for reading in plain]
