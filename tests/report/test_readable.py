"""Every page that a reader gets: no value is written as a program writes it, and the headline comes first."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests.conftest import PROJECT

COMMITTED = sorted(path.parent.name for path in (PROJECT / "reports").glob("*/report.html"))
NO_VALUE = {"nan", "NaN", "None", "NaT", "<NA>", "inf"}


def faults(path: Path) -> list[str]:
    """What is wrong with a page, one line each."""
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    found = [f"a cell says {c.text!r}" for c in page.select("td, th") if c.text.strip() in NO_VALUE]
    for code in page.select("th code"):
        code.extract()  # names of parameters may have one
    found += [f"the heading {c.text!r} has an underscore" for c in page.select("thead th") if "_" in c.text]
    found += [f"an image without alt, {str(c)[:60]!r}" for c in page.select("img") if not c.get("alt", "").strip()]
    links = [c.get(name, "") for name in ("href", "src") for c in page.select(f"[{name}]")]
    found += [f"a link outside, {link!r}" for link in links if link.startswith(("http:", "https:", "//"))]
    before = []
    for child in page.select("main > *"):
        if child.name in ("nav", "section", "details"):
            break
        before.append(child)
    sentences = [c.text.strip() for c in before if c.name == "p"]
    if not any(text.endswith(".") and any(map(str.isdigit, text)) for text in sentences):
        found.append("no headline before the first section")
    return found


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_page_is_for_a_reader(name):
    assert not faults(PROJECT / "reports" / name / "report.html")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<table><tr><td>NaN</td></tr></table>", "a cell says 'NaN'"),
        ("<table><thead><tr><th>tokens_mean</th></tr></thead></table>", "has an underscore"),
        ("<img src='data:x'>", "an image without alt"),
        ("<a href='https://elsewhere'>there</a>", "a link outside"),
    ],
)
def test_a_fault_is_named(tmp_path, body, said):
    path = tmp_path / "report.html"
    path.write_text(f"<main><p>It is 3.</p><nav></nav><section>{body}</section></main>")
    (found,) = faults(path)
    assert said in found


def test_a_page_that_begins_with_a_section_has_no_headline(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("<main><nav></nav><section><p>It is 3.</p></section></main>")
    assert faults(path) == ["no headline before the first section"]
