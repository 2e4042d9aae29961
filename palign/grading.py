r"""Grading: is the last boxed answer of a response the gold answer? The filter of Eq. 9 and every accuracy rest on it.

The box is found by our own rule and equality is math-verify's. Left to itself, math-verify reads two boxes of one
paragraph as one answer, and takes any number of the text for an answer where there is no box at all.

>>> grade(r"So \boxed{9}. No: \boxed{\frac{20}{2}}.", gold="10")
Grade(outcome='right', answer='\\frac{20}{2}')
"""

from __future__ import annotations

import re
import signal
import threading
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal

# A box's opening, an escaped character (which is no brace), or a brace. The look-behind also finds the box in
# "\\boxed{": a line break before the box, or a response that was escaped twice.
_TOKEN = re.compile(r"(?P<box>\\?(?<=\\)(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]+(?:\.0*)?")
_MATH = re.compile(r"(?<!\\)\$|\\\(|\\\[")
_TIMEOUT = 5  # seconds for one parse or one comparison, math-verify's default


@dataclass(frozen=True)
class Grade:
    """``answer`` is the content of the last box, ``None`` where there is no box.

    ``unparseable``: there is a box, but nothing in it can be read as mathematics. It counts as wrong.
    """

    outcome: Literal["right", "wrong", "no box", "unparseable"]
    answer: str | None

    @property
    def right(self) -> bool:
        return self.outcome == "right"


def grade(text: str, gold: str) -> Grade:
    """Grade a response by its last box against the ``gold`` answer (see :func:`equal`)."""
    answer = last_box(text)
    return Grade("no box", None) if answer is None else Grade(_compare(answer.strip(), gold.strip()), answer)


def last_box(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` that closes; of nested boxes the outermost.

    Escaped braces do not count for the balance. A box that never closes, as at a cut, is passed over for the last one
    that does. ``None`` when there is no such box. Time is linear in the length of ``text``.
    """
    opened: list[int | None] = []  # for each open brace, where its box's content starts, or None for a plain brace
    last = None
    for token in _TOKEN.finditer(text):
        if token["box"]:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                last = start, token.start()  # an enclosing box closes later and so takes the place of this one
    return None if last is None else text[slice(*last)]


def equal(answer: str, gold: str) -> bool:
    r"""Whether the content of a box equals the gold answer mathematically, by math-verify.

    ``gold``: a bare answer (``25``, ``\frac{1}{2}``), one in ``$...$``, or a text whose last box it is. Whole numbers
    are compared as numbers, however they are written (``025``, ``25.0``). Not symmetric: math-verify reads an equation
    in the gold differently from one in the answer. Never raises; what cannot be parsed or compared is not equal. In
    the main thread a parse and a comparison have five seconds each, in other threads they have no limit. Results are
    kept, the last 65,536.
    """
    return _compare(answer.strip(), gold.strip()) == "right"


@lru_cache(maxsize=65536)
def _compare(answer: str, gold: str) -> Literal["right", "wrong", "unparseable"]:
    boxed_gold = last_box(gold)
    if boxed_gold is not None:
        gold = boxed_gold.strip()
    if answer and answer == gold:
        return "right"
    if _WHOLE.fullmatch(answer) and _WHOLE.fullmatch(gold):
        return "right" if Decimal(answer) == Decimal(gold) else "wrong"

    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    # math-verify keeps time with SIGALRM, which only the main thread may set and which cancels any alarm set before
    main = threading.current_thread() is threading.main_thread()
    timeout = _TIMEOUT if main and hasattr(signal, "SIGALRM") else None
    try:
        target = parse(rf"\boxed{{{answer}}}", parsing_timeout=timeout)
        wanted = parse(gold if _MATH.search(gold) else rf"\boxed{{{gold}}}", parsing_timeout=timeout)
        if verify(wanted, target, timeout_seconds=timeout):
            return "right"
    except (Exception, TimeoutException):  # a TimeoutException is a BaseException
        return "unparseable"
    # what math-verify cannot parse it hands back as text
    return "unparseable" if all(isinstance(part, str) for part in target) else "wrong"
