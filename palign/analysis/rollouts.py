"""When is a prefix enough? Recorded rollouts: how often continuations of each prefix of a trace reach the right answer.

A file of rollouts has one row per prefix of a trace, see :func:`load`. ``palign/paper/rollouts.csv`` holds 40 traces
that others recorded (Bogdan et al. 2025, arXiv 2506.19143); a file of one's own gives the same measures. They test what
the method assumes, that more of a trace is never worse and that from some point on it is enough; and they say where a
search by verdicts ends, and what each way to choose a prefix would keep, without a model.

Two of the recorded traces have no rollouts behind some point: ``llama-8b/correct/6596`` from sentence 140 of 254 and
``llama-8b/incorrect/4164`` from 159 of 320. The source writes a share of 0 there. The first is called right, though its
success is about 0 throughout: it was measured as 0 to 0.23 before that point, and not measured behind it. Here a prefix
without rollouts has no success. The two traces count where a part of a curve is enough (:func:`monotone`, by the part
that was measured), and are left out where the whole curve is needed (searches, policies, the point of enough).

The unit of every interval is the trace. In the recorded table the 40 traces belong to 10 problems, each with a right
and a wrong trace of two models; intervals over traces take no account of that. Rollouts are taken to be binomial. The
empty prefix of a problem was recorded twice for each model, and the pairs differ as much as that says (chi-square 23.3
on 19 degrees of freedom).

>>> table = load(RECORDED)
>>> fall(monotone(table))       # means over right traces and over wrong ones
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from ..params import OneLine, Strict, resolve, root
from ..truncation import SEARCHES, Search, SearchResult, backward
from .statistics import holm, interval, mean_over_traces, paired_difference, table_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("trace", "model", "right", "sentences", "rollouts", "success")
"""The columns that a file needs."""
OPTIONAL = ("next_chars", "next_tags")
TRUTH = {"true": True, "1": True, "false": False, "0": False}
DRAWS = 1999
"""Resamples of a curve. With 40 traces, Holm's smallest p is 40 / 2000 = 0.02; with more of them it must not grow."""
RECORDED = Path(__file__).resolve().parent.parent / "paper" / "rollouts.csv"
"""The table that others recorded; its source and licence are in the README beside it."""

POCKET = "reports/rollouts-pocket-prefixes/pocket-prefixes.csv"
"""The pocket student's own rollouts, as ``palign rollouts params/pocket-prefixes.yaml`` writes them."""


class Rollouts(Strict):
    """The parameters of the notebook on recorded rollouts."""

    rollouts: str | None = Field(None, description="CSV of your own rollouts; None reads the recorded table")
    beside: str | None = Field(
        None, description="CSV to stand beside it; None takes the pocket student's, or the recorded table for your own"
    )
    threshold: float = Field(0.9, description="success from which on a prefix counts as enough", gt=0, le=1)

    @property
    def path(self) -> Path:
        return RECORDED if self.rollouts is None else Path(resolve(self.rollouts))

    @property
    def other(self) -> Path | None:
        """The table that stands beside; ``None`` where there is none."""
        if self.beside is not None:
            return Path(resolve(self.beside))
        if self.rollouts is not None:
            return RECORDED
        pocket = root() / POCKET
        return pocket if pocket.exists() else None

    @property
    def source(self) -> Literal["recorded", "study", "own"]:
        """Whose rollouts these are: recorded by others, a study's (in the folder of its report), or a file's."""
        if self.path == RECORDED:
            return "recorded"
        return "study" if self.path.resolve().parent == self.folder.resolve() else "own"

    @property
    def of_pocket(self) -> bool:
        return _of_pocket(self.path)

    @property
    def folder(self) -> Path:
        """Where the report goes; a file of one's own has a folder of its own."""
        return root() / "reports" / ("recorded-rollouts" if self.rollouts is None else f"rollouts-{self.path.stem}")


def title(path: Path) -> str:
    """What a table is called beside another one."""
    return "recorded, real models" if path == RECORDED else "pocket study" if _of_pocket(path) else path.stem


def _of_pocket(path: Path) -> bool:
    return path.resolve() == (root() / POCKET).resolve()


class RolloutError(OneLine, ValueError):
    """A file that is no table of rollouts; the message is one line."""


