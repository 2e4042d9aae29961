"""Ctrl-C, pressed in a terminal: it stops a study at any moment, within seconds, and the same command goes on."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palign.study import run, showing, stopping
from palign.study.stopping import Crew
from tests.conftest import PROJECT

pytestmark = pytest.mark.model

COMMAND = [sys.executable, "-m", "palign.study.cli", "run", "params/small.yaml"]
NOISE = ("Traceback", "ZMQError", "KeyboardInterrupt", "IPKernelApp", "Exception")


class Terminal:
    """A command in a pseudo-terminal of 80 columns and 24 lines; ``text`` is what it has written so far."""

    def __init__(self, command: list[str]):
        self.side, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = os.environ | {"TERM": "xterm", "PYTHONPATH": str(PROJECT)}
        env.pop("COLUMNS", None)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=env, start_new_session=True, preexec_fn=_own_terminal
        )
        os.close(other)
        self.text = ""

    def read(self, seconds: float) -> bool:
        """Read for a while; whether there was something."""
        if not select.select([self.side], [], [], seconds)[0]:
            return False
        try:
            got = os.read(self.side, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", got.decode("utf-8", "replace"))
        return bool(got)

    def until(self, pattern: str, limit: float = 90) -> None:
        """Read until the pattern is written."""
        start = time.monotonic()
        while not re.search(pattern, self.text):
            assert time.monotonic() - start < limit and self.process.poll() is None, self.text
            self.read(0.05)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.05)

    def press(self) -> None:
        os.write(self.side, b"\x03")

    def ends(self, limit: float) -> int:
        """The exit code, once the command has ended within ``limit`` seconds."""
        start = time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() - start < limit, f"still running after {limit} s: {self.text}"
            self.read(0.05)
        while self.read(0.2):
            pass
        os.close(self.side)
        return self.process.returncode


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C goes to the session that controls the terminal


def at_work(project: Path) -> list[str]:
    """The processes that work in the project's folder: kernels that were left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.name != str(os.getpid()) and (path / "cwd").resolve(strict=True) == project:
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture
def short(small, project) -> Path:
    """Five notebooks: two arms that need no prefixes."""
    (project / "params" / "small.yaml").write_text(yaml.safe_dump({**small, "arms": ["zero-shot", "sft-label"]}))
    return project


def test_ctrl_c_stops_a_study_at_any_moment_and_the_same_command_goes_on(short):
    """Before the first notebook, while a kernel starts, and while several arms are at work."""
    for moment, seconds in (
        ("study small", 0.0),
        (r"01_generation\s+running", 1.0),
        (r"0[45]_\w+\s+[\w-]+\s+running \d+ %", 0.0),
    ):
        terminal = Terminal(COMMAND)
        terminal.until(moment)
        terminal.wait(seconds)
        began = "_" in moment
        terminal.press()
        if began:
            terminal.until("stopping")
        assert terminal.ends(60) == 130, terminal.text
        if began:
            assert re.search(r"stopped: \d of 5 notebooks done", terminal.text), terminal.text
        assert "run the same command again" in terminal.text
        assert not [word for word in NOISE if word in terminal.text], terminal.text
        assert at_work(short) == []
    terminal = Terminal(COMMAND)
    assert terminal.ends(300) == 0, terminal.text
    assert "done before" in terminal.text and "5 of 5 notebooks done" in terminal.text
    assert not [word for word in NOISE if word in terminal.text], terminal.text

    # the headline stands at the end and nothing is wider than the terminal, but perhaps the report's path
    end = terminal.text.split("5 of 5 notebooks done")[-1].splitlines()
    assert end[-1].startswith("report: ") and any(re.match(r"  sft-label +\d+\.\d  \[", line) for line in end)
    assert max(map(len, re.split(r"[\r\n]+", terminal.text.split("report: ")[0]))) <= 80


def test_a_second_ctrl_c_ends_at_once(short):
    terminal = Terminal(COMMAND)
    terminal.until(r"01_generation\s+running")
    terminal.wait(2)
    terminal.press()
    terminal.wait(0.05)
    terminal.press()
    assert terminal.ends(60) == 130, terminal.text
    assert "Traceback" not in terminal.text
    time.sleep(0.5)
    assert at_work(short) == []


@given(data=st.data(), count=st.integers(1, 7), jobs=st.integers(1, 3))
@settings(max_examples=60)
def test_no_step_begins_before_what_it_needs_and_none_after_a_failure(data, count, jobs):
    """Of any steps, each needing some before it: at most ``jobs`` at once, one by one in their order, all or none."""
    numbers = range(count)
    needs = {n: data.draw(st.sets(st.integers(0, n - 1))) if n else set() for n in numbers}
    fails = data.draw(st.sets(st.sampled_from(numbers), max_size=1))
    begun, running, ended, most, late = [], set(), set(), 0, []
    held = threading.Lock()

    def step(n: int) -> None:
        nonlocal most
        with held:
            late.extend(needs[n] - ended)
            begun.append(n)
            running.add(n)
            most = max(most, len(running))
        time.sleep(0.002)
        with held:
            running.discard(n)
            if n in fails:
                raise run.StudyError("no")
            ended.add(n)

    steps = {str(n): partial(step, n) for n in numbers}
    failure = pytest.raises(run.StudyError) if fails else contextlib.nullcontext()
    with Crew(jobs, showing.Shown([])) as crew, failure:
        crew.work(steps, lambda name: needs[int(name)] <= ended)
    assert not late and most <= jobs
    assert not running and ended | fails >= set(begun)
    if not fails:
        assert ended == set(numbers)
    if jobs == 1:
        assert begun == list(range(len(begun))) and (not fails or begun[-1] in fails)


def test_a_failure_lets_what_has_begun_go_on_and_begins_nothing_new():
    done = []

    def fails():
        raise run.StudyError("no")

    slow = partial(time.sleep, 0.3)
    with showing.Shown([]) as progress, Crew(1, progress) as crew, pytest.raises(run.StudyError, match="no"):
        crew.work({"a": fails, "b": partial(done.append, 1)})
    assert done == []
    with Crew(2, progress) as crew, pytest.raises(run.StudyError, match="no"):
        crew.work({"a": fails, "b": lambda: (slow(), done.append(2)), "c": partial(done.append, 3)})
    assert done == [2]


def test_an_interrupt_that_a_callback_swallowed_is_seen_by_the_crew(monkeypatch):
    """Pressed while modules were imported, Ctrl-C was lost and the study ran to its end."""
    monkeypatch.setattr(stopping, "_asked", False)  # and so again for the tests that follow
    with showing.Shown([]) as progress, stopping.listening():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        done = []
        with Crew(1, progress) as crew, pytest.raises(KeyboardInterrupt):
            crew.work({"a": partial(done.append, 1)})
    assert done == []
    signal.signal(signal.SIGINT, signal.default_int_handler)
