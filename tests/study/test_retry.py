"""Failed requests are repeated, and the results equal those of an undisturbed run."""

import json

import pytest
import yaml

from palign import alignment, evaluation, finetuning, params, problems, traces, truncation
from palign.analysis import preference
from palign.study import run
from palign.study.cli import main
from palign.tasks.plan import Plan


def road(loaded: params.Params) -> None:
    problems.collect_benchmarks(loaded)
    traces.collect(loaded)
    truncation.truncate_all(loaded)
    alignment.align_all(loaded)
    for arm in loaded.arms:
        finetuning.finetune(loaded, arm)
        evaluation.respond(loaded, arm)
    preference.compare(loaded)


def results(project) -> dict[str, list[str]]:
    """Every record except those of time."""
    files = (path for path in project.glob("runs/**/*.jsonl") if "seconds" not in path.name)
    return {str(path.relative_to(project)): path.read_text().splitlines() for path in files}


def lose(folder, name: str, how_many: int, **outcome: str) -> None:
    """Make so many requests look as if they had failed, in a task that is done."""
    records = folder.read(name)
    folder.write(name, [r | outcome for r in records[:how_many]] + records[how_many:])
    manifest = json.loads(folder.manifest_path.read_text())
    manifest["files"][f"{name}.jsonl"] = (folder.path / f"{name}.jsonl").stat().st_size
    folder.manifest_path.write_text(json.dumps(manifest))


@pytest.fixture
def loaded(small, project):
    values = small | {"arms": ["zero-shot", "p-align", "rft"], "judged_traces": 0, "entropy_traces": 0}
    (project / "params" / "small.yaml").write_text(yaml.safe_dump(values))
    return params.load(project / "params" / "small.yaml")


def test_what_failed_is_asked_again_and_gives_what_would_have_been(loaded, project, capsys):
    road(loaded)
    whole = results(project)
    searched, answered = Plan(loaded).truncation("adaptive").folder, Plan(loaded).evaluation("zero-shot").folder
    lose(searched, "prefixes", 2, status="judge error: endpoint error: HTTP 503", prefix="")
    lose(answered, "responses", 3, finish="endpoint error", text="")
    trained = {arm: Plan(loaded).finetuning(arm).folder for arm in ("p-align", "rft")}
    made = trained["rft"].manifest_path.stat().st_mtime_ns
    capsys.readouterr()

    assert main(["retry", "params/small.yaml", "--dry-run"]) == 0
    foretold = capsys.readouterr().out.splitlines()
    assert "truncation/adaptive: 2 requests failed and will be asked again" in foretold
    assert "evaluation/zero-shot: 3 requests failed and will be asked again" in foretold
    assert searched.done and trained["p-align"].done

    assert main(["retry", "params/small.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [*foretold, "now `palign run params/small.yaml`"]
    assert len(searched.read("prefixes")) == 10 and not searched.done
    assert not trained["p-align"].path.exists(), "it was trained on fewer rows"
    continued = Plan(loaded).alignment("adaptive").folder
    assert not continued.done and len(continued.read("continuations")) == 12, "each depends on its own trace alone"
    assert trained["rft"].manifest_path.stat().st_mtime_ns == made, "no failure reached it"
    assert not Plan(loaded).preference.folder.path.exists()

    road(loaded)
    assert results(project) == whole
    capsys.readouterr()
    assert main(["retry", "params/small.yaml"]) == 0
    assert capsys.readouterr().out == "no request failed\n"


def test_a_pilot_that_is_judged_again_leaves_no_continuation_of_the_prefixes_it_had_found(loaded, project):
    """Its threshold moves every prefix, and the continuations of the earlier prefixes were taken for theirs."""
    values = {"arms": ["p-align-calibrated"], "calibration_traces": 4, "training_limit": 6}
    calibrated = params.validate({**loaded.values(), **values}, "test")

    def to_the_pairs() -> None:
        problems.collect_benchmarks(calibrated)
        traces.collect(calibrated)
        truncation.truncate_all(calibrated)
        alignment.align_all(calibrated)

    to_the_pairs()
    plan = Plan(calibrated)
    whole = plan.alignment("calibrated").read("pairs")
    lose(plan.truncation("calibrated").folder, "judged", 1, status="judge error: engine error: gone", verdicts=[])
    lose(plan.alignment("calibrated").folder, "continuations", 6, prefix="Of another threshold.")
    list(run.retry(calibrated))
    assert not plan.alignment("calibrated").folder.path.exists()
    to_the_pairs()
    assert plan.alignment("calibrated").read("pairs") == whole


@pytest.mark.parametrize("done", range(4))
def test_taking_back_can_be_stopped_between_any_two_tasks(loaded, project, done):
    """Whatever a kill leaves, another retry and a run give the results of an undisturbed study."""
    problems.collect_benchmarks(loaded)
    traces.collect(loaded)
    truncation.truncate_all(loaded)
    alignment.align_all(loaded)
    whole = results(project)
    lose(Plan(loaded).truncation("adaptive").folder, "prefixes", 2, status="judge error: engine error: gone", prefix="")
    lose(Plan(loaded).alignment("empty").folder, "continuations", 1, finish="engine error", continuation="")
    taken = run.retry(loaded)
    for _ in range(done + 1):
        next(taken, None)
    taken.close()
    list(run.retry(loaded))
    assert run.failures(Plan(loaded)) == {}
    truncation.truncate_all(loaded)
    alignment.align_all(loaded)
    assert results(project) == whole


def test_what_asking_again_cannot_mend_is_left(loaded, project):
    """A prompt that does not fit, a verdict without a label: the data's fault, and the same the next time."""
    problems.collect_benchmarks(loaded)
    traces.collect(loaded)
    truncation.truncate_all(loaded)
    folder = Plan(loaded).truncation("adaptive").folder
    lose(folder, "prefixes", 1, status="judge error: prompt too long")
    assert list(run.retry(loaded)) == [] and folder.done


def test_a_running_study_is_left_alone(loaded, project):
    with run.alone(loaded.study), pytest.raises(run.StudyError, match="already running"):
        list(run.retry(loaded))
