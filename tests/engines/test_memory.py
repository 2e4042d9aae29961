"""What a token of a cache takes is what transformers allocates for it."""

import pytest
import torch

from palign.engines.memory import cache_bytes_per_token, free_bytes

pytestmark = pytest.mark.model


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cached_token_takes_the_bytes_that_its_keys_and_values_take(kind, dtype):
    import transformers

    sizes = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3}
    config = getattr(transformers, f"{kind}Config")(**sizes, num_attention_heads=4, num_key_value_heads=2)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype)
    with torch.inference_mode():
        cache = model(torch.zeros((2, 5), dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 2 * 5 * cache_bytes_per_token(config, dtype)


def test_free_memory_is_some_of_the_machines():
    import psutil

    assert 0 < free_bytes("cpu") <= psutil.virtual_memory().total
