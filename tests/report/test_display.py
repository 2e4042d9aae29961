"""Tables as a reader sees them."""

import pandas as pd
import pytest

from palign.report import display, page


def cells(shown) -> list[str]:
    """The text of the body's cells, as the page has them."""
    from xml.etree import ElementTree

    found = ElementTree.fromstring(page._table(shown._repr_html_()))
    return ["".join(cell.itertext()) for cell in found.iterfind(".//tbody//td")]


def test_no_value_is_an_empty_cell_and_counts_have_no_point():
    shown = display.table(pd.DataFrame({"rows": [320.0, None], "share": [0.5, float("nan")]}), digits={"share": 2})
    assert cells(shown) == ["320", "0.50", "", ""]


def test_an_interval_stands_small_below_its_value():
    html = display.table(pd.DataFrame({"Pass@1": ["82.6 [80.4, 84.5]"]}, ["p-align"]))._repr_html_()
    assert "82.6<small" in html and ">[80.4, 84.5]</small>" in html


def test_the_largest_value_is_bold_and_only_it():
    frame = pd.DataFrame({"Pass@1": ["9.5 [7, 11]", "82.6 [80, 84]", ""]}, ["a", "b", "c"])
    html = display.table(frame, best=["Pass@1"])._repr_html_()
    assert html.count("<b>") == 1 and "<b>82.6" in html


def test_text_of_the_data_cannot_write_html():
    frame = pd.DataFrame({"<i>x": ["<script>1</script> `code`"]}, ["<img>"])
    html = display.table(frame)._repr_html_()
    assert "<script" not in html and "<img" not in html and "<i>" not in html and "<code>code</code>" in html


def test_outer_levels_head_groups_and_columns_of_two_levels_share_a_heading():
    index = pd.MultiIndex.from_tuples(
        [("pass@1", 256, "rft"), ("pass@3", 256, "rft")], names=["metric", "tokens", "arm"]
    )
    frame = pd.DataFrame({("a", "x"): [1, 2], ("a", "y"): [3, 4]}, index)
    html = page._table(display.table(frame, labels={"pass@1": "Pass@1"})._repr_html_())
    assert 'class="group"' in html and "Pass@1, 256" in html and html.count('class="spanner"') == 1


def test_a_long_table_folds_after_its_first_rows():
    frame = pd.DataFrame({"n": range(30)})
    html = page._table(display.table(frame, first=5)._repr_html_())
    before, behind = html.split("<details>")
    assert before.count("<tr>") == 1 + 5 and "All 30 rows" in behind and behind.count("<tr>") == 1 + 30


def test_an_absent_column_is_named():
    with pytest.raises(ValueError, match="no column 'y'"):
        display.table(pd.DataFrame({"x": [1]}), best=["y"])
