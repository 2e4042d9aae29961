"""What a report folder keeps: tables as CSV, figures as SVG and PNG, the parameters and the headline numbers.

>>> keep(Path("reports/mine"), {"accuracy": table}, {"accuracy": figure})
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from ..analysis import style
from ..tasks.store import write_atomically
from . import beside, ledger, rates, tables
from .results import Results, portable

if TYPE_CHECKING:
    import matplotlib.pyplot as plt


ERRORS = ("errors.csv", "hard_keys.csv")
"""Tables that ``palign.pocket.errors`` writes beside those of a study's report."""


def keep(folder: Path, kept: dict[str, pd.DataFrame | None], figures: dict[str, plt.Figure | None]) -> None:
    """Write tables and figures under their names, then remove those that an earlier report left in that folder. Skips
    ``None`` and empty ones. Those of :data:`ERRORS` stay while the outcomes by problem are the same.
    """
    outcomes = folder / "tables" / "problems.csv"
    before = outcomes.read_bytes() if outcomes.is_file() else None
    written = set()
    for name, table in kept.items():
        if table is not None and len(table):
            path = folder / "tables" / f"{name}.csv"
            indexed = table.index.name is not None or not isinstance(table.index, pd.RangeIndex)
            write_atomically(path, table.to_csv(index=indexed, float_format="%.6g"))
            written.add(path)
    for name, figure in figures.items():
        if figure is not None:
            written.update(style.save(figure, folder / "figures", name))
    if before and outcomes in written and outcomes.read_bytes() == before:
        written.update(folder / "tables" / name for name in ERRORS)
    for old in itertools.chain(folder.glob("tables/*.csv"), folder.glob("figures/*.svg"), folder.glob("figures/*.png")):
        if old not in written:
            old.unlink()


def collect(study: Results) -> dict[str, pd.DataFrame]:
    """All tables of a study's report, by the names of their files; each is computed once."""
    found = tables.collect(study)
    found["claims"] = ledger.table(study)
    found["beside"] = beside.table(study, found)
    found["rates"] = rates.table(study)
    return found


def report(study: Results, kept: dict[str, pd.DataFrame], figures: dict[str, plt.Figure | None]) -> Path:
    """Keep a study's report, and mark it as done; returns its folder."""
    folder = study.plan.report_path.parent
    keep(folder, kept, figures)
    values = yaml.safe_dump(portable(study.params), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "params.yaml", values)
    write_atomically(folder / "headline.json", json.dumps(tables.headline(study, kept), indent=1) + "\n")
    study.plan.report.finish()
    return folder
