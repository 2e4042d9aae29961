"""The expected cost of a study, before it runs: tokens, hours and GPU memory of every task, from expected lengths.

The lengths, the rates and the model's shape are in the params file (``costs``); everything else follows from the
study's parameters. It is an estimate, not a bound: it uses means in place of distributions, and takes a response whose
length is not listed to be as long as the arm's training targets, cut at the budget.

>>> estimates = Estimates(load("params/pocket.yaml"))
>>> estimates.table()
>>> print(estimates.line())
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..arms import ARMS
from ..engines.transformers import TransformersEngine
from ..finetuning import updates
from ..params import Costs, FineTuning, Params, ParamsError
from ..tasks.plan import Plan, Task
from .preference import RUBRIC, arm_pairs
from .sufficiency import CUTS, SAMPLES

if TYPE_CHECKING:
    import pandas as pd

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
"""Bytes of one number, by dtype; ``auto`` is taken to be bfloat16, in which most models are stored."""
ANSWER_TOKENS = 6
"""Tokens of a boxed answer or of a decoded verdict."""
MARKS_TOKENS = 2
"""Tokens of the markers around a prefix, at least."""
SENTENCE_TOKENS = 15
"""Tokens of a trace's sentence."""
LOSS_TOKENS = 1024
"""Positions whose logits a fused loss head holds at once."""
TOKENS = ["tokens_read", "tokens_generated", "tokens_trained"]
SUCCESS = ", success rate"
"""Ends the name of the row that holds an alignment's further continuations, which are timed but not counted."""


@dataclass(frozen=True)
class Cost:
    """One task's estimate: tokens ``read``, ``generated`` and ``trained`` on; bytes of GPU memory ``held``."""

    task: str
    arm: str | None
    read: float = 0
    generated: float = 0
    trained: float = 0
    held: float = 0


