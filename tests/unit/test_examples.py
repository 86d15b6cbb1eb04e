# SPDX-License-Identifier: GPL-3.0-or-later
"""Every program in examples/ runs and says what it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

# Program, its arguments, and what its output must match.
RUNS = [
    ("quiet_hours.py", [], r"rounds, downtime .* ms; stopped because .*quiet hour"),
    ("quiet_hours.py", ["0", "24"], r"QuietHours: \d+ o'clock is a quiet hour"),
    ("save_to_file.py", ["{tmp_path}/guest.xenmig"], r"saved \d+ bytes in \d+ rounds.*\ndomain 2 is running"),
    ("migrate_over_socket.py", [], r"here: 0 domains; there: domain 1 is running"),
]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_each_example_has_a_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {program for program, _, _ in RUNS}


@pytest.mark.parametrize(("program", "arguments", "output"), RUNS)
def test_example_runs(program: str, arguments: list[str], output: str, tmp_path: Path) -> None:
    result = run(program, *(argument.format(tmp_path=tmp_path) for argument in arguments))
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(output, result.stdout), result.stdout


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "guest.xenmig"
    path.write_bytes(b"precious")
    assert run("save_to_file.py", str(path)).returncode != 0
    assert path.read_bytes() == b"precious"
