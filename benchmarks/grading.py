"""What grading costs: `python -m benchmarks.grading`. Ratios come from one run; the machine's own noise is in them."""

from __future__ import annotations

import random
import time

from palign.grading import LIMIT, grade_all

HOSTILE = {
    "tower of exponents": "9^{9^{9^{9^9}}}",
    "factorial of a million": "1000000!",
    "100,000 digits": "7" * 100_000,
    "sum of 50,000 ones": "1+" * 50_000 + "1",
    "braces 5,000 deep": "{" * 5_000 + "1" + "}" * 5_000,
    "fractions 3,000 deep": r"\frac{1}{" * 3_000 + "1" + "}" * 3_000,
    "roots 2,000 deep": r"\sqrt{" * 2_000 + "x" + "}" * 2_000,
    "sum to a trillion": r"\sum_{n=1}^{10^{12}} \frac{1}{n^2+n+1}",
    "integral without a closed form": r"\int_0^1 e^{x^{x^x}} \sin(\cos(x^x))\,dx",
    "product of 100,000 factors": r"\prod_{k=1}^{100000} (x+k)",
    "binomial of a billion": r"\binom{10^9}{5\cdot 10^8}",
    "power of a trinomial": "(x+y+z)^{3000}",
    "matrix power": r"\begin{pmatrix}" + "1 & " * 3_000 + r"1\end{pmatrix}^{1000}",
}


def responses(problems: int = 643, samples: int = 3, seed: int = 0) -> tuple[list[str], list[str]]:
    """As many as the paper's four benchmarks give, all different: fractions, roots, tuples, intervals, polynomials."""
    rng = random.Random(seed)
    forms = [
        r"\frac{{{}}}{{{}}}",
        r"{} + {}\sqrt{{2}}",
        r"\left({}, {}\right)",
        r"[{}, {}\pi)",
        r"{}x^2 - {}x + 1",
        r"{}^\circ + {}^\circ",
        r"\{{{}, {}\}}",
        "{}.{}",
    ]
    texts, golds = [], []
    for problem in range(problems):
        form = forms[problem % len(forms)]
        gold = form.format(rng.randrange(2, 10**4), rng.randrange(2, 10**4))
        for sample in range(samples):
            answer = gold if rng.random() < 0.5 else form.format(rng.randrange(2, 10**4), rng.randrange(2, 10**4))
            steps = " ".join(f"Step {i}: the value is ${rng.randrange(10**4)}$." for i in range(20))
            texts.append(rf"Attempt {problem}.{sample}. {steps} Hence \boxed{{ {answer} }}.")
            golds.append(gold)
    return texts, golds


def timed(*args, **kwargs) -> float:
    start = time.perf_counter()
    grade_all(*args, **kwargs)
    return time.perf_counter() - start


def main() -> None:
    timed([rf"\boxed{{x + {i}}}" for i in range(8)], ["y"] * 8, workers=2)  # workers start once; not counted
    # others each time: sympy remembers what it has seen
    one, two = timed(*responses(seed=1), workers=1), timed(*responses(seed=2), workers=2)
    print(f"{3 * 643} responses, strict and lenient: one worker {one:.1f} s, two {two:.1f} s, ratio {one / two:.2f}")
    print(f"{'hostile answer':32} {'strict':12} {'lenient':12} seconds (limit {LIMIT:g} each, two at a time)")
    for name, content in HOSTILE.items():
        start = time.perf_counter()
        (grade,) = grade_all([rf"\boxed{{{content}}}"], ["x + 7"], workers=2)
        print(f"{name:32} {grade.outcome:12} {grade.lenient:12} {time.perf_counter() - start:.1f}")


if __name__ == "__main__":
    main()
