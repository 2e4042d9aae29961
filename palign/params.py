"""The params file: one flat YAML file per study, validated before anything runs.

A study is :class:`Params`. It combines one class per notebook and one for the machine; the file lists all their keys
flat. The defaults are the pocket study. ``palign.tasks.plan`` says which task depends on which keys; keys marked
``effect="speed"`` (``batch_size`` and the like) change only the speed, not the result.

>>> params = load("params/pocket.yaml")
>>> params.learning_rate
0.003
>>> params.model("student").max_model_len
1024
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Sequence
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


class ParamsError(ValueError):
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


class Costs(Strict):
    """What ``palign plan`` computes a study's cost from: expected means, rates in tokens per second, the model's shape.

    The report prints each of them beside what the study measured (``palign.report.rates``). ``training_problems``:
    those with an answer and a trace. ``instruction_tokens``: tokens of a prompt without the question and the prefix;
    ``verdict_tokens``: tokens read for one more verdict on the same trace, that is the prompt behind the prefix and the
    labels that are compared. ``trace_spread``: standard deviation of the natural logarithm of a trace's tokens.
    ``judge_calls``: verdicts of a binary search; those of a scan follow from ``prefix_share`` (the prefix's share of
    the trace's tokens) and ``sentence_tokens``. ``retention``: share kept by the filter; ``student_right``: the same
    without a prefix. ``response_tokens``: mean length of a test response, by arm; ``zero-shot`` is also used for the
    student's own answers to training problems. ``start_seconds``: time from a notebook's start until its engine runs.
    ``device``: the machine that the rates describe. ``process_gb``: resident memory of a process that trains, without
    its model, in 10^9 bytes (``null``: not known); ``gpu_memory_gb``: the GPU's memory, ``null`` where there is none.
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
    continuation_tokens: Positive
    retention: Fraction
    student_right: Fraction
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
    "verdict_tokens": 32,
    "trace_tokens": 140,
    "trace_spread": 0.22,
    "sentence_tokens": 5.1,
    "judge_calls": 4.8,
    "prefix_share": 0.31,
    "continuation_tokens": 31,
    "retention": 0.75,
    "student_right": 0.36,
    "response_tokens": {"zero-shot": 21},
    "read_tokens_per_second": 20000,
    "generate_tokens_per_second": 4000,
    "train_tokens_per_second": 3300,
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
    entropy_traces: Annotated[int, Field(ge=0)] = _field(
        "traces along which the student's token entropy is measured (0 = none)", default=200
    )


class Alignment(Strict):
    """03_alignment: the student's continuations, and the study of its judge."""

    continue_prompt: str = _field(
        "instruction to continue {prefix} of {question}",
        default="{question}\nDraft: {prefix}\nTake the draft as known. Finish it and box the answer.",
    )
    alignment_temperature: float = _field("sampling temperature of continuations (0 = greedy)", default=0.6, ge=0)
    alignment_top_p: Fraction = _field("nucleus of continuations", default=0.9)
    alignment_repetition_penalty: float = _field("repetition penalty of continuations", default=1.05, ge=1)
    alignment_max_new_tokens: Positive = _field("token budget of a continuation", default=256)
    keep_cut_continuations: bool = _field(
        "train on a right continuation that its budget cut, as Eq. 9 would", default=False
    )
    sufficiency_samples: Annotated[int, Field(ge=0)] = _field(
        "further continuations per prefix, only to measure the student's success rate from it", default=4
    )
    judged_traces: Annotated[int, Field(ge=0)] = _field(
        "traces of which every prefix is judged, to study the judge itself (0 = none)", default=60
    )


class FineTuning(Strict):
    """04_finetuning: what an arm learns, and how."""

    answer_prompt: str = _field(
        "instruction to answer {question}", default="{question}\nWork step by step. Box the answer."
    )
    upft_tokens: Positive = _field("UPFT: tokens of the trace to learn", default=32)
    upft_structure_share: Fraction = _field("UPFT: share of whole-trace samples", default=0.1)
    upft_prompt: str = _field("UPFT: task prompt of the prefix samples", default="{question}\nBegin the draft.")
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
    temperature: float = _field("sampling temperature (0 = greedy)", default=0.6, ge=0)
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
        if len(set(self.training_seeds)) < len(self.training_seeds):
            refuse("training_seeds", f"seeds must differ, got {self.training_seeds}")
        for arm in self.arms:
            if ARMS[arm].strategy == "judge" and self.judge is None:
                refuse("judge", f"{arm} needs another model, a hub id or local folder; leave the arm out or name one")
            if ARMS[arm].strategy == "oracle" and "sufficient_chars" not in self.training_columns:
                refuse("training_columns", f"{arm} needs sufficient_chars, which only artificial data state")
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


def validate(values: dict[str, Any], where: str, model: type[Strict] = Params, changed: Sequence[str] = ()) -> Any:
    """Build a :class:`Params` (or another ``model``), or raise :class:`ParamsError`, one line per fault: where, key,
    value, remedy. ``where``: what the values come from; ``changed``: keys whose values come from ``-p`` instead.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ParamsError("\n".join(_line(fault, where, model, changed) for fault in error.errors())) from None


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

    Raises :class:`ParamsError` naming the file or ``-p``, the key and the value.
    """
    path, changes = Path(path), list(changes)
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
    values = {str(key): value for key, value in values.items()}
    file = dict(values)
    for key, value in changes:
        values[key] = _read(value, f"-p {key}")
    try:
        return validate(values, str(path), changed=[key for key, _ in changes])
    except ParamsError as fault:
        try:
            validate(file, str(path))
        except ParamsError as own:  # a fault between keys that the file has without `-p` too is the file's
            if str(fault).endswith(str(own).removeprefix(str(path))):
                raise own from None
        raise


def _read(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Plain)
    except Exception as error:  # PyYAML raises its own error for syntax, and many others for a date or a number
        raise ParamsError(f"{where}: not valid YAML: {_short(error)}") from None


def from_notebook(namespace: dict[str, Any], model: type[Strict] = Params) -> Any:
    """The parameters of a running notebook: every plain value defined so far, validated strictly.

    Call it as ``from_notebook(globals())`` right after the parameters cell. papermill only warns of unknown names; this
    function raises :class:`ParamsError`. ``arm``, ``training_seed`` and ``repository`` are left out. ``model``: the
    class to validate with, if not a study's.
    """
    plain = (str, int, float, bool, list, dict, type(None))
    others = {"In", "Out", "arm", "training_seed", "repository"}
    values = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in others and isinstance(value, plain)
    }
    return validate(values, "notebook parameters", model)


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


def parameters_cell(notebook: str, **extra: tuple[Any, str]) -> str:
    """Source of a notebook's ``parameters`` cell: its fields with their defaults and descriptions."""
    defaults = Params().values(*fields_of(notebook))
    rows = [(name, defaults[name], Params.model_fields[name].description) for name in fields_of(notebook)]
    rows += [(name, value, meaning) for name, (value, meaning) in extra.items()]
    return "\n".join(f"{name} = {value!r}  # {meaning}" for name, value, meaning in rows)