def load(path: str | Path) -> pd.DataFrame:
    """One row per prefix, sorted by trace (in the file's order) and length.

    The file is a CSV with a header. ``trace``: its name; ``model``; ``right``: whether the trace's own answer is right
    (True or False); ``sentences``: the prefix's length, from 0; ``rollouts``: continuations sampled from it;
    ``success``: the share of them that reach the right answer, left empty where there are no rollouts. ``next_chars``
    and ``next_tags``, the length and the kind of the sentence behind the prefix, may be missing. Added: ``hits``, the
    rollouts that reach the right answer, rounded; ``of``, the longest prefix of the trace in the file; ``share``, the
    prefix's share of that.

    Raises :class:`RolloutError` for a file that cannot be read, columns that are missing, no rows, and values that
    cannot be: a share outside 0..1, a share of 0 rollouts, one prefix twice, one trace both right and wrong.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors and a wrong encoding are ValueErrors
        raise RolloutError(f"{path}: cannot be read as CSV: {str(error).strip().splitlines()[0]}") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise RolloutError(f"{path}: no table of rollouts: columns are missing: {', '.join(missing)}")
    if table.empty:
        raise RolloutError(f"{path}: holds no rollouts: there are no rows below the header")

    def refuse(wrong: pd.Series, said: str, shown: str) -> None:
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise RolloutError(f"{path}, row {at + 1} ({table['trace'].iloc[at]}): {said}, not {raw[shown].iloc[at]!r}")

    raw = table.fillna("").astype(str)
    table = raw[[name for name in (*COLUMNS, *OPTIONAL) if name in raw]].copy()
    refuse(raw["trace"] == "", "trace must be a name", "trace")
    table["right"] = raw["right"].str.strip().str.lower().map(TRUTH)
    refuse(table["right"].isna(), "right must be True or False", "right")
    for name in ("sentences", "rollouts"):
        number = pd.to_numeric(raw[name], errors="coerce")
        refuse(~((number >= 0) & (number % 1 == 0) & (number < 1e9)), f"{name} must be a whole number, 0 or more", name)
        table[name] = number.astype(int)
    none = table["rollouts"] == 0
    if none.all():
        raise RolloutError(f"{path}: holds no rollouts: every row has 0 of them")
    refuse(none & (raw["success"] != ""), "0 rollouts have no share: success must be empty", "success")
    success = pd.to_numeric(raw["success"], errors="coerce")
    refuse(~none & ~success.between(0, 1), "success must be a share in 0..1", "success")
    table["success"] = success
    refuse(table.duplicated(["trace", "sentences"]), "a prefix must be in the file once", "sentences")
    first = table.groupby("trace", sort=False)["right"].transform("first")
    refuse(table["right"] != first, "a trace must be right in all rows or in none", "right")

    table["right"] = table["right"].astype(bool)
    table["hits"] = (table["success"] * table["rollouts"]).round().fillna(0).astype(int)
    table["of"] = table.groupby("trace")["sentences"].transform("max")
    table["share"] = table["sentences"] / table["of"].clip(lower=1)
    order = table["trace"].drop_duplicates().reset_index(drop=True)
    rank = table["trace"].map({name: number for number, name in enumerate(order)})
    return table.assign(rank=rank).sort_values(["rank", "sentences"]).drop(columns="rank").reset_index(drop=True)


@dataclass(frozen=True)
class Curve:
    """The success of one trace's prefixes, those that were measured: all arrays have shape (prefixes,)."""

    trace: str
    model: str
    right: bool
    of: int
    sentences: np.ndarray
    hits: np.ndarray
    rollouts: np.ndarray
    tags: tuple[str, ...] = ()

    @property
    def success(self) -> np.ndarray:
        return self.hits / self.rollouts

    @property
    def complete(self) -> bool:
        """Whether every prefix of 0 to ``of`` sentences was measured, and there is more than the empty one."""
        return len(self.sentences) == self.of + 1 > 1


def curves(table: pd.DataFrame, complete: bool = False) -> list[Curve]:
    """The curves of a loaded table, in its order; ``complete``: only those without a gap."""
    found = []
    for name, rows in table.groupby("trace", sort=False):
        head, measured = rows.iloc[0], rows[rows["rollouts"] > 0]
        numbers = (measured[column].to_numpy() for column in ("sentences", "hits", "rollouts"))
        tags = tuple(measured["next_tags"]) if "next_tags" in measured else ()
        found.append(Curve(str(name), head["model"], bool(head["right"]), int(head["of"]), *numbers, tags))
    return [curve for curve in found if curve.complete or not complete]


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """What a file holds: one row per model and kind of trace, with counts of ``traces``, of those that are
    ``complete``, of ``prefixes`` and of the ``unmeasured`` ones among them, and the median number of ``rollouts``.
    """
    import pandas as pd

    complete = {curve.trace for curve in curves(table, complete=True)}
    rows = [
        {"model": model, "answer": "right" if right else "wrong", "traces": group["trace"].nunique()}
        | {"complete": len(complete & set(group["trace"])), "prefixes": len(group)}
        | {"unmeasured": int((group["rollouts"] == 0).sum()), "rollouts": group["rollouts"].median()}
        for (model, right), group in table.groupby(["model", "right"], sort=False)
    ]
    return pd.DataFrame(rows).set_index(["model", "answer"])


