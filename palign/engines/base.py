"""What every engine offers: prompts in, text or label log-probabilities out. Engines do not depend on the method.

>>> engine = open_engine(params.model("student"), params.part(Machine))      # palign.engines.opening
>>> prompt = engine.prompt("What is 1+1?")
>>> engine.generate([prompt], Sampling(max_new_tokens=64), seeds=[1])
>>> engine.choose([prompt], ("[ENOUGH]", "[NOT_ENOUGH]"))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..params import Model, OneLine
from ..prompts import render


@dataclass(frozen=True)
class Sampling:
    """How to sample: ``temperature`` 0 is greedy; ``max_new_tokens`` is the budget of one response."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


FAILED = ("endpoint error", "engine error")
"""Values of ``finish`` where the engine failed, not the model: a second try might succeed."""

NEVER_ANSWERED = ("prompt too long", *FAILED)
"""Values of ``finish`` where the model gave no response."""


def failed(record: dict) -> bool:
    """Whether the engine failed at this record: ``finish`` says so of a completion, ``status`` of a search."""
    status = record.get("status", "").removeprefix("judge error: ")
    return record.get("finish") in FAILED or status.startswith(FAILED)


def said(error: Exception) -> str:
    """An exception as a record's ``reason``, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@dataclass(frozen=True)
class Completion:
    """``finish``: ``stop`` (ended by itself), ``length`` (budget used up), ``prompt too long`` (never run),
    ``endpoint error`` (every try failed) or ``engine error`` (the engine failed); ``reason`` says why.

    ``new_tokens`` counts the end-of-turn token. ``token_ids`` are the response's, without it.
    """

    text: str
    finish: str
    prompt_tokens: int
    new_tokens: int
    token_ids: list[int] = field(repr=False, default_factory=list)
    reason: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What a record keeps beside the text: ``finish``, the token counts and, if there is one, the ``reason``."""
        counts = {"finish": self.finish, "prompt_tokens": self.prompt_tokens, "new_tokens": self.new_tokens}
        return counts | ({"reason": self.reason} if self.reason else {})


