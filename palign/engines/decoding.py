"""Decoding many prompts on one model: a pool of rows, in which waiting prompts take the place of finished ones at once.

Each row has its own seed, step and set of tokens seen, so a response does not depend on its neighbours, nor on when it
began. Sampling uses one uniform random number per response and step, drawn from the response's own seed, and the
inverse of the cumulative distribution.

>>> rows = [Row(0, prompt_ids, seed=1)]
>>> for row, fault in decode(model, rows, Sampling(max_new_tokens=64), ends=[2], pad=0, limit=250):
...     row.new
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby

from .base import Sampling, said
from .cached import check_numbers
from .memory import cache_bytes_per_token, free_bytes, out_of_memory, release

SHARE = 0.1
"""Share of the rows that must be free before waiting prompts join: joining costs a pass over the model."""

PASS = 2**14
"""Tokens of prompts that are read in one pass at most; a longer prompt is read alone."""


@dataclass
class Row:
    """A response in the making: the tokens of its ``prompt`` and the ``new`` ones. ``index``: the caller's."""

    index: int
    prompt: list[int]
    seed: int
    new: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.new)


def decode(
    model, rows: Sequence[Row], sampling: Sampling, ends: Sequence[int], pad: int, limit: int
) -> Iterator[tuple[Row, str]]:
    """Decode all rows, at most ``limit`` at once, fewer where memory is short. Gives each row when it has finished, and
    an empty text, or why memory does not hold it even alone. ``ends``: stop tokens; ``pad``: any token.

    Out of memory halves the rows; those that have begun go on where they were.
    """
    longest = max((row.length for row in rows), default=0)
    most = min(limit, rows_that_fit(model, longest, sampling.max_new_tokens))
    pool = Pool(model, sampling, ends, pad, most)
    pool.add(rows)
    while pool.busy:
        fault = ""
        try:
            pool.advance()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            fault = said(error)
        yield from ((row, "") for row in pool.take())
        if fault:  # handled here, since the exception's frames hold tensors
            together = len(pool.lines)
            begun = pool.withdraw()
            if together > 1:
                pool.limit = together // 2
                print(f"out of memory with {together} rows at once; going on with {pool.limit}", file=sys.stderr)
            else:
                yield begun.pop(0), fault
                pool.limit = most
            pool.add(begun)


