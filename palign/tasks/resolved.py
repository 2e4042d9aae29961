"""What a study's open parameters mean: the commits behind its revisions, the trainer and the precision behind ``auto``.

A hub's newest commit and a machine's GPU change. So each is decided once for a study, when its first task needs it, and
kept in ``runs/<study>/resolved.json``: ``revision: null`` means one commit for the study's whole life, offline too, and
a report can be made anew on a machine without the GPU that trained.

>>> pinned(load("params/paper-qwen2.5-7b.yaml")).student_revision
'a09a35458c702b33eeacc393d103063234e8bc28'
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..params import SERVICE, OneLine, Params, resolve, root
from .store import StoreError, write_atomically

MODELS = {role: f"{role}_revision" for role in ("student", "teacher", "judge", "preference_judge")}
"""Parameters that may name a hub model, and those of its revision."""
COMMIT = re.compile(r"[0-9a-f]{40}")
PATIENCE = 20.0
"""Seconds that a hub may take to say its newest commit."""


class TrainerError(OneLine, ValueError):
    """A trainer that cannot run here, or rows it cannot train on; the message is one line."""


@dataclass(frozen=True)
class Choice:
    """The trainer that runs, ``unsloth`` or ``trl``, and why."""

    trainer: str
    why: str

    def __str__(self) -> str:
        return f"{self.trainer}: {self.why}"


def on_cuda(device: str) -> bool:
    """Whether ``device`` (of ``Machine``) means a CUDA device here."""
    if device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()


def choose(trainer: str, device: str) -> Choice:
    """The trainer that ``trainer`` (of ``FineTuning``) means on this machine.

    Raises :class:`TrainerError` for one that cannot run here.
    """
    from importlib.util import find_spec

    if trainer == "trl":
        return Choice("trl", "asked for")
    if device == "cpu":
        lacking = "device is cpu"
    elif not on_cuda(device):
        lacking = "no CUDA device"
    elif find_spec("unsloth") is None:
        lacking = "unsloth is not installed"
    else:
        return Choice("unsloth", "asked for" if trainer == "unsloth" else "CUDA and unsloth are there")
    if trainer == "unsloth":
        raise TrainerError(f"trainer: unsloth cannot run here: {lacking}; set trainer: auto or trl")
    return Choice("trl", lacking)


def precision(dtype: str, device: str) -> str:
    """Type of the base model's weights while training: ``float32``, ``bfloat16``, ``float16`` (CPU also ``auto``).

    On a GPU, ``auto`` and ``bfloat16`` mean bfloat16 from compute capability 8.0 on and float16 below 8.0, where
    ``torch.cuda.is_bf16_supported()`` may be true because of emulation. A half type also autocasts; the adapter's own
    weights stay float32.
    """
    if dtype in ("float32", "float16") or not on_cuda(device):
        return dtype
    import torch

    return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"


def training(params: Params) -> dict[str, str]:
    """The ``trainer`` and the type of its ``weights`` that this study's adapters are trained by.

    As kept or, before the first training, as this machine decides. ``trainer: unsloth`` is itself everywhere, so that a
    study's plan can be read on a machine that cannot run it.
    """
    kept = _kept(params)
    trainer = kept.get(_asked(params, "trainer")) or (
        params.trainer if params.trainer != "auto" else choose("auto", params.device).trainer
    )
    return {"trainer": trainer, "weights": kept.get(_asked(params, "dtype")) or precision(params.dtype, params.device)}


def keep_training(params: Params) -> None:
    """Keep :func:`training` for the study's whole life.

    Raises :class:`TrainerError` where it was decided before and this machine cannot do it.
    """
    decided = training(params)
    here = {"trainer": choose(params.trainer, params.device).trainer, "weights": precision(params.dtype, params.device)}
    if decided != here:
        raise TrainerError(
            f"this study trains by {decided['trainer']} in {decided['weights']}, this machine by {here['trainer']} in "
            f"{here['weights']}; continue where it began, or delete {_path(params)} to train all arms anew"
        )
    _keep(params, {_asked(params, "trainer"): decided["trainer"], _asked(params, "dtype"): decided["weights"]})


def _asked(params: Params, key: str) -> str:
    """What was open: the parameter, its value and the device."""
    return f"{key} {getattr(params, key)} on {params.device}"


def pinned(params: Params) -> Params:
    """``params`` with the kept commit in place of each revision; those not yet known stay as they are."""
    return _with(params, _kept(params))


def settled(params: Params) -> Params:
    """:func:`pinned`, after the commits that are not yet known were looked up and kept.

    The hub is asked or, where it cannot be reached, the local cache. What neither knows stays open: loading it says
    what is missing.
    """
    kept, found = _kept(params), {}
    for kind, name, revision in _open(params):
        asked = _commit_key(kind, name, revision)
        if asked not in kept and (commit := _from_hub(kind, name, revision) or commit_of(name, revision, kind)):
            found[asked] = commit
    if found:
        _keep(params, found)
    return _with(params, kept | found)


def _open(params: Params) -> list[tuple[str, str, str | None]]:
    """The study's hub inputs whose revision is not a commit: kind, name and revision."""
    inputs = [("model", getattr(params, role), getattr(params, key)) for role, key in MODELS.items()]
    inputs += [("dataset", params.training_data, params.training_revision)]
    inputs += [("dataset", b.data, b.revision) for b in params.benchmarks]
    return [(kind, name, revision) for kind, name, revision in inputs if name and _is_open(name, revision)]


