"""A reader for engines that cache the beginnings of prompts by themselves: vLLM, here or served.

A label is read token by token: each of its tokens is asked for behind those before it, as the only one allowed, and its
raw log-probability is what comes back. (Log-probabilities of a prompt's own tokens would do in one request, but vLLM
then reads the whole prompt anew, cache or no cache.) Prompts of one text go out together, the shorter ones first, so
that a longer one finds their blocks in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .base import Completion, Reading, Sampling


@dataclass(frozen=True)
class Request:
    """``token``: the only one allowed, for a log-probability. Requests of one ``shard`` go to the same server."""

    ids: list[int]
    shard: str
    token: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """``value``: a log-probability in nats, or a ``Completion``; ``read``: tokens not found in the cache."""

    value: float | Completion
    read: int
    reason: str = ""


class TokenEngine(Protocol):
    tokenizer: object
    max_model_len: int

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        """The log-probability of each request's token; not a number, with the reason, where the engine failed."""

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        """A ``Completion`` of each request."""


def encode(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids as every engine feeds them: the rendered prompt has its special tokens already."""
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def generate(
    engine: TokenEngine, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], shards: Sequence[str]
) -> list[Answer]:
    """Completions in the order asked. A prompt that leaves no room for the budget is set aside: vLLM would reject all
    of a call.
    """
    encoded = encode(engine.tokenizer, prompts)
    room = engine.max_model_len - sampling.max_new_tokens
    todo = [i for i, ids in enumerate(encoded) if len(ids) <= room]
    answers = engine.complete([Request(encoded[i], shards[i], seed=seeds[i]) for i in todo], sampling)
    done = dict(zip(todo, answers, strict=True))
    return [
        done[i] if i in done else Answer(Completion("", "prompt too long", len(ids), 0), 0)
        for i, ids in enumerate(encoded)
    ]


class LabelReader:
    """See the module. A ``Reading``'s ``shared_tokens`` are those its requests did not find in the cache."""

    def __init__(self, engine: TokenEngine, texts: Sequence[str]):
        self.engine, self.texts = engine, texts

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[str]) -> list[Reading]:
        engine = self.engine
        tails = encode(engine.tokenizer, labels)
        encoded = encode(engine.tokenizer, [prompt for _, prompt in asked])
        # what labels begin with alike is asked for once
        steps = sorted({(*tail[: j + 1],) for tail in tails for j in range(len(tail))}, key=lambda s: (len(s), s))
        fits = [len(ids) + max(map(len, tails)) <= engine.max_model_len for ids in encoded]
        order = sorted((i for i, fit in enumerate(fits) if fit), key=lambda i: (asked[i][0], len(encoded[i])))
        wanted = [(i, step) for i in order for step in steps]
        answers = engine.score(
            [Request([*encoded[i], *step[:-1]], self.texts[asked[i][0]], token=step[-1]) for i, step in wanted]
        )
        logprobs: dict[int, dict[tuple[int, ...], float]] = {i: {} for i in order}
        read, reasons = [0] * len(asked), [""] * len(asked)
        for (i, step), answer in zip(wanted, answers, strict=True):
            logprobs[i][step] = answer.value
            read[i] += answer.read
            reasons[i] = reasons[i] or answer.reason

        def sums(i: int) -> list[float]:
            return [sum(logprobs[i][(*tail[: j + 1],)] for j in range(len(tail))) for tail in tails]

        return [
            Reading(sums(i) if fits[i] else None, read[i], 0, len(ids), reasons[i]) for i, ids in enumerate(encoded)
        ]

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        order = sorted(range(len(asked)), key=lambda i: (asked[i][0], len(asked[i][1])))
        answers = generate(
            self.engine,
            [asked[i][1] for i in order],
            Sampling(max_new_tokens),
            [0] * len(asked),
            [self.texts[asked[i][0]] for i in order],
        )
        done = dict(zip(order, answers, strict=True))
        return [
            Reading(done[i].value, done[i].read, 0, done[i].value.prompt_tokens, done[i].reason)
            for i in range(len(asked))
        ]


def completion_of(tokenizer, prompt_tokens: int, tokens: list[int], stopped: bool) -> Completion:
    """``tokens`` as vLLM gives them: with the one that ended the turn, where the response ended by itself."""
    kept = tokens[:-1] if stopped else tokens
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return Completion(text, "stop" if stopped else "length", prompt_tokens, len(tokens), kept)

