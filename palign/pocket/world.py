"""The dial world: problems, a verbose teacher, and an oracle, which no real study has.

A dial shows one number from zero to nine. Named keys move it, each by a fixed permutation of the ten numbers: fourteen
*common* keys (shifts, multiplications) and four *rare* keys (arbitrary permutations). A problem gives the starting
number and two to six keys; its answer is the number at the end.

The teacher always knows every key. The student's pre-training (``palign.pocket.pretrain``) shows it rare keys seldom
and partly wrong (``BELIEFS``), so a trace carries knowledge the student lacks beside a habit of going step by step.

>>> problem = draw_problem(random.Random(0), n_keys=3, rare=0.25)
>>> trace = teach(problem, random.Random(0))
>>> trace.text[: trace.sufficient_chars]      # the shortest prefix that states every step rightly
"""

import hashlib
import random
from dataclasses import dataclass, field

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")

COMMON = {
    name: tuple((x + shift) % 10 for x in range(10))
    for shift, name in enumerate(
        ("brass", "iron", "tin", "lead", "zinc", "gold", "silver", "copper", "nickel"), start=1
    )
} | {
    name: tuple((factor * x + shift) % 10 for x in range(10))
    for name, factor, shift in (("steel", 3, 0), ("bronze", 7, 0), ("chrome", 9, 0), ("cobalt", 3, 5), ("pewter", 7, 2))
}
RARE = {
    "opal": (4, 7, 0, 9, 2, 6, 1, 8, 5, 3),
    "jade": (8, 3, 6, 1, 7, 0, 9, 4, 2, 5),
    "ruby": (2, 5, 9, 4, 0, 8, 3, 1, 7, 6),
    "pearl": (6, 0, 4, 7, 9, 1, 5, 2, 3, 8),
}
TABLES = COMMON | RARE

MISREMEMBERED = 8
"""How many of a rare key's ten cells the student's pre-training mostly shows wrong."""


def _misremember(name: str) -> tuple[int, ...]:
    """A rare key's table with ``MISREMEMBERED`` of its values rotated among themselves: still a permutation."""
    rng = random.Random(f"belief {name}")
    cells = rng.sample(range(10), MISREMEMBERED)
    table = list(TABLES[name])
    for here, there in zip(cells, cells[1:] + cells[:1], strict=True):
        table[here] = TABLES[name][there]
    return tuple(table)


BELIEFS = COMMON | {name: _misremember(name) for name in RARE}
"""The tables as the student mostly met them before it meets the teacher."""

BENCHMARKS = {
    "dial-2": {"n_keys": (2,), "rare": 0.02},
    "dial-3": {"n_keys": (3,), "rare": 0.03},
    "dial-4": {"n_keys": (4,), "rare": 0.15},
    "dial-6": {"n_keys": (6,), "rare": 0.15},
}
TRAINING = {"n_keys": (2, 3, 4, 5, 6), "rare": 0.15}

SPLITS = {"test": 20, "validation": 35, "probe": 45, "train": 65, "pretraining": 100}
"""Upper edge of each split's hash bucket in percent: a problem always belongs to the same split."""


@dataclass(frozen=True)
class DialProblem:
    start: int
    keys: tuple[str, ...]

    @property
    def question(self) -> str:
        listed = " ".join(f"{o} {k}." for o, k in zip(ORDINALS, self.keys, strict=False))
        return f"The dial starts at {NUMBERS[self.start]}. {listed} What number does it end on?"

    def values(self, tables=TABLES) -> list[int]:
        """The numbers shown after each key, without the start."""
        shown, value = [], self.start
        for key in self.keys:
            value = tables[key][value]
            shown.append(value)
        return shown

    @property
    def answer(self) -> str:
        return str(self.values()[-1])

    @property
    def split(self) -> str:
        """The split this problem belongs to, from a hash of its content: disjoint by construction."""
        digest = hashlib.sha256(f"{self.start} {' '.join(self.keys)}".encode()).digest()
        bucket = int.from_bytes(digest[:8], "big") % 100
        return next(name for name, edge in SPLITS.items() if bucket < edge)


