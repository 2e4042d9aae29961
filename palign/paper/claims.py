"""The paper's claims as data: each in our words, with its place in the paper and the rule that tests it.

The arms have the names of ``accuracy.csv``, which are a study's own, so the same claims can be tested on a study's
results.

>>> [claim.id for claim in CLAIMS if claim.worse == "upft"]
['over-upft', 'students-over-upft']
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAIN = ("Qwen2.5-7B-Instruct", "Qwen3-8B")
"""The students of Tables 1, 2, 6 and 8."""

OTHERS = ("Llama3.2-3B-Instruct", "Qwen3-14B")
"""The students of Table 9."""

Rule = Literal["difference", "calls", "retention", "untestable"]


@dataclass(frozen=True)
class Claim:
    """One claim. ``source`` is a key of ``palign.paper.printed.SOURCES``.

    ``rule``: ``difference`` compares the arms ``better`` and ``worse`` in the average over benchmarks, in every setting
    (student, teacher, metric); ``calls`` and ``retention`` have rules of their own in ``palign.paper.verdicts``; for
    ``untestable``, ``lacking`` says what would have to be published. ``caveat``: what to know before reading the
    verdict.
    """

    id: str
    statement: str
    source: str
    better: str | None = None
    worse: str | None = None
    metrics: tuple[str, ...] = ("pass@1", "pass@3")
    students: tuple[str, ...] = MAIN
    teachers: tuple[str, ...] = ("DeepSeek-R1",)
    rule: Rule = "difference"
    lacking: str = ""
    caveat: str = ""


CLAIMS = (
    Claim("over-zero-shot", "P-ALIGN improves the student", "table1", "p-align", "zero-shot"),
    Claim("over-label", "P-ALIGN beats training on the answer alone", "table1", "p-align", "sft-label"),
    Claim("over-long-cot", "P-ALIGN beats training on whole traces", "table1", "p-align", "sft-long-cot"),
    Claim("over-upft", "P-ALIGN beats training on the first 32 tokens (UPFT)", "table1", "p-align", "upft"),
    Claim("label-hurts", "Training on the answer alone makes the student worse", "table1", "zero-shot", "sft-label"),
    Claim("needs-continuation", "The prefix alone is not enough", "table2", "p-align", "sft-teacher-prefix"),
    Claim("needs-prefix", "The student's continuation alone is not enough", "table2", "p-align", "sft-student-cot"),
    Claim("over-infogain", "The student's verdicts beat information gain", "table2", "p-align", "p-align-infogain"),
    Claim(
        "over-one-reading",
        "Judging prefix by prefix beats naming the cut after one reading",
        "table2",
        "p-align",
        "p-align-no-adaptive-read",
        caveat="One average of the compared arm does not add up (see: Cells and averages); the test uses the cells.",
    ),
    Claim(
        "search-keeps-accuracy",
        "The binary search is at least as accurate as a linear scan",
        "table2",
        "p-align",
        "p-align-no-binary-search",
        caveat="No loss is a claim about a margin, and none is stated; the test is that of the other claims.",
    ),
    Claim("over-r1-judge", "The student judges better than DeepSeek-R1", "table6", "p-align", "p-align-deepseek-judge"),
    Claim("over-glm-judge", "The student judges better than GLM", "table6", "p-align", "p-align-glm-judge"),
    Claim(
        "teachers-over-zero-shot",
        "P-ALIGN improves the student under other teachers too",
        "table8",
        "p-align",
        "zero-shot",
        metrics=("pass@1",),
        teachers=("QwQ-32B", "DeepSeek-R1-Distill-Qwen-7B"),
        caveat="P-ALIGN's rows repeat those of Table 1 (see: Rows that repeat).",
    ),
    Claim(
        "teachers-over-long-cot",
        "P-ALIGN beats training on whole traces under other teachers too",
        "table8",
        "p-align",
        "sft-long-cot",
        metrics=("pass@1",),
        teachers=("QwQ-32B", "DeepSeek-R1-Distill-Qwen-7B"),
        caveat="P-ALIGN's rows repeat those of Table 1 (see: Rows that repeat).",
    ),
    Claim(
        "students-over-zero-shot",
        "P-ALIGN improves other students too",
        "table9",
        "p-align",
        "zero-shot",
        metrics=("accuracy",),
        students=OTHERS,
    ),
    Claim(
        "students-over-long-cot",
        "P-ALIGN beats training on whole traces for other students too",
        "table9",
        "p-align",
        "sft-long-cot",
        metrics=("accuracy",),
        students=OTHERS,
    ),
    Claim(
        "students-over-upft",
        "P-ALIGN beats UPFT for other students too",
        "table9",
        "p-align",
        "upft",
        metrics=("accuracy",),
        students=OTHERS,
    ),
    Claim(
        "beginning-is-best",
        "The beginning of a trace teaches more than its middle or its end",
        "figure4b",
        rule="untestable",
        lacking="accuracy on each benchmark",
    ),
    Claim("fewer-calls", "The binary search needs far fewer verdicts than a linear scan", "table5", rule="calls"),
    Claim(
        "filter-keeps",
        "The filter keeps more than nine pairs in ten",
        "table7",
        rule="retention",
        caveat="The released training file holds 966 pairs.",
    ),
    Claim(
        "shorter-responses",
        "P-ALIGN's responses are shorter than those after training on whole traces",
        "figure3c",
        rule="untestable",
        lacking="the number of responses and their spread",
    ),
    Claim(
        "preferred-chains",
        "A strong model prefers P-ALIGN's chains of thought",
        "figure3d",
        rule="untestable",
        lacking="the number of comparisons",
    ),
    Claim(
        "one-turn",
        "Verdicts turn from NOT_ENOUGH to ENOUGH once, as a binary search assumes",
        "equation7",
        rule="untestable",
        lacking="verdicts on more prefixes than the search asked for",
    ),
)