# Is more never worse?


def isotonic(hits: np.ndarray, rollouts: np.ndarray, increasing: bool = True) -> np.ndarray:
    """The likeliest monotone success, by prefix: pooled neighbours, which is the binomial's maximum likelihood too."""
    from scipy.optimize import isotonic_regression

    return isotonic_regression(hits / rollouts, weights=rollouts, increasing=increasing).x.clip(0, 1)


def deviance(hits: np.ndarray, rollouts: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Twice the log likelihood that a fit loses to the observed shares, summed over the last axis. 0 if they agree."""
    from scipy.special import xlogy

    share, misses = hits / rollouts, rollouts - hits
    terms = xlogy(hits, share) - xlogy(hits, fit) + xlogy(misses, 1 - share) - xlogy(misses, 1 - fit)
    return 2 * terms.sum(axis=-1).clip(min=0)


def largest_drop(success: np.ndarray) -> np.ndarray:
    """How far any later prefix lies below an earlier one, at most; along the last axis. 0 for a monotone curve."""
    return (np.maximum.accumulate(success, axis=-1) - success).max(axis=-1)


def against_monotone(curve: Curve, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """One curve against the likeliest monotone one.

    ``p``: the share of curves drawn from the monotone fit whose deviance from their own fit is at least this curve's.
    Of 400 simulated curves of 120 prefixes with a rising, stepped or levelling truth, 2 to 5 % have a p of at most
    0.05, and with a constant truth 8 %; 0 to 1 % have one of at most 0.01.
    ``drop``: the largest fall of recorded success; ``by_chance``: its mean on curves drawn from the fit. ``low`` and
    ``high`` hold the largest fall of the true success with 95 %. The recorded fall was picked as the largest, so its
    bounds allow for the largest error of any pair of prefixes: the errors are drawn from the recorded shares, each
    moved towards 1/2 by one rollout, for else a share of 0 or 1 would be certain.
    """
    rng, hits, n = np.random.default_rng(seed), curve.hits, curve.rollouts
    fit = isotonic(hits, n)
    own = float(deviance(hits, n, fit))
    drawn = rng.binomial(n, fit, (draws, n.size))
    others = deviance(drawn, n, np.array([isotonic(row, n) for row in drawn]))
    p = (1 + int((others >= own - 1e-9).sum())) / (draws + 1)
    smooth = (hits + 0.5) / (n + 1)
    errors = rng.binomial(n, smooth, (draws, n.size)) / n - smooth
    fall, rise = (np.quantile(largest_drop(sign * errors), 0.975) for sign in (1, -1))
    drop = float(largest_drop(hits / n))
    return {
        "deviance": own,
        "p": p,
        "drop": drop,
        "by_chance": float(largest_drop(drawn / n).mean()),
        "low": max(drop - float(fall), 0.0),
        "high": min(drop + float(rise), 1.0),
    }


def monotone(table: pd.DataFrame, draws: int | None = None, seed: int = 0) -> pd.DataFrame:
    """One row per trace: ``trace``, ``model``, ``right``, ``prefixes`` measured, and :func:`against_monotone`'s
    measures; ``p_holm`` is corrected for the number of traces, ``falls`` says that it is below 0.05. ``draws``: of each
    curve; ``DRAWS``, or 50 for each trace if that is more.
    """
    import pandas as pd

    measured = [curve for curve in curves(table) if curve.sentences.size]
    draws = draws or max(DRAWS, 50 * len(measured) - 1)
    rows = [
        {"trace": c.trace, "model": c.model, "right": c.right, "prefixes": c.sentences.size}
        | against_monotone(c, draws, seed + i)
        for i, c in enumerate(measured)
    ]
    found = pd.DataFrame(rows)
    found["p_holm"] = holm(found["p"])
    found["falls"] = found["p_holm"] < 0.05
    return found


def fall(rows: pd.DataFrame) -> pd.DataFrame:
    """The means of :func:`monotone`'s measures over right and over wrong traces (``answer``); see :func:`over`."""
    named = rows.assign(answer=rows["right"].map({True: "right", False: "wrong"}))
    return over(named, ["answer"], ["falls", "drop", "by_chance", "low", "high"])


# Where does a search end?


ALL_SEARCHES: dict[str, Callable[[int], Search]] = {**SEARCHES, "backward": backward}
"""The project's searches and one from the other end. With a monotone verdict all end at the same prefix."""

THRESHOLDS = (0.5, 0.7, 0.9)
SAMPLES = (1, 4, 16)
"""Continuations drawn from a prefix for one verdict."""
AROUND = 2
"""Prefixes on either side of where a search ends that count as the points around it."""
ENDS = ("landing", "success", "around", "none", "differs", "verdicts", "continuations")
SPREADS = ("share", "verdicts", "continuations")
"""Measures that are no chances."""
COUNTS = ("verdicts", "continuations")
"""Measures that are no shares."""


@dataclass(frozen=True)
class _Tree:
    """Every way a search can go. ``nodes``: (prefix asked, the node before, the verdict there), -1 for no node before.

    ``ends``: (the last node, the verdict there, the prefix found, whether it was judged ENOUGH). ``unasked``: for each
    end, the shorter prefixes that must be NOT_ENOUGH for a linear search to find the same one and were not asked for;
    ``None`` where one of them was ENOUGH.
    """

    nodes: list[tuple[int, int, bool]]
    ends: list[tuple[int, bool, int, bool]]
    unasked: list[np.ndarray | None]


@lru_cache(maxsize=1024)
def _tree(name: str, m: int) -> _Tree:
    tree = _Tree([], [], [])
    waiting: list[tuple[int, dict[int, bool]]] = [(-1, {})]
    while waiting:
        node, answers = waiting.pop()
        running, last = ALL_SEARCHES[name](m), bool(answers) and list(answers.values())[-1]
        try:
            (p,) = next(running)
            for answer in answers.values():
                (p,) = running.send([answer])
        except StopIteration as stop:
            found: SearchResult = stop.value
            tree.ends.append((node, last, found.sentences, found.sufficient))
            same = not any(answers.get(q, False) for q in range(1, found.sentences))
            unasked = [q for q in range(1, found.sentences) if q not in answers]
            tree.unasked.append(np.array(unasked, dtype=int) if same else None)
            continue
        tree.nodes.append((p, node, last))
        waiting += [(len(tree.nodes) - 1, answers | {p: verdict}) for verdict in (True, False)]
    return tree


@dataclass(frozen=True)
class Landing:
    """Where a search ends on one trace of m sentences, for one or several kinds of verdict (last axis).

    ``at``: the chance that it ends at each prefix of 0 to m sentences, first axis. ``sufficient``: the chance that it
    ends there by an ENOUGH. ``verdicts``: how many it is expected to ask for. ``differs``: the chance that the linear
    search, with the same verdicts, ends elsewhere; 0 if verdicts are monotone.
    """

    at: np.ndarray
    sufficient: np.ndarray
    verdicts: np.ndarray
    differs: np.ndarray


def landing(name: str, chance: np.ndarray) -> Landing:
    """The exact distribution of a search's end, over all its ways to go.

    ``chance``: of ENOUGH for each prefix of 0 to m sentences, of shape (m + 1,) or (m + 1, kinds); a prefix has one
    verdict, independent of the others'. The empty prefix is never judged.
    """
    chance = np.asarray(chance, dtype=float)
    tree = _tree(name, len(chance) - 1)
    of = (1 - chance, chance)
    reached: list[np.ndarray] = []

    def goes_on(node: int, verdict: bool) -> np.ndarray:
        return reached[node] * of[verdict][tree.nodes[node][0]] if node >= 0 else np.ones(chance.shape[1:])

    for _, before, verdict in tree.nodes:
        reached.append(goes_on(before, verdict))
    at, sufficient = np.zeros_like(chance), np.zeros_like(chance)
    agrees = np.zeros(chance.shape[1:])
    for (node, verdict, p, enough), unasked in zip(tree.ends, tree.unasked, strict=True):
        ends = goes_on(node, verdict)
        at[p] += ends
        if enough:
            sufficient[p] += ends
        if unasked is not None:
            agrees = agrees + ends * of[False][unasked].prod(axis=0)
    verdicts = np.sum(reached, axis=0) if reached else np.zeros(chance.shape[1:])
    return Landing(at, sufficient, verdicts, (1 - agrees).clip(0, 1))


def chance_of_enough(success: np.ndarray, threshold: float, samples: int = 0) -> np.ndarray:
    """The chance of ENOUGH for each prefix: at least ``threshold`` of ``samples`` continuations are right.

    Drawn from the recorded share; without samples the verdict is that share's own, 0 or 1.
    """
    from scipy.stats import binom

    if not samples:
        return (success >= threshold - 1e-9).astype(float)
    return binom.sf(math.ceil(threshold * samples - 1e-9) - 1, samples, success)


def _around(success: np.ndarray) -> np.ndarray:
    """The mean success of the nearest prefixes on both sides of each one, itself not among them."""
    m = len(success) - 1
    near = [[q for q in range(max(p - AROUND, 0), min(p + AROUND, m) + 1) if q != p] for p in range(m + 1)]
    return np.array([success[q].mean() for q in near])


def search_ends(table: pd.DataFrame) -> pd.DataFrame:
    """One row per complete trace, search, ``threshold`` and number of ``samples`` (0: by the recorded share).

    Expected values: ``landing``, the share of the sentences that is kept; ``success`` there and ``around`` it; the
    chance that no verdict was ENOUGH (``none``), in which case the whole trace is kept; the chance that the linear
    search ends elsewhere (``differs``; ``nan`` of that search itself); ``verdicts``, and ``continuations`` drawn for
    them.
    """
    import pandas as pd

    kinds = [(threshold, samples) for threshold in THRESHOLDS for samples in (0, *SAMPLES)]
    rows = []
    for curve in curves(table, complete=True):
        success, around = curve.success, _around(curve.success)
        chance = np.stack([chance_of_enough(success, *kind) for kind in kinds], axis=1)
        for name in ALL_SEARCHES:
            end = landing(name, chance)
            found = {
                "landing": (curve.sentences / curve.of) @ end.at,
                "success": success @ end.at,
                "around": around @ end.at,
                "none": 1 - end.sufficient.sum(axis=0),
                "differs": end.differs if name != "linear" else np.full(len(kinds), math.nan),
                "verdicts": end.verdicts,
            }
            for i, (threshold, samples) in enumerate(kinds):
                row = {"trace": curve.trace, "right": curve.right, "search": name, "threshold": threshold}
                row |= {"samples": samples} | {key: float(values[i]) for key, values in found.items()}
                rows.append(row | {"continuations": row["verdicts"] * samples if samples else math.nan})
    return pd.DataFrame(rows, columns=["trace", "right", "search", "threshold", "samples", *ENDS])


def searches(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean over traces of each measure of :func:`search_ends`, right and wrong traces apart; see :func:`over`."""
    return over(rows, ["right", "search", "threshold", "samples"], ENDS)


def over(rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """The mean over traces, one row per group and ``measure``: ``value``, ``low``, ``high`` (95 %), ``n`` traces.

    ``rows``: one per trace and group. :data:`SPREADS` get a bootstrap of the traces, whose bounds are ``nan`` where all
    traces agree; chances get :func:`~palign.analysis.statistics.interval`. Traces without the measure do not count.
    """
    import pandas as pd

    found = []
    for key, group in rows.groupby(list(by), sort=False) if len(rows) else ():
        for measure in measures:
            values = group[measure].dropna().to_numpy(dtype=float)
            if values.size:
                estimate = mean_over_traces(values) if measure in SPREADS else interval(values.clip(0, 1))
                found.append(dict(zip(by, key, strict=True)) | {"measure": measure} | vars(estimate))
    return pd.DataFrame(found, columns=[*by, "measure", "value", "low", "high", "n"])


# What would a policy keep?


@dataclass(frozen=True)
class Kept:
    """What a way to choose a prefix is expected to give on one trace.

    ``retention``: the chance that a pair with a right continuation is kept. ``share``: of the trace's sentences, in the
    prefix where the policy ends, kept or not. ``continuations``: drawn, those for verdicts and the kept one included.
    """

    retention: float
    share: float
    continuations: float


def _length(m: int, share: float) -> int:
    """The prefix of a share of m sentences: at least one, except for a share of 0, where the student has no prefix."""
    return max(round(share * m), 1) if share else 0


def fixed(success: np.ndarray, share: float) -> Kept:
    """One continuation of a fixed share of the trace. ``success``: of the prefixes of 0 to m sentences, here and below.

    m is the longest prefix that was recorded, which may lack the trace's last sentence.
    """
    return several(success, share, 1)


def several(success: np.ndarray, share: float, samples: int) -> Kept:
    """Up to ``samples`` continuations of one prefix, until one is right."""
    m = len(success) - 1
    p = _length(m, share)
    miss = 1 - success[p]
    return Kept(float(1 - miss**samples), p / m, float(sum(miss**i for i in range(samples))))


def back_off(success: np.ndarray, start: float, step: float = 0.1) -> Kept:
    """A continuation of a share of ``start``; after a wrong one, one of a prefix that is longer by ``step``, and so on.

    It ends with the first right continuation, or after the whole trace.
    """
    m = len(success) - 1
    rungs = math.ceil((1 - start) / step - 1e-9) + 1
    lengths = [_length(m, min(start + i * step, 1.0)) for i in range(rungs)]
    left = 1.0
    retention = share = continuations = 0.0
    for i, p in enumerate(lengths):
        ends = left if i == len(lengths) - 1 else left * success[p]
        continuations, share, retention = continuations + left, share + ends * p / m, retention + left * success[p]
        left *= 1 - success[p]
    return Kept(float(retention), float(share), float(continuations))


def judged(success: np.ndarray, quality: float, threshold: float = 0.5, search: str = "released") -> Kept:
    """A search by a judge without continuations, then one continuation.

    With probability ``quality``, by itself for each prefix, the verdict is the right one: ENOUGH exactly if success is
    at least ``threshold``.
    """
    truth = chance_of_enough(success, threshold)
    end = landing(search, quality * truth + (1 - quality) * (1 - truth))
    return Kept(float(success @ end.at), float(np.arange(len(success)) @ end.at) / (len(success) - 1), 1.0)


def verified(success: np.ndarray, samples: int, threshold: float = 0.5, search: str = "released") -> Kept:
    """A search whose verdicts are ``samples`` continuations: ENOUGH if a share of at least ``threshold`` is right.

    The prefix it finds comes with a right continuation, which is kept. Where none was ENOUGH, the whole trace is
    continued once more.
    """
    end = landing(search, chance_of_enough(success, threshold, samples))
    failed = end.at - end.sufficient
    return Kept(
        float(end.sufficient.sum() + success @ failed),
        float(np.arange(len(success)) @ end.at) / (len(success) - 1),
        float(end.verdicts * samples + failed.sum()),
    )


Policy = Callable[[np.ndarray], Kept]


def _policies() -> Iterator[tuple[str, str, Policy]]:
    """Each policy: its family, its name and what it does."""
    for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        yield "fixed share", f"{share:.0%}", lambda s, share=share: fixed(s, share)
    for threshold in (0.5, 0.9):
        for quality in (0.5, 0.7, 0.9, 1.0):
            name = f"right in {quality:.0%}, success of {threshold:.0%}"
            yield "judge", name, lambda s, q=quality, t=threshold: judged(s, q, t)
    for threshold in (0.5, 0.9):
        for samples in SAMPLES:
            if threshold == 0.5 or samples > 1:  # one continuation is right or not, whatever the threshold
                name = f"{samples} continuations, {threshold:.0%} right" if samples > 1 else "1 continuation, right"
                yield "verified search", name, lambda s, k=samples, t=threshold: verified(s, k, t)
    for start in (0.1, 0.3, 0.5, 0.7):
        yield "back-off", f"from {start:.0%}", lambda s, start=start: back_off(s, start)
    for share in (0.1, 0.3, 0.5):
        for samples in (2, 4, 8):
            yield "several samples", f"{samples} of {share:.0%}", lambda s, a=share, n=samples: several(s, a, n)


def policies(table: pd.DataFrame) -> pd.DataFrame:
    """One row per complete trace and policy (``family``, ``policy``): the expected values of :class:`Kept`."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"trace": curve.trace, "right": curve.right, "family": family, "policy": name} | vars(policy(curve.success))
            for curve in curves(table, complete=True)
            for family, name, policy in _policies()
        ]
    )


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean over traces of each policy's :class:`Kept`, right and wrong traces apart; see :func:`over`."""
    return over(rows, ["right", "family", "policy"], ["retention", "share", "continuations"])


