"""No bytes break a parser: the targets of ``python -m benchmarks.fuzz``, from hypothesis."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz

PARTS = [
    *fuzz.SEEDS,
    *(b"\x00", b"\xff\xfe", b"\r\n", b"\n", b"\\boxed{", b"\\fbox{", b"{", b"}", b"$", b"\\", b'"', b"9" * 400, b"NaN"),
    *(b"[ENOUGH]", b"[NOT_ENOUGH]", b"<Begin_of_Prefix>", b"<End_of_Prefix>", b"<|", b"|>", b"</think>", b". ", b"..."),
    *(b"- &a *a", b"!!python/object/apply:os.system [x]", b"? ", b"a: ", b"study: ", b"arms:\n", b'{"id": "x"}\n'),
    *(b'{"version": ', b'"files": ', b"\xed\xa0\xbd", b"\xf0\x9f\x98\x80", b"\xe2\x80\xae", b"[" * 3000, b"." * 3000),
]
INPUTS = st.lists(st.sampled_from(PARTS) | st.binary(max_size=20), max_size=8).map(b"".join)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_parser_reads_any_bytes_or_refuses_them_clearly(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SCRATCH", tmp_path)  # one folder each: a manifest does not belong in a folder of records
    monkeypatch.setattr("palign.tasks.store.progress", lambda *_: fuzz.Silent())
    monkeypatch.setattr("os.fsync", lambda _: None)

    @settings(max_examples=150)
    @given(INPUTS)
    @example(b'{"version": 1, "diles": {}}')  # what the campaigns found
    @example(b'{"version": ,11' + b"\xbd" * 17 + b'"files"*!{}}')
    def holds(data):
        fuzz.TARGETS[name](data)

    holds()
