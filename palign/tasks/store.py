"""Run folders: append-only JSONL that survives a kill, and a manifest written last.

A task's folder is named after a hash of everything its result depends on, so results of different parameters lie in
different folders, and a study that goes back to earlier parameters finds its results. A manifest means that the task is
complete.

>>> folder = RunFolder(Path("runs/pocket/truncation/adaptive-1f0c..."))
>>> folder.append("prefixes", [{"id": "a", "sentences": 4}])
>>> folder.read("prefixes")
[{'id': 'a', 'sentences': 4}]
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..params import OneLine
from .progress import progress

VERSION = 1
"""Version of the records and manifests, to be raised when an older palign would misread them."""


class StoreError(OneLine, RuntimeError):
    """A damaged or foreign file in a run folder; the message is one line."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, as hex."""
    return hashlib.sha256(_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False))).hexdigest()


def _bytes(text: str) -> bytes:
    """JSON text as UTF-8. Half of a surrogate pair, which a cut answer may hold, becomes the escape that JSON reads."""
    return text.encode("utf-8", "backslashreplace")


LARGE = 8 * 2**20
"""Bytes from which on a file's hash is remembered: reading a model of 15 GB takes half a minute."""


def fingerprint(path: Path, remembered: Path | None = None) -> str:
    """Hash of a file, or of a folder's files: of their names and whole contents.

    ``remembered``: a JSON file that keeps the hashes of large files by path, size and time of change.
    """
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    known = _json(remembered) if remembered else {}
    parts, new = [], {}
    for file in files:
        state, name = file.stat(), str(file.resolve())
        stamp = [state.st_size, state.st_mtime_ns]
        found = known.get(name)
        if isinstance(found, list) and found[:2] == stamp:
            content = found[2]
        else:
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            # a file that was changed a moment ago could change again within the clock's resolution
            if state.st_size >= LARGE and time.time_ns() - state.st_mtime_ns > 2e9:
                new[name] = [*stamp, content]
        parts.append([str(file.relative_to(path)) if path.is_dir() else "", state.st_size, content])
    if remembered and new:
        write_atomically(remembered, json.dumps(_json(remembered) | new, ensure_ascii=False) + "\n")
    return digest(parts)


def _json(path: Path) -> dict:
    """The JSON object in a file; empty where there is none, since all that is in it can be computed again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write ``text``, or its parts one by one. A reader sees either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.writelines(map(_bytes, [text] if isinstance(text, str) else text))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_jsonl(path: Path) -> tuple[list[dict], int]:
    """Records of a JSONL file and their size in bytes, without a last line that a kill cut short.

    Raises :class:`StoreError` for any other line that is not a JSON object.
    """
    records, good = [], 0
    for record, length in stream_jsonl(path):
        records.append(record)
        good += length
    return records, good


def stream_jsonl(path: Path) -> Iterator[tuple[dict, int]]:
    """The records of :func:`read_jsonl` one by one, each with its bytes: for files larger than memory."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # only the last line can lack its end, where an append was killed
            try:
                record = json.loads(line.decode("utf-8"))  # given bytes, json would also accept UTF-16
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise StoreError(
                    f"{path}: line {number}: not a JSON object; delete the folder {path.parent} to redo it"
                )
            yield record, len(line)


@contextlib.contextmanager
def lock(path: Path, wait: str | None = None) -> Iterator[bool]:
    """Hold the lock file ``path``; gives whether it is held.

    Where another process holds it: ``False`` or, with a line ``wait`` to print, the lock once that process ends. A file
    system without locks (some network drives) is said once, and counts as held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            print(wait, file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _without_locks(error.strerror or str(error))
        yield True


@functools.cache
def _without_locks(why: str) -> None:
    print(f"no file locks here ({why}): start each study once at a time", file=sys.stderr)


UNVOUCHED = ("manifest.json", "key", "checkpoints")
"""Files of a task's folder that no later task reads."""