def holding(rows: pd.DataFrame, retention: float) -> pd.DataFrame:
    """The policies of one continuation a trace whose retention on right traces may be ``retention``: its 95 % interval
    holds it. The rows of :func:`frontier` that say their retention and share.
    """
    right = rows[(rows["right"] == True)]  # noqa: E712  an empty table has no booleans
    keys = ["family", "policy"]
    count, kept = (right[right["measure"] == name].set_index(keys) for name in ("continuations", "retention"))
    fits = (count["value"] <= 1 + 1e-9) & (kept["low"] <= retention) & (retention <= kept["high"])
    chosen = right.set_index(keys).index.isin(fits.index[fits])
    return right[chosen & (right["measure"] != "continuations")]


# What stands behind the point of enough?


def enough_points(table: pd.DataFrame, threshold: float = 0.9) -> pd.DataFrame:
    """One row per complete right trace: ``point``, the shortest prefix of which the monotone fit is at least
    ``threshold``, and ``behind``, the share of the trace that follows it. Both ``nan`` where it never is.
    """
    import pandas as pd

    rows = []
    for curve in curves(table, complete=True):
        if curve.right:
            enough = isotonic(curve.hits, curve.rollouts) >= threshold - 1e-9
            point = float(enough.argmax()) if enough.any() else math.nan
            rows.append({"trace": curve.trace, "of": curve.of, "point": point, "behind": 1 - point / curve.of})
    return pd.DataFrame(rows, columns=["trace", "of", "point", "behind"])


