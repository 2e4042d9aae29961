"""The audit: its arithmetic against brute force and libraries, the facts it found, and the notebook that shows them."""

import itertools
import math
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.paper import printed
from palign.study.cli import main
from palign.params import ParamsError, from_notebook
from palign.problems import DataError
from palign.paper import cells, gains, released, verdicts
from palign.paper.printed import SIZES, arm_cells
from palign.paper.claims import CLAIMS
from tests.conftest import PROJECT, write_jsonl

law = settings(deadline=None, max_examples=50)  # the first example also imports, on a busy machine slowly
sizes = st.sampled_from(sorted({*SIZES.values(), 83 * 3, 7, 100}))
shares = st.tuples(st.integers(0, 83), st.integers(0, 83))


# --- Cells


@law
@given(st.data(), sizes)
def test_every_share_is_attainable_however_it_is_cut_to_two_decimals(data, n):
    """A table that rounds and one that truncates are both right."""
    k = data.draw(st.integers(0, n))
    down, nearest, up = 10_000 * k // n, round(10_000 * k / n), -(-10_000 * k // n)
    assert all(cells.attainable(hundredths / 100, n) for hundredths in (down, nearest, up))


@law
@given(st.integers(0, 10_000), sizes)
def test_attainable_is_what_trying_every_count_says(hundredths, n):
    near = min(abs(hundredths * n - 10_000 * k) for k in range(n + 1))  # in 1/(100 n) points
    assert cells.attainable(hundredths / 100, n) == (near < n)


def test_the_fewest_samples_are_found_for_every_number_and_are_the_fewest():
    assert cells.samples_needed(50.60, 83, "pass@1") == 1
    assert cells.samples_needed(59.84, 83, "pass@1") == 3
    assert cells.samples_needed(49.70, 83, "pass@3") == 4  # C(4, 3) samples of three
    for percent in (40.76, 32.92, 47.58):
        s = cells.samples_needed(percent, 83, "pass@1")
        assert cells.attainable(percent, s * 83)
        assert not any(cells.attainable(percent, t * 83) for t in range(1, s))


def test_eleven_cells_of_table_1_are_no_whole_number_of_amc_problems():
    """The finding itself: nine of them lie far from k/249 too, one lies 0.012 points off, one is 149/249."""
    found = cells.unattainable("table1")
    assert len(found) == 11
    assert sorted(found.loc[found["attainable"] == "k/(3n)", "percent"]) == [59.84]
    off = found[found["attainable"] == "neither"]
    assert off.loc[off["off"] < 0.015, "percent"].tolist() == [32.92]
    others = sorted(off.loc[off["off"] >= 0.015, "percent"])
    assert others == [34.62, 40.76, 47.58, 48.51, 49.70, 58.81, 61.74, 67.04, 75.38]
    assert not any(cells.attainable(percent, 249) for percent in others)


def test_all_cells_of_p_align_in_table_1_are_attainable_and_all_off_amc12():
    table = cells.cells()
    rows = table[(table["table"] == "table1") & (table["arm"] == "p-align")]
    assert len(rows) == 16 and (rows["attainable"] == "k/n").all()
    assert (table.loc[table["benchmark"] != "AMC12", "attainable"] == "k/n").all()


def test_two_printed_averages_do_not_add_up():
    """Table 1: 47.475 by its cells, 47.68 printed. Half a unit of rounding must not make a third."""
    off = cells.averages().query("not adds_up")
    assert off[["table", "student", "arm", "metric", "printed"]].values.tolist() == [
        ["table1", "Qwen2.5-7B-Instruct", "sft-long-cot", "pass@3", 47.68],
        ["table2", "Qwen3-8B", "p-align-no-adaptive-read", "pass@3", 58.36],
    ]
    assert off["mean"].round(4).tolist() == [47.475, 58.7775]


@law
@given(st.lists(st.integers(0, 83), min_size=4, max_size=4))
def test_an_average_of_rounded_cells_always_adds_up(counts):
    exact = [100 * k / 83 for k in counts]
    table = pd.DataFrame(
        {"table": "t", "student": "s", "teacher": "r", "arm": "a", "metric": "pass@1"}
        | {"benchmark": [*SIZES, printed.AVERAGE], "percent": np.round([*exact, np.mean(exact)], 2)}
    )
    assert cells.averages(table)["adds_up"].all()


