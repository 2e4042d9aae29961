"""Is anything lost? ``python -m benchmarks.faults [--kills 200]``: a short study, stopped in many ways and run again.

Each study runs the road of the notebooks, from data to report tables, on a few problems of the pocket world. It is
stopped by a fault, at a moment drawn at random, and started again until it ends; then its tables are compared, byte by
byte, with those of a study that nothing disturbed, and so are its records. Exits with 1 if any differ.
Where mounting is permitted, the study lies on a disk in memory, which fills for the fault of that name.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from palign import alignment, evaluation, finetuning, overlap, params, problems, traces, truncation
from palign.analysis import entropy, preference, sufficiency
from palign.report import write
from palign.report.results import Results
from palign.tasks import store

POCKET = Path(__file__).resolve().parent.parent / "palign" / "pocket"
LOG = Path("../fault.log")  # the last traceback, outside the disk that fills
STAGE = Path("../stage.log")
TIMES = {"costs.csv", "rates.csv", "spent.csv", "seconds.jsonl", "train_seconds.jsonl"}  # what measures time may differ


class Fault(Exception):
    """What nothing in palign expects."""


def prepare(folder: Path) -> params.Params:
    """A study of a dozen traces and two arms, in a project folder of its own, where this process stands from now on."""
    os.chdir(folder)
    for name, lines in (("train", 12), ("dial-2", 6), ("dial-3", 6)):
        head = (POCKET / "data" / f"{name}.jsonl").read_text().splitlines(keepends=True)[:lines]
        (folder / f"{name}.jsonl").write_text("".join(head))
    (folder / "params").mkdir()
    (folder / "notebooks").mkdir()  # the two make a folder a project's root
    (folder / "student").symlink_to(POCKET / "student")
    assert params.root() == folder.resolve(), "it would write its runs and reports elsewhere"
    return params.Params(
        study="faults",
        student="student",
        training_data="train.jsonl",
        benchmarks=[params.Benchmark(name=n, data=f"{n}.jsonl", problems=6) for n in ("dial-2", "dial-3")],
        batch_size=2,
        arms=["zero-shot", "p-align"],
        sufficiency_samples=1,
        entropy_traces=4,
        judged_traces=4,
        preference_judge="rubric",
        num_train_epochs=2.0,
        per_device_train_batch_size=4,
        save_steps=1,
    )


def write_report(study: params.Params) -> None:
    opened = Results(study)
    write.report(opened, write.collect(opened), {})


ARM = (finetuning.finetune, evaluation.respond, evaluation.shorten)


def road(study: params.Params) -> None:
    """What the notebooks call, in their order; ``STAGE`` says where it is."""
    steps = [
        (problems.collect_benchmarks, study),
        (traces.collect, study),
        (overlap.find, study),
        (entropy.measure, study),
        (truncation.truncate_all, study),
        (alignment.align_all, study),
        (alignment.measure_success, study),
        (sufficiency.measure, study),
        *((step, study, arm) for arm in study.arms for step in ARM),
        (preference.compare, study),
        (write_report, study),
    ]
    for step, *arguments in steps:
        STAGE.write_text("report" if step is write_report else step.__module__.split(".")[-1])
        step(*arguments)


def results(folder: Path) -> dict[str, list[str]]:
    """Every line of every table, and every record."""
    files = [
        path for kind in ("reports/**/*.csv", "reports/**/*.json", "runs/**/*.jsonl") for path in folder.glob(kind)
    ]
    found = {str(path.relative_to(folder)): path.read_text() for path in files if path.name not in TIMES}
    return {name: text.splitlines(keepends=True) for name, text in found.items()}


def start(study: params.Params, before: Callable[[], None] = lambda: None) -> int:
    """The road in a forked process, which has everything imported already; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born ignoring it
        before()
        road(study)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Fault:
        code = 3
    except (OSError, store.StoreError, problems.DataError):
        code = 2
    except BaseException:
        LOG.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def ended(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    outcomes = {0: "ended", 2: "refused", 3: "raised", 130: "interrupted"}
    if (code := os.WEXITSTATUS(status)) in outcomes:
        return outcomes[code]
    return f"failed ({LOG.read_text().splitlines()[-1].split(':')[0]})"


def by_signal(number: int) -> Callable:
    def fault(study: params.Params, after: float) -> str:
        pid = start(study)
        time.sleep(after)
        os.kill(pid, number)
        return ended(pid)

    return fault


def by_exception(study: params.Params, after: float) -> str:
    """An exception out of the middle of whatever is computed at that moment."""

    def before() -> None:
        def raise_it(*_):
            raise Fault

        signal.signal(signal.SIGALRM, raise_it)
        signal.setitimer(signal.ITIMER_REAL, after)

    return ended(start(study, before))


def by_full_disk(study: params.Params, after: float) -> str:
    """Room for 300 bytes to 10 MB more, in all orders of size alike, since a stage's records are kilobytes and a
    checkpoint megabytes; later there is room again. Where mounting is not permitted, no file may grow beyond a tenth.
    """
    room = int(10 ** random.uniform(2.5, 7))
    if Path.cwd().is_mount():
        usage = os.statvfs(".")
        resize((usage.f_blocks - usage.f_bfree) * usage.f_frsize + room)
        outcome = ended(start(study))
        resize(DISK)
        return outcome

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room // 10, room // 10))

    return ended(start(study, before))


def by_read_only(study: params.Params, after: float) -> str:
    """The folders of runs and reports turn read-only while the study runs."""
    pid = start(study, renounce)
    time.sleep(after)
    for name in ("runs", "reports"):
        subprocess.run(["chmod", "-R", "a-w", name], stderr=subprocess.DEVNULL)
    outcome = ended(pid)
    for name in ("runs", "reports"):
        subprocess.run(["chmod", "-R", "u+w", name], stderr=subprocess.DEVNULL)
    return outcome


def renounce() -> None:
    """Give up the capabilities of root, whom permissions would not bind."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def by_twin(study: params.Params, after: float) -> str:
    """Two runs of the same study at once."""
    first = start(study)
    time.sleep(after / 10)
    second = start(study)
    return f"{ended(first)}, {ended(second)}"


def by_torn_file(study: params.Params, after: float) -> str:
    """A run killed, then one of its files cut in the middle of a line."""
    outcome = by_signal(signal.SIGKILL)(study, after)
    files = [path for path in Path("runs").rglob("*.jsonl") if path.stat().st_size > 1]
    if files:
        path = random.choice(files)
        os.truncate(path, random.randrange(1, path.stat().st_size))
    return f"{outcome}, cut"


DISK = 1 << 30


def resize(size: int) -> None:
    """The disk in memory under the working directory, to so many bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", "none", "."], check=True)


@contextlib.contextmanager
def disk() -> Iterator[Path]:
    """A folder on a disk in memory; a plain one where mounting is not permitted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", folder]
        mounted = subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
        try:
            yield folder
        finally:
            os.chdir("/")
            if mounted:
                # lazily: the grading processes of the last study may still be about to leave
                subprocess.run(["umount", "--lazy", folder], check=True)


FAULTS = {
    "SIGKILL": (by_signal(signal.SIGKILL), 1.0, 24),
    "SIGINT": (by_signal(signal.SIGINT), 1.0, 24),
    "SIGTERM": (by_signal(signal.SIGTERM), 1.0, 24),
    "exception": (by_exception, 1.0, 24),
    "full disk": (by_full_disk, 0.2, 4),
    "read-only folder": (by_read_only, 0.2, 4),
    "two runs at once": (by_twin, 0.1, 1),
    "torn file": (by_torn_file, 0.1, 12),
}
"""Each fault, how often it is tried as a share of ``--kills``, and how often at most on one study: what a study meets
at the same place again and again tells nothing new.
"""


def campaign(name: str, times: int, whole: dict, duration: float, folder: Path, study: params.Params) -> dict:
    """Inject ``times`` faults of one kind over as many studies as that takes; compare each study that ended."""
    fault, _, attempts = FAULTS[name]
    outcomes, stages, studies, lost, doubled, different = collections.Counter(), collections.Counter(), 0, 0, 0, 0
    while outcomes.total() < times and studies < times:  # at least one fault a study, or it is one that cannot strike
        shutil.rmtree(folder / "runs", ignore_errors=True)
        shutil.rmtree(folder / "reports", ignore_errors=True)
        for _ in range(min(random.randint(1, attempts), times - outcomes.total())):
            STAGE.write_text("start")
            outcome = fault(study, random.uniform(0, duration / 3))
            if outcome == "ended":  # before the fault could strike
                break
            outcomes[outcome] += 1
            stages[STAGE.read_text() or "between two"] += 1
        outcome = ended(start(study))  # undisturbed, to its end
        studies += 1
        found = results(folder) if outcome == "ended" else {}
        if not found:
            print(f"{name}: the study did not end: {outcome}")
        for file, lines in whole.items():
            have = collections.Counter(found.get(file, []))
            lost += sum((collections.Counter(lines) - have).values())
            doubled += sum((have - collections.Counter(lines)).values())
        different += found != whole
    return {
        "fault": name,
        "injected": outcomes.total(),
        "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()),
        "while in": ", ".join(f"{where} {count}" for where, count in stages.most_common()),
        "studies ended": studies,
        "lines lost": lost,
        "doubled or changed": doubled,
        "studies that differ": different,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="kills by each signal; other faults in proportion")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT", help="only these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with disk() as folder:
        study = prepare(folder)
        kind = "a disk in memory" if folder.is_mount() else "a folder; its full disk is a limit on the size of files"
        for name in ("datasets", "peft", "trl.trainer.sft_trainer"):
            importlib.import_module(name)  # here, so that no forked study has to

        began = time.perf_counter()
        if ended(start(study)) != "ended":
            sys.exit(f"the undisturbed study did not end: {LOG.read_text()}")
        duration, whole = time.perf_counter() - began, results(folder)
        lines = sum(map(len, whole.values()))
        print(f"undisturbed, on {kind}: {duration:.1f} s, {lines} lines in {len(whole)} files", flush=True)
        rows = []
        for fault in options.faults:
            times = max(1, round(options.kills * FAULTS[fault][1]))
            rows.append(campaign(fault, times, whole, duration, folder, study))
            print(json.dumps(rows[-1]), flush=True)
    table = pd.DataFrame(rows)
    print(f"\n{table.to_string(index=False)}")
    return int(bool(table["studies that differ"].sum()))


if __name__ == "__main__":
    sys.exit(main())
