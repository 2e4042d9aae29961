"""The look of all figures: one theme, captions, error bars, and files that come out the same every time.

>>> theme()
>>> figure, axis = plt.subplots()
>>> axis.errorbar(range(len(rows)), 100 * rows["value"], yerr=spread(rows))
>>> caption(figure, "n = 200 problems. Bars: 95 % intervals over problems.")
>>> paths = save(figure, Path("figures"), "accuracy")
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

NOTHING = "nothing to show: this study has no such data"
CAPTION = "caption"
"""The id of a figure's caption in its SVG."""
LINE = re.compile(r"<!-- (.*?) -->")
"""A line of text, which matplotlib writes as a comment in front of the curves of its letters."""
WRITTEN = re.compile(
    rf'<g id="{CAPTION}">\s*<!--.*?-->\s*<g [^>]*translate\(\S+ (\S+)\) scale\((\S+) .*?</g>'
    r"(\s*<!--.*?-->\s*<g .*?</g>)*",
    re.DOTALL,
)
"""A caption of one line or several, and where its first line stands."""


def theme() -> None:
    """Set the theme that every figure has. Call it before a figure is made."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    # matplotlib makes the ids in an SVG from this salt, otherwise from a random number
    plt.rcParams.update({"svg.hashsalt": "palign", "figure.dpi": 100, "savefig.dpi": 200})


def keep_drawings() -> None:
    """Let the kernel keep each figure as SVG beside its pixels, for the notebook's page (``palign pages``). A report
    does not need it: it saves its figures itself. Outside a kernel nothing happens.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell:
        from matplotlib_inline.config import InlineBackend

        backend = InlineBackend.instance(parent=shell)
        backend.figure_formats = backend.figure_formats | {"svg"}


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
    figure.text(0.01, -0.01, text, ha="left", va="top", fontsize="small", wrap=True, gid=CAPTION)


def parted(svg: str) -> tuple[str, str]:
    """The drawing in an SVG of a figure, without the caption below it, and the caption's text.

    A page shows the caption as text of its own, which can be read on a telephone.
    """
    said = ""
    if found := WRITTEN.search(svg):
        said = html.unescape(" ".join(LINE.findall(found[0])))
        baseline, size = float(found[1]), 100 * float(found[2])
        height = f"{baseline - size:.6g}"  # where its first line begins
        svg = re.sub(r'(<svg [^>]*height=")[^"]*(pt" viewBox="0 0 \S+ )[^"]*', rf"\g<1>{height}\g<2>{height}", svg)
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"\s+", " ", svg).replace("> <", "><").strip(), said


def spread(rows: pd.DataFrame) -> list[pd.Series]:
    """The error bars of ``value``, ``low`` and ``high`` (fractions) as matplotlib takes them: lengths below and above,
    in percent. Rounding can leave a bound on the wrong side of the value; such a length is set to 0.
    """
    below, above = rows["value"] - rows["low"], rows["high"] - rows["value"]
    return [100 * below.clip(lower=0), 100 * above.clip(lower=0)]


def nothing() -> None:
    """Print :data:`NOTHING` in place of a figure. The rendered report leaves out a cell that shows nothing else."""
    print(NOTHING)
