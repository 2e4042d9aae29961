"""An executed notebook as one self-contained HTML page: no code, no progress bars, no scripts, no outside links."""

from __future__ import annotations

from pathlib import Path

from ..analysis.style import NOTHING
from ..tasks.store import visible, write_atomically

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
img {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; margin: 1rem 0; display: block; overflow-x: auto;
  border: 0; width: max-content; max-width: 100%; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }}
th:first-child, td:first-child {{ text-align: left; }}
pre {{ white-space: pre-wrap; background: #f6f6f6; padding: .6rem; font-size: .85rem; }}
</style></head><body>
{body}
</body></html>
"""


def render(notebook: Path, target: Path) -> None:
    """Render the executed ``notebook`` to ``target``. Sections that show nothing are left out and named at the end."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_anchor_links=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.embed_images = True
    executed = nbformat.read(notebook, as_version=4)
    executed.cells = _with_something_to_show(executed.cells)
    body, _ = exporter.from_notebook_node(executed)
    title = f"palign: {target.parent.name}"
    write_atomically(target, PAGE.format(title=title, body=visible(body)))


def _with_something_to_show(cells: list) -> list:
    """The cells without progress, empty tables and absent figures, and without the sections that showed nothing else;
    a last line names those.
    """
    from nbformat.v4 import new_markdown_cell

    sections = [[]]
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            sections.append([])
        elif cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _shows(output)]
        sections[-1].append(cell)
    kept, absent = [], []
    for section in sections:
        code = [cell for cell in section if cell.cell_type == "code"]
        if code and not any(cell.outputs for cell in code) and section is not sections[0]:
            absent.append(section[0].source.removeprefix("## ").rstrip("?"))
        else:
            kept += section
    if absent:
        kept.append(new_markdown_cell(f"Left out, since this study has no such data: {'; '.join(absent)}."))
    return kept


def _shows(output) -> bool:
    if output.get("name") in ("stderr", "stdout"):
        return output["name"] == "stdout" and output["text"].strip() != NOTHING
    return not output.get("data", {}).get("text/plain", "").startswith("Empty DataFrame")