def test_p_align_under_other_teachers_repeats_table_1_but_for_one_cell():
    found = cells.repeats().query("expected == ''")
    assert set(found["arm"]) == {"p-align"}
    first = found[found["row"] == "table1, DeepSeek-R1"]
    assert len(first) == 4
    assert first["apart"].tolist().count("") == 3 and "MATH500 75.8 and 75.2" in first["apart"].tolist()


@law
@given(st.integers(0, 20), st.integers(1, 20))
def test_the_chance_to_repeat_is_that_of_two_equal_draws(k, n):
    p = min(k, n) / n
    pmf = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)]
    assert cells.chance([100 * p], [n]) == pytest.approx(sum(x * x for x in pmf))
    assert cells.chance([100 * p] * 2, [n, n]) == pytest.approx(sum(x * x for x in pmf) ** 2)


# --- Gains


@law
@given(shares)
def test_both_intervals_contain_the_gain_and_swapping_the_arms_mirrors_them(counts):
    p, q = (pd.Series({"AMC12": 100 * k / 83}) for k in counts)
    one, other = (gains.compare(*arms).set_index("scope").loc["AMC12"] for arms in ((p, q), (q, p)))
    assert one.low <= one.gain <= one.high and one.best_low <= one.gain <= one.best_high
    assert (one.low, one.best_low) == pytest.approx((-other.high, -other.best_high))


@law
@given(shares)
def test_the_best_pairing_is_never_less_certain_than_independence(counts):
    p, q = (k / 83 for k in counts)
    assert gains.best_variance(p, q, 83) <= gains.independent_variance(p, q, 83) + 1e-12


@law
@given(st.integers(-40, 40))
def test_the_exact_test_of_one_benchmark_is_the_binomial_one(net):
    from scipy.stats import binomtest

    expected = binomtest(abs(net), abs(net), 0.5).pvalue if net else 1.0
    assert gains.sign_flips([net], [1 / 83]) == pytest.approx(expected)


@law
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=3))
def test_the_exact_test_across_benchmarks_is_what_trying_all_signs_says(net):
    weights = [1 / 30, 1 / 83, 1 / 500][: len(net)]
    moved = [w for count, w in zip(net, weights, strict=True) for _ in range(abs(count))]
    seen = abs(sum(count * w for count, w in zip(net, weights, strict=True)))
    signs = list(itertools.product((-1, 1), repeat=len(moved)))
    reached = sum(abs(sum(s * w for s, w in zip(sign, moved, strict=True))) >= seen - 1e-12 for sign in signs)
    assert gains.sign_flips(net, weights) == pytest.approx(reached / len(signs))


@law
@given(st.floats(0.01, 0.3), st.integers(30, 643))
def test_with_the_problems_needed_four_studies_in_five_find_the_gain(gain, n):
    from scipy.stats import norm

    variance = 0.5 / n
    needed = gains.problems_needed(gain, variance, n)
    power = [norm.sf(gains.Z - gain / math.sqrt(variance * n / m)) for m in (needed - 1, needed)]
    assert power[0] < gains.POWER + 1e-6 and power[1] >= gains.POWER - 1e-6


def test_no_gain_over_whole_traces_or_upft_in_table_1_excludes_zero_for_independent_arms():
    """The finding itself, with the numbers a reader is shown."""
    rows = gains.main(gains.gains()).query("scope == 'average'")
    assert len(rows) == 8 and (rows["low"] < 0).all() and (rows["gain"] > 0).all()
    first = rows[rows["student"].str.startswith("Qwen2.5") & (rows["metric"] == "pass@1")].set_index("worse")
    columns = ["gain", "low", "high", "best_low", "best_high"]
    assert first.loc["sft-long-cot", columns].round(2).tolist() == [3.69, -3.86, 11.21, 0.48, 6.90]
    assert first.loc["upft", columns].round(2).tolist() == [2.38, -5.37, 10.07, -0.02, 4.77]
    assert first.loc["sft-long-cot", "p_best"] == 2 / 2**6


