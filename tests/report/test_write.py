"""A report folder holds what was kept last, and nothing of an earlier report."""

import matplotlib.pyplot as plt
import pandas as pd

from palign.analysis import style
from palign.report import write


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_an_earlier_report_left_is_removed_and_the_same_figure_is_the_same_file(tmp_path):
    """A table that a study no longer has would be read as one of its results."""
    style.theme()
    figure, _ = plt.subplots()
    table = pd.DataFrame({"value": [1.23456789]})
    write.keep(tmp_path, {"old": table, "both": table}, {"old": figure, "both": figure})
    before = (tmp_path / "figures" / "both.svg").read_bytes()
    write.keep(tmp_path, {"both": table, "none": None, "empty": pd.DataFrame()}, {"both": figure, "none": None})
    assert files(tmp_path) == ["both.csv", "both.png", "both.svg"]
    assert (tmp_path / "figures" / "both.svg").read_bytes() == before
    assert (tmp_path / "tables" / "both.csv").read_text() == "value\n1.23457\n"
    plt.close("all")


def test_an_index_is_kept_where_it_says_something(tmp_path):
    named = pd.DataFrame({"value": [1]}, index=pd.Index(["p-align"], name="arm"))
    counted = pd.DataFrame({"value": [1]}, index=["retention"])
    write.keep(tmp_path, {"named": named, "counted": counted}, {})
    assert (tmp_path / "tables" / "named.csv").read_text() == "arm,value\np-align,1\n"
    assert (tmp_path / "tables" / "counted.csv").read_text() == ",value\nretention,1\n"


def test_the_tables_of_errors_stay_until_the_outcomes_change(tmp_path):
    """Every new report removed what `python -m palign.pocket.errors` had written beside it."""
    outcomes = pd.DataFrame({"right": [1, 2]})
    write.keep(tmp_path, {"problems": outcomes}, {})
    for name in (*write.ERRORS, "foreign.csv"):
        (tmp_path / "tables" / name).write_text("a\n1\n")
    write.keep(tmp_path, {"problems": outcomes}, {})
    assert files(tmp_path) == sorted([*write.ERRORS, "problems.csv"])
    write.keep(tmp_path, {"problems": outcomes + 1}, {})
    assert files(tmp_path) == ["problems.csv"], "they would be read as those of the new outcomes"
