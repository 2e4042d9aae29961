"""Does any input break a parser? ``python -m benchmarks.fuzz [--seconds 60]``: a coverage-guided campaign, by atheris.

Each target takes bytes. It must raise nothing, end within 10 s and take less than a GiB: it catches the documented
errors, and everything else is a finding. ``tests/benchmarks/test_fuzz.py`` runs the same targets by hypothesis. Needs
atheris (``pip install atheris``). Exits with 1 for a finding and prints its input.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SCRATCH = Path(tempfile.gettempdir())


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _scratch(name: str, data: bytes) -> Path:
    folder = SCRATCH / "palign-fuzz"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def params(data: bytes) -> None:
    """A params file: valid, or refused in lines that name the file."""
    from palign import params

    path = _scratch("params.yaml", data)
    try:
        params.load(path)
    except params.ParamsError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith(str(path)) and len(line) < 2000 for line in lines), lines


def records(data: bytes) -> None:
    """A JSONL file: read, or refused by line; after an append it is whole."""
    from palign.tasks.store import RunFolder, StoreError, read_jsonl

    path = _scratch("a.jsonl", data)
    folder = RunFolder(path.parent)
    try:
        found, _ = read_jsonl(path)
        folder.append("a", [{"id": "last"}])
        assert [*map(repr, folder.read("a"))] == [*map(repr, [*found, {"id": "last"}])]
        folder.write("a", found)
        assert [*map(repr, folder.read("a"))] == [*map(repr, found)]
        folder.fill("a", ["x"], str, lambda batch: [{"id": "x"}], "fuzz", 1)
    except StoreError as error:
        assert "a.jsonl: line " in str(error)


def manifest(data: bytes) -> None:
    """A manifest: read, or refused by name."""
    from palign.tasks.store import RunFolder, StoreError

    path = _scratch("manifest.json", data)
    try:
        _ = RunFolder(path.parent).done
    except StoreError as error:
        assert "manifest.json" in str(error)


def rows(data: bytes) -> None:
    """A data file's lines before the loader has them."""
    from palign.problems import DataError, _check_lines

    try:
        _check_lines(_scratch("data.jsonl", data), "data.jsonl")
    except DataError as error:
        assert "line" in str(error)


def answers(data: bytes) -> None:
    """Boxes and gold answers: parts of the text, or none."""
    from palign.grading import _at_once, last_box
    from palign.problems import gold_answer, integer_answer, solution_answer

    text = _text(data)
    box = last_box(text)
    assert box is None or box in text
    gold_answer(text), solution_answer(text), _at_once(box or "", text.strip())
    try:
        integer_answer(text)
    except ValueError as error:
        assert len(str(error)) < 500


def sentences(data: bytes) -> None:
    """Both rules: the reversible one loses nothing, the released one yields full sentences."""
    from palign.traces import split, split_reversibly, thoughts

    text = _text(data)
    assert "".join(split_reversibly(text)) == text
    assert all(sentence.endswith(".") for sentence in split(text)) and thoughts(text) in text


def verdicts(data: bytes) -> None:
    """The result is a label that the text holds, or none."""
    from palign.judging import parse

    label = parse(_text(data))
    assert label in (None, "ENOUGH", "NOT_ENOUGH")
    assert label is None or all(word in _text(data).upper() for word in label.split("_"))


def prompts(data: bytes) -> None:
    """No marker and no control token is left whole, and nothing else is lost."""
    from palign.prompts import BEGIN, CONTROL, END, MARKERS, broken, fill, mark
    from palign.tasks.store import visible

    text = _text(data)
    found = broken(text, CONTROL)
    assert not CONTROL.search(found) and found.replace(" ", "") == text.replace(" ", "")
    assert not MARKERS.search(fill("{question}", question=text)) and len(found) <= 2 * len(text)
    assert mark(text, text).count(BEGIN) == mark(text, text).count(END) == 1
    assert "\x1b" not in visible(text)


def responses(data: bytes) -> None:
    """What is counted in a response, a study's and a released one's; the checks of a released row."""
    from palign import behaviour
    from palign.paper import released
    from palign.problems import DataError

    text = _text(data)
    behaviour.describe(text)
    released._form(text)
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        row = text
    try:
        released._check({"answer": row, "output": row, "label": row}, 1, "data")
    except DataError as error:
        assert len(str(error)) < 1000


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (params, records, manifest, rows, answers, sentences, verdicts, prompts, responses)
}
SEEDS = [
    b"study: a\narms: [zero-shot]\nseed: 1\n",
    b'{"id": "x", "text": "\\ud83d"}\n{"id": "y"}\n',
    b'{"version": 1, "files": {}}',
    rb"So \boxed{\frac{1}{2}}. Or \fbox{25.0}. Wait... $x = 1$",
    b"<Begin_of_Prefix>One. Two!\n\n1. Three.<End_of_Prefix>[ENOUGH] <|im_end|> </think>",
    "“Quoted.” e.g. 中文。 \u202e\x1b[2J".encode(),
]


def campaign(name: str, seconds: int) -> dict:
    """One target in a process of its own: inputs tried, edges covered, and the finding if there is one."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS):
            (corpus / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]
        limits += [f"-artifact_prefix={scratch}/", "-print_final_stats=1"]
        command = [sys.executable, "-m", "benchmarks.fuzz", "--target", name, *limits, str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    edges = re.findall(r"cov: (\d+)", done.stderr)
    said = (done.stdout + done.stderr).splitlines() if done.returncode else []
    noise = ("INFO", "WARNING", "#", "stat::", "0x")
    finding = "\n".join(line for line in said if line and not line.startswith(noise))[-1500:]
    return {"target": name, "inputs": int(tried[1]) if tried else 0, "edges": int((edges or [0])[-1]), "found": finding}


class Silent:
    """A progress bar that shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, n: int = 1) -> None:
        pass


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["palign", "yaml"]):
        import palign.behaviour
        import palign.grading
        import palign.judging
        import palign.paper.released
        import palign.params
        import palign.problems
        import palign.prompts
        import palign.tasks.store
        import palign.traces
    palign.tasks.store.progress = lambda *_: Silent()
    os.fsync = lambda _: None  # nothing here has to outlive a power cut
    global SCRATCH
    with tempfile.TemporaryDirectory() as folder:
        SCRATCH = Path(folder)
        atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", choices=TARGETS, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("atheris is not installed; pip install atheris")
    if options.target:
        _fuzz(options.target, rest)
        return 0
    began, found = time.time(), []
    for name in TARGETS:
        found.append(campaign(name, options.seconds))
        print(json.dumps(found[-1]), flush=True)
    print(f"{sum(row['inputs'] for row in found):,} inputs in {time.time() - began:.0f} s")
    return int(any(row["found"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
