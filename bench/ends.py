# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stream is written to or read from: the null device, a file, a socket with a process behind it.

Each run gets a descriptor of its own, of a new connection if it is a socket. The other ends of sockets are in
one process (``peer.py``), which reads and writes 4 MiB at a time.
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from channel import Remote
    from worker import Timing

__all__ = ["End", "FileSink", "FileSource", "Null", "SocketSink", "SocketSource"]


class End(ABC):
    """The other end of streams."""

    def __init__(self, name: str) -> None:
        """Names it for the table."""
        self.name = name

    @abstractmethod
    def run(self, job: Callable[[int], Timing]) -> tuple[Timing, int]:
        """Does a job that writes to a descriptor or reads from it.

        Returns:
            The job's timing, and how many bytes went through.
        """


class Null(End):
    """The null device. Its bytes are those that the job's process says it wrote."""

    def __init__(self) -> None:
        super().__init__("/dev/null")

    def run(self, job: Callable[[int], Timing]) -> tuple[Timing, int]:
        """Writes to it."""
        with Path("/dev/null").open("wb") as null:
            timing = job(null.fileno())
        return timing, timing["wrote"]


class FileSink(End):
    """A file in memory (tmpfs). Every run but the first overwrites it, so it finds the pages there."""

    def __init__(self, path: Path) -> None:
        super().__init__("tmpfs file")
        self._path = path

    def run(self, job: Callable[[int], Timing]) -> tuple[Timing, int]:
        """Writes to it."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            return job(fd), os.lseek(fd, 0, os.SEEK_CUR)
        finally:
            os.close(fd)


class FileSource(End):
    """A file in memory that exists."""

    def __init__(self, path: Path) -> None:
        super().__init__("tmpfs file")
        self._path = path

    def run(self, job: Callable[[int], Timing]) -> tuple[Timing, int]:
        """Reads from it."""
        with self._path.open("rb") as file:
            timing = job(file.fileno())
            return timing, os.lseek(file.fileno(), 0, os.SEEK_CUR)


class SocketSink(End):
    """A socket that another process empties."""

    def __init__(self, name: str, peer: Remote) -> None:
        """Takes `name`, ``unix socket`` or ``TCP``, and the process."""
        super().__init__(name)
        self._peer = peer

    def run(self, job: Callable[[int], Timing]) -> tuple[Timing, int]:
        """Writes to it."""
        with connection(self.name) as (ours, theirs):
            self._peer.begin("drain", [theirs.fileno()])
            theirs.close()
            timing = job(ours.fileno())
            ours.close()
            return timing, self._peer.finish()


class SocketSource(End):
    """A socket into which another process writes a file."""

    def __init__(self, name: str, peer: Remote, path: Path) -> None:
        """Takes `name`, ``unix socket`` or ``TCP``, the process, and the file."""
        super().__init__(name)
        self._peer = peer
        self._path = path

    def run(self, job: Callable[[int], Timing]) -> tuple[Timing, int]:
        """Reads from it."""
        with connection(self.name) as (ours, theirs):
            self._peer.begin("feed", [theirs.fileno()], path=str(self._path))
            theirs.close()
            timing = job(ours.fileno())
            ours.close()
            return timing, self._peer.finish()


@contextmanager
def connection(name: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Makes the two ends of a connection, and closes what is still open of them."""
    if name == "unix socket":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    with ours, theirs:
        yield ours, theirs
