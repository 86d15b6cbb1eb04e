# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the tree that the house rules are checked in."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["ROOT", "sources"]

ROOT = Path(__file__).parents[2]


def sources(*endings: str) -> list[Path]:
    """The files that git has, or would take, with these endings."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    files = [ROOT / name for name in listed.splitlines() if name.endswith(endings)]
    return [file for file in files if file.exists()]
