"""The params file: one flat YAML file per study, validated before anything runs.

A study is :class:`Params`. It combines one class per notebook and one for the machine; the file lists all their keys
flat. The defaults are the pocket study; a file that names another student takes :data:`PAPER`'s values instead.
``palign.tasks.plan`` says which task depends on which keys; keys marked ``effect="speed"`` (``batch_size`` and the
like) change only the speed, not the result.

>>> params = load("params/pocket.yaml")
>>> params.learning_rate
0.003
>>> params.model("student").max_model_len
1024
"""

from __future__ import annotations

import ast
import difflib
import os
import re
import types
import typing
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .arms import ARMS, DEFAULT_ARMS

NAME = r"^[A-Za-z0-9][\w.-]*$"
"""The pattern of a name that becomes a folder or a table: it cannot lead out of its folder."""

SERVICE = "endpoint:"
"""The prefix of a model's name that means: an OpenAI-compatible service runs it."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Kind = Literal["transformers", "vllm", "endpoint"]
DType = Literal["float32", "bfloat16", "float16", "auto"]


class OneLine(Exception):
    """An error whose message says all: a notebook shows it in place of a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [str(self)]


class ParamsError(OneLine, ValueError):
    """A params file or a notebook's parameters that cannot be run; the message is one line."""


def root() -> Path:
    """The folder that relative paths in a params file start from: the nearest parent that holds ``notebooks/``."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return Path(__file__).resolve().parent.parent


def resolve(name: str) -> str:
    """A local path if one exists under :func:`root` (or absolutely), else the name unchanged: a hub id."""
    local = Path(name).expanduser()
    local = local if local.is_absolute() else root() / local
    return str(local) if local.exists() else name


def is_empty(path: Path) -> bool:
    """Whether a file holds nothing but white space."""
    with path.open("rb") as file:
        return not any(line.strip() for line in file)


def _field(description: str, effect: Literal["result", "speed"] = "result", **kwargs) -> Any:
    return Field(description=description, json_schema_extra={"effect": effect}, **kwargs)


class Strict(BaseModel):
    """No unknown keys, no silent conversions: the text ``1e-4`` is refused where a number is needed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(Strict):
    """A language model, wherever a study names one: student, judge, teacher, preference judge.

    ``name``: a hub id, a local folder, or ``endpoint:NAME`` for a service that chats. ``engine``: what runs it.
    ``max_model_len``: its longest prompt and response together, in tokens. ``trusted``: whether Python code that came
    with it may run.
    """

    name: str
    revision: str | None = None
    engine: Kind = "transformers"
    dtype: DType = "float32"
    max_model_len: Positive = 1024
    chat_template_kwargs: dict[str, Any] = {}
    trusted: bool = False

    @property
    def is_service(self) -> bool:
        return self.name.startswith(SERVICE)

    @property
    def path(self) -> str:
        """The local folder where there is one, else the hub id."""
        return resolve(self.name)


class Benchmark(Strict):
    """A test set as data: where it is, how many problems it has (asserted), and which columns hold what.

    ``split`` may be a slice of a hub set (``test[:100]``). ``answer_kind``: ``integer`` for whole numbers, however they
    are written (``025``, ``142.0``), each checked to be one; ``latex`` for anything else.
    """

    name: str = Field(pattern=NAME, max_length=100)
    data: str
    split: str = "test"
    revision: str | None = None
    problems: Positive
    columns: dict[Literal["id", "question", "answer"], str] = {"question": "question", "answer": "answer"}
    answer_kind: Literal["integer", "latex"] = "latex"


class Shape(Strict):
    """A teacher's size, and how fast it writes: ``generate_tokens_per_second`` of all its rows at once."""

    parameters_billion: Annotated[float, Field(gt=0)]
    layers: Positive
    kv_heads: Positive
    head_dim: Positive
    hidden_size: Positive
    intermediate_size: Positive
    generate_tokens_per_second: Positive


class Costs(Strict):
    """What ``palign plan`` computes a study's cost from: expected means, rates in tokens per second, the model's shape.

    The report prints each of them beside what the study measured (``palign.report.rates``). ``training_problems``:
    those with an answer and a trace. ``instruction_tokens``: tokens of a prompt without the question and the prefix;
    ``verdict_tokens``: tokens read for one more verdict on the same trace, that is the prompt behind the prefix and the
    labels that are compared. ``trace_spread``: standard deviation of the natural logarithm of a trace's tokens.
    ``judge_calls``: verdicts of a binary search; those of a scan follow from ``prefix_share`` (the prefix's share of
    the trace's tokens) and ``sentence_tokens``. ``read_share``: the trace's share that a binary search reads.
    ``answer_tokens``: of a boxed answer or a decoded verdict, with the token that ends it, as in every length of a
    response; ``marks_tokens``: of the marks around a prefix.
    ``retention``: share kept by the filter; ``student_right``: the same without a prefix; ``rewrite_right``: the same
    of traces that the student rewrites, ``null`` for ``retention``. ``response_tokens``: mean length of a test
    response, by arm; ``zero-shot`` is also used for the student's own answers to training problems.
    ``start_seconds``: time from a notebook's start until its engine runs.
    ``device``: the machine that the rates describe. ``process_gb``: resident memory of a process that trains, without
    its model, in 10^9 bytes (``null``: not known); ``gpu_memory_gb``: the GPU's memory, ``null`` where there is none.
    ``teacher``: the model that writes the traces, where one does; ``null`` takes the student's size and rate.
    """

    device: str
    training_problems: Positive
    question_tokens: Positive
    instruction_tokens: Positive
    verdict_tokens: Positive
    trace_tokens: Positive
    trace_spread: Annotated[float, Field(ge=0)]
    sentence_tokens: Annotated[float, Field(gt=0)]
    judge_calls: Annotated[float, Field(gt=0)]
    prefix_share: Fraction
    read_share: Fraction
    answer_tokens: Annotated[float, Field(gt=0)]
    marks_tokens: Positive
    continuation_tokens: Positive
    retention: Fraction
    student_right: Fraction
    rewrite_right: Fraction | None = None
    response_tokens: dict[str, Positive]
    read_tokens_per_second: Positive
    generate_tokens_per_second: Positive
    train_tokens_per_second: Positive
    start_seconds: Annotated[int, Field(ge=0)]
    process_gb: Annotated[float, Field(gt=0)] | None
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None
    parameters_billion: Annotated[float, Field(gt=0)]
    layers: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    hidden_size: Positive
    intermediate_size: Positive
    vocabulary: Positive
    teacher: Shape | None = None

    @model_validator(mode="after")
    def _complete(self) -> Costs:
        if "zero-shot" not in self.response_tokens:
            raise ValueError("costs: response_tokens: needs zero-shot, the untrained student's mean response in tokens")
        if self.process_gb is None and self.gpu_memory_gb is None:
            raise ValueError("costs: process_gb: null; without a GPU the process's memory is the machine's")
        return self


