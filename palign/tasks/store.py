"""Run folders: append-only JSONL that survives a kill, and a manifest written last.

A task's folder is named after a hash of everything its result depends on, so results of different parameters never
meet, and going back to earlier parameters costs nothing. The manifest's existence means the task is complete.

>>> folder = RunFolder(Path("runs/pocket/truncation/adaptive-1f0c..."))
>>> folder.append("prefixes", [{"id": "a", "sentences": 4}])
>>> folder.read("prefixes")
[{'id': 'a', 'sentences': 4}]
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

VERSION = 1
"""Of the records and manifests; raised when an older reader would misread a newer one."""


class StoreError(RuntimeError):
    """A file in a run folder that cannot be trusted; the message is one line."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, as hex."""
    return hashlib.sha256(_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False))).hexdigest()


def _bytes(text: str) -> bytes:
    """UTF-8 of JSON; half of a surrogate pair, which a cut answer may hold, as the escape that JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def fingerprint(path: Path, whole_up_to: int = 256 * 2**20) -> str:
    """Hash of a file, or of a folder's files; beyond ``whole_up_to`` bytes a file counts by name and size only."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    parts = []
    for file in files:
        size = file.stat().st_size
        content = hashlib.sha256(file.read_bytes()).hexdigest() if size <= whole_up_to else ""
        parts.append([str(file.relative_to(path)) if path.is_dir() else "", size, content])
    return digest(parts)


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write ``text``, or its parts one by one, so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.writelines(map(_bytes, [text] if isinstance(text, str) else text))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_jsonl(path: Path) -> tuple[list[dict], int]:
    """Records of a JSONL file and the bytes they take; a last line cut short by a kill is left out.

    Raises :class:`StoreError` for any other line that is not a JSON object.
    """
    records, good = [], 0
    for record, length in stream_jsonl(path):
        records.append(record)
        good += length
    return records, good


