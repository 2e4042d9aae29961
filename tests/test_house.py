"""The laws of the house: which file may import which, read from the source of ``palign/`` and of the notebooks.

Every import counts, inside a function and under ``TYPE_CHECKING`` too. ``python -m tests.test_house [FOLDER]`` prints
files and lines by wing, floors, circles, and how many functions take the whole ``Params``.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import PROJECT

GROUND = ("params", "prompts", "arms")
METHOD = ("problems", "traces", "judging", "strategies", "calibration", "truncation", "continuation", "attempts")
METHOD += ("selection", "alignment", "supervision", "finetuning", "evaluation", "grading", "behaviour", "overlap")
WINGS = ("engines", "tasks", "analysis", "report", "paper", "pocket", "study")
DOOR = "__init__"  # palign/__init__.py, which holds `open`

ORDER = ("study", DOOR, "report", "paper", "analysis", "method", "engines", "tasks", "ground")
"""From the top down: a file may import from its own level and from those after it. ``pocket`` has a law of its own."""

NOTEBOOKS_USE = (DOOR, "report", "paper", "analysis", "method", "palign.params")
DOCSTRING_LINES = 6


@dataclass(frozen=True)
class Use:
    """One imported name. ``target``: the file's module that gives it, or ``None`` where palign has no such file.

    ``name``: what is taken from that file; ``None`` where the file itself is imported.
    """

    source: str
    place: str
    target: str | None
    name: str | None
    text: str


class House:
    """The files of a package and what they import. ``folder``: the package; notebooks lie beside it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.package = folder.name
        self.files = {self._module(path): path for path in sorted(folder.rglob("*.py"))}
        self.trees = {module: ast.parse(path.read_text("utf-8"), str(path)) for module, path in self.files.items()}

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.folder.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def wing(self, module: str) -> str:
        _, *rest = module.split(".")
        if not rest:
            return DOOR
        if len(rest) > 1 or self.files[module].name == "__init__.py":
            return rest[0]
        return {**dict.fromkeys(GROUND, "ground"), **dict.fromkeys(METHOD, "method")}.get(rest[0], "flat")

    @cached_property
    def uses(self) -> list[Use]:
        return [use for module in self.files for use in self._uses(module)]

    def _uses(self, module: str) -> Iterator[Use]:
        path = self.files[module]
        here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        for node in ast.walk(self.trees[module]):
            place = f"{path.relative_to(self.folder.parent)}:{getattr(node, 'lineno', 0)}"
            yield from self.read(node, module, place, here)

    def read(self, node: ast.AST, source: str, place: str, here: list[str]) -> Iterator[Use]:
        """What one statement imports from the package. ``here``: the package that a relative import starts from."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == self.package:
                    yield Use(source, place, alias.name if alias.name in self.files else None, None, alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            if base.split(".")[0] != self.package:
                return
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in self.files:
                    yield Use(source, place, whole, None, whole)
                else:
                    yield Use(source, place, base if base in self.files else None, alias.name, whole)

    @cached_property
    def notebooks(self) -> list[tuple[str, int, ast.Module]]:
        """Every code cell: the notebook's name, the number of the cell among its code cells, what stands in it."""
        found = []
        for path in sorted((self.folder.parent / "notebooks").glob("*.ipynb")):
            cells = json.loads(path.read_text("utf-8"))["cells"]
            code = ["".join(cell["source"]).splitlines() for cell in cells if cell["cell_type"] == "code"]
            for number, lines in enumerate(code, 1):
                python = "\n".join(line for line in lines if not line.startswith(("!", "%")))  # these are IPython's
                found.append((path.name, number, ast.parse(python, path.name)))
        return found

    @cached_property
    def notebook_uses(self) -> list[tuple[int, Use]]:
        """What the notebooks import, each with the number of its code cell."""
        return [
            (number, use)
            for name, number, tree in self.notebooks
            for node in ast.walk(tree)
            for use in self.read(node, name, f"{name}, code cell {number}", [])
        ]

    @cached_property
    def benchmark_uses(self) -> list[Use]:
        """What the benchmarks import: nothing runs all of them, so a dead name in one would not be noticed."""
        return [
            use
            for path in sorted((self.folder.parent / "benchmarks").glob("*.py"))
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            for use in self.read(node, path.name, f"{path.name}:{getattr(node, 'lineno', 0)}", [])
        ]

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """The files each file imports."""
        graph = {module: set() for module in self.files}
        for use in self.uses:
            if use.target and use.target != use.source:
                graph[use.source].add(use.target)
        return graph

    @cached_property
    def floors(self) -> list[list[tuple[str, ...]]]:
        """The files by floor, the lowest first: a file stands one floor above the highest file that it imports.

        The files of a circle stand together: they are one entry of several names.
        """
        group = {module: (module,) for module in self.files}
        while True:
            edges = {group[module]: set() for module in self.files}
            for module, targets in self.graph.items():
                edges[group[module]] |= {group[target] for target in targets} - {group[module]}
            sorter = TopologicalSorter(edges)
            try:
                sorter.prepare()
                break
            except CycleError as error:  # it names one circle: take its files for one file, and look again
                joined = tuple(sorted({module for members in error.args[1] for module in members}))
                group |= dict.fromkeys(joined, joined)
        floors = []
        while ready := sorter.get_ready():
            floors.append(sorted(ready))
            sorter.done(*ready)
        return floors

    @property
    def circles(self) -> list[tuple[str, ...]]:
        return [group for floor in self.floors for group in floor if len(group) > 1]

    @cached_property
    def whole_params(self) -> dict[str, list[str]]:
        """The functions of each file that have an argument annotated ``Params``."""
        return {
            module: [node.name for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and takes_params(node)]
            for module, tree in self.trees.items()
        }


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def takes_params(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether an argument is annotated ``Params``; one called ``params`` without an annotation counts too."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return any(
        "Params" in names_in(argument.annotation) if argument.annotation else argument.arg == "params"
        for argument in every
        if argument
    )