def draw_problem(
    rng: random.Random, n_keys: int, rare: float, split: str | None = None, common: tuple[str, ...] = tuple(COMMON)
) -> DialProblem:
    """One problem of ``n_keys`` keys, each rare with probability ``rare``; redrawn until it lies in ``split``."""
    while True:
        keys = tuple(rng.choice(tuple(RARE) if rng.random() < rare else common) for _ in range(n_keys))
        problem = DialProblem(rng.randrange(10), keys)
        if split is None or problem.split == split:
            return problem


def draw_problems(split: str, count: int, n_keys: tuple[int, ...], rare: float, seed: str) -> list[DialProblem]:
    """``count`` distinct problems of one split, lengths in turn from ``n_keys``."""
    rng = random.Random(f"{split} {seed}")
    drawn: dict[DialProblem, None] = {}
    while len(drawn) < count:
        drawn[draw_problem(rng, n_keys[len(drawn) % len(n_keys)], rare, split)] = None
    return list(drawn)


@dataclass
class TeacherTrace:
    """A chain of thought and, after each of its sentences, where the work stands.

    ``states[i]`` is ``(keys done, number shown)`` after sentence ``i``, or ``None`` before the work begins.
    ``sufficient`` is the oracle: the number of sentences after which every step has been stated rightly.
    """

    sentences: list[str] = field(default_factory=list)
    states: list[tuple[int, int] | None] = field(default_factory=list)
    sufficient: int = 0

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def sufficient_chars(self) -> int:
        return len(" ".join(self.sentences[: self.sufficient]))

    def say(self, *sentences: str) -> None:
        state = self.states[-1] if self.states else None
        self.sentences += sentences
        self.states += [state] * len(sentences)

    def step(self, position: int, key: str, value: int) -> None:
        self.sentences.append(step_sentence(position, key, value))
        self.states.append((position + 1, value))


def step_sentence(position: int, key: str, value: int) -> str:
    return f"{ORDINALS[position]} {key} gives {NUMBERS[value]}."


OPENINGS = (
    "Okay, the dial starts at {start}.",
    "Let me see, the dial starts at {start}.",
    "So the dial starts at {start}.",
)
GOALS = ("I need the number at the end.", "I want to know where it ends.", "What matters is the last number.")
PLANS = ("Let me go key by key.", "One key at a time.", "I will turn the keys in order.", "Slowly, key after key.")
ENDS = ("So it ends on {end}.", "That leaves {end}.", "Then the dial shows {end}.")
CHECKS = ("Hmm, let me check that again.", "Wait, let me go over it once more.", "Hold on, I should verify this.")
AGREES = ("Same result.", "It agrees.", "Good, still {end}.")
READS = ("Wait, did I read the keys right.", "Hmm, are those really the keys.")
READ_OK = ("Yes, that is what was asked.", "Yes, I had them right.")
WHAT_IFS = ("What if it had started at {start}.", "Alternatively, suppose it started at {start}.")
DROPS = ("That is another dial, so I drop it.", "But that was not the question.")
LAST_LOOKS = ("Let me look at the last key once more.", "The last key worries me.")
SURE = ("I am sure now.", "Okay, I trust it.", "Good, that settles it.")
ANSWER = "The answer is \\boxed{{{answer}}}."


def answer_sentence(answer: int | str) -> str:
    return ANSWER.format(answer=answer)


