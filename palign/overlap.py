"""Overlap of training and test questions by word n-grams.

Authors usually remove training questions that share 8 words in a row with a test question (s1K, arXiv 2501.19393), or
13 (GPT-3, arXiv 2005.14165, appendix C). Only the questions are compared, because a trace repeats its own question.

>>> shared_ngrams(["Find the sum of all x."], ["FIND  the sum of all y"], n=5)
[(0, 0, 1, 'find the sum of all')]
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from . import problems
from .params import Params
from .tasks.plan import Plan, held

SIZES = (8, 13)
"""Words in a row that count as an overlap; see above."""


def ngrams(text: str, n: int) -> list[str]:
    """The distinct runs of ``n`` words in order, lower case, without punctuation. A text of fewer words is one run."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        return []
    return list(dict.fromkeys(" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))))


def shared_ngrams(training: Sequence[str], tests: Sequence[str], n: int) -> list[tuple[int, int, int, str]]:
    """The pairs that share a run of ``n`` words, as (training index, test index, number of shared runs, first run).

    Time and memory grow with the length of the texts and with the number of pairs found, not with the number of all
    pairs.
    """
    where = defaultdict(list)
    for index, text in enumerate(tests):
        for gram in ngrams(text, n):
            where[gram].append(index)
    found = []
    for index, text in enumerate(training):
        pairs: dict[int, list] = {}
        for gram in ngrams(text, n):
            for test in where.get(gram, ()):
                pairs.setdefault(test, [0, gram])[0] += 1
        found += [(index, test, count, gram) for test, (count, gram) in sorted(pairs.items())]
    return found


@held("overlap")
def find(params: Params) -> list[dict]:
    """The pairs of training and test questions that share 8 or 13 words in a row, as records.

    Keys: ``n`` (words in a row), ``training`` and ``test`` (ids), ``benchmark``, ``shared`` (number of shared runs) and
    ``example`` (the first of them). The manifest names the training questions that are a test question word for word.
    """
    plan = Plan(params)
    task = plan.overlap
    if task.folder.done:
        return task.read("pairs")
    training, tests = plan.traces.read("traces"), plan.benchmarks.read("problems")
    same = problems.twins([problems.Problem(t["id"], t["question"], t["answer"]) for t in training], tests)
    pairs = [
        {"n": n, "training": training[a]["id"], "benchmark": tests[b]["benchmark"], "test": tests[b]["id"]}
        | {"shared": count, "example": gram}
        for n in SIZES
        for a, b, count, gram in shared_ngrams([t["question"] for t in training], [t["question"] for t in tests], n)
    ]
    task.folder.write("pairs", pairs)
    task.finish(training=len(training), tests=len(tests), twins={i: t["benchmark"] for i, t in same.items()})
    return pairs
