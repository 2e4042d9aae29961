"""Nothing written is lost, nothing is written twice, and a torn line is redone."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import params, traces
from palign.tasks import store
from palign.tasks.plan import Plan
from palign.tasks.store import RunFolder, StoreError, digest, fingerprint, lock, write_atomically


def test_records_come_back_as_written(tmp_path):
    folder = RunFolder(tmp_path / "task")
    folder.append("a", [{"id": "1", "text": "é\u2028\n"}])
    folder.append("a", [{"id": "2"}])
    assert folder.read("a") == [{"id": "1", "text": "é\u2028\n"}, {"id": "2"}]


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_file_cut_anywhere_resumes_without_loss_or_doubles(tmp_path_factory, cut):
    """A kill can stop an append at any byte."""
    folder = RunFolder(tmp_path_factory.mktemp("store"))
    items = [f"item-{i}" for i in range(6)]
    work = lambda batch: [{"id": item, "square": len(item)} for item in batch]  # noqa: E731
    whole = folder.fill("a", items, str, work, "test", 2)
    path = folder.path / "a.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    assert folder.fill("a", items, str, work, "test", 2) == whole
    assert sorted(record["id"] for record in folder.read("a")) == items


def test_fill_computes_only_what_is_missing(tmp_path):
    folder, seen = RunFolder(tmp_path), []

    def work(batch):
        seen.extend(batch)
        return [{"id": item} for item in batch]

    folder.fill("a", ["x", "y"], str, work, "test", 1)
    assert folder.fill("a", ["z", "y", "x"], str, work, "test", 1) == [{"id": "z"}, {"id": "y"}, {"id": "x"}]
    assert seen == ["x", "y", "z"]


def test_batches_before_a_crash_are_kept(tmp_path):
    folder = RunFolder(tmp_path)

    def work(batch):
        if "c" in batch:
            raise KeyboardInterrupt
        return [{"id": item} for item in batch]

    with pytest.raises(KeyboardInterrupt):
        folder.fill("a", ["a", "b", "c"], str, work, "test", 1)
    assert [record["id"] for record in folder.read("a")] == ["a", "b"]
    assert not folder.done


@pytest.mark.parametrize("line", [b"garbage\n", b"[1]\n", b"\x00\xff\n", b'{"id": "1"\n'])
def test_a_foreign_line_is_refused_by_file_and_number(tmp_path, line):
    folder = RunFolder(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "0"}\n' + line + b'{"id": "2"}\n')
    with pytest.raises(StoreError, match=r"a\.jsonl: line 2"):
        folder.read("a")


def test_an_id_twice_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append("a", [{"id": "x"}, {"id": "x"}])
    with pytest.raises(StoreError, match="x twice"):
        folder.fill("a", ["x"], str, lambda batch: [], "test", 1)


def test_an_id_of_another_data_set_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append("a", [{"id": "foreign"}])
    with pytest.raises(StoreError, match=r"a\.jsonl: line 1: id 'foreign' is foreign"):
        folder.fill("a", ["x"], str, lambda batch: [{"id": "x"}], "test", 1)


def test_manifest_is_the_last_thing_and_names_what_ran(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.done
    folder.finish({"seed": 1}, rows=3)
    manifest = folder.manifest()
    assert folder.done and manifest["params"] == {"seed": 1} and manifest["rows"] == 3
    assert {"commit", "dirty", "packages", "machine", "finished"} <= set(manifest["provenance"])


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old"


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest(value) == digest(dict(reversed(value.items()))) == digest(json.loads(json.dumps(value)))


def finished(path, records=3):
    folder = RunFolder(path)
    folder.append("a", [{"id": str(i)} for i in range(records)])
    folder.finish({}, key="k")
    return folder


@pytest.mark.parametrize("fault", ["cut", "grown", "missing"])
def test_records_that_are_not_those_of_the_manifest_are_not_done(tmp_path, fault):
    """A manifest alone proves nothing once its data were lost or copied over."""
    folder = finished(tmp_path / "task")
    assert folder.done
    path = folder.path / "a.jsonl"
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4] if fault == "cut" else path.read_bytes() + b'{"id": "3"}\n')
    assert not folder.done


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *[
            (text, "not a manifest")
            for text in ("", "[]", "{}", '{"version": 1}', '{"version": 1, "files": 3}', "[" * 10**5)
        ],
        *[
            (text, "not a manifest")
            for text in ('{"version": "1", "files": {}}', '{"version": NaN, "files": {}}', "\x00")
        ],
        ('{"version": 99}', "newer palign"),
    ],
)
def test_a_foreign_manifest_is_refused_by_name(tmp_path, text, says):
    folder = finished(tmp_path / "task")
    folder.manifest_path.write_text(text)
    with pytest.raises(StoreError, match=f"manifest.json: .*{says}"):
        _ = folder.done


def test_two_processes_take_turns(tmp_path, capfd):
    """The kernel of a killed study still runs for a moment, and the next run must not write at the same time."""
    context, folder = multiprocessing.get_context("fork"), RunFolder(tmp_path / "task")
    inside, leave = context.Event(), context.Event()

    def first():
        with folder.hold():
            inside.set()
            leave.wait(20)
            folder.append("a", [{"id": "first"}])

    process = context.Process(target=first)
    process.start()
    assert inside.wait(20)
    threading.Timer(0.2, leave.set).start()
    with folder.hold():
        folder.append("a", [{"id": "second"}])
    process.join()
    assert [record["id"] for record in folder.read("a")] == ["first", "second"]
    assert "another process is at work" in capfd.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 64 + b"\n",
        '{"id": "é"}\n'.encode("latin-1"),
        '{"id": "1"}\n'.encode("utf-16"),
        b'\xef\xbb\xbf{"id": "1"}\n',
        b'{"id": "1"}{"id": "2"}\n',
        b"[" * 100_000 + b"\n",
        b'{"id": ' + b"9" * 5000 + b"}\n",
    ],
)
def test_bytes_that_are_no_record_are_refused_by_file_and_number(tmp_path, line):
    """Python's json reads UTF-16 and runs out of stack; neither may pass for valid records or hide a clear error."""
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "0"}\n' + line)
    with pytest.raises(StoreError, match=r"a\.jsonl: line 2: not a JSON object; delete the folder"):
        RunFolder(tmp_path).read("a")


