"""Teacher traces, and their splitting into sentences (paper section 3, Eq. 3; PAPER.md section 2, step 1).

>>> split("Add two. Now five. Done")
['Add two.', 'Now five.', 'Done.']
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from . import overlap, problems
from .tasks import plan
from .engines.base import Sampling, generate, seed_of
from .engines.opening import open_engine
from .params import Params
from .prompts import CONTROL, MARKERS, fill, render

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trace:
    """A teacher's chain of thought for one training problem, with the gold answer that travels with it.

    ``sufficient_chars`` is the length of the shortest truly sufficient prefix in characters, where a data set
    knows it (the pocket world does; no real one can).
    """

    id: str
    question: str
    answer: str
    trace: str
    sufficient_chars: int | None = None


def split(text: str) -> list[str]:
    """Sentences by the released code's rule: cut at ". ", strip, put the full stop back. Empty pieces vanish."""
    pieces = [piece.strip() for piece in text.split(". ")]
    return [piece if piece.endswith(".") else f"{piece}." for piece in pieces if piece]


# A sentence's end: its mark, whatever closes behind it, and white space; or an empty line.
# Tried at the start of a run of marks or of white space alone: from each place in a long one it would take for ever.
_END = re.compile(
    r"(?<![.!?\u3002\uff01\uff1f])[.!?\u3002\uff01\uff1f]+(?:[\"'\u2019\u201d)\]}*`$]|\s*\\[\])])*\s+"
    r"|(?<!\s)\s*\n\s*\n\s*"
)
# Full stops that end no sentence: an abbreviation, an initial, the number of a list's line.
_NO_END = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|resp|approx|Eqs?|Figs?|Thms?|Nos?|Dr|Mrs?|Ms|Prof|St)|\b[A-Z]|^\s*\d+)\.\s$", re.M
)


def split_reversibly(text: str) -> list[str]:
    """Sentences whose concatenation is ``text``, byte for byte: each keeps its mark and the white space behind it.

    Cuts after full stops, question and exclamation marks that white space follows, and at empty lines. Decimals hold
    no white space; common abbreviations, initials and list numbers are passed over.
    """
    cuts = [
        match.end()
        for match in _END.finditer(text)
        if "\n" in match[0] or not _NO_END.search(text, max(0, match.start() - 12), match.start() + 2)
    ]
    bounds = [0, *(cut for cut in cuts if cut < len(text)), len(text)]
    return [text[a:b] for a, b in pairwise(bounds) if a < b]


def join(sentences: Sequence[str]) -> str:
    """A prefix as text: kept sentences with one space between."""
    return " ".join(sentences)


@dataclass(frozen=True)
class Rule:
    """How a trace is taken apart into sentences, and a prefix put together from some."""

    split: Callable[[str], list[str]]
    join: Callable[[Sequence[str]], str]


RULES = {"released": Rule(split, join), "reversible": Rule(split_reversibly, "".join)}


def sufficient_sentences(trace: Trace, rule: Rule = RULES["released"]) -> int | None:
    """The oracle prefix in sentences: the fewest whose text reaches ``sufficient_chars``."""
    if trace.sufficient_chars is None:
        return None
    sentences = rule.split(trace.trace)
    for count in range(1, len(sentences)):
        if len(rule.join(sentences[:count])) >= trace.sufficient_chars:
            return count
    return len(sentences)


@plan.held(plan.traces)
def collect(params: Params) -> list[Trace]:
    """The study's training problems with their traces, from the data set or, where ``teacher`` is set, from a model.

    A row without a question, an answer or a trace cannot be used (Eq. 9 needs the gold answer); it is left out and
    counted by reason in the manifest. So is, with ``drop_overlap``, a question that a test question repeats in part,
    and, with ``teacher_cut: exclude``, one whose trace the budget cut off. Resumes a teacher's work after a kill.
    Raises ``DataError`` when nothing is left.
    """
    task = plan.traces(params)
    if not task.folder.done:
        _collect(params, task)  # apart, so that what it holds is let go before the traces are loaded
    return load(params)


