"""A text is read once for all prompts that begin as it does, and the results are those of reading each prompt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.engines.cached import CachedReader
from palign.engines.memory import cache_bytes_per_token
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


def texts_of(prompts, lengths):
    return [prompts[0] + " One." * length for length in lengths]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.data())
def test_the_store_holds_text_and_no_padding(engine, prompts, lengths, data):
    """All texts were padded to the longest one: of a cache of 67 GB, a tenth was text."""
    texts = texts_of(prompts, lengths)
    reader = CachedReader(engine, texts)
    alive = list(range(len(texts)))
    while alive:
        asked = [(i, prompts[0] + " One." * data.draw(st.integers(0, lengths[i]))) for i in alive]
        readings = reader.choose(asked, LABELS)
        for (i, prompt), reading in zip(asked, readings, strict=True):
            assert reading.value == pytest.approx(engine.choose([prompt], LABELS)[0], abs=1e-3), i
        live = sum(len(reader.slots[i]) for i in alive)
        assert 0.8 * reader.store.stored <= live <= sum(len(reader.texts[i]) for i in alive)
        layers = reader.store.layers
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        assert held == reader.store.stored * cache_bytes_per_token(engine.model.config, engine.model.dtype)
        alive = [i for i in alive if data.draw(st.booleans())]


def passes(engine, monkeypatch):
    """The shapes of the model's passes: lines, new columns, columns seen; and the rows that its head is given."""
    found, heads = [], []
    forward = engine.model.forward

    def watched(input_ids, attention_mask, **kwargs):
        found.append((*input_ids.shape, attention_mask.shape[-1]))
        return forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(engine.model, "forward", watched)
    head = engine.model.get_output_embeddings()
    told = head.register_forward_hook(lambda _, args, __: heads.append(args[0].shape[:-1].numel()))
    return found, heads, told


def test_a_round_gives_each_layer_one_buffer(engine, prompts, monkeypatch):
    """Every pass left buffers that were too small for the next one's: they filled a GPU."""
    texts, sizes = texts_of(prompts, [40, 30, 20]), []
    monkeypatch.setattr(CachedReader, "TOKENS", 32)
    reader = CachedReader(engine, texts)
    store = reader.store
    told = engine.model.register_forward_hook(lambda *_: sizes.append({len(layer.keys) for layer in store.layers}))
    for part in (2, 1):  # the first half of each text, then all of it
        sizes.clear()
        asked = [(i, text[: len(text) // part]) for i, text in enumerate(texts)]
        values = [reading.value for reading in reader.choose(asked, LABELS)]
        assert len(sizes) > 5 and sizes == [{store.stored}] * len(sizes)
    told.remove()
    for value, plain in zip(values, engine.choose(texts, LABELS), strict=True):
        assert value == pytest.approx(plain, abs=1e-3)


def test_a_passes_memory_does_not_grow_with_the_texts(engine, prompts, monkeypatch):
    """A round was one pass over all texts, whose mask, copies and logits grew with their number times the longest."""
    lengths = [1, 2, 4, 100, 3, 90, 50]
    texts = texts_of(prompts, lengths)
    whole = CachedReader(engine, texts).choose(list(enumerate(texts)), LABELS)
    monkeypatch.setattr(CachedReader, "TOKENS", 128)
    monkeypatch.setattr(CachedReader, "AREA", 512)
    found, heads, told = passes(engine, monkeypatch)
    reader = CachedReader(engine, texts)
    parts = reader.choose(list(enumerate(texts)), LABELS)
    told.remove()
    assert all(lines * new <= 128 and (lines == 1 or lines * seen <= 512) for lines, new, seen in found)
    scored = len(texts) * (sum(len(reader.engine.tokenizer(label).input_ids) for label in LABELS) - 1)
    assert sum(heads) <= scored + len(found), "logits of no other position"
    for one, other in zip(parts, whole, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-3)
        assert (one.shared_tokens, one.own_tokens) == (other.shared_tokens, other.own_tokens)


def test_logits_are_of_the_scored_positions_of_each_line_only(engine, prompts, monkeypatch):
    """Where lines score different columns, the union of these was computed for all lines: 22 GiB in one judgement."""
    texts = texts_of(prompts, [3, 5])
    asked = [(0, texts[0]), *[(1, prompts[0] + " One." * k) for k in (1, 2, 3, 4)]]
    found, heads, told = passes(engine, monkeypatch)
    CachedReader(engine, texts).choose(asked, [[1, 2], [1, 3]])
    told.remove()
    assert heads[-1] == 2 * len(asked) and found[-1][0] == 2