class Engine:
    """A model, opened. Prompts go in as the text that :meth:`prompt` makes of a user's turn.

    ``source``: the model as the study names it. ``settings``: how it runs, for the manifest. ``cache_tokens``: what its
    prefix cache holds at once, in tokens; ``None`` if the reader manages its own cache or the size is unknown.
    ``stopped``: it was closed or answers no more, and is not to be given out again.
    """

    source: Model
    tokenizer: Any
    settings: dict
    cache_tokens: int | None = None
    stopped: bool = False

    def close(self) -> None:
        """Give the device's memory back; the engine cannot be used afterwards."""
        self.stopped = True

    def prompt(self, user: str) -> str:
        """One user's turn and the opening of the reply, by the model's own chat template and its switches."""
        return render(self.tokenizer, user, self.source.chat_template_kwargs)

    def count(self, text: str) -> int:
        """Tokens of a text, as it stands."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One completion per prompt. A response depends on its prompt, ``sampling`` and its own seed only.

        A subclass defines this or :meth:`stream`; each of the two is made of the other.
        """
        found = dict(self.stream(prompts, sampling, seeds))
        return [found[i] for i in range(len(prompts))]

    def stream(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """The completions of :meth:`generate` as they finish, in any order, each with its prompt's index.

        It takes thousands of prompts at once: the engine decides how many of them run together.
        """
        yield from enumerate(self.generate(prompts, sampling, seeds))

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        """Sum of the log-probabilities (nats) of each label's tokens after each prompt; ``None`` for a prompt that does
        not fit. A label is a text or token ids.
        """
        raise NotImplementedError

    def reader(self, texts: Sequence[str]) -> Reader:
        """A reader of prompts that each begin as one of ``texts`` does."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reading:
    """The result and the cost of one prompt: tokens of the shared text that it read, and tokens only it read.

    ``prompt_tokens`` is the length of the whole prompt. ``reason`` says why a value is missing or not a number, except
    where the prompt does not fit.
    """

    value: object
    shared_tokens: int
    own_tokens: int
    prompt_tokens: int
    reason: str = ""


class Reader(Protocol):
    """Many prompts over few texts, in rounds. A text that a round leaves out is dropped for all later rounds."""

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[str]) -> list[Reading]:
        """As the engine's ``choose``, for (text index, prompt) pairs; a ``value`` is the labels' log-probabilities."""

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        """As the engine's ``generate``, greedy; each ``value`` is a ``Completion``."""


class PlainReader:
    """A reader that gives the engine whole prompts: for engines that cache by themselves, or not at all."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[str]) -> list[Reading]:
        prompts = [prompt for _, prompt in asked]
        tokens = [len(ids) for ids in self.engine.tokenizer(prompts, add_special_tokens=False).input_ids]
        return [Reading(value, 0, n, n) for value, n in zip(self.engine.choose(prompts, labels), tokens, strict=True)]

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        completions = self.engine.generate([p for _, p in asked], Sampling(max_new_tokens), [0] * len(asked))
        return [Reading(c, 0, c.prompt_tokens, c.prompt_tokens) for c in completions]


def seed_of(*parts: object) -> int:
    """A 63-bit seed from a study's seed, a record's id and the like: the same on every run and machine."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class EngineError(OneLine, RuntimeError):
    """An engine that cannot be opened or cannot do what is asked; the message is one line."""


class EngineStopped(EngineError):
    """An engine that cannot answer any more. The run stops: its error must not become the outcome of a record."""


LONE_FAILURES = 8
"""Single prompts that fail in a row, after which the engine is asked for one that it answered before."""


def stream(
    engine: Engine, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
) -> Iterator[tuple[int, Completion]]:
    """The engine's completions as they finish, each with its prompt's index. If the call fails, the prompts that wait
    are asked again in halves, down to single ones. One that fails by itself has ``finish`` ``engine error``: that is
    the record's outcome, and the run continues.

    Raises :class:`EngineStopped` when several prompts fail by themselves and the engine does not answer one that it
    answered before either: then the engine is at fault, not a prompt.
    """
    answered: int | None = None
    failures: dict[int, Completion] = {}  # of single prompts, while it is not known whose fault they are
    parts = [list(range(len(prompts)))]
    while parts:
        part = parts.pop()
        waiting = dict.fromkeys(part)
        try:
            for at, completion in engine.stream([prompts[i] for i in part], sampling, [seeds[i] for i in part]):
                del waiting[part[at]]
                if completion.finish == "engine error":
                    failures[part[at]] = completion
                    continue
                answered = part[at]
                yield answered, completion
                yield from failures.items()
                failures.clear()
        except EngineError as error:
            engine.stopped |= isinstance(error, EngineStopped)
            raise
        except (RuntimeError, OSError) as error:  # a device or a server that is gone
            left = list(waiting)
            if len(left) == 1:
                failures[left[0]] = Completion("", "engine error", 0, 0, reason=said(error))
            elif left:
                parts += [left[len(left) // 2 :], left[: len(left) // 2]]
        if len(failures) > 1 and (not parts or len(failures) >= LONE_FAILURES):
            again = [] if answered is None else [(prompts[answered], seeds[answered])]
            if not any(_answers(engine, prompt, sampling, seed) for prompt, seed in again):
                engine.stopped = True
                reason = next(iter(failures.values())).reason
                raise EngineStopped(f"the engine answers nothing: {reason}; run the study again to continue")
            yield from failures.items()
            failures.clear()
    yield from failures.items()


def _answers(engine: Engine, prompt: str, sampling: Sampling, seed: int) -> bool:
    try:
        engine.generate([prompt], sampling, [seed])
    except (RuntimeError, OSError):
        return False
    return True


def generate(engine: Engine, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
    """All completions of :func:`stream`, in the order of the prompts."""
    found = dict(stream(engine, prompts, sampling, seeds))
    return [found[i] for i in range(len(prompts))]


def check_safetensors(model: str) -> None:
    """Raises :class:`EngineError` for a local folder whose weights are pickles only: loading a pickle can run code."""
    folder = Path(model)
    pickles = [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in sorted(folder.glob(pattern))]
    if folder.is_dir() and pickles and not any(folder.glob("*.safetensors")):
        raise EngineError(
            f"{model}: holds {pickles[0]} and no .safetensors; convert the weights, since loading a pickle can run code"
        )
