"""OpenAI-compatible endpoints, in two ways.

``engine: endpoint``: the study's own student, served by vLLM at ``endpoint_urls`` under the name the params give it.
Prompts are tokenised here and go out as token ids, so what is asked is what the other engines ask: label
log-probabilities, seeds, budgets and adapters included (:class:`ServedEngine`).

``endpoint:MODEL`` as a model's name: a service that chats, such as a commercial teacher or judge (:class:`ChatEngine`).

Requests go out several at a time and are repeated, after growing pauses, when the service is busy (429), fails (5xx),
answers garbage, hangs up or is too slow. One that fails for good is its own outcome, ``endpoint error``, and the run
goes on. Several addresses share the work: each prompt always goes to the same one, a trace's nested prompts together,
so that a server finds their beginning in its cache.

The key is read from the environment variable ``PALIGN_API_KEY`` when a request is sent, and kept nowhere.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..params import Params
from . import labels
from .base import Completion, EngineError, Reader, Reading, Sampling
from .labels import Answer, LabelReader, Request
from .labels import completion_of

PREFIX = "endpoint:"
KEY = "PALIGN_API_KEY"
BUSY = {408, 409, 429}
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds




class Malformed(ValueError):
    """An answer with status 200 that is none; the message is its kind."""


class Service:
    """The addresses of one service: who is asked, how often, and what of it is an error.

    ``urls``: addresses up to and including ``/v1``. ``pause`` is the first one between two tries, in seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        concurrency: int = 8,
        timeout: float = 600.0,
        retries: int = 6,
        pause: float = FIRST_PAUSE,
    ):
        self.urls = [url.rstrip("/") for url in urls]
        self.concurrency, self.timeout, self.retries, self.pause = concurrency, timeout, retries, pause

    @classmethod
    def of(cls, params: Params) -> Service:
        """Raises :class:`EngineError` without an address, or with a key that no request can carry."""
        if not params.endpoint_urls:
            raise EngineError(
                f"{params.student}: endpoint_urls is empty; name at least one address, such as http://.../v1"
            )
        key = os.environ.get(KEY, "").strip()
        if not (key.isascii() and key.isprintable()):  # the HTTP library's own message would quote it
            raise EngineError(f"{KEY} holds characters that no request can carry; set it anew")
        return cls(params.endpoint_urls, params.endpoint_concurrency, params.endpoint_timeout, params.endpoint_retries)

    def url(self, shard: str) -> str:
        """The address of a shard: the same whenever and wherever it is asked."""
        return self.urls[int.from_bytes(hashlib.sha256(shard.encode()).digest()[:4], "big") % len(self.urls)]

    def post_all(
        self, path: str, requests: Sequence[tuple[str, dict]], parse: Callable[[dict], Any]
    ) -> list[tuple[Any, str]]:
        """What ``parse`` makes of the JSON for each (shard, body), or ``None`` and the reason, in the order asked."""
        import httpx

        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(timeout=self.timeout, limits=limits) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):

            def one(request: tuple[str, dict]) -> tuple[Any, str]:
                shard, body = request
                return self.ask(client, "POST", self.url(shard) + path, body, lambda answer: parse(answer.json()))

            return list(pool.map(one, requests))

    def ask(self, client, method: str, url: str, body: dict | None, parse: Callable) -> tuple[Any, str]:
        """Ask until there is an answer, it is clear that there will be none, or the retries are used up.

        ``parse`` makes the value of the HTTP response.
        """
        reason = "never asked"
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(LONGEST_PAUSE, self.pause * 2**attempt) * random.uniform(0.5, 1.0))
            value, reason, again = self._try(client, method, url, body, parse)
            if value is not None:
                return value, ""
            if not again:
                break
        return None, reason

    def _try(self, client, method: str, url: str, body: dict | None, parse: Callable) -> tuple[Any, str, bool]:
        """A value, or why there is none and whether to ask again. A reason never quotes what the service said: some
        repeat the key.
        """
        import httpx

        key = os.environ.get(KEY, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answer = client.request(method, url, json=body, headers=headers)
        except httpx.HTTPError as error:  # refused, dropped, too slow
            return None, type(error).__name__, True
        if answer.status_code != 200:
            return None, f"HTTP {answer.status_code}", answer.status_code in BUSY or answer.status_code >= 500
        try:
            return parse(answer), "", False
        except Malformed as error:
            return None, str(error), True
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return None, "malformed answer", True


class ChatEngine:
    """A service that chats: ``/v1/chat/completions``, verdicts by decoding, tokens only as counts of its own."""

    cache_tokens = None

    def __init__(self, service: Service, model: str, max_model_len: int):
        self.service, self.model, self.max_model_len = service, model, max_model_len
        self.tokenizer = Characters()

    @classmethod
    def open(cls, params: Params, adapter: Path | None = None) -> ChatEngine:
        """Raises :class:`EngineError` for an adapter: a service answers with the model it serves."""
        if adapter is not None:
            raise EngineError(f"{params.student} cannot be fine-tuned here; a student is a local folder or a hub id")
        return cls(Service.of(params), params.student.removeprefix(PREFIX), params.max_model_len)

    @property
    def settings(self) -> dict:
        return {"engine": "endpoint", "path": "chat/completions", "model": self.model}

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One chat completion a prompt; ``finish`` is ``endpoint error`` where every try failed."""
        return self._generate(prompts, sampling, seeds, prompts)

    def _generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], shards: Sequence[str]
    ) -> list[Completion]:
        bodies = [self._body(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        found = self.service.post_all("/chat/completions", list(zip(shards, bodies, strict=True)), self._completion)
        return [completion or _error(reason) for completion, reason in found]

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        raise EngineError(f"{PREFIX}{self.model} gives no label log-probabilities; set verdict: decode")

    def reader(self, texts: Sequence[str]) -> Reader:
        return ChatReader(self, texts)

    def _body(self, prompt: str, sampling: Sampling, seed: int) -> dict:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed % 2**31,
        }
        if sampling.repetition_penalty != 1.0:  # vLLM's; other services may refuse it
            body["repetition_penalty"] = sampling.repetition_penalty
        return body

    @staticmethod
    def _completion(found: dict) -> Completion:
        choice, usage = found["choices"][0], found.get("usage") or {}
        message = choice["message"]
        text = message.get("content")
        thoughts = message.get("reasoning_content") or message.get("reasoning")
        if thoughts:
            text = f"<think>{thoughts}</think>{text or ''}"
        if not isinstance(text, str) or not text.strip():
            raise Malformed("empty completion")
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        prompt_tokens, new_tokens = (usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return Completion(text, finish, prompt_tokens, new_tokens)


class ChatReader:
    """Decoded verdicts; a trace's prompts go to the same address."""

    def __init__(self, engine: ChatEngine, texts: Sequence[str]):
        self.engine, self.texts = engine, texts

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[str]) -> list[Reading]:
        return self.engine.choose((), labels)

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        completions = self.engine._generate(
            [prompt for _, prompt in asked],
            Sampling(max_new_tokens),
            [0] * len(asked),
            [self.texts[i] for i, _ in asked],
        )
        return [Reading(c, 0, c.prompt_tokens, c.prompt_tokens, c.reason) for c in completions]


