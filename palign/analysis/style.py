"""style"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns


def theme() -> None:
    """The one place where the look is set."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    plt.rcParams.update({"svg.hashsalt": "palign", "figure.dpi": 100, "savefig.dpi": 150})


def save(figure: plt.Figure, folder: Path, name: str) -> None:
    """Write ``name``.svg and .png without dates, so that the same figure is the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(folder / f"{name}.png", metadata={"Software": None}, bbox_inches="tight")


def caption(figure: plt.Figure, text: str) -> None:
    figure.text(0.01, -0.01, text, ha="left", va="top", fontsize="small", wrap=True)


def spread(rows: pd.DataFrame) -> list:
    """The lengths of error bars in percent; rounding must not make one of them negative."""
    below, above = rows["value"] - rows["low"], rows["high"] - rows["value"]
    return [100 * below.clip(lower=0), 100 * above.clip(lower=0)]


NOTHING = "nothing to show: this study has no such data"


def nothing() -> None:
    """In place of a figure where a study has no such data; a rendered report leaves out what shows nothing else."""
    print(NOTHING)

