"""A page shows a notebook's results: no code, no progress bars, and no section without a result."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from palign.analysis.style import NOTHING
from palign.report import page


def rendered(tmp_path, *cells) -> str:
    nbformat.write(new_notebook(cells=list(cells)), tmp_path / "executed.ipynb")
    page.render(tmp_path / "executed.ipynb", tmp_path / "study" / "report.html")
    return (tmp_path / "study" / "report.html").read_text()


def printed(text: str, name: str = "stdout"):
    return new_code_cell("secret_code()", outputs=[new_output("stream", name=name, text=text)])


def test_a_section_without_results_is_left_out_and_named(tmp_path):
    shown = rendered(
        tmp_path,
        new_markdown_cell("# Title"),
        new_markdown_cell("## Shown"),
        printed("a number"),
        new_markdown_cell("## Absent?"),
        printed(NOTHING),
        printed("50%|#####", "stderr"),
    )
    assert "a number" in shown and "<title>palign: study</title>" in shown
    assert "Left out, since this study has no such data: Absent." in shown
    assert not any(words in shown for words in ("secret_code", NOTHING, "50%|", ">Absent?<"))


def test_control_characters_of_a_response_are_shown_and_not_obeyed(tmp_path):
    shown = rendered(tmp_path, new_markdown_cell("# Title"), printed("a\x1b[2Jb"))
    assert "\x1b" not in shown
