"""The front door: ``palign run params/pocket.yaml``, and ``check``, ``plan``, ``status``, ``retry``, ``verify``,
``pages``, ``compare``, ``audit``, ``rollouts``, ``rivals``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each command imports what it needs, so that `palign --help` is instant
    from ..params import Params


class Version(argparse.Action):
    """``--version``: looked up only when it is asked for."""

    def __call__(self, parser, *_):
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"palign {version('palign')}")
        except PackageNotFoundError:
            print("palign, not installed")
        parser.exit()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="palign", description="A reproducible study of P-ALIGN, from a params file.")
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command")
    for name, words in {
        "run": "run the study's notebooks in order, leaving out what is done",
        "status": "show what is done and what is left",
        "retry": "delete failed requests and the results made from them, so that the next run repeats them",
        "check": "look for what would stop a study, without running anything: values, paths, data, machine",
        "plan": "compute what the study will cost in tokens, hours and memory, before running it",
        "pages": "render a finished study's executed notebooks 01 to 05 as pages, beside its report",
        "verify": "compare a finished study's headline numbers with the expected ones, those of its committed report",
    }.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("params", nargs="+" if name == "check" else None, type=Path, help="params file (YAML)")
        if name in ("run", "status", "plan", "retry", "check", "pages"):
            words = "another value for a key, as YAML; may be repeated"
            command.add_argument("-p", nargs=2, metavar=("KEY", "VALUE"), action="append", default=[], help=words)
        if name == "verify":
            words = "make the report's headline numbers the expected ones, and print what changes"
            command.add_argument("--renew", action="store_true", help=words)
        if name in ("run", "retry"):
            command.add_argument("--dry-run", action="store_true", help="print the steps without running them")
    words = "compare two studies' reports, paired by problem where they share problems"
    command = commands.add_parser("compare", help=words, description=words)
    command.add_argument("a", type=Path, help="report folder, such as reports/pocket")
    command.add_argument("b", type=Path, help="the other; differences are b minus a")
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write the whole table there")
    words = "test the paper's printed numbers, and outputs its authors released, by arithmetic"
    command = commands.add_parser("audit", help=words, description=words)
    command.add_argument("--released", metavar="PATH_OR_HUB_ID", help="released outputs: answer, output, label")
    words = "benchmark that the released outputs answer, as the paper names it; left out: AIME24"
    command.add_argument("--benchmark", metavar="NAME", help=words)
    words = "report when a prefix is enough, from recorded continuations of every prefix of a trace"
    command = commands.add_parser("rollouts", help=words, description=words)
    words = "your own rollouts (CSV), or a study's params file: those of its judged traces; left out: those of "
    words += "palign/paper/rollouts.csv"
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help=words)
    words = "rollouts (CSV) to stand beside them; left out: the recorded ones, or beside those the pocket student's"
    command.add_argument("--beside", type=Path, metavar="OTHER", help=words)
    words = "compare P-ALIGN with its rivals, from the reports of params/pocket-beyond*.yaml and pocket-mending.yaml"
    command = commands.add_parser("rivals", help=words, description=words)
    command.add_argument("--reports", type=Path, metavar="FOLDER", help="folder of the reports; left out: reports/")
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    try:
        code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader closed the pipe, as in `palign status ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 141
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except OSError as error:  # a disk that is full, a folder that cannot be written
        _say(f"palign: {error}; fix it and run the same command again to continue")
        return 2
    except (ValueError, RuntimeError) as error:  # palign's own: a line that says what, where and the remedy
        if type(error).__module__.split(".")[0] != "palign":
            raise
        _say(f"palign: {error}")
        return 2


def _say(text: str) -> None:
    from ..tasks.store import visible

    print(visible(text), file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    from ..params import load
    from ..tasks.plan import Plan
    from . import run

    params = load(args.params, args.p)
    unfinished = not all(step.done for step in Plan(params).steps())
    # what the data hold is read where somebody asks for it; in a run, 01_generation says the same a few seconds later
    if unfinished and _faults(args.params, params, contents=args.dry_run):
        return 2
    _taken(args)
    path = run.run(params, dry_run=args.dry_run)
    if not args.dry_run:
        if lost := sum(run.failures(Plan(params)).values()):
            print(f"{lost} requests failed for good; `palign retry {args.params}` has the next run ask again")
        print(f"report: {path}")
    return 0


def _retry(args: argparse.Namespace) -> int:
    from ..params import load
    from . import run

    concerned = 0
    for line in run.retry(load(args.params, args.p), args.dry_run):
        print(line)
        concerned += 1
    if not concerned:
        print("no request failed")
    elif not args.dry_run:
        print(f"now `palign run {args.params}`")
    return 0


def _status(args: argparse.Namespace) -> int:
    from ..params import load
    from ..tasks.plan import Plan

    steps = Plan(load(args.params, args.p)).steps()
    width = max(len(step.title) for step in steps)
    for step in steps:
        partly = sum(
            len(task.folder.read(name)) for task in step.tasks for name in ("prefixes", "continuations", "responses")
        )
        state = "done" if step.done else f"begun, {partly} records" if partly else "to do"
        print(f"{step.title:{width}} {state}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from ..params import ParamsError, load

    faults = 0
    for path in args.params:
        try:
            params = load(path, args.p)
        except ParamsError as error:
            _say(str(error))
            faults += 1
            continue
        if found := _faults(path, params, contents=True):
            faults += found
        else:
            print(f"{path}: valid; study {params.study}, arms {', '.join(params.arms)}")
            _taken(args, path)
    return 2 if faults else 0


def _taken(args: argparse.Namespace, path: Path | None = None) -> None:
    """Say which values are the paper's because the file does not state them, in one line."""
    from ..params import from_paper

    path = path or args.params
    if keys := from_paper(path, args.p):
        print(f"{path}: the paper's values, since the file states none: {', '.join(keys)}")


