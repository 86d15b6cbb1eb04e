# SPDX-License-Identifier: GPL-3.0-or-later
"""ARCHITECTURE.md has a map of the tree, and the files that the documents for developers name exist."""

from __future__ import annotations

import re

import pytest
from tests.style.tree import ROOT, sources

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
#: A path from the top, or from a crate or the package: `engine/src/rounds.rs`, `helper/start.py`.
NAMED = re.compile(r"`([\w./-]+/[\w-]+\.(?:rs|py|c|sh))`")


def mapped() -> dict[str, str]:
    """The folders of the map, each with what is said of it."""
    block = re.search(r"^```map\n(.*?)^```$", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    assert block is not None
    pairs = [line.split(maxsplit=1) for line in block[1].splitlines()]
    assert len({folder for folder, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_the_map_has_every_folder_with_sources() -> None:
    there = {str(path.parent.relative_to(ROOT)) for path in sources(".rs", ".py", ".pyi", ".c", ".sh")}
    assert len(there) > 30
    map_ = mapped()
    assert {"missing": sorted(there - set(map_)), "stale": sorted(set(map_) - there)} == {
        "missing": [],
        "stale": [],
    }


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SAFETY.md", "tests/README.md"])
def test_files_that_are_named_exist(document: str) -> None:
    files = {f"/{path.relative_to(ROOT)}" for path in sources("")}
    # `engine/rounds.rs` is short for rust/engine/src/rounds.rs.
    files |= {path.replace("/src/", "/") for path in files}
    named = set(NAMED.findall((ROOT / document).read_text(encoding="utf-8")))
    assert named or document == "SAFETY.md"
    assert sorted(name for name in named if not any(path.endswith(f"/{name}") for path in files)) == []
