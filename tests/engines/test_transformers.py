"""A response depends only on its prompt and its seed; label probabilities are the model's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, TopPLogitsWarper

from palign.engines import transformers as engines
from palign.engines.base import EngineStopped, Sampling, generate, seed_of
from palign.engines.transformers import TransformersEngine, nucleus
from palign.judging import Judge
from palign.params import Params
from palign.prompts import LABELS, render
from palign.traces import RULES

pytestmark = pytest.mark.model

SAMPLING = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.05)


def texts(engine, prompts, seeds, **kwargs):
    return [c.text for c in engine.generate(prompts, Sampling(**{**vars(SAMPLING), **kwargs}), seeds)]


def test_neither_batch_nor_order_nor_company_changes_a_response(engine, prompts):
    """Resuming a run puts the remaining problems into other batches."""
    seeds = [seed_of("test", i) for i in range(len(prompts))]
    together = texts(engine, prompts, seeds)
    assert texts(engine, prompts[::-1], seeds[::-1])[::-1] == together
    alone = [texts(engine, [prompt], [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert alone == together


def test_another_seed_gives_another_response(engine, prompts):
    sampled = {text for seed in range(30) for text in texts(engine, prompts[-1:], [seed])}
    assert len(sampled) > 1


def test_sampling_follows_the_models_probabilities(engine, prompts):
    """The inverse-distribution sampler against the softmax it samples from."""
    prompt, n = prompts[0], 2000
    ids = engine.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        expected = engine.model(ids).logits[0, -1].double().softmax(-1)
    one = Sampling(max_new_tokens=1, temperature=1.0)
    engine_of_many = TransformersEngine(engine.source, engine.model, engine.tokenizer, n)
    first = [c.token_ids[0] for c in engine_of_many.generate([prompt] * n, one, range(n)) if c.token_ids]
    top = int(expected.argmax())
    share, p = first.count(top) / n, float(expected[top])
    assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5 + 1e-9


def test_greedy_decoding_is_the_argmax(engine, prompts):
    (completion,) = engine.generate(prompts[:1], Sampling(max_new_tokens=5), [0])
    ids = engine.tokenizer(prompts[0], return_tensors="pt", add_special_tokens=False).input_ids
    expected = engine.model.generate(ids, do_sample=False, max_new_tokens=5)[0, ids.shape[1] :]
    assert completion.token_ids == [t for t in expected.tolist() if t != engine.tokenizer.eos_token_id]


def test_an_overlong_prompt_is_set_aside_and_the_others_run(engine, prompts):
    """One over-long prompt must not cost the whole call."""
    endless = "word " * 2000
    long, short = engine.generate([endless, prompts[0]], SAMPLING, [0, 0])
    assert (long.finish, long.text, long.new_tokens) == ("prompt too long", "", 0)
    assert short.text
    assert engine.choose([endless, prompts[0]], LABELS)[0] is None


def test_the_token_budget_is_kept_and_told(engine, prompts):
    (completion,) = engine.generate(prompts[-1:], Sampling(max_new_tokens=2), [0])
    assert (completion.finish, completion.new_tokens, len(completion.token_ids)) == ("length", 2, 2)


def test_label_log_probabilities_are_those_of_reading_prompt_and_label(engine, prompts):
    found = engine.choose(prompts, LABELS)
    for prompt, values in zip(prompts, found, strict=True):
        for label, value in zip(LABELS, values, strict=True):
            tail = engine.tokenizer(label, add_special_tokens=False).input_ids
            ids = engine.tokenizer(prompt, add_special_tokens=False).input_ids + tail
            with torch.no_grad():
                logprobs = engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            direct = sum(logprobs[len(ids) - len(tail) - 1 + k, token].item() for k, token in enumerate(tail))
            assert value == pytest.approx(direct, abs=1e-4)


def test_a_tokenizer_without_a_chat_template_is_refused_before_any_work(engine):
    class Bare:
        chat_template, name_or_path = None, "bare"

    with pytest.raises(ValueError, match="bare has no chat template"):
        render(Bare(), "hello", {})


def test_logits_that_are_no_numbers_are_an_error_and_no_text(engine, prompts):
    """The sampler would return the vocabulary's last token at every step."""
    with pytest.MonkeyPatch.context() as patch:
        head = engine.model.get_output_embeddings()
        patch.setattr(head, "forward", lambda hidden: torch.full((*hidden.shape[:-1], head.out_features), torch.nan))
        with pytest.raises(RuntimeError, match="not numbers"):
            engine.generate(prompts[:2], SAMPLING, [0, 1])
        with pytest.raises(EngineStopped, match="not numbers"):
            generate(engine, prompts[:2], SAMPLING, [0, 1])
        for verdict in ("compare", "decode"):
            judge = Judge(engine, Params().judge_prompt, RULES["released"], verdict)
            found = judge.open([("1+1?", ["One.", "Two."])])([(0, 1), (0, 2)])
            assert (
                [v.label for v in found] == ["error"] * 2 and "not" in found[0].reason and "number" in found[0].reason
            )


@given(seed=st.integers(0, 2**32), top_p=st.floats(0.05, 0.99), peaked=st.sampled_from([0.1, 1.0, 8.0]))
def test_a_nucleus_is_that_of_transformers(seed, top_p, peaked):
    """Also where it is wider than the tokens that are looked at first."""
    scores = peaked * torch.randn(3, 90, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(nucleus(scores, top_p), TopPLogitsWarper(top_p)(None, scores))


def test_a_nucleus_never_parts_tokens_that_are_alike():
    scores = torch.tensor([[2.0, 1.0, 1.0, -4.0]])
    assert nucleus(scores, 0.7).isinf().tolist() == [[False, False, False, True]]


def test_a_cache_that_grows_in_place_gives_what_the_librarys_gives(engine, monkeypatch):
    """Responses of many lengths, so that rows are dropped and the memory grows."""
    prompts = [engine.prompt(f"What is {i} and {i}?") for i in range(30)]
    sampling, seeds = Sampling(150, 1.0, 1.0), list(range(30))
    found = engine.generate(prompts, sampling, seeds)
    monkeypatch.setattr(engines, "_growing_cache", lambda config: DynamicCache(config=config))
    assert found == engine.generate(prompts, sampling, seeds)
    assert max(c.new_tokens for c in found) > 100 > min(c.new_tokens for c in found)