def _collect(params: Params, task: plan.Task) -> None:
    own = {"trace", "sufficient_chars"} if params.teacher else set()  # the data set's trace, which is not wanted
    rows, commit = problems.load_rows_of(
        params.training_data,
        params.training_split,
        params.training_revision,
        {ours: theirs for ours, theirs in params.training_columns.items() if ours not in own},
    )
    rows = problems.identify(rows[: params.training_limit], params.training_data)
    golds = {row["id"]: _gold(params, row["answer"]) for row in rows}
    kept, excluded = [], []
    for row in rows:
        answer, kind = golds[row["id"]]
        absent = "no answer" if kind == "empty" else "no answer stated in the solution"
        reasons = {"no question": row["question"], absent: answer, "no trace": row.get("trace", params.teacher)}
        reason = next((why for why, value in reasons.items() if not (value or "").strip()), None)
        if reason:
            excluded.append({"id": row["id"], "reason": reason})
        else:
            kept.append(Trace(row["id"], row["question"], answer, row.get("trace"), row.get("sufficient_chars")))
    if params.drop_overlap:
        tests = [record["question"] for record in plan.benchmarks(params).require().read("problems")]
        found = overlap.shared_ngrams([trace.question for trace in kept], tests, params.drop_overlap)
        shared = {kept[index].id for index, *_ in found}
        excluded += [
            {"id": i, "reason": f"shares {params.drop_overlap} words with a test question"} for i in sorted(shared)
        ]
        kept = [trace for trace in kept if trace.id not in shared]
    facts = {"data_revisions": {params.training_data: commit}} if commit else {}
    if params.teacher and kept:
        kept, failed, costs = _teach(params, task, kept)
        excluded, facts = excluded + failed, facts | costs
    counts = dict(Counter(record["reason"] for record in excluded))
    if not kept:
        raise problems.DataError(f"{params.training_data}: no usable row of {len(rows)}: {counts}")
    task.folder.write("traces", map(asdict, kept))
    task.folder.write("excluded", excluded)
    kinds = Counter(kind for _, kind in golds.values())
    task.finish(
        rows=len(rows), kept=len(kept), excluded=counts, answers=dict(kinds), broken=count_broken(kept), **facts
    )


def count_broken(items: Sequence[Trace]) -> dict[str, int]:
    """Training problems whose question, answer or trace holds a control token, and a prefix marker: ``palign.prompts``
    breaks both. By the control tokens in common use; the student's own vocabulary decides what is broken.
    """
    patterns = {"control tokens": CONTROL, "prefix markers": MARKERS}
    counts = dict.fromkeys(patterns, 0)
    for item in items:
        text = "\x00".join((item.question, item.answer, item.trace))
        for what, pattern in patterns.items():
            counts[what] += bool(pattern.search(text))
    return counts


def _gold(params: Params, value: object) -> tuple[str | None, str]:
    """The gold answer of a row and its kind, for the manifest's count."""
    answer, kind = (
        problems.solution_answer(value)
        if params.training_answers == "solution"
        else (problems.gold_answer(value), "given")
    )
    return answer, "empty" if problems.gold_answer(value) is None else kind


def thoughts(text: str) -> str:
    """The thinking part of a reasoning model's reply; the whole reply where it marks none.

    Some chat templates open the block in the prompt, so its opening mark may be missing.

    >>> thoughts("<think>One and one. Two.</think>The answer is 2.")
    'One and one. Two.'
    """
    head, mark, _ = text.partition("</think>")
    return (head if mark else text).strip().removeprefix("<think>").strip()