def test_a_tail_of_nul_bytes_is_redone(tmp_path):
    """After a power cut, some file systems have the file's length but not its bytes."""
    folder = RunFolder(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "x"}\n' + b"\x00" * 512)
    assert [r["id"] for r in folder.fill("a", ["x", "y"], str, lambda b: [{"id": i} for i in b], "test", 1)] == [*"xy"]
    assert b"\x00" not in (tmp_path / "a.jsonl").read_bytes()


@pytest.mark.parametrize("record", [{}, {"id": None}, {"id": ["x"]}, {"id": 1}, {"id": "y"}])
def test_a_record_of_other_data_is_refused_before_any_work(tmp_path, record):
    """It used to be found at the end, after hours."""
    folder = RunFolder(tmp_path)
    folder.append("a", [{"id": "x"}, record])
    with pytest.raises(StoreError, match=r"a\.jsonl: line 2: id .* is foreign"):
        folder.fill("a", ["x", "z"], str, lambda batch: pytest.fail("worked"), "test", 1)


def test_data_without_a_manifest_are_not_done_and_a_manifest_without_data_neither(tmp_path):
    folder = finished(tmp_path / "task")
    manifest = folder.manifest_path.read_text()
    folder.manifest_path.unlink()
    assert not folder.done and len(folder.read("a")) == 3
    (folder.path / "a.jsonl").unlink()
    folder.manifest_path.write_text(manifest)
    assert not folder.done and folder.read("a") == []


