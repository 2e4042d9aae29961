"""Arms keep their colour and mark, and a figure stays legible however many of them it has."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from palign.analysis import costs
from palign.arms import ARMS, DEFAULT_ARMS, PAPER_ARMS
from palign.params import Params
from palign.report import figures, prefix_figures
from palign.report.tables import averages
from palign.traces import RULES
from palign.truncation import linear, released

EVERY = list(ARMS)
FULL = list(PAPER_ARMS)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def accuracy_of(arms: list[str]) -> pd.DataFrame:
    """An accuracy table of these arms on the pocket study's benchmarks; most of them lie close to each other."""
    params, rng = Params(), np.random.default_rng(0)
    names = [b.name for b in params.benchmarks] + ["average"]
    values = {arm: float(np.clip(rng.normal(0.75, 0.15), 0.05, 0.95)) for arm in arms} | {"p-align": 0.8}
    rows = [
        {"arm": arm, "benchmark": name, "metric": metric, "budget": budget, "n": 4}
        | {"value": values[arm], "low": values[arm] - 0.04, "high": values[arm] + 0.04}
        for arm in arms
        for name in names
        for metric in ("pass@1", "pass@3")
        for budget in (params.max_new_tokens, params.second_budget)
    ]
    return pd.DataFrame(rows)


def spending(arms: list[str]) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    paid = {arm: int(10 ** rng.uniform(4.7, 5.3)) if ARMS[arm].target else 0 for arm in arms}
    table = pd.DataFrame({"trained": pd.Series(paid)})
    return table.assign(total=2 * table["trained"])


def lengths_of(arms: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"tokens_mean": np.random.default_rng(2).normal(80, 25, len(arms)).clip(10)}, index=arms)


def seeds_of(arms: list[str]) -> pd.DataFrame:
    table = averages(accuracy_of(arms))[["value", "low", "high"]].loc[[arm for arm in arms if ARMS[arm].target]]
    return table.assign(**{f"seed {i}": table["value"] + 0.01 * i for i in range(3)})


SCATTERS = {
    "economy": lambda arms: figures.economy(accuracy_of(arms), lengths_of(arms), "3 samples each"),
    "pareto": lambda arms: figures.pareto(accuracy_of(arms), spending(arms), "3 samples each"),
}
OF_ARMS = SCATTERS | {
    "accuracy": lambda arms: figures.accuracy(accuracy_of(arms), "3 samples each"),
    "seeds": lambda arms: figures.seeds(seeds_of(arms), accuracy_of(arms)),
}
TWO = ["zero-shot", "p-align"]


def overlap(boxes) -> float:
    """The largest share that any of the boxes has in common with another one."""
    shares = [0.0]
    for a, b in combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > 0 and height > 0:
            shares.append(width * height / min(a.width * a.height, b.width * b.height))
    return max(shares)


@pytest.mark.parametrize("arms", [TWO, FULL, EVERY], ids=len)
@pytest.mark.parametrize("name", OF_ARMS)
def test_every_arm_is_named_and_every_name_can_be_read(name, arms):
    """A legend of 46 names had three times the height of its figure, and colours that no one tells apart."""
    figure = OF_ARMS[name](arms)
    figure.canvas.draw()
    for axis in figure.axes if name in SCATTERS else figure.axes[:1]:
        texts = axis.texts if name in SCATTERS else axis.get_yticklabels()
        names = [text for text in texts if text.get_text() in ARMS]
        if name in SCATTERS and len(arms) > figures.MANY:  # their names ran into each other
            assert {"p-align", "zero-shot", "sft-long-cot"} <= {text.get_text() for text in names} <= set(arms)
        else:
            assert sorted(text.get_text() for text in names) == sorted(arms)
        assert overlap([text.get_window_extent() for text in names]) < 0.1
        assert {text.get_text(): text.get_fontweight() for text in names}["p-align"] == "bold"
        assert min(text.get_fontsize() for text in names) >= 8
    assert figure.get_size_inches()[0] <= figures.WIDTH and figure.get_tightbbox().width < figures.WIDTH + 0.5
    for legend in [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]:
        assert len(legend.get_texts()) <= 8


