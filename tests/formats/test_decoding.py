"""Decoding stops where the published models do."""

from palign.engines.base import Sampling
from palign.engines.opening import open_engine
from palign.params import Machine, Model
from tests.formats.conftest import STOPS, SWITCHES


def test_decoding_stops_at_every_stop_token(family, tokenizer, student):
    """Llama 3.2's generation config has three; only one of them is the tokenizer's."""
    import torch

    model = Model(name=str(student), chat_template_kwargs=SWITCHES[family])
    engine = open_engine(model, Machine(device="cpu"))
    prompt = engine.prompt("What is 1+1?")
    with torch.no_grad():  # with these weights every token is the likeliest one after any text
        for name, weight in engine.model.named_parameters():
            weight.fill_("embed" in name or "norm" in name)
    for stop in STOPS[family]:
        with torch.no_grad():
            engine.model.lm_head.weight.zero_()
            engine.model.lm_head.weight[tokenizer.convert_tokens_to_ids(stop)] = 1
        (said,) = engine.generate([prompt], Sampling(max_new_tokens=4), [0])
        assert (said.text, said.finish, said.new_tokens, said.token_ids) == ("", "stop", 1, [])
    with torch.no_grad():
        engine.model.lm_head.weight.zero_()
        engine.model.lm_head.weight[tokenizer.convert_tokens_to_ids("a")] = 1
    (said,) = engine.generate([prompt], Sampling(max_new_tokens=4), [0])
    assert (said.text, said.finish, said.new_tokens) == ("aaaa", "length", 4)


def test_without_a_generation_config_the_tokenizer_s_end_of_turn_stops(family, tokenizer, student):
    (student / "generation_config.json").unlink()
    model = Model(name=str(student), chat_template_kwargs=SWITCHES[family])
    assert tokenizer.eos_token_id in open_engine(model, Machine(device="cpu")).end_ids()