def test_the_results_of_other_parameters_are_refused_by_name(small, project):
    """Whole folders get copied about: by hand, or by a tool that syncs runs/."""
    one = params.validate(small, "test")
    other = params.validate(small | {"training_limit": 6}, "test")
    traces.collect(one)
    copied, own = Plan(one).traces, Plan(other).traces
    shutil.copytree(copied.folder.path, own.folder.path)
    with pytest.raises(StoreError, match=f"manifest.json: holds {copied.key}, not {own.key}"):
        traces.collect(other)
    own.folder.manifest_path.unlink()
    with pytest.raises(StoreError, match=f"key: begun as {copied.key}, not as {own.key}"):
        traces.collect(other)
    shutil.rmtree(own.folder.path)
    assert len(traces.collect(other)) == 6


def test_work_that_a_newer_palign_began_is_refused_and_an_older_note_is_not(tmp_path):
    """Its records have no manifest, which would name its version."""
    folder = RunFolder(tmp_path / "task")
    with folder.claim("k"):
        folder.append("a", [{"id": "x"}])
    note = folder.path / "key"
    assert note.read_text() == "k version 1\n"
    note.write_text("k\n")
    with folder.claim("k"):
        assert folder.read("a") == [{"id": "x"}]
    note.write_text("k version 2\n")
    with pytest.raises(StoreError, match=r"key: version 2, this palign reads 1; [^\n]*$"), folder.claim("k"):
        pytest.fail("worked")


def test_work_that_leaves_nothing_leaves_no_folder(tmp_path):
    folder = RunFolder(tmp_path / "task")
    with pytest.raises(KeyboardInterrupt), folder.claim("k"):
        raise KeyboardInterrupt
    assert not folder.path.exists()


def test_half_of_a_surrogate_pair_is_kept(tmp_path):
    """A service's answer can be cut between the two halves of an emoji; UTF-8 cannot hold one."""
    folder, record = RunFolder(tmp_path), {"id": "x", "text": "cut \ud83d"}
    folder.append("a", [record])
    folder.write("b", [record])
    assert folder.read("a") == folder.read("b") == [record]
    assert len(digest(record)) == 64


def test_a_manifest_vouches_for_every_file_that_a_later_task_reads(tmp_path):
    """A task whose adapter folder was deleted was still done; evaluation then failed."""
    folder = RunFolder(tmp_path / "task")
    (folder.path / "adapter").mkdir(parents=True)
    (folder.path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "state").write_text("removed once the task is done")
    folder.finish({})
    shutil.rmtree(folder.path / "checkpoints")
    assert folder.done
    (folder.path / "adapter" / "adapter_model.safetensors").write_bytes(b"weight")
    assert not folder.done
    shutil.rmtree(folder.path / "adapter")
    assert not folder.done


def samples(numbers):
    return [{"id": f"p/{n}", "sample": n} for n in numbers]


def test_more_samples_are_added_and_fewer_are_read_from_what_there_is(tmp_path):
    """The three samples that were there were made again when sixteen were asked for."""
    made = []

    def fill(folder):
        def work(batch):
            made.extend(batch)
            return samples(batch)

        return folder.fill("a", list(range(folder.amount)), lambda n: f"p/{n}", work, "test", 4)

    three, five = RunFolder(tmp_path, 3), RunFolder(tmp_path, 5)
    assert fill(three) == samples(range(3))
    three.finish({})
    assert three.done and not five.done
    assert fill(five) == samples(range(5)) and made == [0, 1, 2, 3, 4]
    assert not three.done, "grown, and not yet vouched for"
    assert fill(three) == samples(range(3)) and three.read("a") == samples(range(3))
    assert five.read("a") == samples(range(5)), "what the smaller study does not read stays"
    five.finish({})
    assert three.done and five.done and three.read("a") == samples(range(3))
    assert made == [0, 1, 2, 3, 4]


