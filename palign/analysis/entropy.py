"""Where along a teacher's trace is the student unsure? Token entropy over ten equal chunks of it (paper, Figure 4a).

The student reads each trace as if it had written it, behind the question under the answer prompt; at every token of
the trace stands the entropy of its prediction (nats, temperature 1). The unit of every interval is the trace.

>>> chunk_means([3.0, 1.0, 2.0, 2.0], k=2)
[2.0, 2.0]
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .. import traces
from ..tasks import plan
from ..engines.base import seed_of
from ..engines.opening import open_engine
from ..params import Params
from ..prompts import fill, render
from .sufficiency import over_traces

if TYPE_CHECKING:
    import pandas as pd

CHUNKS = 10


class NoLogits(RuntimeError):
    """An engine that generates but does not show its predictions of a given text; the message is one line."""


def bounds(n: int, k: int = CHUNKS) -> list[int]:
    """Where ``k`` contiguous chunks of ``n`` tokens begin and end: ``k + 1`` positions; sizes differ by 1 at most."""
    return [n * i // k for i in range(k + 1)]


def chunk_means(values: Sequence[float], k: int = CHUNKS) -> list[float]:
    """The means of ``k`` equal chunks of one value a token. Raises ``ValueError`` for fewer tokens than chunks."""
    if len(values) < k:
        raise ValueError(f"{len(values)} tokens cannot be cut into {k} chunks")
    edges = bounds(len(values), k)
    return [float(np.mean(values[a:b])) for a, b in pairwise(edges)]


@plan.held(plan.entropy)
def measure(params: Params) -> list[dict]:
    """The student's entropy along a sample of the traces, one record a trace; resumes after a kill.

    ``tokens`` of the trace, ``prompt_tokens``, ``mean`` and ten ``chunks`` (nats), ``status``: ``ok``, ``too short``
    for ten chunks, or ``too long`` for the context; those two have no values. Nothing where ``entropy_traces`` is 0.
    Raises :class:`NoLogits` for an engine that cannot.
    """
    task = plan.entropy(params)
    if task is None or task.folder.done:
        return task.folder.read("entropies") if task else []
    collected = traces.load(params)
    rng = random.Random(seed_of(params.seed, "entropy"))
    sample = [
        collected[i] for i in sorted(rng.sample(range(len(collected)), min(params.entropy_traces, len(collected))))
    ]
    engine = open_engine(params)
    if not hasattr(engine, "entropies"):
        raise NoLogits(
            f"entropy_traces: engine {params.engine} does not show its predictions of a given text; "
            "set entropy_traces: 0, or engine: transformers"
        )

    def work(batch: list[traces.Trace]) -> list[dict]:
        prompts = [
            render(engine.tokenizer, fill(params.answer_prompt, question=trace.question), params.chat_template_kwargs)
            for trace in batch
        ]
        read = engine.tokenizer(prompts, add_special_tokens=False).input_ids
        found = engine.entropies(prompts, [trace.trace for trace in batch])
        return [_record(trace.id, len(ids), values) for trace, ids, values in zip(batch, read, found, strict=True)]

    records = task.folder.fill("entropies", sample, lambda t: t.id, work, params.batch_size, "entropy along traces")
    good = [record for record in records if record["status"] == "ok"]
    task.finish(
        engine=engine.settings,
        traces=len(records),
        left_out=len(records) - len(good),
        tokens_read=sum(r["prompt_tokens"] + r["tokens"] for r in records if r["status"] != "too long"),
    )
    return records


def _record(name: str, prompt_tokens: int, values: list[float] | None) -> dict:
    record = {"id": name, "prompt_tokens": prompt_tokens, "tokens": len(values or [])}
    if values is None or len(values) < CHUNKS:
        return record | {"status": "too long" if values is None else "too short", "mean": None, "chunks": None}
    return record | {"status": "ok", "mean": float(np.mean(values)), "chunks": chunk_means(values)}


def by_chunk(params: Params) -> pd.DataFrame:
    """One row a chunk, one for the ``trace`` and one for ``last less first``, which is paired by trace; in nats.

    ``value``, ``low``, ``high`` (95 % over traces), ``n`` traces. Empty where entropy is not measured.
    """
    import pandas as pd

    task = plan.entropy(params)
    records = [r for r in task.require().read("entropies") if r["status"] == "ok"] if task else []
    if not records:
        return pd.DataFrame(columns=["value", "low", "high", "n"])
    table = np.array([record["chunks"] for record in records])
    columns = {str(i + 1): table[:, i] for i in range(CHUNKS)}
    columns |= {"trace": np.array([record["mean"] for record in records])}
    columns |= {"last less first": table[:, -1] - table[:, 0]}
    rows = {name: vars(over_traces(list(values[:, None, None]), np.mean)) for name, values in columns.items()}
    return pd.DataFrame(rows).T.astype({"n": int}).rename_axis("chunk")