def _faults(path: Path, params: Params, contents: bool) -> int:
    """Say what would stop this study, and warnings, one line each; returns how many would stop it."""
    from . import check

    found = check.findings(params, contents)
    for finding in found:
        _say(f"{path}: {'' if finding.stops else 'warning: '}{finding.text}")
    return sum(finding.stops for finding in found)


def _plan(args: argparse.Namespace) -> int:
    from ..analysis.estimates import Estimates
    from ..params import load

    print(Estimates(load(args.params, args.p)).show())
    return 0


def _verify(args: argparse.Namespace) -> int:
    import yaml

    from .. import params
    from ..tasks.store import write_atomically
    from . import run

    study = params.load(args.params).study
    path = args.params.parent / "expected" / args.params.name
    found = params.root() / "reports" / study / "headline.json"
    if not found.exists():
        raise run.StudyError(f"{found}: no such file; run the study first")
    if not path.exists() and not args.renew:
        raise run.StudyError(f"{path}: no such file; `palign verify --renew {args.params}` writes it")
    headline = json.loads(found.read_text(encoding="utf-8"))
    expected = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not isinstance(expected, dict) or not all(isinstance(value, int | float) for value in expected.values()):
        if not args.renew:
            raise run.StudyError(f"{path}: not one number a line; `palign verify --renew {args.params}` writes it anew")
        expected = {}
    faults = run.verify(study, expected, headline)
    for line in faults:
        print(line)
    if args.renew:
        source = f"reports/{study}/headline.json, written by `palign verify --renew params/{args.params.name}`"
        head = f"# Copied from {source}.\n"
        write_atomically(path, head + yaml.safe_dump(headline, sort_keys=False, width=1000))
        print(f"{study}: {len(headline)} headline numbers are expected from now on ({path})")
        return 0
    if not faults:
        print(f"{study}: {len(expected)} headline numbers are the expected ones, shares within one point")
    return 1 if faults else 0


def _pages(args: argparse.Namespace) -> int:
    from ..params import load
    from . import pages

    for path in pages.run(args.params, load(args.params, args.p)):
        print(path)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from ..report import compare
    from ..tasks.store import write_atomically

    a, b = compare.load(args.a), compare.load(args.b)
    print(compare.text(a, b))
    if args.csv is not None:
        write_atomically(args.csv, compare.table(a, b).to_csv(index=False, float_format="%.6g"))
    return 0


def _audit(args: argparse.Namespace) -> int:
    from ..params import ParamsError
    from . import audit

    values = {}
    if args.benchmark is not None:
        if args.released is None:
            raise ParamsError("--benchmark: says what released outputs answer; name them with --released")
        values["released_benchmark"] = args.benchmark
    if args.released is not None:
        # relative to the working directory, which need not be the project's root
        local = Path(args.released).expanduser()
        values["released"] = str(local.resolve()) if local.exists() else args.released
    print(f"report: {audit.run(**values)}")
    return 0


def _rollouts(args: argparse.Namespace) -> int:
    from . import rollouts

    # relative to the working directory, which need not be the project's root
    file = args.file and args.file.expanduser().resolve()
    if file and file.suffix in (".yaml", ".yml"):
        file = rollouts.of_study(file)
        print(f"rollouts: {file}")
    values = {"rollouts": file, "beside": args.beside and args.beside.expanduser().resolve()}
    print(f"report: {rollouts.run(**{name: str(path) for name, path in values.items() if path})}")
    return 0


def _rivals(args: argparse.Namespace) -> int:
    from . import rivals

    print(f"report: {rivals.run(**({'reports': str(args.reports.expanduser().resolve())} if args.reports else {}))}")
    return 0


COMMANDS = {
    "run": _run,
    "status": _status,
    "retry": _retry,
    "check": _check,
    "plan": _plan,
    "verify": _verify,
    "pages": _pages,
    "compare": _compare,
    "audit": _audit,
    "rollouts": _rollouts,
    "rivals": _rivals,
}


if __name__ == "__main__":
    sys.exit(main())
