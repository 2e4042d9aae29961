"""Many prompts over few texts, each text read once: its key-value cache is kept between its prompts.

For a :class:`~palign.engines.transformers.TransformersEngine` whose model has full attention in every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .base import Completion, Engine, Reading


class CachedReader:
    """Prompts over shared texts; each token of a text is read once and its key-value states are kept.

    The tokens with which both a prompt and its text begin are shared: those not read yet are appended to the cache, in
    order. A prompt's other tokens are its own: they are read after the cache in one pass, under a mask that shows each
    prompt its shared and its own tokens only, and are then dropped from the cache. One pass takes any number of prompts
    of a text and is exact: every token has the position and the context that it has in a prompt read by itself. Where a
    cut falls inside a token of the text, the shared tokens end before that token.

    Texts may differ in length: a row's unused cache columns are masked.
    """

    NOWHERE = 2**30  # position in the text of a cache column that holds no token of it
    COLUMNS = 2048  # tokens of a text read in one pass; the mask's memory grows with them

    def __init__(self, engine: Engine, texts: Sequence[str]):
        import torch
        from transformers import DynamicCache

        self.engine, self.device, self.limit = engine, engine.model.device, engine.source.max_model_len
        self.texts = [engine.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        self.rows = list(range(len(texts)))  # the text in each line of the batch
        self.read = [0] * len(texts)  # tokens of each text in the cache
        self.cache = DynamicCache(config=engine.model.config)
        self.place = torch.empty((len(texts), 0), dtype=torch.long, device=self.device)  # position in its text

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[str]) -> list[Reading]:
        tails = [self.engine.tokenizer(label, add_special_tokens=False).input_ids for label in labels]
        stem = tails[0][: min(_common(tails[0], tail[:-1]) for tail in tails)]
        prompts = self._prompts(asked, room=max(map(len, tails)))
        lines, shared = self._extend([prompt for prompt in prompts if prompt.fits])
        branches: list[list[_Branch]] = [[] for _ in self.rows]
        for prompt in prompts:
            if prompt.fits:
                branch = _Branch(prompt.key, prompt.common, prompt.own, stem, [tail[len(stem) :] for tail in tails])
                branches[lines[prompt.text]].append(branch)
        logprobs = self._branch(branches, len(labels))
        own = {branch.key: sum(1 for _ in branch.tokens()) for line in branches for branch in line}
        return [Reading(logprobs.get(p.key), shared.get(p.key, 0), own.get(p.key, 0), p.length) for p in prompts]

    def _prompts(self, asked: Sequence[tuple[int, str]], room: int) -> list[_Prompt]:
        prompts = []
        encoded = self.engine.tokenizer([prompt for _, prompt in asked], add_special_tokens=False).input_ids
        for key, ((text, _), ids) in enumerate(zip(asked, encoded, strict=True)):
            # the last token is always the prompt's own, since its output scores the first token of a label
            common = _common(ids[:-1], self.texts[text])
            prompts.append(_Prompt(key, text, common, ids[common:], len(ids) + room <= self.limit))
        return prompts

    def _extend(self, prompts: list[_Prompt]) -> tuple[dict[int, int], dict[int, int]]:
        """Read each text as far as its prompts share it. Returns each text's line, and the tokens read per prompt."""
        import torch

        self._drop({prompt.text for prompt in prompts})
        lines = {text: line for line, text in enumerate(self.rows)}
        upto, shared = {text: self.read[text] for text in self.rows}, {}
        for prompt in prompts:
            shared[prompt.key] = max(0, prompt.common - upto[prompt.text])
            upto[prompt.text] = max(upto[prompt.text], prompt.common)
        pieces = [self.texts[text][self.read[text] : upto[text]] for text in self.rows]
        width = max(map(len, pieces), default=0)
        ids = torch.full((len(pieces), width), self.engine.pad_id())
        place = torch.full((len(pieces), width), self.NOWHERE)
        for line, (text, piece) in enumerate(zip(self.rows, pieces, strict=True)):
            ids[line, : len(piece)] = torch.tensor(piece, dtype=torch.long)
            place[line, : len(piece)] = torch.arange(self.read[text], self.read[text] + len(piece))
            self.read[text] += len(piece)
        ids, place = ids.to(self.device), place.to(self.device)
        for start in range(0, width, self.COLUMNS):
            part = slice(start, start + self.COLUMNS)
            self.place = torch.cat([self.place, place[:, part]], dim=1)
            seen = self.place[:, None, :] <= place[:, part, None]  # padding sees every token; no token sees padding
            self._forward(ids[:, part], seen, place[:, part].clamp(max=self.limit - 1), keep=[0])
        return lines, shared

    def _branch(self, branches: list[list[_Branch]], labels: int) -> dict[int, list[float]]:
        """Read all branches after their texts in one pass, drop them from the cache, and sum the log-probabilities of
        each one's labels.
        """
        import torch

        columns = [[token for branch in line for token in branch.tokens()] for line in branches]
        width = max(map(len, columns), default=0)
        if not width:
            return {}
        blank = (self.engine.pad_id(), 0, 0, -1, 0)
        table = torch.tensor([line + [blank] * (width - len(line)) for line in columns], device=self.device)
        ids, positions, common, prompt, segment = table.unbind(-1)
        order = torch.arange(width, device=self.device)
        own = prompt[:, :, None] == prompt[:, None, :]
        own &= (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
        own &= order[None, None, :] <= order[None, :, None]
        seen = torch.cat([self.place[:, None, :] < common[:, :, None], own], dim=-1)
        needed = sorted({at for line in branches for at, *_ in _scored(line)})
        logits = self._forward(ids, seen, positions, keep=needed)
        self.cache.crop(-width)
        found: dict[int, list[float]] = {}
        logprobs = logits.float().log_softmax(-1)
        where = {at: i for i, at in enumerate(needed)}
        for line, row in enumerate(branches):
            for at, key, label, token in _scored(row):
                found.setdefault(key, [0.0] * labels)[label] += logprobs[line, where[at], token].item()
        return found

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        prompts = self._prompts(asked, room=max_new_tokens)
        lines, shared = self._extend([prompt for prompt in prompts if prompt.fits])
        waiting: dict[int, list[_Prompt]] = {}
        values = {p.key: Completion("", "prompt too long", p.length, 0) for p in prompts if not p.fits}
        for prompt in prompts:
            if prompt.fits:
                waiting.setdefault(lines[prompt.text], []).append(prompt)
        while any(waiting.values()):  # one prompt of each text at a time
            turn = {line: queue.pop(0) for line, queue in waiting.items() if queue}
            for prompt, tokens in zip(turn.values(), self._decode(turn, max_new_tokens), strict=True):
                values[prompt.key] = self.engine.completion(tokens, prompt.length)
        return [Reading(values[p.key], shared.get(p.key, 0), len(p.own) * p.fits, p.length) for p in prompts]

    def _decode(self, turn: dict[int, _Prompt], max_new_tokens: int) -> list[list[int]]:
        """Decode one prompt per line, greedily, after its text; then drop it from the cache."""
        import torch

        ends, pad = self.engine.end_ids(), self.engine.pad_id()
        own = [turn[line].own if line in turn else [pad] for line in range(len(self.rows))]
        width = max(map(len, own))
        blank = torch.tensor([width - len(tokens) for tokens in own])[:, None]  # padding, on the left
        ids = torch.tensor([[pad] * (width - len(tokens)) + tokens for tokens in own], device=self.device)
        common = torch.tensor([turn[line].common if line in turn else 0 for line in range(len(self.rows))])[:, None]
        order = torch.arange(width)
        positions = (common + order - blank).clamp(min=0).to(self.device)
        seen = (order >= blank)[:, None, :] & (order[None, :] <= order[:, None])
        seen |= torch.eye(width, dtype=torch.bool)  # padding sees itself: softmax over nothing is NaN
        text = (self.place < common.to(self.device))[:, None, :].expand(-1, width, -1)
        seen, used = torch.cat([text, seen.to(self.device)], dim=-1), 0
        new: dict[int, list[int]] = {line: [] for line in turn}
        for _ in range(max_new_tokens):
            logits = self._forward(ids, seen, positions, keep=[ids.shape[1] - 1])
            used += ids.shape[1]
            check_numbers(logits)
            ids = logits[:, -1].argmax(-1)[:, None]
            for line, tokens in new.items():
                if not tokens or tokens[-1] not in ends:
                    tokens.append(int(ids[line, 0]))
            if all(tokens[-1] in ends for tokens in new.values()):
                break
            seen = torch.cat([seen[:, -1:], torch.ones_like(seen[:, -1:, :1])], dim=-1)
            positions = positions[:, -1:] + 1
        self.cache.crop(-used)
        return list(new.values())

    def _forward(self, ids, seen, positions, keep: list[int]):
        """One forward pass, which appends its columns to the cache. Returns logits at the columns ``keep``.

        ``seen``: which columns each column attends to, shape (lines, columns, columns of the cache and these).
        """
        import torch

        model = self.engine.model
        mask = seen[:, None]
        if model.config._attn_implementation == "eager":  # eager attention adds the mask to the scores
            mask = torch.zeros(mask.shape, dtype=model.dtype, device=self.device).masked_fill(
                ~mask, torch.finfo(model.dtype).min
            )
        with torch.inference_mode():
            return model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=torch.tensor(keep, device=self.device),
            ).logits

    def _drop(self, asked: set[int]) -> None:
        """Drop the texts that were not asked about, once they are a fifth of all: dropping copies the cache."""
        import torch

        if len(asked) > 0.8 * len(self.rows):
            return
        kept = torch.tensor([line for line, text in enumerate(self.rows) if text in asked], device=self.device)
        self.rows = [self.rows[line] for line in kept.tolist()]
        if self.place.shape[1]:
            self.place = self.place[kept]
            self.cache.batch_select_indices(kept)
            used = (self.place != self.NOWHERE).any(0)
            if used.sum() < 0.8 * used.numel():  # the others held dropped texts only
                self._shrink(used)
        else:
            self.place = self.place[kept]

    def _shrink(self, used) -> None:
        self.place = self.place[:, used]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, used], layer.values[:, :, used]


