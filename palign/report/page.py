"""An executed notebook as one self-contained HTML page: no progress bars, no scripts, no outside links.

A report has no code; the page of another notebook has each cell's code, folded. The page begins with the cells before
the first section, then lists the sections. What a notebook says to it:

- a heading with the tag ``folded`` begins a section that opens when it is clicked;
- ``kept["NAME"]`` in a cell, or its metadata key ``csv``, a list of names, links ``tables/NAME.csv``;
- ``shown["NAME"]`` takes the drawing from ``figures/NAME.svg``, another figure from the SVG in the cell's output, and
  the metadata key ``alt`` is its alternative text;
- the notebook's own metadata key ``command`` is the command that makes the page, a Jinja template of its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from ..analysis import style
from ..tasks.store import provenance, visible, write_atomically

KEPT = re.compile(r'\bkept\["([\w-]+)"\]')
SHOWN = re.compile(r'\bshown(?:\[| = \{)"([\w-]+)"')
LINK = re.compile(r"\]\((\w+)\.ipynb\)")
NAME = re.compile(r"<code>(?=[\w-]{1,32}</code>)")
"""The beginning of a short name, such as an arm's, which is not broken at its hyphens."""
REPORT = "../report.html"
"""The report, as a notebook's page links it."""
REPORTS = "](../reports/"
"""How a notebook links a report; a page lies among the reports itself."""
WIDGET = "application/vnd.jupyter.widget-view+json"
LARGEST = 300_000
"""Bytes of a drawing: a larger one, of thousands of points, is smaller as a PNG."""
NUMBER = re.compile(r"[-+<>\[]*\s*-?\d[^a-zA-Z]*(e[-+]?\d+|(to|of) [^a-zA-Z]+)?")
"""A cell with a number: ``0.55``, ``< 0.0001``, ``+0.7 [-1.7, +3.1]``, ``8 of 20``."""
LONG = 32
"""Characters of a cell: a longer one is wrapped."""
NO_VALUE = ("NaN", "nan", "None", "NaT", "<NA>")
VERSIONS = ("palign", "torch", "transformers", "trl", "peft", "math-verify", "vllm", "unsloth")


@dataclass
class Section:
    """A heading and the cells below it; the first section of a page has no heading."""

    title: str = ""
    folded: bool = False
    cells: list = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    @property
    def empty(self) -> bool:
        """Whether it has code cells, and none of them shows anything."""
        code = [cell for cell in self.cells if cell.cell_type == "code"]
        return bool(code) and not any(cell.shown for cell in code)


def render(notebook: Path, target: Path, pages: Sequence[tuple[str, str]] = (), title: str = "") -> None:
    """Render the executed ``notebook`` to ``target``. Sections that show nothing are left out and named at the end.

    A report's tables and figures are to be in the folder of ``target`` already. ``pages``: the titles and addresses of
    a study's notebooks, of which this is one; its page lies in a folder of the report's, has the code, and links them.
    ``title``: in place of the notebook's own.
    """
    import nbformat
    from nbconvert import HTMLExporter

    executed = nbformat.read(notebook, as_version=4)
    report = target.parent.parent if pages else target.parent
    lead, *sections = _sections(executed.cells, report, {Path(address).stem: address for _, address in pages})
    own = _title(lead.cells, whole=bool(pages))
    page = {
        **_made(executed.metadata, report, within=bool(pages)),
        "pages": [(name, "" if address == target.name else address) for name, address in pages],
        "title": title or own,
        "lead": lead,
        "sections": [section for section in sections if not section.empty],
        "absent": [section.title.rstrip("?") for section in sections if section.empty],
    }
    here = Path(__file__).resolve().parent
    exporter = HTMLExporter(template_name="template", extra_template_basedirs=[str(here)], exclude_anchor_links=True)
    body, _ = exporter.from_notebook_node(executed, {"page": page})
    write_atomically(target, visible(NAME.sub('<code class="name">', body)))