POCKET_COSTS = {
    "device": "two CPU cores",
    "training_problems": 320,
    "question_tokens": 25,
    "instruction_tokens": 20,
    "verdict_tokens": 29,
    "trace_tokens": 140,
    "trace_spread": 0.22,
    "sentence_tokens": 5.1,
    "judge_calls": 4.8,
    "prefix_share": 0.31,
    "read_share": 0.53,
    "answer_tokens": 6,
    "marks_tokens": 10,
    "continuation_tokens": 31,
    "retention": 0.75,
    "student_right": 0.36,
    "rewrite_right": 0.19,
    "response_tokens": {"zero-shot": 21},
    "read_tokens_per_second": 18000,
    "generate_tokens_per_second": 8000,
    "train_tokens_per_second": 4400,
    "start_seconds": 16,
    "process_gb": 0.75,
    "gpu_memory_gb": None,
    "parameters_billion": 0.0008,
    "layers": 4,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 320,
    "vocabulary": 686,
}


POCKET_BENCHMARKS = [
    {"name": name, "data": f"palign/pocket/data/{name}.jsonl", "problems": 250}
    for name in ("dial-2", "dial-3", "dial-4", "dial-6")
]


PROTOCOLS = {
    "paper": {"n_samples": 3, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.05},
    "rigorous": {},
    "own": {},
}
"""``paper``: the released script's sampling. ``rigorous``: enough samples to estimate each problem's accuracy.
``own``: anything else.
"""


PAPER: dict[str, Any] = {
    # Section 4.1: s1K-1.1, with solutions in place of answers, and four benchmarks
    "training_data": "simplescaling/s1K-1.1",
    "training_columns": {"question": "question", "answer": "solution", "trace": "deepseek_thinking_trajectory"},
    "training_answers": "solution",
    "benchmarks": [
        {"name": name, "data": data, "split": split, "problems": count, "answer_kind": kind}
        | {"columns": {"id": key, "question": "problem", "answer": "answer"}}
        for name, data, split, count, kind, key in (
            ("AIME24", "HuggingFaceH4/aime_2024", "train", 30, "integer", "id"),
            ("AIME25", "math-ai/aime25", "test", 30, "integer", "id"),
            ("AMC12", "AI-MO/aimo-validation-amc", "train", 83, "integer", "id"),
            ("MATH500", "HuggingFaceH4/MATH-500", "test", 500, "latex", "unique_id"),
        )
    ],
    # In our own words
    "answer_prompt": "{question}\n\nReason step by step, and give the final answer in \\boxed{}.",
    "judge_prompt": "Problem:\n{question}\n\nBeginning of a solution:\n{prefix}\n\nDoes this beginning already contain "
    "every essential step, so that only routine work is left? Do not solve the problem. Reply with one label, "
    "[ENOUGH] or [NOT_ENOUGH].",
    "boundary_prompt": "Problem:\n{question}\n\nA solution in numbered sentences:\n{numbered}\n\nAfter which sentence "
    "are all essential steps done, so that only routine work is left? Reply with its number in brackets, such as [7].",
    "continue_prompt": "Problem:\n{question}\n\nWhat is known so far:\n{prefix}\n\nTake it as given and do not repeat "
    "it. Go on from there in your own words, step by step, and give the final answer in \\boxed{}.",
    "upft_prompt": "{question}\n\nWrite only the beginning of a solution.",
    "rewrite_prompt": "Problem:\n{question}\n\nA solution by somebody else:\n{trace}\n\nWrite a complete solution of "
    "your own, in your own words, step by step, and give the final answer in \\boxed{}.",
    "fallback_prompt": "{question}\n\nThink at length, and give the final answer in \\boxed{}.",
    "preference_prompt": "Problem:\n{question}\n\nSolution A:\n{first}\n\nSolution B:\n{second}\n\nWhich solution is "
    "better? A good one is complete and logical, reflects on its steps, repeats nothing and is concise. Reply with one "
    "label, [A], [B] or [TIE].",
    # Released code: verdicts are decoded, at most 256 tokens; half of a context of 32,768 is the continuation's
    "verdict": "decode",
    "verdict_max_new_tokens": 256,
    "alignment_max_new_tokens": 16384,
    # What the paper does not measure
    "sufficiency_samples": 0,
    "judged_traces": 0,
    "preference_judge": None,
    "second_budget": None,
    # Fine-tuning: 5e-5 is stated, an effective batch of 8 is that of independent re-implementations
    "equal_updates": False,
    "learning_rate": 5.0e-5,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "max_length": 16384,
    "save_steps": 100,
    "max_new_tokens": 4096,  # released script
    # One GPU; not the paper's
    "batch_size": 64,
    "threads": 4,
    "jobs": 1,
}
"""The paper's values, and those of ``params/paper-*.yaml`` where it states none, of the keys whose default fits the
pocket study only. A file that names another student than the pocket's gets them for the keys that it leaves out."""

NEEDED = {
    "student": {"engine": "vllm", "dtype": "bfloat16", "max_model_len": 32768},
    "teacher": {"teacher_max_new_tokens": 16384, "teacher_max_model_len": 20480},
    "judge": {"judge_max_new_tokens": 2048, "judge_max_model_len": 32768},
    "preference_judge": {"preference_max_new_tokens": 2048, "preference_max_model_len": 16384},
}
"""The keys that must be stated beside a model that is not the pocket's, because they are its own or the machine's, each
with a usual value."""


class Study(Strict):
    """01_generation: which study."""

    study: str = _field(
        "name of the study: its runs/ and reports/ folder", default="pocket", pattern=NAME, max_length=100
    )
    seed: int = _field("seed of sampling, data order and adapter initialisation", default=0, ge=0)


class Data(Strict):
    """01_generation: training problems and benchmarks."""

    training_data: str = _field(
        "problems with teacher traces: hub id, or local JSONL/Parquet/CSV", default="palign/pocket/data/train.jsonl"
    )
    training_split: str = _field("split of a hub data set (local files: ignored)", default="train")
    training_revision: str | None = _field("revision of a hub data set", default=None)
    training_columns: dict[str, str] = _field(
        "our name -> column: question, answer, trace; optional id, sufficient_chars",
        default={"question": "question", "answer": "answer", "trace": "trace", "sufficient_chars": "sufficient_chars"},
    )
    training_answers: Literal["answer", "solution"] = _field(
        "what the answer column holds: answer, or solution (a text that may state one)", default="answer"
    )
    training_limit: Positive | None = _field("use only the first so many training problems", default=None)
    drop_overlap: Annotated[int, Field(ge=0)] = _field(
        "leave out training questions that share this many words in a row with a test question; 0: none", default=0
    )
    benchmarks: list[Benchmark] = _field(
        "test sets", default_factory=lambda: [Benchmark(**b) for b in POCKET_BENCHMARKS], min_length=1
    )


