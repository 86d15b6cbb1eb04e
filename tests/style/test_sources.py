# SPDX-License-Identifier: GPL-3.0-or-later
"""House rules that no linter knows. Each test first makes sure that it found something to check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.style.tree import ROOT, sources

SPDX = "SPDX-License-Identifier: GPL-3.0-or-later"
MOST_LINES = 400


def test_every_source_has_its_licence_on_top() -> None:
    files = sources(".rs", ".py", ".pyi", ".sh", ".toml")
    assert len(files) > 100
    exempt = {"clippy.toml", "rustfmt.toml"}
    without = [
        str(file.relative_to(ROOT))
        for file in files
        if file.name not in exempt and SPDX not in "".join(file.read_text().splitlines(keepends=True)[:2])
    ]
    assert without == []


def test_no_file_is_too_long() -> None:
    files = sources(".rs", ".py", ".pyi")
    assert len(files) > 100
    too_long = {
        str(file.relative_to(ROOT)): n for file in files if (n := file.read_text().count("\n")) > MOST_LINES
    }
    assert too_long == {}


def test_unsafe_stays_where_it_belongs() -> None:
    crates = [path.parent.parent for path in sources("src/lib.rs")]
    assert len(crates) >= 8
    for crate in crates:
        text = (crate / "src" / "lib.rs").read_text()
        may = crate.name in {"hypervisor", "xen", "sim", "fakexen"}
        assert ("#![forbid(unsafe_code)]" in text) is not may, crate


def test_every_unsafe_block_says_why() -> None:
    blocks = 0
    for file in sources(".rs"):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"\bunsafe (\{|impl)", line) and not line.lstrip().startswith("//"):
                blocks += 1
                before = "\n".join(lines[max(0, number - 8) : number + 1])
                assert "SAFETY:" in before, f"{file}:{number + 1}"
    assert blocks > 20


def test_a_justification_has_a_number() -> None:
    comments = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in sources(".rs")
        for match in re.finditer(r"JUSTIFICATION:.*(?:\n\s*//.*)*", file.read_text())
    ]
    assert comments
    assert [comment for comment in comments if not re.search(r"\d+ ns|[\d.]+ times", comment)] == []


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_file_is_called_after_nothing(name: str) -> None:
    files = sources(".rs", ".py")
    assert files
    assert [file for file in files if file.stem == name] == []


def test_no_path_of_a_machine_and_no_registry_host() -> None:
    files = sources(".rs", ".py", ".md", ".toml", ".sh", "Makefile", ".yml", "run")
    assert len(files) > 100
    forbidden = re.compile(r"/home/\w|/root/|pypi\.org|crates\.io/|deb\.debian\.org")
    found = [
        f"{file.relative_to(ROOT)}: {match.group()}"
        for file in files
        if file != Path(__file__) and (match := forbidden.search(file.read_text()))
    ]
    assert found == []