@dataclass(frozen=True)
class _Prompt:
    """A prompt to the text of index ``text``: ``common`` tokens shared with it, then ``own`` ones.

    ``fits``: whether the context holds the prompt and its answer.
    """

    key: int
    text: int
    common: int
    own: list[int]
    fits: bool

    @property
    def length(self) -> int:
        return self.common + len(self.own)


@dataclass(frozen=True)
class _Branch:
    """A prompt's own tokens, then the ``stem`` that all labels begin with, then the rest of each label without its last
    token, which is only scored. No label's rest attends to another's.
    """

    key: int
    common: int
    own: list[int]
    stem: list[int]
    tails: list[list[int]]

    def tokens(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(id, position, tokens of the text seen, prompt, segment); all of the prompt's tokens see segment 0."""
        for i, token in enumerate(self.own + self.stem):
            yield token, self.common + i, self.common, self.key, 0
        behind = self.common + len(self.own) + len(self.stem)
        for segment, tail in enumerate(self.tails, start=1):
            for i, token in enumerate(tail[:-1]):
                yield token, behind + i, self.common, self.key, segment


def _scored(branches: list[_Branch]) -> Iterator[tuple[int, int, int, int]]:
    """(column, prompt, label, token): the output at the column scores the label's token."""
    start = 0
    for branch in branches:
        at = start + len(branch.own) - 1
        for i, token in enumerate(branch.stem):
            yield from ((at + i, branch.key, label, token) for label in range(len(branch.tails)))
        at += len(branch.stem)
        start = at + 1
        for label, tail in enumerate(branch.tails):
            yield at, branch.key, label, tail[0]
            for i, token in enumerate(tail[1:]):
                yield start + i, branch.key, label, token
            start += len(tail) - 1


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning of two sequences."""
    short = min(len(a), len(b))
    if a[:short] == b[:short]:
        return short
    return next(i for i in range(short) if a[i] != b[i])


def check_numbers(logits) -> None:
    """Raises ``RuntimeError`` for logits that hold NaN: sampling from them would give tokens without meaning."""
    if logits.isnan().any():
        raise RuntimeError("the model's logits are not numbers")
