"""What the pocket student can do, measured on problems of the probe split: ``python -m palign.pocket.probes``.

The numbers go into the model card. No test or training problem is touched.
"""

import argparse
import json
import random
from pathlib import Path

from ..engines.base import Sampling, seed_of
from ..engines.opening import open_engine
from ..grading import grade
from ..judging import Judge
from ..params import Params, validate
from ..prompts import fill, render
from ..analysis.statistics import rank_auc
from .curriculum import RARE_IN_DRAFTS, success_chance
from .world import BENCHMARKS, NUMBERS, TRAINING, draw_problems, teach

PROBLEMS = 120


def run(student: Path, split: str = "probe", problems: int = PROBLEMS) -> dict[str, float]:
    """Skill name -> share (or AUC), each over ``problems`` problems a benchmark."""
    params = validate({"student": str(student)}, "probes")
    engine = open_engine(params)
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
        asked = [_ask(engine, params, params.answer_prompt, question=problem.question) for problem in drawn]
        share_right(asked, golds, sampling, f"{name}: zero-shot")
        begun = [f"{prompt}Now {NUMBERS[problem.start]}." for prompt, problem in zip(asked, drawn, strict=True)]
        share_right(begun, golds, greedy, f"{name}: made to go step by step")
        rng = random.Random(f"probe traces {name}")
        traces = [teach(problem, rng) for problem in drawn]
        oracle = [trace.text[: trace.sufficient_chars] for trace in traces]
        continued = [
            _ask(engine, params, params.continue_prompt, question=problem.question, prefix=prefix)
            for problem, prefix in zip(drawn, oracle, strict=True)
        ]
        share_right(continued, golds, sampling, f"{name}: from the oracle prefix")
    return found | _judge(engine, params, split, problems)


def _ask(engine, params: Params, template: str, **values: str) -> str:
    return render(engine.tokenizer, fill(template, **values), params.chat_template_kwargs)


def _judge(engine, params: Params, split: str, problems: int) -> dict[str, float]:
    """The judge on one random prefix a problem, against the oracle and against the student's chance of success."""
    rng = random.Random("probe judge")
    drafts, truly, chance = [], [], []
    for problem in draw_problems(split, problems, TRAINING["n_keys"], RARE_IN_DRAFTS, seed="probe judge"):
        trace = teach(problem, rng)
        p = rng.randint(1, len(trace.sentences) - 1)
        drafts.append((problem.question, trace.sentences[:p]))
        truly.append(p >= trace.sufficient)
        chance.append(success_chance(problem, trace.states[p - 1]))
    verdicts = Judge(engine, params).open(drafts)([(i, len(sentences)) for i, (_, sentences) in enumerate(drafts)])
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