class Estimates:
    """The expected costs of one study."""

    def __init__(self, params: Params):
        self.params, self.costs, self.plan = params, params.costs, Plan(params)

    @property
    def stated(self) -> bool:
        """Whether the file states costs for its student: the defaults are the pocket student's only."""
        return self.costs != Params().costs or self.params.student == Params().student

    def table(self) -> pd.DataFrame:
        """One row per task: ``tokens_read``, ``tokens_generated``, ``tokens_trained``, ``hours``, ``gpu_gb``.

        ``hours`` are those of one process, without the start of its notebook; ``gpu_gb`` is in 10^9 bytes. Raises
        ``ParamsError`` where the costs are not :attr:`stated`.
        """
        import pandas as pd

        if not self.stated:
            raise ParamsError(f"costs: missing; say what lengths and rates to expect of {self.params.student}")
        rates, rows = self.costs, []
        for cost in self._costs:
            seconds = cost.read / rates.read_tokens_per_second + cost.generated / rates.generate_tokens_per_second
            seconds += cost.trained / rates.train_tokens_per_second
            rows.append((cost.task, cost.read, cost.generated, cost.trained, seconds / 3600, cost.held / 1e9))
        table = pd.DataFrame(rows, columns=["task", *TOKENS, "hours", "gpu_gb"]).set_index("task")
        return table.astype(dict.fromkeys(TOKENS, "int64"))

    def total_hours(self) -> float:
        """Wall-clock hours: shared tasks one by one, arms ``jobs`` at a time, and the start of each notebook."""
        table, notebooks = self.table(), self.plan.steps()
        inside = table.index.isin([cost.task for cost in self._costs if cost.arm])
        started = sum(bool(step.arm) for step in notebooks)
        start = self.costs.start_seconds / 3600
        shared = table.loc[~inside, "hours"].sum() + start * (len(notebooks) - started)
        return float(shared + (table.loc[inside, "hours"].sum() + start * started) / self._at_once)

    @property
    def _at_once(self) -> int:
        """Arms that run at the same time."""
        return min(self.params.jobs, len(self.params.arms))

    def line(self) -> str:
        """The estimate in one line. It is at the head of the params file; a test checks that the two are equal."""
        table = self.table()
        read, generated, trained = (_millions(table[name].sum()) for name in TOKENS)
        peak = f"{table['gpu_gb'].max():.2g}" if table["gpu_gb"].max() < 10 else f"{table['gpu_gb'].max():.0f}"
        return (
            f"Expected: {_hours(self.total_hours())} on {self.costs.device}, peak memory {peak} GB, "
            f"{read} M tokens read, {generated} M generated, {trained} M trained on."
        )

    def show(self) -> str:
        """The whole estimate as text: one row per task, totals, :meth:`line`, and how the last report compares."""
        table = self.table()
        table.loc["all tasks"] = {**table.sum(), "gpu_gb": table["gpu_gb"].max()}
        headings = ["read", "generated", "trained", "hours", "GPU GB"]
        formats = ["{:,.0f}".format] * 3 + [_decimal, "{:.2f}".format]
        shown = table.set_axis(headings, axis=1).rename_axis(index=None, columns="task")
        for name, form in zip(headings, formats, strict=True):
            shown[name] = shown[name].map(form)
        parts = [
            shown.to_string(col_space=[len(name) + 1 for name in headings]),
            f"\nWith the start of each notebook and {self._at_once} at once of the arms:\n{self.line()}",
        ]
        if (found := self.measured()) is not None:
            parts.append(
                f"\nEstimate divided by what the last report measured:\n{self.versus(found).to_string(na_rep='')}"
            )
        return "\n".join(parts)

    def measured(self) -> pd.DataFrame | None:
        """The cost table of the study's last report, or ``None`` where there is none."""
        import pandas as pd

        path = self.plan.report_path.parent / "tables" / "costs.csv"
        return pd.read_csv(path, index_col="task") if path.exists() else None

    def versus(self, found: pd.DataFrame) -> pd.DataFrame:
        """The estimate divided by what was ``found`` (1: right; 2: twice too much), by task and in ``total``.

        ``found`` has the columns of the report's cost table. As in the report, the further continuations of an
        alignment count in the seconds and not in the tokens; the start of notebooks counts in neither. Empty where the
        costs are not :attr:`stated`.
        """
        import pandas as pd

        if not self.stated:
            return pd.DataFrame()
        expected = self.table()
        seed = r"-seed-\d+$"
        names = expected.index.str.removesuffix(SUCCESS).str.replace(seed, "", regex=True)  # the report sums over seeds
        seconds = 3600 * expected["hours"].groupby(names).sum()
        counted = expected[~expected.index.str.endswith(SUCCESS)]
        counts = counted[TOKENS].astype(float).groupby(counted.index.str.replace(seed, "", regex=True)).sum()
        both = counts.assign(seconds=seconds).loc[names.unique()]
        both = both[both.index.isin(found.index)]
        actual = found.loc[both.index, [*TOKENS, "seconds"]].astype(float).fillna(0)
        both.loc["total"], actual.loc["total"] = both.sum(), actual.sum()
        return (both / actual.where(actual > 0)).round(2)

    @cached_property
    def _costs(self) -> list[Cost]:
        """Every task of the study, in order. A stage without a formula is free."""
        formulas = {
            "traces": self._traces,
            "truncation": self._truncation,
            "entropy": self._entropy,
            "alignment": self._alignment,
            "sufficiency": self._sufficiency,
            "finetuning": self._finetuning,
            "evaluation": self._evaluation,
            "preference": self._preference,
        }
        found = []
        for step in self.plan.steps():
            for task in step.tasks:
                if formula := formulas.get(task.stage):
                    found += formula(task, step.arm)
        return found

    @property
    def _prompt(self) -> int:
        """Tokens of a prompt that holds a question and no prefix."""
        return self.costs.question_tokens + self.costs.instruction_tokens

    def _traces(self, task: Task, arm: None) -> Iterator[Cost]:
        if self.params.teacher:
            n, new = self.costs.training_problems, self.costs.trace_tokens
            yield Cost(task.name, arm, n * self._prompt, n * new, held=self._generating(n, self._prompt + new))

    def _truncation(self, task: Task, arm: None) -> Iterator[Cost]:
        """A trace is read once, up to the longest prefix that is judged, and the instruction once for each verdict."""
        c, n, strategy = self.costs, self.costs.training_problems, task.variant
        if strategy.startswith(("fixed-", "segment-", "oracle")):  # these only count sentences
            yield Cost(task.name, arm)
            return
        whole = strategy in ("one-reading", "infogain")
        share = 1.0 if whole else max(0.5, c.prefix_share)  # a binary search begins in the middle
        calls = 1 if whole else c.judge_calls
        prompt = c.question_tokens + share * c.trace_tokens
        answer = min(ANSWER_TOKENS, self.params.verdict_max_new_tokens) if self.params.verdict == "decode" else 0
        held = self._generating(n, prompt + c.instruction_tokens)
        yield Cost(task.name, arm, n * (prompt + calls * c.instruction_tokens), n * calls * answer, held=held)

    def _entropy(self, task: Task, arm: None) -> Iterator[Cost]:
        """Some traces are read once, one by one; memory holds the logits of a block of tokens and two such tables."""
        c, n = self.costs, min(self.params.entropy_traces, self.costs.training_problems)
        tokens = self._prompt + c.trace_tokens
        logits = 3 * 4 * min(TransformersEngine.LOGITS, tokens * c.vocabulary)
        yield Cost(task.name, arm, n * tokens, held=self._generating(1, tokens) + logits)

    def _alignment(self, task: Task, arm: None) -> Iterator[Cost]:
        c, n, prefix = self.costs, self.costs.training_problems, prefix_tokens(self.costs, task.variant)
        new = c.continuation_tokens if prefix else c.response_tokens["zero-shot"]
        new = min(new, self.params.alignment_max_new_tokens)
        prompt = self._prompt + prefix
        held = self._generating(n, prompt + new)
        yield Cost(task.name, arm, n * prompt, n * new, held=held)
        if prefix and self.params.sufficiency_samples:
            again = n * self.params.sufficiency_samples
            yield Cost(task.name + SUCCESS, arm, again * prompt, again * new, held=held)

    def _sufficiency(self, task: Task, arm: None) -> Iterator[Cost]:
        """Some traces are read once, with a verdict on every sentence; then some prefixes of them are continued."""
        c, n = self.costs, min(self.params.judged_traces, self.costs.training_problems)
        verdicts = n * c.trace_tokens / SENTENCE_TOKENS
        again = n * CUTS * SAMPLES
        new = min(c.continuation_tokens, self.params.alignment_max_new_tokens)
        prompt = self._prompt + c.trace_tokens / 2
        read = n * (c.question_tokens + c.trace_tokens) + verdicts * c.instruction_tokens + again * prompt
        yield Cost(task.name, arm, read, again * new, held=self._generating(again, prompt + new))

    def _finetuning(self, task: Task, arm: str) -> Iterator[Cost]:
        c, recipe, n = self.costs, self.params.part(FineTuning), self.costs.training_problems
        strategy = ARMS[arm].strategy
        rows = n if strategy is None else round(n * (c.student_right if strategy == "empty" else c.retention))
        tokens = min(recipe.max_length, self._prompt + target_tokens(c, recipe, arm))
        if recipe.equal_updates:
            seen = updates(recipe, rows, n) * recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
        else:
            seen = rows * recipe.num_train_epochs
        yield Cost(task.name, arm, trained=seen * tokens, held=training(c, recipe, self.params.dtype))

    def _evaluation(self, task: Task, arm: str) -> Iterator[Cost]:
        n = sum(benchmark.problems for benchmark in self.params.benchmarks) * self.params.n_samples
        new = self._response(arm)
        yield Cost(task.name, arm, n * self._prompt, n * new, held=self._generating(n, self._prompt + new))

    def _response(self, arm: str) -> float:
        """Tokens of one response of the arm."""
        c, target = self.costs, ARMS[arm].target
        if target == "upft":  # some of its rows are whole traces, and it answers with whole traces
            like = c.trace_tokens
        else:
            like = target_tokens(c, self.params.part(FineTuning), arm) if target else 0
        return min(c.response_tokens.get(arm, like), self.params.max_new_tokens)

    def _preference(self, task: Task, arm: None) -> Iterator[Cost]:
        """Two orders of every pair; the rubric is free. It uses the student's rates and memory for any judge."""
        if self.params.preference_judge == RUBRIC:
            yield Cost(task.name, arm)
            return
        n = 2 * min(self.params.preference_problems, sum(b.problems for b in self.params.benchmarks))
        pairs = arm_pairs(self.params.arms)
        read = n * sum(self._prompt + self._response(a) + self._response(b) for a, b in pairs)
        budget = self.params.preference_max_new_tokens  # a judge reasons before its verdict, at most so long
        remote = self.params.model("preference_judge").is_service
        held = 0 if remote else self._generating(n, read / (n * len(pairs)) + budget)
        yield Cost(task.name, arm, read, n * len(pairs) * budget, held=held)

    def _generating(self, sequences: float, tokens: float) -> float:
        """Bytes of the weights, and of the key-value cache of one batch at its expected length."""
        at_once, length = min(self.params.batch_size, sequences), min(tokens, self.params.max_model_len)
        dtype = self.params.dtype
        return weights(self.costs, dtype) + at_once * length * kv_per_token(self.costs, dtype)


