"""The transformers engine: any causal language model, on a CPU or a GPU.

Sampling uses one uniform random number per response and step, drawn from the response's own seed, and the inverse of
the cumulative distribution: a response does not depend on its neighbours in the batch, nor on what ran before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..params import Params, resolve
from .base import Completion, PlainReader, Reader, Reading, Sampling, check_safetensors, trusted


class TransformersEngine:
    cache_tokens = None

    def __init__(self, model, tokenizer, max_model_len: int, batch_size: int):
        self.model, self.tokenizer = model, tokenizer
        self.max_model_len, self.batch_size = max_model_len, batch_size

    @classmethod
    def open(cls, params: Params, adapter: Path | None = None) -> TransformersEngine:
        """Load the student named in ``params``. Raises :class:`EngineError` where there is nothing but pickles."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        from ..prompts import render

        logging.disable_progress_bar()  # of loading weights; the stages have their own

        if torch.get_num_threads() != params.threads:
            torch.set_num_threads(params.threads)
        device = params.device if params.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = load_tokenizer(params)
        render(tokenizer, "", params.chat_template_kwargs)  # a missing chat template is better found before the work
        check_safetensors(resolve(params.student))
        model = AutoModelForCausalLM.from_pretrained(
            resolve(params.student),
            revision=params.student_revision,
            dtype=params.dtype,
            use_safetensors=True,
            trust_remote_code=trusted(params),
        )
        if adapter is not None:
            from peft import PeftModel

            check_safetensors(str(adapter))
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        return cls(model.to(device).eval(), tokenizer, params.max_model_len, params.batch_size)

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
        room = self.max_model_len - sampling.max_new_tokens
        done: dict[int, Completion] = {
            i: Completion("", "prompt too long", len(ids), 0) for i, ids in enumerate(encoded) if len(ids) > room
        }
        # neighbours of like length waste the least padding
        todo = sorted((i for i in range(len(prompts)) if i not in done), key=lambda i: len(encoded[i]))
        for start in range(0, len(todo), self.batch_size):
            rows = todo[start : start + self.batch_size]
            outputs = self._generate([encoded[i] for i in rows], sampling, [seeds[i] for i in rows])
            done.update(zip(rows, outputs, strict=True))
        return [done[i] for i in range(len(prompts))]

    def _generate(self, encoded: list[list[int]], sampling: Sampling, seeds: list[int]) -> list[Completion]:
        """Decode one batch. Unlike ``model.generate`` it drops finished rows: of a batch, the longest response is
        often twice the mean, and every finished row would go on being computed until then.
        """
        import torch
        from transformers import DynamicCache

        ends = self._end_ids()
        new: list[list[int]] = [[] for _ in encoded]
        rows = torch.arange(len(encoded))  # which response each line of the batch is
        sampler = _Sampler(sampling, seeds)
        batch = self._pad(encoded)
        read, mask = batch["input_ids"], batch["attention_mask"]
        # padding must not meet the repetition penalty: where it is the end token, company would change a response
        context = torch.where(mask.bool(), read, read[:, -1:])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
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
                if going.float().mean() <= 0.8:  # copying the cache has its price, so not at every end
                    rows, kept = rows[going], going.nonzero()[:, 0].to(context.device)
                    context, mask, positions = context[kept], mask[kept], positions[kept]
                    cache.batch_select_indices(kept)
                read = context[:, -1:]
        return [self._completion(tokens, len(ids)) for ids, tokens in zip(encoded, new, strict=True)]

    def _completion(self, tokens: list[int], prompt_tokens: int) -> Completion:
        stopped = tokens[-1] in self._end_ids()
        kept = tokens[:-1] if stopped else tokens
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, "stop" if stopped else "length", prompt_tokens, len(tokens), kept)

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[list[float] | None]:
        """Each label's tokens are read in place after the prompt; their log-probabilities are summed."""
        tails = [self.tokenizer(label, add_special_tokens=False).input_ids for label in labels]
        encoded = [self.tokenizer(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        fits = [len(ids) + max(map(len, tails)) <= self.max_model_len for ids in encoded]
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
        """Entropy (nats) of the prediction of each token of a response, behind its prompt and the tokens before it.

        One list a response, as long as its tokens; ``None`` where the two do not fit. Teacher-forced, at temperature 1.
        One text at a time: a long one fills the machine, and without company its values are the same in every run.
        """
        found: list[list[float] | None] = []
        for prompt, response in zip(prompts, responses, strict=True):
            head, tail = (self.tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, response))
            fits = len(head) + len(tail) <= self.max_model_len
            # the prediction of a token stands at the one before it
            found.append(self._entropies(head + tail)[len(head) - 1 : -1] if fits else None)
        return found

    def _entropies(self, tokens: list[int]) -> list[float]:
        """Of the prediction at every position, in blocks: all logits of a long text would not fit."""
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
        """One that reads each text once; where the model's attention is not plain, one that reads anew each time."""
        layers = set(getattr(self.model.config, "layer_types", None) or ["full_attention"])
        if layers == {"full_attention"} and self.model.config._attn_implementation in ("sdpa", "eager"):
            return CachedReader(self, texts)
        return PlainReader(self)

    def _pad(self, encoded: list[list[int]]) -> dict:
        """A left-padded batch on the model's device."""
        import torch

        width = max(map(len, encoded))
        ids = torch.full((len(encoded), width), self._pad_id())
        mask = torch.zeros((len(encoded), width), dtype=torch.long)
        for row, tokens in enumerate(encoded):
            ids[row, width - len(tokens) :] = torch.tensor(tokens, dtype=torch.long)
            mask[row, width - len(tokens) :] = 1
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def _pad_id(self) -> int:
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._end_ids()[0]

    def _end_ids(self) -> list[int]:
        """Tokens that end a turn: the generation config's, else the tokenizer's."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({end for end in (*ends, self.tokenizer.eos_token_id) if end is not None})
















class _Sampler:
    """The next token of each row: repetition penalty, temperature, nucleus, then the token at the row's own number."""

    def __init__(self, sampling: Sampling, seeds: list[int]):
        import numpy as np
        import torch
        from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

        self.processors = []
        if sampling.repetition_penalty != 1.0:
            self.processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        self.draws = None
        if sampling.temperature > 0:
            self.processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self.processors.append(TopPLogitsWarper(sampling.top_p))
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
        # scaled by the row's own total, so that a draw close to one cannot fall beyond the last token
        chosen = torch.searchsorted(cumulative, (draw * cumulative[:, -1])[:, None], right=True)
        return chosen.clamp(max=scores.shape[-1] - 1)[:, 0]