def _made(metadata: dict, folder: Path, within: bool) -> dict[str, str]:
    """Which study this is, and what made it when. The day is the only time: a page that is made again is to differ in
    its results or not at all. ``within``: the page lies in a folder of the report's.
    """
    import jinja2

    found, papermill = provenance(), metadata.get("papermill", {})
    given = {
        # of a path on this machine its last part is enough
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in papermill.get("parameters", {}).items()
    }
    versions = [f"{name} {found['packages'][name]}" for name in VERSIONS if name in found["packages"]]
    return {
        "study": folder.name + (f", {given['arm']}" if within and "arm" in given else ""),
        "date": (papermill.get("end_time") or "")[:10],
        "commit": (found["commit"] or "")[:10] + (" with local changes" if found["dirty"] else ""),
        "command": jinja2.Template(metadata.get("command", "")).render(given),
        "stated": within * "../" + "params.yaml" if (folder / "params.yaml").is_file() else "",
        "versions": ", ".join([f"Python {found['python']}", *versions]),
    }


def _title(cells: list, whole: bool) -> str:
    """The notebook's title, taken out of its first cell. What the notebook reads, writes and costs is for those who run
    it, and is taken out too, unless its ``whole`` text is wanted.
    """
    if not cells or not cells[0].source.startswith("# "):
        return ""
    title, _, text = cells[0].source.partition("\n")
    cells[0].source = text if whole else text.partition("\n**Reads**")[0]
    return title.removeprefix("# ")


def _sections(cells: list, folder: Path, pages: Mapping[str, str]) -> list[Section]:
    """The cells by section. ``pages``: notebook -> address, of a study's notebooks; a page among them is without
    Colab's cells and without papermill's, which repeats the study's file.
    """
    sections = [Section()]
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if pages and ("cellView" in cell.metadata or "injected-parameters" in tags):
            continue
        if cell.cell_type == "markdown":
            cell.source = _joined(cell.source.replace(REPORTS, "](../../" if pages else "](../"))
            if pages:
                cell.source = LINK.sub(lambda found: f"]({pages.get(found[1], REPORT)})", cell.source)
            if cell.source.startswith("## "):
                title, _, cell.source = cell.source.partition("\n")
                sections.append(Section(title.removeprefix("## "), "folded" in tags))
        elif cell.cell_type == "code":
            shown = [_shown(output, cell, sections[-1].title, folder) for output in cell.outputs]
            cell.shown = [output for output in shown if output]
            names = dict.fromkeys([*cell.metadata.get("csv", []), *KEPT.findall(cell.source)])
            wanted = any(output["kind"] in ("table", "figure") for output in cell.shown)
            cell.csv = [name for name in names if wanted and (folder / "tables" / f"{name}.csv").is_file()]
        sections[-1].cells.append(cell)
    return sections


def _joined(text: str) -> str:
    """No line ends between a number and its percent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def _shown(output: dict, cell: dict, title: str, folder: Path) -> dict | None:
    """What the page has for a cell's output; ``None`` for progress, an empty table and an absent figure."""
    data = output.get("data", {})
    if output.output_type == "stream":
        # a kernel may send the end of a printed line by itself
        wanted = output.name == "stdout" and output.text.strip() not in ("", style.NOTHING)
        return {"kind": "text", "text": output.text} if wanted else None
    if output.output_type == "error":
        return {"kind": "text", "text": "\n".join(output.traceback)}
    if data.get("text/plain", "").startswith("Empty DataFrame"):
        return None
    if "text/html" in data:
        return {"kind": "table", "html": _table(data["text/html"])}
    if WIDGET in data:  # a library's progress bar, saved as it began
        return None
    if "text/markdown" in data:
        return {"kind": "markdown", "text": _joined(data["text/markdown"])}
    if "image/png" in data:
        return {"kind": "figure", **_figure(data, cell, title, folder)}
    return {"kind": "text", "text": data.get("text/plain", "")}


def _figure(data: dict[str, str], cell: dict, title: str, folder: Path) -> dict[str, str]:
    """The source of a figure's image, its caption, and its alternative text."""
    name = SHOWN.search(cell.source)
    path = folder / "figures" / f"{name[1]}.svg" if name else None
    kept = path and path.is_file()
    drawing, caption = style.parted(path.read_text(encoding="utf-8") if kept else data.get("image/svg+xml", ""))
    alt = cell.metadata.get("alt") or f"Figure: {title or (name[1] if name else cell.id)}. {caption}".strip()
    if 0 < len(drawing) <= LARGEST:
        # unlike base64 this keeps a small change of the drawing a small change of the page
        source = "data:image/svg+xml," + quote(drawing, safe=" '()*+,-./:;=?@[]_~!$&")
        return {"source": source, "caption": _joined(caption), "alt": alt}
    return {"source": "data:image/png;base64," + "".join(data["image/png"].split()), "caption": "", "alt": alt}


