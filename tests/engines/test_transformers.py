"""A response depends only on its prompt and its seed; label probabilities are the model's own."""

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache, TopPLogitsWarper

from palign.engines import decoding
from palign.engines.base import EngineStopped, Sampling, generate, seed_of
from palign.engines.cached import CachedReader
from palign.engines.decoding import nucleus, rows_that_fit
from palign.engines.transformers import TransformersEngine
from palign.judging import Judge
from palign.params import Machine, Params
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


def many(engine) -> tuple[list[str], Sampling, list[int]]:
    """Prompts of many lengths, whose responses are of many lengths too."""
    prompts = [engine.prompt(f"What is {i}{' and one' * (i % 7)}?") for i in range(40)]
    return prompts, Sampling(150, 1.0, 1.0, 1.05), list(range(40))


def sized(engine, batch_size):
    return TransformersEngine(engine.source, engine.model, engine.tokenizer, batch_size)


def calls(engine, monkeypatch, most=10**9) -> list[int]:
    """The rows of each call of the model from now on; more than ``most`` do not fit into memory."""
    seen, forward = [], type(engine.model).forward

    def counted(self, ids, **kwargs):
        seen.append(len(ids))
        if len(ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids, **kwargs)

    monkeypatch.setattr(type(engine.model), "forward", counted)
    return seen


def test_a_cache_written_in_place_and_refilled_gives_what_the_librarys_gives(engine, monkeypatch):
    found = engine.generate(*many(engine))
    monkeypatch.setattr(decoding, "growing_cache", lambda config: DynamicCache(config=config))
    monkeypatch.setattr(decoding, "plain_attention", lambda model: False)  # then no row joins others
    assert found == engine.generate(*many(engine))
    assert max(c.new_tokens for c in found) > 100 > min(c.new_tokens for c in found)


def test_rows_that_finish_early_make_room_for_waiting_ones(engine, monkeypatch):
    """A batch used to wait for its longest response: of 40 responses in batches of 5, 600 steps instead of 300."""
    seen = calls(engine, monkeypatch)
    tokens = sum(c.new_tokens for c in engine.generate(*many(engine)))
    longest = 150
    assert sum(n > 0 for n in seen) < 1.25 * tokens / 5 + longest


def test_responses_come_as_they_finish(engine):
    prompts, sampling, seeds = many(engine)
    found = list(engine.stream(prompts, sampling, seeds))
    assert sorted(i for i, _ in found) == seeds
    assert found[0][1].new_tokens < 60 < found[-1][1].new_tokens


def test_samples_of_one_prompt_read_it_once(engine, prompts, monkeypatch):
    seen = calls(engine, monkeypatch)
    sized(engine, 30).generate(prompts[:1] * 30, Sampling(2, 1.0), range(30))
    assert seen[0] == 1 and max(seen) > 1


def test_out_of_memory_halves_the_rows_and_says_so(engine, monkeypatch, capsys):
    """A batch of 250 became 250 calls of one, and nothing said so."""
    expected = engine.generate(*many(engine))
    seen = calls(engine, monkeypatch, most=9)
    assert sized(engine, 32).generate(*many(engine)) == expected
    assert capsys.readouterr().err.splitlines() == [
        "out of memory with 32 rows at once; going on with 16",
        "out of memory with 16 rows at once; going on with 8",
    ]
    assert max(seen[3:]) == 8


def test_out_of_memory_on_the_way_keeps_what_was_decoded(engine, monkeypatch):
    """Rows that have begun go on where they were."""
    expected, steps, forward = engine.generate(*many(engine)), [0], type(engine.model).forward

    def failing(self, ids, **kwargs):
        steps[0] += 1
        if steps[0] == 60:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory")
        return forward(self, ids, **kwargs)

    monkeypatch.setattr(type(engine.model), "forward", failing)
    assert sized(engine, 8).generate(*many(engine)) == expected


def test_only_a_prompt_that_does_not_fit_by_itself_fails(engine, prompts, monkeypatch):
    forward = type(engine.model).forward
    asked = [*prompts, engine.prompt("What is " + "one and " * 60 + "one?")]
    expected = engine.generate(asked, SAMPLING, range(len(asked)))

    def short_of_memory(self, ids, **kwargs):
        if kwargs["position_ids"].max() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids, **kwargs)

    monkeypatch.setattr(type(engine.model), "forward", short_of_memory)
    found = generate(engine, asked, SAMPLING, range(len(asked)))
    assert found[-1].finish == "engine error" and "out of memory" in found[-1].reason
    assert found[:-1] == expected[:-1]


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_longer_responses_leave_room_for_fewer_rows(engine, a, b):
    few, many = (rows_that_fit(engine.model, 100, budget) for budget in (max(a, b), min(a, b)))
    assert 1 <= few <= many + many // 100  # other processes take and give memory meanwhile


def test_an_adapter_in_a_half_type_is_not_rounded_away(engine, prompts, tmp_path):
    """Merged into bfloat16, nine tenths of a small update were lost in the weights' rounding; vLLM serves adapters
    unmerged. All weights are compared by what they do in float32, apart from the rounding of what is computed.
    """
    torch.manual_seed(0)
    load, half = AutoModelForCausalLM.from_pretrained, {"dtype": torch.bfloat16}
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(load(engine.source.path), LoraConfig(r=4, target_modules=targets))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-4)
    tuned.save_pretrained(tmp_path)
    ids = engine.tokenizer(prompts[:1], return_tensors="pt", add_special_tokens=False).input_ids
    bare, merged = (load(engine.source.path, **half) for _ in range(2))
    merged = PeftModel.from_pretrained(merged, tmp_path).merge_and_unload()
    opened = TransformersEngine.open(engine.source.model_copy(update={"dtype": "bfloat16"}), Machine(), tmp_path)
    assert opened.settings["dtype"] == "bfloat16" and isinstance(opened.reader(prompts[:1]), CachedReader)
    assert opened.generate(prompts[:2], SAMPLING, [0, 1])[0].token_ids

    with torch.no_grad():
        plain = bare.float()(ids).logits
        true = PeftModel.from_pretrained(bare, tmp_path)(ids).logits - plain
        ours, theirs = ((model.float()(ids).logits - plain - true).norm() for model in (opened.model, merged))
    assert ours < 0.01 * true.norm() and theirs > 0.5 * true.norm()


def test_a_closed_engine_gives_its_memory_back(engine):
    opened = TransformersEngine.open(engine.source, Machine())
    model = weakref.ref(opened.model)
    opened.close()
    assert model() is None and opened.stopped
