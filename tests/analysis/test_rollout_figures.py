"""The figures draw what their tables hold, and a file without such traces has none."""

import matplotlib.pyplot as plt
import pytest

from palign.analysis import rollout_figures as figures
from palign.analysis import rollouts

HEADER = "trace,model,right,sentences,rollouts,success,next_tags\n"


@pytest.fixture
def table(tmp_path):
    shares = {"a": (0.2, 0.6, 0.5, 1.0), "b": (0.5, 0.7, 0.9, 0.9), "c": (0.6, 0.4, 0.1, 0.0)}
    lines = [f"{t},m,{t != 'c'},{p},50,{s},plan\n" for t, row in shares.items() for p, s in enumerate(row)]
    (tmp_path / "some.csv").write_text(HEADER + "".join(lines))
    return rollouts.load(tmp_path / "some.csv")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


@pytest.mark.model
def test_every_figure_states_its_traces(table):
    curves = figures.curves(table, rollouts.by_share(table))
    frontier = figures.frontier(rollouts.frontier(rollouts.policies(table)))
    assert titles(curves) == titles(frontier) == ["right traces, n = 2", "wrong traces, n = 1"]
    assert [len(axis.get_lines()) for axis in curves.axes] == [5, 4]  # one per trace, the means, two ends of bars
    assert figures.drops(rollouts.monotone(table, 19)).axes[0].get_legend_handles_labels()[1][1:] == [
        "right, n = 2",
        "wrong, n = 1",
    ]
    landings = figures.landings(rollouts.searches(rollouts.search_ends(table)))
    assert titles(landings) == ["recorded share", "1 continuation", "4 continuations", "16 continuations"]
    assert any("n = 2 right traces" in text.get_text() for text in landings.texts)
    assert any("n = 2 right traces" in text.get_text() for text in figures.tags(rollouts.tags_around(table)).texts)


def test_a_file_of_wrong_traces_or_with_gaps_has_what_can_be_drawn(table):
    wrong = table[~table["right"]]
    assert titles(figures.curves(wrong, rollouts.by_share(wrong))) == ["wrong traces, n = 1"]
    assert figures.landings(rollouts.searches(rollouts.search_ends(wrong))) is None
    gaps = table[table["sentences"] != 1]
    assert figures.frontier(rollouts.frontier(rollouts.policies(gaps))) is None
    assert figures.tags(rollouts.tags_around(gaps)) is None
    assert len(figures.curves(gaps, rollouts.by_share(gaps)).axes) == 2