@pytest.mark.parametrize("name", OF_ARMS)
def test_nothing_hides_p_align(name):
    """Two arms with nearly its accuracy and cost lay on it."""
    from matplotlib.colors import same_color

    figure = OF_ARMS[name](FULL)
    for axis in figure.axes:
        marks = [line for line in axis.get_lines() if line.get_marker() not in ("None", "", None)]
        marks += axis.collections
        highest = max(artist.get_zorder() for artist in marks)
        own = [artist for artist in marks if artist.get_zorder() == highest]
        for artist in own:
            colour = np.ravel(artist.get_color())[:3]
            assert same_color(colour if len(colour) == 3 else artist.get_color(), figures.COLOURS["p-align"])


def test_arms_stand_in_their_group_the_best_first():
    values = pd.Series({"rft": 0.9, "p-align": 0.5, "zero-shot": 0.7, "fixed-ratio-10": 0.1, "fixed-ratio-90": 0.2})
    assert figures.arranged(values) == {
        "main arms": ["zero-shot", "p-align"],
        "fixed shares": ["fixed-ratio-90", "fixed-ratio-10"],
        "controls": ["rft"],
    }
    groups = figures.arranged(pd.Series(0.5, index=EVERY))
    assert tuple(groups) == figures.GROUPS and sorted(arm for arms in groups.values() for arm in arms) == sorted(EVERY)
    assert set(groups["ablations"]) <= set(PAPER_ARMS) and not set(groups["rivals and extensions"]) & set(PAPER_ARMS)


def test_the_frontier_begins_with_what_costs_nothing():
    """It began at sft-label with 9 %, although zero-shot costs nothing and had 39 %."""
    arms = ["zero-shot", "sft-label", "p-align"]
    table, spent = accuracy_of(arms), spending(arms)
    figure = figures.pareto(table, spent, "3 samples each")
    for axis, column in zip(figure.axes, ("trained", "total"), strict=True):
        (line,) = (line for line in axis.get_lines() if line.get_label() == "frontier")
        assert line.get_xdata()[0] == 0 == axis.get_xticks()[0] and axis.get_xlim()[0] < 0
        assert line.get_ydata()[0] == pytest.approx(100 * averages(table).loc["zero-shot", "value"])
        assert list(np.diff(line.get_ydata()) >= 0) == [True, True]
        assert line.get_xdata()[-1] == spent[column].max()
    assert figures.pareto(accuracy_of(["zero-shot"]), spending(["zero-shot"]), "3 samples each") is None


def test_fixed_shares_stand_in_the_order_of_their_share():
    table = accuracy_of(["p-align", "fixed-ratio-90", "fixed-ratio-10", "fixed-ratio-50"])
    figure = figures.ratios(table, "3 samples each")
    assert [axis.get_title() for axis in figure.axes] == ["Pass@1", "Pass@3"]
    assert list(figure.axes[0].get_xticks()) == [10, 50, 90]
    assert "p-align (adaptive)" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert figures.ratios(accuracy_of(["p-align", "fixed-ratio-90"]), "3 samples each") is None


def test_no_two_arms_look_alike():
    """A palette that starts again after ten colours made two arms one."""
    assert list(figures.STYLES) == list(ARMS)
    for a, b in combinations(ARMS, 2):
        (colour, mark), (other, other_mark) = figures.STYLES[a], figures.STYLES[b]
        apart = max(abs(x - y) for x, y in zip(colour, other, strict=True))
        assert mark != other_mark or apart > 0.04, f"{a} and {b}"


def test_backoff_is_told_apart_from_p_align_backoff():
    """Both were the same cross in nearly the same purple."""
    own = {arm: figures.STYLES[arm][1] for arm in ARMS if arm.startswith("backoff")}
    assert set(own.values()) == {"p"} and "p" not in [figures.STYLES[arm][1] for arm in ARMS if arm not in own]


def test_the_arms_of_the_first_study_keep_their_colours():
    import seaborn as sns

    assert [figures.COLOURS[arm] for arm in DEFAULT_ARMS] == sns.color_palette("colorblind", 6)


