"""The expected cost of a study, before it runs: tokens, hours and memory of every task, from expected lengths.

The lengths, the rates and the model's shape are in the params file (``costs``); everything else follows from the
study's parameters. ``palign.report.rates`` prints them beside what a study measured. It is an estimate, not a bound: it
uses means in place of distributions (except for the rows that ``max_length`` leaves out), and takes a response whose
length is not listed to be as long as the arm's training targets, cut at the budget.

>>> estimates = Estimates(load("params/pocket.yaml"))
>>> estimates.table()
>>> print(estimates.line())
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING

from ..arms import ARMS
from ..engines.transformers import TransformersEngine
from ..finetuning import TOLERATED, updates
from ..params import Costs, FineTuning, Params, ParamsError, Shape
from ..tasks.plan import SELECTED, Plan, Task
from ..truncation import SCAN_BLOCK, SEARCHED
from .expected import Expected
from .preference import RUBRIC, arm_pairs

if TYPE_CHECKING:
    import pandas as pd

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
"""Bytes of one number, by dtype; ``auto`` is taken to be bfloat16, in which most models are stored."""
NUMBER_TOKENS = 6
"""Tokens of a sentence's number, once in the prompt of ``one-reading`` and once among the labels it compares."""
LOSS_TOKENS = {"trl": 256, "unsloth": 1024}
"""Positions whose logits a trainer's fused loss holds at once: fitted to reports/benchmarks/gpu.md."""
PLAIN_LOSS = 13
"""Bytes of a logit where the loss is not fused, as on a CPU: 8.1 GB were measured at 4,096 tokens of 152,064 logits."""
PASS_TOKENS = 8192
"""Tokens of prompts that an engine reads in one pass (vLLM's default)."""
RUNTIME = 1.0e9
"""Bytes of CUDA's context, kernels and recorded graphs (assumed)."""
GPU_SHARE = 0.92
"""Share of a GPU's memory that can be filled; vLLM has a parameter for it."""
FOUR_BIT = 0.56
"""Bytes of a weight quantised to 4 bits, its block's scale included."""
CONTINUED = 5
"""Prefixes of a pilot's trace that calibration continues: its thresholds share some (assumed)."""
TOKENS = ["tokens_read", "tokens_generated", "tokens_trained"]


