"""The audit's figures fit a page, and their axes can be read."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest

from palign.paper import cells, figures, gains, printed


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def table():
    return gains.gains()


@pytest.mark.parametrize("which", ["table1", "benchmarks", "elsewhere"])
def test_gains_have_ticks_enough_and_a_row_each(table, which):
    """Two ticks on an axis do not say how large a gain is."""
    rows, scopes = {
        "table1": (table.query("table == 'table1'"), [printed.AVERAGE, gains.POOLED]),
        "benchmarks": (gains.main(table), list(printed.SIZES)),
        "elsewhere": (table.query("table != 'table1'"), [printed.AVERAGE, gains.POOLED]),
    }[which]
    figure = figures.forest(rows, scopes)
    figure.canvas.draw()
    assert figure.get_tightbbox().width < 7.5
    for axis, scope in zip(figure.axes, scopes, strict=True):
        low, high = axis.get_xlim()
        shown = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert len(shown) >= 4
        (drawn,) = (line for line in axis.get_lines() if line.get_label() == "printed difference")
        own = rows[rows["scope"] == scope]
        assert list(drawn.get_xdata()) == list(own["gain"])
        assert len(set(drawn.get_ydata())) == len(own)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    for row, y in zip(own.itertuples(), drawn.get_ydata(), strict=True):
        assert names[int(y)] == f"{row.metric.capitalize()}, minus {row.worse}"
        headings = [name for name in names[: int(y)] if "minus" not in name]
        assert headings[-1].startswith(row.student.removesuffix("-Instruct"))
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels() if text.get_visible()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_samples_are_in_percent():
    axis = figures.samples(cells.by_samples()).axes[0]
    assert "%" in axis.get_ylabel() and axis.get_ylim()[1] > 100
