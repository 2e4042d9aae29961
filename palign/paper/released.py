"""The authors' released outputs: responses with labels, graded again and counted.

A row is a problem: ``answer``, ``output`` (its responses) and ``label`` (1 where a response was graded right). The
tables hold counts and lengths, never the text of a response. Where no outputs are given, tables and figures are
``None`` and texts empty, so that the notebook runs without them.

>>> accuracy(load(Audit(released="outputs.jsonl")))
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from .. import behaviour
from ..grading import grade_all
from ..params import is_empty, resolve
from ..problems import DataError, gold_answer, load_rows
from . import figures, printed, verdicts

if TYPE_CHECKING:
    import matplotlib.pyplot as plt

COLUMNS = ("answer", "output", "label")
BUDGET = 4096
"""The longest response in tokens, by the released script."""

CLOSED = re.compile(r"<End_of_(?:Draft|Prefix)>")
OPENED = re.compile(r"<Begin_of_(?:Draft|Prefix)>")
DOUBLED = re.compile(r"(?<!\.)\.\.(?!\.)")  # exactly two full stops: three are an ellipsis
OUTCOMES = ["right", "wrong", "no box", "unparseable", "timed out"]


@dataclass(frozen=True)
class Released:
    """``responses``: one row per response, with what was counted in it. ``source``: a name and a hash, never a path."""

    source: str
    benchmark: str
    student: str
    responses: pd.DataFrame

    @property
    def samples(self) -> int:
        """Responses per problem."""
        return int(self.responses["sample"].max())


def read(audit: printed.Audit) -> list[dict]:
    """The rows as they are in the file, checked: ``answer``, ``output``, ``label``.

    Raises :class:`palign.problems.DataError`, in one line, for a file that cannot be read or has other columns.
    """
    path = Path(resolve(audit.released))
    if path.is_file() and is_empty(path):
        raise DataError(f"{audit.released}: empty; it needs a row for each problem: {', '.join(COLUMNS)}")
    try:
        rows, _ = load_rows(audit.released, audit.released_split, None, {name: name for name in COLUMNS})
    except DataError as error:  # its advice is for a study: the audit has no params file to name columns in
        raise DataError(str(error).removesuffix("; name them in the params")) from None
    for number, row in enumerate(rows, start=1):
        _check(row, number, audit.released)
    lengths = {len(row["output"]) for row in rows}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"{audit.released}: every row needs the same number of responses, and at least one")
    return rows


def load(audit: printed.Audit) -> Released | None:
    """Read and grade the released outputs; ``None`` where none are given. Raises as :func:`read` does."""
    if audit.released is None:
        return None
    found = []
    for number, row in enumerate(read(audit), start=1):
        found += [
            {
                "problem": number,
                "sample": sample,
                "gold": gold_answer(row["answer"]),
                "text": text,
                "label": bool(label),
            }
            for sample, (text, label) in enumerate(zip(row["output"], row["label"], strict=True), start=1)
        ]
    table = pd.DataFrame(found)
    grades = grade_all(table["text"].tolist(), table["gold"].tolist(), lenient=True)
    table = table.join(pd.DataFrame([_form(text) for text in table["text"]]))
    table = table.assign(strict=[g.outcome for g in grades], lenient=[g.lenient for g in grades])
    table = table.drop(columns=["text", "gold"])
    return Released(_source(audit.released), audit.released_benchmark, audit.released_student, table)


def _source(data: str) -> str:
    """A hub id as it is, a local file by name and hash, a folder by name: a path means nothing to other readers."""
    path = Path(resolve(data))
    if path.is_file():
        return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return path.resolve().name if path.is_dir() else data


def _check(row: dict, number: int, data: str) -> None:
    output, label = row["output"], row["label"]
    lists = isinstance(output, list) and isinstance(label, list)
    if not lists or not all(isinstance(text, str) for text in output) or not all(value in (0, 1) for value in label):
        raise DataError(f"{data}: row {number}: output must be a list of texts and label a list of 0 and 1")
    if len(output) != len(label) or gold_answer(row["answer"]) is None:
        raise DataError(f"{data}: row {number}: {len(output)} outputs, {len(label)} labels, answer {row['answer']!r}")


def _form(text: str) -> dict:
    """What is counted in a response.

    ``chars``: its length in characters. ``marker``: what opens the prefix block, or empty. ``closed``: whether the
    block is closed. ``draft``: the share of the response between the markers, ``nan`` where the block is not closed.
    ``doubled``, ``doubled_after``: doubled full stops in the response, and after the block. ``loop``: see
    :func:`palign.behaviour.loops`.
    """
    start, end = OPENED.match(text.lstrip()), CLOSED.search(text)
    return {
        "chars": len(text),
        "marker": start[0] if start else "",
        "closed": end is not None,
        "draft": (end.start() - _opening(text)) / len(text) if end else float("nan"),
        "doubled": len(DOUBLED.findall(text)),
        "doubled_after": len(DOUBLED.findall(text, end.end())) if end else 0,
        "loop": behaviour.loops(text),
    }


def _opening(text: str) -> int:
    """Where the draft begins: after its marker if there is one, else at the first character that is not a space."""
    start = OPENED.match(text.lstrip())
    return len(text) - len(text.lstrip()) + start.end() if start else 0


def finding(released: Released | None) -> str:
    """What the outputs show, for the first screen."""
    if released is None:
        return ""
    table = released.responses
    right, unboxed = _without_box(table)
    problems = table["problem"].max()
    return (
        f"The released outputs hold {len(table)} responses to {problems} problem{'' if problems == 1 else 's'} of "
        f"{released.benchmark}. By a grade that asks for no box, {_agree(table)} of {len(table)} get the label "
        f"that was released with them. Of the {right} labelled right, {unboxed} have no final answer in a box. "
        f"Of all {len(table)}, {(~table['closed']).sum()} never close the prefix block, the draft before the solution."
    )


def _agree(table: pd.DataFrame) -> int:
    """How many responses have the released label by lenient grade too."""
    return int((table["label"] == (table["lenient"] == "right")).sum())


def _without_box(table: pd.DataFrame) -> tuple[int, int]:
    """How many responses are labelled right, and how many of these have no box."""
    return int(table["label"].sum()), int((table["label"] & (table["strict"] == "no box")).sum())


def about(released: Released | None) -> str:
    """What was read."""
    if released is None:
        return ""
    table = released.responses
    return (
        f"{released.source}: {table['problem'].max()} problems (of {printed.SIZES[released.benchmark]} in "
        f"{released.benchmark}) with {released.samples} responses each, taken to be those of {released.student} after "
        "P-ALIGN."
    )


def accuracy(released: Released | None) -> pd.DataFrame | None:
    """Percent right by strict grade, lenient grade and released label: each sample, their mean, any of them.

    ``printed``: Table 1's number for P-ALIGN: Pass@1, and for any of three samples Pass@3.
    """
    if released is None:
        return None
    table = released.responses
    marks = pd.DataFrame(
        {"strict": table["strict"] == "right", "lenient": table["lenient"] == "right", "released label": table["label"]}
    )
    rows = {f"sample {k}": marks[table["sample"] == k].mean() for k in range(1, released.samples + 1)}
    rows |= {"mean of them": marks.mean(), "any of them": marks.groupby(table["problem"]).any().mean()}
    shown = pd.DataFrame(rows).T.mul(100).astype(float)
    cell = printed.accuracy().query(
        "table == 'table1' and arm == 'p-align' and student == @released.student and benchmark == @released.benchmark"
    )
    by_metric = dict(zip(cell["metric"], cell["percent"], strict=True))
    shown["printed"] = by_metric["pass@1"]
    shown.loc["any of them", "printed"] = by_metric["pass@3"] if released.samples == 3 else float("nan")
    return shown.rename_axis("right (%)").round(2)


def accuracy_text(released: Released | None) -> str:
    """Which samples, by which grade, give the printed number."""
    if released is None:
        return ""
    shown, table = accuracy(released), released.responses
    one = shown.drop(index=["any of them", "mean of them"])
    hits = [name for name in one.index if abs(one.loc[name, "released label"] - one.loc[name, "printed"]) < 0.01]
    mean = shown.loc["mean of them"]
    return (
        f"The lenient grade equals the released label in {_agree(table)} of {len(table)} responses. By the labels, "
        f"{' and '.join(hits) if hits else 'no single sample'} {'each give' if len(hits) > 1 else 'gives'} the printed "
        f"Pass@1 of {mean['printed']:.2f} %; the mean is {mean['released label']:.2f} %, and {mean['strict']:.2f} % if "
        "a response must box its answer."
    )


def labels(released: Released | None) -> pd.DataFrame | None:
    """One row per strict outcome: how many responses, and how many of these are right by label and by lenient grade."""
    if released is None:
        return None
    table = released.responses
    rows = pd.DataFrame(
        {"responses": 1, "label right": table["label"].astype(int), "lenient right": (table["lenient"] == "right") * 1}
    )
    counts = rows.groupby(table["strict"]).sum()
    counts = counts.reindex([outcome for outcome in OUTCOMES if outcome in counts.index])
    return pd.concat([counts, counts.sum().to_frame("all").T]).rename_axis("last box")


def labels_text(released: Released | None) -> str:
    """How many responses labelled right have no final answer."""
    if released is None:
        return ""
    right, unboxed = _without_box(released.responses)
    return (
        f"{unboxed} of the {right} responses labelled right have no final answer in a box: a grader that counts them "
        "takes a number from the running text."
    )


def form(released: Released | None) -> pd.DataFrame | None:
    """Lengths, doubled full stops, loops and labels: of responses that close the prefix block, that do not, of all."""
    if released is None:
        return None
    table = released.responses
    groups = {"closed": table[table["closed"]], "never closed": table[~table["closed"]], "all": table}
    columns = {
        name: {
            "responses": str(len(part)),
            "share": _percent(len(part) / len(table)),
            "characters, median": f"{part['chars'].median():,.0f}" if len(part) else "",
            "characters, longest": f"{part['chars'].max():,}" if len(part) else "",
            "draft's share, median": _percent(part["draft"].median()),
            "draft's share, mean": _percent(part["draft"].mean()),
            "doubled full stops": f"{part['doubled'].sum():,}",
            "of these after the draft": f"{part['doubled_after'].sum():,}" if name == "closed" else "",
            "in a loop": str(part["loop"].sum()),
            "label right": str(part["label"].sum()),
        }
        for name, part in groups.items()
    }
    columns["never closed"] |= {"draft's share, median": "", "draft's share, mean": ""}
    columns["all"] |= {"draft's share, median": "", "draft's share, mean": ""}
    return pd.DataFrame(columns).rename_axis("prefix block")


def _percent(share: float) -> str:
    return "" if pd.isna(share) else f"{100 * share:.1f} %"


def form_text(released: Released | None) -> str:
    """The finding on the form of the responses."""
    if released is None:
        return ""
    table = released.responses
    low, high = printed.wilson(table["closed"].mean(), len(table))
    opened = table.loc[table["marker"] != "", "marker"].value_counts()
    markers = " and ".join(f"{count} open with `{marker}`" for marker, count in opened.items()) or "none opens a block"
    closed = table[table["closed"]]
    return (
        f"Of {len(table)} responses {markers}; {len(closed)} close it ({100 * table['closed'].mean():.0f} %, 95 % "
        f"interval [{100 * low:.0f}, {100 * high:.0f}] if responses were independent). "
        f"{(table['doubled'] > 0).sum()} hold doubled full stops, {table['doubled'].sum():,} in all (ellipses not "
        f"counted); where the block is closed, {closed['doubled_after'].sum():,} of {closed['doubled'].sum():,} stand "
        f"after it.{_draft(released)}"
    )


def _draft(released: Released) -> str:
    """The draft's share of the responses that close it, beside the prefix's share of what the paper trains on."""
    share = released.responses["draft"].median()
    if pd.isna(share):
        return ""
    return (
        f" The draft makes up {100 * share:.1f} % of such a response in the median; in Table 4 the prefix makes up "
        f"{verdicts.lengths().loc[released.student, 'prefix_of_target']:.1f} % of the training target."
    )


def budget(released: Released | None) -> pd.DataFrame | None:
    """How many responses are longer than the stated budget, by the number of characters that a token holds."""
    if released is None:
        return None
    chars = released.responses["chars"]
    rows = [
        {
            "characters per token": k,
            f"{BUDGET:,} tokens hold": f"{k * BUDGET:,} characters",
            "longer responses": int((chars > k * BUDGET).sum()),
        }
        for k in (3, 4, 6, 8, 12, 24)
    ]
    table = pd.DataFrame(rows).set_index("characters per token")
    return table.assign(**{"share (%)": (100 * table["longer responses"] / len(chars)).round(1)})


def budget_text(released: Released | None) -> str:
    """The lengths of the responses, compared with the stated budget."""
    if released is None:
        return ""
    chars = released.responses["chars"]
    return (
        f"The released script allows {BUDGET:,} tokens per response. The median response has {chars.median():,.0f} "
        f"characters, the longest {chars.max():,}. The longest fits into {BUDGET:,} tokens only if a token holds "
        f"{chars.max():,} / {BUDGET:,} = {chars.max() / BUDGET:.1f} characters. {(chars > 100_000).sum()} responses "
        "exceed 100,000 characters."
    )


def lengths_figure(released: Released | None) -> plt.Figure | None:
    """:func:`palign.paper.figures.released_lengths` of the responses."""
    return None if released is None else figures.released_lengths(released.responses, BUDGET)


def explanations(released: Released | None) -> str:
    """Innocent explanations of these findings."""
    if released is None:
        return ""
    return (
        "*Innocent explanations*: the released outputs may come from another run than the table's, with a larger "
        "budget and other training data. Doubled full stops arise where sentences that end in one are joined by "
        "another. A lenient grader that is applied to all arms alike need not favour one."
    )
