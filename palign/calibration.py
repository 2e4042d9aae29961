"""From which margin on is a verdict ENOUGH? Chosen on a pilot of traces by what the student makes of the prefixes.

The judge says ENOUGH where that label is the likelier one, that is from a margin of 0 on. Here every prefix of a few
traces is judged, the search is replayed with other thresholds, and the student continues the prefixes they find. Ours;
the paper has no threshold.

>>> grid([0.5, -1.0, 2.0, 0.0])
[-0.6667, -0.3333, 0.0, 0.1667, 0.3333, 0.5, 1.0, 1.5]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, quantiles, stdev
from typing import Any

from .continuation import kept
from .engines.base import FAILED, NEVER_ANSWERED, Engine, Sampling, seed_of, stream
from .grading import grade_all
from .params import OneLine
from .prompts import fill
from .tasks.store import RunFolder
from .traces import Rule

QUANTILES = 8


class CalibrationFailed(OneLine, RuntimeError):
    """Nothing is left of the pilot; the message is one line."""


def grid(margins: Sequence[float]) -> list[float]:
    """The thresholds to try, in order: 0 and the :data:`QUANTILES` that part the ``margins`` (nats) evenly."""
    inner = quantiles(margins, n=QUANTILES + 1, method="inclusive") if len(margins) > 1 else margins
    return sorted({0.0, *(round(value, 4) + 0.0 for value in inner)})  # + 0.0: no -0


def choose(right: Sequence[Sequence[bool]], share: Sequence[Sequence[float]]) -> int:
    """The index of the threshold of the shortest mean prefix among those that keep as many pairs as the best one.

    ``right``: whether the prefix that a threshold finds was continued rightly; ``share``: its part of the trace; both
    of shape (thresholds, traces). As many: retention falls short of the highest by at most one standard error of the
    difference, which is paired over the traces. Of equals the first.
    """
    length = [fmean(row) for row in share]
    best = min(range(len(right)), key=lambda i: (-sum(right[i]), length[i]))

    def as_many(row: Sequence[bool]) -> bool:
        lost = [a - b for a, b in zip(right[best], row, strict=True)]
        error = stdev(lost) / len(lost) ** 0.5 if len(lost) > 1 else 0.0
        return fmean(lost) <= error + 1e-9  # one pair lost, none won: exactly one standard error

    return min((i for i, row in enumerate(right) if as_many(row)), key=length.__getitem__)


def calibrate(
    folder: RunFolder,
    judged: Sequence[dict],
    texts: Mapping[str, Sequence[str]],
    find: Callable[[int, Callable[[int], bool]], int],
    engine: Engine,
    rule: Rule,
    continue_prompt: str,
    sampling: Sampling,
    seed: int,
    keep_cut: bool = False,
) -> dict[str, Any]:
    """The ``threshold`` (nats) from which on a verdict is to be ENOUGH; ``pilot``, one row per threshold tried; and the
    tokens of the continuations.

    ``judged``: records of traces of which every prefix has a verdict; ``texts``: their sentences. ``find``: the end of
    the search over so many sentences with a judge. Each prefix that some threshold finds is continued once, for all
    that find it; a row has the mean ``share`` of the sentences and the ``retention`` (``keep_cut`` as for
    :func:`palign.continuation.kept`). A trace with a request that
    failed does not count. Resumes after a kill. Raises :class:`CalibrationFailed` where no trace is left.
    """
    good = {record["id"]: record for record in judged}
    margins = {name: [margin for *_, margin in record["verdicts"]] for name, record in good.items()}
    limits = grid([margin for several in margins.values() for margin in several])

    def end(name: str, limit: float) -> int:
        return find(good[name]["room"], lambda p: margins[name][p - 1] >= limit)

    ends = {name: [end(name, limit) for limit in limits] for name in good}
    drawn = _continued(folder, good, texts, ends, engine, rule, continue_prompt, sampling, seed)
    graded = grade_all([r["continuation"] for r in drawn], [good[r["of"]]["answer"] for r in drawn], False)
    right = {
        (record["of"], record["sentences"]): kept(
            record | {"outcome": record["finish"] if record["finish"] in NEVER_ANSWERED else grade.outcome}, keep_cut
        )
        for record, grade in zip(drawn, graded, strict=True)
    }
    lost = {record["of"] for record in drawn if record["finish"] in FAILED}
    left = [name for name in good if name not in lost]
    if not left:
        folder.discard("continuations", lambda record: record["finish"] in FAILED)
        why = "every trace has a continuation that failed; fix it and run the same command again to continue"
        raise CalibrationFailed(f"calibration of the verdict: {why}")
    count = range(len(limits))
    retained = [[right[name, ends[name][i]] for name in left] for i in count]
    shares = [[ends[name][i] / good[name]["of"] for name in left] for i in count]
    chosen = choose(retained, shares)
    rows = [
        {"threshold": limits[i], "share": round(fmean(shares[i]), 4), "retention": round(fmean(retained[i]), 4)}
        | {"traces": len(left), "chosen": i == chosen}
        for i in count
    ]
    return {
        "threshold": limits[chosen],
        "pilot": rows,
        "tokens_read": sum(record["prompt_tokens"] for record in drawn),
        "tokens_generated": sum(record["new_tokens"] for record in drawn),
    }


def _continued(
    folder: RunFolder,
    good: Mapping[str, dict],
    texts: Mapping[str, Sequence[str]],
    ends: Mapping[str, Sequence[int]],
    engine: Engine,
    rule: Rule,
    continue_prompt: str,
    sampling: Sampling,
    seed: int,
) -> list[dict]:
    """One continuation of each different prefix in ``ends``; those that another pilot left in the folder go."""

    def key(one: tuple[str, int]) -> str:
        return f"{one[0]}/{one[1]}"

    def turn(name: str, p: int) -> str:
        return fill(continue_prompt, question=good[name]["question"], prefix=rule.join(texts[name][:p]))

    def work(batch: list[tuple[str, int]]) -> Iterator[dict]:
        prompts = [engine.prompt(turn(*one)) for one in batch]
        seeds = [seed_of(seed, "calibration", *one) for one in batch]
        for i, completion in stream(engine, prompts, sampling, seeds):
            name, p = batch[i]
            own = {"id": key(batch[i]), "of": name, "sentences": p, "continuation": completion.text}
            yield own | completion.facts

    asked = [(name, p) for name, several in ends.items() for p in sorted(set(several))]
    wanted = set(map(key, asked))
    folder.discard("continuations", lambda record: record["id"] not in wanted)
    return folder.fill("continuations", asked, key, work, "continuing the pilot")