def _table(html: str) -> str:
    """A table without its own borders and styles, which the page's replace. In one of pandas no value is an empty cell,
    numbers stand to the right, a short cell is one line, and the names of the index are in the header's last row.
    """
    plain = re.sub(r"<style.*?</style>|&nbsp;", "", visible(html), flags=re.DOTALL)
    great = 'class="gt_table"' in plain
    try:
        found = ElementTree.fromstring(f"<div>{plain}</div>")
    except ElementTree.ParseError:  # not of pandas
        return html
    for element in found.iter() if great else ():
        _plain(element)
    for table in () if great else found.iter("table"):
        _tidy(table)
    return ElementTree.tostring(found, encoding="unicode", method="html")


GREAT = {"gt_right": "number", "gt_group_heading": "group", "gt_column_spanner_outer": "spanner"}
"""A class of great_tables -> the page's own."""


def _plain(element: ElementTree.Element) -> None:
    """An element of great_tables with the page's classes in place of its own styles."""
    theirs = element.get("class", "").split()
    kept = {name: element.get(name) for name in ("rowspan", "colspan", "scope") if element.get(name) not in (None, "1")}
    if own := " ".join(GREAT[name] for name in theirs if name in GREAT):
        kept["class"] = own
    elif element.tag == "table":
        kept["class"] = "sticky"
    elif element.tag in ("th", "td") and len("".join(element.itertext())) > LONG:
        kept["class"] = "long"
    element.attrib.clear()
    element.attrib.update(kept)


def _tidy(table: ElementTree.Element) -> None:
    for element in table.iter():
        spans = {name: element.get(name) for name in ("rowspan", "colspan") if element.get(name)}
        element.attrib.clear()
        element.attrib.update(spans)
        if element.tag in ("th", "td"):
            _write(element, (element.text or "").strip())
    head = table.find("thead")
    body = table.findall("tbody/tr")
    if head is None:
        return
    index = max((len(row.findall("th")) for row in body), default=0)
    _join(head, index)
    names = [row.findtext("th") for row in body]
    if index == 1 and names == [str(i) for i in range(len(body))] and not any(row[0].text for row in head):
        for row in [*head, *body]:  # pandas numbers the rows of a table without an index
            row.remove(row[0])
        index = 0
    if index == 1:
        table.set("class", "sticky")
    columns = list(zip(*(row.findall("td") for row in body), strict=False))
    for i, column in enumerate(columns):
        said = ["".join(cell.itertext()) for cell in column]
        if any(said) and all(NUMBER.fullmatch(text) for text in said if text):
            above = [row[index + i] for row in head if len(row) == index + len(columns)]
            for cell in (*column, *above):
                cell.set("class", "number")
    for cell in (cell for row in body for cell in row):
        if len("".join(cell.itertext())) > LONG:
            cell.set("class", "long")


def _write(cell: ElementTree.Element, text: str) -> None:
    """Put text into a cell: nothing for no value, code where backticks enclose it."""
    cell.text, *parts = re.split(r"`([^`]+)`", "" if cell.tag == "td" and text in NO_VALUE else text)
    for code, after in zip(parts[::2], parts[1::2], strict=True):
        child = ElementTree.SubElement(cell, "code")
        child.text, child.tail = code, after


def _join(head: ElementTree.Element, index: int) -> None:
    """Move the names of the index up, which pandas writes into a row of their own; a name of the columns gives way.
    Remove rows without any text.
    """
    rows = list(head)
    if len(rows) > 1 and len(rows[-2]) == len(rows[-1]) and not any(cell.text for cell in rows[-1][index:]):
        for cell, name in zip(rows[-2][:index], rows[-1][:index], strict=True):
            cell.text, cell[:] = name.text, list(name)
        head.remove(rows[-1])
    for row in list(head):
        if not any("".join(cell.itertext()) for cell in row):
            head.remove(row)