def test_pass_at_1_has_pass_at_3_beside_it():
    """Whole traces were below P-ALIGN in the one and above it in the other, and only the first was drawn."""
    titles = [axis.get_title() for axis in figures.accuracy(accuracy_of(FULL), "3 samples each").axes]
    assert titles == ["Pass@1", "Pass@3"]
    table = accuracy_of(TWO)
    turned = (table["metric"] == "pass@3") & (table["arm"] == "p-align")
    table.loc[turned, ["value", "low", "high"]] = 0.02
    few = figures.accuracy(table, "3 samples each")
    names = ["average", *(b.name for b in Params().benchmarks)]
    assert [axis.get_title() for axis in few.axes[: len(names)]] == names
    assert few.axes[0].get_xlabel() == "Pass@1 (%)" and few.axes[len(names)].get_xlabel() == "Pass@3 (%)"
    assert few.texts[-1].get_text().startswith("Highest: p-align in Pass@1 (80.0 %), zero-shot in Pass@3")


def test_of_many_arms_the_others_have_their_groups_colour():
    looks = figures._look(EVERY)
    assert looks["p-align"] == figures.STYLES["p-align"] and len(set(looks.values())) <= 10
    assert figures._look(TWO) == {arm: figures.STYLES[arm] for arm in TWO}


@pytest.mark.parametrize("low, high", [(58e3, 230e3), (345e3, 390e3), (40e3, 9e6)])
def test_an_axis_of_tokens_has_three_ticks(low, high):
    """One study had the ticks 0 and 352k."""
    ticks = figures._ticks(low, high)
    assert len(ticks) >= 3 and all(low <= tick <= high for tick in ticks)


def test_seeds_beside_their_interval():
    figure = figures.seeds(seeds_of(TWO), accuracy_of(TWO))
    assert "each of the 3 training seeds" in figure.texts[0].get_text() and "not trained" in figure.texts[0].get_text()
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["p-align", "zero-shot"]
    assert [text.get_text() for text in axis.texts] == ["1.0"], "the seeds' standard deviation in points"
    assert "not trained" not in figures.seeds(seeds_of(["p-align"])).texts[0].get_text()
    assert figures.seeds(pd.DataFrame()) is None


def preferences(shares: dict[str, float], against=("sft-label", "rft")) -> pd.DataFrame:
    rows = [
        {"arm": "p-align", "against": arm, "measure": m, "value": v, "low": v, "high": v, "n": 9}
        for arm in against
        for m, v in ({"win": 0.0, "tie": 0.0, "inconsistent": 0.0, "unparseable": 0.0, "loss": 0.0} | shares).items()
    ]
    return pd.DataFrame(rows)


def test_an_outcome_that_never_occurs_is_not_in_the_legend():
    figure = figures.preference(preferences({"win": 0.7, "loss": 0.3}), "a rubric")
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["prefers the heading's arm", "prefers the arm in the row"]
    figure = figures.preference(preferences({"tie": 0.9, "unparseable": 0.1}), "a rubric")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["tie", "no verdict"]
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["p-align against", "sft-label", "rft"]


