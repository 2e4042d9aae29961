"""How much memory is free for key-value caches, and what one token of a cache takes."""

from __future__ import annotations


def free_bytes(device) -> int:
    """Bytes that can still be allocated on a ``torch.device`` (or its name), what torch keeps in reserve included."""
    import psutil
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def cache_bytes_per_token(config, dtype) -> int:
    """Bytes of the keys and values of one token in all layers. ``config``: a transformers model's; ``dtype``: torch's.

    Layers with a sliding window are counted as if they kept every token.
    """
    config = config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * dtype.itemsize


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a GPU, or where the system refused to give some."""
    import torch

    words = ("can't allocate memory", "not enough memory", "ALLOC_FAILED")  # torch's on a CPU, and cuBLAS's
    refused = isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    return refused or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def release() -> None:
    """Give back what failed work left behind: tensors in circles of references, and torch's reserve on a GPU."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
