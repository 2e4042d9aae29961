"""The look of all figures: one theme, captions, error bars, and files that come out the same every time.

>>> theme()
>>> figure, axis = plt.subplots()
>>> axis.errorbar(range(len(rows)), 100 * rows["value"], yerr=spread(rows))
>>> caption(figure, "n = 200 problems. Bars: 95 % intervals over problems.")
>>> paths = save(figure, Path("figures"), "accuracy")
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

NOTHING = "nothing to show: this study has no such data"


def theme() -> None:
    """Set the theme that every figure has. Call it before a figure is made."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    # matplotlib makes the ids in an SVG from this salt, otherwise from a random number
    plt.rcParams.update({"svg.hashsalt": "palign", "figure.dpi": 100, "savefig.dpi": 150})


def save(figure: plt.Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name``.svg and ``name``.png to ``folder``, without dates, so that equal figures give equal files.

    Returns the paths of both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.svg": {"Date": None}, folder / f"{name}.png": {"Software": None}}
    for path, metadata in paths.items():
        figure.savefig(path, metadata=metadata, bbox_inches="tight")
    return list(paths)


def caption(figure: plt.Figure, text: str) -> None:
    """Write a caption below the figure. It states n and what the intervals are over."""
    figure.text(0.01, -0.01, text, ha="left", va="top", fontsize="small", wrap=True)


def spread(rows: pd.DataFrame) -> list[pd.Series]:
    """The error bars of ``value``, ``low`` and ``high`` (fractions) as matplotlib takes them: lengths below and above,
    in percent. Rounding can leave a bound on the wrong side of the value; such a length is set to 0.
    """
    below, above = rows["value"] - rows["low"], rows["high"] - rows["value"]
    return [100 * below.clip(lower=0), 100 * above.clip(lower=0)]


def nothing() -> None:
    """Print :data:`NOTHING` in place of a figure. The rendered report leaves out a cell that shows nothing else."""
    print(NOTHING)
