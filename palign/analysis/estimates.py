"""What a study will cost, before anything is spent: tokens, hours and GPU memory by task, from a few expected lengths.

The lengths, rates and the model's dimensions stand in the params file (``costs``); everything else follows from the
same parameters the study runs on. An estimate, not a bound: means stand for distributions, and a response that is not
listed is taken to be as long as what its arm was trained on, cut at the budget.

>>> table = estimate(load("params/pocket.yaml"))
>>> print(line(params))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..tasks import plan
from ..arms import ARMS
from ..engines.transformers import TransformersEngine
from ..finetuning import updates
from ..params import Params, ParamsError
from .preference import RUBRIC, arm_pairs
from ..study.run import steps
from ..tasks.plan import report_path

if TYPE_CHECKING:
    import pandas as pd

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
ANSWER_TOKENS = 6
"""Of a boxed bare answer, and of a decoded verdict."""
MARKS_TOKENS = 2
"""Of the markers around a prefix, at least."""
SENTENCE_TOKENS = 15
"""Of a sentence of a trace."""
LOSS_TOKENS = 1024
"""Positions whose logits a fused loss head holds at once."""


@dataclass(frozen=True)
class Cost:
    """Of one task: tokens ``read`` (prompts), ``generated`` and ``trained`` on; GPU memory ``held``, in bytes."""

    task: str
    arm: str | None
    read: float = 0
    generated: float = 0
    trained: float = 0
    held: float = 0


def estimate(params: Params) -> pd.DataFrame:
    """One row a task: ``tokens_read``, ``tokens_generated``, ``tokens_trained``, ``hours``, ``gpu_gb`` (10^9 bytes).

    ``hours`` are one process's, without the start of its notebook. Raises ``ParamsError`` where the file states no
    ``costs`` of its own though its student is not the pocket one.
    """
    import pandas as pd

    if not stated(params):
        raise ParamsError(f"costs: missing; say what lengths and rates to expect of {params.student}")
    rates, rows = params.costs, []
    for cost in _costs(params):
        seconds = cost.read / rates.read_tokens_per_second + cost.generated / rates.generate_tokens_per_second
        seconds += cost.trained / rates.train_tokens_per_second
        rows.append((cost.task, cost.read, cost.generated, cost.trained, seconds / 3600, cost.held / 1e9))
    names = ["task", "tokens_read", "tokens_generated", "tokens_trained", "hours", "gpu_gb"]
    table = pd.DataFrame(rows, columns=names).set_index("task")
    return table.astype({name: "int64" for name in names[1:4]})


def total_hours(params: Params) -> float:
    """Wall-clock hours of the study: shared tasks one by one, arms ``jobs`` at a time, and each notebook's start."""
    table, notebooks = estimate(params), steps(params)
    arms = {cost.task for cost in _costs(params) if cost.arm}
    inside = table.index.isin(arms)
    started = sum(bool(step.arm) for step in notebooks)
    start = params.costs.start_seconds / 3600
    beside = min(params.jobs, len(params.arms))
    shared = table.loc[~inside, "hours"].sum() + start * (len(notebooks) - started)
    return float(shared + (table.loc[inside, "hours"].sum() + start * started) / beside)


def line(params: Params) -> str:
    """The estimate in one line: it heads the params file, and a test holds the two equal."""
    table = estimate(params)
    sums = {name: _millions(table[f"tokens_{name}"].sum()) for name in ("read", "generated", "trained")}
    peak = f"{table['gpu_gb'].max():.2g}" if table["gpu_gb"].max() < 10 else f"{table['gpu_gb'].max():.0f}"
    return (
        f"Expected: {_hours(total_hours(params))} on {params.costs.device}, peak memory {peak} GB, "
        f"{sums['read']} M tokens read, {sums['generated']} M generated, {sums['trained']} M trained on."
    )


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:.3g}" if tokens < 1e8 else f"{tokens / 1e6:.0f}"


