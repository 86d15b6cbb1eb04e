# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example in a docstring of the package runs, on the simulated host, and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import xenmig


def all_modules() -> list[str]:
    found = pkgutil.walk_packages(xenmig.__path__, "xenmig.")
    return ["xenmig", *(module.name for module in found if module.name != "xenmig.__main__")]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = map(importlib.import_module, all_modules())
    return [test for module in modules for test in finder.find(module, module.__name__) if test.examples]


def test_examples_are_found() -> None:
    names = {example.name for example in examples()}
    assert {"xenmig.save.save", "xenmig.restore.restore", "xenmig.policies.libxc.LibxcPolicy"} <= names


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_example_gives_what_it_says(example: doctest.DocTest) -> None:
    assert doctest.DocTestRunner().run(example).failed == 0