class Pool:
    """At most ``limit`` rows of a batch decoded together, and those that wait.

    Prompts wait longest first: one that joins then fits left of the column that the others have reached, to which its
    keys and values are aligned. Columns on the left that no row uses any more are dropped now and then. A model with
    other than plain full attention takes new prompts only when all rows have finished.
    """

    def __init__(self, model, sampling: Sampling, ends: Sequence[int], pad: int, limit: int):
        self.model, self.sampling, self.ends, self.pad, self.limit = model, sampling, set(ends), pad, limit
        self.joins = plain_attention(model)
        self.waiting: list[Row] = []  # the longest one is last
        self.finished: list[Row] = []
        self._empty()

    def _empty(self) -> None:
        self.lines: list[Row | None] = []  # the row on each line of the batch; None: it has finished
        self.cache = self.mask = self.positions = self.read = self.sampler = None

    @property
    def busy(self) -> bool:
        """Whether any row has not finished."""
        return bool(self.waiting or self.lines)

    def add(self, rows: Iterable[Row]) -> None:
        """Let rows wait. Rows with equal prompts lie together, so that these are read once."""
        self.waiting = sorted([*self.waiting, *rows], key=lambda row: (row.length, row.prompt))

    def take(self) -> list[Row]:
        """The rows that have finished since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def withdraw(self) -> list[Row]:
        """Take all other rows out, the begun ones and the longest first, and give the pool's memory back."""
        rows = [row for row in self.lines if row is not None] + self.waiting[::-1]
        self.waiting = []
        self._empty()
        release()
        return rows

    def advance(self) -> None:
        """Let waiting prompts join where there is room, or drop finished lines, and decode one token of each row."""
        import torch

        with torch.inference_mode():
            free = [line for line, row in enumerate(self.lines) if row is None]
            if self.waiting and (not self.lines or (self.joins and len(free) >= SHARE * len(self.lines))):
                self._fill(free)
            elif len(free) >= 0.2 * len(self.lines):  # not at every end, since dropping lines copies the cache
                self._keep([line for line, row in enumerate(self.lines) if row is not None])
            if any(self.lines):
                self._step()
            if not any(self.lines):
                self._empty()

    def _fill(self, free: list[int]) -> None:
        """Put waiting prompts on the ``free`` lines; an empty pool gets new lines."""
        if not self.lines:
            free = list(range(min(self.limit, len(self.waiting))))
        while free and self.waiting:
            width = self.waiting[-1].length
            rows = self.waiting[: -1 - min(len(free), max(1, PASS // width)) : -1]
            if not self.lines:
                self._begin(width, len(free) if self.joins else len(rows))
            self._join(rows, free[: len(rows)])
            free = free[len(rows) :] if self.joins else []

    def _begin(self, width: int, lines: int) -> None:
        """An empty batch of ``lines`` lines in which prompts of ``width`` tokens and shorter ones can join."""
        import torch

        device = self.model.device
        self.lines = [None] * lines
        self.cache = growing_cache(self.model.config)
        self.mask = torch.zeros((lines, width), dtype=torch.bool, device=device)
        self.positions = torch.zeros((lines, 1), dtype=torch.long, device=device)
        self.read = torch.full((lines, 1), self.pad, device=device)
        self.sampler = Sampler(self.sampling, lines, device)

    def _join(self, rows: list[Row], lines: list[int]) -> None:
        """Read the next rows in one pass and put them on the lines, right-aligned. Equal texts are read once."""
        import torch

        texts, which = [], []
        for text, group in groupby(row.prompt + row.new for row in rows):
            which += [len(texts)] * len(list(group))
            texts.append(text)
        device = self.model.device
        ids, mask = (tensor.to(device) for tensor in padded(texts, self.pad))
        which, at = torch.tensor(which, device=device), torch.tensor(lines, device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = growing_cache(self.model.config)
        logits = self.model(
            ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        ).logits[which, -1]
        columns, width = self.mask.shape[1], ids.shape[1]
        if self.joins:
            for own, new in zip(self.cache.layers, cache.layers, strict=True):
                own.put(at, new.keys[which], new.values[which], len(self.lines), columns)
        else:
            cache.batch_select_indices(which)
            self.cache = cache
        self.mask[at] = False
        self.mask[at, columns - width :] = mask[which].bool()
        self.positions[at] = positions[which, -1:]
        for line, row in zip(lines, rows, strict=True):
            self.lines[line] = row
        del self.waiting[-len(rows) :]
        self.sampler.begin(at, rows, logits.shape[-1])
        self._sample(logits, lines)

    def _step(self) -> None:
        """Decode one token of every row."""
        import torch

        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=-1)
        self.positions += 1
        mask = attention_mask(self.mask[:, None, None], self.model) if self.joins else self.mask.long()
        with grouped_attention(self.model) if self.joins else nullcontext():
            logits = self.model(
                self.read,
                attention_mask=mask,
                position_ids=self.positions,
                past_key_values=self.cache,
                logits_to_keep=1,
            ).logits[:, -1]
        self._sample(logits, list(range(len(self.lines))))
        columns = self.mask.shape[1]
        if self.joins and columns % (ROOM // 4) == 0:
            used = max((row.length for row in [*self.lines, *self.waiting[-1:]] if row is not None), default=0)
            if columns - used > max(ROOM, columns // 4):
                self._trim(columns - used)

    def _trim(self, first: int) -> None:
        """Drop the columns before the ``first``."""
        self.mask = self.mask[:, first:]
        for layer in self.cache.layers:
            layer.move(first=first)

    def _sample(self, logits, lines: list[int]) -> None:
        """Sample the next token of the lines. The rows that it ends leave them."""
        import torch

        check_numbers(logits)
        at = torch.tensor(lines, device=logits.device)
        tokens = self.sampler(logits.float(), at)
        self.read[at] = tokens[:, None]
        for line, token in zip(lines, tokens.tolist(), strict=True):
            row = self.lines[line]
            if row is None:
                continue
            row.new.append(token)
            if token in self.ends or len(row.new) >= self.sampling.max_new_tokens:
                self.finished.append(row)
                self.lines[line] = None
                self.positions[line] = 0  # the line is computed further, and must not leave the context

    def _keep(self, lines: list[int]) -> None:
        """Drop the other lines."""
        import torch

        kept = torch.tensor(lines, device=self.mask.device)
        self.lines = [self.lines[line] for line in lines]
        self.mask, self.positions, self.read = self.mask[kept], self.positions[kept], self.read[kept]
        self.cache.batch_select_indices(kept)
        self.sampler.keep(kept)


def plain_attention(model) -> bool:
    """Whether every layer has full attention and a back end that takes any mask."""
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    return layers == {"full_attention"} and model.config._attn_implementation in ("sdpa", "eager")


def attention_mask(seen, model):
    """What is seen (true or false) as the model's attention takes it: eager attention adds the mask to the scores."""
    import torch

    if model.config._attn_implementation != "eager":
        return seen
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)


GROUPED = "palign_grouped"


@contextmanager
def grouped_attention(model) -> Iterator[None]:
    """Attention of one new token a row by :func:`_grouped`, in place of sdpa's."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    own = model.config._attn_implementation
    if own == "sdpa":
        AttentionInterface.register(GROUPED, _grouped)
        AttentionMaskInterface.register(GROUPED, sdpa_mask)
        model.config._attn_implementation = GROUPED
    try:
        yield
    finally:
        model.config._attn_implementation = own


def _grouped(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """The heads that share keys and values become the columns of one query: transformers' own function copies all keys
    and values for each of them, which takes as long as the rest of a step. ``query``: (rows, heads, 1, size).
    """
    import torch

    rows, heads, _, size = query.shape
    found = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, key.shape[1], -1, size), key, value, attn_mask=attention_mask, scale=scaling
    )
    return found.reshape(rows, 1, heads, value.shape[-1]), None


def padded(encoded: Sequence[Sequence[int]], pad: int) -> tuple:
    """Ids and mask of a left-padded batch, each of shape (rows, longest)."""
    import torch

    width = max(map(len, encoded))
    ids = torch.full((len(encoded), width), pad)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, width - len(tokens) :] = torch.tensor(tokens, dtype=torch.long)
        mask[row, width - len(tokens) :] = 1
    return ids, mask


ROOM = 64
"""Tokens by which the memory for keys and values grows."""


def growing_cache(config):
    """A ``DynamicCache`` whose layers write into memory with room to spare: the library's copies all keys and values at
    every token.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class Growing(DynamicLayer):
        memory = None  # keys and values, of shape (lines, heads, columns and room, size)

        def _allocate(self, like, lines: int, columns: int) -> None:
            # zeros, since what is masked must still be a number
            self.memory = [new.new_zeros(lines, new.shape[1], columns + ROOM, new.shape[3]) for new in like]

        def _show(self, columns: int):
            self.keys, self.values = (memory[:, :, :columns] for memory in self.memory)
            return self.keys, self.values

        def update(self, keys, values, *args, **kwargs):
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
            held = self.get_seq_length()
            total = held + keys.shape[-2]
            if self.memory is None:
                self._allocate((keys, values), len(keys), total)
            elif self.memory[0].shape[-2] < total:
                self.move(more=total - held)
            for memory, new in zip(self.memory, (keys, values), strict=True):
                memory[:, :, held:total] = new
            return self._show(total)

        def put(self, at, keys, values, lines: int, columns: int) -> None:
            """Place keys and values on the lines ``at``, before column ``columns``; an empty cache gets ``lines``."""
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
                self._allocate((keys, values), lines, columns)
                self._show(columns)
            for memory, new in zip(self.memory, (keys, values), strict=True):
                memory[at, :, columns - new.shape[-2] : columns] = new

        def move(self, lines=None, first: int = 0, more: int = 0) -> None:
            """Copy the ``lines`` (all) and the columns from ``first`` on to new memory, with room for ``more``."""
            old = [kept[:, :, first:] for kept in (self.keys, self.values)]
            columns = old[0].shape[-2]
            self._allocate(old, len(old[0]) if lines is None else len(lines), columns + more)
            for memory, kept in zip(self.memory, old, strict=True):
                memory[:, :, :columns] = kept if lines is None else kept[lines]
            self._show(columns)

        def batch_select_indices(self, indices):
            self.move(lines=indices)

    cache = DynamicCache(config=config)
    cache.layers = [Growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


LOGITS = 32
"""Bytes that sampling takes per row and entry of the vocabulary: logits in single and double precision, and copies."""


def rows_that_fit(model, longest: int, max_new_tokens: int) -> int:
    """How many rows free memory holds at once if each reaches ``longest`` and ``max_new_tokens`` tokens; at least 1."""
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    reading = max(PASS, longest) * (4 * config.hidden_size + 3 * inner) * model.dtype.itemsize
    token = cache_bytes_per_token(config, model.dtype)
    row = (longest + max_new_tokens + ROOM) * token + LOGITS * config.vocab_size
    share = 0.9 if model.device.type == "cuda" else 0.5  # a CPU's memory is other processes' too
    return max(1, (int(share * free_bytes(model.device)) - reading) // row)


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


class Sampler:
    """The next token of each line: repetition penalty, temperature, nucleus, then the inverse distribution at the row's
    own random number for its own step.
    """

    def __init__(self, sampling: Sampling, lines: int, device):
        import torch

        self.sampling, self.seen = sampling, None
        self.steps = torch.zeros(lines, dtype=torch.long, device=device)
        columns = sampling.max_new_tokens if sampling.temperature > 0 else 0
        self.draws = torch.zeros((lines, columns), dtype=torch.double, device=device)

    def begin(self, at, rows: Sequence[Row], vocabulary: int) -> None:
        """The lines ``at`` get new rows."""
        import numpy as np
        import torch

        device = self.steps.device
        self.steps[at] = torch.tensor([len(row.new) for row in rows], device=device)
        if self.draws.shape[1]:
            draws = [np.random.default_rng(row.seed).random(self.draws.shape[1]) for row in rows]
            self.draws[at] = torch.from_numpy(np.stack(draws)).to(device)
        if self.sampling.repetition_penalty != 1.0:
            if self.seen is None:
                self.seen = torch.zeros((len(self.steps), vocabulary), dtype=torch.bool, device=device)
            self.seen[at] = False
            for line, row in zip(at, rows, strict=True):
                self.seen[line, torch.tensor(row.prompt + row.new, device=device)] = True

    def keep(self, kept) -> None:
        """Drop the other lines."""
        self.steps, self.draws = self.steps[kept], self.draws[kept]
        self.seen = None if self.seen is None else self.seen[kept]

    def __call__(self, scores, at):
        """``scores``: raw logits of the lines ``at``, of shape (lines, vocabulary)."""
        import torch

        sampling = self.sampling
        if self.seen is not None:  # as transformers' RepetitionPenaltyLogitsProcessor, for the row's own tokens
            penalty = sampling.repetition_penalty
            scores = torch.where(self.seen[at], torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        if sampling.temperature > 0:
            scores = scores / sampling.temperature
            if sampling.top_p < 1:
                scores = nucleus(scores, sampling.top_p)
            cumulative = scores.double().softmax(-1).cumsum(-1)
            # a line whose row has finished may have no number left
            draw = self.draws[at, self.steps[at].clamp(max=sampling.max_new_tokens - 1)]
            # scaled by the row's total, which rounding leaves a little off one: no draw falls beyond the last token
            chosen = torch.searchsorted(cumulative, (draw * cumulative[:, -1])[:, None], right=True)
            tokens = chosen.clamp(max=scores.shape[-1] - 1)[:, 0]
        else:
            tokens = scores.argmax(-1)
        self.steps[at] += 1
        if self.seen is not None:
            self.seen[at, tokens] = True
        return tokens
