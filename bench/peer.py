# SPDX-License-Identifier: GPL-3.0-or-later
"""The other end of a socket, in a process of its own: it takes a stream as fast as it comes, or sends a file.

It knows nothing of Xen and does the same for both engines. Started by ``libxc.py``.
"""

from __future__ import annotations

import mmap
import os

from channel import serve

__all__ = ["CHUNK_BYTES"]

#: What is read or written at a time, at most.
CHUNK_BYTES = 4 << 20


def drain(fd: int) -> int:
    """Reads until the other end closes, and returns the number of bytes."""
    buffer = bytearray(CHUNK_BYTES)
    total = 0
    while count := os.readv(fd, [buffer]):
        total += count
    return total


def feed(fd: int, *, path: str) -> int:
    """Writes a file, and returns the number of bytes."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as contents:  # noqa: PTH123 - a name from JSON
        view = memoryview(contents)
        total = 0
        while total < len(view):
            total += os.write(fd, view[total : total + CHUNK_BYTES])
        view.release()
    return total


if __name__ == "__main__":
    serve({"drain": drain, "feed": feed})
