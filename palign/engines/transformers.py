"""The transformers engine: any causal language model, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..params import Machine, Model
from ..prompts import render
from .base import Completion, Engine, PlainReader, Reader, Sampling, check_safetensors
from .cached import CachedReader
from .decoding import Row, decode, padded, plain_attention
from .labels import Label, completion_of, label_ids
from .memory import cache_bytes_per_token, free_bytes, release
from .tokenizers import load_tokenizer


class TransformersEngine(Engine):
    """``model``: the loaded weights. ``batch_size``: prompts decoded at once, at most."""

    def __init__(self, source: Model, model, tokenizer, batch_size: int):
        self.source, self.model, self.tokenizer, self.batch_size = source, model, tokenizer, batch_size

    @classmethod
    def open(cls, model: Model, machine: Machine, adapter: Path | None = None) -> TransformersEngine:
        """Load the model with the adapter. Raises :class:`EngineError` for weights that are pickles.

        In float32 the adapter is merged. In a half type it stays beside the weights, as in vLLM: the weights' rounding
        would swallow most of a small update.
        """
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
            adapted = PeftModel.from_pretrained(loaded, str(adapter))  # puts the adapter's layers into the model
            loaded = adapted.merge_and_unload() if loaded.dtype == torch.float32 else loaded
        return cls(model, loaded.to(device).eval(), tokenizer, machine.batch_size)

    def close(self) -> None:
        """Give the device's memory back; the engine cannot be used afterwards."""
        super().close()
        del self.model
        release()

    @property
    def settings(self) -> dict:
        return {
            "engine": "transformers",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "attention": self.model.config._attn_implementation,
        }

    def stream(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        rows, room = [], self.source.max_model_len - sampling.max_new_tokens
        for i, prompt in enumerate(prompts):
            ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
            if len(ids) > room:
                yield i, Completion("", "prompt too long", len(ids), 0)
            else:
                rows.append(Row(i, ids, seeds[i]))
        for row, fault in decode(self.model, rows, sampling, self.end_ids(), self.pad_id(), self.batch_size):
            length = len(row.prompt)
            failed = Completion("", "engine error", length, 0, reason=fault)
            yield row.index, failed if fault else self.completion(row.new, length)

    def completion(self, tokens: list[int], prompt_tokens: int) -> Completion:
        """The completion that the decoded ``tokens`` make, including the stop token if there is one."""
        return completion_of(self.tokenizer, prompt_tokens, tokens, stopped=tokens[-1] in self.end_ids())

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values fit into free memory."""
        return free_bytes(self.model.device) // cache_bytes_per_token(self.model.config, self.model.dtype)

    def choose(self, prompts: Sequence[str], labels: Sequence[Label]) -> list[list[float] | None]:
        """The sum of the log-probabilities of each label's tokens, read after the prompt."""
        tails = label_ids(self.tokenizer, labels)
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

        # a label's last token is only scored, so labels that differ in it only share a row
        heads = list(dict.fromkeys(tuple(tail[:-1]) for tail in tails))
        batch = self._pad([[*ids, *head] for ids in encoded for head in heads])
        longest = max(map(len, tails))
        with torch.inference_mode():
            positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            output = self.model(**batch, position_ids=positions, logits_to_keep=longest, use_cache=False)
        logprobs = output.logits.float().log_softmax(-1)
        sums = []
        for number in range(len(encoded)):
            for tail in tails:
                row = number * len(heads) + heads.index(tuple(tail[:-1]))
                sums.append(logprobs[row, torch.arange(-len(tail), 0), torch.tensor(tail)].sum().item())
        return [sums[i : i + len(tails)] for i in range(0, len(sums), len(tails))]

    LOGITS = 2**28  # held at once by entropies and likelihoods: a GiB in float32

    def entropies(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[float] | None]:
        """Entropy (nats) of the prediction of each token of a response, given its prompt and the tokens before it.

        One list per response, as long as its tokens; ``None`` if the two do not fit. Teacher-forced, at temperature 1.
        The texts go through the model one at a time: values then do not depend on the batch, and one long text is
        enough work for the machine.
        """
        import torch

        def entropy(logits, _):
            return torch.special.entr(logits.softmax(-1)).sum(-1)

        return [values and values[0] for values in self._along(prompts, responses, entropy)]

    def likelihoods(self, prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[list, list] | None]:
        """Log-probability (nats) and rank of each token of a response: two lists. Read as :meth:`entropies` reads.

        The rank is 1 for the likeliest token: one more than there are tokens of a larger logit.
        """
        import torch

        def likelihood(logits, tokens):
            own = logits.gather(-1, tokens[:, None])
            ranks = 1 + (logits > own).sum(-1)
            return torch.stack([own[:, 0].double() - logits.logsumexp(-1).double(), ranks.double()])

        found = self._along(prompts, responses, likelihood)
        return [values and (values[0], [int(rank) for rank in values[1]]) for values in found]

    def _along(
        self, prompts: Sequence[str], responses: Sequence[str], measure: Callable
    ) -> Iterator[list[list] | None]:
        """Measures of the prediction of each token of a response, one list each; ``None`` for a text that does not fit.

        ``measure`` takes logits and the tokens predicted, and gives values of shape (tokens,) or (measures, tokens).
        """
        for prompt, response in zip(prompts, responses, strict=True):
            head, tail = (self.tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, response))
            if len(head) + len(tail) > self.source.max_model_len:
                yield None
            else:
                yield [values[len(head) - 1 :] for values in self._measured(head + tail, measure)]

    def _measured(self, tokens: list[int], measure: Callable) -> list[list[float]]:
        """The measures at each token but the first, in blocks: all logits of a long text do not fit into memory."""
        import torch
        from transformers import DynamicCache

        ids = torch.tensor([tokens], device=self.model.device)
        block = max(1, self.LOGITS // self.model.config.vocab_size)
        cache, parts = DynamicCache(config=self.model.config), []
        with torch.inference_mode():
            for start in range(0, len(tokens) - 1, block):  # the output at each token predicts the next one
                end = min(start + block, len(tokens) - 1)
                logits = self.model(ids[:, start:end], past_key_values=cache, use_cache=True).logits[0].float()
                parts.append(torch.atleast_2d(measure(logits, ids[0, start + 1 : end + 1])))
        return torch.cat(parts, dim=-1).tolist() if parts else [[]]

    def reader(self, texts: Sequence[str]) -> Reader:
        """A reader that caches each text; where some layers have other than full attention, one without a cache."""
        return CachedReader(self, texts) if plain_attention(self.model) else PlainReader(self)

    def _pad(self, encoded: list[list[int]]) -> dict:
        """A left-padded batch on the model's device."""
        ids, mask = padded(encoded, self.pad_id())
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def pad_id(self) -> int:
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids()[0]

    def end_ids(self) -> list[int]:
        """Stop tokens: those of the generation config and the tokenizer's."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({end for end in (*ends, self.tokenizer.eos_token_id) if end is not None})