class Teacher(Strict):
    """01_generation: the model that writes the traces where the data set has none, asked by ``answer_prompt``."""

    teacher: str | None = _field(
        "model that writes the traces: hub id or local folder; null: the data set holds them", default=None
    )
    teacher_revision: str | None = _field("revision of a hub model", default=None)
    teacher_chat_template_kwargs: dict[str, Any] = _field("switches of its chat template", default={})
    teacher_max_new_tokens: Positive = _field("token budget of a trace; traces that reach it are left out", default=512)
    teacher_max_model_len: Positive = _field("its longest prompt plus trace in tokens", default=1024)


class Student(Strict):
    """02_truncation: the model that judges, continues and is trained."""

    student: str = _field("judge, continuer and trainee: hub id or local folder", default="palign/pocket/student")
    student_revision: str | None = _field("revision of a hub model", default=None)
    trust_remote_code: list[str] = _field(
        "models, by name, whose own Python code may run when they are loaded", default=[], effect="speed"
    )
    # endpoint: vLLM servers at endpoint_urls, which serve the student under this name
    engine: Kind = _field("what generates and judges; a model named endpoint:NAME is a service", default="transformers")
    dtype: DType = _field("weights' type when generating", default="float32")
    max_model_len: Positive = _field("longest prompt plus response in tokens", default=1024)
    chat_template_kwargs: dict[str, Any] = _field("switches of the chat template", default={"enable_thinking": False})


class Machine(Strict):
    """02_truncation: where models run, and how many requests at once."""

    device: str = _field("where transformers runs: auto, cpu, cuda", default="auto", effect="speed")
    batch_size: Positive = _field("prompts at once when generating", default=250, effect="speed")
    threads: Positive = _field("CPU threads of torch; 1 is fastest for a tiny model", default=1, effect="speed")
    jobs: Positive = _field("arms at once, one process each", default=2, effect="speed")
    gpu_memory_utilization: Fraction = _field(
        "vllm: share of the GPU's memory it may take", default=0.9, effect="speed"
    )
    endpoint_urls: list[str] = _field(
        "addresses of an OpenAI-compatible service, up to /v1; the key comes from PALIGN_API_KEY",
        default=[],
        effect="speed",
    )
    endpoint_concurrency: Positive = _field("endpoint: requests at once", default=8, effect="speed")


class Truncation(Strict):
    """02_truncation: how much of a trace is enough, and which model judges it."""

    judge_prompt: str = _field(
        "instruction to judge {prefix} of {question}",
        default="{question}\nDraft: {prefix}\nIs this draft enough, so that only routine work is left? "
        "Reply [ENOUGH] or [NOT_ENOUGH].",
    )
    sentence_rule: Literal["released", "reversible"] = _field(
        "how a trace is split into sentences: the released code's rule, or one that keeps every character",
        default="released",
    )
    search: Literal["released", "equation7", "linear"] = _field(
        "binary search, the released code's or Equation 7's, or a linear scan", default="released"
    )
    verdict: Literal["compare", "decode"] = _field(
        "read a verdict by label log-probability, or by decoding", default="compare"
    )
    verdict_max_new_tokens: Positive = _field("token budget of a decoded verdict", default=16)
    judge: str | None = _field(
        "another model as judge, for p-align-other-judge: hub id, local folder or endpoint:NAME", default=None
    )
    judge_revision: str | None = _field("revision of a hub judge", default=None)
    judge_verdict: Literal["compare", "decode"] = _field("how its verdicts are read", default="compare")
    judge_max_new_tokens: Positive = _field("token budget of its decoded verdict, thoughts included", default=16)
    judge_max_model_len: Positive = _field("its longest prompt plus verdict in tokens", default=1024)
    judge_chat_template_kwargs: dict[str, Any] = _field(
        "switches of its chat template", default={"enable_thinking": False}
    )
    boundary_prompt: str = _field(
        "instruction to name the boundary in the {numbered} sentences on {question}, for p-align-no-adaptive-read",
        default="{question}\nDraft: {numbered}\nAfter which number is only routine work left? Reply [number].",
    )
    infogain_share: Fraction = _field(
        "share of the largest information gain a prefix must reach, for p-align-infogain", default=0.9
    )
    calibration_traces: Positive = _field(
        "traces of the pilot that sets the verdict's threshold, for p-align-calibrated", default=40
    )
    pruned_share: Fraction = _field("share of a trace's sentences left out, for prune-entropy", default=0.5)
    entropy_traces: Annotated[int, Field(ge=0)] = _field(
        "traces along which the student's token entropy is measured (0: none)", default=200
    )


class Alignment(Strict):
    """03_alignment: the student's continuations, and the study of its judge."""

    continue_prompt: str = _field(
        "instruction to continue {prefix} of {question}",
        default="{question}\nDraft: {prefix}\nTake the draft as known. Finish it and box the answer.",
    )
    alignment_temperature: float = _field("sampling temperature of continuations (0: greedy)", default=0.6, ge=0)
    alignment_top_p: Fraction = _field("nucleus of continuations", default=0.9)
    alignment_repetition_penalty: float = _field("repetition penalty of continuations", default=1.05, ge=1)
    alignment_max_new_tokens: Positive = _field("token budget of a continuation", default=256)
    keep_cut_continuations: bool = _field(
        "train on a right continuation that its budget cut, as Eq. 9 would", default=False
    )
    own_samples: Positive = _field(
        "K: continuations a problem, for rft-k, p-align-k and what stands on them", default=4
    )
    backoff_start: Fraction = _field("share of the sentences that backoff begins with", default=0.1)
    backoff_step: Fraction = _field(
        "share of the sentences by which a wrong continuation lengthens a prefix, at least one", default=0.05
    )
    backoff_tries: Positive = _field("continuations after which back-off gives a problem up", default=8)
    success_samples: Positive = _field("K: continuations that decide whether a prefix is enough", default=4)
    success_needed: Positive = _field("k: how many of them must be right", default=2)
    rewrite_prompt: str = _field(
        "instruction to write an own solution to {question} after {trace}, for self-rewrite",
        default="{question}\nDraft: {trace}\nTake the draft as known. Work step by step. Box the answer.",
    )
    sufficiency_samples: Annotated[int, Field(ge=0)] = _field(
        "further continuations per prefix, only to measure the student's success rate from it", default=4
    )
    judged_traces: Annotated[int, Field(ge=0)] = _field(
        "traces of which every prefix is judged, to study the judge itself (0: none)", default=60
    )
    judged_cuts: Annotated[int, Field(ge=0)] = _field(
        "prefixes of each such trace that are continued, evenly spread (0: all of them, and the empty one)", default=5
    )
    judged_samples: Positive = _field("continuations of each such prefix", default=3)