def stream_jsonl(path: Path) -> Iterator[tuple[dict, int]]:
    """The records and lengths of :func:`read_jsonl` one by one: a file may be larger than its reader's memory."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # only the last line can lack its end: an append that was killed
            try:
                record = json.loads(line.decode("utf-8"))  # of bytes, json would also read UTF-16
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise StoreError(
                    f"{path}: line {number}: not a JSON object; delete the folder {path.parent} to redo it"
                )
            yield record, len(line)


class RunFolder:
    """One task's results."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest_path = path / "manifest.json"

    @property
    def done(self) -> bool:
        """Whether there is a manifest, and beside it all the records it was written for.

        A file that is missing, cut or grown makes the task undone: its rerun keeps the good records and adds the rest.
        """
        if not self.manifest_path.exists():
            return False
        return self._sizes() == self.manifest()["files"]

    def manifest(self) -> dict:
        """Raises :class:`StoreError` for what is no manifest, or one of a newer palign."""
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
            raise StoreError(f"{self.manifest_path}: not a manifest; delete the file to redo what it stood for")
        return manifest

    def _sizes(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in sorted(self.path.glob("*.jsonl"))}

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes out while this one works here; where another is at work, wait for its end.

        A killed study's kernel lives on for a moment: without this, it and the next run would both append.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print(f"{self.path}: another process is at work here; waiting for it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Note whose work begins here; the note goes again with work that left nothing. Raises :class:`StoreError`
        where another task's was begun and copied over, whose records have the same ids, or a newer palign's.
        """
        note = self.path / "key"
        if note.exists():
            found, _, version = note.read_text(encoding="utf-8", errors="replace").strip().partition(" version ")
            if found != key:
                fault = f"begun as {found[:40]}, not as {key}; delete the folder {self.path} to redo it"
                raise StoreError(f"{note}: {fault}")
            if version not in ("", str(VERSION)):  # the first notes had none
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
        """All complete records of ``name``.jsonl, in the order written; empty when there is no such file."""
        path = self.path / f"{name}.jsonl"
        return read_jsonl(path)[0] if path.exists() else []

    def append(self, name: str, records: Iterable[dict]) -> None:
        """Add records in one write, after cutting off a line that a kill left unfinished."""
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
            os.fsync(file.fileno())

    def write(self, name: str, records: Iterable[dict]) -> None:
        """Replace ``name``.jsonl as a whole."""
        self._replace(name, records)
        if self.manifest_path.exists():  # graded anew
            self._seal(self.manifest())

    def _replace(self, name: str, records: Iterable[dict]) -> None:
        write_atomically(self.path / f"{name}.jsonl", (json.dumps(r, ensure_ascii=False) + "\n" for r in records))

    def fill(
        self,
        name: str,
        items: Sequence[Any],
        key: Callable[[Any], str],
        work: Callable[[list[Any]], list[dict]],
        batch_size: int,
        describe: str,
    ) -> list[dict]:
        """Compute the records still missing from ``name``.jsonl, a batch at a time, and return all of them.

        ``work`` turns a batch of items into records whose ``id`` is the item's ``key``. Each batch is appended when
        it is complete, so a kill costs at most one batch; a later call goes on with what is missing. The records
        come back, and stand in the file, in the order of ``items``, whatever order they were computed in. Raises
        :class:`StoreError` when the file holds what is no record of these items, before any work, and when a record is
        missing at the end.
        """
        keys = [key(item) for item in items]
        have = self._ids(name, set(keys))
        missing = [item for item, k in zip(items, keys, strict=True) if k not in have]
        with progress(describe, len(items), len(items) - len(missing)) as bar:
            for start in range(0, len(missing), batch_size):
                batch, began = missing[start : start + batch_size], time.perf_counter()
                records = work(batch)
                self.append(name, records)
                self.append("seconds", [{"file": name, "seconds": round(time.perf_counter() - began, 3)}])
                bar.update(len(batch))
        if absent := set(keys) - self._ids(name, set(keys)):
            raise StoreError(f"{self.path / name}.jsonl: {len(absent)} records missing; delete the folder to redo it")
        by_key = {record["id"]: record for record in self.read(name)}
        records = [by_key[k] for k in keys]
        if list(by_key) != keys:  # so that what reads the file later finds them as if nothing had been asked again
            self._replace(name, records)
        return records

    def _ids(self, name: str, known: set[str]) -> set[str]:
        """The ids of ``name``.jsonl. Raises :class:`StoreError` for one that is not ``known``, and for one twice."""
        path, found = self.path / f"{name}.jsonl", set()
        for number, (record, _) in enumerate(stream_jsonl(path) if path.exists() else (), start=1):
            own = record.get("id")
            if not isinstance(own, str) or own not in known:
                fault = f"id {str(own)[:80]!r} is foreign, of other data or parameters"
            elif own in found:
                fault = f"id {own} twice"
            else:
                found.add(own)
                continue
            raise StoreError(f"{path}: line {number}: {fault}; delete the folder {self.path} to redo it")
        return found

    def seconds(self) -> float:
        """Wall-clock seconds spent by :meth:`fill`, over all runs that contributed."""
        return round(sum(record["seconds"] for record in self.read("seconds")), 2)

    def finish(self, params: dict, **facts: Any) -> None:
        """Write the manifest: parameters, code, packages, hardware the task's own ``facts``. Last, atomically."""
        self._seal({"params": params, **facts, "seconds": self.seconds(), "provenance": provenance()})

    def _seal(self, manifest: dict) -> None:
        manifest = manifest | {"version": VERSION, "files": self._sizes()}
        write_atomically(self.manifest_path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


ENVIRONMENT = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "VLLM_BATCH_INVARIANT")
"""Variables on which results or their speed depend; none of them is a secret."""


def visible(text: str) -> str:
    r"""``text`` for a terminal or a page: control characters as their escapes, but for new lines and tabs.

    ANSI escapes would recolour or rewrite a terminal, marks of writing direction turn what is beside them around.

    >>> visible("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


# C0 and C1 controls, separators of lines, marks of width and of writing direction, halves of surrogate pairs
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def progress(describe: str, total: int, done: int = 0):
    """A progress bar in plain ascii text: it reads the same in a terminal, under papermill and in a saved notebook."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc=describe, ascii=True, mininterval=2)


def provenance() -> dict[str, Any]:
    """What ran this: commit, whether the tree was changed, package versions, hardware, time."""
    packages = ("palign", "torch", "transformers", "trl", "peft", "datasets", "numpy", "math-verify", "vllm", "unsloth")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
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
