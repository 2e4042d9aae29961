"""Engines turn rendered prompts into text or into label log-probabilities; they know nothing of the method.

>>> engine = open_engine(params)
>>> engine.generate(["<|im_start|>user..."], Sampling(max_new_tokens=64), seeds=[1])
>>> engine.choose(["<|im_start|>user..."], ("[ENOUGH]", "[NOT_ENOUGH]"))
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..params import Params


@dataclass(frozen=True)
class Sampling:
    """How to sample: ``temperature`` 0 is greedy; ``max_new_tokens`` is the budget of one response."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Completion:
    """``finish``: ``stop`` (ended by itself), ``length`` (budget used up) or ``prompt too long`` (never run).

    ``new_tokens`` counts the end-of-turn token. ``token_ids`` are the response's, without it.
    """

    text: str
    finish: str
    prompt_tokens: int
    new_tokens: int
    token_ids: list[int] = field(repr=False, default_factory=list)


class Engine(Protocol):
    tokenizer: object

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion a prompt. A response depends on its prompt, ``sampling`` and its own seed only."""

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        """Log-probability (nats) of each label after each prompt; ``None`` for a prompt that does not fit."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from a study's seed, a record's id and the like: the same whenever and wherever it is asked."""
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def open_engine(params: Params, adapter: Path | None = None) -> Engine:
    """The study's engine on its student, with a LoRA adapter merged in if one is given."""
    from .transformers import TransformersEngine

    return TransformersEngine.open(params, adapter)
