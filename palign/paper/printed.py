"""The numbers printed in the paper, as data, and the parameters of the audit that tests them.

``accuracy.csv`` holds Tables 1, 2, 6, 8 and 9, ``other_figures.csv`` Tables 4, 5 and 7 and Figures 3c, 3d and 4b of
Liu et al., ACL 2026 (arXiv 2601.10064). The numbers are as printed; arms and students have this project's names.

>>> accuracy().query("table == 'table1' and arm == 'p-align' and benchmark == 'average'")
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd
from pydantic import Field

from ..params import Strict, root
from .claims import MAIN

HERE = Path(__file__).parent

SIZES = {"AIME24": 30, "AIME25": 30, "AMC12": 83, "MATH500": 500}
"""Problems in each benchmark: 643 in all."""

AVERAGE = "average"
"""The ``benchmark`` of a printed mean over benchmarks."""

TEACHER = "DeepSeek-R1"
"""The teacher of all tables but Table 8."""

SETTING = ["table", "student", "teacher", "arm", "metric"]
"""The columns that identify a printed row."""

SOURCES = {
    "equation7": "Equation 7: the search",
    "table1": "Table 1: the main comparison",
    "table2": "Table 2: ablations",
    "table4": "Table 4: lengths of traces, prefixes and targets",
    "table5": "Table 5: calls of the judge",
    "table6": "Table 6: other judges",
    "table7": "Table 7: pairs kept by the filter",
    "table8": "Table 8: other teachers",
    "table9": "Table 9: other students",
    "figure3c": "Figure 3c: length of responses",
    "figure3d": "Figure 3d: preference of a model as judge",
    "figure4b": "Figure 4b: which third of the trace",
}


@lru_cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(HERE / name)


def accuracy() -> pd.DataFrame:
    """One row per printed cell: ``table``, ``student``, ``teacher``, ``arm``, ``benchmark``, ``metric``, ``percent``.

    ``metric``: pass@1, pass@3, or accuracy in Table 9, which does not say which of them it is.
    """
    return _read("accuracy.csv").copy()


def other_figures() -> pd.DataFrame:
    """One row per printed number: ``source``, ``student``, ``quantity`` (its unit in the name), ``value``."""
    return _read("other_figures.csv").copy()


def evidence() -> pd.DataFrame:
    """One row per table or figure: what it shows, and how many of its printed numbers the CSV files hold."""
    counts = pd.concat([accuracy()["table"], other_figures()["source"]]).value_counts()
    rows = [(*title.split(": "), counts[key]) for key, title in SOURCES.items() if key in counts]
    return pd.DataFrame(rows, columns=["where", "what", "printed numbers"]).set_index("where")


def arm_cells(student: str, teacher: str, arm: str, metric: str) -> pd.Series:
    """Percent by benchmark of one row, whichever table it is in.

    Raises ``KeyError`` if no table prints the row, or more than one does.
    """
    table = accuracy()
    keys = {"student": student, "teacher": teacher, "arm": arm, "metric": metric}
    rows = table[(table[list(keys)] == pd.Series(keys)).all(axis=1) & (table["benchmark"] != AVERAGE)]
    if rows.empty or rows["benchmark"].duplicated().any():
        raise KeyError(f"{keys}: not printed exactly once")
    return rows.set_index("benchmark")["percent"]


def named(rows: pd.DataFrame) -> pd.Series:
    """The student of each row, with its teacher where that is not :data:`TEACHER`."""
    usual = rows["teacher"].isin([TEACHER]) | rows["teacher"].isna()
    return rows["student"].where(usual, rows["student"] + " (" + rows["teacher"].astype(str) + ")")


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n``, as fractions; ``share * n`` need not be a whole number."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * n, n, alpha=0.05, method="wilson")
    return float(low), float(high)


class Audit(Strict):
    """The parameters of the audit's notebook."""

    released: str | None = Field(None, description="released outputs: local JSONL or hub id; None leaves them out")
    released_split: str = Field("train", description="split of a hub data set (local files: ignored)")
    released_benchmark: str = Field("AIME24", description="benchmark they answer", pattern=f"^({'|'.join(SIZES)})$")
    released_student: str = Field(
        "Qwen2.5-7B-Instruct", description="student that answered, as Table 1 names it", pattern=f"^({'|'.join(MAIN)})$"
    )

    @property
    def folder(self) -> Path:
        """Where the report goes. Released outputs have a folder of their own, which an audit without them keeps."""
        return root() / "reports" / ("paper-audit" if self.released is None else "paper-audit-released")


def parameters_cell() -> str:
    """Source of the notebook's ``parameters`` cell."""
    return "\n".join(f"{name} = {field.default!r}  # {field.description}" for name, field in Audit.model_fields.items())