def test_a_row_that_is_printed_nowhere_is_no_row():
    with pytest.raises(KeyError, match="not printed exactly once"):
        arm_cells("Qwen3-8B", "DeepSeek-R1", "p-aling", "pass@1")


# --- Verdicts


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "not distinguishable"], "not distinguishable"),
        (["contradicted", "not distinguishable"], "contradicted"),
        (["contradicted", "supported"], "not distinguishable"),
        (["not testable"], "not testable"),
    ],
)
def test_a_claim_is_supported_only_in_every_setting(found, verdict):
    assert verdicts.overall(found) == verdict


def test_every_claim_has_a_verdict_and_a_source():
    table = verdicts.verdicts()
    shown = verdicts.claims_shown(table)
    assert len(shown) == len(CLAIMS) == len({claim.id for claim in CLAIMS})
    counts = shown["verdict"].value_counts().to_dict()
    assert counts == {"supported": 3, "not distinguishable": 16, "not testable": 4}
    assert verdicts.verdicts_text(table).startswith(
        "Of 23 claims: 3 supported, 16 not distinguishable, 0 contradicted, 4 not"
    )


def test_the_verdict_follows_the_interval():
    table = verdicts.verdicts().dropna(subset=["gain"])
    assert (table["verdict"].eq("supported") == (table["low"] > 0)).all()
    assert (table["verdict"].eq("contradicted") == (table["high"] < 0)).all()


def test_shares_of_the_filter_and_the_prefix_are_the_tables_own():
    assert verdicts.kept()["percent"].tolist() == pytest.approx([97.2, 98.8])
    assert verdicts.lengths()["prefix_of_target"].round(1).tolist() == [83.1, 76.8, 79.2]


# --- Released outputs

