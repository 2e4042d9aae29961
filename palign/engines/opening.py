"""Which engine opens a model. A process holds one engine at a time on its device.

>>> engine = open_engine(params.model("student"), params.part(Machine))
>>> engine is open_engine(params.model("student"), params.part(Machine))
True
>>> close_engines()
"""

from __future__ import annotations

import gc
from pathlib import Path

from ..params import Machine, Model
from .base import Engine

_engines: dict[tuple, Engine] = {}
"""The engines open in this process, by what they were opened with."""


def open_engine(model: Model, machine: Machine, adapter: Path | None = None) -> Engine:
    """The engine that runs ``model`` on ``machine``, with a LoRA adapter if one is given.

    It stays open: the same call returns the same engine, as long as the files of model and adapter are the same. Before
    another one opens, those that live on the device are closed, because two do not fit. A model named ``endpoint:NAME``
    is asked at ``endpoint_urls``, its ``engine`` does not matter; a service takes nothing of the device.
    """
    if model.is_service:
        from .endpoint import ChatEngine as Opened
    elif model.engine == "endpoint":
        from .endpoint import ServedEngine as Opened
    elif model.engine == "vllm":
        from .vllm import VllmEngine as Opened
    else:
        from .transformers import TransformersEngine as Opened
    served = model.is_service or model.engine == "endpoint"
    files = () if served else _state(Path(model.path))
    key = (served, model.model_dump_json(), machine.model_dump_json(), files, adapter and _state(Path(adapter)))
    if key not in _engines or _engines[key].stopped:
        for other in [other for other, engine in _engines.items() if engine.stopped or not (served or other[0])]:
            _release(other)
        _engines[key] = Opened.open(model, machine, adapter)
    return _engines[key]


def close_engines() -> None:
    """Close every engine of this process."""
    for key in list(_engines):
        _engines.pop(key).close()


def _release(key: tuple) -> None:
    """Forget an engine, and close it unless it is on a CPU, where whoever still uses it may go on."""
    engine = _engines.pop(key)
    if engine.settings.get("device") != "cpu":
        engine.close()
    del engine
    gc.collect()


def _state(folder: Path) -> tuple:
    """What tells a folder's files from those of another time; of a hub id, nothing."""
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    return (str(folder.resolve()), *((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))