@dataclass(frozen=True)
class Cost:
    """One task's estimate: tokens ``read``, ``generated`` and ``trained`` on; bytes ``held`` by the model and its
    work, which are those of the GPU where there is one. ``rate``: tokens generated per second, if not the student's.
    """

    task: str
    arm: str | None
    read: float = 0
    generated: float = 0
    trained: float = 0
    held: float = 0
    rate: float | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes that one stage holds: the model's ``weights``; its ``work`` (activations, logits, in training the adapter
    and its optimizer); the key-value ``cache`` of the ``rows`` that run at once, of ``length`` tokens each as expected.
    ``room``: tokens that the cache can hold beside the rest, infinite without a GPU.
    """

    weights: float
    work: float
    cache: float = 0
    rows: float = 0
    length: float = 0
    room: float = math.inf

    @property
    def held(self) -> float:
        return self.weights + self.work + self.cache


@dataclass(frozen=True)
class Rows:
    """An arm's training rows: the share ``over`` ``max_length``, the share ``left`` for training, mean ``tokens`` of a
    row before anything is cut or left out, and of one that is ``trained`` on.
    """

    over: float
    left: float
    tokens: float
    trained: float


class Estimates:
    """The expected costs of one study."""

    def __init__(self, params: Params):
        self.params, self.costs, self.plan = params, params.costs, Plan(params)
        self.expected = Expected.of(params)

    @property
    def stated(self) -> bool:
        """Whether the file states costs for its student: the defaults are the pocket student's only."""
        return self.costs != Params().costs or self.params.student == Params().student

    def table(self) -> pd.DataFrame:
        """One row per task: ``tokens_read``, ``tokens_generated``, ``tokens_trained``, ``hours``, ``memory_gb``.

        ``hours`` are those of one process, without the start of its notebook. ``memory_gb``, in 10^9 bytes: of the GPU,
        or of the process where there is none. Raises ``ParamsError`` where the costs are not :attr:`stated`.
        """
        import pandas as pd

        if not self.stated:
            raise ParamsError(f"costs: missing; say what lengths and rates to expect of {self.params.student}")
        rates, rows = self.costs, []
        process = (rates.process_gb or 0) if rates.gpu_memory_gb is None else 0
        for cost in self._costs:
            seconds = cost.read / rates.read_tokens_per_second
            seconds += cost.generated / (cost.rate or rates.generate_tokens_per_second)
            seconds += cost.trained / rates.train_tokens_per_second
            tokens = (cost.read, cost.generated, cost.trained)
            rows.append((cost.task, *map(round, tokens), seconds / 3600, process + cost.held / 1e9))
        return pd.DataFrame(rows, columns=["task", *TOKENS, "hours", "memory_gb"]).set_index("task")

    def total_hours(self) -> float:
        """Wall-clock hours: shared tasks one by one, arms ``jobs`` at a time, and the start of each notebook."""
        notebooks = self.plan.steps()
        started = sum(bool(step.arm) for step in notebooks)
        start = self.costs.start_seconds / 3600
        return self.wall(self.table()["hours"]) + start * (len(notebooks) - started + started / self._at_once)

    def wall(self, hours: Mapping[str, float]) -> float:
        """The wall-clock hours of tasks that take ``hours`` (by name): shared ones one by one, arms at a time."""
        inside = self._inside
        return float(sum(one / self._at_once if task in inside else one for task, one in hours.items()))

    @cached_property
    def tasks(self) -> set[str]:
        """The names of the tasks that cost something."""
        return {cost.task for cost in self._costs}

    @cached_property
    def _inside(self) -> set[str]:
        """The tasks that several arms run at the same time."""
        return {cost.task for cost in self._costs if cost.arm}

    @property
    def _at_once(self) -> int:
        """Arms (and training seeds) that run at the same time."""
        return min(self.params.jobs, len(self.plan.runs))

    def peak_gb(self) -> float:
        """The most memory that the study holds at a time, in 10^9 bytes, summed over the processes at once."""
        memory = self.table()["memory_gb"]
        return max(gb * (self._at_once if task in self._inside else 1) for task, gb in memory.items())

    def line(self) -> str:
        """The estimate in one line. It is at the head of the params file; a test checks that the two are equal."""
        table, gb = self.table(), self.peak_gb()
        read, generated, trained = (_millions(table[name].sum()) for name in TOKENS)
        peak = f"{gb:.2g} GB" if gb < 10 else f"{gb:.0f} GB"
        memory = f"peak memory {peak}" if self.costs.gpu_memory_gb is None else f"GPU memory {peak} (estimated)"
        return (
            f"Expected: {_hours(self.total_hours())} on {self.costs.device}, {memory}, "
            f"{read} M tokens read, {generated} M generated, {trained} M trained on."
        )

    def show(self) -> str:
        """The whole estimate as text: one row per task, totals, :meth:`line`, :meth:`warnings`, and how the last report
        compares.
        """
        table = self.table()
        table.loc["all tasks"] = {**table.sum(), "memory_gb": self.peak_gb()}
        headings = ["read", "generated", "trained", "hours", "GB" if self.costs.gpu_memory_gb is None else "GPU GB"]
        formats = ["{:,.0f}".format] * 3 + [_decimal, "{:.2f}".format]
        shown = table.set_axis(headings, axis=1).rename_axis(index=None, columns="task")
        for name, form in zip(headings, formats, strict=True):
            shown[name] = shown[name].map(form)
        parts = [
            shown.to_string(col_space=[len(name) + 1 for name in headings]),
            f"\nWith the start of each notebook and {self._at_once} at once of the arms:\n{self.line()}",
            f"\nMemory by stage, GB, {self._machine}:\n{self._memory_text()}",
            *(f"warning: {warning}" for warning in self.warnings()),
            *self.fallbacks(),
        ]
        if (found := self.measured()) is not None:
            parts.append(
                f"\nEstimate divided by what the last report measured:\n{self.versus(found).to_string(na_rep='')}"
            )
        return "\n".join(parts)

    def fallbacks(self) -> list[str]:
        """How many rows the arms with a fallback would train on whole traces, by the expected retention, one line each;
        also of p-align-fallback where the study has p-align.
        """
        n, arms = self.costs.training_problems, list(self.params.arms)
        arms += ["p-align-fallback"] if "p-align" in arms and "p-align-fallback" not in arms else []
        found = [(arm, *self.expected.fallback(arm)) for arm in arms if ARMS[arm].fallback]
        return [
            f"{arm}: about {n * whole:,.0f} of {n * rows:,.0f} rows ({100 * whole / rows:.0f} %) would be whole traces"
            for arm, whole, rows in found
            if rows
        ]

    def warnings(self) -> list[str]:
        """What the parameters and the expected lengths say of each other that is probably not meant, one line each.

        More than ``TOLERATED`` of an arm's training rows longer than ``max_length``, of the prefixes too long to be
        continued, or of the traces too long to be judged; budgets and rows beyond the context; memory beyond the
        GPU's. Empty where the costs are not :attr:`stated`.
        """
        return [*self._lengths(), *self._memory_faults()] if self.stated else []

    def _lengths(self) -> Iterator[str]:
        p, c = self.params, self.costs
        if self._prompt + p.max_new_tokens > p.max_model_len:
            yield (
                f"max_new_tokens {p.max_new_tokens} and a prompt of {self._prompt} tokens exceed "
                f"max_model_len {p.max_model_len}"
            )
        if p.max_length > p.max_model_len and any(ARMS[arm].target for arm in p.arms):
            yield f"max_length {p.max_length} exceeds max_model_len {p.max_model_len}, all that the student reads"
        for strategy in self.plan.cuts:
            if strategy in SEARCHED and not self.scans(strategy):  # a binary search begins in the middle
                limit = p.judge_max_model_len if strategy == "judge" else p.max_model_len
                context = "judge_max_model_len" if strategy == "judge" else "max_model_len"
                room = limit - self._prompt - c.verdict_tokens - self._verdict(strategy)
                if (over := 1 - fitting(c.trace_tokens / 2, c.trace_spread, room)[0]) > TOLERATED:
                    yield (
                        f"about {100 * over:.0f} % of the traces are too long to be judged: half of the trace is read "
                        f"first and exceeds {context} {limit}"
                    )
        said: dict[str, list[str]] = {}  # what is to be said of several strategies, said once
        for strategy, text in self._too_long():
            said.setdefault(text, []).append(strategy)
        for text, strategies in said.items():
            yield text.format(", ".join(strategies))
        for arm in p.arms:
            if ARMS[arm].target and (rows := self.rows(arm)).over > TOLERATED:
                answers = {part.answers for part in self.expected.parts(arm)}
                lot = "cut or left out" if len(answers) > 1 else "left out" if True in answers else "cut"
                yield (
                    f"about {100 * rows.over:.0f} % of {arm}'s rows ({rows.tokens:,.0f} tokens on average) would "
                    f"exceed max_length {p.max_length} and be {lot}"
                )

    def _too_long(self) -> Iterator[tuple[str, str]]:
        """Strategies with texts that exceed the context, each with a warning that has a place for their names."""
        p, c = self.params, self.costs
        chosen = [strategy for strategy in self.plan.strategies if strategy in SELECTED]
        whole = [*(("entropy-pruned",) if "entropy-pruned" in self.plan.cuts else ()), *chosen]
        if (over := 1 - fitting(c.trace_tokens, c.trace_spread, p.max_model_len - self._prompt)[0]) > TOLERATED:
            text = f"about {100 * over:.0f} % of the traces ({{}}) are too long to be read: a whole trace exceeds "
            yield from ((strategy, text + f"max_model_len {p.max_model_len}") for strategy in whole)
        room = p.max_model_len - self._prompt - p.alignment_max_new_tokens
        for strategy in (one for one in self.plan.strategies if one not in chosen):
            prefix, _ = self._continued(strategy)
            what = "traces" if strategy == "rewrite" else "prefixes"
            if (over := 1 - fitting(prefix, c.trace_spread if prefix else 0, room)[0]) > TOLERATED:
                text = f"about {100 * over:.0f} % of the {what} ({{}}) cannot be continued: beside "
                text += f"alignment_max_new_tokens {p.alignment_max_new_tokens}, max_model_len {p.max_model_len} "
                yield strategy, text + f"leaves {max(0, room):,.0f} tokens for them"

    def _memory_faults(self) -> Iterator[str]:
        if self._usable is None:
            return
        for stage, memory in self.memory.items():
            context = self.params.teacher_max_model_len if stage == "traces" else self.params.max_model_len
            if memory.length and memory.room < memory.length:
                yield (
                    f"{stage}: {max(0, memory.room):,.0f} tokens of cache fit beside the weights "
                    f"({memory.weights / 1e9:.3g} GB), fewer than one row of {memory.length:,.0f} needs"
                )
            elif memory.length and self.params.engine == "vllm" and memory.room < context:
                yield (
                    f"{stage}: {memory.room:,.0f} tokens of cache fit beside the weights; to start, vLLM wants room "
                    f"for a whole context of {context}; raise gpu_memory_utilization, or take fewer bits"
                )
            elif memory.held > self._usable:
                remedy = "; a smaller max_length or load_in_4bit needs less" if stage == "finetuning" else ""
                yield (
                    f"{stage}: {memory.held / 1e9:.3g} GB exceed {100 * GPU_SHARE:.0f} % of the GPU's "
                    f"{self.costs.gpu_memory_gb:g}{remedy}"
                )

    @property
    def _machine(self) -> str:
        gpu = self.costs.gpu_memory_gb
        return "without the process's own" if gpu is None else f"of the GPU's {gpu:g}"

    @property
    def _usable(self) -> float | None:
        """Bytes of the GPU that a stage can fill; ``None`` without one."""
        gpu = self.costs.gpu_memory_gb
        return None if gpu is None else 1e9 * gpu * GPU_SHARE

    @cached_property
    def memory(self) -> dict[str, Memory]:
        """What each stage holds, by stage: the largest of its tasks, of the parameters' own models."""
        c, p, n = self.costs, self.params, self.costs.training_problems
        found = {}
        if p.teacher and not p.model("teacher").is_service:
            found["traces"] = self._generation(n, self._prompt + c.trace_tokens, p.teacher_max_model_len, teacher=True)
        if not p.model("student").is_service:
            if any(strategy in SEARCHED for strategy in self.plan.cuts):
                found["truncation"] = self._generation(
                    n, c.question_tokens + c.read_share * c.trace_tokens + c.verdict_tokens
                )
            elif "entropy-pruned" in self.plan.cuts:
                found["truncation"] = self._reading
            if self.plan.entropy:
                found["entropy"] = self._reading
            continued = [self._continued(s) for s in self.plan.strategies if s not in SELECTED]
            if continued:
                found["alignment"] = self._generation(n, self._prompt + max(map(sum, continued)))
            asked = sum(b.problems for b in p.benchmarks) * p.n_samples
            longest = max(self.response(arm) for arm in p.arms)
            found["evaluation"] = self._generation(asked, self._prompt + longest)
        if any(ARMS[arm].target for arm in p.arms):
            recipe = p.part(FineTuning)
            base = trained_weights(c, recipe, p.dtype)
            found["finetuning"] = Memory(base, training(c, recipe, p.dtype) - base)
        return found

    def _memory_text(self) -> str:
        import pandas as pd

        rows = {}
        for stage, m in self.memory.items():
            gb = [f"{part / 1e9:.3g}" for part in (m.weights, m.work, m.cache, m.held)]
            ends = ["", "", ""]
            if m.length:
                fits = (
                    ["", ""] if math.isinf(m.room) else [f"{max(0, m.room):,.0f}", f"{max(0, m.room) / m.length:,.1f}"]
                )
                ends = [f"{m.length:,.0f}", *fits]
            rows[stage] = [*gb, *ends]
        columns = ["weights", "work", "cache", "together", "tokens a row", "cache tokens that fit", "rows that fit"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).to_string()

    def measured(self) -> pd.DataFrame | None:
        """The cost table of the study's last report, or ``None`` where there is none."""
        import pandas as pd

        path = self.plan.report_path.parent / "tables" / "costs.csv"
        return pd.read_csv(path, index_col="task") if path.exists() else None

    def versus(self, found: pd.DataFrame) -> pd.DataFrame:
        """The estimate divided by what was ``found`` (1: right; 2: twice too much), by task and in ``total``.

        ``found`` has the columns of the report's cost table; the start of notebooks does not count. Empty where the
        costs are not :attr:`stated`.
        """
        import pandas as pd

        if not self.stated:
            return pd.DataFrame()
        expected = self.table()
        names = expected.index.str.replace(r"-seed-\d+$", "", regex=True)  # the report sums over training seeds
        both = expected[TOKENS].astype(float).assign(seconds=3600 * expected["hours"]).groupby(names, sort=False).sum()
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
            "success": self._success,
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
            limit, teacher = self.params.teacher_max_model_len, self.costs.teacher
            held = self._generation(n, self._prompt + new, limit, teacher=True).held
            rate = teacher.generate_tokens_per_second if teacher else None
            yield Cost(task.name, arm, n * self._prompt, n * new, held=held, rate=rate)

    def _truncation(self, task: Task, arm: None) -> Iterator[Cost]:
        """A trace is read once, up to the longest prefix that is asked about, and the demand once for each verdict."""
        c, n, strategy = self.costs, self.costs.training_problems, task.variant
        model = self.params.model("judge" if strategy == "judge" else "student")
        answer = 0
        if strategy == "entropy-pruned":  # read as for entropy
            yield Cost(task.name, arm, n * self._reading.length, held=self._reading.held)
            return
        if strategy in SEARCHED:
            asked, share = self._asked(strategy), c.read_share
            if self.scans(strategy):
                share = asked / self._sentences
            demanded = asked * c.verdict_tokens
            answer = asked * self._verdict(strategy)
        elif strategy == "infogain":  # the gold answer's probability behind every sentence, and behind none
            share, demanded = 1, (self._sentences + 1) * c.instruction_tokens
        elif strategy == "one-reading":
            share, demanded = 1, c.instruction_tokens + self._sentences * NUMBER_TOKENS
        else:  # these only count sentences
            yield Cost(task.name, arm)
            return
        prompt = c.question_tokens + share * c.trace_tokens
        held = self._generating(n, prompt + c.verdict_tokens, model.max_model_len)
        found = Cost(task.name, arm, n * (prompt + demanded), n * answer, held=0 if model.is_service else held)
        yield self._calibrated(found) if strategy == "calibrated" else found

    def _calibrated(self, search: Cost) -> Cost:
        """A search and the pilot before it, whose traces are judged after every sentence and then continued."""
        c, n = self.costs, min(self.params.calibration_traces, self.costs.training_problems)
        prefix, new = self._continued("adaptive")
        verdicts, again = n * self._sentences, n * CONTINUED
        read = n * (c.question_tokens + c.trace_tokens) + verdicts * c.verdict_tokens + again * (self._prompt + prefix)
        generated = verdicts * self._verdict("calibrated") + again * new
        return replace(search, read=search.read + read, generated=search.generated + generated)

    @property
    def _sentences(self) -> float:
        """Sentences of a trace."""
        return self.expected.sentences

    def scans(self, strategy: str) -> bool:
        """Whether the strategy's search is the linear scan."""
        return strategy == "linear" or (strategy in SEARCHED and self.params.search == "linear")

    def verdicts(self, strategy: str) -> float:
        """Verdicts on a trace until the search ends: a scan's are the sentences of its prefix."""
        return max(1, self.costs.prefix_share * self._sentences) if self.scans(strategy) else self.costs.judge_calls

    def _asked(self, strategy: str) -> float:
        """Verdicts asked for on a trace. A scan asks for whole blocks; its prefix ends anywhere in the last one."""
        ahead = (SCAN_BLOCK - 1) / 2 if self.scans(strategy) else 0
        return min(self.verdicts(strategy) + ahead, self._sentences) if ahead else self.verdicts(strategy)

    def _verdict(self, strategy: str) -> float:
        """Tokens decoded for one verdict. A judge of its own may reason first: its budget is the bound."""
        if strategy == "judge":
            return self.params.judge_max_new_tokens if self.params.judge_verdict == "decode" else 0
        return (
            min(self.costs.answer_tokens, self.params.verdict_max_new_tokens) if self.params.verdict == "decode" else 0
        )

    def _entropy(self, task: Task, arm: None) -> Iterator[Cost]:
        """Some traces are read once, one by one; memory holds the logits of a block of tokens and two such tables."""
        n, memory = min(self.params.entropy_traces, self.costs.training_problems), self._reading
        yield Cost(task.name, arm, n * memory.length, held=memory.held)

    @property
    def _reading(self) -> Memory:
        """Of reading one trace for its entropy."""
        tokens = self._prompt + self.costs.trace_tokens
        memory = self._generation(1, tokens)
        logits = 3 * 4 * min(TransformersEngine.LOGITS, tokens * self.costs.vocabulary)
        return replace(memory, work=memory.work + logits, length=tokens, room=math.inf)

    def _alignment(self, task: Task, arm: None) -> Iterator[Cost]:
        n, strategy = self.costs.training_problems, task.variant
        if strategy in SELECTED:
            yield self._selection(task)
            return
        tries, (prefix, new) = self.expected.tries(strategy), self._continued(strategy)
        read = self._prompt + self.costs.trace_tokens * tries.share
        held = self._generating(n, self._prompt + prefix + new)
        yield Cost(task.name, arm, n * tries.number * read, n * tries.number * new, held=held)

    def _selection(self, task: Task) -> Cost:
        """The student reads each candidate once."""
        offered = sum(number * (self._prompt + tokens) for number, tokens in self.expected.candidates())
        return Cost(task.name, None, self.costs.training_problems * offered, held=self._reading.held)

    def _continued(self, strategy: str) -> tuple[float, float]:
        """Tokens of the trace in the last prompt of a problem, and of the continuation."""
        shown = self.costs.trace_tokens if strategy == "rewrite" else self.expected.prefix(strategy)
        return shown, min(self.expected.new(strategy), self.params.alignment_max_new_tokens)

    def _success(self, task: Task, arm: None) -> Iterator[Cost]:
        """Further continuations of the prefixes that alignment continued."""
        again = self.params.sufficiency_samples
        for cost in self._alignment(task, arm):
            yield replace(cost, read=again * cost.read, generated=again * cost.generated)

    def _sufficiency(self, task: Task, arm: None) -> Iterator[Cost]:
        """Some traces are read once, with a verdict on every sentence; then some prefixes of them are continued."""
        c, n = self.costs, min(self.params.judged_traces, self.costs.training_problems)
        verdicts = n * self._sentences
        again = n * (self.params.judged_cuts or self._sentences + 1) * self.params.judged_samples
        new = min(c.continuation_tokens, self.params.alignment_max_new_tokens)
        prompt = self._prompt + c.trace_tokens / 2
        read = n * (c.question_tokens + c.trace_tokens) + verdicts * c.verdict_tokens + again * prompt
        generated = verdicts * self._verdict("adaptive") + again * new
        yield Cost(task.name, arm, read, generated, held=self._generating(again, prompt + new))

    def _finetuning(self, task: Task, arm: str) -> Iterator[Cost]:
        c, recipe, n = self.costs, self.params.part(FineTuning), self.costs.training_problems
        rows = self.rows(arm)
        left = round(n * sum(part.rows for part in self.expected.parts(arm)) * rows.left)
        if left and recipe.equal_updates:
            seen = updates(recipe, left, n) * recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
        else:
            seen = left * recipe.num_train_epochs
        yield Cost(task.name, arm, trained=seen * rows.trained, held=training(c, recipe, self.params.dtype))

    def rows(self, arm: str) -> Rows:
        """The arm's training rows under ``max_length``; see :func:`fitting` for the lengths assumed.

        Too long a row is cut where its target is the trace's beginning, and else left out, because its answer would be.
        """
        parts, room = self.expected.parts(arm), self.params.max_length - self._prompt
        mean, total = self.expected.target(arm), sum(part.rows for part in parts)
        over = left = trained = 0.0
        for part in parts:
            fits, length = fitting(part.tokens, part.spread, room)
            share = part.rows / total if total else 0.0
            over += share * (1 - fits)
            left += share * (fits if part.answers else 1)
            trained += share * (fits * length + (0 if part.answers else (1 - fits) * room))
        return Rows(over, left, self._prompt + mean, self._prompt + trained / left if left else 0)

    def _evaluation(self, task: Task, arm: str) -> Iterator[Cost]:
        n = sum(benchmark.problems for benchmark in self.params.benchmarks) * self.params.n_samples
        new = self.response(arm)
        yield Cost(task.name, arm, n * self._prompt, n * new, held=self._generating(n, self._prompt + new))

    def response(self, arm: str) -> float:
        """Tokens of one response of the arm."""
        c, some = self.costs, ARMS[arm].target == "upft"  # some of its rows are whole traces, as its responses then are
        like = c.trace_tokens if some else self.expected.target(arm)
        return min(c.response_tokens.get(arm, like), self.params.max_new_tokens)

    def _preference(self, task: Task, arm: None) -> Iterator[Cost]:
        """Two orders of every pair; the rubric is free. It uses the student's rates and memory for any judge."""
        if self.params.preference_judge == RUBRIC:
            yield Cost(task.name, arm)
            return
        n = 2 * min(self.params.preference_problems, sum(b.problems for b in self.params.benchmarks))
        pairs = arm_pairs(self.params.arms)
        read = n * sum(self._prompt + self.response(a) + self.response(b) for a, b in pairs)
        budget = self.params.preference_max_new_tokens  # a judge reasons before its verdict, at most so long
        remote = self.params.model("preference_judge").is_service
        held = 0 if remote else self._generating(n, read / (n * len(pairs)) + budget)
        yield Cost(task.name, arm, read, n * len(pairs) * budget, held=held)

    def _generating(self, sequences: float, tokens: float, limit: int | None = None) -> float:
        """Bytes held while the student generates ``sequences`` of ``tokens`` tokens; see :meth:`_generation`."""
        return self._generation(sequences, tokens, limit).held

    def _generation(self, sequences: float, tokens: float, limit: int | None = None, teacher: bool = False) -> Memory:
        """The weights, the activations and logits of a pass, and the key-value cache of the rows at once: at most
        ``batch_size``, and as many as fit the GPU. ``limit``: the longest row (without one: the student's context).
        """
        c, p = self.costs, self.params
        shape, dtype = (c.teacher or c, "auto") if teacher else (c, p.dtype)
        rows, length = min(p.batch_size, sequences), min(tokens, limit or p.max_model_len)
        kv, base = kv_per_token(shape, dtype), weights(shape, dtype)
        work = 2 * 4 * c.vocabulary * rows
        if c.gpu_memory_gb is None:  # activations are part of process_gb
            return Memory(base, work, rows * length * kv, rows, length)
        share = p.gpu_memory_utilization if p.engine == "vllm" else GPU_SHARE
        work += RUNTIME + min(PASS_TOKENS, rows * length) * BYTES[dtype] * inside(shape)
        room = (1e9 * c.gpu_memory_gb * share - base - work) / kv
        rows = min(rows, max(1, room / length))
        return Memory(base, work, rows * length * kv, rows, length, room)