def behind(points: pd.DataFrame) -> pd.DataFrame:
    """The mean of ``behind`` over the traces that have a point: ``value``, ``low``, ``high``, ``n``; empty if none."""
    found = points["behind"].dropna()
    return table_of({"share of the trace behind the point of enough": interval(found)} if len(found) else {})


def tags_around(table: pd.DataFrame, threshold: float = 0.9) -> pd.DataFrame:
    """What sentences do before and behind the point of enough: one row per tag and ``where``, of the right traces that
    have sentences on both sides.

    ``value``, ``low``, ``high``, ``n``: the mean over traces of the tag's share of the sentences there; ``where`` is
    ``before``, ``behind``, or ``difference`` (behind minus before, paired). Empty where the file has no tags.
    """
    import pandas as pd

    points = enough_points(table, threshold).set_index("trace")["point"]
    before: list[pd.Series] = []
    after: list[pd.Series] = []
    for curve in curves(table, complete=True):
        point = points.get(curve.trace, math.nan)
        if curve.tags and 0 < point <= curve.of:
            # the sentence behind the first `point` ones is the first that the student could do without
            tags = pd.Series(curve.tags)
            for found, part in ((before, tags[curve.sentences < point]), (after, tags[curve.sentences >= point])):
                found.append(part[part != ""].value_counts(normalize=True))
    if not before:
        return pd.DataFrame(columns=["tag", "where", "value", "low", "high", "n"])
    first, second = (pd.DataFrame(list(part)).fillna(0.0) for part in (before, after))
    rows = []
    for tag in sorted({*first, *second}):
        a, b = (part[tag].to_numpy() if tag in part else np.zeros(len(part)) for part in (first, second))
        estimates = {"before": interval(a), "behind": interval(b), "difference": paired_difference([b], [a])}
        rows += [{"tag": tag, "where": where} | vars(estimate) for where, estimate in estimates.items()]
    return pd.DataFrame(rows)


