"""``palign check``: what would stop a study, and what is probably not meant, found before anything runs.

>>> findings(load("params/smoke.yaml").model_copy(update={"student": "/no/such/folder"}), contents=False)
[Finding(text='student: /no/such/folder: no such folder', stops=True)]
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..analysis.estimates import Estimates
from ..arms import ARMS
from ..engines.endpoint import KEY
from ..params import Model, Params, is_empty, is_pocket, near, resolve, root
from ..tasks import resolved

OF_THE_STUDENT = ("learning_rate", "max_length", "alignment_max_new_tokens", "max_new_tokens")
OF_THE_STUDENT += ("answer_prompt", "judge_prompt", "continue_prompt", "upft_prompt")
OF_THE_STUDENT += ("rewrite_prompt", "fallback_prompt")
"""Parameters whose value of the pocket study suits no other student."""
HERE = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
"""Hosts whose service is this machine's own, which seldom asks for a key."""


@dataclass(frozen=True)
class Finding:
    """``text``: key, value, what is wrong and the remedy, in one line. ``stops``: the study cannot run; if not, it is a
    warning.
    """

    text: str
    stops: bool = True


def findings(params: Params, contents: bool = True) -> list[Finding]:
    """What would stop this study on this machine, and warnings. ``contents``: also read the local data sets."""
    found = [*_models(params), *_data(params, contents), *_gpus(params), *_memory(params), *_of_the_pocket(params)]
    return found + [Finding(warning, stops=False) for warning in Estimates(params).warnings()]


def _models(params: Params) -> Iterator[Finding]:
    """The models that this study opens. Their template's switches are in ``chat_template_kwargs`` of their role."""
    used = {"student": ("chat_template_kwargs", "every arm")}
    if params.teacher:
        used["teacher"] = ("teacher_chat_template_kwargs", "every trained arm")
    if any(ARMS[arm].strategy == "judge" for arm in params.arms):
        used["judge"] = ("judge_chat_template_kwargs", "p-align-other-judge")
    if params.preference_judge not in (None, "rubric"):
        used["preference_judge"] = ("preference_chat_template_kwargs", "the report's comparison of responses")
    for role, (switches, needing) in used.items():
        model = params.model(role)
        place = f"{role}: {model.name}"
        if model.is_service:
            yield from _service(params, place, needing)
        elif Path(model.path).exists():
            yield from _folder(place, Path(model.path))
            yield from _switches(switches, model)
            yield from _date(place, model)
        else:
            yield from _hub_id(place, model.name, "folder")


def _service(params: Params, place: str, needing: str) -> Iterator[Finding]:
    if not params.endpoint_urls:
        yield Finding(f"{place}: endpoint_urls is empty; name the service's address, such as http://.../v1")
    away = [url for url in params.endpoint_urls if urlsplit(url).hostname not in HERE]
    if away and not os.environ.get(KEY, "").strip():
        why = f"{KEY} is not set; {needing} needs it, unless {away[0]} answers without a key"
        yield Finding(f"{place}: {why}", stops=False)


def _folder(place: str, folder: Path) -> Iterator[Finding]:
    """A model's own folder: the files that loading it needs."""
    if not folder.is_dir():
        yield Finding(f"{place}: a file; name the model's folder, which holds its config.json")
        return
    needs = {
        "config.json": ("config.json",),
        "weights": ("*.safetensors", "*.bin"),
        "tokenizer": ("tokenizer*", "vocab*", "*.model"),
    }
    missing = [name for name, patterns in needs.items() if not any(any(folder.glob(p)) for p in patterns)]
    if missing:
        yield Finding(f"{place}: no {', no '.join(missing)} in this folder; name a model's folder")


def _switches(key: str, model: Model) -> Iterator[Finding]:
    template = _template(Path(model.path))
    if template is None:  # opening the model says what to do about it
        return
    words = set(re.findall(r"[A-Za-z_]\w*", template))
    for name, value in model.chat_template_kwargs.items():
        off = (name, value) == ("enable_thinking", False) and "think" not in template
        if name not in words and not off:  # the default, which switches thoughts off, holds without any to switch off
            why = f"{model.name}'s chat template does not use it{near(name, words)}"
            yield Finding(f"{key}: {name}: {value!r}: {why}", stops=False)


def _date(place: str, model: Model) -> Iterator[Finding]:
    """A template that writes today's date. Only one that names the clock is loaded, which takes seconds."""
    if "strftime_now" in (_template(Path(model.path)) or ""):
        from ..engines.tokenizers import load_tokenizer

        try:
            load_tokenizer(model)
        except ValueError as error:
            yield Finding(f"{place}: {error}")


def _template(folder: Path) -> str | None:
    """A local model's chat templates as one text, from the files that transformers reads; ``None``: it has none."""
    found = [path.read_text("utf-8", "replace") for path in folder.glob("chat_template.jinja")]
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            kept = json.loads((folder / name).read_text("utf-8")).get("chat_template")
        except (OSError, ValueError, AttributeError):
            continue
        found += [kept] if isinstance(kept, str) else [str(one) for one in kept or ()]
    return "\n".join(found) or None