def fitting(mean: float, spread: float, limit: float) -> tuple[float, float]:
    """The share of targets of at most ``limit`` tokens, and the mean length of these.

    Lengths are taken to be log-normal, with this ``mean`` in tokens and ``spread``, the standard deviation of their
    natural logarithm. Targets made of a trace are taken to be as spread as the traces. Lengths of 52 of DeepSeek-R1's
    traces on MATH problems have a spread of 0.83 and a heavier right tail than that: the share that fits is rather too
    high. (0, 0) where none fits.

    >>> fitting(100, 0, 200)
    (1.0, 100)
    """
    if limit <= 0 or not spread:
        return (1.0, mean) if mean <= limit else (0.0, 0.0)
    z = (math.log(limit / mean) + spread**2 / 2) / spread
    share = NormalDist().cdf(z)
    return (share, mean * NormalDist().cdf(z - spread) / share) if share > 1e-9 else (0.0, 0.0)


def weights(costs: Costs | Shape, dtype: str) -> float:
    """Bytes of the model's weights."""
    return 1e9 * costs.parameters_billion * BYTES[dtype]


def trained_weights(costs: Costs, recipe: FineTuning, dtype: str) -> float:
    """Bytes of the base model's weights in training: with ``load_in_4bit`` its layers' matrices are quantised."""
    if not recipe.load_in_4bit:
        return weights(costs, dtype)
    matrices = costs.layers * layer_parameters(costs)
    return (1e9 * costs.parameters_billion - matrices) * BYTES[dtype] + matrices * FOUR_BIT