BLOCK = "<Begin_of_Draft>Two and two.. <End_of_Draft>So it is \\boxed{4}."
ROWS = [
    {"answer": "4", "output": [BLOCK, "<Begin_of_Draft>It is 4", "So \\boxed{5}..."], "label": [1, 1, 0]},
    {"answer": "7", "output": ["\\boxed{8}", "\\boxed{07}", "no idea"], "label": [0, 1, 0]},
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    path = write_jsonl(tmp_path_factory.mktemp("outputs") / "outputs.jsonl", ROWS)
    return released.load(printed.Audit(released=str(path)))


def test_a_released_response_is_read_as_it_stands(outputs):
    """An ellipsis is no doubled full stop, and an open block is not a closed one."""
    table = outputs.responses
    assert table["closed"].tolist() == [True, False, False, False, False, False]
    assert (table["marker"] == "<Begin_of_Draft>").tolist() == [True, True, False, False, False, False]
    assert table["doubled"].tolist() == [1, 0, 0, 0, 0, 0] and table["doubled_after"].sum() == 0
    assert table.loc[0, "draft"] == pytest.approx(len("Two and two.. ") / len(BLOCK))
    assert table["strict"].tolist() == ["right", "no box", "wrong", "wrong", "right", "no box"]


def test_labels_without_a_final_answer_are_counted(outputs):
    table = released.labels(outputs)
    assert table.loc["no box", ["responses", "label right"]].tolist() == [2, 1]
    assert table.loc["all"].tolist() == [6, 3, 3]
    assert released.labels_text(outputs).startswith("1 of the 3 responses labelled right have no final answer")


def test_accuracy_is_given_sample_by_sample_beside_the_printed(outputs):
    table = released.accuracy(outputs)
    assert table["strict"].tolist() == [50, 50, 0, 33.33, 100]
    assert table["released label"].tolist() == [50, 100, 0, 50, 100]
    assert table["printed"].tolist() == [16.67] * 4 + [26.67]


def test_only_a_files_name_and_hash_are_kept_never_its_path(outputs, tmp_path_factory):
    assert outputs.source.startswith("outputs.jsonl, sha256 ")
    assert str(tmp_path_factory.getbasetemp()) not in released.about(outputs)


def test_outputs_without_any_block_have_a_table_too(tmp_path):
    row = {"answer": "1", "output": ["\\boxed{1}"], "label": [1]}
    found = released.load(printed.Audit(released=str(write_jsonl(tmp_path / "o.jsonl", [row]))))
    assert released.form(found).loc["responses"].tolist() == ["0", "1", "1"]
    assert math.isnan(released.accuracy(found).loc["any of them", "printed"])  # no Pass@3 of one sample
    assert "none opens a block" in released.form_text(found)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"answer": "1", "output": ["a"]}, "no column label"),
        ({"answer": "1", "output": "a", "label": 1}, "row 1: output must be a list of texts"),
        ({"answer": "1", "output": ["a"], "label": [2]}, "row 1: output must be a list of texts"),
        ({"answer": "1", "output": ["a", "b"], "label": [1]}, "row 1: 2 outputs, 1 labels"),
        ({"answer": None, "output": ["a"], "label": [1]}, "row 1: 1 outputs, 1 labels, answer None"),
        ({"answer": "1", "output": [], "label": []}, "same number of responses, and at least one"),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(tmp_path, capsys, row, fault):
    path = write_jsonl(tmp_path / "outputs.jsonl", [row])
    with pytest.raises(DataError, match=fault):
        released.load(printed.Audit(released=str(path)))
    assert main(["audit", "--released", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("palign: ") and fault in line


def test_a_file_that_is_not_there_is_told_in_one_line(capsys):
    assert main(["audit", "--released", "nowhere.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("palign: nowhere.jsonl: no such file")


# --- The notebook


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A project in which the audit ran once, from the published numbers alone."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params").mkdir()
    shutil.copytree(PROJECT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        other = folder / "reports" / "paper-audit-released" / "tables" / "released-form.csv"
        other.parent.mkdir(parents=True)
        other.write_text("of an earlier audit\n")
        assert main(["audit"]) == 0
    return folder / "reports" / "paper-audit"


def test_the_notebook_runs_from_the_published_numbers_alone(audited):
    page = (audited / "report.html").read_text(encoding="utf-8")
    assert "No released outputs were given, so this part is empty." in page
    assert "11 of 20 AMC12 cells are not k/83" in page
    assert {path.stem for path in audited.glob("tables/*.csv")} == {
        *("cells", "averages", "repeats", "samples", "gains", "verdicts", "claims")
    }
    assert {path.name for path in audited.glob("figures/*")} == {
        f"{name}.{kind}"
        for name in ("samples", "gains", "gains-by-benchmark", "gains-elsewhere")
        for kind in ("svg", "png")
    }


def test_an_audit_without_released_outputs_keeps_what_one_with_them_wrote(audited):
    """`make audit` on a fresh clone used to delete the committed tables of the released outputs."""
    kept = audited.parent / "paper-audit-released" / "tables" / "released-form.csv"
    assert kept.read_text() == "of an earlier audit\n"
    assert printed.folder_of(printed.Audit(released="outputs.jsonl")).name == kept.parent.parent.name


def test_the_report_names_no_folder_of_the_machine_that_made_it(audited):
    for path in (*audited.glob("*.html"), *audited.glob("tables/*.csv"), *audited.glob("figures/*.svg")):
        text = path.read_text(encoding="utf-8")
        assert str(audited.parent) not in text and str(PROJECT) not in text


def test_what_is_printed_below_a_tenth_of_a_thousandth_is_kept_in_the_tables(audited):
    """Four decimals turned an exact p of 5e-13 into zero."""
    assert (pd.read_csv(audited / "tables" / "gains.csv")["p_best"] > 0).all()


def test_parameters_cell_shows_the_fields_with_their_defaults_and_meanings():
    notebook = nbformat.read(PROJECT / "notebooks" / "paper_audit.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == printed.parameters_cell()
    assert [cell["id"] for cell in notebook.cells] == [f"au-{i:02d}" for i in range(len(notebook.cells))]


def test_a_misspelt_parameter_of_the_audit_is_named():
    with pytest.raises(ParamsError, match=r"relased: unknown key; did you mean released\?"):
        from_notebook({"relased": "x.jsonl"}, printed.Audit)
    assert from_notebook({"released": None}, printed.Audit) == printed.Audit()
