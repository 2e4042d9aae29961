"""The report on rivals, of made-up outcomes: an arm is compared with P-ALIGN on the same problems, and takes its lead
only where every condition holds.
"""

import dataclasses
import re

import nbformat
import numpy as np
import pandas as pd
import pytest

from palign.arms import ARMS
from palign.report import compare, page, rival_figures, rivals, tables
from palign.report.figures import COLOURS
from palign.report.results import right_in
from palign.study.cli import main
from tests.conftest import PROJECT
from tests.report.test_compare import make

ARMS_OF = ("sft-long-cot", "p-align", "p-align-k", "rft-k-fallback", "p-align-fallback", "backoff")
SIZES = {"easy": 60, "hard": 60}
UPDATES = dict(zip(rivals.CURVE, (60, 120, 240, 480), strict=True))


def report(folder, better=(), seed=0, updates=120, backoff=3.0, **params):
    """A report in which some arms answer all problems and the others half of them, and ``backoff`` draws so many
    continuations a problem.
    """
    make(folder, seed, 0.5, ARMS_OF, sizes=SIZES, seeds=(0, 1, 2), **params)
    path = folder / "tables" / "problems.csv"
    table = pd.read_csv(path, header=[0, 1, 2], index_col=[0, 1])
    for arm in better:
        for column in [one for one in table.columns if one[0] == arm and one[2] == right_in(256)]:
            table[column] = 3
    table.to_csv(path)
    kept = {"judged": 10, "continued": 20, "trained": 3000, "total": 3030, "tokens_mean": 50}
    for name in ("spent", "responses"):
        pd.DataFrame(kept, index=pd.Index(ARMS_OF, name="arm")).to_csv(folder / "tables" / f"{name}.csv")
    strategies = {"continuations a problem": [backoff, np.nan]}
    pd.DataFrame(strategies, index=["backoff", "adaptive"]).to_csv(folder / "tables" / "strategies.csv")
    costs = pd.DataFrame({"seeds": 3, "updates": 3 * updates}, index=[f"finetuning/{arm}" for arm in ARMS_OF])
    costs.rename_axis("task").to_csv(folder / "tables" / "costs.csv")
    return folder


@pytest.fixture
def reports(tmp_path):
    """``reports(better)``: four numbers of updates and another world; ``better`` arms of each study by its name."""

    def make_all(better=(), **of):
        for i, (name, updates) in enumerate((UPDATES | {"pocket-mending": 120}).items()):
            report(tmp_path / name, of.get(name.replace("-", "_"), better), i, updates)
        return rivals.load(tmp_path)

    return make_all


def test_every_question_names_two_arms_and_every_extension_is_one():
    assert {arm for _, *pair in rivals.QUESTIONS for arm in pair} <= set(ARMS)
    assert set(rivals.EXTENSIONS) | {rivals.CHEAPEST, rivals.EQUAL, rivals.PALIGN} <= set(ARMS)
    assert all((PROJECT / "params" / f"{name}.yaml").is_file() for name in (*rivals.CURVE, *rivals.WORLDS, rivals.MANY))


def test_an_arm_is_compared_with_p_align_as_the_studys_own_table_does(reports):
    study = reports(("backoff",))[rivals.MAIN]
    table = rivals.arms(study)
    assert table.index[0] == "backoff" and set(table.index) == set(ARMS_OF)
    own = tables.main(tables.differences(study, "p-align")).set_index("arm")
    assert table.loc["backoff", "over p-align"] == own.loc["backoff", "value"]
    assert table.loc["backoff", "clear"] and np.isnan(table.loc["p-align", "over p-align"])
    assert table.loc["backoff", "pass@1"] == 1 and table.loc["backoff", "pass@1 in 128 tokens"] < 1
    assert table.loc["backoff", "pass@3"] == 1 and table.loc["backoff", "pass@3 in 128 tokens"] < 1
    shown = rivals.arms_shown(table).frame
    assert {("in 128 tokens", "Pass@1, %"), ("in 128 tokens", "Pass@3, %"), ("Pass@3, %", "")} <= set(shown.columns)
    asked = rivals.questions(study).set_index(["arm", "other"])
    assert ("p-align-fallback", "rft-k-fallback") in asked.index and ("select-rsr", "p-align") not in asked.index


