"""An OpenAI-compatible endpoint, a served vLLM or a commercial teacher or judge: ``endpoint:MODEL`` in the params.

Requests go out several at a time and are repeated, after growing pauses, when the service is busy (429), fails (5xx),
answers garbage, hangs up or is too slow. One that fails for good is its own outcome, ``endpoint error``, and the run
goes on. Several addresses share the work, each prompt always going to the same one.

The key is read from the environment variable ``PALIGN_API_KEY`` when a request is sent, and kept nowhere.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..params import Params
from . import Completion, EngineError, PlainReader, Reader, Sampling

PREFIX = "endpoint:"
KEY = "PALIGN_API_KEY"
BUSY = {408, 409, 429}
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds


class Characters:
    """Stands in for a tokenizer the service does not share: the prompt is its text, a token about four characters."""

    chat_template = "the service's own"
    name_or_path = "endpoint"

    @staticmethod
    def apply_chat_template(messages: list[dict], **_) -> str:
        return messages[0]["content"]

    class _Encoded:
        def __init__(self, input_ids):
            self.input_ids = input_ids

    def __call__(self, text: str | Sequence[str], **_) -> _Encoded:
        if isinstance(text, str):
            return self._Encoded(list(range(-(-len(text) // 4))))
        return self._Encoded([self(one).input_ids for one in text])


class EndpointEngine:
    """``urls``: addresses up to and including ``/v1``. ``pause`` is the first one between two tries, in seconds."""

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        max_model_len: int,
        concurrency: int = 8,
        timeout: float = 600.0,
        retries: int = 6,
        pause: float = FIRST_PAUSE,
    ):
        if not urls:
            raise EngineError(
                f"{PREFIX}{model}: endpoint_urls is empty; name at least one address, such as http://.../v1"
            )
        self.urls, self.model, self.max_model_len = list(urls), model, max_model_len
        self.concurrency, self.timeout, self.retries, self.pause = concurrency, timeout, retries, pause
        self.tokenizer = Characters()

    @classmethod
    def open(cls, params: Params, adapter: Path | None = None) -> EndpointEngine:
        """Raises :class:`EngineError` for an adapter: a service answers with the model it serves."""
        model = params.student.removeprefix(PREFIX)
        if adapter is not None:
            raise EngineError(f"{params.student} cannot be fine-tuned here; a student is a local folder or a hub id")
        return cls(
            params.endpoint_urls,
            model,
            params.max_model_len,
            params.endpoint_concurrency,
            params.endpoint_timeout,
            params.endpoint_retries,
        )

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """One chat completion a prompt; ``finish`` is ``endpoint error`` where every try failed, its text why."""
        import httpx

        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(timeout=self.timeout, limits=limits) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            return list(pool.map(lambda pair: self._one(client, *pair, sampling), zip(prompts, seeds, strict=True)))

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        raise EngineError(f"{PREFIX}{self.model} gives no label log-probabilities; set verdict: decode")

    def reader(self, texts: Sequence[str]) -> Reader:
        return PlainReader(self)

    def _one(self, client, prompt: str, seed: int, sampling: Sampling) -> Completion:
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
        url, reason = self._url(prompt), "never asked"
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(LONGEST_PAUSE, self.pause * 2**attempt) * random.uniform(0.5, 1.0))
            completion, reason, again = self._try(client, url, body)
            if completion is not None:
                return completion
            if not again:
                break
        return Completion(reason, "endpoint error", 0, 0)

    def _url(self, prompt: str) -> str:
        return self.urls[int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % len(self.urls)]

    def _try(self, client, url: str, body: dict) -> tuple[Completion | None, str, bool]:
        """A completion, or why there is none and whether to ask again."""
        import httpx

        key = os.environ.get(KEY)
        try:
            answer = client.post(
                f"{url.rstrip('/')}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"} if key else {},
            )
        except httpx.HTTPError as error:  # refused, dropped, too slow
            return None, type(error).__name__, True
        if answer.status_code != 200:
            return None, f"HTTP {answer.status_code}", answer.status_code in BUSY or answer.status_code >= 500
        try:
            found = answer.json()
            choice, usage = found["choices"][0], found.get("usage") or {}
            message = choice["message"]
            text = message.get("content")
            thoughts = message.get("reasoning_content") or message.get("reasoning")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None, "malformed answer", True
        if thoughts:
            text = f"<think>{thoughts}</think>{text or ''}"
        if not isinstance(text, str) or not text.strip():
            return None, "empty completion", True
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        prompt_tokens, new_tokens = (usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return Completion(text, finish, prompt_tokens, new_tokens), "", False
