"""Two reports compared: a report does not differ from itself, the order of the two does not matter, and chance
differences are not called clear.
"""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palign import problems
from palign.analysis import statistics
from palign.params import Benchmark, Params
from palign.report import compare, tables, write
from palign.report.results import ANSWERED, Outcomes, Results, as_arrays, portable, right_in
from palign.study.cli import main
from palign.tasks.plan import Task
from tests.conftest import write_jsonl

SIZES = {"easy": 8, "hard": 12}


def make(
    folder,
    seed=0,
    skill=0.5,
    arms=("zero-shot", "p-align"),
    seeds=(0,),
    sizes=SIZES,
    prefix="",
    budgets=(256, 128),
    missing=None,
    **params,
):
    """A report folder of made-up outcomes."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_tuples([(name, f"{prefix}{i:02d}") for name, n in sizes.items() for i in range(n)])
    columns = [(arm, s, right_in(budget)) for budget in budgets for arm in arms for s in seeds]
    columns = pd.MultiIndex.from_tuples(columns, names=["arm", "seed", "count"])
    table = pd.DataFrame(rng.binomial(3, skill, (len(index), len(columns))), index, columns)
    table.index.names = ["benchmark", "problem"]
    for arm, s, name in columns:
        lost = np.arange(len(index)) < (missing or {}).get(arm, 0)  # all samples of the first problems
        table.loc[lost, (arm, s, name)] = 0
        table[arm, s, ANSWERED] = np.where(lost, 0, 3)
    values = {"study": folder.name, "arms": list(arms), "max_new_tokens": budgets[0], "training_seeds": list(seeds)}
    values["second_budget"] = budgets[1] if budgets[1:] else None
    values["benchmarks"] = [{"name": name, "data": f"{name}.jsonl", "problems": n} for name, n in sizes.items()]
    (folder / "tables").mkdir(parents=True)
    (folder / "headline.json").write_text("{}")
    table.to_csv(folder / "tables" / "problems.csv")
    whole = Params(**values | params).model_dump(mode="json")  # a report states every key
    (folder / "params.yaml").write_text(yaml.safe_dump(whole))
    return folder


def two(tmp_path, a=None, b=None):
    return compare.load(make(tmp_path / "a", **(a or {}))), compare.load(
        make(tmp_path / "b", **{"seed": 1} | (b or {}))
    )


@settings(max_examples=4)
@given(seed=st.integers(0, 99), skill=st.floats(0, 1), seeds=st.sampled_from([(0,), (0, 1, 2)]))
def test_a_study_does_not_differ_from_itself(tmp_path_factory, seed, skill, seeds):
    study = compare.load(make(tmp_path_factory.mktemp("study") / "a", seed, skill, ["rft"], seeds))
    table = compare.table(study, study)
    assert (table["value"] == 0).all() and not table["clear"].eq(True).any() and (table["how"] == "paired").all()
    assert compare.settings(study, study).empty


@settings(max_examples=4)
@given(seed=st.integers(0, 99), skill=st.floats(0, 1), prefix=st.sampled_from(["", "other"]))
def test_the_other_way_round_is_the_opposite(tmp_path_factory, seed, skill, prefix):
    mine = {"arms": ["rft"]}
    a, b = two(tmp_path_factory.mktemp("studies"), mine, mine | {"seed": seed, "prefix": prefix, "skill": skill})
    there, back = compare.table(a, b), compare.table(b, a)
    assert set(there["how"]) == {"unpaired" if prefix else "paired"}
    assert there["value"].to_numpy() == pytest.approx(-back["value"].to_numpy())
    assert there["low"].to_numpy() == pytest.approx(-back["high"].to_numpy())
    assert there["p"].dropna().to_numpy() == pytest.approx(back["p"].dropna().to_numpy(), abs=1e-6)


@settings(max_examples=4)
@given(order=st.permutations(range(sum(SIZES.values()))))
def test_problems_are_matched_by_what_they_ask_not_by_their_place(tmp_path_factory, order):
    a, b = two(tmp_path_factory.mktemp("studies"))
    moved = compare.Study(b.folder, Outcomes(b.params, b.outcomes.counts.iloc[order]))
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
    a = compare.load(make(tmp_path / "a", student="one"))
    b = compare.load(make(tmp_path / "b", student="two", batch_size=1, sizes={"easy": 8, "hard": 13}))
    found = compare.settings(a, b)
    assert found.index.tolist() == ["student", "benchmark hard"]  # not what only concerns speed
    assert found.loc["student"].tolist() == ["one", "two"]


def test_what_differs_is_shown_whole_however_long_it_is(tmp_path):
    """Two prompts were cut at 60 characters, before their difference, and shown as different and equal."""
    same = "{question}\n" + "Work step by step, without haste. " * 9
    a, b = two(tmp_path, {"answer_prompt": f"{same}Box it."}, {"answer_prompt": f"{same}Box it!", "judge": "one"})
    lines = compare.text(a, b).splitlines()
    at = lines.index("answer_prompt")
    assert lines[at + 1].endswith("Box it.'") and lines[at + 2].endswith("Box it!'")
    assert lines[at + 1].removeprefix("  a: ")[:-8] == lines[at + 2].removeprefix("  b: ")[:-8]
    assert ["judge", "None", "one"] in [line.split() for line in lines]  # a short value keeps its place in the table


def test_the_terminal_shows_every_benchmark_and_which_is_not_paired(tmp_path):
    a, b = two(tmp_path, b={"sizes": {"easy": 8, "hard": 30}})
    moved = b.outcomes.counts.rename(index={f"{i:02d}": f"x{i}" for i in range(30)}, level=1)
    other = compare.Study(
        b.folder, Outcomes(b.params, pd.concat([b.outcomes.counts.loc[["easy"]], moved.loc[["hard"]]]))
    )
    shown = compare.text(a, other)
    assert "hard (unpaired)" in shown and "easy (unpaired)" not in shown and "interval of two samples" in shown


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ({"arms": ("rft",)}, "no arm in common"),
        ({"sizes": {"else": 5}}, "no benchmark in common"),
        ({"budgets": (99,)}, "no response budget in common"),
    ],
)
def test_nothing_in_common_is_one_line(tmp_path, capsys, b, words):
    make(tmp_path / "a"), make(tmp_path / "b", **b)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("headline.json", None, "not a study's report folder"),
        ("tables/problems.csv", None, "an older palign's; delete its report.html and run the study again"),
        ("params.yaml", None, "an older palign's; delete its report.html and run the study again"),
        ("tables/problems.csv", b"\x00\xff\n,,,\n", "not a palign report's outcomes by problem"),
        ("tables/problems.csv", b"x,y\n1,2\n", "not a palign report's outcomes by problem"),
        ("params.yaml", b"a: &a [1]\nb: *a\n", "not valid YAML"),
        ("params.yaml", b"study: b\n", "not those of the study's benchmarks"),
        ("params.yaml", b"study: b\nteacher_cut: keep\n", "unknown key; did you mean"),
        ("params.yaml", b"study: b\nteacher_cut: keep\n", "an older palign's; delete its report.html"),
        ("params.yaml", b'study: "b\\e[31m"\n', "study"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path, capsys, file, content, words):
    make(tmp_path / "a"), make(tmp_path / "b")
    path = tmp_path / "b" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "b") in error and words in error and error.count("\n") == 1 and "\x1b" not in error


@pytest.mark.parametrize("cell", ["4", "1.5", "-1", ""], ids=["more than samples", "a half", "negative", "missing"])
def test_counts_that_cannot_be_are_refused(tmp_path, capsys, cell):
    """Reports are sent around: a count above the samples ended in a traceback."""
    make(tmp_path / "a"), make(tmp_path / "b")
    path = tmp_path / "b" / "tables" / "problems.csv"
    path.write_text(path.read_text().rstrip("\n").rsplit(",", 1)[0] + f",{cell}\n")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert f"{path}: not a palign report's outcomes" in error and error.count("\n") == 1


def test_seeds_that_differ_much_leave_a_difference_open(tmp_path):
    """A mean over seeds hid their spread: three seeds at 30, 50 and 80 % looked clearly better than one at 40 %."""
    made = make(tmp_path / "b", arms=("rft",), seeds=(0, 1, 2), sizes={"easy": 400})
    table = pd.read_csv(made / "tables" / "problems.csv", header=[0, 1, 2], index_col=[0, 1])
    rng = np.random.default_rng(5)
    for seed, skill in (("0", 0.3), ("1", 0.5), ("2", 0.8)):
        table["rft", seed, right_in(256)] = rng.binomial(3, skill, len(table))
    table.to_csv(made / "tables" / "problems.csv")
    a = compare.load(make(tmp_path / "a", skill=0.4, arms=("rft",), sizes={"easy": 400}))
    b = compare.load(made)
    found = compare.table(a, b).query("budget == 256 and metric == 'pass@1'")
    assert (found["value"] > 0.05).all() and (found["low"] < 0).all() and not found["clear"].any()
    x, y = (as_arrays(study.outcomes.values("rft", "pass@1", 256)) for study in (b, a))
    assert statistics.paired_difference([x[0].mean(axis=1)], [y[0].mean(axis=1)]).low > 0.05


def test_an_arm_with_missing_responses_is_not_compared_and_it_is_said(tmp_path):
    sizes = {"easy": 100, "hard": 100}
    a, b = two(tmp_path, {"sizes": sizes}, {"sizes": sizes, "skill": 0.9, "missing": {"p-align": 40}})
    table = compare.table(a, b).query("benchmark == 'average'").set_index("arm")
    assert set(table.loc["p-align", "test"]) == {tables.UNTESTED} and not table.loc["p-align", "clear"].any()
    assert table.loc["zero-shot", "clear"].all() and set(table.loc["p-align", "n"]) == {160}
    assert "b: responses were never answered, so these arms are not tested: p-align 20.0 %" in compare.text(a, b)


def test_an_older_report_that_does_not_say_what_was_answered_is_named_as_one(tmp_path, capsys):
    make(tmp_path / "a"), make(tmp_path / "b")
    path = tmp_path / "b" / "tables" / "problems.csv"
    table = pd.read_csv(path, header=[0, 1, 2], index_col=[0, 1]).drop(columns=ANSWERED, level=2)
    table.rename(columns=lambda name: name.removeprefix("right in ").removesuffix(" tokens"), level=2).to_csv(path)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "an older palign's" in capsys.readouterr().err


@pytest.fixture
def answered(small, monkeypatch):
    """A study whose test problems are there and whose grades are made up."""

    stored = Task.read

    def read(task, name):
        if task.stage not in ("evaluation", "shortened"):
            return stored(task, name)
        rng = np.random.default_rng(len(task.variant))
        return [
            {"id": f"{problem['benchmark']}/{problem['id']}/{s}"}
            | {"benchmark": problem["benchmark"], "problem": problem["id"], "sample": s}
            | {"right": task.stage == "evaluation" and bool(rng.integers(2)), "finish": "stop"}
            for problem in Results(task.params).tests
            for s in range(task.params.n_samples)
        ]

    def answer(**values):
        params = Params(**small | {"training_seeds": [0, 1]} | values)
        problems.collect_benchmarks(params)
        return Results(params)

    monkeypatch.setattr(Task, "read", read)
    return answer


def test_a_report_keeps_what_is_compared(answered, tmp_path):
    """The table that a report writes comes back with the accuracies that the report shows."""
    finished = answered()
    (tmp_path / "headline.json").write_text("{}")
    write.keep(tmp_path, {"problems": finished.outcomes.counts}, {})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(portable(finished.params)))
    study = compare.load(tmp_path)
    kept = compare.table(study, study).set_index(["arm", "benchmark", "metric", "budget"])["a"]
    shown = tables.accuracy(finished).set_index(["arm", "benchmark", "metric", "budget"])["value"]
    assert kept.to_dict() == pytest.approx(shown.to_dict())


def test_problems_of_one_number_are_not_taken_for_the_same(answered, project):
    """Ids of many data sets are row numbers: problem 0 of one would have been paired with problem 0 of another."""
    asked = {
        "one": ["What is 1 + 1?", "What is  2 + 2?", "What is 2 + 2?"],
        "two": ["What is 2 + 2?", "What is 3 + 3?", "What is 4 + 4?"],
    }
    names = {}
    for name, questions in asked.items():
        write_jsonl(project / "set.jsonl", [{"id": i, "question": q, "answer": "1"} for i, q in enumerate(questions)])
        columns = {"id": "id", "question": "question", "answer": "answer"}
        benchmark = Benchmark(name="set", data="set.jsonl", problems=3, columns=columns)
        names[name] = answered(study=name, benchmarks=[benchmark]).outcomes.counts.loc["set"].index
    assert names["one"].is_unique and len(names["one"].intersection(names["two"])) == 1


def test_a_reports_params_hold_neither_addresses_nor_folders_of_the_machine(answered, tmp_path):
    data = write_jsonl(tmp_path / "mine.jsonl", [{"question": "q", "answer": "1"}])
    finished = answered(
        benchmarks=[Benchmark(name="mine", data=str(data), problems=1)],
        engine="endpoint",
        endpoint_urls=["http://host.inside/v1"],
        verdict="decode",
    )
    kept = yaml.safe_dump(portable(finished.params))
    assert "data: mine.jsonl" in kept and str(tmp_path) not in kept and "host.inside" not in kept