def test_the_curve_takes_the_numbers_of_updates_from_the_reports(reports):
    rows = rivals.curve(reports())
    assert list(rows["updates"].unique()) == [60, 120, 240, 480]
    assert set(rows["arm"]) == set(ARMS_OF) and rows.loc[rows["arm"] == "p-align", "over"].isna().all()


@pytest.mark.parametrize(
    ("better", "of", "said"),
    [
        (("backoff",), {}, "backoff takes the lead"),
        (("backoff", "p-align-fallback"), {}, "p-align-fallback and backoff take the lead"),
        ((), {}, "none lies clearly above"),
        (("backoff",), {"pocket_beyond_480": ()}, "none lies clearly above"),
        (("backoff", "rft-k-fallback"), {}, "none lies clearly above"),
        (("backoff",), {"pocket_beyond_60": ("backoff", "rft-k-fallback")}, "none lies clearly above"),
        (("backoff", "p-align-k"), {}, "none lies clearly above"),
        (("rft-k-fallback",), {}, "none lies clearly above"),
    ],
    ids=[
        "one",
        "two",
        "none",
        "not at 480 updates",
        "the control too",
        "the control at 60",
        "more samples too",
        "the control only",
    ],
)
def test_an_extension_leads_only_where_every_condition_holds(reports, better, of, said):
    studies = reports(better, **of)
    assert said in rivals.verdict(rivals.leads(studies), rivals.curve(studies))


@pytest.mark.parametrize(
    ("better", "at_480", "said"),
    [
        (("p-align-fallback",), ("sft-long-cot",), "sft-long-cot (at 1 of 4 numbers of updates)."),
        (("p-align-fallback",), (), ""),
        ((), (), ""),
    ],
    ids=["one", "none", "nobody leads"],
)
def test_an_arm_that_is_as_good_as_the_leader_is_named_beside_it(reports, better, at_480, said):
    """A published rival cannot lead, and was as good as the arm that did; the page did not say so."""
    studies = reports(better, pocket_beyond_480=(*better, *at_480))
    found = rivals.as_good(rivals.curve(studies, rivals.LEADER), rivals.leads(studies))
    assert found == (said and f"Not below p-align-fallback by the interval of the difference: {said}")


def test_more_samples_are_compared_on_the_same_test_problems(reports, tmp_path):
    report(tmp_path / rivals.MANY, ("p-align-k",))
    rows = rivals.more_samples(reports(("backoff",))).set_index("arm")
    assert rows.loc["p-align-k", "value"] > 0.4 and rows.loc["p-align-k", "clear"]
    assert not rows.loc["rft-k-fallback", "clear"] and set(rows.index) == {"p-align-k", "rft-k-fallback"}


@pytest.mark.parametrize("other", ["p-align-k", "rft-k-fallback"])
def test_at_equal_generation_p_align_and_the_control_have_the_most_samples_that_were_drawn(reports, tmp_path, other):
    """The control was that of fewer samples, so a rival that samples could take the lead from it."""
    report(tmp_path / rivals.MANY, (other,), own_samples=16)
    leads = rivals.leads(reports(("backoff", "p-align-fallback")))
    assert not leads["at equal generation"].any() and not leads["leads"].any()


def test_a_control_that_more_samples_make_worse_still_counts_with_fewer(reports, tmp_path):
    """With 16 own samples the control fell by 15 points, and an arm that only matched it with four was above it."""
    report(tmp_path / rivals.MANY, own_samples=16)
    better = ("backoff", "p-align-fallback")
    leads = rivals.leads(reports(better, pocket_beyond=(*better, "rft-k-fallback")))
    assert not leads["at equal generation"].any()


def test_an_arm_that_draws_more_than_p_align_was_allowed_is_not_at_equal_generation(reports, tmp_path):
    """Five continuations a problem were compared with four, and called equal."""
    studies = reports(("backoff", "p-align-fallback"))
    main = tmp_path / rivals.MAIN / "tables" / "strategies.csv"
    main.write_text(main.read_text().replace("3.0", "5.0"))
    assert studies[rivals.MAIN].params.own_samples == 4
    found = rivals.leads(studies)["at equal generation"]
    assert pd.isna(found["backoff"]) and found["p-align-fallback"] == True  # noqa: E712
    assert not rivals.leads(studies).loc["backoff", "leads"]
    report(tmp_path / rivals.MANY, own_samples=16)
    assert rivals.leads(rivals.load(tmp_path)).loc["backoff", "leads"]