def layer_parameters(costs: Costs) -> int:
    """Weights of one layer's linear projections."""
    h, i, q, kv = costs.hidden_size, costs.intermediate_size, costs.heads, costs.kv_heads
    return costs.head_dim * h * (2 * q + 2 * kv) + 3 * h * i


def inside(costs: Costs | Shape) -> int:
    """Numbers that one layer holds for one token: about 8 hidden and 4 feed-forward widths."""
    return 8 * costs.hidden_size + 4 * costs.intermediate_size


def kv_per_token(costs: Costs | Shape, dtype: str) -> int:
    """Bytes of one token's keys and values over all layers."""
    return 2 * costs.layers * costs.kv_heads * costs.head_dim * BYTES[dtype]


def lora_parameters(costs: Costs, rank: int) -> int:
    """Trainable parameters of LoRA on all linear projections: rank x (inputs + outputs) of each."""
    h, i = costs.hidden_size, costs.intermediate_size
    q, kv = costs.heads * costs.head_dim, costs.kv_heads * costs.head_dim
    return rank * costs.layers * ((h + q) + 2 * (h + kv) + (q + h) + 3 * (h + i))


def training(costs: Costs, recipe: FineTuning, dtype: str) -> float:
    """Bytes held in training: weights; adapter, gradient and Adam's two moments in float32; activations and logits.

    ``trainer: auto`` takes the trainer that holds more, since a plan may be made on another machine. Without a GPU the
    loss holds all logits at once.
    """
    held = trained_weights(costs, recipe, dtype) + 16 * lora_parameters(costs, recipe.lora_r)
    if costs.gpu_memory_gb is not None:
        trainers = LOSS_TOKENS if recipe.trainer == "auto" else [recipe.trainer]
        return held + RUNTIME + max(_pass(costs, recipe, dtype, trainer) for trainer in trainers)
    tokens = recipe.per_device_train_batch_size * recipe.max_length
    return held + tokens * (
        BYTES[dtype] * (costs.layers * costs.hidden_size + inside(costs)) + costs.vocabulary * PLAIN_LOSS
    )


def _pass(costs: Costs, recipe: FineTuning, dtype: str, trainer: str) -> float:
    """Bytes of a pass with gradient checkpointing: each layer's input, and then either the inside of one layer or a
    block of logits and its gradient. unsloth keeps the inputs in host memory; inside a layer TRL holds 5 feed-forward
    widths more (reports/benchmarks/gpu.md).
    """
    tokens = recipe.per_device_train_batch_size * recipe.max_length
    inputs, one = costs.layers * costs.hidden_size, inside(costs) + 5 * costs.intermediate_size
    if trainer == "unsloth":
        inputs, one = 0, inside(costs)
    logits = 2 * 4 * costs.vocabulary * min(tokens, LOSS_TOKENS[trainer])
    return tokens * BYTES[dtype] * inputs + max(tokens * BYTES[dtype] * one, logits)


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:.3g}" if tokens < 1e8 else f"{tokens / 1e6:.0f}"


def _decimal(hours: float) -> str:
    return f"{hours:.3f}" if hours < 10 else f"{hours:.1f}"
