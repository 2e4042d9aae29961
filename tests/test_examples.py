"""The examples in docstrings that need no study give what they say; the others need records of a run."""

import doctest
import pkgutil
import sys

import pytest

WITHOUT_A_STUDY = [
    "analysis.statistics",
    "analysis.sufficiency.evenly_spread",
    "behaviour",
    "grading",
    "judging.answer",
    "judging.label",
    "judging.parse",
    "overlap",
    "pocket.errors",
    "problems",
    "prompts",
    "strategies",
    "tasks.store.visible",
    "traces",
    "traces.thoughts",
    "truncation",
]


@pytest.mark.parametrize("name", WITHOUT_A_STUDY)
def test_an_example_gives_what_it_says(name):
    """One stated a number of another study, one the result of an earlier form of its function."""
    documented = pkgutil.resolve_name(f"palign.{name}")
    module = sys.modules[getattr(documented, "__module__", documented.__name__)]
    (example,) = doctest.DocTestFinder(recurse=False).find(documented, name, globs=vars(module).copy())
    assert example.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0
