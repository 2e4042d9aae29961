"""OpenAI-compatible endpoints, used in two ways.

``engine: endpoint`` (:class:`ServedEngine`): the study's own model, served by vLLM at ``endpoint_urls`` under the name
that the params give it. Prompts are tokenised here and sent as token ids, so the servers get what the other engines
get, label log-probabilities, seeds, budgets and adapters included.

``endpoint:MODEL`` as a model's name (:class:`ChatEngine`): a service that chats, such as a commercial teacher or judge.

Several requests are sent at once, over connections that are kept open. One is repeated, after growing pauses and no
earlier than the service asks for (``Retry-After``), when the service is busy (429), fails (5xx), sends a malformed
answer, closes the connection or is too slow. One that fails for good is recorded as ``endpoint error``, and the run
goes on. An address that takes no connection is waited for: its server may be starting. The run stops where no request
would be answered: at a refused key (401, 403), and at an address that takes no connection for ten minutes.

Several addresses share the work: a prompt is always sent to the same one, and a trace's nested prompts to one together,
so that the server finds their beginning in its cache.

The key is read from the environment variable ``PALIGN_API_KEY`` when a request is sent, and is never stored.
"""

from __future__ import annotations

import hashlib
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
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
WAIT, SLOWEST = 300.0, 5.0
"""A request is too slow after ``WAIT`` seconds, in which it waits its turn and its prompt is read, and the time of all
the tokens that it asks for at ``SLOWEST`` tokens a second: an hour for 16,384 tokens. A server writes 20 or more.
"""
CONNECT = 10.0  # seconds until an address takes a connection
OUTAGE, OUTAGE_PAUSE = 600.0, 5.0
"""Seconds for which an address that takes no connection is asked again, and the pauses between. A vLLM server of a
large model starts in some minutes. A longer ``Retry-After`` is not waited for.
"""
RETRIES = 6
"""Tries after the first. Their pauses add up to 30 to 60 seconds, the usual length of rate limits."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds


class Malformed(ValueError):
    """An answer with status 200 that cannot be used; the message says why."""


@dataclass(frozen=True)
class Fault:
    """Why there is no answer. ``again``: asking again may help. ``away``: the address takes no connection. ``wait``:
    the seconds for which the service asks.
    """

    reason: str
    again: bool = True
    away: bool = False
    wait: float = 0.0


class Service:
    """The addresses of one service, and how they are asked.

    ``urls``: addresses up to and including ``/v1``. ``concurrency``: requests at once. ``retries``: tries after the
    first. Before the n-th retry the pause is at most ``pause * 2**n`` seconds.
    """

    def __init__(self, urls: Sequence[str], concurrency: int, retries: int, pause: float = FIRST_PAUSE):
        self.urls = [url.rstrip("/") for url in urls]
        self.concurrency, self.retries, self.pause = concurrency, retries, pause
        self.away: set[str] = set()  # addresses that take no connection at present

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
        return cls(machine.endpoint_urls, machine.endpoint_concurrency, RETRIES)

    @cached_property
    def client(self):
        """The one HTTP client of all requests, which keeps its connections open between them."""
        import httpx

        # as many connections as there are requests at once
        return httpx.Client(limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency))

    def close(self) -> None:
        self.client.close()
        del self.client

    def url(self, shard: str) -> str:
        """The address that a shard is always sent to."""
        return self.urls[int.from_bytes(hashlib.sha256(shard.encode()).digest()[:4], "big") % len(self.urls)]

    def post_each(
        self, path: str, requests: Sequence[tuple[str, dict]], parse: Callable[[dict], Any]
    ) -> Iterator[tuple[int, Any, str]]:
        """Ask all (shard, body) pairs. Yields, as they are answered, the index, what ``parse`` makes of the JSON answer
        and an empty reason, or ``None`` and the reason.

        Raises :class:`EngineStopped` where no request would be answered. Requests that are not sent when the caller
        stops, or Ctrl-C comes, are not sent any more, and nothing waits for those that are: their threads are daemons.
        """
        todo, done, stop = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
        for item in enumerate(requests):
            todo.put(item)

        def work() -> None:
            while not stop.is_set():
                try:
                    i, (shard, body) = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    value, reason = self.ask(
                        "POST", self.url(shard) + path, body, lambda answer: parse(answer.json()), stop
                    )
                    done.put((i, value, reason))
                except BaseException as error:
                    done.put(error)

        for _ in range(min(self.concurrency, len(requests))):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in requests:
                found = done.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stop.set()

    def ask(
        self, method: str, url: str, body: dict | None, parse: Callable, stop: threading.Event | None = None
    ) -> tuple[Any, str]:
        """Ask until there is an answer, an error that a retry cannot fix, no retry left, or ``stop`` is set.

        ``parse`` turns the HTTP response into the value. Returns it and an empty reason, or ``None`` and the reason.
        Raises :class:`EngineStopped`, and sets ``stop``, where no request would be answered.
        """
        reason, tries, gone, stop = "never asked", 0, None, stop or threading.Event()
        while not stop.is_set():
            value, fault = self._try(method, url, body, parse)
            if fault is None:
                return value, ""
            reason, gone = fault.reason, (gone or time.monotonic()) if fault.away else None
            if why := self._lasting(fault, gone):
                stop.set()
                raise EngineStopped(f"{url}: {reason}: {why}")
            tries += not fault.away
            if not fault.again or tries > self.retries:
                break
            pause = OUTAGE_PAUSE if fault.away else min(LONGEST_PAUSE, self.pause * 2**tries)
            stop.wait(fault.wait + pause * random.uniform(0.5, 1.0))
        return None, reason

    @staticmethod
    def _lasting(fault: Fault, gone: float | None) -> str:
        """Why the service would answer no request, if it would not. ``gone``: since when it takes no connection."""
        if fault.reason in REFUSED:
            known = os.environ.get(KEY, "").strip()
            why = f"refuses the key; set {KEY}" if known else f"asks for a key and {KEY} is not set; set it"
            return f"the service {why}"
        if gone is not None and time.monotonic() - gone >= OUTAGE:
            return f"no connection for {OUTAGE:.0f} s; start the server and run the study again to continue"
        if fault.wait > OUTAGE:
            return f"the service asks to wait {fault.wait:.0f} s; run the study again then to continue"
        return ""

    def _try(self, method: str, url: str, body: dict | None, parse: Callable) -> tuple[Any, Fault | None]:
        """A value, or the fault. Its reason never quotes the service's answer: some services repeat the key in it."""
        import httpx

        key = os.environ.get(KEY, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        seconds = 30.0 if body is None else WAIT + body.get("max_tokens", 0) / SLOWEST
        timeout = httpx.Timeout(seconds, connect=CONNECT)
        address = url.partition("/v1")[0]
        try:
            answer = self.client.request(method, url, json=body, headers=headers, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if address not in self.away:
                self.away.add(address)
                print(f"{address} takes no connection; asking again for {OUTAGE / 60:.0f} minutes", file=sys.stderr)
            return None, Fault(type(error).__name__, away=True)
        except httpx.HTTPError as error:  # dropped, too slow
            return None, Fault(type(error).__name__)
        self.away.discard(address)
        status = answer.status_code
        if status != 200:
            wait = _retry_after(answer.headers.get("Retry-After", ""))
            return None, Fault(f"HTTP {status}", again=status in BUSY or status >= 500, wait=wait)
        try:
            return parse(answer), None
        except Malformed as error:
            return None, Fault(str(error))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return None, Fault("malformed answer")


def _retry_after(said: str) -> float:
    """Seconds that a ``Retry-After`` header asks for, by a number of them or a date (RFC 9110, 10.2.3); 0 if none."""
    try:
        return max(0.0, float(said)) if said.strip().isdecimal() else max(0.0, _until(parsedate_to_datetime(said)))
    except ValueError:
        return 0.0


def _until(date: datetime) -> float:
    return (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


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

    def close(self) -> None:
        super().close()
        self.service.close()

    def stream(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], shards: Sequence[str] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """One chat completion per prompt; ``finish`` is ``endpoint error`` if every try failed. Prompts of one shard go
        to one address; without ``shards``, each is its own.
        """
        bodies = [self._body(prompt, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        requests = list(zip(shards or prompts, bodies, strict=True))
        for i, completion, reason in self.service.post_each("/chat/completions", requests, self._completion):
            yield i, completion or _error(reason)

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
        prompts, shards = [prompt for _, prompt in asked], [self.texts[i] for i, _ in asked]
        found = dict(self.engine.stream(prompts, Sampling(max_new_tokens), [0] * len(asked), shards))
        completions = [found[i] for i in range(len(asked))]
        return [Reading(c, 0, c.prompt_tokens, c.prompt_tokens, c.reason) for c in completions]


class ServedEngine(TokenEngine):
    """The study's own model at one or more vLLM servers, asked by token ids through ``/v1/completions``."""

    def __init__(self, source: Model, service: Service, tokenizer):
        self.source, self.service, self.tokenizer = source, service, tokenizer
        self.model, self.adapter = source.name, None  # what requests name: the model, or an adapter once it is loaded
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

    def close(self) -> None:
        super().close()
        self.service.close()

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        wish = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1}
        bodies = [(r.shard, self._body(r, wish | {"allowed_token_ids": [r.token]})) for r in requests]

        def parse(found: dict) -> Answer:
            return Answer(float(found["choices"][0]["logprobs"]["token_logprobs"][0]), _read(found))

        found = {i: (answer, reason) for i, answer, reason in self._ask(bodies, parse)}
        return [
            answer or Answer(float("nan"), 0, f"endpoint error: {reason}")
            for answer, reason in (found[i] for i in range(len(requests)))
        ]

    def finished(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        """A ``Completion`` for each request as it is answered, with the request's index."""
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
        for i, answer, reason in self._ask(bodies, parse):
            yield i, answer or Answer(_error(reason), 0, reason)

    def _ask(self, bodies: Sequence[tuple[str, dict]], parse: Callable) -> Iterator[tuple[int, Any, str]]:
        """:meth:`Service.post_each`. A server that was started again has forgotten the adapter: it is then loaded anew,
        and what was not found is asked again.
        """
        lost = []
        for i, answer, reason in self.service.post_each("/completions", bodies, parse):
            if reason == "HTTP 404" and self.adapter:
                lost.append(i)
            else:
                yield i, answer, reason
        if lost:
            self._load(self.adapter)
            for at, answer, reason in self.service.post_each("/completions", [bodies[i] for i in lost], parse):
                yield lost[at], answer, reason

    def _body(self, request: Request, wish: dict) -> dict:
        """States every sampling parameter: a server takes missing ones from the model's generation config, and Qwen's
        has top_k 20.
        """
        neutral = {"top_k": 0, "min_p": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
        neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
        return neutral | wish | {"model": self.model, "prompt": request.ids}

    def _check(self) -> None:
        """Ask every address which models it serves, before any work, and keep the answers for the manifest."""
        served = []
        for url in self.service.urls:
            models, reason = self.service.ask("GET", f"{url}/models", None, _models)
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
            version, _ = self.service._try("GET", at, None, lambda a: str(a.json()["version"])[:40])
            served.append({"version": version, "max_model_len": longest})
        self.settings = self.settings | {"servers": served}

    def _load(self, adapter: Path) -> None:
        """Load the adapter on every server. Its name is a hash of its content, so a changed adapter is loaded again."""
        name = f"palign-{fingerprint(adapter)[:16]}"
        body = {"lora_name": name, "lora_path": str(adapter.resolve())}
        for url in self.service.urls:
            if name in (self.service.ask("GET", f"{url}/models", None, _models)[0] or ()):
                continue  # an earlier run loaded it
            loaded, reason = self.service.ask("POST", f"{url}/load_lora_adapter", body, lambda _: True)
            if not loaded:
                raise EngineError(
                    f"{url} did not load the adapter ({reason}); start vLLM with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 where it sees the run's folder"
                )
        self.model, self.adapter = name, adapter
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