def _hub_id(place: str, name: str, what: str) -> Iterator[Finding]:
    """A name that is nothing local: is it a hub id? ``what``: the local thing it could be."""
    parts = name.split("/")
    if name.startswith(("/", "~", ".")):
        yield Finding(f"{place}: no such {what}")
    elif len(parts) > 2 or not all(re.fullmatch(r"\w[\w.-]{0,95}", part, re.ASCII) for part in parts):
        yield Finding(f"{place}: no such {what} under {root()}, and not a hub id, which has the form owner/name")
    elif len(parts) == 1 or (root() / parts[0]).is_dir():
        yield Finding(f"{place}: no such {what} under {root()}; taken for a hub id", stops=False)


def _data(params: Params, contents: bool) -> Iterator[Finding]:
    """Training data and benchmarks: where they are and, if they are local, what they hold."""
    from .. import problems  # here, because grading imports much

    def local(place: str, data: str) -> Iterator[Finding]:
        path = Path(resolve(data))
        if path.is_file() and is_empty(path):
            yield Finding(f"{place}: empty; it needs one row for each problem")
        elif not path.exists() and path.suffix in problems.FORMATS:
            yield Finding(f"{place}: no such file" + ("" if path.is_absolute() else f" under {root()}"))
        elif not path.exists():
            yield from _hub_id(place, data, "file or folder")

    def readable(data: str, faults: list[Finding]) -> bool:
        return contents and not any(fault.stops for fault in faults) and Path(resolve(data)).exists()

    faults = list(local(f"training_data: {params.training_data}", params.training_data))
    yield from faults
    if readable(params.training_data, faults):
        yield from _training(params)
    for benchmark in params.benchmarks:
        faults = list(local(f"benchmarks: {benchmark.name}: {benchmark.data}", benchmark.data))
        yield from faults
        if readable(benchmark.data, faults):
            try:
                problems.load_benchmark(benchmark)
            except problems.DataError as error:
                yield Finding(f"benchmarks: {benchmark.name}: {error}")


def _training(params: Params) -> Iterator[Finding]:
    from .. import problems

    own = {"trace", "sufficient_chars"} if params.teacher else set()  # a teacher's traces take the place of the data's
    columns = {ours: theirs for ours, theirs in params.training_columns.items() if ours not in own}
    try:
        rows, _ = problems.load_rows(params.training_data, params.training_split, params.training_revision, columns)
        different, _ = problems.without_repeats(rows[: params.training_limit])
        problems.identify(different, params.training_data)
    except problems.DataError as error:
        yield Finding(f"training_data: {error}")
        return
    if params.training_limit and len(rows) < params.training_limit:
        why = f"{params.training_data} has {len(rows)} rows, all of them are used"
        yield Finding(f"training_limit: {params.training_limit}: {why}", stops=False)


def _gpus(params: Params) -> Iterator[Finding]:
    """Training takes one GPU, and TRL stops where several are visible. `palign run` shows its notebooks the first one,
    unless CUDA_VISIBLE_DEVICES says otherwise.
    """
    trained = [arm for arm in params.arms if ARMS[arm].target]
    if not trained or params.device == "cpu" or (count := visible_gpus()) < 2:
        return
    place, chosen = f"device: {params.device}: {count} GPUs are visible", os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        why = "`palign run` uses the first; set CUDA_VISIBLE_DEVICES to use another, and where you start JupyterLab"
        yield Finding(f"{place}: {why}", stops=False)
    else:
        trainer = resolved.training(params)["trainer"]
        why = f"by CUDA_VISIBLE_DEVICES={chosen}, and {trainer} trains on one; set CUDA_VISIBLE_DEVICES=0"
        yield Finding(f"{place} {why}", stops=trainer == "trl")


def _of_the_pocket(params: Params) -> Iterator[Finding]:
    """Values of the pocket study in a file for another student and other data, as in an edited copy of pocket.yaml."""
    if is_pocket(params.student) or params.training_data.startswith("palign/pocket/"):
        return
    pocket = Params()
    same = [name for name in OF_THE_STUDENT if getattr(params, name) == getattr(pocket, name)]
    if same:
        named = ", ".join(name if name.endswith("prompt") else f"{name} {getattr(params, name)}" for name in same)
        why = f"the pocket study's values ({named}); leave these keys out to take the paper's"
        yield Finding(f"student: {params.student}: {why}", stops=False)


def visible_gpus() -> int:
    """How many GPUs a process started here sees. Asks torch, which takes seconds to import, only where there is one."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():  # dxg: Windows' Linux
        return 0
    import torch

    return torch.cuda.device_count()


def _memory(params: Params) -> Iterator[Finding]:
    """The processes of ``jobs`` arms at once, by ``costs.process_gb``, and this machine's memory."""
    estimates, each, machine = Estimates(params), params.costs.process_gb, machine_gb()
    at_once = min(params.jobs, len(estimates.plan.runs))
    if each is None or not estimates.stated or each * at_once <= machine:
        return
    why = f"{at_once} processes of {each:g} GB (costs.process_gb) exceed this machine's {machine:.1f} GB"
    fit = int(machine / each)
    remedy = f"set jobs: {fit}" if fit else "not even one fits"
    yield Finding(f"jobs: {params.jobs}: {why}; {remedy}", stops=False)


def machine_gb() -> float:
    """This machine's memory in 10^9 bytes, or the container's limit where that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such control group, or no limit ("max")
            continue
    return min(sizes) / 1e9