class RunFolder:
    """The folder of one task's results: JSONL files and others, and a manifest once the task is complete.

    ``amount``: how many samples (or sampled traces) the study asks of it; records hold their number as ``sample``. A
    folder that holds more serves too: they are not read, and stay.
    """

    def __init__(self, path: Path, amount: int = 0):
        self.path, self.amount = path, amount
        self.manifest_path = path / "manifest.json"

    @property
    def done(self) -> bool:
        """Whether there is a manifest of at least the ``amount``, and every file has the size that it states.

        Where a file is missing, cut or longer, the task is not done: its rerun keeps the good records and adds the
        others.
        """
        if not self.manifest_path.exists():
            return False
        manifest = self.manifest()
        return manifest.get("amount", 0) >= self.amount and self._sizes() == manifest["files"]

    def manifest(self) -> dict:
        """The manifest. Raises :class:`StoreError` for a file that is not a manifest or is a newer palign's."""
        try:
            manifest = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            manifest = None
        version = manifest.get("version") if isinstance(manifest, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise StoreError(
                f"{self.manifest_path}: version {version}, this palign reads {VERSION}; use a newer palign"
            )
        if version != VERSION or not isinstance(manifest.get("files"), dict):
            raise StoreError(f"{self.manifest_path}: not a manifest; delete the file to redo its task")
        return manifest

    def _sizes(self) -> dict[str, int]:
        names = {path: path.relative_to(self.path) for path in sorted(self.path.rglob("*")) if path.is_file()}
        return {
            name.as_posix(): path.stat().st_size
            for path, name in names.items()
            if name.parts[0] not in UNVOUCHED and not name.name.startswith(".")
        }

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the folder against other processes; if another one holds the lock, wait for it to end.

        The kernel of a killed study still runs for a moment. Without the lock, it and the next run would both append.
        """
        waiting = f"{self.path}: another process is at work here; waiting for it"
        with lock(self.path.with_name(f".{self.path.name}.lock"), waiting):
            yield

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Write the task's key into the folder before its work begins, and delete both if the work left nothing.

        Raises :class:`StoreError` where the folder holds the work of another task (copied here: its records have the
        same ids) or of a newer palign.
        """
        note = self.path / "key"
        if note.exists():
            found, _, version = note.read_text(encoding="utf-8", errors="replace").strip().partition(" version ")
            if found != key:
                fault = f"begun as {found[:40]}, not as {key}; delete the folder {self.path} to redo it"
                raise StoreError(f"{note}: {fault}")
            if version not in ("", str(VERSION)):  # the first key files had no version
                raise StoreError(
                    f"{note}: version {version[:40]}, this palign reads {VERSION}; use the palign that began this"
                )
        write_atomically(note, f"{key} version {VERSION}\n")
        try:
            yield
        finally:
            if [*self.path.iterdir()] == [note]:
                note.unlink()
                self.path.rmdir()

    def read(self, name: str) -> list[dict]:
        """The complete records of ``name``.jsonl in the order written, without samples beyond the ``amount``; an empty
        list when there is no such file.
        """
        return [record for record in self._all(name) if not self._beyond(record)]

    def _all(self, name: str) -> list[dict]:
        path = self.path / f"{name}.jsonl"
        return read_jsonl(path)[0] if path.exists() else []

    def _beyond(self, record: dict) -> bool:
        number = record.get("sample")
        return bool(self.amount) and isinstance(number, int) and number >= self.amount

    def discard(self, name: str, unwanted: Callable[[dict], bool]) -> int:
        """Remove ``unwanted`` records from ``name``.jsonl and return how many there were."""
        records = self._all(name)
        good = [record for record in records if not unwanted(record)]
        if len(good) < len(records):
            self.write(name, good)
        return len(records) - len(good)

    def append(self, name: str, records: Iterable[dict], sync: bool = True) -> None:
        """Append records in one write, after removing a last line that a kill cut short. ``sync``: wait until the whole
        file is on the disk, where a power cut leaves it.
        """
        path = self.path / f"{name}.jsonl"
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self.path.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open("rb+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.truncate(read_jsonl(path)[1])
        with path.open("ab") as file:
            file.write(_bytes(lines))
            file.flush()
            if sync:
                os.fsync(file.fileno())

    def write(self, name: str, records: Iterable[dict]) -> None:
        """Replace ``name``.jsonl as a whole."""
        write_atomically(self.path / f"{name}.jsonl", (json.dumps(r, ensure_ascii=False) + "\n" for r in records))

    def fill(
        self,
        name: str,
        items: Sequence[Any],
        key: Callable[[Any], str],
        work: Callable[[list[Any]], Iterable[dict]],
        describe: str,
        batch_size: int | None = None,
    ) -> list[dict]:
        """Compute the records that are missing from ``name``.jsonl and return all of them.

        ``work`` turns items into records whose ``id`` is the item's ``key``, in any order. Without a ``batch_size`` it
        gets all missing items at once. Each record is appended as it comes: a kill loses what ``work`` has not given
        yet, and a later call computes it. The returned records and the file are in the order of ``items``, whatever
        order they were computed in. ``describe``: the title of the progress bar. Raises :class:`StoreError` before any
        work when the file holds a record of other items, and at the end when a record is missing.
        """
        keys = [key(item) for item in items]
        have = self._ids(name, set(keys))
        missing = [item for item, k in zip(items, keys, strict=True) if k not in have]
        size = batch_size or max(1, len(missing))
        with progress(describe, len(items), len(items) - len(missing)) as bar:
            for start in range(0, len(missing), size):
                with contextlib.closing(self.store(name, work(missing[start : start + size]))) as stored:
                    for _ in stored:
                        bar.update()
        if absent := set(keys) - self._ids(name, set(keys)):
            raise StoreError(f"{self.path / name}.jsonl: {len(absent)} records missing; delete the folder to redo it")
        by_key = {record["id"]: record for record in self._all(name)}
        found = list(by_key)
        records = [by_key.pop(k) for k in keys]
        if found[: len(keys)] != keys:  # after a resumption: the file becomes the same as without one
            self.write(name, [*records, *by_key.values()])
        return records

    def store(self, name: str, records: Iterable[dict]) -> Iterator[dict]:
        """Append each record at once to ``name``.jsonl and give it, so that a kill loses none.

        Waits for the disk once a second and at the end. Close it (``contextlib.closing``) where an interrupt may leave
        it waiting.
        """
        began, any_new = time.perf_counter(), False
        try:
            for record in records:
                now, any_new = time.perf_counter(), True
                self.append(name, [record], sync=now - began > 1)
                if now - began > 1:
                    self.append("seconds", [{"file": name, "seconds": round(now - began, 3)}])
                    began = now
                yield record
        finally:
            if hasattr(records, "close"):
                records.close()  # of a generator that an interrupt left waiting: its engine drops what is in flight
            if any_new:
                self.append(name, [])
                self.append("seconds", [{"file": name, "seconds": round(time.perf_counter() - began, 3)}])

    def _ids(self, name: str, known: set[str]) -> set[str]:
        """The ids of ``name``.jsonl. Raises :class:`StoreError` for an id that is not ``known`` or occurs twice."""
        path, found = self.path / f"{name}.jsonl", set()
        for number, (record, _) in enumerate(stream_jsonl(path) if path.exists() else (), start=1):
            own = record.get("id")
            if self._beyond(record):
                continue
            if not isinstance(own, str) or own not in known:
                fault = f"id {str(own)[:80]!r} is foreign: it belongs to other data or parameters"
            elif own in found:
                fault = f"id {own} twice"
            else:
                found.add(own)
                continue
            raise StoreError(f"{path}: line {number}: {fault}; delete the folder {self.path} to redo it")
        return found

    def seconds(self) -> float:
        """Wall-clock seconds that :meth:`fill` took, summed over all runs that contributed."""
        return round(sum(record["seconds"] for record in self.read("seconds")), 2)

    def finish(self, params: dict, **facts: Any) -> None:
        """Write the manifest, atomically and last: parameters, code, packages, hardware and the task's ``facts``."""
        manifest = {"params": params, **facts, "seconds": self.seconds(), "peak_memory_bytes": peak_memory()}
        manifest |= {"provenance": provenance(), "version": VERSION, "amount": self.amount, "files": self._sizes()}
        write_atomically(self.manifest_path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def peak_memory() -> int:
    """Bytes: of the GPU, where this process used one, else the process's largest resident set."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest  # Linux counts in KiB


ENVIRONMENT = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "VLLM_BATCH_INVARIANT")
"""Variables on which results or their speed depend; none of them is a secret."""


def visible(text: str) -> str:
    r"""``text`` for a terminal or a page: control characters, except new lines and tabs, become escapes.

    ANSI escapes recolour or overwrite a terminal, and marks of writing direction reorder the text beside them.

    >>> visible("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


# C0 and C1 controls, separators of lines, marks of width and of writing direction, halves of surrogate pairs
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def provenance() -> dict[str, Any]:
    """What computed a result: commit, whether the tree had changes, package versions, hardware, time."""
    packages = ("palign", "torch", "transformers", "trl", "peft", "datasets", "numpy", "math-verify", "vllm", "unsloth")
    return {
        "commit": _git("rev-parse", "HEAD"),
        # reports are results: one that was just rewritten is no change of the code
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/reports")),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages if _version(name)},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count(), **_gpu()},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _git(*args: str) -> str | None:
    here = Path(__file__).resolve().parent
    try:
        return subprocess.run(("git", *args), cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {"gpu": torch.cuda.get_device_name()} if torch and torch.cuda.is_available() else {}
