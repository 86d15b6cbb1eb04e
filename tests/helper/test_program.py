# SPDX-License-Identifier: GPL-3.0-or-later
"""The program itself: what it tells people, and what it does not load."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

import xenmig
from xenmig.helper.configuration import Configuration
from xenmig.helper.usage import USAGE

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_installed_with_the_package() -> None:
    [found] = entry_points(group="console_scripts", name="xenmig-save-helper")
    assert found.value == "xenmig.helper:main"


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_variable_and_key(helper: Path, option: str) -> None:
    printed = subprocess.run([helper, option], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == USAGE.strip()
    for variable in ("POLICY", "POLICY_ARGS", "LOG", "STOCK_HELPER", "CONFIG"):
        assert f"XENMIG_{variable} " in printed
    for key in set(Configuration.__dataclass_fields__) - {"policy_from"}:
        assert key in printed


def test_version(helper: Path) -> None:
    printed = subprocess.run([helper, "--version"], check=True, capture_output=True, text=True).stdout
    assert printed == f"xenmig {xenmig.__version__}\n"


def test_by_hand_it_says_what_it_is(helper: Path) -> None:
    ended = subprocess.run([helper], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "started by libxl, not by hand" in ended.stderr


def test_a_terminal_gets_no_messages(helper: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = [str(helper), "--save-domain", "9", "-1", "5", "1", "136", "0"]
    ended = subprocess.run(arguments, check=False, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    os.close(ours)
    assert ended.returncode == 2
    assert "started by libxl" in ended.stderr


def test_closed_descriptors(helper: Path) -> None:
    script = '"$0" --restore-domain 1 <&- >&-'
    ended = subprocess.run(["sh", "-c", script, helper], check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "libxl's pipes are not there" in ended.stderr


def test_it_does_without_the_command_line() -> None:
    code = "import sys; import xenmig.helper.start; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "xenmig.helper.start" in loaded
    assert {"rich", "typer", "xenmig.cli", "json", "tomllib", "xenmig.policies.named"}.isdisjoint(loaded)
