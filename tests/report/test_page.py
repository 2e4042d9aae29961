"""A page shows a notebook's results: the answer first, a list of its sections, no code, and no section without a
result.
"""

import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib_inline.config import InlineBackend
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from palign.analysis import style
from palign.analysis.style import NOTHING
from palign.report import display, page
from palign.tasks.plan import NOTEBOOKS
from tests.conftest import PROJECT

PAGES = ("06_report", "recorded_rollouts", "paper_audit")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def rendered(tmp_path, *cells, **metadata) -> str:
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), tmp_path / "executed.ipynb")
    page.render(tmp_path / "executed.ipynb", tmp_path / "study" / "report.html")
    return (tmp_path / "study" / "report.html").read_text()


def printed(text: str, name: str = "stdout"):
    return new_code_cell("secret_code()", outputs=[new_output("stream", name=name, text=text)])


def tabled(table: pd.DataFrame, source: str = "table", **metadata):
    data = {"text/html": table._repr_html_(), "text/plain": repr(table)}
    return new_code_cell(source, outputs=[new_output("execute_result", data)], metadata=metadata)


def drawn(source: str, **metadata):
    data = {"image/png": PIXEL, "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return new_code_cell(source, outputs=[new_output("display_data", data)], metadata=metadata)


def saved(tmp_path, name: str = "accuracy", caption: str = "n = 3 < 4 problems.\nBars: none.") -> str:
    """A figure in the report's folder, as a notebook saves it."""
    style.theme()
    figure, axis = plt.subplots()
    axis.plot([0, 1], [0, 1])
    style.caption(figure, caption)
    style.save(figure, tmp_path / "study" / "figures", name)
    plt.close(figure)
    return (tmp_path / "study" / "figures" / f"{name}.svg").read_text()


class Page(HTMLParser):
    """The tags of a page, and the text in front of its first section."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.first = [], []
        self.feed(html)
        self.first = html.partition("<h2")[0]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict]:
        return [attrs for tag, attrs in self.tags if tag == name]


def test_a_section_without_results_is_left_out_and_named(tmp_path):
    shown = rendered(
        tmp_path,
        new_markdown_cell("# Title"),
        new_markdown_cell("## Shown"),
        printed("a number"),
        new_markdown_cell("## Absent?"),
        printed(NOTHING),
        printed("\n"),  # now and then it comes as an output of its own, and the section was shown with nothing in it
        printed("50%|#####", "stderr"),
    )
    assert "a number" in shown and "<title>palign: study</title>" in shown
    assert "Left out, since there is no such data: Absent." in shown
    assert not any(words in shown for words in ("secret_code", NOTHING, "50%|", ">Absent?<", "#absent"))


def test_control_characters_of_a_response_are_shown_and_not_obeyed(tmp_path):
    shown = rendered(tmp_path, new_markdown_cell("# Title"), printed("a\x1b[2Jb"))
    assert "\x1b" not in shown


def test_the_answer_comes_first_and_then_the_list_of_sections(tmp_path):
    """It came after 1,100 pixels of settings, and no section could be linked to."""
    saved(tmp_path)
    found = Page(
        rendered(
            tmp_path,
            new_markdown_cell("# Title\n\nWhat is asked.\n\n**Reads** nothing. **Costs** a minute."),
            new_code_cell("finding", outputs=[new_output("display_data", {"text/markdown": "The *answer*."})]),
            drawn('shown["accuracy"] = figure'),
            tabled(pd.DataFrame({"value": [1.5]})),
            new_markdown_cell("## 1. Is it so?\n\nA sentence."),
            tabled(pd.DataFrame({"value": [2.5]})),
            new_markdown_cell("## Settings", metadata={"tags": ["folded"]}),
            printed("student: small"),
        )
    )
    assert "<h1>Title</h1>" in found.first and "What is asked." in found.first and "**Reads**" not in found.first
    assert "The <em>answer</em>." in found.first
    assert found.first.count("<figure>") == 1 and found.first.count("<table") == 1
    anchors = [link["href"].removeprefix("#") for link in found.all("a") if link["href"].startswith("#")]
    assert anchors == ["1-is-it-so", "settings"]
    assert [section["id"] for section in found.all("section")] == anchors[:1]
    assert [section["id"] for section in found.all("details")] == anchors[1:]


def test_a_page_is_self_contained_and_its_images_have_words(tmp_path):
    saved(tmp_path)
    html = rendered(tmp_path, drawn('shown["accuracy"] = figure'), drawn("plot()", alt="A line that rises."))
    found = Page(html)
    assert not {"script", "link", "iframe", "object", "svg"} & {tag for tag, _ in found.tags}
    assert not re.findall(r"https?://(?!www\.w3\.org/)", html)
    first, second = found.all("img")
    assert first["src"].startswith("data:image/svg+xml,") and second["src"].startswith("data:image/png;base64,")
    assert first["alt"] == "Figure: accuracy. n = 3 < 4 problems. Bars: none." and second["alt"] == "A line that rises."
    assert rendered(tmp_path, drawn('shown["accuracy"] = figure'), drawn("plot()", alt="A line that rises.")) == html


def test_the_caption_of_a_figure_is_text_and_no_part_of_the_drawing(tmp_path):
    """On a telephone its letters were two pixels high."""
    svg = saved(tmp_path)
    drawing, caption = style.parted(svg)
    assert caption == "n = 3 < 4 problems. Bars: none."
    height, shorter = (float(re.search(r'viewBox="0 0 \S+ (\S+)"', text)[1]) for text in (svg, drawing))
    assert 20 < height - shorter < 40  # two lines
    assert "metadata" not in drawing and "matplotlib.axis_2" in drawing
    html = rendered(tmp_path, drawn('shown["accuracy"] = figure'))
    assert "<figcaption>n = 3 &lt; 4 problems. Bars: none.</figcaption>" in html


def test_a_notebooks_own_figure_is_a_drawing_with_its_caption_as_text(tmp_path):
    """It was a picture with the caption baked in, since only a report's figures are saved."""
    cell = drawn("plot()")
    cell.outputs[0].data["image/svg+xml"] = saved(tmp_path)
    html = rendered(tmp_path, cell)
    (image,) = Page(html).all("img")
    assert image["src"].startswith("data:image/svg+xml,")
    assert "<figcaption>n = 3 &lt; 4 problems. Bars: none.</figcaption>" in html


def test_a_kernel_keeps_a_figure_as_drawing_and_as_pixels(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", InteractiveShell)
    try:
        style.keep_drawings()
        style.keep_drawings()
        assert InlineBackend.instance().figure_formats == {"png", "svg"}
    finally:
        InlineBackend.clear_instance()


@pytest.mark.parametrize("name", sorted({*NOTEBOOKS.values()} - {"06_report"}))
def test_every_notebook_that_becomes_a_page_keeps_its_drawings(name):
    assert "keep_drawings()" in (PROJECT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")


def test_no_line_ends_in_front_of_a_percent_sign(tmp_path):
    answer = new_output("display_data", {"text/markdown": "It is 82.6 % right."})
    html = rendered(tmp_path, new_markdown_cell("# Title\n\nIn 95 % of 3 cells."), new_code_cell("x", outputs=[answer]))
    assert "82.6\N{NO-BREAK SPACE}% right" in html and "95\N{NO-BREAK SPACE}% of 3" in html


def test_a_drawing_of_many_points_is_shown_as_pixels(tmp_path, monkeypatch):
    saved(tmp_path)
    monkeypatch.setattr(page, "LARGEST", 100)
    (image,) = Page(rendered(tmp_path, drawn('shown["accuracy"] = figure'))).all("img")
    assert image["src"].startswith("data:image/png") and "n = 3" in image["alt"]


def test_a_table_is_linked_to_its_file_where_there_is_one(tmp_path):
    (tmp_path / "study" / "tables").mkdir(parents=True)
    for name in ("accuracy", "by-share"):
        (tmp_path / "study" / "tables" / f"{name}.csv").touch()
    table = pd.DataFrame({"value": [1.5]})
    found = Page(
        rendered(
            tmp_path,
            tabled(table, 'views.accuracy(kept["accuracy"], kept["gone"])'),
            tabled(table, "means", csv=["by-share"]),
            new_code_cell('x = kept["accuracy"]'),
        )
    )
    assert [link["href"] for link in found.all("a")] == ["tables/accuracy.csv", "tables/by-share.csv"]


def test_tables_have_no_borders_and_no_words_for_nothing(tmp_path):
    """pandas draws black verticals, writes NaN, and puts the index's name into a row of its own."""
    table = pd.DataFrame(
        {"gain": ["+0.7 [-1.7, +3.1]", None], "share": [float("nan"), 0.5], "why": ["`search`, NaN or 1", "no"]},
        index=pd.Index(["p-align", "zero-shot"], name="arm"),
    )
    html = rendered(tmp_path, tabled(table), tabled(table.style), tabled(pd.DataFrame({"words": ["a", "b"]})))
    found = Page(html)
    assert not [attrs for _, attrs in found.tags if {"border", "style"} & set(attrs)]
    assert "<td>NaN" not in html and ">None<" not in html and ">nan<" not in html
    assert html.count('<td class="number">+0.7 [-1.7, +3.1]</td>') == 2 and html.count("<td>no</td>") == 2
    assert html.count('<td><code class="name">search</code>, NaN or 1</td>') == 2
    head = '<th>arm</th><th class="number">gain</th><th class="number">share</th><th>why</th>'
    assert re.sub(r">\s+<", "><", html).count(f"<thead><tr>{head}</tr></thead>") == 2
    assert "<tr><th>words</th></tr>" in re.sub(r">\s+<", "><", html), "the numbers of rows are no data"


@pytest.mark.parametrize(
    ("text", "number"),
    {
        **dict.fromkeys(("0.55", "-3", "1,000", "< 0.0001", "8 of 20", "80.4 to 84.5", "12 %", "1e-05"), True),
        **dict.fromkeys(("[-1.7, +3.1]", "+0.7 [-1.7, +3.1]", "40 (7)"), True),
        **dict.fromkeys(("", "3 samples", "pass@1", "11 and 10 of 20", "p-align", "none of 8"), False),
    }.items(),
)
def test_what_counts_as_a_number(text, number):
    assert bool(page.NUMBER.fullmatch(text)) is number


def test_the_head_says_what_made_the_page_and_no_path_of_the_machine(tmp_path):
    given = {"study": "mine", "file": "/data/of/mine.csv", "other": None}
    papermill = {"parameters": given, "end_time": "2026-01-02T03:04:05+00:00"}
    command = "palign run {{ study }} {{ file }}{% if other %} --other{% endif %}"
    html = rendered(tmp_path, new_markdown_cell("# Title"), papermill=papermill, command=command)
    head = html.partition("<main>")[0]
    assert "<code>palign run mine mine.csv</code>" in head and "2026-01-02" in head and "palign 0." in head
    assert "03:04" not in head and "/data/of" not in html and "params.yaml" not in head
    (tmp_path / "study" / "params.yaml").touch()
    assert 'href="params.yaml"' in rendered(tmp_path, new_markdown_cell("# Title"), papermill=papermill)


def test_the_page_of_a_notebook_has_its_code_folded_and_links_the_others(tmp_path):
    """A visitor saw code without outputs, since the notebooks hold none."""
    first = "# 01 Generation: which?\n\n**Reads** traces.\n\n[next](02_truncation.ipynb), [all](06_report.ipynb)"
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Loading weights: 0%|"}
    widget = new_output("display_data", view)  # a library's bar, which is saved as it began
    cells = [
        new_markdown_cell(first),
        new_code_cell('repository = ""', metadata={"cellView": "form"}),
        new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("seed = 3", metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell("## How long?"),
        printed("229 tokens"),
        new_code_cell("fill()", outputs=[new_output("stream", name="stderr", text="50%|#####"), widget]),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "executed.ipynb")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "params.yaml").touch()
    pages = [("01 Generation", "01_generation.html"), ("02 Truncation", "02_truncation.html"), ("Report", page.REPORT)]
    page.render(tmp_path / "executed.ipynb", tmp_path / "study" / "notebooks" / "01_generation.html", pages)
    html = (tmp_path / "study" / "notebooks" / "01_generation.html").read_text()
    links = [link["href"] for link in Page(html).all("a")]
    assert links[:2] == ["02_truncation.html", page.REPORT], "the first line"
    assert sorted(links[2:]) == ["#how-long", "../params.yaml", page.REPORT, "02_truncation.html"]
    assert "<b>01 Generation</b>" in html and "<title>palign: study: 01 Generation: which?</title>" in html
    assert html.count('<details class="code">') == 3 and "secret_code()" in html and "229 tokens" in html
    assert "parameters and their defaults" in html and "<strong>Reads</strong>" in html
    assert not any(words in html for words in ("repository", "seed = 3", "0%|", "<script"))


def test_an_empty_table_of_a_notebook_is_left_out(tmp_path):
    table = display.table(pd.DataFrame())
    data = {"text/html": table._repr_html_(), "text/plain": repr(table)}
    cell = new_code_cell("judge()", outputs=[new_output("execute_result", data)])
    html = rendered(tmp_path, new_markdown_cell("# Title"), new_markdown_cell("## Judge"), cell)
    assert "<table" not in html and "no such data: Judge" in html


@pytest.mark.parametrize("name", PAGES)
def test_the_notebooks_say_what_a_page_needs(name):
    notebook = json.loads((PROJECT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"]]
    titles = [source.partition("\n")[0] for _, source in cells if source.startswith("## ")]
    assert notebook["metadata"]["command"].startswith("palign ") and len(titles) == len(set(titles))
    first = [source for _, source in cells[: next(i for i, (_, s) in enumerate(cells) if s.startswith("## "))]]
    assert sum(bool(page.SHOWN.match(source)) for source in first) == 1, "one figure comes first"
    kept = cells[-2][1] if "write.keep(" in cells[-2][1] else cells[-3][1]
    for cell, source in cells:
        if page.SHOWN.search(source):
            assert cell["metadata"]["alt"].endswith("."), source
        if name != "06_report":
            assert all(f'"{table}"' in kept for table in cell["metadata"].get("csv", [])), source


def test_settings_power_overlap_and_costs_of_a_study_are_folded_and_last():
    notebook = json.loads((PROJECT / "notebooks" / "06_report.ipynb").read_text(encoding="utf-8"))
    heads = [cell for cell in notebook["cells"] if "".join(cell["source"]).startswith("## ")]
    folded = ["folded" in cell["metadata"].get("tags", []) for cell in heads]
    assert folded == sorted(folded) and sum(folded) == 4
