"""Recorded rollouts: the file is read or refused in one line, every measure has its law, and the table says what it
says.
"""

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from palign.analysis import rollouts
from palign.analysis.rollouts import ALL_SEARCHES, RECORDED, Curve, RolloutError, landing, largest_drop, load
from palign.truncation import search
from tests.conftest import PROJECT

HEADER = "trace,model,right,sentences,rollouts,success\n"

chances = st.lists(st.floats(0, 1), min_size=2, max_size=9).map(np.array)
"""Of each prefix of 0 to m sentences."""
monotone_chances = chances.map(np.sort)
counts = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=30).map(
    lambda pairs: tuple(np.array([(min(k, n), n) for k, n in pairs]).T)
)
"""Hits and rollouts."""


@pytest.fixture(scope="module")
def table():
    return load(RECORDED)


def curve_of(success, rollouts=100) -> Curve:
    n = np.full(len(success), rollouts)
    return Curve("t", "m", True, len(n) - 1, np.arange(len(n)), np.round(np.array(success) * n).astype(int), n)


def write(folder, text, encoding="utf-8"):
    path = folder / "some.csv"
    path.write_text(text, encoding=encoding)
    return path


def rows_of(curves, right=True, tags=None):
    lines = [
        f"t{i},m,{right},{p},100,{s},{tags[p] if tags else ''}"
        for i, success in enumerate(curves)
        for p, s in enumerate(success)
    ]
    return HEADER.replace("\n", ",next_tags\n") + "\n".join(lines) + "\n"