def _is_open(name: str, revision: str | None) -> bool:
    on_hub = (
        re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(SERVICE) and not Path(resolve(name)).exists()
    )
    return bool(on_hub) and not (revision and COMMIT.fullmatch(revision))


def _with(params: Params, known: dict[str, str]) -> Params:
    def commit(kind: str, name: str | None, revision: str | None) -> str | None:
        return known.get(_commit_key(kind, name, revision), revision) if name and _is_open(name, revision) else revision

    if not any(_is_open(name, revision) for _, name, revision in _open(params)):
        return params
    changes = {key: commit("model", getattr(params, role), getattr(params, key)) for role, key in MODELS.items()}
    changes["training_revision"] = commit("dataset", params.training_data, params.training_revision)
    changes["benchmarks"] = [
        b.model_copy(update={"revision": commit("dataset", b.data, b.revision)}) for b in params.benchmarks
    ]
    return params.model_copy(update=changes)


def _commit_key(kind: str, name: str | None, revision: str | None) -> str:
    return f"{kind} {name}@{revision or 'newest'}"


def _from_hub(kind: str, name: str, revision: str | None) -> str | None:
    """The commit that the hub has for this revision; ``None`` where it cannot be asked or does not know it."""
    from huggingface_hub import HfApi

    try:
        return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=PATIENCE).sha
    except Exception:  # no network, offline mode, no such repository: the HTTP client's and the hub's own errors
        return None


def commit_of(name: str, revision: str | None, kind: str = "model") -> str | None:
    """The commit of a hub model or data set in the hub's local cache; ``None`` for a local folder and for a service."""
    from huggingface_hub import constants

    if not _is_open(name, revision):
        return None
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    try:
        return reference.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _path(params: Params) -> Path:
    return root() / "runs" / params.study / "resolved.json"


def _kept(params: Params) -> dict[str, str]:
    path = _path(params)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise StoreError(f"{path}: not a JSON object of names; delete it to look the commits up again")
    return found


def _keep(params: Params, decided: dict[str, str]) -> None:
    kept = _kept(params)
    if kept | decided != kept:
        text = json.dumps(kept | decided, indent=1, ensure_ascii=False, sort_keys=True)
        write_atomically(_path(params), f"{text}\n")
