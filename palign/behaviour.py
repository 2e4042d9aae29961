"""How a response behaves, apart from its grade: loops, doubts, a prefix block that is never closed.

>>> describe("Hmm. " * 30)["doubts"]
30
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest

from .prompts import BEGIN, END

DOUBTS = frozenset({"wait", "hmm", "hold", "actually", "alternatively", "maybe", "perhaps"})
"""Words of doubt: most detours of a reasoning model begin with one. ``hold`` counts only before ``on``."""

# A digit, a word (a long run of letters is cut into pieces of 20) or a sign: loops inside one "word" are found too.
_TOKEN = re.compile(r"\d|[^\W\d]{1,20}|[^\w\s]")


def describe(text: str) -> dict:
    """``words`` and ``doubts`` (counts), ``format``, ``unclosed`` and ``loop`` (true or false) of one response.

    ``unclosed``: a prefix block begins and never ends. See :func:`follows_format` and :func:`loops` for the others.
    """
    words = re.findall(r"[^\W\d]+", text.lower())
    doubts = sum(
        word in DOUBTS and (word != "hold" or following == "on") for word, following in zip_longest(words, words[1:])
    )
    return {
        "words": len(words),
        "doubts": doubts,
        "format": follows_format(text),
        "unclosed": BEGIN in text and END not in text,
        "loop": loops(text),
    }


def follows_format(text: str) -> bool:
    """Whether a response begins with a prefix block and closes it, as P-ALIGN's targets do."""
    return text.startswith(BEGIN) and END in text


def loops(text: str, n: int = 30, times: int = 8) -> bool:
    """Whether some run of ``n`` tokens (words, signs, digits) occurs ``times`` times or more.

    The defaults separate loops from traces that restate a formula a few times: none of 52 traces of DeepSeek-R1 repeats
    30 tokens 8 times, but 17 of the 25 released responses of more than 40,000 characters do. Time is linear.
    """
    tokens = _TOKEN.findall(text)
    runs = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    return max(runs.values(), default=0) >= times
