"""The figures of 01 to 05 show what their captions say."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from palign.report import notebook_figures as figures
from palign.report import tables


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def searched(n: int = 12, **changed):
    """Prefixes of ``n`` traces, half of which end before the oracle's end, and their pairs: the first third right."""
    names = [f"t{i}" for i in range(n)]
    early = [i % 2 == 0 for i in range(n)]
    prefixes = pd.DataFrame({"id": names, "ratio": [0.15 if e else 0.55 for e in early]})
    prefixes = prefixes.assign(sentences=[2 if e else 6 for e in early], oracle_sentences=5.0)
    right = [i < n // 3 for i in range(n)]
    pairs = pd.DataFrame({"id": names, "finish": "stop", "outcome": ["right" if r else "wrong" for r in right]})
    return prefixes.assign(**changed), pairs.assign(success_rate=float("nan"))


def test_budgets_are_lines_with_the_share_of_traces_that_fit():
    figure = figures.trace_lengths(pd.DataFrame({"tokens": [50, 100, 127, 128, 200, 255]}), [256, 128])
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["256 tokens:\n100 % fit", "128 tokens:\n50 % fit"]
    assert [line.get_xdata()[0] for line in figure.axes[0].get_lines()] == [256, 128]
    assert "n = 6 traces" in figure.texts[-1].get_text()


def test_success_by_share_and_by_the_prefixs_end_counts_every_prefix():
    figure = figures.success(*searched())
    share, where = figure.axes
    assert [label.get_text() for label in share.get_xticklabels()] == ["10 to\n20 %", "50 to\n60 %"]
    assert [label.get_text() for label in where.get_xticklabels()] == ["1 to 4\nbefore", "past it"]
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["6", "6"]
        ((marks, _, bars),) = axis.containers
        assert marks.get_ydata() == pytest.approx([100 / 3, 100 / 3]) and len(bars) == 1
    assert [text.get_text() for text in share.get_legend().get_texts()] == ["trained on: one continuation"]


def test_success_without_an_oracle_or_without_prefixes():
    assert len(figures.success(*searched(oracle_sentences=float("nan"))).axes) == 1
    assert figures.success(pd.DataFrame(), pd.DataFrame()) is None


def test_measured_success_stands_beside_what_is_trained_on():
    prefixes, pairs = searched()
    figure = figures.success(prefixes, pairs.assign(success_rate=0.5))
    assert [len(axis.containers) for axis in figure.axes] == [2, 2]


def test_an_arm_that_is_not_trained_has_no_loss():
    assert figures.losses(pd.DataFrame(columns=["step", "loss"]), "zero-shot") is None
    figure = figures.losses(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]}), "p-align")
    assert figure.axes[0].get_ylim()[0] == 0 and "n = 2 logged updates" in figure.texts[-1].get_text()


def test_each_benchmark_has_a_row_and_the_mean_stands_last(study):
    found = tables.accuracy(study({"easy": 20, "hard": 30}, {"p-align": 0.7}))
    figure = figures.benchmarks(found)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["easy", "hard", "average"]
    assert [axis.get_title() for axis in figure.axes] == ["Pass@1", "Pass@3"]
    assert "easy 20, hard 30" in figure.texts[-1].get_text()


def test_every_answered_response_is_in_the_histogram(study):
    made = study({"set": 40}, {"p-align": 0.5}, missing={"p-align": 30})
    figure = figures.response_lengths(made.grades, [256, 128])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 90
    assert "n = 90 answered responses" in figure.texts[-1].get_text()