def measured(params: Params) -> pd.DataFrame | None:
    """The cost table of the study's last report, or ``None`` where there is none."""
    import pandas as pd

    path = report_path(params).parent / "tables" / "costs.csv"
    return pd.read_csv(path, index_col="task") if path.exists() else None


def versus(params: Params, found: pd.DataFrame) -> pd.DataFrame:
    """The estimate divided by what was ``found`` (1: right; 2: twice too much), by task and in ``total``.

    Empty where the study states no costs of its own. ``found`` has the columns of ``report.costs``. The success rate's
    continuations are timed, not counted, together with the alignment's own; the start of notebooks is in neither.
    """
    import pandas as pd

    if not stated(params):
        return pd.DataFrame()
    expected = estimate(params)
    columns = ["tokens_read", "tokens_generated", "tokens_trained"]
    names = expected.index.str.removesuffix(SUCCESS).str.replace(r"-seed-\d+$", "", regex=True)  # as the report sums
    seconds = 3600 * expected["hours"].groupby(names).sum()
    counted = expected[~expected.index.str.endswith(SUCCESS)]
    counts = counted[columns].astype(float).groupby(counted.index.str.replace(r"-seed-\d+$", "", regex=True)).sum()
    both = counts.assign(seconds=seconds).loc[names.unique()]
    both = both[both.index.isin(found.index)]
    actual = found.loc[both.index, [*columns, "seconds"]].astype(float).fillna(0)
    both.loc["total"], actual.loc["total"] = both.sum(), actual.sum()
    return (both / actual.where(actual > 0)).round(2)


SUCCESS = ", success rate"


def stated(params: Params) -> bool:
    """Whether the costs are the study's own, and not the pocket study's left standing for another student."""
    return params.costs != Params().costs or params.student == Params().student


def _costs(params: Params) -> list[Cost]:
    """Every task of the study, in order. A stage without a formula counts as free."""
    found = []
    for step in steps(params):
        for task in step.tasks:
            formula = {
                "traces": _traces,
                "truncation": _truncation,
                "entropy": _entropy,
                "alignment": _alignment,
                "sufficiency": _sufficiency,
                "finetuning": _finetuning,
                "evaluation": _evaluation,
                "preference": _preference,
            }.get(task.stage)
            found += formula(params, task, step.arm) if formula else []
    return found


def _traces(params: Params, task: plan.Task, arm: None) -> list[Cost]:
    if not params.teacher:
        return []
    c = params.costs
    n, prompt, trace = c.training_problems, c.question_tokens + c.instruction_tokens, c.trace_tokens
    return [Cost(task.name, None, n * prompt, n * trace, held=_generating(params, n, prompt + trace))]


def _truncation(params: Params, task: plan.Task, arm: None) -> list[Cost]:
    """The trace is read once, up to the longest prefix asked about, and each verdict reads its demand beside it."""
    c, n = params.costs, params.costs.training_problems
    strategy = task.variant
    if strategy.startswith(("fixed-", "segment-", "oracle")):
        return [Cost(task.name, None)]  # these only count sentences
    whole = strategy in ("one-reading", "infogain")
    share = 1.0 if whole else max(0.5, c.prefix_share)  # a binary search begins in the middle
    calls = 1 if whole else c.judge_calls
    prompt = c.question_tokens + share * c.trace_tokens
    decoded = n * calls * min(ANSWER_TOKENS, params.verdict_max_new_tokens) if params.verdict == "decode" else 0
    held = _generating(params, n, prompt + c.instruction_tokens)
    return [Cost(task.name, None, n * (prompt + calls * c.instruction_tokens), decoded, held=held)]


def _entropy(params: Params, task: plan.Task, arm: None) -> list[Cost]:
    """Some traces are read once, one by one; logits of a block of tokens and two tables of their size are held."""
    c, n = params.costs, min(params.entropy_traces, params.costs.training_problems)
    tokens = c.question_tokens + c.instruction_tokens + c.trace_tokens
    logits = 3 * 4 * min(TransformersEngine.LOGITS, tokens * c.vocabulary)
    return [Cost(task.name, None, n * tokens, held=_generating(params, 1, tokens) + logits)]