def prefix_tokens(costs: Costs, strategy: str) -> float:
    """Tokens of a strategy's prefix: a fixed share is in its name; a search has the expected share."""
    if strategy == "empty":
        return 0
    if strategy.startswith("segment-"):
        return costs.trace_tokens / 3
    fixed = re.fullmatch(r"fixed-(\d+)", strategy)
    return costs.trace_tokens * (int(fixed[1]) / 100 if fixed else costs.prefix_share)


def target_tokens(costs: Costs, recipe: FineTuning, arm: str) -> float:
    """Tokens of the arm's training targets: the mean over its rows."""
    spec = ARMS[arm]
    if spec.target == "label":
        return ANSWER_TOKENS
    if spec.target == "trace":
        return costs.trace_tokens
    if spec.target == "upft":
        share = recipe.upft_structure_share
        return share * costs.trace_tokens + (1 - share) * min(recipe.upft_tokens, costs.trace_tokens)
    prefix = prefix_tokens(costs, spec.strategy)
    new = costs.continuation_tokens if prefix else costs.response_tokens["zero-shot"]
    return {"prefix": prefix, "continuation": new}.get(spec.target, prefix + new + MARKS_TOKENS)


def weights(costs: Costs, dtype: str) -> float:
    """Bytes of the model's weights."""
    return 1e9 * costs.parameters_billion * BYTES[dtype]


