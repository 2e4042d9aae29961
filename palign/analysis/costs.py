"""What finding the prefixes cost, counted from the stored records: how often each token was read, and what a re-reading
of every prompt takes, which is the released code's way.

>>> reads(params).loc["trace and question", "value"]
0.72
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..tasks import plan
from ..params import Params
from .sufficiency import over_traces

if TYPE_CHECKING:
    import pandas as pd


def reads(params: Params) -> pd.DataFrame:
    """Tokens read for all verdicts on a trace, per token of the trace and its question; verdicts a trace.

    One row a quantity: ``value``, ``low``, ``high`` (95 % over traces), ``n`` traces. ``every prompt anew``: what the
    same verdicts take where each prompt is read from its start; with the released search, the released algorithm's
    figure. Empty where the study has no adaptive prefixes.
    """
    import pandas as pd

    from ..engines.tokenizers import load_tokenizer

    if "adaptive" not in plan.strategies(params):
        return pd.DataFrame(columns=["value", "low", "high", "n"])
    records = plan.truncation(params, "adaptive").require().read("prefixes")
    questions = load_tokenizer(params)([r["question"] for r in records], add_special_tokens=False).input_ids
    names = ("tokens_read", "tokens_demanded", "tokens_of_prompts")
    table = np.array(
        [
            (r["trace_tokens"] + len(ids), len(r["verdicts"]), *(r[name] for name in names))
            for r, ids in zip(records, questions, strict=True)
        ],
        dtype=float,
    )
    groups, columns = list(table[:, None, :]), {"text": 0, "verdicts": 1, "read": 2, "demanded": 3, "anew": 4}

    def ratio(over: str, under: str):
        a, b = columns[over], columns[under]
        return over_traces(groups, lambda rows: rows[:, a].sum() / rows[:, b].sum())

    rows = {
        "trace and question": ratio("read", "text"),
        "with the demands for a label": over_traces(
            groups, lambda rows: rows[:, [columns["read"], columns["demanded"]]].sum() / rows[:, 0].sum()
        ),
        "every prompt anew": ratio("anew", "text"),
        "tokens of the demand, a verdict": ratio("demanded", "verdicts"),
        "verdicts a trace": over_traces(groups, lambda rows: rows[:, columns["verdicts"]].mean()),
    }
    return pd.DataFrame({name: vars(estimate) for name, estimate in rows.items()}).T.astype({"n": int})