# The file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as CSV"),
        ('a,b\n"1,2\n3', "cannot be read as CSV"),
        ("<html>\n<p>no table</p>\n", "columns are missing: trace, model, right, sentences, rollouts, success"),
        ("trace,model,right,sentences,success\nt,m,True,0,1\n", "columns are missing: rollouts"),
        (HEADER, "no rows"),
        (
            HEADER + "t,m,True,0,100,0.5\nt,m,True,1,100,1.5\n",
            r"row 2 \(t\): success must be a share in 0..1, not '1.5'",
        ),
        (HEADER + "t,m,True,0,100,-0.1\n", "success must be a share in 0..1, not '-0.1'"),
        (HEADER + "t,m,True,0,100,nan\n", "success must be a share in 0..1, not 'nan'"),
        (HEADER + "t,m,True,0,100,\n", "success must be a share in 0..1, not ''"),
        (HEADER + "t,m,True,0,10,1\nt,m,True,1,0,0.0\n", "0 rollouts have no share: success must be empty, not '0.0'"),
        (HEADER + "t,m,True,0,0,\n", "every row has 0 of them"),
        (HEADER + "t,m,True,0,-3,0.5\n", "rollouts must be a whole number, 0 or more, not '-3'"),
        (HEADER + "t,m,True,0,2.5,0.5\n", "rollouts must be a whole number, 0 or more, not '2.5'"),
        (HEADER + "t,m,True,0,many,0.5\n", "rollouts must be a whole number, 0 or more, not 'many'"),
        (HEADER + "t,m,True,inf,10,0.5\n", "sentences must be a whole number, 0 or more, not 'inf'"),
        (HEADER + "t,m,perhaps,0,10,0.5\n", "right must be True or False, not 'perhaps'"),
        (HEADER + ",m,True,0,10,0.5\n", "trace must be a name"),
        (HEADER + "t,m,True,0,10,0.5\nt,m,True,0,10,0.5\n", "a prefix must be in the file once, not '0'"),
        (HEADER + "t,m,True,0,10,0.5\nt,m,False,1,10,0.5\n", "right in all rows or in none, not 'False'"),
        (HEADER + "t,m\n", "right must be True or False, not ''"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line_that_names_it(text, said, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(RolloutError, match=said) as refused:
        load(path)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_what_is_no_text_or_no_file_is_refused_too(tmp_path):
    (tmp_path / "image.csv").write_bytes(bytes(range(256)) * 4)
    for path in (tmp_path / "image.csv", tmp_path / "missing.csv", tmp_path):
        with pytest.raises(RolloutError, match="cannot be read as CSV") as refused:
            load(path)
        assert "\n" not in str(refused.value)


def test_rows_come_by_trace_and_length_and_what_was_not_measured_has_no_success(tmp_path):
    text = "b,m,1,1,3,0.33\na,m,0,0,0,\nb,m,1,0,4,0.75\na,m,0,1,2,1\n"
    found = load(write(tmp_path, HEADER + text))
    assert found[["trace", "sentences", "hits"]].to_numpy().tolist() == [
        ["b", 0, 3],
        ["b", 1, 1],
        ["a", 0, 0],
        ["a", 1, 2],
    ]
    assert found["right"].tolist() == [True, True, False, False] and found["success"].isna().tolist() == [False] * 2 + [
        True,
        False,
    ]
    b, a = rollouts.curves(found)
    assert b.complete and not a.complete and a.sentences.tolist() == [1]
    assert [c.trace for c in rollouts.curves(found, complete=True)] == ["b"]


def test_a_file_without_complete_traces_has_empty_tables(tmp_path):
    found = load(write(tmp_path, HEADER + "t,m,True,0,10,0.5\nt,m,True,4,10,0.9\n"))
    assert rollouts.search_ends(found).empty and rollouts.enough_points(found).empty
    assert rollouts.frontier(rollouts.policies(found)).empty and rollouts.by_share(found).empty
    assert rollouts.tags_around(found).empty and rollouts.thrown_away(found).empty
    assert len(rollouts.monotone(found, draws=19)) == 1


# Is more never worse?


@given(monotone_chances, st.integers(1, 200))
def test_a_monotone_curve_has_no_deviance_no_drop_and_a_p_of_1(chance, n):
    hits = np.round(chance * n).astype(int)
    curve = Curve("t", "m", True, len(hits) - 1, np.arange(len(hits)), hits, np.full(len(hits), n))
    found = rollouts.against_monotone(curve, draws=19)
    assert found["deviance"] == pytest.approx(0, abs=1e-9) and found["p"] == 1
    assert found["drop"] == found["low"] == 0 <= found["high"] <= 1


@given(counts)
def test_the_fit_is_monotone_keeps_the_mean_and_loses_less_than_any_constant(counted):
    hits, n = counted
    fit = rollouts.isotonic(hits, n)
    assert (np.diff(fit) >= -1e-12).all() and fit @ n == pytest.approx(hits.sum())
    own = rollouts.deviance(hits, n, fit)
    flat = np.full(len(n), hits.sum() / n.sum())
    assert 0 <= own <= rollouts.deviance(hits, n, flat) + 1e-9
    falling = rollouts.isotonic(hits, n, increasing=False)
    assert falling == pytest.approx(1 - rollouts.isotonic(n - hits, n))


@given(chances)
def test_the_largest_drop_by_its_definition(success):
    m = len(success)
    assert largest_drop(success) == max(success[i] - success[j] for i in range(m) for j in range(i, m))


@pytest.mark.parametrize("truth", [np.linspace(0.3, 0.95, 30), np.repeat([0.4, 0.8], 15)], ids=["rising", "a step"])
def test_a_monotone_truth_is_refused_in_about_one_of_twenty(truth):
    rng = np.random.default_rng(1)
    n = np.full(truth.size, 100)
    curves = [Curve("t", "m", True, 29, np.arange(30), rng.binomial(n, truth), n) for _ in range(150)]
    refused = np.mean([rollouts.against_monotone(c, draws=99, seed=i)["p"] <= 0.05 for i, c in enumerate(curves)])
    assert refused <= 0.1  # 0.05 and three standard errors


def test_a_fall_is_found_and_its_bounds_hold_the_true_one_though_it_was_picked():
    rng = np.random.default_rng(2)
    truth = np.concatenate([np.linspace(0.5, 0.9, 20), np.linspace(0.6, 0.95, 20)])  # falls by 0.3
    n = np.full(40, 100)
    found = [
        rollouts.against_monotone(Curve("t", "m", True, 39, np.arange(40), rng.binomial(n, truth), n), 99, seed)
        for seed in range(100)
    ]
    assert np.mean([one["p"] <= 0.05 for one in found]) > 0.9
    assert np.mean([one["drop"] for one in found]) > 0.33  # picked as the largest, the recorded one is too large
    assert np.mean([one["low"] <= 0.3 <= one["high"] for one in found]) >= 0.95


# Where does a search end?


@given(st.integers(1, 40), st.data())
def test_all_searches_agree_on_monotone_verdicts(m, data):
    first = data.draw(st.integers(1, m + 1))
    chance = (np.arange(m + 1) >= first).astype(float)
    for name in ALL_SEARCHES:
        found = landing(name, chance)
        assert found.at[min(first, m)] == 1 and found.differs == 0


@given(chances, st.sampled_from(sorted(ALL_SEARCHES)))
@settings(max_examples=60)
def test_the_distribution_of_a_search_is_that_over_all_verdicts(chance, name):
    m = len(chance) - 1
    at, sufficient, asked, differs = np.zeros(m + 1), np.zeros(m + 1), 0.0, 0.0
    for code in range(2**m):
        verdicts = [bool(code >> p & 1) for p in range(m)]
        weight = np.prod([c if v else 1 - c for c, v in zip(chance[1:], verdicts, strict=True)])
        questions = []
        end = search(ALL_SEARCHES[name](m), lambda p, v=verdicts, q=questions: q.append(p) or v[p - 1])
        at[end.sentences] += weight
        sufficient[end.sentences] += weight * end.sufficient
        asked += weight * len(questions)
        differs += weight * (
            end.sentences != search(ALL_SEARCHES["linear"](m), lambda p, v=verdicts: v[p - 1]).sentences
        )
    found = landing(name, chance)
    assert found.at == pytest.approx(at, abs=1e-9) and found.sufficient == pytest.approx(sufficient, abs=1e-9)
    assert found.verdicts == pytest.approx(asked) and found.differs == pytest.approx(differs, abs=1e-9)


@given(chances, st.sampled_from(sorted(ALL_SEARCHES)))
def test_several_kinds_of_verdict_at_once_are_each_by_itself(chance, name):
    both = landing(name, np.stack([chance, 1 - chance], axis=1))
    for i, alone in enumerate((landing(name, chance), landing(name, 1 - chance))):
        assert both.at[:, i] == pytest.approx(alone.at) and both.verdicts[i] == pytest.approx(alone.verdicts)
        assert both.differs[i] == pytest.approx(alone.differs, abs=1e-9)


@given(chances, st.sampled_from(rollouts.THRESHOLDS), st.sampled_from(rollouts.SAMPLES))
def test_a_verdict_by_samples_is_enough_from_the_threshold_on(success, threshold, samples):
    from math import comb

    least = next(k for k in range(samples + 1) if k / samples >= threshold - 1e-9)
    by_hand = [
        sum(comb(samples, k) * s**k * (1 - s) ** (samples - k) for k in range(least, samples + 1)) for s in success
    ]
    assert rollouts.chance_of_enough(success, threshold, samples) == pytest.approx(np.array(by_hand), abs=1e-9)
    assert rollouts.chance_of_enough(success, threshold).tolist() == [float(s >= threshold) for s in success]


# What would a policy keep?


def simulate(success, policy, draws=4000):
    """The mean retention, share and continuations of a policy that is played with a random generator."""
    rng, m = np.random.default_rng(0), len(success) - 1
    played = np.array([policy(lambda p: bool(rng.random() < success[p]), rng) for _ in range(draws)], dtype=float)
    return played.mean(axis=0) / [1, m, 1]


def play_several(right, rng, p=3, samples=4):
    for i in range(samples):
        if right(p):
            return True, p, i + 1
    return False, p, samples


def play_back_off(right, rng):
    for i, p in enumerate((1, 3, 5, 7, 9, 10)):
        if right(p):
            return True, p, i + 1
    return False, 10, 6


def play_judged(right, rng, truth=None):
    found = search(ALL_SEARCHES["released"](10), lambda p: truth[p] == (rng.random() < 0.8)).sentences
    return right(found), found, 1


def play_verified(right, rng, samples=4):
    spent = 0

    def verdict(p):
        nonlocal spent
        spent += samples
        return sum(right(p) for _ in range(samples)) >= 2

    end = search(ALL_SEARCHES["released"](10), verdict)
    return end.sufficient or right(end.sentences), end.sentences, spent + (not end.sufficient)


def test_exact_expectations_are_what_playing_gives():
    success = np.array([0.1, 0.2, 0.15, 0.4, 0.3, 0.6, 0.55, 0.3, 0.7, 0.4, 0.35])
    truth = success >= 0.5
    cases = [
        (rollouts.several(success, 0.3, 4), play_several),
        (rollouts.back_off(success, 0.1, 0.2), play_back_off),
        (rollouts.judged(success, 0.8), lambda right, rng: play_judged(right, rng, truth)),
        (rollouts.verified(success, 4), play_verified),
    ]
    for exact, policy in cases:
        retention, share, continuations = simulate(success, policy)
        assert (exact.retention, exact.share) == pytest.approx((retention, share), abs=0.03)
        assert exact.continuations == pytest.approx(continuations, rel=0.03)


@given(chances, st.floats(0, 1), st.integers(1, 8))
def test_more_tries_keep_no_less(success, share, samples):
    one, more = rollouts.several(success, share, samples), rollouts.several(success, share, samples + 1)
    assert more.retention >= one.retention - 1e-12 and more.continuations >= one.continuations
    assert rollouts.fixed(success, share).retention == pytest.approx(success[round(one.share * (len(success) - 1))])
    kept = rollouts.back_off(success, share)
    assert kept.retention >= rollouts.fixed(success, share).retention - 1e-12 and kept.continuations >= 1


@given(monotone_chances)
def test_a_perfect_judge_of_a_monotone_student_finds_what_a_scan_finds(success):
    enough = success[1:] >= 0.5
    first = int(enough.argmax()) + 1 if enough.any() else len(success) - 1
    kept = rollouts.judged(success, 1.0)
    assert kept.retention == pytest.approx(success[first]) and kept.share == pytest.approx(first / (len(success) - 1))


# What stands behind, and wrong traces


def test_the_point_of_enough_parts_the_tags(tmp_path):
    tags = ["plan"] * 3 + ["compute", "check", "check"]
    found = load(write(tmp_path, rows_of([[0.1, 0.2, 0.3, 0.95, 0.9, 1]] * 3, tags=tags)))
    points = rollouts.enough_points(found)
    assert points["point"].tolist() == [3, 3, 3] and points["behind"].tolist() == pytest.approx([0.4] * 3)
    parts = rollouts.tags_around(found).pivot(index="tag", columns="where", values="value")
    assert parts["before"].to_dict() == {"plan": 1, "compute": 0, "check": 0}
    assert parts["behind"].to_dict() == pytest.approx({"plan": 0, "compute": 1 / 3, "check": 2 / 3})
    assert (parts["difference"] == parts["behind"] - parts["before"]).all()


def test_a_trace_that_is_never_enough_has_no_point(tmp_path):
    points = rollouts.enough_points(load(write(tmp_path, rows_of([[0, 0.5, 0.2]]))))
    assert points[["point", "behind"]].isna().all(axis=None)


def test_a_wrong_trace_is_thrown_away_where_its_falling_fit_is_below_the_threshold(tmp_path):
    found = rollouts.thrown_away(load(write(tmp_path, rows_of([[0.8, 0.9, 0.6, 0.2, 0.3], [0.9] * 5], right=False))))
    assert found["lost"].iloc[0] == 0.75 and np.isnan(found["lost"].iloc[1])
    assert found[["start", "best", "end"]].iloc[0].tolist() == [0.8, 0.9, 0.3]


# The recorded table


def test_the_recorded_table_has_its_counts(table):
    traces = table.groupby("trace").agg(model=("model", "first"), right=("right", "first"))
    assert len(table) == 5814 and len(traces) == 40 and (traces.value_counts() == 10).all()
    assert table["next_tags"].nunique() == 8 and table["rollouts"].max() == 100


def test_two_recorded_traces_were_not_measured_to_their_ends(table):
    """A share of 0 of 0 rollouts reads like a student that always fails."""
    none = table[table["rollouts"] == 0].groupby("trace").agg(first=("sentences", "min"), n=("sentences", "size"))
    assert none.T.to_dict("list") == {"llama-8b/correct/6596": [140, 115], "llama-8b/incorrect/4164": [159, 162]}
    assert table["success"].isna().sum() == 277
    odd = table[table["trace"] == "llama-8b/correct/6596"]
    assert odd["right"].all() and odd["success"].max() < 0.25 and odd["success"].mean() < 0.02
    left = {curve.trace for curve in rollouts.curves(table, complete=True)}
    assert len(left) == 38 and not left & set(none.index)


def test_the_empty_prefix_was_recorded_twice_and_its_shares_differ_as_binomial_ones_do(table):
    """If rollouts varied by more, every test that takes them for binomial would find too much."""
    empty = table[table["sentences"] == 0].assign(problem=lambda rows: rows["trace"].str.split("/").str[-1])
    pairs = empty.groupby(["model", "problem"])[["hits", "rollouts"]]
    pooled = pairs.transform("sum")
    share = pooled["hits"] / pooled["rollouts"]
    spread = share * (1 - share) * empty["rollouts"]
    square = ((empty["hits"] - share * empty["rollouts"]) ** 2 / spread)[spread > 0].sum()
    assert (pairs.size() == 2).all() and (spread > 0).sum() == 38
    assert square == pytest.approx(23.3, abs=0.1) and square < chi2.ppf(0.95, 19)


@pytest.mark.model
def test_wrong_traces_fall_and_most_right_ones_do_too_but_by_less(table):
    found = rollouts.monotone(table, draws=999)
    means = rollouts.fall(found).set_index(["measure", "answer"])
    assert means.loc[("falls", "wrong"), "value"] == 1 and means.loc[("falls", "right"), "value"] >= 0.7
    assert means.loc[("low", "wrong"), "value"] > 0.4 and means.loc[("low", "right"), "high"] < 0.2
    assert (found["low"] <= found["drop"]).all() and (found["drop"] <= found["high"]).all()


def test_searches_of_recorded_verdicts_differ_most_at_a_high_threshold(table):
    ends = rollouts.search_ends(table)
    assert len(ends) == 38 * 4 * 3 * 4
    right = rollouts.over(ends[ends["right"]], ["search", "threshold", "samples"], ["landing", "differs"])
    value = right.set_index(["measure", "search", "threshold", "samples"])["value"]
    assert (
        value["landing", "linear", 0.9, 0] < value["landing", "released", 0.9, 0] < value["landing", "backward", 0.9, 0]
    )
    assert value["differs", "released", 0.5, 0] < value["differs", "released", 0.9, 0]
    one = ends[ends["samples"] == 1].groupby(["trace", "search"])["landing"].agg(["min", "max"])
    assert (one["max"] - one["min"] < 1e-9).all()  # one continuation is right or not, whatever the threshold


@pytest.mark.model
def test_on_right_traces_starting_short_and_lengthening_keeps_all_pairs(table):
    kept = rollouts.frontier(rollouts.policies(table))
    value = kept.set_index(["right", "policy", "measure"])["value"]
    assert value[True, "from 10%", "retention"] > 0.999 and value[True, "from 10%", "share"] < 0.2
    assert value[True, "90%", "retention"] == pytest.approx(0.97, abs=0.005)
    assert value[False, "from 10%", "retention"] > value[False, "from 70%", "retention"]
    assert not kept["value"].isna().any()


def test_a_longer_prefix_helps_on_right_traces_and_poisons_on_wrong_ones(table):
    found = rollouts.by_share(table).set_index(["answer", "share"])
    assert (found.loc["right"].loc[0.3:, "gain_low"] > 0).all() and (found.loc["wrong"].loc[:, "gain_high"] < 0).all()
    behind = rollouts.tags_around(table).query("where == 'difference'").set_index("tag")
    assert behind.loc["self_checking", "low"] > 0 and behind.loc["plan_generation", "high"] < 0


# The notebook


def test_the_parameters_cell_and_the_fields_agree():
    notebook = nbformat.read(PROJECT / "notebooks" / "recorded_rollouts.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    fields = rollouts.Rollouts.model_fields.items()
    assert cell.source == "\n".join(f"{name} = {field.default!r}  # {field.description}" for name, field in fields)


def test_a_file_of_ones_own_has_a_report_of_its_own(project):
    own = rollouts.Rollouts(rollouts="lab/mine.csv")
    assert own.folder == project / "reports" / "rollouts-mine" and own.path.name == "mine.csv"
    assert rollouts.Rollouts().path == RECORDED and rollouts.Rollouts().folder.name == "recorded-rollouts"


def test_an_overview_counts_what_was_measured(table):
    overview = rollouts.overview(table)
    assert overview["traces"].tolist() == [10] * 4 and overview["complete"].tolist() == [9, 9, 10, 10]
    assert overview["unmeasured"].tolist() == [115, 162, 0, 0]
    (point,) = rollouts.behind(rollouts.enough_points(table))["value"]
    assert point == pytest.approx(0.62, abs=0.01)


def test_tags_stand_where_their_sentences_stand(tmp_path):
    """The row of p sentences has the tag of sentence p + 1: the first half plans, the second computes."""
    tags = ["plan"] * 5 + ["compute"] * 5 + [""]
    found = rollouts.tags_by_position(load(write(tmp_path, rows_of([[1.0] * 11] * 2, tags=tags))), parts=2)
    assert {(r.tag, r.share, r.value) for r in found.itertuples()} == {
        *(("plan", 0.25, 1.0), ("plan", 0.75, 0.0)),
        *(("compute", 0.25, 0.0), ("compute", 0.75, 1.0)),
    }


def test_the_shares_of_all_tags_add_up_at_every_position(table):
    found = rollouts.tags_by_position(table)
    assert np.allclose(found.groupby("share")["value"].sum(), 1)
    assert rollouts.tags_by_position(table.drop(columns="next_tags")).empty


# One table beside another


def test_what_stands_beside_agrees_with_the_tables_it_repeats(table):
    """A reader who meets one number twice must find it equal."""
    falls = rollouts.monotone(table, draws=99)
    found = rollouts.measures(table, falls).set_index("measure")["value"]
    assert list(found.index) == [name for name, _ in rollouts.BESIDE]
    own = rollouts.fall(falls).query("answer == 'right'").set_index("measure")["value"]
    assert found["traces that fall beyond chance"] == own["falls"]
    means = rollouts.by_share(table).query("answer == 'right'").set_index("share")["success"]
    assert found["success of 30 % of the sentences"] == means[0.3] and found["success of the whole trace"] == means[1.0]
    ends = rollouts.searches(rollouts.search_ends(table)).query("right and threshold == 0.5 and measure == 'differs'")
    ends = ends[ends["search"] == "released"].set_index("samples")["value"]
    assert found["released search ends elsewhere than linear"] == ends[0]
    assert found["the same, verdicts of 4 continuations"] == ends[4]
    kept = rollouts.frontier(rollouts.policies(table)).query("right and policy == 'from 10%'")
    assert found["retention: back-off from 10 %"] == kept.set_index("measure").loc["retention", "value"]


def test_of_a_monotone_certain_curve_the_measures_are_known(tmp_path):
    """Success 0 up to half of the trace and 1 from there on: all searches land there, and half of it stands behind."""
    half = load(write(tmp_path, rows_of([[0.0] * 5 + [1.0] * 6] * 3)))
    found = rollouts.measures(half, rollouts.monotone(half, draws=19)).set_index("measure")["value"]
    assert found["linear search: landing"] == found["released search: landing"] == 0.5
    assert found["released search ends elsewhere than linear"] == found["traces that fall beyond chance"] == 0
    assert found["trace behind the point of enough"] == 0.5 and found["sentences of a trace"] == 10
    assert found["retention: verified by 4 continuations"] == 1 and found["retention: 30 % of the sentences"] == 0


def test_a_table_without_a_whole_right_trace_has_nothing_beside(tmp_path):
    wrong = load(write(tmp_path, rows_of([[0.5, 0.5]], right=False)))
    assert rollouts.measures(wrong, rollouts.monotone(wrong, draws=19)).empty


def test_policies_that_hold_a_retention_are_those_of_one_continuation_whose_interval_does(table):
    kept = rollouts.frontier(rollouts.policies(table))
    found = rollouts.holding(kept, 0.97)
    assert set(found["measure"]) == {"retention", "share"} and set(found["family"]) <= {"fixed share", "judge"}
    for row in kept.query("right and measure == 'retention' and family in ('fixed share', 'judge')").itertuples():
        assert (row.policy in set(found["policy"])) == (row.low <= 0.97 <= row.high)
    assert rollouts.holding(kept.iloc[:0], 0.97).empty


def test_a_table_of_ones_own_stands_beside_the_recorded_one(tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts, "root", lambda: tmp_path)
    assert rollouts.Rollouts().other is None, "the pocket student's table is not there"
    (tmp_path / rollouts.POCKET).parent.mkdir(parents=True)
    (tmp_path / rollouts.POCKET).touch()
    assert rollouts.Rollouts().other == tmp_path / rollouts.POCKET
    assert rollouts.Rollouts(rollouts="mine.csv").other == RECORDED
    assert rollouts.Rollouts(rollouts="mine.csv", beside="other.csv").other.name == "other.csv"