def teach(
    problem: DialProblem, rng: random.Random, tables=TABLES, rounds=(1, 2, 2, 3), slip=0.15, mends=0.0
) -> TeacherTrace:
    """A long, R1-like trace: restating, a plan, the steps, then rounds of doubt and the boxed answer.

    With probability ``slip`` a step first goes wrong and is corrected at once. With probability ``mends`` a problem
    with a rare key is solved wrongly at first: the step of a rare key goes wrong, the trace goes on from it to a wrong
    conclusion, and a check finds and mends it. ``tables`` lets the student's pre-training be written in the same voice
    with the student's own beliefs.
    """
    trace = TeacherTrace()
    values = problem.values(tables)
    hard = [i for i, key in enumerate(problem.keys) if key in RARE]
    mistaken = rng.choice(hard) if mends and hard and rng.random() < mends else None
    told = values if mistaken is None else _mistake(problem, mistaken, rng, tables)
    before = [problem.start, *values[:-1]]
    listed = [f"{o} {k}." for o, k in zip(ORDINALS, problem.keys, strict=False)]
    start = NUMBERS[problem.start]

    trace.say(rng.choice(OPENINGS).format(start=start), *listed, rng.choice(GOALS), rng.choice(PLANS))
    trace.say(f"Now {start}.")
    trace.states[-1] = (0, problem.start)
    for i, (key, value) in enumerate(zip(problem.keys, told, strict=True)):
        if mistaken is None and rng.random() < slip / len(values):
            wrong = rng.choice([x for x in range(10) if x != value])
            trace.step(i, key, wrong)
            trace.say(f"Wait, {key} takes {NUMBERS[before[i]]} to {NUMBERS[value]}.")
            trace.states[-1] = (i, before[i])  # the slip is corrected: the step is still to be stated
        trace.step(i, key, value)
    trace.sufficient = len(trace.sentences)
    trace.say(rng.choice(ENDS).format(end=NUMBERS[told[-1]]))

    doubts = rng.choice(rounds)
    if mistaken is not None:
        if rng.random() < 0.5:
            trace.say(rng.choice(READS), *listed, rng.choice(READ_OK))  # a doubt that finds nothing
        _mend(trace, problem, values, mistaken, rng)
        doubts -= 1
    for _ in range(doubts):
        _doubt(trace, problem, values, rng, tables)
    trace.say(rng.choice(SURE), answer_sentence(values[-1]))
    return trace


def _mistake(problem: DialProblem, position: int, rng: random.Random, tables) -> list[int]:
    """The numbers shown when the step at ``position`` goes wrong and the others follow from it."""
    right = problem.values(tables)
    wrong = rng.choice([x for x in range(10) if x != right[position]])
    return [*right[:position], wrong, *DialProblem(wrong, problem.keys[position + 1 :]).values(tables)]


def _mend(trace: TeacherTrace, problem: DialProblem, values: list[int], mistaken: int, rng: random.Random) -> None:
    """A check that finds the wrong step: all steps anew, rightly, to another conclusion."""
    before = [problem.start, *values[:-1]]
    trace.say(rng.choice(CHECKS), f"Now {NUMBERS[problem.start]}.")
    trace.states[-1] = (0, problem.start)
    for i, (key, value) in enumerate(zip(problem.keys, values, strict=True)):
        if i == mistaken:
            trace.say(f"Wait, {key} takes {NUMBERS[before[i]]} to {NUMBERS[value]}.")
        trace.step(i, key, value)
    trace.sufficient = len(trace.sentences)
    trace.say(rng.choice(ENDS).format(end=NUMBERS[values[-1]]))


def _doubt(trace: TeacherTrace, problem: DialProblem, values: list[int], rng: random.Random, tables) -> None:
    """One round of doubt after the right conclusion, which it leaves as it is."""
    before = [problem.start, *values[:-1]]
    start, end = NUMBERS[problem.start], NUMBERS[values[-1]]
    kind = rng.choice(("check", "check", "read", "what-if", "last"))
    if kind == "check":
        trace.say(rng.choice(CHECKS), f"Now {start}.")
        trace.say(*(step_sentence(i, k, v) for i, (k, v) in enumerate(zip(problem.keys, values, strict=True))))
        trace.say(rng.choice(AGREES).format(end=end))
    elif kind == "read":
        listed = [f"{o} {k}." for o, k in zip(ORDINALS, problem.keys, strict=False)]
        trace.say(rng.choice(READS), *listed, rng.choice(READ_OK))
    elif kind == "what-if":
        other = DialProblem(rng.choice([x for x in range(10) if x != problem.start]), problem.keys)
        trace.say(rng.choice(WHAT_IFS).format(start=NUMBERS[other.start]), f"Now {NUMBERS[other.start]}.")
        told = list(enumerate(zip(other.keys, other.values(tables), strict=True)))[: rng.randint(1, len(values))]
        trace.say(*(step_sentence(i, k, v) for i, (k, v) in told), rng.choice(DROPS))
    else:
        last = len(values) - 1
        trace.say(rng.choice(LAST_LOOKS), f"Now {NUMBERS[before[-1]]}.")
        trace.say(step_sentence(last, problem.keys[-1], values[-1]), rng.choice(AGREES).format(end=end))