class FineTuning(Strict):
    """04_finetuning: what an arm learns, and how."""

    answer_prompt: str = _field(
        "instruction to answer {question}", default="{question}\nWork step by step. Box the answer."
    )
    upft_tokens: Positive = _field("UPFT: tokens of the trace to learn", default=32)
    upft_structure_share: Fraction = _field("UPFT: share of whole-trace samples", default=0.1)
    upft_prompt: str = _field("UPFT: task prompt of the prefix samples", default="{question}\nBegin the draft.")
    fallback_prompt: str = _field(
        "task prompt of the whole traces in p-align-fallback-prompt", default="{question}\nBegin the draft."
    )
    hard_weight: Positive = _field("how often a hard problem's row counts, for p-align-hard", default=3)
    trainer: Literal["auto", "unsloth", "trl"] = _field(
        "the trainer; auto: unsloth if CUDA and unsloth are available, else trl", default="auto"
    )
    load_in_4bit: bool = _field("train on a base model quantised to 4 bits (QLoRA)", default=False)
    num_train_epochs: Annotated[float, Field(gt=0)] = _field("passes over the training problems", default=3.0)
    equal_updates: bool = _field("give every arm the optimizer steps of a full training set", default=True)
    learning_rate: Annotated[float, Field(gt=0)] = _field("peak learning rate (paper: 5e-5)", default=3.0e-3)
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = _field("schedule after the warm-up", default="cosine")
    warmup_ratio: Fraction = _field("share of updates that warm up", default=0.1)
    per_device_train_batch_size: Positive = _field("rows per forward pass", default=8)
    gradient_accumulation_steps: Positive = _field("forward passes per update", default=1)
    lora_r: Positive = _field("LoRA rank", default=16)
    lora_alpha: Positive = _field("LoRA alpha", default=16)
    lora_dropout: Fraction = _field("LoRA dropout", default=0.05)
    max_length: Positive = _field(
        "longest training row in tokens; longer ones are left out if they end in an answer, else cut", default=512
    )
    training_seeds: list[Annotated[int, Field(ge=0)]] = _field(
        "every trained arm is trained and evaluated once per seed", default=[0], min_length=1
    )
    save_steps: Positive = _field("updates between checkpoints", default=50, effect="speed")


class Evaluation(Strict):
    """05_evaluation: how responses are sampled."""

    protocol: Literal[tuple(PROTOCOLS)] = _field(
        "protocol that the sampling must match: paper, rigorous (16 samples or more), own",
        default="paper",
        effect="speed",
    )
    n_samples: Positive = _field("responses per problem", default=3)
    temperature: float = _field("sampling temperature (0: greedy)", default=0.6, ge=0)
    top_p: Fraction = _field("nucleus", default=0.9)
    repetition_penalty: float = _field("repetition penalty", default=1.05, ge=1)
    max_new_tokens: Positive = _field("response budget in tokens", default=256)
    second_budget: Positive | None = _field("a smaller budget reported beside it", default=128)


class Report(Strict):
    """06_report: which arms, which judge compares responses, and the expected costs."""

    arms: list[Literal[tuple(ARMS)]] = _field(
        "arms of the study, in the order of tables and figures", default=list(DEFAULT_ARMS), min_length=1
    )
    preference_judge: str | None = _field(
        "judge of which response is better: rubric (scripted, no model), hub id, folder, endpoint:NAME, or null (none)",
        default="rubric",
    )
    preference_judge_revision: str | None = _field("revision of a hub judge", default=None)
    preference_problems: Positive = _field("test problems on which arms' responses are compared", default=200)
    preference_prompt: str = _field(
        "instruction to compare the responses {first} and {second} to {question}",
        default="{question}\nResponse A: {first}\nResponse B: {second}\nWhich response is better? A good one is "
        "complete and logical, reflects on its steps, repeats nothing and is concise. Reply [A], [B] or [TIE].",
    )
    preference_max_new_tokens: Positive = _field("token budget of a verdict, thoughts included", default=256)
    preference_max_model_len: Positive = _field("that judge's longest prompt plus verdict in tokens", default=1024)
    preference_chat_template_kwargs: dict[str, Any] = _field(
        "switches of that judge's chat template", default={"enable_thinking": False}
    )
    costs: Costs = _field(
        "lengths and rates to expect; `palign plan` computes the study's cost from them",
        default_factory=lambda: Costs(**POCKET_COSTS),
        effect="speed",
    )


GROUPS = {
    "01_generation": (Study, Data, Teacher),
    "02_truncation": (Student, Machine, Truncation),
    "03_alignment": (Alignment,),
    "04_finetuning": (FineTuning,),
    "05_evaluation": (Evaluation,),
    "06_report": (Report,),
}
"""The groups of keys that each notebook's parameters cell shows."""

SECTIONS = {
    "study": "the study",
    "training_data": "training problems with the teacher's traces",
    "benchmarks": "test sets",
    "teacher": "the teacher, where a model is to write the traces",
    "student": "the student",
    "device": "the machine",
    "judge_prompt": "truncation: the search and the student's verdicts",
    "judge": "another judge, for p-align-other-judge",
    "boundary_prompt": "further strategies",
    "entropy_traces": "measured only, used by no arm",
    "continue_prompt": "alignment: how a prefix is continued",
    "own_samples": "several continuations a problem, for arms that choose among them",
    "rewrite_prompt": "rewritten traces, for self-rewrite",
    "sufficiency_samples": "measured only, used by no arm",
    "answer_prompt": "how the student is asked to answer, in training and in evaluation",
    "upft_tokens": "UPFT",
    "fallback_prompt": "whole traces under a prompt of their own, and the weight of hard problems",
    "trainer": "fine-tuning",
    "lora_r": "LoRA",
    "max_length": "rows, seeds and checkpoints",
    "protocol": "sampling",
    "max_new_tokens": "response budgets",
    "arm": "which execution of this notebook",
    "arms": "what is compared",
    "preference_judge": "whose response is better",
    "costs": "what the plan computes the cost from",
}
"""The key that a parameters cell shows first below a comment line -> that line."""