def test_records_are_discarded_beyond_the_amount_too(tmp_path):
    folder = RunFolder(tmp_path, 2)
    folder.append("a", samples(range(4)))
    assert folder.discard("a", lambda record: record["sample"] in (1, 3)) == 2
    assert RunFolder(tmp_path, 9).read("a") == samples((0, 2))


def test_a_large_file_counts_by_its_whole_content(tmp_path, monkeypatch):
    """Weights over 256 MiB counted by name and size: a retrained model of the same size reused old results."""
    monkeypatch.setattr(store, "LARGE", 4)
    weights, remembered = tmp_path / "model.safetensors", tmp_path / "hashes.json"

    def content(text, age):
        weights.write_text(text)
        os.utime(weights, ns=(10**18 + age, 10**18 + age))
        return fingerprint(weights, remembered)

    first = content("old weights", 0)
    assert remembered.exists() and content("new weights", 1) != first
    assert content("old weights", 2) == first


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGE", 4)
    weights, remembered = tmp_path / "model.safetensors", tmp_path / "hashes.json"
    weights.write_text("weights")
    os.utime(weights, (10**9, 10**9))
    first = fingerprint(weights, remembered)
    monkeypatch.setattr(store.hashlib, "file_digest", None)  # a second reading would fail
    assert fingerprint(weights, remembered) == first
    remembered.write_text("cut short {")
    with pytest.raises(TypeError):
        fingerprint(weights, remembered)


def test_a_file_system_without_locks_is_not_a_running_study(tmp_path, monkeypatch, capsys):
    """Any OSError of flock read as "already running", for ever."""

    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    store._without_locks.cache_clear()
    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with lock(tmp_path / "runs" / ".lock") as held:
            assert held
    told = capsys.readouterr().err
    assert told == "no file locks here (No locks available): start each study once at a time\n"


def test_a_lock_that_another_process_holds_is_not_taken(tmp_path):
    with lock(tmp_path / ".lock") as first, lock(tmp_path / ".lock") as second:
        assert first and not second
    with lock(tmp_path / ".lock") as third:
        assert third


def test_records_are_kept_as_they_come(tmp_path):
    """A batch used to be stored when its slowest response had finished."""
    folder = RunFolder(tmp_path)

    def work(batch):
        assert batch == [1, 2, 3]
        for number in (3, 1):
            yield {"id": str(number)}
            assert folder.read("a")[-1] == {"id": str(number)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.fill("a", [1, 2, 3], str, work, "test")
    assert folder.read("a") == [{"id": "3"}, {"id": "1"}] and folder.seconds() >= 0
    records = folder.fill("a", [1, 2, 3], str, lambda batch: [{"id": str(n)} for n in batch], "test")
    assert records == folder.read("a") == [{"id": "1"}, {"id": "2"}, {"id": "3"}]


@pytest.mark.model
def test_a_kill_costs_what_was_in_flight_and_nothing_else(tmp_path, monkeypatch):
    """Killed at any moment and started again until it is done: what was given is never made again."""
    # a forked child that is killed would keep tqdm's lock for ever
    monkeypatch.setattr(store, "progress", lambda *_: contextlib.nullcontext(SimpleNamespace(update=lambda: None)))
    folder, items, rng = RunFolder(tmp_path / "task"), list(range(300)), random.Random(0)
    given = tmp_path / "given"

    def work(batch):
        for item in rng.sample(batch, len(batch)):
            time.sleep(0.001)
            yield {"id": str(item), "square": item * item}
            with given.open("a") as file:  # whoever asks for the next record has stored this one
                file.write(f"{item}\n")

    for _ in range(50):
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                folder.fill("a", items, str, work, "test")
            os._exit(0)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert folder.fill("a", items, str, work, "test") == [{"id": str(i), "square": i * i} for i in items]
    numbers = given.read_text().split()
    assert len(numbers) == len(set(numbers)), "a stored record was made again"