def names_in(annotation: ast.expr) -> set[str]:
    """The names in an annotation, also where it is written as text."""
    found = set()
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {word.id for word in ast.walk(ast.parse(node.value)) if isinstance(word, ast.Name)}
    return found


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """The names a file defines itself at its top level; those that it imports are not among them."""
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from defined(node.body)
            yield from defined(getattr(node, "orelse", []))
            for handler in getattr(node, "handlers", []):
                yield from defined(handler.body)


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


# Each law gives the places that break it.


def no_circle(house: House) -> list[str]:
    return [" <-> ".join(circle) for circle in house.circles]


def imports_point_down(house: House) -> list[str]:
    """A flat file or a wing that is not listed has no level here: another law refuses it."""
    level = {wing: number for number, wing in enumerate(ORDER)}
    found = []
    for use in house.uses:
        if use.target:
            above, below = house.wing(use.source), house.wing(use.target)
            if level.get(above, -1) > level.get(below, len(ORDER)):
                found.append(f"{use.place}: {above} imports {use.text}, of {below}")
    return found


def pocket_stands_apart(house: House) -> list[str]:
    """``pocket`` uses nothing of ``report`` or what lies above it, and no other file uses ``pocket``."""
    above = ORDER[: ORDER.index("report") + 1]
    return [
        f"{use.place}: imports {use.text}"
        for use in house.uses
        if use.target
        and house.wing(use.source) != house.wing(use.target)
        and (
            house.wing(use.target) == "pocket"
            or (house.wing(use.source) == "pocket" and house.wing(use.target) in above)
        )
    ]


def names_come_from_where_they_are_defined(house: House) -> list[str]:
    """An import inside a function fails only when it runs; and a name passed on by a second file hides its home."""
    found = []
    for use in [*house.uses, *house.benchmark_uses, *(use for _, use in house.notebook_uses)]:
        if use.target is None:
            found.append(f"{use.place}: no file gives {use.text}")
        elif use.name and use.name not in set(defined(house.trees[use.target].body)):
            found.append(f"{use.place}: {use.target} does not define {use.name}")
    return found


def a_wing_begins_with_a_docstring_alone(house: House) -> list[str]:
    found = []
    for module, tree in house.trees.items():
        if house.files[module].name == "__init__.py" and module != house.package:
            said = ast.get_docstring(tree)
            if not said or len(said.splitlines()) > DOCSTRING_LINES or not all(map(is_docstring, tree.body)):
                found.append(f"{module}: holds more than a docstring of at most {DOCSTRING_LINES} lines, or has none")
    return found


