"""Which engine a model is opened by."""

from __future__ import annotations

from pathlib import Path

from ..params import Params
from .base import Engine


def open_engine(params: Params, adapter: Path | None = None) -> Engine:
    """The engine of the study on its student, with a LoRA adapter if one is given.

    A model named ``endpoint:NAME`` is asked at ``endpoint_urls``, whatever ``engine`` says.
    """
    if params.student.startswith("endpoint:"):
        from .endpoint import ChatEngine

        return ChatEngine.open(params, adapter)
    if params.engine == "endpoint":
        from .endpoint import ServedEngine

        return ServedEngine.open(params, adapter)
    if params.engine == "vllm":
        from .vllm import VllmEngine

        return VllmEngine.open(params, adapter)
    from .transformers import TransformersEngine

    return TransformersEngine.open(params, adapter)

