"""The paper's numbers are shown beside the study's only if the study has them, and an arm's costs add up."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from palign import alignment, params, traces, truncation
from palign.paper import printed
from palign.params import Params
from palign.report import beside, figures, tables
from palign.report.results import Results
from palign.tasks.plan import Task


@pytest.fixture(autouse=True)
def closed():
    yield
    figures.plt.close("all")


def test_every_printed_number_is_carried_under_its_rows_name():
    rows = beside.as_printed()
    other = printed.other_figures()
    assert set(rows["form"]) == set(beside.FORMS) == set(other["source"])
    assert len(rows) == len(other) - (other["source"] == "table7").sum() / 2  # two counts make one share
    for form, spec in beside.FORMS.items():
        assert set(rows[rows["form"] == form]["name"]) == set(spec.names.values())
    kept = rows[(rows["form"] == "table7") & (rows["source"] == "Qwen2.5-7B-Instruct")].iloc[0]
    assert kept["value"] == pytest.approx(97.2) and kept["low"] < 97.2 < kept["high"] and kept["n"] == 1000
    assert rows[rows["form"] != "table7"][["low", "high"]].isna().all(axis=None)


def made_up(forms) -> pd.DataFrame:
    own = [
        (form, beside.HERE, name, 50.0 + i, 45.0, 60.0, 8, "a rubric" if form == "figure3d" else "")
        for form in forms
        for i, name in enumerate(beside.FORMS[form].names.values())
    ]
    printed = beside.as_printed()
    own = pd.DataFrame(own, columns=beside.COLUMNS)
    return pd.concat([printed[printed["form"].isin(forms)], own], ignore_index=True)


@pytest.mark.parametrize("forms", [["figure3c"], list(beside.FORMS)], ids=["one", "all"])
def test_printed_and_measured_values_are_drawn_where_they_are(forms):
    table = made_up(forms)
    figure = figures.beside(table)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert any("(here: a rubric)" in title for title in titles) == (
        "figure3d" in forms
    )  # it is not to pass for a model
    for form, axis in zip(forms, figure.axes, strict=True):
        rows = table[table["form"] == form]
        drawn = sorted(float(line.get_xdata()[0]) for line in axis.get_lines())
        assert drawn == pytest.approx(sorted(rows["value"])) and len(drawn) > 1
        assert axis.get_xlim()[0] <= rows["value"].min() and rows["value"].max() < axis.get_xlim()[1]
        figure.canvas.draw()
        boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_a_study_without_the_arms_shows_nothing(small, project):
    loaded = params.validate({**small, "arms": ["zero-shot"]}, "test")
    table = beside.table(Results(loaded), {})
    assert table.empty and figures.beside(table) is None


def test_lengths_calls_and_retention_are_those_of_the_records(small, project, monkeypatch):
    values = {"arms": ["zero-shot", "p-align", "p-align-no-binary-search"], "sufficiency_samples": 0}
    loaded = params.validate(small | values, "test")
    traces.collect(loaded)
    truncation.truncate_all(loaded)
    alignment.align_all(loaded)
    for form in ("figure3c", "figure3d"):  # no arm has answered
        monkeypatch.setitem(beside.FORMS, form, replace(beside.FORMS[form], measure=lambda *_: {}))
    study = Results(loaded)
    table = beside.table(study, {})
    assert set(table["form"]) == {"table4", "table5", "table7"}
    own = table[table["source"] == beside.HERE].set_index(["form", "name"])
    assert (own["low"].isna() | (own["low"] <= own["value"]) & (own["value"] <= own["high"])).all()
    prefixes = study.prefixes()
    assert own.loc[("table4", "trace"), "value"] == pytest.approx(prefixes["trace_tokens"].mean())
    assert own.loc[("table5", "binary search"), "value"] == pytest.approx(prefixes["calls"].mean())
    # a scan needs one verdict for each sentence up to its end; what it judged beyond, in blocks, is no call of Table 5
    scans = study.prefixes("linear")
    assert own.loc[("table5", "linear scan"), "value"] == pytest.approx(scans["sentences"].mean())
    assert own.loc[("table7", "kept"), "value"] == pytest.approx(100 * study.pairs()["kept"].mean())
    wide = beside.wide(table)
    assert len(wide.frame) == len(own) and wide.frame.columns[-1] == (beside.HERE, "")


def test_response_lengths_are_of_answered_responses_and_over_seeds(study):
    made = study({"set": 50}, {"p-align": 0.5, "sft-long-cot": (0.5, 0.5)}, seeds=(0, 1), missing={"p-align": 75})
    found = beside._response_tokens(made, {})
    assert found["p-align"].value == pytest.approx(40) and found["p-align"].n == 50
    mean = 80 + np.mean([i % 7 for i in range(50)])
    assert found["sft-long-cot"].low < found["sft-long-cot"].value == pytest.approx(mean)


def test_what_an_arm_costs_is_read_from_the_tasks_it_stands_on(monkeypatch):
    made = {"truncation": {"tokens_read": 10, "tokens_generated": 1}, "alignment": {"tokens_read": 100}}
    made["finetuning"] = {"tokens_trained": 1000}

    class Folder:
        def __init__(self, stage):
            self.stage = stage

        def manifest(self):
            return made[self.stage]

    monkeypatch.setattr(Task, "require", lambda task: Folder(task.stage))
    table = tables.spent(Results(Params(arms=["zero-shot", "sft-label", "p-align", "rft"], training_seeds=[0, 1])))
    assert table["total"].to_dict() == {"zero-shot": 0, "sft-label": 1000, "p-align": 1111, "rft": 1100}
    assert table.loc["p-align"].to_dict() == {"judged": 11, "continued": 100, "trained": 1000, "total": 1111}
