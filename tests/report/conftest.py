"""Studies of made-up grades, without a run."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from palign.params import Benchmark, Params
from palign.report.results import Results
from palign.tasks.plan import Task


@pytest.fixture
def study(monkeypatch):
    """``study(sizes, skills)``: the results of a study whose arms answer right with these chances; the random numbers
    are the same for every arm. An arm may have one chance for each of ``seeds``. ``missing``: so many of an arm's
    responses, spread evenly, were never answered. ``drop`` leaves so many grades out.
    """

    def make(
        sizes: dict[str, int],
        skills: dict[str, float | Sequence[float]],
        drop: int = 0,
        seeds: Sequence[int] = (0,),
        missing: dict[str, int] | None = None,
    ) -> Results:
        def read(task, name):
            problems = [(benchmark, str(i)) for benchmark, n in sizes.items() for i in range(n)]
            if (task.stage, name) == ("benchmarks", "problems"):
                return [{"benchmark": b, "id": i, "question": f"{b} {i}", "answer": "1"} for b, i in problems]
            assert task.stage == "evaluation"
            arm, _, seed = task.variant.partition("-seed-")
            skill, rng = skills[arm], np.random.default_rng([0, *([int(seed)] if seed else [])])
            if not isinstance(skill, float):
                skill = skill[list(seeds).index(int(seed or 0))]
            share, records = Fraction((missing or {}).get(arm, 0), 3 * len(problems)), []
            for b, i in problems:
                for sample in range(3):
                    lost = (len(records) + 1) * share % 1 < share
                    right = bool(rng.random() < skill) and not lost
                    record = {"id": f"{b}/{i}/{sample}", "benchmark": b, "problem": i, "sample": sample, "right": right}
                    record |= {"outcome": "right" if right else "no box" if lost else "wrong"}
                    record |= {"lenient": record["outcome"], "finish": "endpoint error" if lost else "stop"}
                    record |= {"new_tokens": 0 if lost else 40 if arm == "p-align" else 80 + int(i) % 7}
                    record |= {
                        "loop": False,
                        "format": not lost,
                        "unclosed": False,
                        "doubts": 0,
                        "words": 0 if lost else 9,
                    }
                    records.append(
                        record | ({"reason": "HTTP 401: no such key"} if lost and name == "responses" else {})
                    )
            return records[drop:]

        monkeypatch.setattr(Task, "read", read)
        benchmarks = [Benchmark(name=name, data=f"{name}.jsonl", problems=n) for name, n in sizes.items()]
        params = Params(
            arms=list(skills),
            benchmarks=benchmarks,
            second_budget=None,
            judged_traces=0,
            training_seeds=list(seeds),
            judge="made-up/judge" if "p-align-other-judge" in skills else None,
        )
        return Results(params)

    return make
