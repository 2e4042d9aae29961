"""Two reports side by side: nothing differs from itself, order has no say, and chance is called chance."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palign import compare, report
from palign.cli import main

SIZES = {"easy": 8, "hard": 12}


def make(folder, seed=0, skill=0.5, arms=("zero-shot", "p-align"), seeds=(0,), sizes=SIZES, prefix="", **params):
    """A report folder of made-up outcomes."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_tuples([(name, f"{prefix}{i:02d}") for name, n in sizes.items() for i in range(n)])
    columns = [(arm, s, budget) for budget in (256, 128) for arm in arms for s in seeds]
    columns = pd.MultiIndex.from_tuples(columns, names=["arm", "seed", "budget"])
    table = pd.DataFrame(rng.binomial(3, skill, (len(index), len(columns))), index, columns)
    table.index.names = ["benchmark", "problem"]
    values = {"study": folder.name, "arms": list(arms), "n_samples": 3, "max_new_tokens": 256, "second_budget": 128}
    (folder / "tables").mkdir(parents=True)
    table.to_csv(folder / "tables" / "problems.csv")
    (folder / "params.yaml").write_text(yaml.safe_dump(values | params))
    return folder


def two(tmp_path, a=None, b=None):
    return compare.load(make(tmp_path / "a", **(a or {}))), compare.load(
        make(tmp_path / "b", **{"seed": 1} | (b or {}))
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_study_does_not_differ_from_itself(tmp_path, seeds):
    study = compare.load(make(tmp_path / "a", seeds=seeds))
    table = compare.table(study, study)
    assert (table["value"] == 0).all() and not table["clear"].eq(True).any() and (table["how"] == "paired").all()
    assert compare.settings(study, study).empty and "none" in compare.text(study, study)


@pytest.mark.parametrize("prefix", ["", "other"], ids=["paired", "unpaired"])
def test_the_other_way_round_is_the_opposite(tmp_path, prefix):
    a, b = two(tmp_path, b={"prefix": prefix, "skill": 0.6})
    there, back = compare.table(a, b), compare.table(b, a)
    assert set(there["how"]) == {"unpaired" if prefix else "paired"}
    assert there["value"].to_numpy() == pytest.approx(-back["value"].to_numpy())
    assert there["low"].to_numpy() == pytest.approx(-back["high"].to_numpy())
    assert there["p"].dropna().to_numpy() == pytest.approx(back["p"].dropna().to_numpy(), abs=1e-6)


@settings(max_examples=5)
@given(order=st.permutations(range(sum(SIZES.values()))))
def test_problems_are_matched_by_what_they_ask_not_by_their_place(tmp_path_factory, order):
    a, b = two(tmp_path_factory.mktemp("studies"))
    moved = compare.Study(b.folder, b.params, b.problems.iloc[order])
    rows = ["arm", "metric", "budget", "benchmark"]
    there, here = (compare.table(a, study).set_index(rows).sort_index() for study in (b, moved))
    pd.testing.assert_frame_equal(there, here)


def test_problems_of_one_study_alone_are_left_out_of_a_pairing(tmp_path):
    a, b = two(tmp_path, b={"sizes": {"easy": 8, "hard": 30}})
    table = compare.table(a, b).set_index("benchmark")
    assert set(table.loc["hard", "how"]) == {"paired"} and set(table.loc["hard", "n"]) == {12}


def test_a_clear_difference_is_called_one_and_a_small_one_is_not(tmp_path):
    sizes = {"easy": 200, "hard": 200}
    for how, prefix in (("paired", ""), ("unpaired", "other")):
        a, b = two(tmp_path / how, {"sizes": sizes}, {"sizes": sizes, "prefix": prefix, "skill": 0.8})
        c = compare.load(make(tmp_path / how / "c", seed=2, sizes=sizes, prefix=prefix))
        assert compare.table(a, b).dropna(subset="p")["clear"].all()
        assert not compare.table(a, c).dropna(subset="p")["clear"].any()


def test_arms_of_one_study_alone_are_not_compared(tmp_path):
    a, b = two(tmp_path, b={"arms": ("p-align", "rft")})
    assert set(compare.table(a, b)["arm"]) == {"p-align"}


def test_settings_that_differ_are_named(tmp_path):
    a, b = two(tmp_path, {"student": "one", "seed": 3}, {"student": "two"})
    assert compare.settings(a, b).loc["student"].tolist() == ["one", "two"]


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ({"arms": ("rft",)}, "no arm in common"),
        ({"sizes": {"else": 5}}, "no benchmark in common"),
        ({"max_new_tokens": 99, "second_budget": None}, "no response budget in common"),
    ],
)
def test_nothing_in_common_is_one_line(tmp_path, capsys, b, words):
    make(tmp_path / "a"), make(tmp_path / "b", **b)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize("spoil", ["missing", "garbage", "older"])
def test_what_is_no_report_is_one_line(tmp_path, capsys, spoil):
    make(tmp_path / "a"), make(tmp_path / "b")
    problems = tmp_path / "b" / "tables" / "problems.csv"
    if spoil == "missing":
        problems.unlink()
    elif spoil == "garbage":
        problems.write_bytes(b"\x00\xff\n,,,\n")
    else:
        (tmp_path / "b" / "params.yaml").write_text("study: b\n")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "b") in error and "run the study again" in error and error.count("\n") == 1


def test_a_report_keeps_what_is_compared(tmp_path, monkeypatch):
    """The table that a report writes comes back with the accuracies that the report shows."""
    from .test_report import Benchmark, Params

    params = Params(
        arms=["zero-shot", "p-align"],
        benchmarks=[Benchmark(name=name, data=f"{name}.jsonl", problems=n) for name, n in SIZES.items()],
        training_seeds=[0, 1],
    )

    def load_grades(params, arm, seed=None):
        rng = np.random.default_rng([len(arm), seed])
        return [
            {"benchmark": name, "problem": f"{i:02d}", "sample": s, "right": bool(rng.integers(2)), "right_cut": False}
            for name, n in SIZES.items()
            for i in range(n)
            for s in range(params.n_samples)
        ]

    monkeypatch.setattr(report.evaluation, "load_grades", load_grades)
    (tmp_path / "tables").mkdir()
    report.problems(params).to_csv(tmp_path / "tables" / "problems.csv")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    study = compare.load(tmp_path)
    kept = compare.table(study, study).set_index(["arm", "benchmark", "metric", "budget"])["a"]
    shown = report.accuracy(params).set_index(["arm", "benchmark", "metric", "budget"])["value"]
    assert kept.to_dict() == pytest.approx(shown.drop("pooled", level="benchmark").to_dict())
