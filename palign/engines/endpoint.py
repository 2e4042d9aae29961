"""OpenAI-compatible endpoints, used in two ways.

``engine: endpoint`` (:class:`ServedEngine`): the study's own model, served by vLLM at ``endpoint_urls`` under the name
that the params give it. Prompts are tokenised here and sent as token ids, so the servers get what the other engines
get, label log-probabilities, seeds, budgets and adapters included.

``endpoint:MODEL`` as a model's name (:class:`ChatEngine`): a service that chats, such as a commercial teacher or judge.

Several requests are sent at once. One is repeated, after growing pauses, when the service is busy (429), fails (5xx),
sends a malformed answer, closes the connection or is too slow. One that fails for good is recorded as ``endpoint
error``, and the run goes on. A refused key (401, 403) stops the run at once: no request would be answered. Several
addresses share the work: a prompt is always sent to the same one, and a trace's
nested prompts to one together, so that the server finds their beginning in its cache.

The key is read from the environment variable ``PALIGN_API_KEY`` when a request is sent, and is never stored.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ..params import SERVICE, Machine, Model
from ..prompts import render
from ..tasks.store import fingerprint
from .base import Completion, Engine, EngineError, EngineStopped, Reader, Reading, Sampling
from .labels import Answer, Request, TokenEngine, completion_of
from .tokenizers import Characters, load_tokenizer

KEY = "PALIGN_API_KEY"
BUSY = {408, 409, 429}
REFUSED = ("HTTP 401", "HTTP 403")
TIMEOUT = 600.0
"""Seconds until a request counts as too slow. The OpenAI client uses the same value: a busy server needs minutes for a
long response.
"""
RETRIES = 6
"""Tries after the first. Their pauses add up to 30 to 60 seconds, the usual length of rate limits and short outages."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds


class Malformed(ValueError):
    """An answer with status 200 that cannot be used; the message says why."""


class Service:
    """The addresses of one service, and how they are asked.

    ``urls``: addresses up to and including ``/v1``. ``concurrency``: requests at once. ``timeout``: seconds per
    request. ``retries``: tries after the first. Before the n-th retry the pause is at most ``pause * 2**n`` seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        concurrency: int,
        timeout: float,
        retries: int,
        pause: float = FIRST_PAUSE,
    ):
        self.urls = [url.rstrip("/") for url in urls]
        self.concurrency, self.timeout, self.retries, self.pause = concurrency, timeout, retries, pause

    @classmethod
    def of(cls, machine: Machine, name: str) -> Service:
        """The service at the machine's addresses; ``name`` is the model's, for the message.

        Raises :class:`EngineError` without an address, or with a key that no HTTP header can carry.
        """
        if not machine.endpoint_urls:
            raise EngineError(f"{name}: endpoint_urls is empty; name at least one address, such as http://.../v1")
        key = os.environ.get(KEY, "").strip()
        if not (key.isascii() and key.isprintable()):  # the HTTP library's own message would quote it
            raise EngineError(f"{KEY} holds characters that an HTTP header cannot carry; set it again")
        return cls(machine.endpoint_urls, machine.endpoint_concurrency, TIMEOUT, RETRIES)

    def url(self, shard: str) -> str:
        """The address that a shard is always sent to."""
        return self.urls[int.from_bytes(hashlib.sha256(shard.encode()).digest()[:4], "big") % len(self.urls)]

    def post_all(
        self, path: str, requests: Sequence[tuple[str, dict]], parse: Callable[[dict], Any]
    ) -> list[tuple[Any, str]]:
        """For each (shard, body), in the order asked: what ``parse`` makes of the JSON answer and an empty reason, or
        ``None`` and the reason.

        Raises :class:`EngineStopped` where the service refuses the key; requests not yet sent are then not sent.
        """
        import httpx

        limits, stop = httpx.Limits(max_connections=self.concurrency), threading.Event()
        with (
            httpx.Client(timeout=self.timeout, limits=limits) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):

            def one(request: tuple[str, dict]) -> tuple[Any, str]:
                shard, body = request
                url = self.url(shard) + path
                return self.ask(client, "POST", url, body, lambda answer: parse(answer.json()), stop)

            futures = [pool.submit(one, request) for request in requests]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)  # in the order asked, a slow request could hide a refusal
                return [future.result() for future in futures]
            finally:  # also where the user interrupts: without it, the pool would work off its queue first
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def ask(
        self,
        client,
        method: str,
        url: str,
        body: dict | None,
        parse: Callable,
        stop: threading.Event | None = None,
    ) -> tuple[Any, str]:
        """Ask until there is an answer, an error that a retry cannot fix, no retry left, or ``stop`` is set.

        ``parse`` turns the HTTP response into the value. Returns it and an empty reason, or ``None`` and the reason.
        Raises :class:`EngineStopped`, and sets ``stop``, where the service refuses the key.
        """
        reason, stop = "never asked", stop or threading.Event()
        for attempt in range(self.retries + 1):
            pause = min(LONGEST_PAUSE, self.pause * 2**attempt) * random.uniform(0.5, 1.0)
            if stop.wait(pause) if attempt else stop.is_set():
                break
            value, reason, again = self._try(client, method, url, body, parse)
            if value is not None:
                return value, ""
            if reason in REFUSED:
                stop.set()
                known = os.environ.get(KEY, "").strip()
                why = f"refuses the key; set {KEY}" if known else f"asks for a key and {KEY} is not set; set it"
                raise EngineStopped(f"{url}: {reason}: the service {why}")
            if not again:
                break
        return None, reason

    def _try(self, client, method: str, url: str, body: dict | None, parse: Callable) -> tuple[Any, str, bool]:
        """A value, the reason where there is none, and whether to ask again. A reason never quotes the service's
        answer: some services repeat the key in it.
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


