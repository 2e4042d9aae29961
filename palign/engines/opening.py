"""Which engine opens a model.

>>> engine = open_engine(params.model("student"), params.part(Machine))
"""

from __future__ import annotations

from pathlib import Path

from ..params import Machine, Model
from .base import Engine


def open_engine(model: Model, machine: Machine, adapter: Path | None = None) -> Engine:
    """The engine that runs ``model`` on ``machine``, with a LoRA adapter if one is given.

    A model named ``endpoint:NAME`` is asked at ``endpoint_urls``; its ``engine`` does not matter.
    """
    if model.is_service:
        from .endpoint import ChatEngine as Opened
    elif model.engine == "endpoint":
        from .endpoint import ServedEngine as Opened
    elif model.engine == "vllm":
        from .vllm import VllmEngine as Opened
    else:
        from .transformers import TransformersEngine as Opened
    return Opened.open(model, machine, adapter)