NESTED = {"benchmarks": Benchmark, "costs": Costs}
"""The keys whose values have keys of their own."""

Group = typing.TypeVar("Group", bound=Strict)


# pydantic lists the fields of the last base first
class Params(Report, Evaluation, FineTuning, Alignment, Truncation, Machine, Student, Teacher, Data, Study):
    """One study. The order of its keys is that of the pipeline; each key's description gives its unit."""

    def model(self, role: Literal["student", "teacher", "judge", "preference_judge"]) -> Model:
        """The model of that role. Teacher and judges have template switches and a context length of their own.

        Raises :class:`ParamsError` where the study names none.
        """
        name = getattr(self, role)
        if name is None:
            raise ParamsError(f"{role}: null; name a model, a hub id or a local folder")
        revision = getattr(self, f"{role}_revision")
        own = {"name": name, "revision": revision, "engine": self.engine, "trusted": name in self.trust_remote_code}
        if role == "teacher":  # keep the stored dtype: no number of the teacher is compared with one of the student
            return Model(
                **own,
                dtype="auto",
                max_model_len=self.teacher_max_model_len,
                chat_template_kwargs=self.teacher_chat_template_kwargs,
            )
        if role == "preference_judge" and self.engine == "endpoint":
            own["engine"] = "transformers"  # the servers at endpoint_urls serve the student
        prefix = {"student": "", "judge": "judge_", "preference_judge": "preference_"}[role]
        limits = {name: getattr(self, prefix + name) for name in ("max_model_len", "chat_template_kwargs")}
        return Model(**own, dtype=self.dtype, **limits)

    def part(self, group: type[Group]) -> Group:
        """The keys of one group, for functions that need no other keys."""
        return group.model_construct(**{name: getattr(self, name) for name in group.model_fields})

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        def refuse(key: str, why: str) -> None:
            raise ValueError(f"{key}: {why}")

        for key, names in {
            "answer_prompt": {"question"},
            "judge_prompt": {"question", "prefix"},
            "boundary_prompt": {"question", "numbered"},
            "continue_prompt": {"question", "prefix"},
            "upft_prompt": {"question"},
            "rewrite_prompt": {"question", "trace"},
            "fallback_prompt": {"question"},
            "preference_prompt": {"question", "first", "second"},
        }.items():
            for name in names:
                if getattr(self, key).count("{" + name + "}") != 1:
                    refuse(key, f"must contain {{{name}}} exactly once")
        needed = {"question", "answer"} | (set() if self.teacher else {"trace"})
        missing = needed - set(self.training_columns)
        unknown = set(self.training_columns) - {"id", "question", "answer", "trace", "sufficient_chars"}
        if missing or unknown:
            refuse(
                "training_columns",
                f"missing {sorted(missing)}, unknown {sorted(unknown)}; needs {', '.join(sorted(needed))}",
            )
        for key, values in {"benchmarks": [b.name for b in self.benchmarks], "arms": self.arms}.items():
            if len(set(values)) < len(values):
                refuse(key, f"names must differ, got {values}")
        if self.success_needed > self.success_samples:
            refuse("success_needed", f"{self.success_needed} exceeds success_samples {self.success_samples}")
        if len(set(self.training_seeds)) < len(self.training_seeds):
            refuse("training_seeds", f"seeds must differ, got {self.training_seeds}")
        for arm in self.arms:
            if ARMS[arm].strategy == "judge" and self.judge is None:
                refuse("judge", f"{arm} needs another model, a hub id or local folder; leave the arm out or name one")
            if ARMS[arm].strategy == "oracle" and "sufficient_chars" not in self.training_columns:
                refuse("training_columns", f"{arm} needs sufficient_chars, which only artificial data state")
            if ARMS[arm].strategy == "calibrated" and self.verdict != "compare":
                refuse("verdict", f"{arm} sets a threshold for label log-probabilities; set verdict: compare")
        contexts = {"max_model_len": ("max_new_tokens", "alignment_max_new_tokens", "verdict_max_new_tokens")}
        contexts |= {f"{who}_max_model_len": (f"{who}_max_new_tokens",) for who in ("teacher", "judge", "preference")}
        for context, keys in contexts.items():
            for key in keys:
                budget, limit = getattr(self, key), getattr(self, context)
                if budget >= limit:
                    refuse(key, f"{budget} leaves no room for a prompt within {context} {limit}")
        if self.second_budget is not None and self.second_budget >= self.max_new_tokens:
            refuse("second_budget", f"{self.second_budget} must be smaller than max_new_tokens {self.max_new_tokens}")
        for model, key in ((self.student, "verdict"), (self.judge, "judge_verdict")):
            if model and model.startswith(SERVICE) and getattr(self, key) == "compare":
                refuse(key, f"an endpoint gives no label log-probabilities to compare; set {key}: decode")
        trained = [arm for arm in self.arms if ARMS[arm].target]
        if self.student.startswith(SERVICE) and trained:
            refuse("student", f"an endpoint cannot be fine-tuned, and the arms {trained} are; leave them out")
        if self.student.startswith(SERVICE) and self.second_budget is not None:
            refuse("second_budget", "an endpoint gives no tokens to cut a response by; set second_budget: null")
        if self.engine == "endpoint" and not self.endpoint_urls:
            refuse("endpoint_urls", "empty; engine: endpoint needs the address of a vLLM server, such as http://.../v1")
        if any(mark in url for url in self.endpoint_urls for mark in "@?"):  # the params are written to every manifest
            refuse("endpoint_urls", "an address must hold no user, password or key; the key comes from PALIGN_API_KEY")
        if self.n_samples > 1 and self.temperature == 0:
            refuse(
                "n_samples",
                f"{self.n_samples} samples at temperature 0 are all the same; set temperature > 0 or n_samples: 1",
            )
        for key, value in PROTOCOLS[self.protocol].items():
            if getattr(self, key) != value:
                refuse("protocol", f"paper means {key}: {value}, not {getattr(self, key)}; set protocol: own")
        if self.protocol == "rigorous" and self.n_samples < 16:
            refuse("protocol", f"rigorous needs n_samples of 16 or more, not {self.n_samples}")
        return self

    def values(self, *names: str, effect: str | None = None) -> dict[str, Any]:
        """The named fields (without names: all) of the given effect, as plain JSON values."""
        plain = self.model_dump(mode="json", include=set(names) or None)
        return {name: value for name, value in plain.items() if effect in (None, effect_of(name))}


def effect_of(name: str) -> str:
    """``result`` or ``speed``: what changing that field can change."""
    return typing.cast(dict, Params.model_fields[name].json_schema_extra)["effect"]


