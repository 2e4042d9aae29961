"""How a response behaves, beside whether it is right: loops, doubts, a prefix block left open.

>>> describe("Hmm. " * 30)["doubts"]
30
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest

from .prompts import BEGIN, END

DOUBTS = frozenset({"wait", "hmm", "hold", "actually", "alternatively", "maybe", "perhaps"})
"""Words of doubt: they open most of a reasoning model's detours. ``hold`` counts where ``on`` follows."""

# a digit, a word (a run of letters without end is cut up) or a sign: so that a loop of digits is one too
_TOKEN = re.compile(r"\d|[^\W\d]{1,20}|[^\w\s]")


def describe(text: str) -> dict:
    """``words``, ``doubts`` (how many words of doubt), ``format``, ``unclosed`` and ``loop`` of one response."""
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
    """Whether a response opens a prefix block first thing and closes it, as P-ALIGN's targets do."""
    return text.startswith(BEGIN) and END in text


def loops(text: str, n: int = 30, times: int = 8) -> bool:
    """Whether some run of ``n`` tokens (words, signs, digits) stands there ``times`` times or more.

    A careful trace restates a formula a few times: none of 52 traces of DeepSeek-R1 repeats thirty tokens eight times,
    17 of 25 released responses of more than 40,000 characters do. Time is linear.
    """
    tokens = _TOKEN.findall(text)
    runs = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    return max(runs.values(), default=0) >= times
