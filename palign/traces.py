"""Teacher traces, and how they are split into sentences (paper section 3, Eq. 3).

>>> split("Add two. Now five. Done")
['Add two.', 'Now five.', 'Done.']
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from . import overlap, problems
from .engines.base import Engine, Sampling, seed_of, stream
from .engines.opening import open_engine
from .params import Machine, Params
from .prompts import CONTROL, MARKERS, fill
from .tasks.plan import Plan, held

TEACHER_TEMPERATURE, TEACHER_TOP_P = 0.6, 0.95
"""How a teacher's traces are sampled. The paper does not say; the authors of DeepSeek-R1 recommend these values."""


REPEATED = "repeats an earlier question"
"""Why a training row is left out, in the manifest."""


@dataclass(frozen=True)
class Trace:
    """A teacher's chain of thought for one training problem, with the problem's gold answer.

    ``sufficient_chars``: characters of the shortest prefix that is truly sufficient, if the data state it (the pocket
    world's do; real data cannot).
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


# The end of a sentence: its mark, closing brackets and quotes, and white space; or an empty line.
# It only matches at the start of a run of marks or of white space: trying every place in a long run is quadratic.
_END = re.compile(
    r"(?<![.!?\u3002\uff01\uff1f])[.!?\u3002\uff01\uff1f]+(?:[\"'\u2019\u201d)\]}*`$]|\s*\\[\])])*\s+"
    r"|(?<!\s)\s*\n\s*\n\s*"
)
# Full stops that do not end a sentence: of an abbreviation, of an initial, of a numbered line.
_NO_END = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|resp|approx|Eqs?|Figs?|Thms?|Nos?|Dr|Mrs?|Ms|Prof|St)|\b[A-Z]|^\s*\d+)\.\s$", re.M
)


def split_reversibly(text: str) -> list[str]:
    """Sentences whose concatenation is ``text``, byte for byte: each keeps its mark and the white space after it.

    Cuts at empty lines, and after full stops, question marks and exclamation marks that are followed by white space
    (so not in decimals), except after common abbreviations, initials and list numbers.
    """
    cuts = [
        match.end()
        for match in _END.finditer(text)
        if "\n" in match[0] or not _NO_END.search(text, max(0, match.start() - 12), match.start() + 2)
    ]
    bounds = [0, *(cut for cut in cuts if cut < len(text)), len(text)]
    return [text[a:b] for a, b in pairwise(bounds) if a < b]


def join(sentences: Sequence[str]) -> str:
    """A prefix as text: its sentences with one space between them."""
    return " ".join(sentences)


@dataclass(frozen=True)
class Rule:
    """How a trace is split into sentences, and how sentences are joined to a prefix."""

    split: Callable[[str], list[str]]
    join: Callable[[Sequence[str]], str]


RULES = {"released": Rule(split, join), "reversible": Rule(split_reversibly, "".join)}


def sufficient_sentences(trace: Trace, rule: Rule = RULES["released"]) -> int | None:
    """Sentences of the oracle prefix, the fewest whose text reaches ``sufficient_chars``; ``None`` where unknown."""
    if trace.sufficient_chars is None:
        return None
    sentences = rule.split(trace.trace)
    for count in range(1, len(sentences)):
        if len(rule.join(sentences[:count])) >= trace.sufficient_chars:
            return count
    return len(sentences)


@held("traces")
def collect(params: Params) -> list[Trace]:
    """The study's training problems with their traces, from the data set or, where ``teacher`` is set, from a model.

    A row without a question, an answer or a trace cannot be used (Eq. 9 needs the gold answer). Such rows are left out
    and counted by reason in the manifest, and so are rows that repeat an earlier row's question. Questions that stand
    in a benchmark word for word stay: ``palign.supervision`` trains on none of them. With ``drop_overlap``, questions
    that share that many words in a row with a test question are left out too; with a teacher, problems whose trace
    reached the token budget. Resumes a teacher's work after a kill. Raises ``DataError`` when no row is left.
    """
    plan = Plan(params)
    task = plan.traces
    if task.folder.done:
        return load(params)
    own = {"trace", "sufficient_chars"} if params.teacher else set()  # of the data set's traces, which are not used
    columns = {ours: theirs for ours, theirs in params.training_columns.items() if ours not in own}
    rows, commit = problems.load_rows(params.training_data, params.training_split, params.training_revision, columns)
    rows = rows[: params.training_limit]
    different, repeats = problems.without_repeats(rows)
    different = problems.identify(different, params.training_data)
    golds = {row["id"]: _gold(row["answer"], params.training_answers) for row in different}
    kept, excluded = _usable(different, golds)
    excluded += [_repeat(row) for row in repeats]
    if params.drop_overlap:
        tests = [record["question"] for record in plan.benchmarks.read("problems")]
        kept, shared = _without_overlap(kept, tests, params.drop_overlap)
        excluded += shared
    facts = {"data_revisions": {params.training_data: commit}} if commit else {}
    if params.teacher and kept:
        engine = open_engine(params.model("teacher"), params.part(Machine))
        sampling = Sampling(params.teacher_max_new_tokens, TEACHER_TEMPERATURE, TEACHER_TOP_P)

        def work(batch: list[Trace]) -> Iterator[dict]:
            return _generated(engine, batch, params.answer_prompt, sampling, params.seed)

        records = task.folder.fill("generated", kept, lambda item: item.id, work, "teacher traces")
        kept, failed = _taught(kept, records, params.teacher_max_new_tokens)
        excluded += failed
        facts |= {
            "engine": engine.settings,
            "traces_cut": sum(record["finish"] == "length" for record in records),
            "tokens_read": sum(record["prompt_tokens"] for record in records),
            "tokens_generated": sum(record["new_tokens"] for record in records),
        }
    counts = dict(Counter(record["reason"] for record in excluded))
    if not kept:
        raise problems.DataError(f"{params.training_data}: no usable row of {len(rows)}: {counts}")
    task.folder.write("traces", map(asdict, kept))
    task.folder.write("excluded", excluded)
    kinds = Counter(kind for _, kind in golds.values())
    task.finish(
        rows=len(rows), kept=len(kept), excluded=counts, answers=dict(kinds), broken=count_broken(kept), **facts
    )
    return kept


def load(params: Params) -> list[Trace]:
    """The collected traces. Raises ``TaskMissing`` before :func:`collect`."""
    return [Trace(**record) for record in Plan(params).traces.read("traces")]


def sample(items: Sequence[Trace], count: int, seed: int) -> list[Trace]:
    """``count`` of the traces (all, if there are fewer), drawn at random, in the order drawn: a larger sample begins
    with the smaller one.
    """
    return random.Random(seed).sample(items, len(items))[:count]


def _gold(value: object, column: str) -> tuple[str | None, str]:
    """The gold answer of a row, and its kind for the manifest. ``column``: what ``training_answers`` says it holds."""
    answer = problems.gold_answer(value)
    if answer is None:
        return None, "empty"
    return problems.solution_answer(value) if column == "solution" else (answer, "given")


def _usable(rows: list[dict], golds: dict[str, tuple[str | None, str]]) -> tuple[list[Trace], list[dict]]:
    """Rows as traces, and those left out with the reason. Rows for a teacher have no ``trace`` column."""
    kept, excluded = [], []
    for row in rows:
        answer, kind = golds[row["id"]]
        absent = "no answer" if kind == "empty" else "no answer stated in the solution"
        needed = {"no question": row["question"], absent: answer}
        needed |= {"no trace": row["trace"]} if "trace" in row else {}
        reason = next((why for why, value in needed.items() if not (value or "").strip()), None)
        if reason:
            excluded.append({"id": row["id"], "reason": reason})
        else:
            kept.append(Trace(row["id"], row["question"], answer, row.get("trace"), row.get("sufficient_chars")))
    return kept, excluded


def _repeat(row: dict) -> dict:
    question = (row["question"] or "").strip()
    return {"id": problems.asked(question), "reason": REPEATED if question else "no question"}


def _without_overlap(items: list[Trace], tests: list[str], words: int) -> tuple[list[Trace], list[dict]]:
    """The traces whose question shares no ``words`` words in a row with a test question; the others with the reason."""
    found = overlap.shared_ngrams([item.question for item in items], tests, words)
    shared = {items[index].id for index, *_ in found}
    excluded = [{"id": i, "reason": f"shares {words} words with a test question"} for i in sorted(shared)]
    return [item for item in items if item.id not in shared], excluded


def count_broken(items: Sequence[Trace]) -> dict[str, int]:
    """How many training problems hold a control token, and how many hold a prefix marker, in question, answer or trace.

    ``palign.prompts`` breaks both. Control tokens are counted by the list of those in common use, although the
    student's own vocabulary decides which are broken.
    """
    patterns = {"control tokens": CONTROL, "prefix markers": MARKERS}
    counts = dict.fromkeys(patterns, 0)
    for item in items:
        text = "\x00".join((item.question, item.answer, item.trace))
        for what, pattern in patterns.items():
            counts[what] += bool(pattern.search(text))
    return counts


def thoughts(text: str) -> str:
    """The thinking part of a reasoning model's reply; the whole reply where no part is marked.

    Some chat templates open the block in the prompt, so the opening mark may be missing.

    >>> thoughts("<think>One and one. Two.</think>The answer is 2.")
    'One and one. Two.'
    """
    head, mark, _ = text.partition("</think>")
    return (head if mark else text).strip().removeprefix("<think>").strip()


def _generated(engine: Engine, batch: list[Trace], instruction: str, sampling: Sampling, seed: int) -> Iterator[dict]:
    """The teacher's replies to problems, as records, in the order in which they finish."""
    prompts = [engine.prompt(fill(instruction, question=item.question)) for item in batch]
    seeds = [seed_of(seed, "teacher", item.id) for item in batch]
    for i, completion in stream(engine, prompts, sampling, seeds):
        yield {"id": batch[i].id, "text": completion.text} | completion.facts


def _taught(items: list[Trace], records: list[dict], budget: int) -> tuple[list[Trace], list[dict]]:
    """The problems with the teacher's traces, and those left out with the reason.

    A trace that reached the budget is left out: it ends before its answer.
    """
    reasons = {
        "prompt too long": "question too long for the teacher",
        "endpoint error": "the endpoint failed",
        "engine error": "the engine failed",
        "length": f"trace cut at {budget} tokens",
    }
    kept, failed = [], []
    for item, record in zip(items, records, strict=True):
        trace = thoughts(record["text"])
        reason = reasons.get(record["finish"]) or (None if trace else "no trace")
        if reason:
            failed.append({"id": item.id, "reason": reason})
        else:
            kept.append(replace(item, trace=trace))
    return kept, failed
