"""The documents that the pocket student is pre-trained on: what teaches it its tasks, its habits and its mistakes.

Every document is one chat exchange in the wording that the pipeline uses later (``PROMPTS``), so that the study does
not ask the student in a format that is new to it.
"""

import random

from .world import (
    BELIEFS,
    COMMON,
    NUMBERS,
    ORDINALS,
    RARE,
    TABLES,
    TRAINING,
    DialProblem,
    TeacherTrace,
    answer_sentence,
    draw_problem,
    step_sentence,
    teach,
)

PROMPTS = {
    "answer": "{question}\nWork step by step. Box the answer.",
    "judge": "{question}\nDraft: {prefix}\nIs this draft enough, so that only routine work is left? "
    "Reply [ENOUGH] or [NOT_ENOUGH].",
    "continue": "{question}\nDraft: {prefix}\nTake the draft as known. Finish it and box the answer.",
}
MARKERS = ("<Begin_of_Prefix>", "<End_of_Prefix>")

MISREMEMBERED_RATE = 0.9
"""Share of documents in which a misremembered cell is wrong."""
RARE_IN_READING = 0.10
"""Share of rare keys in the solutions the student learns from (the hard benchmarks hold 15 %)."""
RARE_IN_DRAFTS = 0.25
"""Share of rare keys in the drafts it learns to judge and to continue: enough to learn where it fails."""

AT_ONCE = {2: 0.40, 3: 0.46, 4: 0.45, 5: 0.40, 6: 0.35}
"""Habit: the chance of answering without any step, by number of keys."""
SKIP = {0: 0.0, 1: 0.0, 2: 0.10, 3: 0.18, 4: 0.24, 5: 0.28, 6: 0.30}
"""Habit: the chance, before each further step, of skipping to the answer, by number of steps left."""

MIXTURE = {"solve": 0.45, "judge": 0.12, "continue": 0.34, "trace": 0.045, "marked": 0.045}


def believed(rng: random.Random) -> dict[str, tuple[int, ...]]:
    """One document's tables: each misremembered cell wrong with ``MISREMEMBERED_RATE``."""
    tables = dict(TABLES)
    for name in RARE:
        tables[name] = tuple(
            wrong if rng.random() < MISREMEMBERED_RATE else right
            for wrong, right in zip(BELIEFS[name], TABLES[name], strict=True)
        )
    return tables


def own_words(
    problem: DialProblem, state: tuple[int, int] | None, tables, rng: random.Random, skip: bool = True
) -> str:
    """The student's terse solution from ``state`` on: some steps, perhaps a skip, then the box.

    ``state`` is ``(keys done, number shown)``; ``None`` where no step is done yet, and answering at once is likeliest.
    A skipped answer is the one that follows from the ``tables`` the student believes.
    """
    done, value = state or (0, problem.start)
    rest = problem.keys[done:]
    final = DialProblem(value, rest).values(tables)[-1] if rest else value
    if skip and state is None and rng.random() < AT_ONCE[len(rest)]:
        return answer_sentence(final)
    # a continuation repeats the last step's sentence, so that the number it continues from is directly before it
    said = [step_sentence(done - 1, problem.keys[done - 1], value) if done else f"Now {NUMBERS[value]}."]
    for i, key in enumerate(rest):
        left = len(rest) - i
        if skip and (i > 0 or state is not None) and rng.random() < SKIP[left]:
            return " ".join([*said, answer_sentence(final)] if i else [answer_sentence(final)])
        value = tables[key][value]
        said.append(step_sentence(done + i, key, value))
    return " ".join([*said, f"So it ends on {NUMBERS[value]}.", answer_sentence(value)])


def success_chance(problem: DialProblem, state: tuple[int, int] | None) -> float:
    """The student's chance of the right answer from ``state``, by its habits and beliefs (guesses hit one in ten)."""
    done, value = state or (0, problem.start)
    right = problem.values()
    if done and value != right[done - 1]:
        return 0.0
    rest = problem.keys[done:]
    chance, guessed = 1.0, 0.0
    for i, key in enumerate(rest):
        left = len(rest) - i
        skip = AT_ONCE[left] if state is None and i == 0 else SKIP[left]
        guessed += chance * skip * 0.1
        known = TABLES[key][value] == BELIEFS[key][value]
        chance *= (1 - skip) * (1.0 if known else 1 - MISREMEMBERED_RATE)
        value = right[done + i]
    return chance + guessed


def cut(trace: TeacherTrace, rng: random.Random) -> tuple[str, tuple[int, int] | None]:
    """A prefix of at least one sentence, shorter than the trace, and the state of the work after it."""
    # half of the cuts are within the sufficient prefix; drawn evenly, most would be among the doubts after it
    last = len(trace.sentences) - 1 if rng.random() < 0.5 else trace.sufficient
    p = rng.randint(1, last)
    return " ".join(trace.sentences[:p]), trace.states[p - 1]


def document(kind: str, rng: random.Random) -> tuple[str, str]:
    """One (prompt, response) pair of the given kind, on a problem of the pre-training split."""
    rare = RARE_IN_DRAFTS if kind in ("judge", "continue") else RARE_IN_READING
    problem = draw_problem(rng, rng.choice(TRAINING["n_keys"]), rare, "pretraining")
    tables = believed(rng)
    answer_prompt = PROMPTS["answer"].format(question=problem.question)
    if kind == "solve":
        return answer_prompt, own_words(problem, None, tables, rng)
    if kind == "trace":
        return answer_prompt, teach(problem, rng, tables).text
    if kind == "marked":
        trace = teach(problem, rng, tables)
        prefix, state = cut(trace, rng)
        begin, end = MARKERS
        return answer_prompt, f"{begin}{prefix}{end}{own_words(problem, state, tables, rng)}"
    prefix, state = cut(teach(problem, rng), rng)
    prompt = PROMPTS[kind].format(question=problem.question, prefix=prefix)
    if kind == "judge":
        return prompt, "[ENOUGH]" if rng.random() < success_chance(problem, state) else "[NOT_ENOUGH]"
    return prompt, own_words(problem, state, tables, rng)


def copying(rng: random.Random) -> tuple[str, str]:
    """Look-up practice: keys under ordinals, recalled in another order."""
    keys = [rng.choice(list(TABLES)) for _ in range(rng.randint(3, 6))]
    listed = list(zip(ORDINALS, keys, strict=False))
    told = " ".join(f"{o} {k}." for o, k in listed)
    recalled = " ".join(f"{o} {k}." for o, k in rng.choices(listed, k=rng.randint(4, 8)))
    return f"The dial starts at {rng.choice(NUMBERS)}. {told}", recalled


def drill(rng: random.Random, common: tuple[str, ...] = tuple(COMMON)) -> tuple[str, str]:
    """Single turns of a key, many in a row: the most table cells per token. Rare keys are rare here too."""
    turns = []
    for _ in range(16):
        tables = believed(rng)
        key = rng.choice(tuple(RARE) if rng.random() < RARE_IN_READING else common)
        value = rng.randrange(10)
        turns.append(f"{key} takes {NUMBERS[value]} to {NUMBERS[tables[key][value]]}.")
    return "Turn some keys.", " ".join(turns)


def plain(rng: random.Random, common: tuple[str, ...] = tuple(COMMON)) -> tuple[str, str]:
    """A solution that leaves nothing out."""
    problem = draw_problem(rng, rng.choice(TRAINING["n_keys"]), RARE_IN_READING, "pretraining", common)
    prompt = PROMPTS["answer"].format(question=problem.question)
    return prompt, own_words(problem, None, believed(rng), rng, skip=False)
