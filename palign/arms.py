"""The arms of a study as data. Adding an arm is adding a row here and, at most, one strategy or target function."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """What an arm's supervision is made of.

    ``target``: the response trained on (``palign.supervision``); ``None`` for the untrained student.
    ``strategy``: how the prefix is found, ``adaptive`` (the student's binary search, paper section 3) or ``empty``
    (no prefix: the student answers by itself); ``None`` where the target needs no continuation.
    """

    name: str
    target: str | None
    strategy: str | None
    description: str


ARMS = {
    arm.name: arm
    for arm in (
        Arm("zero-shot", None, None, "the student as it is"),
        Arm("sft-label", "label", None, "the gold answer only"),
        Arm("sft-long-cot", "trace", None, "the whole teacher trace"),
        Arm("upft", "upft", None, "the first tokens of the trace, under a task prompt, with a share of whole traces"),
        Arm("p-align", "prefix+continuation", "adaptive", "adaptive prefix, completed by the student where right"),
        Arm("rft", "continuation", "empty", "control: the student's own right answers, no teacher"),
    )
}