def kv_per_token(costs: Costs, dtype: str) -> int:
    """Bytes of one token's keys and values over all layers."""
    return 2 * costs.layers * costs.kv_heads * costs.head_dim * BYTES[dtype]


def lora_parameters(costs: Costs, rank: int) -> int:
    """Trainable parameters of LoRA on all linear projections: rank x (inputs + outputs) of each."""
    h, i = costs.hidden_size, costs.intermediate_size
    q, kv = costs.heads * costs.head_dim, costs.kv_heads * costs.head_dim
    return rank * costs.layers * ((h + q) + 2 * (h + kv) + (q + h) + 3 * (h + i))


def training(costs: Costs, recipe: FineTuning, dtype: str) -> float:
    """Bytes held in training: weights; adapter, gradient and Adam's two moments in float32; activations; a block of
    logits and its gradient.

    Activations are those of gradient checkpointing: each layer's input, and the inside of one layer (about 8 hidden and
    4 feed-forward widths per token).
    """
    tokens = recipe.per_device_train_batch_size * recipe.max_length
    inside = 8 * costs.hidden_size + 4 * costs.intermediate_size
    activations = tokens * BYTES[dtype] * (costs.layers * costs.hidden_size + inside)
    logits = 2 * 4 * costs.vocabulary * min(tokens, LOSS_TOKENS)
    return weights(costs, dtype) + 16 * lora_parameters(costs, recipe.lora_r) + activations + logits


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:.3g}" if tokens < 1e8 else f"{tokens / 1e6:.0f}"


def _decimal(hours: float) -> str:
    return f"{hours:.3f}" if hours < 10 else f"{hours:.1f}"
