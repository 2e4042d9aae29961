"""The tables of 01 to 05: words for names, percent for fractions, and no number that the tables below do not have."""

from palign.report import notebook_tables, tables


def test_a_test_set_is_shown_with_its_size_and_first_question():
    rows = [{"benchmark": b, "id": str(i), "question": f"{b} {i}?", "answer": f"{i}"} for b in "yx" for i in range(3)]
    shown = notebook_tables.benchmarks(rows).frame
    assert list(shown.index) == ["y", "x"] and list(shown.loc["x"]) == ["3", "x 0?", "0"]


def test_accuracy_is_in_percent_with_intervals(study):
    found = tables.accuracy(study({"easy": 20, "hard": 30}, {"p-align": 0.7}, missing={"p-align": 3}))
    shown = notebook_tables.accuracy(found)
    row = found.query("benchmark == 'hard' and metric == 'pass@1'").iloc[0]
    cell = shown.frame.loc["hard", (256, "pass@1")]
    assert cell == f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert "Pass@1 (%)" in shown.html and "256 tokens" in shown.html and "never answered" in shown.html
    assert shown.frame.loc["hard", ("", "never answered")] == str(row.missing)


def test_counts_stay_counts_and_shares_are_percent(study):
    made = study({"set": 40}, {"p-align": 0.5}, missing={"p-align": 12})
    responses = notebook_tables.responses(made).frame["value"]
    assert responses["never answered"] == "12" and responses["without a box"] == "0.0 %"
    assert responses["begins with a closed prefix block"] == "100.0 %" and responses["tokens, mean"] == "40"
    grades = notebook_tables.grading(made).frame["responses"]
    assert grades["never answered"] == "12" and grades["answered"] == "108"


def test_one_search_is_in_the_order_asked():
    shown = notebook_tables.one_search({"verdicts": [(16, "ENOUGH", 5.031), (8, "NOT_ENOUGH", -1.68)]}).frame
    assert list(shown.index) == [1, 2] and list(shown.loc[2]) == ["8", "NOT_ENOUGH", "-1.68"]


def test_a_study_without_prefixes_has_empty_tables(study):
    made = study({"set": 2}, {"zero-shot": 0.5})
    assert notebook_tables.truncation(made).frame.empty and notebook_tables.judge(made).frame.empty
    assert notebook_tables.one_search({}).frame.empty


def test_a_finetuning_says_what_it_saw():
    names = ("trainer", "rows", "rows_left_out", "rows_cut", "updates", "epochs", "longest_row_tokens")
    facts = dict.fromkeys(names, 3) | {"tokens_trained": 117220, "last_loss": 0.06099, "train_seconds": 95.12}
    shown = notebook_tables.training(facts).frame["value"]
    assert shown["tokens trained on"] == "117,220" and shown["last loss (nats per token)"] == "0.061"
    assert shown["training (seconds)"] == "95.1"