def fields_of(notebook: str) -> list[str]:
    """Names of the fields that a notebook's parameters cell shows, in order."""
    return [name for group in GROUPS[notebook] for name in group.model_fields]


MOST_FAULTS = 10
"""Faults told at once: a list of a thousand records in place of a few benchmarks has thousands."""


def validate(values: dict[str, Any], where: str, model: type[Strict] = Params, changed: Sequence[str] = ()) -> Any:
    """Build a :class:`Params` (or another ``model``), or raise :class:`ParamsError`, one line per fault: where, key,
    value, remedy. ``where``: what the values come from; ``changed``: keys whose values come from ``-p`` instead.
    """
    try:
        return model(**values)
    except ValidationError as error:
        lines = [_line(fault, where, model, changed) for fault in error.errors()]
        more = [f"{where}: {len(lines) - MOST_FAULTS} more faults"] if len(lines) > MOST_FAULTS else []
        raise ParamsError("\n".join(lines[:MOST_FAULTS] + more)) from None


def _line(fault: dict, where: str, model: type[Strict], changed: Sequence[str]) -> str:
    if fault["type"] == "value_error":
        why = fault["msg"].removeprefix("Value error, ")
        return f"{where}{_with(why, changed)}: {_short(why, 1000)}"
    loc = fault["loc"]
    key = _short(".".join(str(part) for part in loc))
    place = f"-p {key}" if loc[0] in changed else f"{where}: {key}"
    if fault["type"] == "extra_forbidden":
        owner = NESTED.get(loc[0], model) if len(loc) > 1 else model
        keys = f"{model.__module__.replace('.', '/')}.py"
        return f"{place}: unknown key{near(str(loc[-1]), owner.model_fields) or f'; see {keys} for the keys'}"
    if fault["type"] == "missing":
        return f"{place}: missing; it has no default"
    value = fault["input"]
    if fault["type"] == "literal_error" and isinstance(value, str):
        names = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return f"{place}: {_short(repr(value))}: unknown{near(value, names) or '; one of ' + ', '.join(names)}"
    hint = ""
    if isinstance(value, str) and "e" in value.lower() and fault["type"].startswith(("float", "int")):
        hint = "; YAML reads a number like 1e-4 as text, write 1.0e-4"
    return f"{place}: {_short(repr(value))}: {fault['msg'][0].lower()}{fault['msg'][1:]}{hint}"