def _alignment(params: Params, task: plan.Task, arm: None) -> list[Cost]:
    c, n = params.costs, params.costs.training_problems
    prefix = _prefix(params, task.variant)
    new = min(c.continuation_tokens if prefix else c.response_tokens["zero-shot"], params.alignment_max_new_tokens)
    prompt = c.question_tokens + c.instruction_tokens + prefix
    held = _generating(params, n, prompt + new)
    found = [Cost(task.name, None, n * prompt, n * new, held=held)]
    if prefix and params.sufficiency_samples:
        again = n * params.sufficiency_samples
        found.append(Cost(task.name + SUCCESS, None, again * prompt, again * new, held=held))
    return found


def _sufficiency(params: Params, task: plan.Task, arm: None) -> list[Cost]:
    """Some traces are read once and every sentence asks for a verdict; then prefixes of them are continued."""
    c, n = params.costs, min(params.judged_traces, params.costs.training_problems)
    verdicts = n * c.trace_tokens / SENTENCE_TOKENS
    again, prefix = n * params.judged_cuts * params.judged_samples, c.trace_tokens / 2
    new = min(c.continuation_tokens, params.alignment_max_new_tokens)
    prompt = c.question_tokens + c.instruction_tokens + prefix
    read = n * (c.question_tokens + c.trace_tokens) + verdicts * c.instruction_tokens + again * prompt
    return [Cost(task.name, None, read, again * new, held=_generating(params, again, prompt + new))]


def _prefix(params: Params, strategy: str) -> float:
    """Tokens of a strategy's prefix: those that count sentences say their share, a search's is expected."""
    if strategy == "empty":
        return 0
    if strategy.startswith("segment-"):
        return params.costs.trace_tokens / 3
    fixed = re.fullmatch(r"fixed-(\d+)", strategy)
    return params.costs.trace_tokens * (int(fixed[1]) / 100 if fixed else params.costs.prefix_share)


def _target(params: Params, arm: str) -> float:
    """Tokens of what the arm is trained on: the mean of its rows."""
    c, spec = params.costs, ARMS[arm]
    if spec.target == "label":
        return ANSWER_TOKENS
    if spec.target == "trace":
        return c.trace_tokens
    if spec.target == "upft":
        share = params.upft_structure_share
        return share * c.trace_tokens + (1 - share) * min(params.upft_tokens, c.trace_tokens)
    prefix = _prefix(params, spec.strategy)
    new = c.continuation_tokens if prefix else c.response_tokens["zero-shot"]
    return {"prefix": prefix, "continuation": new}.get(spec.target, prefix + new + MARKS_TOKENS)


def _finetuning(params: Params, task: plan.Task, arm: str) -> list[Cost]:
    c, n = params.costs, params.costs.training_problems
    strategy = ARMS[arm].strategy
    rows = n if strategy is None else round(n * (c.student_right if strategy == "empty" else c.retention))
    tokens = min(params.max_length, c.question_tokens + c.instruction_tokens + _target(params, arm))
    if params.equal_updates:
        seen = updates(params, rows, n) * params.per_device_train_batch_size * params.gradient_accumulation_steps
    else:
        seen = rows * params.num_train_epochs
    return [Cost(task.name, arm, trained=seen * tokens, held=_training(params))]


def _evaluation(params: Params, task: plan.Task, arm: str) -> list[Cost]:
    c = params.costs
    n = sum(benchmark.problems for benchmark in params.benchmarks) * params.n_samples
    prompt, new = c.question_tokens + c.instruction_tokens, _response(params, arm)
    return [Cost(task.name, arm, n * prompt, n * new, held=_generating(params, n, prompt + new))]


def _response(params: Params, arm: str) -> float:
    """Tokens of one response of the arm."""
    c = params.costs
    # an arm that shows whole traces now and then answers with whole traces
    like = c.trace_tokens if ARMS[arm].target == "upft" else _target(params, arm) if ARMS[arm].target else 0
    return min(c.response_tokens.get(arm, like), params.max_new_tokens)


