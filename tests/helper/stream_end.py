# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a helper's stream goes in a test, and whether it is whole."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The END record: type 0, length 0.
END = bytes(8)


@contextmanager
def to_file(path: Path) -> Iterator[int]:
    """Gives a descriptor of a new file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def is_whole(path: Path) -> bool:
    """Tells whether a stream ends with END. A torn one ends with a page, and the tests' pages are random."""
    return path.read_bytes().endswith(END)


class Reader(threading.Thread):
    """Reads a pipe or socket until the other side has closed it."""

    def __init__(self, fd: int) -> None:
        """Begins to read."""
        super().__init__(daemon=True)
        self._fd = fd
        self._parts: list[bytes] = []
        self.start()

    def run(self) -> None:
        """Reads."""
        while part := os.read(self._fd, 1 << 20):
            self._parts.append(part)

    def read(self, timeout_s: float) -> bytes:
        """Waits for the end and returns everything.

        Raises:
            TimeoutError: The other side is still open.
        """
        self.join(timeout_s)
        if self.is_alive():
            raise TimeoutError("the stream does not end")
        return b"".join(self._parts)
