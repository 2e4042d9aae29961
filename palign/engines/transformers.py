"""The transformers engine: any causal language model, on a CPU or a GPU.

Sampling uses one uniform random number per response and step, drawn from the response's own seed, and the inverse of
the cumulative distribution: a response does not depend on its neighbours in the batch, nor on earlier calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..params import Machine, Model
from ..prompts import render
from .base import Completion, Engine, PlainReader, Reader, Sampling, check_safetensors
from .cached import CachedReader, check_numbers
from .labels import completion_of
from .tokenizers import load_tokenizer


class TransformersEngine(Engine):
    """``model``: the loaded weights. ``batch_size``: prompts decoded at once."""

    def __init__(self, source: Model, model, tokenizer, batch_size: int):
        self.source, self.model, self.tokenizer, self.batch_size = source, model, tokenizer, batch_size

    @classmethod
    def open(cls, model: Model, machine: Machine, adapter: Path | None = None) -> TransformersEngine:
        """Load the model, with the adapter merged into it. Raises :class:`EngineError` for weights that are pickles."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # of loading weights; the stages have their own

        if torch.get_num_threads() != machine.threads:
            torch.set_num_threads(machine.threads)
        device = machine.device if machine.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = load_tokenizer(model)
        render(tokenizer, "", model.chat_template_kwargs)  # without a chat template, fail before the weights are loaded
        check_safetensors(model.path)
        loaded = AutoModelForCausalLM.from_pretrained(
            model.path,
            revision=model.revision,
            dtype=model.dtype,
            use_safetensors=True,
            trust_remote_code=model.trusted,
        )
        if adapter is not None:
            from peft import PeftModel

            check_safetensors(str(adapter))
            loaded = PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload()
        return cls(model, loaded.to(device).eval(), tokenizer, machine.batch_size)

    def close(self) -> None:
        """Give the device's memory back; the engine cannot be used afterwards."""
        import gc

        import torch

        del self.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def settings(self) -> dict:
        return {
            "engine": "transformers",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "attention": self.model.config._attn_implementation,
        }

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        encoded = [self.tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        room = self.source.max_model_len - sampling.max_new_tokens
        done: dict[int, Completion] = {
            i: Completion("", "prompt too long", len(ids), 0) for i, ids in enumerate(encoded) if len(ids) > room
        }
        # prompts of similar length in one batch need the least padding
        todo = sorted((i for i in range(len(prompts)) if i not in done), key=lambda i: len(encoded[i]))
        for start in range(0, len(todo), self.batch_size):
            rows = todo[start : start + self.batch_size]
            outputs = self._generate([encoded[i] for i in rows], sampling, [seeds[i] for i in rows])
            done.update(zip(rows, outputs, strict=True))
        return [done[i] for i in range(len(prompts))]

    def _generate(self, encoded: list[list[int]], sampling: Sampling, seeds: list[int]) -> list[Completion]:
        """Decode one batch. Unlike ``model.generate``, this drops finished rows: the longest response of a batch is
        often twice as long as the mean, and ``model.generate`` computes every row until the last one ends.
        """
        import torch

        ends = self.end_ids()
        new: list[list[int]] = [[] for _ in encoded]
        rows = torch.arange(len(encoded))  # which response each line of the batch is
        sampler = _Sampler(sampling, seeds)
        batch = self._pad(encoded)
        read, mask = batch["input_ids"], batch["attention_mask"]
        # the repetition penalty must not see padding: where the padding token is the end token, a response would depend
        # on the other prompts of its batch
        context = torch.where(mask.bool(), read, read[:, -1:])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = _growing_cache(self.model.config)
        with torch.inference_mode():
            for step in range(sampling.max_new_tokens):
                logits = self.model(
                    read, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
                ).logits[:, -1]
                check_numbers(logits)
                tokens = sampler(context, logits.float(), rows, step)
                for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                    if not new[row] or new[row][-1] not in ends:
                        new[row].append(token)
                going = torch.tensor([new[row][-1] not in ends for row in rows.tolist()])
                if not going.any():
                    break
                context = torch.cat([context, tokens[:, None]], dim=-1)
                mask = torch.cat([mask, torch.ones_like(tokens[:, None])], dim=-1)
                positions = positions[:, -1:] + 1
                if going.float().mean() <= 0.8:  # not at every end, since dropping rows copies the cache
                    rows, kept = rows[going], going.nonzero()[:, 0].to(context.device)
                    context, mask, positions = context[kept], mask[kept], positions[kept]
                    cache.batch_select_indices(kept)
                read = context[:, -1:]
        return [self.completion(tokens, len(ids)) for ids, tokens in zip(encoded, new, strict=True)]

    def completion(self, tokens: list[int], prompt_tokens: int) -> Completion:
        """The completion that the decoded ``tokens`` make, including the stop token if there is one."""
        return completion_of(self.tokenizer, prompt_tokens, tokens, stopped=tokens[-1] in self.end_ids())

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        """The sum of the log-probabilities of each label's tokens, read after the prompt."""
        tails = [self.tokenizer(label, add_special_tokens=False).input_ids for label in labels]
        encoded = [self.tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        fits = [len(ids) + max(map(len, tails)) <= self.source.max_model_len for ids in encoded]
        todo = sorted((i for i, fit in enumerate(fits) if fit), key=lambda i: len(encoded[i]))
        done: dict[int, list[float]] = {}
        step = max(1, self.batch_size // len(labels))
        for start in range(0, len(todo), step):
            rows = todo[start : start + step]
            done.update(zip(rows, self._choose([encoded[i] for i in rows], tails), strict=True))
        return [done.get(i) for i in range(len(prompts))]

    def _choose(self, encoded: list[list[int]], tails: list[list[int]]) -> list[list[float]]:
        import torch

        batch = self._pad([ids + tail for ids in encoded for tail in tails])
        longest = max(map(len, tails))
        with torch.inference_mode():
            positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            output = self.model(**batch, position_ids=positions, logits_to_keep=longest + 1, use_cache=False)
        logits = output.logits.float()
        logprobs = logits.log_softmax(-1)
        sums = []
        for row, tail in enumerate(tails * len(encoded)):
            at = torch.arange(longest - len(tail), longest)
            sums.append(logprobs[row, at, torch.tensor(tail)].sum().item())
        return [sums[i : i + len(tails)] for i in range(0, len(sums), len(tails))]

    LOGITS = 2**28  # held at once by entropies: a GiB in float32

    def entropies(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[float] | None]:
        """Entropy (nats) of the prediction of each token of a response, given its prompt and the tokens before it.

        One list per response, as long as its tokens; ``None`` if the two do not fit. Teacher-forced, at temperature 1.
        The texts go through the model one at a time: values then do not depend on the batch, and one long text is
        enough work for the machine.
        """
        found: list[list[float] | None] = []
        for prompt, response in zip(prompts, responses, strict=True):
            head, tail = (self.tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, response))
            fits = len(head) + len(tail) <= self.source.max_model_len
            # the output at each token predicts the next one
            found.append(self._entropies(head + tail)[len(head) - 1 : -1] if fits else None)
        return found

    def _entropies(self, tokens: list[int]) -> list[float]:
        """Entropy of each position's prediction, in blocks: all logits of a long text do not fit into memory."""
        import torch
        from transformers import DynamicCache

        ids = torch.tensor([tokens], device=self.model.device)
        block = max(1, self.LOGITS // self.model.config.vocab_size)
        cache, parts = DynamicCache(config=self.model.config), []
        with torch.inference_mode():
            for start in range(0, len(tokens), block):
                logits = self.model(ids[:, start : start + block], past_key_values=cache, use_cache=True).logits[0]
                parts.append(torch.special.entr(logits.float().softmax(-1)).sum(-1))
        return torch.cat(parts).tolist()

    def reader(self, texts: Sequence[str]) -> Reader:
        """A reader that caches each text; where some layers have other than full attention, one without a cache."""
        layers = set(getattr(self.model.config, "layer_types", None) or ["full_attention"])
        if layers == {"full_attention"} and self.model.config._attn_implementation in ("sdpa", "eager"):
            return CachedReader(self, texts)
        return PlainReader(self)

    def _pad(self, encoded: list[list[int]]) -> dict:
        """A left-padded batch on the model's device."""
        import torch

        width = max(map(len, encoded))
        ids = torch.full((len(encoded), width), self.pad_id())
        mask = torch.zeros((len(encoded), width), dtype=torch.long)
        for row, tokens in enumerate(encoded):
            ids[row, width - len(tokens) :] = torch.tensor(tokens, dtype=torch.long)
            mask[row, width - len(tokens) :] = 1
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def pad_id(self) -> int:
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids()[0]

    def end_ids(self) -> list[int]:
        """Stop tokens: those of the generation config and the tokenizer's."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({end for end in (*ends, self.tokenizer.eos_token_id) if end is not None})


def _growing_cache(config):
    """A ``DynamicCache`` whose layers write into memory with room to spare: the library's copies all keys and values at
    every token.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class Growing(DynamicLayer):
        ROOM = 64  # tokens
        memory = None

        def update(self, keys, values, *args, **kwargs):
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
            held = self.get_seq_length()
            total = held + keys.shape[-2]
            if self.memory is None or self.memory[0].shape[-2] < total:
                grown = [new.new_empty(*new.shape[:2], total + self.ROOM, new.shape[-1]) for new in (keys, values)]
                for memory, old in zip(grown, (self.keys, self.values) if held else (), strict=False):
                    memory[:, :, :held] = old
                self.memory = grown
            for memory, new in zip(self.memory, (keys, values), strict=True):
                memory[:, :, held:total] = new
            self.keys, self.values = (memory[:, :, :total] for memory in self.memory)
            return self.keys, self.values

        def batch_select_indices(self, indices):
            super().batch_select_indices(indices)
            self.memory = None  # the rows were copied elsewhere

    cache = DynamicCache(config=config)
    cache.layers = [Growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


NUCLEUS = 32
"""Tokens among which a nucleus is looked for first: sorting the whole vocabulary takes five times as long."""


def nucleus(scores, top_p: float):
    """Logits of shape (rows, vocabulary) with ``-inf`` outside of each row's nucleus: the fewest tokens, the likeliest
    first, whose probabilities reach ``top_p`` (Holtzman et al. 2020, arXiv 1904.09751), and those as likely as the last
    of them. Without ties it is transformers' ``TopPLogitsWarper``.
    """
    import torch
    from transformers import TopPLogitsWarper

    probabilities = scores.softmax(-1)
    likeliest = probabilities.topk(min(NUCLEUS, scores.shape[-1]), dim=-1).values
    before = likeliest.cumsum(-1) - likeliest
    least = likeliest.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
    found = scores.masked_fill(probabilities < least, -torch.inf)
    wider = likeliest.sum(-1) < top_p
    if wider.any():
        found[wider] = TopPLogitsWarper(top_p)(None, scores[wider])
    return found


class _Sampler:
    """The next token of each row: repetition penalty, temperature, nucleus, then the inverse distribution at the row's
    own random number.
    """

    def __init__(self, sampling: Sampling, seeds: list[int]):
        import numpy as np
        import torch
        from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper

        self.processors = []
        if sampling.repetition_penalty != 1.0:
            self.processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        self.draws = None
        if sampling.temperature > 0:
            self.processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self.processors.append(lambda _, scores: nucleus(scores, sampling.top_p))
            draws = [np.random.default_rng(seed).random(sampling.max_new_tokens) for seed in seeds]
            self.draws = torch.from_numpy(np.stack(draws))

    def __call__(self, context, scores, rows, step: int):
        """``context``: ids so far (padding replaced); ``scores``: raw logits; ``rows``: each line's seed index."""
        import torch

        for processor in self.processors:
            scores = processor(context, scores)
        if self.draws is None:
            return scores.argmax(-1)
        cumulative = scores.double().softmax(-1).cumsum(-1)
        draw = self.draws[rows, step].to(scores.device)
        # scaled by the row's total, which rounding leaves a little off one: no draw falls beyond the last token
        chosen = torch.searchsorted(cumulative, (draw * cumulative[:, -1])[:, None], right=True)
        return chosen.clamp(max=scores.shape[-1] - 1)[:, 0]
