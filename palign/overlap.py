"""Overlap of training and test questions by word n-grams: what a reader must know before trusting an accuracy.

Sets of reasoning problems are usually cleared of questions that share 8 words in a row with a test question (s1K,
arXiv 2501.19393), or 13 (GPT-3, arXiv 2005.14165, appendix C). Questions are compared, not traces: a trace that
restates its own question adds nothing.

>>> shared_ngrams(["Find the sum of all x."], ["FIND  the sum of all y"], n=5)
[(0, 0, 1, 'find the sum of all')]
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .tasks import plan
from .params import Params

if TYPE_CHECKING:
    import pandas as pd

SIZES = (8, 13)


def ngrams(text: str, n: int) -> list[str]:
    """The distinct runs of ``n`` words, in order: lower case, without punctuation. A shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        return []
    return list(dict.fromkeys(" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))))


def shared_ngrams(training: Sequence[str], tests: Sequence[str], n: int) -> list[tuple[int, int, int, str]]:
    """Each pair that shares a run of ``n`` words: training index, test index, how many runs, and the first of them.

    Time and memory grow with the texts and with the number of pairs found, not with all pairs there are.
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


@plan.held(plan.overlap)
def find(params: Params) -> list[dict]:
    """The pairs of this study's training and test questions that share 8 or 13 words in a row, as records."""
    task = plan.overlap(params)
    if task.folder.done:
        return task.folder.read("pairs")
    training = plan.traces(params).require().read("traces")
    tests = plan.benchmarks(params).require().read("problems")
    pairs = [
        {"n": n, "training": training[a]["id"], "benchmark": tests[b]["benchmark"], "test": tests[b]["id"]}
        | {"shared": count, "example": gram}
        for n in SIZES
        for a, b, count, gram in shared_ngrams([t["question"] for t in training], [t["question"] for t in tests], n)
    ]
    task.folder.write("pairs", pairs)
    task.finish(training=len(training), tests=len(tests))
    return pairs


def summary(params: Params) -> pd.DataFrame:
    """How many questions overlap, per benchmark and n-gram size."""
    import pandas as pd

    pairs, facts = pd.DataFrame(find(params)), plan.overlap(params).folder.manifest()
    rows = []
    for n in SIZES:
        for benchmark in params.benchmarks:
            found = pairs[(pairs["n"] == n) & (pairs["benchmark"] == benchmark.name)] if len(pairs) else pairs
            rows.append(
                {
                    "words in a row": n,
                    "benchmark": benchmark.name,
                    "test questions": benchmark.problems,
                    "of them overlapping": found["test"].nunique() if len(found) else 0,
                    "training questions": facts["training"],
                    "of these overlapping": found["training"].nunique() if len(found) else 0,
                    "pairs": len(found),
                }
            )
    return pd.DataFrame(rows)


def listing(params: Params, rows: int = 10) -> pd.DataFrame:
    """The pairs that share the longest stretch, ``rows`` of them; all of them lie in the task's folder."""
    import pandas as pd

    columns = ["n", "training", "benchmark", "test", "shared", "example"]
    pairs = pd.DataFrame(find(params), columns=columns)
    return pairs.sort_values(["n", "shared"], ascending=False, kind="stable").head(rows).reset_index(drop=True)