def tags_by_position(table: pd.DataFrame, parts: int = 5) -> pd.DataFrame:
    """What sentences do along right traces without a gap: one row per ``tag`` and ``share``, the middle of one of
    ``parts`` equal parts of a trace. ``value``, ``low``, ``high``, ``n``: the mean over traces of the tag's share of
    the sentences there. Empty where the file has no tags.
    """
    import pandas as pd

    rows = []
    for curve in curves(table, complete=True):
        if curve.right and any(curve.tags):
            # the tag of a row is that of the sentence behind the prefix
            part = np.minimum(curve.sentences * parts // curve.of, parts - 1)
            rows.append(pd.DataFrame({"trace": curve.trace, "part": part, "tag": curve.tags}))
    if not rows:
        return pd.DataFrame(columns=["tag", "share", "value", "low", "high", "n"])
    tagged = pd.concat(rows).query("tag != ''")
    counts = tagged.groupby(["trace", "part", "tag"]).size().unstack("tag", fill_value=0)
    shares = counts.div(counts.sum(axis=1), axis=0)
    return pd.DataFrame(
        [
            {"tag": tag, "share": (part + 0.5) / parts} | vars(interval(group[tag]))
            for tag in shares
            for part, group in shares.groupby(level="part")
        ]
    )


# Does a longer prefix of a wrong trace poison?


def by_share(table: pd.DataFrame, shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)) -> pd.DataFrame:
    """Success of a share of the trace, right and wrong traces apart, and its gain over no prefix at all.

    One row per ``answer`` and ``share``: ``success`` and ``gain`` (paired), each with ``_low`` and ``_high`` (95 % over
    traces), ``n`` complete traces.
    """
    import pandas as pd

    found, rows = curves(table, complete=True), []
    for right in (True, False):
        group = [curve for curve in found if curve.right is right]
        for share in shares if group else ():
            at = np.array([curve.success[_length(curve.of, share)] for curve in group])
            here, gain = interval(at), paired_difference([at], [[curve.success[0] for curve in group]])
            row = {"answer": "right" if right else "wrong", "share": share, "success": here.value}
            row |= {"success_low": here.low, "success_high": here.high, "gain": gain.value}
            rows.append(row | {"gain_low": gain.low, "gain_high": gain.high, "n": here.n})
    bounds = [f"{name}{end}" for name in ("success", "gain") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["answer", "share", *bounds, "n"])


