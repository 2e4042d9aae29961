"""Labels as tokens, and labels and completions of engines with a prefix cache of their own: vLLM, in this process or
served.

A label is scored token by token: one request for each token, after the preceding tokens, as the only token allowed;
vLLM returns its raw log-probability. (Log-probabilities of prompt tokens would need one request only, but for them vLLM
reads the whole prompt without its cache.) Prompts of one text are sent together, the shorter ones first, so that a
longer one finds their blocks in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .base import Completion, Engine, EngineError, Reading, Sampling

Label = str | Sequence[int]
"""What can be chosen after a prompt: a text, or its token ids."""


@dataclass(frozen=True)
class Request:
    """``token``: the only one allowed, for a log-probability. Requests of one ``shard`` go to the same server."""

    ids: list[int]
    shard: str
    token: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """``value``: a log-probability in nats, or a ``Completion``; ``read``: prompt tokens not found in the cache."""

    value: float | Completion
    read: int
    reason: str = ""


class TokenEngine(Engine):
    """An engine that takes token ids and caches by itself. A subclass defines :meth:`score` and :meth:`finished`."""

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        """The log-probability of each request's token; NaN, with the reason, where the engine failed."""
        raise NotImplementedError

    def finished(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        """A ``Completion`` for each request as it finishes, with the request's index."""
        raise NotImplementedError

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        """A ``Completion`` for each request."""
        found = dict(self.finished(requests, sampling))
        return [found[i] for i in range(len(requests))]

    def stream(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        encoded = encode(self.tokenizer, prompts)
        room = self.source.max_model_len - sampling.max_new_tokens
        todo = [i for i, ids in enumerate(encoded) if len(ids) <= room]
        yield from ((i, Completion("", "prompt too long", len(x), 0)) for i, x in enumerate(encoded) if len(x) > room)
        requests = [Request(encoded[i], prompts[i], seed=seeds[i]) for i in todo]
        yield from ((todo[at], answer.value) for at, answer in self.finished(requests, sampling))

    def choose(self, prompts: Sequence[str], labels: Sequence[Label]) -> list[list[float] | None]:
        return [reading.value for reading in self.reader(prompts).choose(list(enumerate(prompts)), labels)]

    def reader(self, texts: Sequence[str]) -> LabelReader:
        return LabelReader(self, texts)


def encode(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts, which hold their special tokens already."""
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def label_ids(tokenizer, labels: Sequence[Label]) -> list[list[int]]:
    """The token ids of each label."""
    return [encode(tokenizer, [label])[0] if isinstance(label, str) else list(label) for label in labels]


def parting(tokenizer, labels: Sequence[str]) -> list[list[int]]:
    """The token ids of each label as far as the first one in which the labels part, which is its last.

    Of whole labels, the sum of the log-probabilities favours the shorter one, by about the logarithm of the
    vocabulary's size for a model that knows neither. Here all labels have the same number of tokens. Those before the
    last one are common to all: they add the same to each sum. Greedy decoding, where it writes a label, chooses at the
    same token. Raises :class:`EngineError` where the tokenizer makes one label the beginning of another one.

    >>> parting(tokenizer, ("[ENOUGH]", "[NOT_ENOUGH]"))  # "[", "ENO", "UGH", "]" and "[", "NOT", "_EN", "OUGH", "]"
    [[58, 63362], [58, 14065]]
    """
    encoded = label_ids(tokenizer, labels)
    shared = next((i for i, column in enumerate(zip(*encoded, strict=False)) if len(set(column)) > 1), None)
    if shared is None or len({ids[shared] for ids in encoded}) < len(encoded):
        raise EngineError(
            f"verdict: compare: the labels {' and '.join(labels)} have no token in which all of them part "
            f"({' and '.join(map(str, encoded))}); set verdict: decode"
        )
    return [ids[: shared + 1] for ids in encoded]


def completions(
    engine: TokenEngine, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], shards: Sequence[str]
) -> list[Answer]:
    """Completions in the order asked. A prompt that leaves no room for the budget is not sent: vLLM would reject the
    whole call.
    """
    encoded = encode(engine.tokenizer, prompts)
    room = engine.source.max_model_len - sampling.max_new_tokens
    todo = [i for i, ids in enumerate(encoded) if len(ids) <= room]
    answers = engine.complete([Request(encoded[i], shards[i], seed=seeds[i]) for i in todo], sampling)
    done = dict(zip(todo, answers, strict=True))
    return [
        done[i] if i in done else Answer(Completion("", "prompt too long", len(ids), 0), 0)
        for i, ids in enumerate(encoded)
    ]


class LabelReader:
    """The ``Reader`` of a ``TokenEngine``. A reading's ``shared_tokens`` are those not found in the engine's cache."""

    def __init__(self, engine: TokenEngine, texts: Sequence[str]):
        self.engine, self.texts = engine, texts

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[Label]) -> list[Reading]:
        engine = self.engine
        tails = label_ids(engine.tokenizer, labels)
        encoded = encode(engine.tokenizer, [prompt for _, prompt in asked])
        # a beginning that several labels share is asked for once
        steps = sorted({(*tail[: j + 1],) for tail in tails for j in range(len(tail))}, key=lambda s: (len(s), s))
        fits = [len(ids) + max(map(len, tails)) <= engine.source.max_model_len for ids in encoded]
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
        answers = completions(
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
    """The completion that ``tokens`` make. Where the response ``stopped`` by itself, the last one is the stop token."""
    kept = tokens[:-1] if stopped else tokens
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return Completion(text, "stop" if stopped else "length", prompt_tokens, len(tokens), kept)
