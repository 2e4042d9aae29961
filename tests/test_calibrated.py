"""The verdict's threshold is the shortest that keeps as many pairs as the best, and a study finds it again."""

import json
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import calibration, traces, truncation
from palign.calibration import QUANTILES, choose, grid
from palign.params import validate
from palign.tasks.plan import Plan
from palign.truncation import SEARCHES, search

margins = st.lists(st.floats(-30, 30), min_size=1, max_size=60)


@given(margins)
def test_the_grid_holds_the_judges_own_threshold_and_parts_the_margins(margins):
    found = grid(margins)
    assert 0.0 in found and found == sorted(set(found)) and len(found) <= QUANTILES + 1
    assert all(min(margins) - 1e-4 <= t <= max(margins) + 1e-4 for t in found if t)
    if len(set(margins)) == len(margins) >= 20:
        shares = [fmean(margin < t for margin in margins) for t in found if t]
        parts = [i / (QUANTILES + 1) for i in range(1, QUANTILES + 1)]
        assert len(shares) < QUANTILES or shares == pytest.approx(parts, abs=0.1)


@st.composite
def pilots(draw):
    thresholds, n = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    right = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for _ in range(thresholds)]
    share = [draw(st.lists(st.floats(0.01, 1), min_size=n, max_size=n)) for _ in range(thresholds)]
    return right, share


@given(pilots())
def test_the_chosen_threshold_is_the_shortest_within_one_standard_error_of_the_best(pilot):
    right, share = pilot
    chosen, n = choose(right, share), len(right[0])
    best = max(map(fmean, right))
    rows = [i for i, row in enumerate(right) if fmean(row) == best]
    top = min(rows, key=lambda i: fmean(share[i]))
    assert fmean(share[chosen]) <= fmean(share[top]) + 1e-8, "never longer than the best one"
    lost = [a - b for a, b in zip(right[top], right[chosen], strict=True)]
    assert fmean(lost) <= (stdev(lost) / n**0.5 if n > 1 else 0) + 1e-8
    for i, row in enumerate(right):
        lost = [a - b for a, b in zip(right[top], row, strict=True)]
        if fmean(lost) < (stdev(lost) / n**0.5 if n > 1 else 0) - 1e-8 or i == top:
            assert fmean(share[chosen]) <= fmean(share[i]) + 1e-8


def test_a_loss_that_chance_explains_buys_a_shorter_prefix_and_a_sure_one_does_not():
    shares = [[0.2] * 40, [0.5] * 40]
    assert choose([[False] * 20 + [True] * 20, [True] * 19 + [False] * 2 + [True] * 19], shares) == 1
    assert choose([[False] + [True] * 39, [True] * 40], shares) == 0, "one of 40: as many as one standard error"
    assert choose([[True] * 40] * 2, shares[::-1]) == 1


@pytest.fixture
def params(small):
    values = {"arms": ["p-align", "p-align-calibrated"], "calibration_traces": 3, "training_limit": 6}
    loaded = validate({**small, **values, "judged_traces": 0, "entropy_traces": 0}, "test")
    traces.collect(loaded)
    return loaded


def files(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.path.glob("*.jsonl") if path.name != "seconds.jsonl"}


def test_a_calibrated_study_says_enough_from_its_threshold_on_and_resumes_anywhere(params, monkeypatch):
    records = truncation.truncate(params, "calibrated")
    task = Plan(params).truncation("calibrated")
    facts, whole = task.folder.manifest(), files(task.folder)

    # the threshold is that of the pilot, whose replayed searches are what a search with that threshold finds
    (chosen,) = [row for row in facts["pilot"] if row["chosen"]]
    assert facts["threshold"] == chosen["threshold"] and task.read("pilot") == facts["pilot"]
    for record in records:
        assert all((label == "ENOUGH") == (margin >= facts["threshold"]) for _, label, margin in record["verdicts"])
    found, start = {record["id"]: record for record in records}, SEARCHES[params.search]
    for record in task.read("judged"):
        stated = [margin for *_, margin in record["verdicts"]]
        replayed = search(start(record["room"]), lambda p, stated=stated: stated[p - 1] >= facts["threshold"])
        assert found[record["id"]]["sentences"] == replayed.sentences
    assert chosen["share"] == pytest.approx(
        fmean(found[r["id"]]["sentences"] / r["of"] for r in task.read("judged")), abs=1e-4
    )
    assert records[0].keys() == truncation.truncate(params, "adaptive")[0].keys()

    # tokens: of the pilot's verdicts and continuations, and of all prefixes
    drawn = task.read("continuations")
    assert len(drawn) <= len(facts["pilot"]) * params.calibration_traces
    read = [r["tokens_read"] + r["tokens_demanded"] for r in (*records, *task.read("judged"))]
    assert facts["tokens_read"] == sum(read) + sum(r["prompt_tokens"] for r in drawn)
    assert facts["tokens_generated"] == sum(r["new_tokens"] for r in drawn)

    # a kill behind some continuations, then one behind some prefixes
    for name in ("manifest.json", "prefixes.jsonl", "pilot.jsonl", "continuations.jsonl"):
        (task.folder.path / name).unlink()
    for module, name, file in ((calibration, "stream", "continuations"), (truncation, "_rounds", "prefixes")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            after(patched, module, name, 2)
            truncation.truncate(params, "calibrated")
        assert len(task.folder.read(file)) == 2
    assert truncation.truncate(params, "calibrated") == records and files(task.folder) == whole

    # prefixes of another threshold are not taken over, whatever stood in the pilot's place
    (task.folder.path / "manifest.json").unlink()
    task.folder.write("pilot", [row | {"chosen": False} for row in facts["pilot"]])
    task.folder.write("prefixes", [record | {"prefix": "stale"} for record in records])
    assert truncation.truncate(params, "calibrated") == records and files(task.folder) == whole


def after(monkeypatch, module, name: str, count: int) -> None:
    """Let a module's generator be killed behind so many results."""
    real, left = getattr(module, name), count

    def killed(*args):
        nonlocal left
        for one in real(*args):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            yield one

    monkeypatch.setattr(module, name, killed)


def test_a_request_that_failed_takes_its_trace_out_of_the_pilot(params):
    """It is no wrong answer: counted as one, it would speak for longer prefixes."""
    truncation.truncate(params, "calibrated")
    folder = Plan(params).truncation("calibrated").folder
    whole = files(folder)
    continued = folder.read("continuations")
    first = continued[0]["of"]
    for lost in ({first}, {record["of"] for record in continued}):
        (folder.path / "manifest.json").unlink(missing_ok=True)
        folder.write("continuations", [r | {"finish": "engine error"} if r["of"] in lost else r for r in continued])
        if len(lost) == 1:
            truncation.truncate(params, "calibrated")
            assert {row["traces"] for row in folder.read("pilot")} == {params.calibration_traces - 1}
        else:
            with pytest.raises(calibration.CalibrationFailed, match=r"^calibration of the verdict: [^\n]*$"):
                truncation.truncate(params, "calibrated")
    truncation.truncate(params, "calibrated")
    assert files(folder) == whole, "asked again, it is as if nothing had failed"
    assert json.loads(folder.manifest_path.read_text())["pilot"] == folder.read("pilot")
