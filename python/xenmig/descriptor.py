# SPDX-License-Identifier: GPL-3.0-or-later
"""The file descriptor of what the caller gives as a stream's end: a number, or an object that has one.

The engine reads and writes the descriptor itself, below any buffer that a Python file object has. So what
waits in such a buffer goes out first, and what was read ahead is given back where that is possible.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Protocol

from xenmig.errors import TransportError

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["HasFileno", "Stream", "reading", "writing"]


class HasFileno(Protocol):
    """An open file, pipe or socket."""

    def fileno(self) -> int:
        """Returns its file descriptor."""
        ...


Stream: TypeAlias = "int | HasFileno"
"""A file descriptor, or an object that has one."""


def writing(out: Stream) -> int:
    """Returns the descriptor of `out`, whose buffer has been written out.

    Raises:
        TypeError: It is neither a descriptor nor an object with one, or a file in text mode.
        ValueError: The number is negative.
        TransportError: It is closed (``EBADF``), or its buffer could not be written out.
    """
    fd = _descriptor("out", out)
    flush = getattr(out, "flush", None)
    if callable(flush):
        try:
            flush()
        except OSError as error:
            raise _transport_error(error, "writing out the file's buffer failed") from error
    return fd


def reading(source: Stream) -> int:
    """Returns the descriptor of `source`, at the position at which the object stands.

    A pipe or socket that was already read from through a buffered file object has lost what that object read
    ahead. Open it with ``buffering=0``, or give the descriptor.

    Raises:
        TypeError: It is neither a descriptor nor an object with one, or a file in text mode.
        ValueError: The number is negative.
        TransportError: It is closed (``EBADF``).
    """
    fd = _descriptor("source", source)
    if isinstance(source, io.BufferedReader | io.BufferedRandom) and source.seekable():
        os.lseek(fd, source.tell(), os.SEEK_SET)
    return fd


def _descriptor(name: str, stream: object) -> int:
    if isinstance(stream, int) and not isinstance(stream, bool):
        if stream < 0:
            raise ValueError(f"{name} is {stream}: a file descriptor is 0 or more")
        return stream
    if isinstance(stream, io.TextIOBase):
        raise TypeError(f"{name} is a file in text mode: open it in binary mode, or give its .buffer")
    what = type(stream).__name__
    fileno = getattr(stream, "fileno", None)
    if not callable(fileno):
        raise TypeError(f"{name} is of type {what}: give a file descriptor or an open file, pipe or socket")
    try:
        fd = fileno()
    except io.UnsupportedOperation:
        raise TypeError(f"{name}, a {what}, has no descriptor: give an open file, pipe or socket") from None
    except ValueError as error:
        # What Python's files say when they are closed.
        raise TransportError(errno.EBADF, f"{name} cannot be used: {error}") from None
    if not isinstance(fd, int):
        raise TypeError(f"the fileno() of {name} gives {fd!r}, which is no file descriptor")
    return fd


def _transport_error(error: OSError, what: str) -> TransportError:
    return TransportError(error.errno or errno.EIO, f"{what}: {error.strerror or error}")