def _with(why: str, changed: Sequence[str]) -> str:
    """The ``-p`` keys that a fault between several keys may come from: those it names, or all."""
    named = [key for key in changed if re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", why)]
    return "".join(f" with -p {_short(key)}" for key in named or changed)


def near(name: str, names: Iterable[str]) -> str:
    """``; did you mean X?`` for those of ``names`` that begin with ``name``, up to four, or else for the one that looks
    most like it; empty if none does.
    """
    names = list(names)
    longer = [one for one in names if one.startswith(name)]
    found = longer if 0 < len(longer) < 5 else difflib.get_close_matches(name, names, 1)
    *first, last = found or [""]
    return f"; did you mean {', '.join(first)}{' or ' if first else ''}{last}?" if found else ""


DEEPEST = 20  # nesting levels allowed; the project's own files have four


class _Plain(yaml.SafeLoader):
    """Accepts plain values. Refuses a repeated key (YAML would keep the last), aliases (a few can expand beyond any
    memory) and deep nesting (the parser takes seconds to fail on it).
    """

    depth = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, f"alias *{event.anchor}: write it out", event.start_mark
            )
        if self.depth == DEEPEST:
            raise yaml.constructor.ConstructorError(None, None, "nested too deep", self.peek_event().start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def _short(value: object, limit: int = 300) -> str:
    """The value on one line, cut at ``limit`` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[:limit]} ..."


def load(path: str | Path, changes: Iterable[tuple[str, str]] = ()) -> Params:
    """Read and validate a params file. ``changes``: pairs of a key and the YAML of another value for it.

    A file whose student is not the pocket's gets :data:`PAPER`'s values for the keys that it leaves out
    (:func:`from_paper`). Raises :class:`ParamsError` naming the file or ``-p``, the key and the value; also where a
    model that is not the pocket's lacks what is its own (:data:`NEEDED`).
    """
    path, changes = Path(path), list(changes)
    file = _file(path)
    values = file | {key: _read(value, f"-p {key}") for key, value in changes}
    changed = [key for key, _ in changes]
    lacking, filled = _lacking(path, file, values, changed)
    added = _paper(values)
    try:
        params = validate(added | values | filled, str(path), changed=changed)
    except ParamsError as fault:
        try:
            validate(added | file | filled, str(path))
        except ParamsError as own:  # a fault between keys that the file has without `-p` too is the file's
            if str(fault).endswith(str(own).removeprefix(str(path))):
                fault = own
        named = [key for key in added if re.search(rf"(?<![\w-]){key}(?![\w-])", str(fault))]
        note = f"; the file does not state {' and '.join(named)}, which is the paper's value" if named else ""
        raise ParamsError("\n".join([*lacking, f"{fault}{note}"])) from None
    if lacking:
        raise ParamsError("\n".join(lacking))
    return params


def from_paper(path: str | Path, changes: Iterable[tuple[str, str]] = ()) -> list[str]:
    """The keys that :func:`load` gives the paper's value, because neither the file nor ``changes`` state them."""
    return list(_paper(_file(Path(path)) | {key: _read(value, f"-p {key}") for key, value in changes}))


def is_pocket(name: str) -> bool:
    """Whether a model is one of the pocket world's, which the defaults are meant for."""
    world = Path(__file__).resolve().parent / "pocket"
    return name.startswith("palign/pocket/") or Path(resolve(name)).resolve().is_relative_to(world)


def _paper(values: dict[str, Any]) -> dict[str, Any]:
    """The paper's values of the keys that ``values`` leave out, if their student is not the pocket's."""
    student = values.get("student", "palign/pocket/student")
    if not isinstance(student, str) or is_pocket(student):
        return {}
    # how a data set of one's own is read, nobody else knows; its columns are asked for
    own = {"training_columns", "training_answers"} if "training_data" in values else set()
    return {key: value for key, value in PAPER.items() if key not in own | set(values)}


def _lacking(
    path: Path, file: dict[str, Any], values: dict[str, Any], changed: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """One line for each model that is not the pocket's and lacks keys of its own, and usual values for these keys."""
    lines, filled = [], {}
    student = file.get("student")
    of_pocket = not isinstance(student, str) or is_pocket(student)
    for role, needed in NEEDED.items():
        name = values.get(role)
        if not isinstance(name, str) or name == "rubric" or is_pocket(name):
            continue
        place = f"-p {role}: {name}" if role in changed else f"{path}: {role}: {name}"
        if role == "student" and role in changed and of_pocket:
            lines.append(f"{place}: the values in {path} are for the pocket's student; name yours in a file of its own")
            filled |= needed
            continue
        # what a file of the pocket's student states is meant for the pocket's models
        stated = set(changed) if role in changed and of_pocket else set(values)
        if role == "student" and "training_data" in values:
            needed = needed | {"training_columns": PAPER["training_columns"]}
        if name.startswith(SERVICE):  # it has its own engine and type
            needed = {key: value for key, value in needed.items() if key not in ("engine", "dtype")}
        lacks = {key: value for key, value in needed.items() if key not in stated}
        if lacks:
            usual = ", ".join(f"{key} ({value})" for key, value in lacks.items())
            lines.append(f"{place}: state also, with usual values: {usual}; the defaults are for the pocket's models")
        filled |= lacks
    return lines, filled


def _file(path: Path) -> dict[str, Any]:
    """What a params file states."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ParamsError(f"{path}: not UTF-8 text") from None
    values = _read(text, str(path))
    if values is None:
        raise ParamsError(f"{path}: empty; a params file needs at least `study: NAME`")
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: holds a {type(values).__name__}, must be `key: value` lines")
    if "study" not in values:
        raise ParamsError(f"{path}: study: missing; name the study, its results go to runs/NAME and reports/NAME")
    return {str(key): value for key, value in values.items()}


def _read(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Plain)
    except Exception as error:  # PyYAML raises its own error for syntax, and many others for a date or a number
        raise ParamsError(f"{where}: not valid YAML: {_short(error)}") from None


def from_notebook(namespace: dict[str, Any], notebook: str | type[Strict] = Params) -> Any:
    """The parameters of a running notebook, validated strictly. Call it after the parameters cell.

    ``namespace``: the notebook's ``globals()``. ``notebook``: its name, such as ``02_truncation``, or the class of its
    parameters where it is not one of a study's.

    A study's notebooks show each key once. What a parameters cell says other than its printed defaults is an edit;
    ``runs/.notebooks.yaml`` holds each notebook's edits and the study chosen in 01, so that they hold in all notebooks.
    Below the edits lie the params file that names the study, then the defaults. What papermill injects holds as it is,
    and a notebook that runs unattended neither reads nor writes other notebooks' edits: its command and the study's
    file say all. Prints one line that says what holds, unless all keys are injected.

    Raises :class:`ParamsError` for a misspelt or impossible parameter. Names of the user's own are no parameters:
    those are names that the parameters cell, or papermill, assigns. Without IPython's ``In``, all plain values are.
    """
    if not isinstance(notebook, str):
        return validate(_stated(namespace, notebook.model_fields)[0], HERE, notebook)
    own = fields_of(notebook)
    stated, injected = _stated(namespace, {"study", *own})
    if injected >= set(Params.model_fields):  # `palign run` pins all keys
        return validate(stated, HERE)
    for key in stated:
        if key in Params.model_fields and key not in {"study", *own, *injected}:
            raise ParamsError(f"{HERE}: {key}: a parameter of {_notebook_of(key)}; set it there")
    batch = bool(injected) or unattended()
    chosen, remembered = ("pocket", {}) if batch else _remembered()
    study = stated.pop("study", None)
    study = validate({"study": chosen if study is None else study}, HERE, Study).study
    file = _file_of(study)
    base = (load(file) if file else Params(study=study)).values()
    edits = {key: value for key, value in stated.items() if key in injected or not _is_default(key, value)}
    student = edits.get("student", base["student"])
    if isinstance(student, str) and not is_pocket(student) and is_pocket(base["student"]):
        why = f"{student}: the values of study {study} are for the pocket's student"
        raise ParamsError(f"{HERE}: student: {why}; write a file params/NAME.yaml for yours and set study = 'NAME'")
    elsewhere = {name: keys for name, keys in remembered.items() if name != notebook} if study == chosen else {}
    others = {key: value for keys in elsewhere.values() for key, value in keys.items()}
    params = validate({**base, **others, **edits, "study": study}, HERE)
    if not batch and (study == chosen or "study" in own):
        _remember(study, elsewhere | {notebook: params.values(*edits) if edits else {}})
    said = {f"in {name}": keys for name, keys in elsewhere.items()} | {"here": edits}
    print(_what_holds(params, file, base, own, said))
    return params


HERE = "notebook parameters"
"""What an error names as the place of a fault in a notebook."""

NOT_PARAMETERS = {"In", "Out", "arm", "training_seed", "repository"}
"""Plain values of a notebook that are no keys of a study."""


def _stated(namespace: dict[str, Any], own: Collection[str]) -> tuple[dict[str, Any], set[str]]:
    """The parameters that a notebook states, and the names of those that papermill injected (without IPython's ``In``:
    of all). ``own``: the keys of the notebook.
    """
    cells, later = namespace.get("In"), set()
    if not cells:
        plain = (str, int, float, bool, list, dict, type(None))
        names = {name for name, value in namespace.items() if name[0] != "_" and isinstance(value, plain)}
        names -= NOT_PARAMETERS
        return {name: namespace[name] for name in namespace if name in names}, names
    names, injected = {name for name in own if name in namespace}, None
    for source in reversed(cells):
        assigned = _assigned(source)
        if source.startswith("# Parameters\n"):  # papermill's; only its last run counts
            injected = assigned if injected is None else injected
        elif assigned & set(own) - later:  # a parameters cell, unless it was run again since
            names |= assigned
        later |= assigned
    injected = (injected or set()) - NOT_PARAMETERS
    names = (names | injected) - NOT_PARAMETERS
    return {name: value for name, value in namespace.items() if name in names}, injected


def _assigned(source: str) -> set[str]:
    """The names that a cell assigns, if it does nothing else, as a parameters cell."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:
        return set()
    if not all(isinstance(line, (ast.Assign, ast.AnnAssign)) for line in lines):
        return set()
    targets = [target for line in lines for target in getattr(line, "targets", None) or [line.target]]
    return {target.id for target in targets} if all(isinstance(target, ast.Name) for target in targets) else set()


def unattended() -> bool:
    """Whether papermill or nbconvert executes this notebook: they run cells without standard input, and JupyterLab, VS
    Code and Colab have one.
    """
    from IPython import get_ipython

    return not getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", True)


def _is_default(key: str, value: object) -> bool:
    """Whether a parameters cell's value is the one printed there, which states nothing, in its short or full form."""
    if key not in Params.model_fields:
        return False
    default = Params.model_fields[key].get_default(call_default_factory=True)
    return any(type(value) is type(form) and value == form for form in (_plain(default), _plain(default, full=True)))


def _plain(value: Any, full: bool = False) -> Any:
    """A field's value as plain Python; without ``full``, benchmarks are without keys that have their defaults."""
    if isinstance(value, list):
        return [_plain(one, full) for one in value]
    return value.model_dump(mode="json", exclude_defaults=not full) if isinstance(value, Strict) else value


def _notebook_of(key: str) -> str:
    return next(notebook for notebook in GROUPS if key in fields_of(notebook))


def _file_of(study: str) -> Path | None:
    """The file in ``params/`` that describes this study: the one called so, or another whose ``study`` it is."""
    for path in sorted((root() / "params").glob("*.yaml"), key=lambda path: (path.stem != study, path)):
        try:
            values = _read(path.read_text(encoding="utf-8"), str(path))
        except (OSError, ValueError):
            if path.stem == study:
                return path  # `load` says what is wrong with it
            continue
        if isinstance(values, dict) and values.get("study") == study:
            return path
    return None


def _remembered() -> tuple[str, dict[str, dict[str, Any]]]:
    """The study that was chosen in 01, and each notebook's edits."""
    path = root() / "runs" / ".notebooks.yaml"
    if not path.exists():
        return "pocket", {}
    found = _read(path.read_text(encoding="utf-8"), str(path))
    try:
        edits = {
            notebook: {key: value for key, value in keys.items() if key in fields_of(notebook)}
            for notebook, keys in found["edits"].items()
            if notebook in GROUPS
        }
        return found["study"], {notebook: keys for notebook, keys in edits.items() if keys}
    except (TypeError, KeyError, AttributeError):
        raise ParamsError(f"{path}: not as the notebooks wrote it; remove it") from None


def _remember(study: str, edits: dict[str, dict[str, Any]]) -> None:
    edits = {notebook: edits[notebook] for notebook in GROUPS if edits.get(notebook)}
    if (study, edits) == _remembered():
        return
    path = root() / "runs" / ".notebooks.yaml"
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    text = yaml.safe_dump({"study": study, "edits": edits}, sort_keys=False, allow_unicode=True)
    new.write_text("# What the notebooks' parameters cells say, written when they run.\n" + text, encoding="utf-8")
    new.replace(path)  # at once, so that no other notebook reads half of it


def _what_holds(
    params: Params, file: Path | None, base: dict[str, Any], own: Iterable[str], edits: dict[str, dict[str, Any]]
) -> str:
    """One line: the study, what its file says other than this notebook's cell shows, and what was edited where."""
    values = params.values()

    def told(keys: Iterable[str]) -> str:
        short = {key: repr(values[key]) for key in keys}
        return ", ".join(f"{key} {value}" if len(value) <= 40 else key for key, value in short.items())

    place = "no file in params/ has this name: defaults"
    if file:
        place = str(file.relative_to(root()))
        unseen = told(
            key for key in own if key != "study" and key not in edits["here"] and not _is_default(key, values[key])
        )
        place += f" sets {unseen}" if unseen else ""
    edited = {
        where: told(key for key in keys if key != "study" and values[key] != base[key]) for where, keys in edits.items()
    }
    said = ", ".join(f"{keys} {where}" for where, keys in edited.items() if keys)
    return f"study {params.study} ({place}){f'; edited: {said}' if said else ''}"


def check_arm(arm: str, params: Params, training_seed: int | None = None) -> str:
    """``arm`` if the study has it, and the seed if one is given, else :class:`ParamsError`."""
    if training_seed is not None and training_seed not in params.training_seeds:
        raise ParamsError(
            f"notebook parameters: training_seed: {training_seed!r}: not one of this study's {params.training_seeds}"
        )
    if arm not in params.arms:
        hint = near(str(arm), params.arms) or f": {', '.join(params.arms)}"
        raise ParamsError(f"notebook parameters: arm: {arm!r}: not one of this study's arms{hint}")
    return arm


OTHERS = {
    "study": (None, str | None, "which study; None: the one chosen in 01_generation"),
    "arm": ("p-align", str, "which arm; `palign run` executes this notebook once for each"),
    "training_seed": (0, int, "which of training_seeds; for an arm that is not trained, the first"),
}
"""What parameters cells show besides their notebook's keys: ``study`` all but the first, the others 04 and 05."""


def parameters_cell(notebook: str) -> str:
    """Source of a study's notebook's ``parameters`` cell: its fields with types, defaults and descriptions, below the
    comment lines of :data:`SECTIONS`.
    """
    fields = {name: Params.model_fields[name] for name in fields_of(notebook)}
    rows = {
        name: (_plain(field.get_default(call_default_factory=True)), field.annotation, field.description)
        for name, field in fields.items()
    }
    rows = rows if "study" in rows else {"study": OTHERS["study"], **rows}
    if notebook in ("04_finetuning", "05_evaluation"):
        rows |= {name: OTHERS[name] for name in ("arm", "training_seed")}
    heads = {name: f"\n# {SECTIONS[name]}\n" for name in rows if name in SECTIONS}
    return "\n".join(heads.get(name, "") + assignment(name, *row) for name, row in rows.items()).lstrip()


def assignment(name: str, value: Any, annotation: Any, meaning: str) -> str:
    """A parameter as a parameters cell shows it, in a form that ``papermill --help-notebook`` reads: a value too long
    for one line is broken, and the comment, which has no ``=``, stands in the last line.
    """
    start, end = f"{name}: {_type_of(annotation)} = ", f"  # {meaning}"
    line = f"{start}{value!r}{end}"
    if len(line) <= 120 or len(repr(value)) < 50:
        return line
    if isinstance(value, str):
        parts = [repr(part) for part in re.findall(r".{1,100}(?:[ \n]|$)|\S+\s?|\s", value)]
    elif isinstance(value, dict):
        parts = [f"{key!r}: {item!r}," for key, item in value.items()]
    else:
        parts = [f"{item!r}," for item in value]
    opening, closing = {str: "()", list: "[]", dict: "{}"}[type(value)]
    return "\n".join([start + opening, *(f"    {part}" for part in parts), closing + end])


def _type_of(annotation: Any) -> str:
    """``int``, or for a parameter that may be empty ``"int or None"``, which is what papermill can read."""
    if typing.get_origin(annotation) is types.UnionType or typing.get_origin(annotation) is typing.Union:
        return '"' + " or ".join(_type_of(part) for part in typing.get_args(annotation)) + '"'
    if typing.get_origin(annotation) is Annotated:
        return _type_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is Literal:
        return "str"
    if annotation is types.NoneType:
        return "None"
    plain = typing.get_origin(annotation) or annotation
    return "dict" if issubclass(plain, Strict) else plain.__name__