def _preference(params: Params, task: plan.Task, arm: None) -> list[Cost]:
    """Two orders of every pair; the scripted rubric is free. Hours at the student's rates, memory as if it judged."""
    if params.preference_judge == RUBRIC:
        return [Cost(task.name, None)]
    c = params.costs
    n = 2 * min(params.preference_problems, sum(b.problems for b in params.benchmarks))
    pairs = arm_pairs(params.arms)
    prompt = c.question_tokens + c.instruction_tokens
    read = n * sum(prompt + _response(params, a) + _response(params, b) for a, b in pairs)
    new = n * len(pairs) * params.preference_max_new_tokens  # a judge reasons before its verdict, at most so long
    remote = str(params.preference_judge).startswith("endpoint:")
    held = 0 if remote else _generating(params, n, read / (n * len(pairs)) + params.preference_max_new_tokens)
    return [Cost(task.name, None, read, new, held=held)]


def weights(params: Params) -> float:
    """Bytes of the model's weights."""
    return 1e9 * params.costs.parameters_billion * BYTES[params.dtype]


def kv_per_token(params: Params) -> int:
    """Bytes of one token's keys and values over all layers."""
    c = params.costs
    return 2 * c.layers * c.kv_heads * c.head_dim * BYTES[params.dtype]


def lora_parameters(params: Params) -> int:
    """Trainable parameters of LoRA on all linear projections: r (inputs + outputs) of each."""
    c = params.costs
    h, q, kv, i = c.hidden_size, c.heads * c.head_dim, c.kv_heads * c.head_dim, c.intermediate_size
    return params.lora_r * c.layers * ((h + q) + 2 * (h + kv) + (q + h) + 3 * (h + i))


def _generating(params: Params, sequences: float, tokens: float) -> float:
    """Weights, and the key-value states of one batch at its expected length."""
    at_once = min(params.batch_size, sequences)
    return weights(params) + at_once * min(tokens, params.max_model_len) * kv_per_token(params)


def _training(params: Params) -> float:
    """Weights; adapter, gradient and Adam's two moments in float32; activations; a block of logits and its gradient.

    Activations, with gradient checkpointing: each layer's input, and one layer's inside (about 8 hidden and 4
    feed-forward widths a token).
    """
    c, size = params.costs, BYTES[params.dtype]
    tokens = params.per_device_train_batch_size * params.max_length
    inside = 8 * c.hidden_size + 4 * c.intermediate_size
    activations = tokens * size * (c.layers * c.hidden_size + inside)
    logits = 2 * 4 * c.vocabulary * min(tokens, LOSS_TOKENS)
    return weights(params) + 16 * lora_parameters(params) + activations + logits


def show(params: Params) -> str:
    """The whole estimate as text: a row a task, totals, the line for the file's head, and how a past run compares."""
    table = estimate(params)
    rows = [("task", "read", "generated", "trained", "hours", "GPU GB")]
    rows += [
        (task, *(f"{row[f'tokens_{name}']:,.0f}" for name in ("read", "generated", "trained")), *_tail(row))
        for task, row in table.iterrows()
    ]
    sums = table.sum()
    sums["gpu_gb"] = table["gpu_gb"].max()
    rows.append(
        ("all tasks", *(f"{sums[f'tokens_{name}']:,.0f}" for name in ("read", "generated", "trained")), *_tail(sums))
    )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines += [
        "",
        f"With the start of each notebook and {min(params.jobs, len(params.arms))} at once of the arms:",
        line(params),
    ]
    found = measured(params)
    if found is not None:
        ratios = versus(params, found).to_string(na_rep="")
        lines += ["", "Estimate divided by what the last report measured:", ratios]
    return "\n".join(lines)


def _tail(row) -> tuple[str, str]:
    return f"{row['hours']:.3f}" if row["hours"] < 10 else f"{row['hours']:.1f}", f"{row['gpu_gb']:.2f}"