def the_door_holds_open(house: House) -> list[str]:
    """``from __future__`` and imports for annotations aside, ``palign/__init__.py`` has a docstring and ``open``."""
    tree = house.trees[house.package]
    defines = list(defined(tree.body))
    others = [
        node
        for node in tree.body
        if not is_docstring(node)
        and not isinstance(node, FUNCTIONS)
        and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return [f"{house.package}/__init__.py: defines {defines}"] * (defines != ["open"]) + [
        f"{house.package}/__init__.py:{node.lineno}: {ast.unparse(node)}" for node in others
    ]


def the_house_has_these_rooms(house: House) -> list[str]:
    files = {path.stem for path in house.folder.glob("*.py")} - {"__init__"}
    folders = {path for path in house.folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
    # git keeps no empty folder: one with nothing but bytecode is left over from an earlier version
    wings = {path.name for path in folders if any(f.is_file() and f.suffix != ".pyc" for f in path.rglob("*"))}
    others = {path.name for path in house.folder.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")}
    wanted, found = {*GROUND, *METHOD, *WINGS}, files | wings | others - {"README.md"}
    return [f"missing: {name}" for name in sorted(wanted - found)] + [
        f"extra: {name}" for name in sorted(found - wanted)
    ]


def notebooks_use_public_names(house: House) -> list[str]:
    """No name that begins with ``_``, imported as such or reached through a module."""
    found = []
    for name, number, tree in house.notebooks:
        for node in ast.walk(tree):
            names = []
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [f"{getattr(node, 'module', '') or ''}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [f".{node.attr}"]
            found += [f"{name}, code cell {number}: {ast.unparse(node)}" for text in names if "._" in text]
    return found


def notebooks_import_what_a_reader_needs(house: House) -> list[str]:
    """From palign they import ``open``, ``params``, the method, ``analysis``, ``report`` and ``paper``."""
    return [
        f"{use.place}: imports {use.text}"
        for number, use in house.notebook_uses
        if use.target and not {house.wing(use.target), use.target} & set(NOTEBOOKS_USE)
    ]


LAWS = (
    no_circle,
    imports_point_down,
    pocket_stands_apart,
    names_come_from_where_they_are_defined,
    a_wing_begins_with_a_docstring_alone,
    the_door_holds_open,
    the_house_has_these_rooms,
    notebooks_use_public_names,
    notebooks_import_what_a_reader_needs,
)


@pytest.fixture(scope="module")
def house():
    return House(PROJECT / "palign")


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps(law, house):
    found = law(house)
    assert not found, "\n".join(found)


OPEN = """
def open(path):
    from .report.results import Results
    return Results
"""

LAWFUL = {
    "__init__": '"""A study."""\n' + OPEN,
    **{name: "def make(): ..." for name in (*GROUND, *METHOD)},
    **{f"{wing}/__init__": '"""What is in it.\n\nWhat it may use."""' for wing in WINGS},
    "arms": "try:\n    import tomllib\nexcept ImportError:\n    ARMS = {}\nelse:\n    ARMS: dict = {}",
    "params": "from __future__ import annotations\nfrom .arms import ARMS\nclass Params: ...",
    "tasks/plan": "from ..params import Params\nclass Plan: ...",
    "engines/base": "import math\nfrom . import labels\nfrom .. import prompts\nfrom ..tasks.plan import Plan",
    "engines/labels": "def read(): ...",
    "traces": "from .engines.labels import read\ndef make():\n    from .tasks.plan import Plan",
    "analysis/costs": "from ..traces import make\ndef reads(): ...",
    "report/results": "import palign.analysis.costs\nclass Results: ...",
    "pocket/world": "from ..analysis.costs import reads\nfrom .keys import KEYS",
    "pocket/keys": "KEYS = 6",
    "study/colab": "HEADER = ''",
    "study/run": "import palign\nimport palign.report.results as results\nfrom .colab import HEADER",
}
"""A tiny house that keeps every law: its files, and what stands in them."""

CELLS = ("!ls", "import palign\nfrom palign import params, traces\ntraces.make()")
"""The code cells of its one notebook."""


def build(folder: Path, changes: dict[str, str | None], cells: tuple[str, ...] = CELLS) -> House:
    """The lawful house, but for the files that ``changes`` writes (``None``: leaves out), with these code cells."""
    for name, source in {**LAWFUL, **changes}.items():
        if source is not None:
            path = folder / "palign" / (name if "." in name else f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
    notebook = {"cells": [{"cell_type": "code", "source": [source]} for source in cells]}
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01_generation.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return House(folder / "palign")


def broken(house: House) -> list[str]:
    return [law.__name__ for law in LAWS if law(house)]


def test_a_lawful_house_breaks_no_law(tmp_path):
    assert broken(build(tmp_path, {})) == []


INSIDE = "def make():\n    "
TYPE_CHECKED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.mark.parametrize(
    ("law", "changes"),
    [
        (no_circle, {"alignment": "from . import overlap", "overlap": "from . import alignment"}),
        (no_circle, {"judging": f"{INSIDE}from .traces import make", "traces": f"{INSIDE}import palign.judging"}),
        (no_circle, {"arms": f"ARMS = 1\n{TYPE_CHECKED}from .params import Params"}),
        (
            no_circle,
            {
                "paper/a": "from . import b",
                "paper/b": "from . import c",
                "paper/c": "async def f():\n    from . import a",
            },
        ),
        (imports_point_down, {"prompts": "from .grading import make"}),
        (imports_point_down, {"grading": f"{INSIDE}from palign.analysis.costs import reads"}),
        (imports_point_down, {"engines/labels": f"{TYPE_CHECKED}from .. import evaluation\ndef read(): ..."}),
        (imports_point_down, {"tasks/store": "from ..engines import labels"}),
        (imports_point_down, {"analysis/style": "import palign.paper.printed", "paper/printed": "X = 1"}),
        (imports_point_down, {"paper/figures": "from ..report.results import Results"}),
        (imports_point_down, {"report/tables": "from ..study import run"}),
        (imports_point_down, {"overlap": f"{INSIDE}import palign"}),
        (pocket_stands_apart, {"problems": "from .pocket.keys import KEYS"}),
        (pocket_stands_apart, {"study/cli": f"{INSIDE}from palign.pocket import keys"}),
        (pocket_stands_apart, {"pocket/world": "from ..report import results"}),
        (pocket_stands_apart, {"pocket/world": f"{TYPE_CHECKED}from .. import study"}),
        (names_come_from_where_they_are_defined, {"overlap": f"{INSIDE}from .problems import load_training"}),
        (names_come_from_where_they_are_defined, {"overlap": "from .published import accuracy"}),
        (names_come_from_where_they_are_defined, {"overlap": "import palign.published"}),
        (names_come_from_where_they_are_defined, {"overlap": "from .params import ARMS"}),
        (names_come_from_where_they_are_defined, {"../benchmarks/scale.py": f"{INSIDE}from palign.traces import load"}),
        (a_wing_begins_with_a_docstring_alone, {"engines/__init__": '"""Engines."""\nfrom .labels import read'}),
        (a_wing_begins_with_a_docstring_alone, {"engines/__init__": '"""Engines."""\nKINDS = 3'}),
        (a_wing_begins_with_a_docstring_alone, {"tasks/__init__": ""}),
        (a_wing_begins_with_a_docstring_alone, {"tasks/__init__": '""""""'}),
        (
            a_wing_begins_with_a_docstring_alone,
            {"paper/__init__": '"""A line.' + "\nA line." * DOCSTRING_LINES + '"""'},
        ),
        (the_door_holds_open, {"__init__": '"""A study."""'}),
        (the_door_holds_open, {"__init__": f"{OPEN}\n__version__ = '0.1.0'"}),
        (the_door_holds_open, {"__init__": f"from .params import Params\n{OPEN}"}),
        (the_door_holds_open, {"__init__": f"{OPEN}\nprint('welcome')"}),
        (the_house_has_these_rooms, {"helpers": ""}),
        (the_house_has_these_rooms, {"judging": None}),
        (the_house_has_these_rooms, {"notes.md": "What to do."}),
        (the_house_has_these_rooms, {"published/__init__": '"""The paper."""'}),
        (the_house_has_these_rooms, {"published/accuracy.csv": "arm,accuracy"}),
        (the_house_has_these_rooms, {name: None for name in LAWFUL if name.startswith("pocket/")}),
    ],
)
def test_a_broken_law_is_caught(law, changes, tmp_path):
    assert broken(build(tmp_path, changes)) == [law.__name__]


@pytest.mark.parametrize(
    ("law", "cells"),
    [
        (notebooks_use_public_names, ("", "from palign.traces import _split")),
        (notebooks_use_public_names, ("", "from os import _exit")),
        (notebooks_use_public_names, ("", "if True:\n    from palign import traces\n    traces._split()")),
        (notebooks_import_what_a_reader_needs, ("", "from palign.study import colab")),
        (notebooks_import_what_a_reader_needs, ("from palign.study import run",)),
        (notebooks_import_what_a_reader_needs, ("", "from palign.engines.labels import read")),
        (notebooks_import_what_a_reader_needs, ("", "import palign.tasks.plan as plan")),
        (notebooks_import_what_a_reader_needs, ("", "from palign.pocket import keys")),
        (notebooks_import_what_a_reader_needs, ("", "from palign import arms")),
        (names_come_from_where_they_are_defined, ("", "from palign import audit")),
        (names_come_from_where_they_are_defined, ("", "from palign.report.results import Params")),
    ],
)
def test_a_notebook_that_breaks_a_law_is_caught(law, cells, tmp_path):
    changes = {"traces": f"{LAWFUL['traces']}\ndef _split(): ..."}
    assert broken(build(tmp_path, changes, cells)) == [law.__name__]


def test_floors_and_circles_are_counted(tmp_path):
    """arms, params, tasks/plan and engines/base stand one above the other; the files of a circle share a floor."""
    house = build(tmp_path, {"overlap": "from . import grading, behaviour", "grading": "from . import overlap"})
    floor = {module: number for number, groups in enumerate(house.floors) for group in groups for module in group}
    chain = ["palign.arms", "palign.params", "palign.tasks.plan", "palign.engines.base"]
    assert [floor[module] for module in chain] == [0, 1, 2, 3]
    assert floor["palign.behaviour"] == 0 and floor["palign.overlap"] == floor["palign.grading"] == 1
    assert house.circles == [("palign.grading", "palign.overlap")] and len(floor) == len(house.files)


@pytest.mark.parametrize(
    ("arguments", "takes"),
    [
        ("params: Params", True),
        ("self, *, whole: Params | None = None", True),
        ("whole: params.Params", True),
        ("whole: 'Sequence[Params]'", True),
        ("**each: Params", True),
        ("params", True),
        ("params: Audit", False),
        ("recipe: FineTuning, name: str = 'Params'", False),
        ("", False),
    ],
)
def test_what_takes_the_whole_params_is_counted(arguments, takes):
    (function,) = ast.parse(f"def f({arguments}): ...").body
    assert takes_params(function) is takes


def table(house: House) -> str:
    """Files, lines and functions that take the whole ``Params``, by wing; then floors and circles."""
    rows: dict[str, list[int]] = {}
    for module, path in house.files.items():
        row = rows.setdefault(house.wing(module), [0, 0, 0])
        lines = len(path.read_text("utf-8").splitlines())
        for column, number in enumerate((1, lines, len(house.whole_params[module]))):
            row[column] += number
    order = [*ORDER, "pocket"]
    rows = dict(sorted(rows.items(), key=lambda row: order.index(row[0]) if row[0] in order else len(order)))
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    shown = [f"{'wing':<10}{'files':>7}{'lines':>8}{'take Params':>14}"]
    shown += [f"{wing:<10}{files:>7}{lines:>8}{functions:>14}" for wing, (files, lines, functions) in rows.items()]
    shown += ["", f"{len(house.floors)} floors, {len(house.circles)} circles"]
    return "\n".join(shown + no_circle(house))


if __name__ == "__main__":
    print(table(House(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PROJECT / "palign")))
