"""What ``palign plan`` expected beside what a finished study measured: every length and rate of ``costs``, and the
hours that follow from them.

>>> table(study).loc["trace_tokens"]
predicted    140.000
measured     139.550
ratio          1.003
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..analysis.estimates import TOKENS, Estimates
from ..engines.tokenizers import load_tokenizer
from ..prompts import BEGIN, END
from ..tasks.plan import Task
from ..truncation import SEARCHED
from . import tables
from .results import Results, answered

OTHERS = ("traces", "preference", "truncation/judge")
"""Stages and tasks that another model than the student runs: the rates do not describe them."""


def table(study: Results) -> pd.DataFrame:
    """One row per ``quantity``, named as in ``costs``: ``predicted``, ``measured`` and their ``ratio``.

    A ratio of 1 is right, 2 is twice too much. NaN where the study does not measure the quantity, or its params file
    does not state it. ``judge_calls`` are the verdicts of a search until it ends. ``response_tokens`` of an arm that
    ``costs`` do not list follow from its target. ``peak_gb`` is that of the process that holds most, in 10^9 bytes: its
    resident set or, where ``costs`` name a GPU, the GPU memory of training. ``hours`` are those of the tasks without
    the start of notebooks, ``jobs`` arms at a time. Raises ``TaskMissing`` for a study that is not finished.
    """
    estimates = Estimates(study.params)
    measured = _lengths(study) | _rates(study, estimates) | _totals(study, estimates)
    predicted = _predicted(study, estimates) if estimates.stated else {}
    found = pd.DataFrame({"predicted": predicted, "measured": measured}, index=list(measured), dtype=float)
    found["ratio"] = found["predicted"] / found["measured"].where(found["measured"] > 0)
    return found.rename_axis("quantity")


def _predicted(study: Results, estimates: Estimates) -> dict[str, float]:
    expected = estimates.table()
    found = {name: value for name, value in study.params.costs if isinstance(value, int | float)}
    found |= {name: estimates.verdicts(strategy) for name, strategy in _searches(study).items()}
    found |= {f"response_tokens, {arm}": estimates.response(arm) for arm in study.arms}
    holding = [task.name for task in _holding(study, estimates)]
    return found | {"peak_gb": expected.loc[holding, "memory_gb"].max(), "hours": estimates.wall(expected["hours"])}


def _searches(study: Results) -> dict[str, str]:
    """The names of the rows of verdicts -> the strategies that search by verdicts, the student's own search first."""
    found = [strategy for strategy in SEARCHED if strategy in study.plan.cuts]
    return {"judge_calls" if strategy == "adaptive" else f"judge_calls, {strategy}": strategy for strategy in found}


def _lengths(study: Results) -> dict[str, float]:
    """Lengths in tokens and shares, from the records."""
    lengths, searches = tables.lengths(study), _searches(study)
    found = {"training_problems": len(study.traces), **_prompts(study)}
    found |= {"trace_tokens": lengths["tokens"].mean(), "trace_spread": np.log(lengths["tokens"]).std()}
    found["sentence_tokens"] = lengths["tokens"].sum() / lengths["sentences"].sum()
    found |= {name: study.prefixes(strategy)["calls"].mean() for name, strategy in searches.items()}
    found["prefix_share"] = found["continuation_tokens"] = found["retention"] = found["student_right"] = np.nan
    if searches:
        first = next(iter(searches.values()))
        prefixes, pairs = study.prefixes(first), study.pairs(first)
        good = prefixes[prefixes["status"] == "ok"]
        found["prefix_share"] = good["prefix_tokens"].sum() / good["trace_tokens"].sum()
        if len(pairs):
            found["continuation_tokens"] = answered(pairs)["new_tokens"].mean()
            found["retention"] = pairs["kept"].mean()
    own = next((strategy for strategy in ("empty", "own-k") if strategy in study.plan.strategies), None)
    if own:
        found["student_right"] = study.pairs(own)["kept"].mean()
    if "rewrite" in study.plan.strategies:
        found["rewrite_right"] = study.pairs("rewrite")["kept"].mean()
    responses = answered(study.grades).groupby("arm")["new_tokens"].mean()
    return found | {f"response_tokens, {arm}": responses.get(arm, np.nan) for arm in study.arms}


