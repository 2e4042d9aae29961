"""How uncertain is the student along a teacher's trace? Token entropy over ten equal chunks of it (paper, Figure 4a).

The student reads each trace as if it had written it: the answer prompt with the question first, then the trace. The
entropy at a token of the trace is that of the student's prediction of this token (nats, temperature 1). The unit of
every interval is the trace.

>>> chunk_means([3.0, 1.0, 2.0, 2.0], k=2)
[2.0, 2.0]
>>> by_chunk(measure(params))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .. import traces
from ..engines.base import seed_of
from ..engines.opening import open_engine
from ..params import Machine, Params
from ..prompts import fill
from ..tasks.plan import Plan, held
from .statistics import mean_over_traces, table_of

if TYPE_CHECKING:
    import pandas as pd

CHUNKS = 10


def bounds(n: int, k: int = CHUNKS) -> list[int]:
    """Where ``k`` contiguous chunks of ``n`` tokens begin and end: ``k + 1`` positions; sizes differ by 1 at most."""
    return [n * i // k for i in range(k + 1)]


def chunk_means(values: Sequence[float], k: int = CHUNKS) -> list[float]:
    """The means of ``k`` equal chunks of one value per token. Raises ``ValueError`` for fewer tokens than chunks."""
    if len(values) < k:
        raise ValueError(f"{len(values)} tokens cannot be cut into {k} chunks")
    edges = bounds(len(values), k)
    return [float(np.mean(values[a:b])) for a, b in pairwise(edges)]


@held("entropy")
def measure(params: Params) -> list[dict]:
    """The student's entropy along a sample of the traces, one record per trace; resumes after a kill.

    A record holds the trace's ``tokens``, its ``prompt_tokens``, its number in the ``sample``, the ``mean`` and ten
    ``chunks`` (nats), and a ``status``: ``ok``, ``too short`` for ten chunks, or ``too long`` for the context; the last
    two have no values. transformers reads, whatever the study's ``engine``: the others do not give their predictions
    for a given text. Empty where ``entropy_traces`` is 0.
    """
    task = Plan(params).entropy
    if task is None or task.folder.done:
        return task.read("entropies") if task else []
    sample = traces.sample(traces.load(params), params.entropy_traces, seed_of(params.seed, "entropy"))
    numbers = {trace.id: number for number, trace in enumerate(sample)}
    student = params.model("student").model_copy(update={"engine": "transformers"})
    engine = open_engine(student, params.part(Machine))

    def work(batch: list[traces.Trace]) -> Iterator[dict]:
        for trace in batch:
            prompt = engine.prompt(fill(params.answer_prompt, question=trace.question))
            (values,) = engine.entropies([prompt], [trace.trace])
            yield {"id": trace.id, "sample": numbers[trace.id]} | _record(engine.count(prompt), values)

    records = task.folder.fill("entropies", sample, lambda t: t.id, work, "entropy along traces")
    task.finish(
        engine=engine.settings,
        traces=len(records),
        left_out=sum(record["status"] != "ok" for record in records),
        tokens_read=sum(r["prompt_tokens"] + r["tokens"] for r in records if r["status"] != "too long"),
    )
    return records


def _record(prompt_tokens: int, values: list[float] | None) -> dict:
    record = {"prompt_tokens": prompt_tokens, "tokens": len(values or [])}
    if values is None or len(values) < CHUNKS:
        return record | {"status": "too long" if values is None else "too short", "mean": None, "chunks": None}
    return record | {"status": "ok", "mean": float(np.mean(values)), "chunks": chunk_means(values)}


def by_chunk(records: list[dict]) -> pd.DataFrame:
    """One row per chunk, one for the ``trace`` and one for ``last less first``, which is paired by trace; in nats.

    ``records``: those of :func:`measure`. ``value``, ``low``, ``high`` (95 % over traces), ``n`` traces. Empty where no
    record has values.
    """
    records = [record for record in records if record["status"] == "ok"]
    if not records:
        return table_of({})
    table = np.array([record["chunks"] for record in records])
    columns = {str(i + 1): table[:, i] for i in range(CHUNKS)}
    columns |= {"trace": [record["mean"] for record in records], "last less first": table[:, -1] - table[:, 0]}
    return table_of({name: mean_over_traces(values) for name, values in columns.items()}).rename_axis("chunk")