def thrown_away(table: pd.DataFrame, threshold: float = 0.5) -> pd.DataFrame:
    """At what length a filter on the answer drops a wrong trace's problem: one row per complete wrong trace.

    ``start`` and ``end``: success without a prefix and with the longest; ``best``, at the prefix that does most good.
    ``lost``: the share of the trace from which on the falling monotone fit is below ``threshold``, so that the filter
    more likely drops the problem than not; ``nan`` where it never is.
    """
    import pandas as pd

    rows = []
    for curve in curves(table, complete=True):
        if not curve.right:
            below = isotonic(curve.hits, curve.rollouts, increasing=False) < threshold - 1e-9
            lost = float(curve.sentences[below.argmax()] / curve.of) if below.any() else math.nan
            success = curve.success
            row = {"trace": curve.trace, "of": curve.of, "start": success[0], "best": success.max()}
            rows.append(row | {"end": success[-1], "lost": lost})
    return pd.DataFrame(rows, columns=["trace", "of", "start", "best", "end", "lost"])


# One table beside another


BESIDE = (
    ("sentences of a trace", "count"),
    ("rollouts of a prefix", "count"),
    ("success without a prefix", "share"),
    ("success of 30 % of the sentences", "share"),
    ("success of half of the sentences", "share"),
    ("success of the whole trace", "share"),
    ("traces that fall beyond chance", "share"),
    ("largest true fall, lower bound", "share"),
    ("linear search: landing", "share"),
    ("released search: landing", "share"),
    ("released search: success there", "share"),
    ("released search ends elsewhere than linear", "share"),
    ("the same, verdicts of 4 continuations", "share"),
    ("traces with a point of enough", "share"),
    ("trace behind the point of enough", "share"),
    ("retention: 30 % of the sentences", "share"),
    ("retention: a judge right in 90 %", "share"),
    ("retention: verified by 4 continuations", "share"),
    ("continuations a trace: verified by 4", "count"),
    ("retention: back-off from 10 %", "share"),
    ("continuations a trace: back-off from 10 %", "count"),
)
"""What is compared between two tables, on right traces, and whether it is a share or a count. Verdicts: at least half
of the continuations are right, those of the file where no number of them is said.
"""


