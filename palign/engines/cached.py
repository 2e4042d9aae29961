"""Many prompts over few texts, each text read once: its key-value cache is kept between its prompts.

For a :class:`~palign.engines.transformers.TransformersEngine` whose model has full attention in every layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .base import Completion, Engine, Reading
from .labels import Label, label_ids


class CachedReader:
    """Prompts over shared texts; each token of a text is read once and its key-value states are kept.

    The tokens with which both a prompt and its text begin are shared: those not read yet are read and stored, in order.
    A prompt's other tokens are its own: they are read after the stored ones in one pass, under a mask that shows each
    prompt its shared and its own tokens only, and are not stored. One pass takes any number of prompts of a text and is
    exact: every token has the position and the context that it has in a prompt read by itself. Where a cut falls inside
    a token of the text, the shared tokens end before that token.

    The store holds the texts' tokens one after another, without padding. A pass pads the texts that it needs to one
    length, layer by layer, and is limited in its tokens and in its columns times lines: its memory does not depend on
    how many texts there are. After an error in a pass the store may hold half of it: the reader must not be used again.
    """

    TOKENS = 8192  # read in one pass; activations and the mask grow with them
    AREA = 2**18  # lines times columns of a pass, stored tokens included; one layer's copy of them is held at a time

    def __init__(self, engine: Engine, texts: Sequence[str]):
        import torch

        self.engine, self.device, self.limit = engine, engine.model.device, engine.source.max_model_len
        self.texts = [engine.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        nothing = torch.empty(0, dtype=torch.long, device=self.device)
        self.slots = dict.fromkeys(range(len(texts)), nothing)  # where in the store each text's tokens read so far are
        self.store = _store(engine.model.config)

    def choose(self, asked: Sequence[tuple[int, str]], labels: Sequence[Label]) -> list[Reading]:
        tails = label_ids(self.engine.tokenizer, labels)
        stem = tails[0][: min(_common(tails[0], tail[:-1]) for tail in tails)]
        prompts = self._prompts(asked, room=max(map(len, tails)))
        shared = self._extend([prompt for prompt in prompts if prompt.fits])
        branches: dict[int, list[_Branch]] = {}
        for prompt in prompts:
            if prompt.fits:
                branch = _Branch(prompt.key, prompt.common, prompt.own, stem, [tail[len(stem) :] for tail in tails])
                branches.setdefault(prompt.text, []).append(branch)
        logprobs = self._branch(branches, len(labels))
        own = {branch.key: sum(1 for _ in branch.tokens()) for line in branches.values() for branch in line}
        return [Reading(logprobs.get(p.key), shared.get(p.key, 0), own.get(p.key, 0), p.length) for p in prompts]

    def _prompts(self, asked: Sequence[tuple[int, str]], room: int) -> list[_Prompt]:
        prompts = []
        encoded = self.engine.tokenizer([prompt for _, prompt in asked], add_special_tokens=False).input_ids
        for key, ((text, _), ids) in enumerate(zip(asked, encoded, strict=True)):
            # the last token is always the prompt's own, since its output scores the first token of a label
            common = _common(ids[:-1], self.texts[text])
            prompts.append(_Prompt(key, text, common, ids[common:], len(ids) + room <= self.limit))
        return prompts

    def _extend(self, prompts: list[_Prompt]) -> dict[int, int]:
        """Read each text as far as its prompts share it. Returns the tokens read per prompt."""
        import torch

        self._drop({prompt.text for prompt in prompts})
        upto, shared = {text: len(slots) for text, slots in self.slots.items()}, {}
        for prompt in prompts:
            shared[prompt.key] = max(0, prompt.common - upto[prompt.text])
            upto[prompt.text] = max(upto[prompt.text], prompt.common)
        pieces = {text: self.texts[text][len(slots) : upto[text]] for text, slots in self.slots.items()}
        self.store.reserve(sum(map(len, pieces.values())))
        for texts in self._packs({t: (len(self.slots[t]), len(piece)) for t, piece in pieces.items() if piece}):
            step, width = max(1, self.TOKENS // len(texts)), max(len(pieces[text]) for text in texts)
            for start in range(0, width, step):
                parts = [pieces[text][start : start + step] for text in texts]
                self._append(texts, [torch.tensor(part, dtype=torch.long, device=self.device) for part in parts])
        if self.device.type == "cuda" and any(pieces.values()):
            torch.cuda.empty_cache()  # the smaller buffers that the store has left hold none of its later ones
        return shared

    def _append(self, texts: list[int], parts: list) -> None:
        """Read the next tokens of each text and store them."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = pad_sequence(parts, batch_first=True, padding_value=self.engine.pad_id())
        lengths = torch.tensor([len(part) for part in parts], device=self.device)
        read = torch.tensor([len(self.slots[text]) for text in texts], device=self.device)
        order = torch.arange(ids.shape[1], device=self.device)
        past = (torch.arange(int(read.max()), device=self.device) < read[:, None])[:, None, :]
        causal = order[None, :] <= order[:, None]
        seen = torch.cat(
            [past.expand(-1, len(order), -1), causal.expand(len(texts), -1, -1)], dim=-1
        )  # padding sees itself and what comes before: softmax over nothing is NaN
        positions = (read[:, None] + order).clamp(max=self.limit - 1)
        first = self.store.stored
        self._forward(texts, int(read.max()), ids, seen, positions, [(0, 0)], stored=order < lengths[:, None])
        for text, part in zip(texts, parts, strict=True):
            slots = torch.arange(first, first + len(part), device=self.device)
            self.slots[text] = torch.cat([self.slots[text], slots])
            first += len(part)

    def _branch(self, branches: dict[int, list[_Branch]], labels: int) -> dict[int, list[float]]:
        """Read all branches after their texts and sum the log-probabilities of each one's labels."""
        import torch

        found: dict[int, list[float]] = {}
        columns = {text: [token for branch in line for token in branch.tokens()] for text, line in branches.items()}
        sizes = {text: (max(branch.common for branch in branches[text]), len(columns[text])) for text in branches}
        for texts in self._packs(sizes):
            past, width = (max(sizes[text][i] for text in texts) for i in (0, 1))
            blank = (self.engine.pad_id(), 0, 0, -1, 0)
            lines = [columns[text] + [blank] * (width - len(columns[text])) for text in texts]
            ids, positions, common, prompt, segment = torch.tensor(lines, device=self.device).unbind(-1)
            order = torch.arange(width, device=self.device)
            own = prompt[:, :, None] == prompt[:, None, :]
            own &= (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
            own &= order[None, None, :] <= order[None, :, None]
            text_seen = torch.arange(past, device=self.device) < common[:, :, None]
            scored = [((line, at), *rest) for line, text in enumerate(texts) for at, *rest in _scored(branches[text])]
            needed = {place: i for i, place in enumerate(dict.fromkeys(place for place, *_ in scored))}
            seen = torch.cat([text_seen, own], dim=-1)
            logprobs = self._forward(texts, past, ids, seen, positions, list(needed)).float().log_softmax(-1)
            values = logprobs[[needed[place] for place, *_ in scored], [token for *_, token in scored]].tolist()
            for (_, key, label, _), value in zip(scored, values, strict=True):
                found.setdefault(key, [0.0] * labels)[label] += value
        return found

    def generate(self, asked: Sequence[tuple[int, str]], max_new_tokens: int) -> list[Reading]:
        prompts = self._prompts(asked, room=max_new_tokens)
        shared = self._extend([prompt for prompt in prompts if prompt.fits])
        waiting: dict[int, list[_Prompt]] = {}
        values = {p.key: Completion("", "prompt too long", p.length, 0) for p in prompts if not p.fits}
        for prompt in prompts:
            if prompt.fits:
                waiting.setdefault(prompt.text, []).append(prompt)
        while any(waiting.values()):  # one prompt of each text at a time
            turn = {text: queue.pop(0) for text, queue in waiting.items() if queue}
            for texts in self._packs({t: (p.common + max_new_tokens, len(p.own)) for t, p in turn.items()}):
                batch = [turn[text] for text in texts]
                for prompt, tokens in zip(batch, self._decode(batch, max_new_tokens), strict=True):
                    values[prompt.key] = self.engine.completion(tokens, prompt.length)
        return [Reading(values[p.key], shared.get(p.key, 0), len(p.own) * p.fits, p.length) for p in prompts]

    def _decode(self, batch: list[_Prompt], max_new_tokens: int) -> list[list[int]]:
        """Decode one prompt for each of some texts, greedily, after its text."""
        import torch

        ends, pad = self.engine.end_ids(), self.engine.pad_id()
        texts, past = [prompt.text for prompt in batch], max(prompt.common for prompt in batch)
        width = max(len(prompt.own) for prompt in batch)
        padding = [width - len(prompt.own) for prompt in batch]  # on the left
        ids = [[pad] * blank + prompt.own for blank, prompt in zip(padding, batch, strict=True)]
        ids, blank = torch.tensor(ids, device=self.device), torch.tensor(padding, device=self.device)[:, None]
        common = torch.tensor([prompt.common for prompt in batch], device=self.device)[:, None]
        order = torch.arange(width, device=self.device)
        positions = (common + order - blank).clamp(min=0)
        seen = (order >= blank)[:, None, :] & (order[None, :] <= order[:, None])
        seen |= torch.eye(width, dtype=torch.bool, device=self.device)  # padding sees itself
        text_seen = (torch.arange(past, device=self.device) < common)[:, None, :].expand(-1, width, -1)
        seen = torch.cat([text_seen, seen], dim=-1)
        new: list[list[int]] = [[] for _ in batch]
        for _ in range(max_new_tokens):
            last = [(line, ids.shape[1] - 1) for line in range(len(batch))]
            logits = self._forward(texts, past, ids, seen, positions, last, held=True)
            check_numbers(logits)
            ids = logits.argmax(-1)[:, None]
            for token, tokens in zip(ids[:, 0].tolist(), new, strict=True):
                if not tokens or tokens[-1] not in ends:
                    tokens.append(token)
            if all(tokens[-1] in ends for tokens in new):
                break
            seen = torch.cat([seen[:, -1:], torch.ones_like(seen[:, -1:, :1])], dim=-1)
            positions = positions[:, -1:] + 1
        self.store.release()
        return new

    def _packs(self, sizes: dict[int, tuple[int, int]]) -> Iterator[list[int]]:
        """Texts that go through the model together, for ``sizes``: (stored, new) columns of each.

        Texts of similar size are together, and fill one pass at most; a larger text goes by itself.
        """
        pack: list[int] = []
        for text in sorted(sizes, key=lambda text: (sizes[text][1], sizes[text][0]), reverse=True):
            past, new = (max(sizes[t][i] for t in (*pack, text)) for i in (0, 1))
            lines = len(pack) + 1
            if pack and (lines * new > self.TOKENS or lines * (past + new) > self.AREA):
                yield pack
                pack = []
            pack.append(text)
        if pack:
            yield pack

    def _forward(self, texts, past: int, ids, seen, positions, needed: Iterable[tuple[int, int]], **kept):
        """One forward pass after the first ``past`` stored tokens of each text.

        Returns the logits at the (line, column) pairs ``needed`` only, shape (pairs, vocabulary). ``seen``: which
        columns each column attends to, shape (lines, columns, past and columns). ``kept``: see :func:`_store`.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        model, mask = self.engine.model, seen[:, None]
        if model.config._attn_implementation == "eager":  # eager attention adds the mask to the scores
            mask = torch.zeros(mask.shape, dtype=model.dtype, device=self.device).masked_fill(
                ~mask, torch.finfo(model.dtype).min
            )
        slots = pad_sequence([self.slots[text][:past] for text in texts], batch_first=True)
        self.store.begin(slots, **kept)
        lines, columns = torch.tensor(list(needed), device=self.device).unbind(-1)
        # the vocabulary's logits are computed of these pairs only: `logits_to_keep` takes columns of all lines
        hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0][lines, columns][None],))
        try:
            with torch.inference_mode():
                return model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=self.store,
                    use_cache=True,
                ).logits[0]
        finally:
            hook.remove()

    def _drop(self, asked: set[int]) -> None:
        """Forget the texts that were not asked about; their tokens leave the store once they are a fifth of it."""
        import torch

        self.slots = {text: slots for text, slots in self.slots.items() if text in asked}
        live = sum(map(len, self.slots.values()))
        if live < 0.8 * self.store.stored:
            self.store.select(torch.cat([*self.slots.values()]))
            ends = torch.tensor([len(slots) for slots in self.slots.values()]).cumsum(0).tolist()
            for (text, slots), end in zip(self.slots.items(), ends, strict=True):
                self.slots[text] = torch.arange(end - len(slots), end, device=self.device)


def _store(config):
    """A transformers ``Cache`` of tokens of many texts, without padding: keys and values of each layer have the shape
    (tokens, heads, head dimension).

    ``begin`` prepares a forward pass: its lines see the tokens at ``slots`` (lines, columns). Of the new tokens, those
    where ``stored`` (lines, new columns) are appended, line by line; ``held`` ones are seen by the next passes until
    ``release``. ``reserve`` says how many tokens will be appended: each layer gets a buffer of that size once. It had
    buffers of a new size after every pass, and a GPU's allocator reserved 139 GiB where 37 were allocated at most.
    """
    import torch
    from transformers.cache_utils import Cache, DynamicLayer

    class Layer(DynamicLayer):
        own, stored = None, 0

        def update(self, keys, values, *args, **kwargs):
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
                self.keys, self.values = (new.new_empty(0, new.shape[1], new.shape[3]) for new in (keys, values))
            if store.keep_stored is not None:
                new_rows = [new.transpose(1, 2)[store.keep_stored] for new in (keys, values)]
            if self.own is not None:
                keys, values = (torch.cat(pair, dim=2) for pair in zip(self.own, (keys, values), strict=True))
            if store.keep_held:
                self.own = keys, values
            found = tuple(
                torch.cat([held[store.slots].transpose(1, 2), new], dim=2)
                for held, new in ((self.keys, keys), (self.values, values))
            )
            if store.keep_stored is not None:
                self.append(*new_rows)
            return found

        def append(self, *new_rows):
            end = self.stored + len(new_rows[0])
            if (more := max(store.reserved, end) - len(self.keys)) > 0:
                self.keys, self.values = (
                    torch.cat([held, held.new_empty(more, *held.shape[1:])]) for held in (self.keys, self.values)
                )
            for held, new in zip((self.keys, self.values), new_rows, strict=True):
                held[self.stored : end] = new
            self.stored = end

        def get_seq_length(self) -> int:
            return store.slots.shape[1] + (self.own[0].shape[2] if self.own is not None else 0)

    class Store(Cache):
        reserved = 0

        @property
        def stored(self) -> int:
            return self.layers[0].stored

        def reserve(self, tokens: int) -> None:
            self.reserved = self.stored + tokens

        def begin(self, slots, stored=None, held=False):
            self.slots, self.keep_stored, self.keep_held = slots, stored, held

        def release(self):
            for layer in self.layers:
                layer.own = None

        def select(self, slots):
            for layer in self.layers:
                layer.keys, layer.values, layer.stored = layer.keys[slots], layer.values[slots], len(slots)

    store = Store(layers=[Layer() for _ in range(config.get_text_config().num_hidden_layers)])
    return store


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
