# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files root may read orders from, or run code of: those that only root and their owner can change."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["UntrustedFileError", "check_file"]

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UntrustedFileError(PermissionError):
    """A file can be changed by others; the message says how to mend that."""


def check_file(path: Path) -> None:
    """Makes sure that only root and its owner can change a file, or put another in its place.

    For any user but root there is nothing to check.

    Raises:
        UntrustedFileError: Others can.
        OSError: There is no such file.
    """
    if os.geteuid() != 0:
        return
    path = path.resolve()
    if path.stat().st_mode & _OTHERS:
        raise UntrustedFileError(
            f"{path} can be written by others than its owner, and would be used as root: chmod go-w {path}"
        )
    for directory in path.parents:
        mode = directory.stat().st_mode
        if mode & _OTHERS and not mode & stat.S_ISVTX:
            raise UntrustedFileError(
                f"{path} can be replaced by others than its owner, and would be used as root: "
                f"chmod go-w {directory}"
            )
