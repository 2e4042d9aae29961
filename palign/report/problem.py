"""One problem of a study as a reader sees it: rich in a notebook, plain text in a terminal.

The texts are other people's or a model's: they are escaped, and never typeset.

>>> print(study.problem("dial-2/cb8a86fe2e45", arm="p-align"))      # in a notebook, without print: with colours
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ..tasks.store import visible

GOOD, BAD, KEPT = "rgba(0,140,70,.25)", "rgba(210,50,30,.25)", "rgba(250,190,0,.35)"  # seen on white and on black
GOOD_WORDS = ("right", "ENOUGH")
CELL = "padding:.2rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid rgba(128,128,128,.4)"


@dataclass(frozen=True)
class Sentence:
    """A sentence of a trace. ``kept``: whether it is in the prefix. ``probes``: the verdicts on the prefix that ends
    with it, each with its number in the order asked: ``1: ENOUGH (+3.27)``.
    """

    text: str
    kept: bool
    probes: Sequence[str] = ()


@dataclass(frozen=True)
class Problem:
    """A training problem, with its ``trace`` in sentences, or a test problem, without one.

    ``title``: what it is. ``facts``: title -> text. ``note``: how to read the trace. ``rows``: the student's texts, one
    row each with the same columns, of which ``grade`` begins with ``right`` or not and ``text`` is the last.
    """

    title: str
    question: str
    answer: str
    facts: dict[str, str]
    trace: Sequence[Sentence]
    note: str
    rows: Sequence[dict[str, str]]

    def __repr__(self) -> str:
        return visible("\n\n".join(self._paragraphs()))

    def _paragraphs(self) -> Iterator[str]:
        yield self.title
        yield f"Question: {self.question}"
        yield "\n".join(f"{name}: {text}" for name, text in {"Gold answer": self.answer, **self.facts}.items())
        if self.trace:
            yield f"Trace ({self.note}):"
            yield "\n".join(
                f"{'|' if s.kept else ' '} {s.text.strip()}" + "".join(f"  <- {probe}" for probe in s.probes)
                for s in self.trace
            )
        for row in self.rows:
            head = ", ".join(text if name in ("arm", "grade") else f"{name} {text}" for name, text in _head(row))
            yield f"[{head}]\n{row['text']}"

    def _repr_html_(self) -> str:
        # Jupyter typesets dollars as mathematics except in this class: a text is shown as it was written
        return f'<div class="tex2jax_ignore" style="max-width:62rem">{"".join(self._html())}</div>'

    def _html(self) -> Iterator[str]:
        yield f"<p><b>{_safe(self.title)}</b></p>{_text(self.question)}"
        facts = {"Gold answer": self.answer, **self.facts}
        yield f"<p>{'<br>'.join(f'{_safe(name)}: <b>{_safe(text)}</b>' for name, text in facts.items())}</p>"
        if self.trace:
            yield _text_of("".join(map(_sentence, self.trace)))
            yield f"<p><small>{_safe(self.note)}</small></p>"
        if self.rows:
            names = "".join(f'<th style="{CELL}">{_safe(name)}</th>' for name in self.rows[0])
            rows = "".join(f"<tr>{''.join(_cell(name, text) for name, text in row.items())}</tr>" for row in self.rows)
            yield f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"


def _head(row: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in row.items() if name != "text" and text]


def _safe(text: str) -> str:
    return escape(visible(text))


def _text(text: str) -> str:
    return _text_of(_safe(text))


def _text_of(html: str) -> str:
    return f'<div style="white-space:pre-wrap;margin:.5rem 0">{html}</div>'


def _badge(text: str, good: bool) -> str:
    style = f"background:{GOOD if good else BAD};border-radius:.3rem;padding:0 .3rem"
    return f'<span style="{style}">{_safe(text)}</span>'


def _sentence(sentence: Sentence) -> str:
    text = _safe(sentence.text)
    if sentence.kept:
        text = f'<mark style="background:{KEPT};color:inherit">{text}</mark>'
    badges = "".join(_badge(probe, probe.split()[1] in GOOD_WORDS) for probe in sentence.probes)
    return text + (f" <small>{badges}</small> " if badges else "")


def _cell(name: str, text: str) -> str:
    if name == "grade":
        return f'<td style="{CELL}">{_badge(text, text.split(",")[0] in GOOD_WORDS)}</td>'
    if name == "text":
        return f'<td style="{CELL};white-space:pre-wrap">{_safe(text)}</td>'
    return f'<td style="{CELL};white-space:nowrap">{_safe(text)}</td>'
