# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a stream that the caller gives, down to the file descriptor that carries its bytes.

The engine reads and writes the descriptor itself, below every Python object. So an object is accepted only if
its bytes pass through its descriptor unchanged: a TLS connection or a compressing file would be bypassed, and
is refused. What waits in a file object's buffer is written first, and what it has read ahead is given back.
Afterwards the same object stands where the engine stopped.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import signal
import socket
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from xenmig.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

__all__ = ["Descriptor", "Stream", "opened"]

_TemporaryFile: TypeAlias = "tempfile._TemporaryFileWrapper[bytes]"  # noqa: SLF001 - it has no public name

Stream: TypeAlias = (
    "int | socket.socket | socket.SocketIO | io.FileIO"
    " | io.BufferedReader | io.BufferedWriter | io.BufferedRandom | _TemporaryFile"
)
"""What carries a stream: a file descriptor, a socket without TLS, or an uncompressed binary file.

Files are what ``open()`` in binary mode, ``os.fdopen()``, ``subprocess.Popen``, ``socket.makefile()`` and
``tempfile.NamedTemporaryFile()`` return. Subclasses are refused, except for those of ``socket.socket`` that
send and receive as it does.
"""

_BUFFERED = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom)
_TEMPORARY = tempfile._TemporaryFileWrapper  # noqa: SLF001 - its attribute `file` is public

_SOCKET_METHODS = [
    *("fileno", "makefile", "send", "sendall", "sendfile", "sendmsg", "sendto"),
    *("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"),
]


@dataclass(frozen=True)
class Descriptor:
    """What the engine uses of a stream's end.

    Attributes:
        fd: The file descriptor.
        timeout_s: The socket's own timeout: how long the other end may take nothing or give nothing, in
            seconds. ``None`` for a socket without one, for a non-blocking socket, and for everything else.
    """

    fd: int
    timeout_s: float | None = None


@contextmanager
def opened(name: str, stream: Stream) -> Iterator[Descriptor]:
    """Lends the descriptor of `stream`, and afterwards sets `stream` to where the engine stopped.

    Args:
        name: What the caller calls it: ``"out"`` or ``"source"``.
        stream: The end of the stream. It stays open.

    Raises:
        TypeError: Its bytes do not pass through a descriptor unchanged.
        ValueError: The number is negative, or bytes were read ahead that cannot be given back.
        TransportError: It is closed (``EBADF``), or its buffer could not be written.
    """
    if isinstance(stream, int) and not isinstance(stream, bool):
        if stream < 0:
            raise ValueError(f"{name} is {stream}: a file descriptor is 0 or more")
        yield Descriptor(stream)
        return
    try:
        layers = _layers(stream)
        carrier = layers[-1]
        if not _is_plain(carrier):
            raise TypeError(_refusal(name, layers))
        descriptor = Descriptor(carrier.fileno(), _timeout_s(carrier))
    except ValueError as error:
        # What Python's files say when they are closed.
        raise TransportError(errno.EBADF, f"{name} cannot be used: {error}") from None
    buffered = next((layer for layer in layers if type(layer) in _BUFFERED), None)
    if buffered is None:
        yield descriptor
        return
    _empty(name, buffered)
    try:
        yield descriptor
    finally:
        # If another thread has closed it meanwhile, there is no position to set.
        with suppress(OSError, ValueError):
            if buffered.seekable():
                buffered.seek(os.lseek(descriptor.fd, 0, os.SEEK_CUR))


def _layers(stream: object) -> list[Any]:
    """Returns `stream` and the objects below it, as far down as each passes bytes on unchanged."""
    below: object
    if type(stream) is _TEMPORARY:
        below = stream.file
    elif type(stream) in _BUFFERED:
        below = cast("io.BufferedReader", stream).raw
    elif type(stream) is socket.SocketIO:
        if stream.closed:
            raise ValueError("I/O operation on closed file")
        below = stream._sock  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    else:
        return [stream]
    if below is None:
        raise ValueError("its raw file has been detached")
    return [stream, *_layers(below)]


def _is_plain(carrier: object) -> bool:
    """Says whether the bytes of `carrier` are those at its descriptor."""
    if type(carrier) is io.FileIO:
        return True
    return isinstance(carrier, socket.socket) and all(
        inspect.getattr_static(carrier, method) is inspect.getattr_static(socket.socket, method)
        for method in _SOCKET_METHODS
    )


def _refusal(name: str, layers: list[Any]) -> str:
    carrier = layers[-1]
    what = " over ".join(type(layer).__name__ for layer in layers if type(layer) is not socket.SocketIO)
    if isinstance(carrier, io.TextIOBase):
        return f"{name} is a file in text mode: open it in binary mode, or give its .buffer"
    if isinstance(carrier, io.BytesIO | io.BufferedRWPair):
        return f"{name}, a {what}, has no descriptor: give an open file, a pipe, a socket or a descriptor"
    if not hasattr(type(carrier), "fileno"):
        return f"{name} is of type {what}: give a file descriptor or an open file, pipe or socket"
    return (
        f"{name} is of type {what}, which the stream would bypass: xenmig reads and writes file descriptors "
        "itself. Give a descriptor, a plain socket, or a file from open() in binary mode. To encrypt or "
        "compress, send the stream through another process or a thread: see 'Streams' in the manual"
    )


def _timeout_s(carrier: io.FileIO | socket.socket) -> float | None:
    # A timeout of 0 is how Python says "non-blocking": nothing that a transfer could be held to.
    return (carrier.gettimeout() or None) if isinstance(carrier, socket.socket) else None


def _empty(name: str, buffered: io.BufferedReader | io.BufferedWriter | io.BufferedRandom) -> None:
    """Writes what waits in the buffer, gives back what was read ahead, and leaves the buffer empty."""
    try:
        with _broken_pipes_raise():
            buffered.flush()
        if buffered.seekable():
            position = buffered.tell()
            # A seek that stays within the buffer keeps it. One relative to the end never does.
            buffered.seek(0, os.SEEK_END)
            buffered.seek(position)
            return
    except OSError as error:
        message = f"writing out the file's buffer failed: {error.strerror or error}"
        raise TransportError(error.errno or errno.EIO, message) from error
    ahead_bytes = _read_ahead_bytes(buffered) if isinstance(buffered, io.BufferedReader) else 0
    if ahead_bytes:
        raise ValueError(
            f"{name} has read {ahead_bytes} bytes ahead, and a pipe or socket cannot take them back: open it "
            "with buffering=0"
        )


@contextmanager
def _broken_pipes_raise() -> Iterator[None]:
    """Has a write to a broken pipe raise ``EPIPE``, even where SIGPIPE would end the process."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    pending = signal.SIGPIPE in signal.sigpending()
    try:
        yield
    finally:
        if not pending:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _read_ahead_bytes(buffered: io.BufferedReader) -> int:
    """Counts what is in the buffer of a pipe or socket, without reading from it."""
    raw: Any = buffered.raw
    # peek() asks the raw file only if the buffer is empty. None means that there is nothing yet.
    raw.readinto = lambda _buffer: None
    try:
        return len(buffered.peek())
    finally:
        del raw.readinto
