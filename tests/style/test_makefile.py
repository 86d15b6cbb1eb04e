# SPDX-License-Identifier: GPL-3.0-or-later
"""The Makefile runs every layer of the tests, and the CI runs every target once."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
#: What only runs on a real Xen.
APART = {"xen"}


def prerequisites(target: str) -> set[str]:
    """The targets that a target makes first, with the layers written out."""
    rule = re.search(rf"^{target}: ([^#\n]*)", MAKEFILE, re.MULTILINE)
    assert rule is not None, target
    layers = re.search(r"^LAYERS := (.*)$", MAKEFILE, re.MULTILINE)
    assert layers is not None
    names = " ".join(f"test-{layer}" for layer in layers[1].split())
    return set(rule[1].replace("$(LAYERS:%=test-%)", names).split())


def test_each_folder_of_tests_is_a_layer() -> None:
    folders = {
        path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert len(folders) >= 6
    assert {f"test-{folder}" for folder in folders - APART} == prerequisites("test") - {"test-rust"}
    assert re.search(r"^test-xen:", MAKEFILE, re.MULTILINE)


def test_each_layer_is_explained() -> None:
    for target in prerequisites("test") | {"test-xen"}:
        assert re.search(rf"^{target}:.*## \w", MAKEFILE, re.MULTILINE), target


def test_the_ci_runs_nothing_twice() -> None:
    run = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert run == ["check", "test", "test-xen"]
    made = [prerequisites(target) | {target} for target in run[:2]]
    assert not made[0] & made[1]
