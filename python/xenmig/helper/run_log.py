# SPDX-License-Identifier: GPL-3.0-or-later
"""``XENMIG_LOG``: a line of JSON for each save, appended to a file that many saves may share."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["append", "now"]


def now() -> str:
    """Returns the time, by ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def append(path: Path, entry: dict[str, Any]) -> None:
    """Appends a line, by one write: lines of saves that end at the same time do not get mixed up.

    A new file can be read by its owner only.

    Raises:
        OSError: It cannot be opened, or not be written to.
    """
    line = json.dumps(entry, default=str).encode() + b"\n"
    # O_NONBLOCK: a named pipe without a reader must not hold up a migration.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags, 0o600)
    try:
        written = os.write(fd, line)
    finally:
        os.close(fd)
    if written != len(line):
        raise OSError(f"only {written} of {len(line)} bytes were written")