def measures(table: pd.DataFrame, falls: pd.DataFrame, threshold: float = 0.9) -> pd.DataFrame:
    """The measures of :data:`BESIDE` of one table's right traces: ``measure``, ``value``, ``low`` and ``high`` (95 %),
    ``n`` traces. A measure that the table does not give is left out. ``falls``: :func:`monotone` of the same table.
    ``threshold``: of the point of enough.
    """
    import pandas as pd

    table = table[table["right"]]
    found = curves(table, complete=True)
    if not found:
        return pd.DataFrame(columns=["measure", "value", "low", "high", "n"])
    falls, ends = falls[falls["right"]], search_ends(table)
    ends = ends[ends["threshold"] == 0.5].set_index(["search", "samples"])
    kept = policies(table).set_index(["family", "policy"])
    points = enough_points(table, threshold)
    one = ("fixed share", "30%"), ("judge", "right in 90%, success of 50%")
    four, back = ("verified search", "4 continuations, 50% right"), ("back-off", "from 10%")

    def at(share: float) -> list[float]:
        return [curve.success[_length(curve.of, share)] for curve in found]

    values = [
        [curve.of for curve in found],
        [float(np.median(curve.rollouts)) for curve in found],
        *(at(share) for share in (0, 0.3, 0.5, 1)),
        falls["falls"],
        falls["low"],
        *(ends.loc[[(name, 0)], "landing"] for name in ("linear", "released")),
        ends.loc[[("released", 0)], "success"],
        *(ends.loc[[("released", samples)], "differs"] for samples in (0, 4)),
        points["point"].notna(),
        points["behind"].dropna(),
        *(kept.loc[[policy], "retention"] for policy in (*one, four)),
        kept.loc[[four], "continuations"],
        kept.loc[[back], "retention"],
        kept.loc[[back], "continuations"],
    ]
    rows = []
    for (name, kind), column in zip(BESIDE, values, strict=True):
        numbers = np.asarray(column, dtype=float)
        if numbers.size:
            estimate = mean_over_traces(numbers) if kind == "count" else interval(numbers.clip(0, 1))
            rows.append({"measure": name} | vars(estimate))
    return pd.DataFrame(rows)
