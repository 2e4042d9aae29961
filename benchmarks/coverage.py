"""How often do 95 % intervals hold the truth? ``python -m benchmarks.coverage [--studies 4000]``.

It takes some twenty minutes on one core. Problems are drawn from a distribution of difficulties, responses from the
problems; the truth is the distribution's mean. The bootstraps that the project does not use are measured as well, on a
quarter of the studies. Exits with 1 when an interval of the project holds the truth in less than 93 or more than 97 %.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
from scipy.stats import norm
from tqdm import tqdm

from palign.analysis.statistics import average, interval, minimum_detectable_effect, paired_difference

DIFFICULTIES = {  # parameters of a beta distribution of a problem's chance of being solved
    "all alike, .5": (5000, 5000),
    "any, .5": (1, 1),
    "solved or not, .5": (0.3, 0.3),
    "hard, .11": (0.5, 4),
    "easy, .89": (4, 0.5),
    "mostly never, .125": (0.1, 0.7),
}
SIZES, SAMPLES = (30, 83, 500), (1, 3, 16)
PAPER = (30, 30, 83, 500)
RESAMPLES = 1000


def bootstraps(correct: np.ndarray, samples: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """95 % bounds by three bootstraps. ``correct``: right samples a problem, of shape (problems,).

    The counts have few distinct values, so a resample is drawn as how often each value occurs.
    """
    n, values = correct.size, np.arange(samples + 1) / samples
    drawn = rng.multinomial(n, np.bincount(correct, minlength=samples + 1) / n, size=RESAMPLES)
    means = drawn @ values / n
    nested = rng.binomial(drawn * samples, values).sum(axis=1) / (samples * n)
    bounds = {"problems": np.quantile(means, [0.025, 0.975]), "then samples": np.quantile(nested, [0.025, 0.975])}
    below = (np.mean(means < correct.mean() / samples) + np.mean(means <= correct.mean() / samples)) / 2
    influence = correct.mean() - correct
    if 0 < below < 1 and influence.any():
        bias = norm.ppf(below)
        skew = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
        shifted = bias + norm.ppf([0.025, 0.975])
        bounds["BCa"] = np.quantile(means, norm.cdf(bias + shifted / (1 - skew * shifted)))
    else:
        bounds["BCa"] = bounds["problems"]
    return bounds


def single(studies: int, rng: np.random.Generator) -> pd.DataFrame:
    """One benchmark: coverage in percent by size, samples and difficulty."""
    rows = []
    for n in tqdm(SIZES, desc="one benchmark", leave=False):
        for samples in SAMPLES:
            for name, (a, b) in DIFFICULTIES.items():
                truth = a / (a + b)
                correct = rng.binomial(samples, rng.beta(a, b, (studies, n)))
                ours = [interval(row / samples) for row in correct]
                row = {"n": n, "samples": samples, "difficulty": name}
                row["ours"] = 100 * np.mean([e.low <= truth <= e.high for e in ours])
                rival = [bootstraps(c, samples, rng) for c in correct[: studies // 4]]
                for method in rival[0]:
                    row[method] = 100 * np.mean([found[method][0] <= truth <= found[method][1] for found in rival])
                rows.append(row)
    return pd.DataFrame(rows)


def averages(studies: int, rng: np.random.Generator) -> pd.DataFrame:
    """The paper's four benchmarks, two of them hard: macro and micro average."""
    mix = [(0.3, 2), (0.3, 2), (1, 1), (3, 0.8)]
    rows = []
    for samples in tqdm(SAMPLES, desc="averages", leave=False):
        groups = [
            rng.binomial(samples, rng.beta(a, b, (studies, n))) / samples for (a, b), n in zip(mix, PAPER, strict=True)
        ]
        means = np.array([a / (a + b) for a, b in mix])
        for weigh, truth in (("benchmarks", means.mean()), ("problems", means @ PAPER / sum(PAPER))):
            found = [average([group[i] for group in groups], weigh) for i in range(studies)]
            rows.append({"samples": samples, "weigh": weigh, "ours": _covered(found, truth)})
    return pd.DataFrame(rows)


def differences(studies: int, rng: np.random.Generator) -> pd.DataFrame:
    """A paired difference: one arm's log-odds are shifted, and jittered from problem to problem."""
    rows = []
    for sizes in tqdm(((30,), (83,), (500,), PAPER), desc="differences", leave=False):
        for samples in SAMPLES:
            for name in ("any, .5", "hard, .11", "easy, .89"):
                for shift, jitter in ((0.0, 0.0), (0.5, 0.5), (0.5, 2.0)):
                    truth = np.subtract(*_shifted(2_000_000, name, shift, jitter, rng)[::-1]).mean()
                    found = []
                    for _ in range(studies):
                        arms = [_shifted(n, name, shift, jitter, rng) for n in sizes]
                        a, b = ([rng.binomial(samples, p) / samples for p in arm] for arm in zip(*arms, strict=True))
                        found.append(paired_difference(b, a))
                    rows.append(
                        {"n": "+".join(map(str, sizes)), "samples": samples, "difficulty": name, "shift": shift}
                        | {"jitter": jitter, "ours": _covered(found, truth)}
                    )
    return pd.DataFrame(rows)


def power(studies: int, rng: np.random.Generator) -> pd.DataFrame:
    """Is a true difference of the minimum detectable size found four times in five? Independent arms around .5."""
    rows = []
    for sizes in ((83,), (500,), PAPER):
        effect = minimum_detectable_effect(sizes)
        found = []
        for _ in range(studies):
            a, b = ([rng.binomial(1, 0.5 + sign * effect / 2, n) for n in sizes] for sign in (1, -1))
            found.append(paired_difference(a, b).low > 0)
        rows.append({"n": "+".join(map(str, sizes)), "points": 100 * effect, "found": 100 * np.mean(found)})
    return pd.DataFrame(rows)


def _shifted(n: int, name: str, shift: float, jitter: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    p = rng.beta(*DIFFICULTIES[name], n).clip(1e-9, 1 - 1e-9)
    odds = np.log(p / (1 - p)) + shift + jitter * rng.standard_normal(n)
    return p, 1 / (1 + np.exp(-odds))


def _covered(found: list, truth: float) -> float:
    return 100 * np.mean([estimate.low <= truth <= estimate.high for estimate in found])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies a row")
    studies, rng = parser.parse_args().studies, np.random.default_rng(0)
    tables = {
        "One benchmark, coverage of 95 % intervals in percent (bootstraps: of problems; of these, then samples; BCa)": (
            alone := single(studies, rng)
        ),
        "Average over 30, 30, 83 and 500 problems": (over := averages(studies, rng)),
        "Paired difference": (pairs := differences(studies, rng)),
        "Power at the minimum detectable effect, in percent": power(studies, rng),
    }
    for title, table in tables.items():
        print(f"\n{title}\n{table.round(1).to_string(index=False)}")
    print("\nRange by size, one benchmark")
    print(alone.groupby("n")[["ours", "problems", "then samples", "BCa"]].agg(["min", "max"]).round(1).to_string())
    covered = pd.concat([alone["ours"], over["ours"], pairs["ours"]])
    outside = int(((covered < 93) | (covered > 97)).sum())
    spread = f"{covered.min():.1f} to {covered.max():.1f} %, {outside} outside 93 to 97 %"
    print(f"\n{len(covered)} settings of {studies} studies each: {spread}")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
