# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the bytes come from: a path, a file descriptor or an open binary file; seekable or a pipe.

Reads exactly what it is asked for and nothing ahead, so that a stream embedded in another one is left
at the byte after its END record. Counts bytes from the place where the stream starts.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from xenmig.errors import StreamError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

StreamFile: TypeAlias = "str | os.PathLike[str] | int | BinaryIO"
"""What a stream can be read from: a path, a file descriptor (it stays open), a binary file (likewise)."""

CHUNK_BYTES = 256 << 10
"""Most that is asked of the file at once: a length that lies cannot make the reader allocate more."""


class ByteSource:
    """The bytes of one stream.

    Attributes:
        offset: Bytes taken so far; also the offset of the next one in the stream.
    """

    def __init__(self, file: StreamFile) -> None:
        """Opens a path, or takes a descriptor or file at its present position.

        Raises:
            OSError: The path cannot be opened, or the descriptor is none.
            TypeError: It is none of the three.
        """
        self._file, self._owned = _open(file)
        self.offset = 0
        self._start, self._end = _extent(self._file)

    @property
    def seekable(self) -> bool:
        """Whether bytes can be passed over without reading them, and read again."""
        return self._end > self._start

    def read(self, size: int, what: str) -> bytes:
        """Reads exactly ``size`` bytes, which are part of ``what``.

        Raises:
            StreamError: The stream ends before.
            OSError: The file cannot be read.
        """
        first = self._take(min(CHUNK_BYTES, size))
        if len(first) == size:
            return first
        parts = [first]
        left = size - len(first)
        while left and parts[-1]:
            parts.append(self._take(min(left, CHUNK_BYTES)))
            left -= len(parts[-1])
        if left:
            raise self._truncated(size, size - left, what)
        return b"".join(parts)

    def read_start(self, size: int, what: str) -> bytes:
        """Reads the first ``size`` bytes of a stream, or fewer of a file that is none and is shorter.

        Raises:
            StreamError: The file is empty, or ends inside what may be a stream.
            OSError: The file cannot be read.
        """
        data = b""
        while len(data) < size and (part := self._take(size - len(data))):
            data += part
        if not data:
            message = f"the stream ends inside {what}: 0 of {size} bytes are there; it is empty"
            raise StreamError(message, offset=0)
        if len(data) < size and data[:1] == b"\xff":
            raise self._truncated(size, len(data), what)
        return data

    def drop(self, size: int, what: str) -> None:
        """Reads ``size`` bytes, part of ``what``, and forgets them.

        Raises:
            StreamError: The stream ends before.
            OSError: The file cannot be read.
        """
        left = size
        while left:
            got = len(self._take(min(left, CHUNK_BYTES)))
            if not got:
                raise self._truncated(size, size - left, what)
            left -= got

    def skip(self, size: int, what: str) -> None:
        """Passes over ``size`` bytes, part of ``what``: by a seek where the file can.

        Raises:
            StreamError: The stream ends before.
            OSError: The file cannot be read.
        """
        # A seek beyond the end succeeds: then reading has to find out how much is there.
        if self.seekable and self._start + self.offset + size <= self._end:
            self._file.seek(self._start + self.offset + size)
            self.offset += size
        else:
            self.drop(size, what)

    def at_end(self) -> bool:
        """Says whether no byte is left; takes one if there is."""
        return not self._take(1)

    def rewind(self) -> None:
        """Goes back to where the stream starts; only for a seekable source."""
        self._file.seek(self._start)
        self.offset = 0

    def close(self) -> None:
        """Closes the file if it was opened here."""
        if self._owned:
            self._file.close()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file if it was opened here."""
        self.close()

    def _take(self, size: int) -> bytes:
        """Reads once: between 1 and ``size`` bytes, none at the end of the file."""
        if not size:
            return b""
        data: bytes | None = self._file.read(size)
        # A raw file says None where a non-blocking descriptor has nothing yet.
        if data is None:
            message = "the stream's descriptor is non-blocking and has no bytes yet"
            raise BlockingIOError(message)
        self.offset += len(data)
        return data

    def _truncated(self, expected: int, found: int, what: str) -> StreamError:
        """Says that the stream ended inside ``what``."""
        message = f"the stream ends inside {what}: {found} of {expected} bytes are there"
        return StreamError(message, offset=self.offset)


def _open(file: object) -> tuple[BinaryIO, bool]:
    """Returns the binary file behind what was passed, and whether it is to be closed afterwards."""
    if isinstance(file, int) and not isinstance(file, bool):
        return cast("BinaryIO", io.FileIO(file, "rb", closefd=False)), True
    if isinstance(file, (str, os.PathLike)):
        return cast("BinaryIO", io.BufferedReader(io.FileIO(os.fspath(file), "rb"), CHUNK_BYTES)), True
    if isinstance(file, io.TextIOBase) or not hasattr(file, "read"):
        message = f"a stream is a path, a file descriptor or a binary file, not {type(file).__name__}"
        raise TypeError(message)
    return cast("BinaryIO", file), False


def _extent(file: BinaryIO) -> tuple[int, int]:
    """Returns the present position and the end of a file; both 0 if it cannot seek."""
    try:
        if not file.seekable():
            return 0, 0
        start = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(start)
    except (OSError, AttributeError):
        return 0, 0
    return start, end