def _teach(params: Params, task: plan.Task, items: list[Trace]) -> tuple[list[Trace], list[dict], dict]:
    """The teacher's traces for ``items``, those left out with the reason, and what it cost (Table 8)."""
    student = {
        "student": params.teacher,
        "student_revision": params.teacher_revision,
        "dtype": params.teacher_dtype,
        "chat_template_kwargs": params.teacher_chat_template_kwargs,
        "max_model_len": params.teacher_max_model_len,
    }
    # the engine opens "the student": here that is the teacher
    engine = open_engine(params.model_copy(update=student))
    sampling = Sampling(params.teacher_max_new_tokens, params.teacher_temperature, params.teacher_top_p)

    def work(batch: list[Trace]) -> list[dict]:
        prompts = [
            render(
                engine.tokenizer,
                fill(params.teacher_prompt, question=item.question),
                params.teacher_chat_template_kwargs,
            )
            for item in batch
        ]
        seeds = [seed_of(params.seed, "teacher", item.id) for item in batch]
        return [
            {
                "id": item.id,
                "text": completion.text,
                "finish": completion.finish,
                "prompt_tokens": completion.prompt_tokens,
                "new_tokens": completion.new_tokens,
            }
            | completion.why
            for item, completion in zip(batch, generate(engine, prompts, sampling, seeds), strict=True)
        ]

    records = task.folder.fill("generated", items, lambda item: item.id, work, params.batch_size, "teacher traces")
    reasons = {"prompt too long": "question too long for the teacher"}
    reasons |= {"endpoint error": "the endpoint failed", "engine error": "the engine failed"}
    if params.teacher_cut == "exclude":
        reasons["length"] = f"trace cut at {params.teacher_max_new_tokens} tokens"
    kept, failed = [], []
    for item, record in zip(items, records, strict=True):
        trace = thoughts(record["text"])
        reason = reasons.get(record["finish"]) or (None if trace else "no trace")
        if reason:
            failed.append({"id": item.id, "reason": reason})
        else:
            kept.append(replace(item, trace=trace))
    costs = {
        "engine": engine.settings,
        "traces_cut": sum(record["finish"] == "length" for record in records),
        "tokens_read": sum(record["prompt_tokens"] for record in records),
        "tokens_generated": sum(record["new_tokens"] for record in records),
    }
    return kept, failed, costs


def account(params: Params) -> pd.DataFrame:
    """What became of the training rows, and how their gold answers stood: counts of rows, for the reader."""
    import pandas as pd

    manifest = plan.traces(params).require().manifest()
    rows = [("rows", "kept", manifest["kept"])]
    rows += [("rows", f"left out: {reason}", count) for reason, count in manifest["excluded"].items()]
    rows += [("answers", kind, count) for kind, count in sorted(manifest["answers"].items())]
    rows += [("text", f"{what} broken", count) for what, count in manifest.get("broken", {}).items() if count]
    if params.teacher:
        rows.append(("teacher", f"cut at the budget ({params.teacher_cut})", manifest["traces_cut"]))
    table = pd.DataFrame(rows, columns=["of", "what", "count"])
    return table.assign(share=(table["count"] / manifest["rows"]).round(3)).set_index(["of", "what"])


def load(params: Params) -> list[Trace]:
    """The collected traces. Raises ``TaskMissing`` before :func:`collect`."""
    return [Trace(**record) for record in plan.traces(params).require().read("traces")]


def lengths(params: Params) -> pd.DataFrame:
    """Sentences, characters and student tokens of every trace."""
    import pandas as pd

    from .engines.tokenizers import load_tokenizer

    tokenizer, texts = load_tokenizer(params), [trace.trace for trace in load(params)]
    return pd.DataFrame(
        {
            "sentences": [len(RULES[params.sentence_rule].split(text)) for text in texts],
            "characters": [len(text) for text in texts],
            "tokens": [len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids],
        }
    )


def fits(params: Params, lengths: pd.DataFrame) -> pd.DataFrame:
    """The share of traces that a response budget holds whole, from the lengths alone: known before any training."""
    import pandas as pd

    budgets = [budget for budget in (params.max_new_tokens, params.second_budget) if budget]
    shares = [(lengths["tokens"] < budget).mean() for budget in budgets]
    return pd.DataFrame({"response budget (tokens)": budgets, "share of traces that fit": shares}).round(3)
