"""The cost of finding the prefixes, counted from the stored records: how many tokens were read. The table also has the
cost of the released code, which reads every prompt from its start.

>>> table = reads(task.read("prefixes"), question_tokens)
>>> table.loc["whole prompts", "value"]
1.53204
>>> table.loc["whole prompts, each read anew", "value"]
3.00537
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .statistics import over_traces, table_of

if TYPE_CHECKING:
    import pandas as pd


def reads(prefixes: list[dict], question_tokens: Sequence[int]) -> pd.DataFrame:
    """Tokens read for all verdicts on a trace, per token of the trace and its question; and verdicts per trace.

    ``prefixes``: stored records of a search. ``question_tokens``: the length of each record's question in the student's
    tokens. One row per quantity: ``value``, ``low``, ``high`` (95 % over traces), ``n`` traces. ``whole prompts`` is
    what was read: the sum of ``trace and question`` and ``instruction and labels``. ``whole prompts, each read anew``
    is the cost of the same verdicts if each prompt is read from its start: for the released search, that is the cost of
    the released algorithm. Compare these two with each other, and neither with a part of the other. Empty if there are
    no prefixes. Raises ``ValueError`` when the two lengths differ.
    """
    if not prefixes:
        return table_of({})
    groups = [
        np.array(
            [
                [
                    r["trace_tokens"] + n,
                    len(r["verdicts"]),
                    r["tokens_read"],
                    r["tokens_demanded"],
                    r["tokens_of_prompts"],
                ]
            ],
            dtype=float,
        )
        for r, n in zip(prefixes, question_tokens, strict=True)
    ]
    text, verdicts, read, demanded, anew = range(5)

    def ratio(over: list[int], under: int):
        return over_traces(groups, lambda rows: rows[:, over].sum() / rows[:, under].sum())

    return table_of(
        {
            "whole prompts": ratio([read, demanded], text),
            "whole prompts, each read anew": ratio([anew], text),
            "trace and question": ratio([read], text),
            "instruction and labels": ratio([demanded], text),
            "tokens of instruction and labels, a verdict": ratio([demanded], verdicts),
            "verdicts a trace": over_traces(groups, lambda rows: rows[:, verdicts].mean()),
        }
    )