def _prompts(study: Results) -> dict[str, float]:
    """``question_tokens`` and ``answer_tokens`` (boxed, with the token that ends a response) of the training problems,
    ``instruction_tokens`` of the test prompts, ``marks_tokens``; ``verdict_tokens`` and ``read_share`` of the student's
    binary search (of a scan the records do not say how many verdicts were looked ahead for).
    """
    tokenizer = load_tokenizer(study.params.model("student"))

    def tokens(texts: Iterable[str]) -> float:
        return np.mean([len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids])

    question = tokens(trace["question"] for trace in study.traces)
    prompt = answered(study.responses(*study.plan.runs[0]))["prompt_tokens"].mean()  # all arms get it
    demanded = share = np.nan
    if study.plan.is_adaptive and study.params.search != "linear":
        prefixes = study.prefixes()
        demanded = prefixes["tokens_demanded"].sum() / prefixes["calls"].sum()
        once = _manifest(study.plan.truncation())["tokens_read"] - prefixes["tokens_demanded"].sum()
        share = (once - question * len(study.traces)) / prefixes["trace_tokens"].sum()
    return {
        "question_tokens": question,
        "instruction_tokens": prompt - tokens(test["question"] for test in study.tests),
        "answer_tokens": tokens(f"\\boxed{{{trace['answer']}}}" for trace in study.traces) + 1,
        "marks_tokens": tokens([BEGIN]) + tokens([END]),
        "verdict_tokens": demanded,
        "read_share": share,
    }


def _rates(study: Results, estimates: Estimates) -> dict[str, float]:
    """Tokens a second of the student's tasks, by the rule that the estimate follows: seconds are tokens read by the
    reading rate, plus tokens generated by the generating rate, plus tokens trained on by the training rate.

    So tasks that only read (comparing verdicts, entropy) give the reading rate; of those that generate, the time that
    reading takes at this rate is subtracted (at the predicted one, where no task only reads).
    """
    own = [task for task in _measurable(study, estimates) if task.stage not in OTHERS and task.name not in OTHERS]
    rows = [[_manifest(task).get(name) or 0 for name in TOKENS] + [_seconds(task)] for task in own]
    spent = pd.DataFrame(rows, columns=[*TOKENS, "seconds"])
    train, generate = (spent[spent[name] > 0].sum() for name in ("tokens_trained", "tokens_generated"))
    read = spent[(spent["tokens_read"] > 0) & (spent["tokens_generated"] == 0)].sum()
    reading = _per(read["tokens_read"], read["seconds"])
    assumed = study.params.costs.read_tokens_per_second if np.isnan(reading) and estimates.stated else reading
    return {
        "read_tokens_per_second": reading,
        "generate_tokens_per_second": _per(
            generate["tokens_generated"], generate["seconds"] - generate["tokens_read"] / assumed
        ),
        "train_tokens_per_second": _per(train["tokens_trained"], train["seconds"]),
    }


def _per(tokens: float, seconds: float) -> float:
    return tokens / seconds if seconds > 0 else np.nan


def _totals(study: Results, estimates: Estimates) -> dict[str, float]:
    held = [_manifest(task).get("peak_memory_bytes") or np.nan for task in _holding(study, estimates)]
    hours = {task.name: _seconds(task) / 3600 for task in _measurable(study, estimates)}
    return {"peak_gb": pd.Series(held, dtype=float).max() / 1e9, "hours": estimates.wall(hours)}


def _holding(study: Results, estimates: Estimates) -> list[Task]:
    """The tasks whose memory is known: all without a GPU; with one, training, since a server holds its own."""
    gpu = study.params.costs.gpu_memory_gb is not None
    return [task for task in _measurable(study, estimates) if task.stage == "finetuning" or not gpu]


def _measurable(study: Results, estimates: Estimates) -> list[Task]:
    """The finished tasks that the estimate has a row for."""
    return [task for task in study.plan.tasks() if task.name in estimates.tasks and task.folder.done]


def _manifest(task: Task) -> dict:
    return task.require().manifest()


def _seconds(task: Task) -> float:
    """The seconds of computing, without the start of the notebook."""
    return _manifest(task).get("train_seconds", _manifest(task)["seconds"])
