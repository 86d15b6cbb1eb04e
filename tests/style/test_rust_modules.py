# SPDX-License-Identifier: GPL-3.0-or-later
"""How the Rust crates are divided into files: imports that go one way, names that are not used twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from tests.style.rust_modules import Crate, cycles

RUST = Path(__file__).parents[2] / "rust"
CRATES = sorted(source.parent.name for source in RUST.glob("*/src"))
MOST_FILES = 3

_TYPE = re.compile(r"^ *(?:pub(?:\([^)]*\))? )?(?:struct|enum|union|trait) (\w+)", re.MULTILINE)


def test_there_are_crates_to_check() -> None:
    assert len(CRATES) >= 8


@pytest.mark.parametrize("crate", CRATES)
def test_imports_go_one_way(crate: str) -> None:
    edges = Crate.read(RUST / crate / "src").edges()
    assert sum(map(len, edges.values())) >= len(edges), "hardly any import was found"
    longest = [{"::".join(module) or "lib" for module in cycle} for cycle in cycles(edges)]
    assert [sorted(cycle) for cycle in longest if len(cycle) > MOST_FILES] == []


def test_a_cycle_is_found(tmp_path: Path) -> None:
    (tmp_path / "lib.rs").write_text("mod a;\nmod b;\nmod c;\npub use b::B;\n")
    (tmp_path / "a.rs").write_text("use crate::{B, c::{self, D as E}};\n")
    (tmp_path / "b.rs").write_text("pub struct B;\nfn f() { super::c::g() }\n")
    (tmp_path / "c.rs").write_text('// use crate::nothing;\nfn g() { let _ = "crate::x"; crate::a::h() }\n')
    edges = Crate.read(tmp_path).edges()
    assert edges == {(): {("b",)}, ("a",): {("b",), ("c",)}, ("b",): {("c",)}, ("c",): {("a",)}}
    assert cycles(edges) == [{("a",), ("b",), ("c",)}]


@pytest.mark.parametrize("crate", CRATES)
def test_no_type_and_no_file_of_a_crate_has_the_name_of_another(crate: str) -> None:
    files = list(Crate.read(RUST / crate / "src").files.values())
    types = [name for file in files for name in _TYPE.findall(file.read_text())]
    assert files
    assert types
    names = Counter(file.name for file in files) + Counter(types)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("crate", CRATES)
def test_a_module_with_a_folder_is_a_file_beside_it(crate: str) -> None:
    assert list((RUST / crate / "src").rglob("mod.rs")) == []
