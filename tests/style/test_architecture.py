# SPDX-License-Identifier: GPL-3.0-or-later
"""ARCHITECTURE.md has a map of the tree, and files that it names exist."""

from __future__ import annotations

import re

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


def test_files_that_are_named_exist() -> None:
    files = {f"/{path.relative_to(ROOT)}" for path in sources("")}
    named = set(NAMED.findall(ARCHITECTURE))
    assert len(named) > 5
    # `engine/rounds.rs` is short for rust/engine/src/rounds.rs.
    shortened = {path.replace("/src/", "/") for path in files} | files
    assert sorted(name for name in named if not any(path.endswith(f"/{name}") for path in shortened)) == []
