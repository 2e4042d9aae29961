"""The sentences of 01 to 05 say what the tables below them hold."""

import pandas as pd

from palign.report import notebook_texts, tables


def test_traces_are_counted_that_fit_the_budgets():
    found = pd.DataFrame({"sentences": [4, 6, 8], "characters": 1, "tokens": [100, 128, 300]})
    told = notebook_texts.lengths(found, [256, 128])
    assert told.startswith("The median trace has 128 tokens in 6 sentences. Of 3 traces, ")
    assert told.endswith(": 2 into 256 tokens, 1 into 128 tokens.")


def test_a_loss_is_told_by_its_first_and_last_tenth():
    losses = pd.DataFrame({"step": range(20), "loss": [2.0, 4.0, *[9.0] * 16, 0.5, 0.7]})
    told = notebook_texts.training({"updates": 20, "rows": 12}, losses)
    assert told.startswith("20 updates on 12 rows; the loss went from 3.000 to 0.600")
    assert notebook_texts.training({"updates": 20, "rows": 12}, losses.head(0)) == "20 updates on 12 rows."


def test_accuracy_is_that_of_the_table(study):
    found = tables.accuracy(study({"easy": 20, "hard": 30}, {"p-align": 0.7}))
    row = tables.averages(found).loc["p-align"]
    told = notebook_texts.accuracy(found, "p-align")
    assert f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}] in 256 tokens" in told
    assert "averaged over benchmarks" in told


def test_a_study_without_prefixes_has_no_sentence_about_them(study):
    made = study({"set": 2}, {"zero-shot": 0.5})
    assert notebook_texts.prefixes(made) == notebook_texts.pairs(made) == ""