def test_with_a_part_of_the_curve_nothing_leads_yet(reports):
    """Two numbers of updates of four read as all of them."""
    studies = {name: study for name, study in reports(("backoff",)).items() if not name.endswith(("-60", "-480"))}
    said = rivals.verdict(rivals.leads(studies), rivals.curve(studies))
    assert "2 of 4 numbers of updates have been run (120, 240)" in said and "hold for backoff" in said


def test_a_world_that_lacks_an_arm_does_not_take_it_from_the_others(reports):
    """The leaders alone were run with another seed of sampling; whole traces were then shown in no world."""
    studies = reports()
    less = studies["pocket-mending"].outcomes.params
    less = less.model_copy(update={"arms": [arm for arm in less.arms if arm != "backoff"]})
    worlds = {name: studies[name] for name in (rivals.MAIN, "pocket-mending")}
    worlds["pocket-beyond-seed-1"] = compare.Study(
        studies["pocket-mending"].folder, dataclasses.replace(studies["pocket-mending"].outcomes, params=less)
    )
    found = rivals.worlds(worlds).groupby("world", sort=False)["arm"].agg(set)
    assert "backoff" not in found[rivals.WORLDS["pocket-beyond-seed-1"]]
    assert all("backoff" in found[rivals.WORLDS[name]] for name in (rivals.MAIN, "pocket-mending"))


def test_without_a_curve_nothing_leads(tmp_path):
    """An arm that was trained at one number of updates was called the leader at all of them."""
    report(tmp_path / "pocket-mending", ("backoff",))
    report(tmp_path / rivals.MAIN, ("backoff",))
    studies = rivals.load(tmp_path)
    assert rivals.leads(studies).empty and rivals.curve(studies).empty
    assert "no arm can take the lead" in rivals.verdict(rivals.leads(studies), rivals.curve(studies))
    worlds = [rivals.WORLDS[name] for name in (rivals.MAIN, "pocket-mending")]
    assert list(rivals.worlds(studies)["world"].unique()) == worlds
    assert rivals.worlds({rivals.MAIN: studies[rivals.MAIN]}).empty


def test_figures_are_drawn_of_every_table(reports):
    studies = reports(("backoff",))
    table = rivals.arms(studies[rivals.MAIN])
    errors = pd.DataFrame({"arm": ["backoff"], "error": ["doubt"], "value": [0.2]})
    said = rivals.samples(studies[rivals.MAIN])
    for figure in (
        rival_figures.ranks(table, rivals.curve(studies), said),
        rival_figures.curve(rivals.curve(studies), said),
        rival_figures.worlds(rivals.worlds(studies), said),
        rival_figures.errors(errors, list(table.index), said),
    ):
        assert figure.axes and "n = 120 test problems" in figure.texts[-1].get_text()
        rival_figures.plt.close(figure)
    assert rival_figures.curve(pd.DataFrame(), said) is None and rival_figures.worlds(pd.DataFrame(), said) is None
    rival_figures.plt.close(rival_figures.ranks(table, pd.DataFrame(), said))


def test_p_align_has_the_colour_that_the_studies_reports_give_it(reports):
    """It was blue in one figure and orange in the next, where its pink was another arm's."""
    studies = reports()
    curve = rivals.curve(studies)
    for figure in (rival_figures.ranks(rivals.arms(studies[rivals.MAIN]), curve, ""), rival_figures.curve(curve, "")):
        drawn = {line.get_color() for line in figure.axes[0].lines}
        assert {COLOURS[arm] for arm in curve["arm"]} <= drawn
        rival_figures.plt.close(figure)


def test_the_figure_of_all_arms_fits_a_telephone(reports):
    """At 400 pixels it showed names and an almost empty frame; the points were scrolled off."""
    figure = rival_figures.ranks(rivals.arms(reports()[rivals.MAIN]), pd.DataFrame(), "")
    assert figure.get_figwidth() * 96 < 400 - 21  # the page's margins
    rival_figures.plt.close(figure)


