"""The arms of a study as data. Adding an arm is adding a row here and, at most, one strategy or target function."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Arm:
    """How an arm's supervision is made.

    ``target``: the response trained on (``palign.supervision``); ``None`` for the untrained student, ``text`` for a
    part of the trace without a continuation.
    ``strategy``: how the prefix is found (``palign.truncation``, ``palign.strategies``; ``adaptive`` is the student's
    binary search, paper section 3), how several continuations are used (``palign.attempts``, ``palign.selection``), or
    ``empty`` (no prefix: the student answers by itself); ``None`` if the target needs no continuation. Arms of one
    strategy share its prefixes and continuations.
    ``chosen``: what the source does not say about the arm and what we chose; for the report.
    ``pick``: which of a problem's right continuations become rows.
    ``fallback``: what a problem without a right pair is trained on: nothing, the whole ``trace`` under the same prompt,
    the trace under a prompt of its own (``prompted``), or nothing, and the traces of as many problems that have a pair
    are added instead (``random``, the control).
    ``ends``: whether its rows end the turn; if rows that stop in the middle do, the student learns to stop there.
    ``weight``: whose rows count several times: nobody's, those of problems without an own right answer (``hard``), or
    those of as many random ones (``random``, the control).
    """

    name: str
    target: str | None
    strategy: str | None
    description: str
    chosen: str = ""
    pick: Literal["first", "all", "shortest"] = "first"
    fallback: Literal["trace", "prompted", "random"] | None = None
    weight: Literal["hard", "random"] | None = None
    ends: bool = True

    @property
    def continued(self) -> tuple[str, ...]:
        """The strategies whose continuations the arm needs."""
        own = (self.strategy,) if self.strategy and self.target != "text" else ()
        return own + (("own-k",) if self.weight else ())


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
            "no markers; the rows of p-align, so that only the target differs; they end the turn, as trainers do",
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
PAPER_ARMS = tuple(ARMS)
"""The paper's arms and our controls of them; all of them are ``params/pocket-full.yaml``."""

OURS = "ours"
ARMS |= {
    arm.name: arm
    for arm in (
        Arm(
            "p-align-fallback",
            PAIR,
            "adaptive",
            "as p-align; where its continuation is wrong, the whole trace, unmarked",
            OURS,
            fallback="trace",
        ),
        Arm(
            "p-align-fallback-prompt",
            PAIR,
            "adaptive",
            "as p-align-fallback, the traces under a prompt of their own",
            "ours; `fallback_prompt`",
            fallback="prompted",
        ),
        Arm(
            "p-align-fallback-random",
            PAIR,
            "adaptive",
            "control: as p-align, and as many traces as in p-align-fallback, of random problems that it kept",
            OURS,
            fallback="random",
        ),
        Arm("p-align-unmarked", "unmarked", "adaptive", "control: as p-align, without the marks", OURS),
        Arm(
            "p-align-fallback-unmarked",
            "unmarked",
            "adaptive",
            "control: as p-align-fallback, without the marks",
            OURS,
            fallback="trace",
        ),
        Arm(
            "sft-teacher-prefix-open",
            "prefix",
            "adaptive",
            "control: as sft-teacher-prefix, in rows that do not end the turn",
            OURS,
            ends=False,
        ),
        Arm(
            "p-align-k",
            PAIR,
            "adaptive-k",
            "as p-align; where its continuation is wrong, further ones of the same prefix, up to K",
            "ours; K is `own_samples`",
        ),
        Arm(
            "p-align-backoff",
            PAIR,
            "adaptive-backoff",
            "as p-align; where its continuation is wrong, one of a longer prefix, and so on",
            "ours; `backoff_step`, `backoff_tries`",
        ),
        Arm(
            "backoff",
            PAIR,
            "backoff",
            "without a judge: from a short share of the trace, longer after each wrong continuation",
            "ours; `backoff_start`, `backoff_step`, `backoff_tries`",
        ),
        Arm(
            "backoff-30",
            PAIR,
            "backoff-30",
            "control: as backoff, from 30 % of the trace, about where the judge's prefixes end",
            "ours; `backoff_step`, `backoff_tries`",
        ),
        *(
            Arm(
                f"success-prefix{ending}",
                PAIR,
                f"success-{how}",
                f"the shortest prefix from which k of K continuations are right, by {words}",
                "`success_needed` of `success_samples`; the first right continuation is kept",
            )
            for ending, how, words in (
                ("", "binary", "binary search"),
                ("-first", "first", "a scan to the first success"),
                ("-last", "last", "a scan back to the last failure"),
            )
        ),
        Arm(
            "p-align-calibrated",
            PAIR,
            "calibrated",
            "as p-align, with the verdict's threshold chosen on a pilot of traces by retention",
            "ours; `calibration_traces`",
        ),
        *(
            Arm(
                f"{which}-solution",
                "text",
                f"{which}-solution",
                f"the trace up to its {which} right answer",
                "where the trace states no right answer so far, there is no row",
            )
            for which in ("first", "second")
        ),
        Arm(
            "self-rewrite",
            "continuation",
            "rewrite",
            "the student's own solution, written with the whole trace before it; where wrong, the trace",
            "`rewrite_prompt`",
            fallback="trace",
        ),
        Arm("rft-k", "continuation", "own-k", "the student's own right answers, all of K", "`own_samples`", pick="all"),
        Arm(
            "shortest-of-k",
            "continuation",
            "own-k",
            "the student's shortest own right answer of K",
            "`own_samples`",
            pick="shortest",
        ),
        Arm(
            "rft-k-fallback",
            "continuation",
            "own-k",
            "control: the student's own right answer, one of K, else the trace: no judge, no prefix",
            "ours; `own_samples`",
            fallback="trace",
        ),
        Arm(
            "select-likely",
            PAIR,
            "likely",
            "of the right pairs of several strategies and the trace, the likeliest by token",
            "`palign.selection.CANDIDATES`; the whole response is scored, as it is trained on",
        ),
        Arm(
            "select-rsr",
            PAIR,
            "rsr",
            "of the same candidates the one of the lowest rank-surprisal ratio",
            "`palign.selection.CANDIDATES`",
        ),
        Arm(
            "prune-entropy",
            "text",
            "entropy-pruned",
            "the trace without the sentences of lowest summed entropy",
            "`pruned_share`; the last sentence is kept",
        ),
        Arm(
            "essence-50",
            "text",
            "tokens-50",
            "the first half of the trace's tokens",
            "its rows do not end the turn, as in the authors' code",
            ends=False,
        ),
        Arm(
            "mix-long",
            "mixed",
            "empty",
            "one whole trace to four of the student's own right answers",
            "the short rows are rft's; the long ones are of random problems",
        ),
        Arm(
            "p-align-hard",
            PAIR,
            "adaptive",
            "as p-align; rows of problems without an own right answer in K count several times",
            "ours; `hard_weight`, `own_samples`",
            weight="hard",
        ),
        Arm(
            "p-align-hard-random",
            PAIR,
            "adaptive",
            "control: as p-align; rows of as many random problems count several times",
            "ours; `hard_weight`, `own_samples`",
            weight="random",
        ),
    )
}
"""The paper's arms, then rivals and extensions (``params/pocket-beyond.yaml``)."""

DEFAULT_ARMS = ("zero-shot", "sft-label", "sft-long-cot", "upft", "p-align", "rft")
"""The arms of the pocket study."""
