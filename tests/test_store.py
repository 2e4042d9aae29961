"""Nothing written is lost, nothing is written twice, and a torn line is redone."""

import json
import multiprocessing
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign.store import RunFolder, StoreError, digest, write_atomically


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
    whole = folder.fill("a", items, str, work, 2, "test")
    path = folder.path / "a.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    assert folder.fill("a", items, str, work, 2, "test") == whole
    assert sorted(record["id"] for record in folder.read("a")) == items


def test_fill_computes_only_what_is_missing(tmp_path):
    folder, seen = RunFolder(tmp_path), []

    def work(batch):
        seen.extend(batch)
        return [{"id": item} for item in batch]

    folder.fill("a", ["x", "y"], str, work, 1, "test")
    assert folder.fill("a", ["z", "y", "x"], str, work, 1, "test") == [{"id": "z"}, {"id": "y"}, {"id": "x"}]
    assert seen == ["x", "y", "z"]


def test_batches_before_a_crash_are_kept(tmp_path):
    folder = RunFolder(tmp_path)

    def work(batch):
        if "c" in batch:
            raise KeyboardInterrupt
        return [{"id": item} for item in batch]

    with pytest.raises(KeyboardInterrupt):
        folder.fill("a", ["a", "b", "c"], str, work, 1, "test")
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
        folder.fill("a", ["x"], str, lambda batch: [], 1, "test")


def test_an_id_of_another_data_set_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append("a", [{"id": "foreign"}])
    with pytest.raises(StoreError, match="missing or foreign"):
        folder.fill("a", ["x"], str, lambda batch: [{"id": "x"}], 1, "test")


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


def test_grading_anew_leaves_a_task_done(tmp_path):
    folder = finished(tmp_path / "task")
    folder.write("a", [{"id": "0", "right": True}])
    assert folder.done and folder.manifest()["key"] == "k"


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "not a manifest"), ("[]", "not a manifest"), ("{}", "not a manifest"), ('{"version": 99}', "newer palign")],
)
def test_a_foreign_manifest_is_refused_by_name(tmp_path, text, says):
    folder = finished(tmp_path / "task")
    folder.manifest_path.write_text(text)
    with pytest.raises(StoreError, match=f"manifest.json: .*{says}"):
        _ = folder.done


def test_two_processes_take_turns(tmp_path, capfd):
    """The kernel of a killed study outlives it by a moment, and the next run must not write beside it."""
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
