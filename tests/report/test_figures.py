"""Arms keep their colour and mark, and stay legible however many there are."""

from itertools import combinations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from palign.analysis import costs
from palign.arms import ARMS, DEFAULT_ARMS
from palign.params import Params
from palign.report import figures

EVERY = [arm for arm in ARMS if arm != "p-align-other-judge"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def accuracy_of(arms: list[str]) -> pd.DataFrame:
    """An accuracy table of these arms on the pocket study's benchmarks."""
    params = Params()
    names = [b.name for b in params.benchmarks] + ["average"]
    rows = [
        {"arm": arm, "benchmark": name, "metric": "pass@1", "budget": budget, "n": 4}
        | {"value": 0.5, "low": 0.4, "high": 0.6}
        for arm in arms
        for name in names
        for budget in (params.max_new_tokens, params.second_budget)
    ]
    return pd.DataFrame(rows)


def test_no_two_arms_look_alike():
    """A palette that starts again after ten colours made two arms one."""
    assert list(figures.STYLES) == list(ARMS)
    for a, b in combinations(ARMS, 2):
        (colour, mark), (other, other_mark) = figures.STYLES[a], figures.STYLES[b]
        apart = max(abs(x - y) for x, y in zip(colour, other, strict=True))
        assert mark != other_mark or apart > 0.04, f"{a} and {b}"


def test_the_arms_of_the_first_study_keep_their_colours():
    import seaborn as sns

    assert [figures.COLOURS[arm] for arm in DEFAULT_ARMS] == sns.color_palette("colorblind", 6)


@pytest.mark.parametrize("arms", [list(DEFAULT_ARMS), EVERY], ids=["six", "all"])
def test_every_arm_of_a_study_is_named_in_its_figure(arms):
    figure = figures.accuracy(accuracy_of(arms), "3 samples each")
    figure.canvas.draw()
    if len(arms) > figures.MANY:
        labels = figure.axes[0].get_yticklabels()
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    else:
        labels = figure.axes[-1].get_legend().get_texts()
    assert [label.get_text() for label in labels] == arms


def test_seeds_beside_their_interval():
    table = pd.DataFrame({"value": 0.5, "low": 0.4, "high": 0.6, "seed 0": 0.45, "seed 1": 0.55}, index=["p-align"])
    figure = figures.seeds(table)
    assert "each of 2 training seeds" in figure.texts[0].get_text()
    assert figures.seeds(pd.DataFrame()) is None


def test_only_answered_responses_have_a_length(study):
    """Failed requests of no tokens drew the boxes down."""
    made = study({"set": 40}, {"sft-label": 0.5, "rft": 0.5}, missing={"rft": 60})
    figure = figures.response_lengths(made.grades, [256])
    assert "n = 60 to 120 answered responses an arm" in figure.texts[0].get_text()
    assert min(line.get_xdata().min() for line in figure.axes[0].get_lines() if len(line.get_xdata())) >= 80


def test_reads_of_whole_prompts_stand_beside_reads_of_whole_prompts():
    record = {"trace_tokens": 90, "verdicts": [1, 2, 3], "tokens_read": 60}
    records = [record | {"tokens_demanded": 30, "tokens_of_prompts": 200 + i} for i in range(4)]
    table = costs.reads(records, [10] * 4)
    figure = figures.reads(table)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "whole prompts",
        "whole prompts, each read anew",
    ]
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.9, 2.015])
    assert table.loc["trace and question", "value"] + table.loc["instruction and labels", "value"] == pytest.approx(0.9)
