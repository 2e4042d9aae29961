"""Studies of made-up grades, without a run."""

import numpy as np
import pytest

from palign.params import Benchmark, Params
from palign.report.results import Results
from palign.tasks.plan import Task


@pytest.fixture
def study(monkeypatch):
    """``study(sizes, skills)``: the results of a study whose arms answer right with these chances; the random numbers
    are the same for every arm. ``drop`` leaves so many grades out.
    """

    def make(sizes: dict[str, int], skills: dict[str, float], drop: int = 0) -> Results:
        def read(task, name):
            rng = np.random.default_rng(0)
            problems = [(benchmark, str(i)) for benchmark, n in sizes.items() for i in range(n)]
            if (task.stage, name) == ("benchmarks", "problems"):
                return [{"benchmark": b, "id": i, "question": f"{b} {i}", "answer": "1"} for b, i in problems]
            assert (task.stage, name) == ("evaluation", "grades")
            grades = [
                {"benchmark": b, "problem": i, "sample": sample, "right": bool(rng.random() < skills[task.variant])}
                | {"new_tokens": 40 if task.variant == "p-align" else 80 + int(i) % 7}
                for b, i in problems
                for sample in range(3)
            ]
            return grades[drop:]

        monkeypatch.setattr(Task, "read", read)
        benchmarks = [Benchmark(name=name, data=f"{name}.jsonl", problems=n) for name, n in sizes.items()]
        params = Params(arms=list(skills), benchmarks=benchmarks, second_budget=None, judged_traces=0)
        return Results(params)

    return make
