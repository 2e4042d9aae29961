"""The pocket student's skills, measured on problems of the probe split: ``python -m palign.pocket.probes``.

The numbers go into the model card. No test or training problem is used.
"""

import argparse
import json
import random
from pathlib import Path

from ..analysis.statistics import rank_auc
from ..engines.base import Sampling, seed_of
from ..engines.opening import open_engine
from ..grading import grade
from ..judging import Judge
from ..params import Machine, validate
from ..prompts import fill
from ..traces import RULES
from .curriculum import RARE_IN_DRAFTS, success_chance
from .world import BENCHMARKS, NUMBERS, TRAINING, draw_problems, teach

PROBLEMS = 120


def run(student: Path, split: str = "probe", problems: int = PROBLEMS) -> dict[str, float]:
    """Skill name -> share (or AUC), each over ``problems`` problems per benchmark."""
    params = validate({"student": str(student)}, "probes")
    engine = open_engine(params.model("student"), params.part(Machine))
    sampling = Sampling(params.max_new_tokens, params.temperature, params.top_p, params.repetition_penalty)
    greedy = Sampling(params.max_new_tokens)
    found = {}

    def share_right(prompts: list[str], golds: list[str], how: Sampling, name: str) -> None:
        seeds = [seed_of("probe", name, i) for i in range(len(prompts))]
        completions = engine.generate(prompts, how, seeds)
        right = [grade(c.text, gold).right for c, gold in zip(completions, golds, strict=True)]
        found[name] = round(sum(right) / len(right), 4)

    for name, kind in BENCHMARKS.items():
        drawn = draw_problems(split, problems, seed=f"probe {name}", **kind)
        golds = [problem.answer for problem in drawn]
        asked = [engine.prompt(fill(params.answer_prompt, question=problem.question)) for problem in drawn]
        share_right(asked, golds, sampling, f"{name}: zero-shot")
        begun = [f"{prompt}Now {NUMBERS[problem.start]}." for prompt, problem in zip(asked, drawn, strict=True)]
        share_right(begun, golds, greedy, f"{name}: made to go step by step")
        rng = random.Random(f"probe traces {name}")
        traces = [teach(problem, rng) for problem in drawn]
        oracle = [trace.text[: trace.sufficient_chars] for trace in traces]
        continued = [
            engine.prompt(fill(params.continue_prompt, question=problem.question, prefix=prefix))
            for problem, prefix in zip(drawn, oracle, strict=True)
        ]
        share_right(continued, golds, sampling, f"{name}: from the oracle prefix")
    judge = Judge(engine, params.judge_prompt, RULES[params.sentence_rule], params.verdict)
    return found | _judge(judge, split, problems)


def _judge(judge: Judge, split: str, problems: int) -> dict[str, float]:
    """The judge on one random prefix per problem, against the oracle and against the student's chance of success."""
    rng = random.Random("probe judge")
    drafts, truly, chance = [], [], []
    for problem in draw_problems(split, problems, TRAINING["n_keys"], RARE_IN_DRAFTS, seed="probe judge"):
        trace = teach(problem, rng)
        p = rng.randint(1, len(trace.sentences) - 1)
        drafts.append((problem.question, trace.sentences[:p]))
        truly.append(p >= trace.sufficient)
        chance.append(success_chance(problem, trace.states[p - 1]))
    verdicts = judge.open(drafts)([(i, len(sentences)) for i, (_, sentences) in enumerate(drafts)])
    enough = [verdict.label == "ENOUGH" for verdict in verdicts]
    margins = [verdict.margin for verdict in verdicts]
    return {
        "judge: share ENOUGH": round(sum(enough) / len(enough), 4),
        "judge: agrees with the oracle": round(sum(e == t for e, t in zip(enough, truly, strict=True)) / len(truly), 4),
        "judge: AUC against the oracle": round(rank_auc(margins, truly), 4),
        "judge: AUC against success likelier than not": round(rank_auc(margins, [c > 0.5 for c in chance]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", type=Path, default=Path(__file__).parent / "student")
    parser.add_argument("--split", choices=("probe", "validation"), default="probe")
    args = parser.parse_args()
    print(json.dumps(run(args.student.resolve(), args.split), indent=1))


if __name__ == "__main__":
    main()