def test_claims_have_one_scale():
    rows = [
        {"claim": f"Claim {i}", "metric": metric, "printed": 3.0, "value": 20.0 * i, "low": 20.0 * i - 2}
        | {"high": 20.0 * i + 2, "unit": "points", "n": 9, "verdict": verdict, "note": ""}
        for i, verdict in enumerate(("not distinguishable", "reproduced"))
        for metric in ("pass@1", "pass@3")[: 2 - i]
    ]
    figure = figures.claims(pd.DataFrame(rows))
    assert len({axis.get_xlim() for axis in figure.axes}) == 1
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["printed, mean over settings", "this study", "this study, not distinguishable"]
    figure = figures.claims(pd.DataFrame(rows[2:]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == words[:2]


def test_prefixes_are_in_percent():
    made = {"status": "ok", "sentence_ratio": [0.2, 0.4], "oracle_ratio": [0.3, 0.5]}
    axis = prefix_figures.prefix_ratios(pd.DataFrame(made)).axes[0]
    assert axis.get_xlim() == (0, 100) and axis.get_ylim()[1] > 100
    assert max(line.get_ydata().max() for line in axis.get_lines()) == 100
    assert "%" in axis.get_xlabel() and "%" in axis.get_ylabel()


def searched(of: int, enough: int, how=released, oracle: float | None = None) -> dict:
    """The record of a search for the prefix of ``enough`` sentences."""
    trace, search, verdicts = " ".join(f"Let $x_{i}$ be {i}." for i in range(1, of + 1)), how(of), []
    assert len(RULES["released"].split(trace)) == of
    try:
        asked = next(search)
        while True:
            verdicts += [[p, "ENOUGH" if p >= enough else "NOT_ENOUGH", 0.1] for p in asked]
            asked = search.send([p >= enough for p in asked])
    except StopIteration as stop:
        found = vars(stop.value)
    record = {"id": str(of), "status": "ok", "of": of, "verdicts": verdicts, "oracle_sentences": oracle, **found}
    return record | {"question": r"How much is \$3 of $\frac{1}{2$?", "trace": trace}


@pytest.mark.parametrize("of", [1, 10, prefix_figures.MOST_LINES, prefix_figures.MOST_LINES + 1, 500])
def test_a_search_is_drawn_on_its_trace(of):
    search = searched(of, max(1, of // 3), oracle=max(1, of // 2))
    figure = prefix_figures.one_search(search)
    figure.canvas.draw()
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    for number, (_, label, _) in enumerate(search["verdicts"], 1):
        assert f"{number} {label}" in words
    assert ("Let $x_1$ be 1." in words) == (of <= prefix_figures.MOST_LINES)
    assert f"{max(1, of // 3)} sentences. Dashed: the oracle's end" in figure.texts[-1].get_text()
    assert figure.get_tightbbox().width < figures.WIDTH + 0.5 and figure.get_size_inches()[1] < 10
    named = [text.get_window_extent() for text in figure.axes[-1].texts if "ENOUGH" in text.get_text()]
    assert overlap(named) < 0.1


@pytest.mark.parametrize("of", [40, 300])
def test_a_scan_of_many_verdicts_has_marks_and_a_legend(of):
    figure = prefix_figures.one_search(searched(of, of // 2, linear))
    axis = figure.axes[-1]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["NOT_ENOUGH", "ENOUGH"]
    assert "Dashed" not in figure.texts[-1].get_text() and figure.get_size_inches()[1] < 10


def test_a_search_without_an_enough_says_so():
    figure = prefix_figures.one_search(searched(8, 99))
    assert "None was, so the whole trace is kept, 8 sentences" in figure.texts[-1].get_text()
    assert prefix_figures.one_search({}) is None
    assert prefix_figures.one_search(searched(8, 4) | {"status": "judge error"}) is None


def test_the_typical_search_keeps_the_median_share():
    records = [searched(20, n) for n in (2, 5, 20, 99)]
    prefixes = pd.DataFrame(records).assign(id=list("abcd"), sentence_ratio=[0.1, 0.25, 1.0, 1.0]).drop(columns="trace")
    traces = [{"id": name, "trace": f"Trace {name}."} for name in "dcba"]
    found = prefix_figures.typical(prefixes, traces)
    assert found["id"] == "b" and found["trace"] == "Trace b."
    assert prefix_figures.typical(prefixes[3:], traces) == prefix_figures.typical(pd.DataFrame(), []) == {}


def test_only_answered_responses_have_a_length(study):
    """Failed requests of no tokens drew the boxes down."""
    made = study({"set": 40}, {"sft-label": 0.5, "rft": 0.5}, missing={"rft": 60})
    figure = figures.response_lengths(made.grades, [256], pd.Series({"sft-label": 0.5, "rft": 0.4}))
    assert "n = 60 to 120 answered responses per arm" in figure.texts[0].get_text()
    assert min(line.get_xdata().min() for line in figure.axes[0].get_lines() if len(line.get_xdata())) >= 80


def test_lengths_stand_in_the_order_of_accuracies(study):
    """Arms stood by length in this figure, and by accuracy in all others."""
    made = study({"set": 40}, {"zero-shot": 0.2, "sft-label": 0.4, "p-align": 0.6})
    averages = pd.Series({"zero-shot": 0.2, "sft-label": 0.4, "p-align": 0.6})
    figure = figures.response_lengths(made.grades.assign(new_tokens=made.grades["arm"].map(len)), [256], averages)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["p-align", "sft-label", "zero-shot"]


def test_reads_of_whole_prompts_stand_beside_reads_of_whole_prompts():
    record = {"trace_tokens": 90, "verdicts": [1, 2, 3], "tokens_read": 60}
    records = [record | {"tokens_demanded": 30, "tokens_of_prompts": 200 + i} for i in range(4)]
    table = costs.reads(records, [10] * 4)
    figure = prefix_figures.reads(table)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "whole prompts",
        "whole prompts, each read anew",
    ]
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.9, 2.015])
    assert table.loc["trace and question", "value"] + table.loc["instruction and labels", "value"] == pytest.approx(0.9)