class ChatEngine(Engine):
    """A service that chats, through ``/v1/chat/completions``: verdicts by decoding, token counts as the service gives
    them, no token ids.
    """

    def __init__(self, source: Model, service: Service):
        self.source, self.service, self.tokenizer = source, service, Characters()
        self.model = source.name.removeprefix(SERVICE)

    @classmethod
    def open(cls, model: Model, machine: Machine, adapter: Path | None = None) -> ChatEngine:
        """Raises :class:`EngineError` for an adapter, which such a service cannot load."""
        if adapter is not None:
            raise EngineError(f"{model.name} cannot be fine-tuned here; a student is a local folder or a hub id")
        return cls(model, Service.of(machine, model.name))

    @property
    def settings(self) -> dict:
        return {"engine": "endpoint", "path": "chat/completions", "model": self.model}

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One chat completion per prompt; ``finish`` is ``endpoint error`` if every try failed."""
        return self._generate(prompts, sampling, seeds, prompts)

    def _generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], shards: Sequence[str]
    ) -> list[Completion]:
        bodies = [self._body(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        found = self.service.post_all("/chat/completions", list(zip(shards, bodies, strict=True)), self._completion)
        return [completion or _error(reason) for completion, reason in found]

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        raise EngineError(f"{self.source.name} gives no label log-probabilities; set verdict: decode")

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
    """Decoded verdicts; all prompts of a text are sent to one address."""

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


class ServedEngine(TokenEngine):
    """The study's own model at one or more vLLM servers, asked by token ids through ``/v1/completions``."""

    def __init__(self, source: Model, service: Service, tokenizer):
        self.source, self.service, self.tokenizer = source, service, tokenizer
        self.model = source.name  # what requests name: the model, or an adapter once it is loaded
        self.settings = {"engine": "endpoint", "path": "completions", "model": self.model, "lora": False}

    @classmethod
    def open(cls, model: Model, machine: Machine, adapter: Path | None = None) -> ServedEngine:
        """Raises :class:`EngineError` where an address does not serve the model, or only with a shorter context.

        An adapter is loaded by the servers, which must see its folder and must have been started with ``--enable-lora``
        and ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``.
        """
        tokenizer = load_tokenizer(model)
        render(tokenizer, "", model.chat_template_kwargs)  # without a chat template, fail before any request
        engine = cls(model, Service.of(machine, model.name), tokenizer)
        engine._check()
        if adapter is not None:
            engine._load(Path(adapter))
        return engine

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
        """States every sampling parameter: a server takes missing ones from the model's generation config, and Qwen's
        has top_k 20.
        """
        neutral = {"top_k": 0, "min_p": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
        neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
        return neutral | wish | {"model": self.model, "prompt": request.ids}

    def _check(self) -> None:
        """Ask every address which models it serves, before any work, and keep the answers for the manifest."""
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
                wanted = self.source.max_model_len
                longest = ours.get("max_model_len") or wanted
                if longest < wanted:
                    raise EngineError(f"max_model_len: {url} serves {longest} tokens, not {wanted}")
                at = f"{url.removesuffix('/v1')}/version"  # vLLM's own address; version is None for another service
                version, *_ = self.service._try(client, "GET", at, None, lambda a: str(a.json()["version"])[:40])
                served.append({"version": version, "max_model_len": longest})
        self.settings = self.settings | {"servers": served}

    def _load(self, adapter: Path) -> None:
        """Load the adapter on every server. Its name is a hash of its content, so a changed adapter is loaded again."""
        import httpx

        name = f"palign-{fingerprint(adapter)[:16]}"
        body = {"lora_name": name, "lora_path": str(adapter.resolve())}
        with httpx.Client(timeout=self.service.timeout) as client:
            for url in self.service.urls:
                if name in (self.service.ask(client, "GET", f"{url}/models", None, _models)[0] or ()):
                    continue  # an earlier run loaded it
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
    """Prompt tokens not found in the cache; all of them where the server does not report it
    (``--enable-prompt-tokens-details``).
    """
    usage = found["usage"]
    return usage["prompt_tokens"] - ((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
