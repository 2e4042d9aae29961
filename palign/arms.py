"""The arms of a study as data. Adding an arm is adding a row here and, at most, one strategy or target function."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """How an arm's supervision is made.

    ``target``: the response trained on (``palign.supervision``); ``None`` for the untrained student.
    ``strategy``: how the prefix is found (``palign.truncation``, ``palign.strategies``; ``adaptive`` is the student's
    binary search, paper section 3), or ``empty`` (no prefix: the student answers by itself); ``None`` if the target
    needs no continuation. Arms of one strategy share its prefixes and continuations.
    ``chosen``: what the paper does not say about the arm and what we chose; for the report.
    """

    name: str
    target: str | None
    strategy: str | None
    description: str
    chosen: str = ""


PAIR = "prefix+continuation"
SHARE = "a share of the sentences, rounded up, at least one"
THIRD = "a third of the sentences; a trace too short to have one is left out"

ARMS = {
    arm.name: arm
    for arm in (
        Arm("zero-shot", None, None, "the student as it is"),
        Arm("sft-label", "label", None, "the gold answer only"),
        Arm("sft-long-cot", "trace", None, "the whole teacher trace"),
        Arm(
            "upft",
            "upft",
            None,
            "the first tokens of the trace, under a task prompt, with a share of whole traces",
            "prefixes of the teacher's traces, not of the student's own as in Ji et al.; `upft_structure_share`",
        ),
        Arm("p-align", PAIR, "adaptive", "adaptive prefix, completed by the student where right"),
        Arm("rft", "continuation", "empty", "control: the student's own right answers, no teacher"),
        Arm(
            "sft-teacher-prefix",
            "prefix",
            "adaptive",
            "the adaptive prefix alone",
            "no markers; the rows of p-align, so that only the target differs",
        ),
        Arm(
            "sft-student-cot",
            "continuation",
            "adaptive",
            "the student's continuation of the adaptive prefix alone",
            "the rows of p-align, so that only the target differs",
        ),
        Arm(
            "p-align-infogain",
            PAIR,
            "infogain",
            "prefix cut where the student's confidence in the gold answer levels off",
            "the shortest prefix with `infogain_share` of the largest gain; confidence: probability of the answer "
            "right behind an opened box",
        ),
        Arm(
            "p-align-no-adaptive-read",
            PAIR,
            "one-reading",
            "boundary named by the student in one reading of the trace",
            "numbered sentences, `boundary_prompt`; the most probable of all numbers",
        ),
        Arm("p-align-no-binary-search", PAIR, "linear", "prefix found by a linear scan for the first ENOUGH"),
        *(
            Arm(f"fixed-ratio-{percent}", PAIR, f"fixed-{percent}", f"the first {percent} % of the trace", SHARE)
            for percent in (10, 30, 50, 70, 90)
        ),
        *(
            Arm(f"segment-{part}", PAIR, f"segment-{part}", f"the {which} third in place of the prefix", THIRD)
            for part, which in (("prefix", "first"), ("middle", "middle"), ("suffix", "last"))
        ),
        Arm("p-align-other-judge", PAIR, "judge", "adaptive prefix by another model's verdicts (`judge`)"),
        Arm(
            "p-align-oracle",
            PAIR,
            "oracle",
            "the shortest truly sufficient prefix",
            "ours: a judge that is never wrong, where the data know it",
        ),
    )
}

DEFAULT_ARMS = ("zero-shot", "sft-label", "sft-long-cot", "upft", "p-align", "rft")
"""The arms of the pocket study; all of them are ``params/pocket-full.yaml``."""