class ServedEngine:
    """The study's own student at one or more vLLM servers, asked by token ids through ``/v1/completions``."""

    cache_tokens = None

    def __init__(self, service: Service, model: str, tokenizer, max_model_len: int):
        self.service, self.model, self.tokenizer, self.max_model_len = service, model, tokenizer, max_model_len
        self.settings = {"engine": "endpoint", "path": "completions", "model": model, "lora": False}

    @classmethod
    def open(cls, params: Params, adapter: Path | None = None) -> ServedEngine:
        """Raises :class:`EngineError` where an address does not serve the student, or with too short a context.

        An adapter is loaded by the servers, which must see its folder and have been started with ``--enable-lora`` and
        ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``.
        """
        from ..prompts import render
        from .tokenizers import load_tokenizer

        tokenizer = load_tokenizer(params)
        render(tokenizer, "", params.chat_template_kwargs)  # a missing chat template is better found before the work
        engine = cls(Service.of(params), params.student, tokenizer, params.max_model_len)
        engine._check()
        if adapter is not None:
            engine._load(Path(adapter))
        return engine

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """As the protocol says; ``finish`` is ``endpoint error`` where every try failed."""
        return [answer.value for answer in labels.generate(self, prompts, sampling, seeds, prompts)]

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        """As the protocol says; not a number where every try failed."""
        return [reading.value for reading in self.reader(prompts).choose(list(enumerate(prompts)), labels)]

    def reader(self, texts: Sequence[str]) -> LabelReader:
        return LabelReader(self, texts)

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        wish = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1}
        bodies = [(r.shard, self._body(r, wish | {"allowed_token_ids": [r.token]})) for r in requests]

        def parse(found: dict) -> Answer:
            return Answer(float(found["choices"][0]["logprobs"]["token_logprobs"][0]), _read(found))

        found = self.service.post_all("/completions", bodies, parse)
        return [answer or Answer(float("nan"), 0, f"endpoint error: {reason}") for answer, reason in found]

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        wish = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.temperature else 1.0,
            "repetition_penalty": sampling.repetition_penalty,
            "return_token_ids": True,
        }

        def parse(found: dict) -> Answer:
            choice = found["choices"][0]
            tokens, finish = choice["token_ids"], choice["finish_reason"]
            if not isinstance(tokens, list) or finish not in ("stop", "length"):
                raise Malformed(f"the request was ended by {str(finish)[:20]!r}")
            prompt_tokens = found["usage"]["prompt_tokens"]
            return Answer(completion_of(self.tokenizer, prompt_tokens, tokens, finish == "stop"), _read(found))

        bodies = [(r.shard, self._body(r, wish | {"seed": r.seed})) for r in requests]
        found = self.service.post_all("/completions", bodies, parse)
        return [answer or Answer(_error(reason), 0, reason) for answer, reason in found]

    def _body(self, request: Request, wish: dict) -> dict:
        """What is left unsaid a server takes from the model's generation config, and Qwen's has top_k 20."""
        neutral = {"top_k": 0, "min_p": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
        neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
        return neutral | wish | {"model": self.model, "prompt": request.ids}

    def _check(self) -> None:
        """Ask every address what it serves, before any work, and note it for the manifest."""
        import httpx

        served = []
        with httpx.Client(timeout=min(self.service.timeout, 30.0)) as client:
            for url in self.service.urls:
                models, reason = self.service.ask(client, "GET", f"{url}/models", None, _models)
                if models is None:
                    raise EngineError(f"{url} does not say what it serves: {reason}")
                ours = models.get(self.model)
                if ours is None:
                    raise EngineError(
                        f"{url} does not serve {self.model}; start vLLM with --served-model-name {self.model}"
                    )
                longest = ours.get("max_model_len") or self.max_model_len
                if longest < self.max_model_len:
                    raise EngineError(f"max_model_len: {url} serves {longest} tokens, not {self.max_model_len}")
                at = f"{url.removesuffix('/v1')}/version"  # vLLM's own; None from a service that does not tell
                version, *_ = self.service._try(client, "GET", at, None, lambda a: str(a.json()["version"])[:40])
                served.append({"version": version, "max_model_len": longest})
        self.settings = self.settings | {"servers": served}

    def _load(self, adapter: Path) -> None:
        """Have every server load the adapter, under a name of its content: what changed is another adapter."""
        import httpx

        from ..tasks.store import fingerprint

        name = f"palign-{fingerprint(adapter)[:16]}"
        body = {"lora_name": name, "lora_path": str(adapter.resolve())}
        with httpx.Client(timeout=self.service.timeout) as client:
            for url in self.service.urls:
                if name in (self.service.ask(client, "GET", f"{url}/models", None, _models)[0] or ()):
                    continue  # by an earlier run
                loaded, reason = self.service.ask(client, "POST", f"{url}/load_lora_adapter", body, lambda _: True)
                if not loaded:
                    raise EngineError(
                        f"{url} did not load the adapter ({reason}); start vLLM with --enable-lora and "
                        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 where it sees the run's folder"
                    )
        self.model = name
        self.settings = self.settings | {"lora": True}


def _models(answer) -> dict[str, dict]:
    """The models of a ``/v1/models`` answer by their names."""
    return {model["id"]: model for model in answer.json()["data"]}


def _error(reason: str) -> Completion:
    return Completion("", "endpoint error", 0, 0, reason=reason)


def _read(found: dict) -> int:
    """Tokens not found in the cache, where the server tells (``--enable-prompt-tokens-details``); else all."""
    usage = found["usage"]
    return usage["prompt_tokens"] - ((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
