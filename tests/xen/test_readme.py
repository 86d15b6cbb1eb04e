# SPDX-License-Identifier: GPL-3.0-or-later
"""README's section "With stock xl", line by line, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.xen.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.xen.guest import Images

ROOT = Path(__file__).parents[2]
NAME = "guest"
LINE_S = 150


def lines() -> list[str]:
    """Returns the commands of the section."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## With stock xl\n")[2].partition("\n## ")[0]
    block = re.search(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


@pytest.fixture
def guest_of_readme(dom0: Images) -> Iterator[Guest]:
    """A guest of the name that README gives it."""
    guest = Guest(NAME, "pvh", dom0)
    guest.create()
    yield guest
    guest.destroy()


def test_each_line_works(guest_of_readme: Guest, helper: Path, tmp_path: Path) -> None:
    first, *rest = lines()
    name, _, place = first.removeprefix("export ").partition("=")
    # Of a clone this machine has only what the tests need: its helper is elsewhere.
    assert place == "$PWD/.venv/bin/xenmig-save-helper"
    assert [line for line in rest if "xl migrate" in line] == rest[:-1]
    for line in rest:
        here = line.replace("/tmp/", f"{tmp_path}/")  # noqa: S108 - README's
        environment = os.environ | {name: str(helper)}
        command = ["bash", "-c", here]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LINE_S, check=False
        )
        assert done.returncode == 0, f"{here}\n{done.stdout}{done.stderr}"
        assert "xenmig: info: " in done.stderr, shlex.join(command)
        guest_of_readme.check_goes_on()
    assert (tmp_path / "saves.jsonl").read_text().count("\n") == 1
    assert (tmp_path / "guest.image").stat().st_size > 128 << 20