def test_the_worlds_share_their_axis(reports):
    """Zero stood at another place in each panel."""
    figure = rival_figures.worlds(rivals.worlds(reports(("backoff",), pocket_mending=())), "")
    assert len({axis.get_xlim() for axis in figure.axes}) == 1 < len(figure.axes)
    rival_figures.plt.close(figure)


def test_the_first_table_has_p_align_and_what_it_is_measured_against(reports):
    """Its open rows were the eight best arms, and P-ALIGN was not among them."""
    table = rivals.arms(reports(("backoff", "p-align-fallback", "p-align-k"))[rivals.MAIN])
    shown = rivals.leaders(table)
    assert set(shown.frame.index) == set(ARMS_OF) and "<details" not in shown.html
    assert list(shown.frame.index[:3]) == list(table.index[:3])


def test_a_table_of_differences_has_no_empty_row_of_p_align(reports):
    curve = rivals.curve(reports())
    assert "p-align" not in rivals.by(curve, "updates", "over", "minus p-align, points").frame.index
    assert "p-align" in rivals.by(curve, "updates", "", "Pass@1, %").frame.index


def test_what_takes_the_lead_is_said_in_words(reports, tmp_path):
    """The columns were the code's, and a condition that was never tested an empty cell."""
    studies = reports(("p-align-fallback",))
    main = tmp_path / rivals.MAIN / "tables" / "strategies.csv"
    main.write_text(main.read_text().replace("3.0", "5.0"))
    shown = rivals.leads_shown(rivals.leads(studies))
    assert (
        (shown.frame == "not tested").any(axis=None)
        and "takes the lead" in shown.html
        and "at every update budget" not in shown.html
    )
    assert set(shown.frame.to_numpy().ravel()) <= {"yes", "no", "not tested"}
    assert rivals.leads_shown(pd.DataFrame()).html == ""


def test_the_page_says_what_k_is_and_what_the_cheapest_control_is(reports):
    studies = reports(("backoff",))
    said = rivals.tries(studies[rivals.MAIN])
    assert "4 (`own_samples`)" in said and "2 of 4 (`success_needed`, `success_samples`)" in said
    lead = rivals.verdict(rivals.leads(studies), rivals.curve(studies))
    assert "the student's own right answer, else the whole trace: no judge, no prefix" in lead
    assert "the share of right responses" in rivals.finding(rivals.arms(studies[rivals.MAIN]))


@pytest.mark.model
def test_the_notebook_reads_the_reports_alone(reports, tmp_path, project, capsys):
    reports(("backoff",))
    assert main(["rivals", "--reports", str(tmp_path)]) == 0
    shown = (project / "reports" / "rivals" / "report.html").read_text(encoding="utf-8")
    assert "Clearly above it, in points: backoff" in shown and "backoff takes the lead" in shown
    assert str(tmp_path) not in shown
    kept = {path.stem for path in (project / "reports" / "rivals" / "tables").glob("*.csv")}
    assert kept == {"arms", "questions", "curve", "curve-of-the-leader", "worlds", "leads"}


def test_without_the_main_report_the_command_says_what_to_run(tmp_path, project, capsys):
    assert main(["rivals", "--reports", str(tmp_path)]) != 0
    line = capsys.readouterr().err
    assert line.startswith("palign: ") and line.count("\n") == 1 and "palign run params/pocket-beyond.yaml" in line


def test_a_damaged_report_is_said_in_one_line(reports, tmp_path):
    reports()
    (tmp_path / rivals.MAIN / "headline.json").unlink()
    with pytest.raises(compare.CompareError, match="not a study's report folder"):
        rivals.load(tmp_path)


def test_a_link_to_a_report_works_in_the_notebook_and_on_its_page(tmp_path):
    """The notebook's links were those of its page, and dead when it was opened itself."""
    path = PROJECT / "notebooks" / "rivals.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    links = re.findall(r"\]\((\.\.[^)]*)\)", "\n".join(cell.source for cell in notebook.cells))
    assert links and all((path.parent / link).is_file() for link in links)
    nbformat.write(notebook, tmp_path / "rivals.ipynb")
    page.render(tmp_path / "rivals.ipynb", tmp_path / "rivals" / "report.html")
    html = (tmp_path / "rivals" / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'href="(\.\.[^"]*)"', html)
    assert found and all((PROJECT / "reports" / "rivals" / link).resolve().is_file() for link in found)
