# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a stream can be read from, and what the reader does to the file it reads."""

from __future__ import annotations

import io
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
from tests.stream.make_stream import (
    END,
    NOTAB,
    STATIC_DATA_END,
    XTAB,
    Domain,
    headers,
    hvm_stream,
    page,
    page_data,
    pages,
    record,
)

from xenmig.errors import StreamError
from xenmig.stream import End, PageData, Record, StreamReader, check_stream
from xenmig.stream.source import ByteSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

# More than a pipe's buffer, and records of more than one chunk.
BIG = Domain(batches=[[(pfn, NOTAB, page(pfn + 1)) for pfn in range(200)], [(7, XTAB, None)]])


class Drip(io.RawIOBase):
    """A file that cannot seek and never gives more than seven bytes at once."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        return self._file.readinto(memoryview(buffer)[:7])


@pytest.fixture
def pipe() -> Iterator[tuple[int, list[bytes]]]:
    """A pipe's reading end, and a list whose bytes a thread writes into it before closing it."""
    reading, writing = os.pipe()
    data: list[bytes] = []
    started = threading.Event()

    def write() -> None:
        started.wait()
        with os.fdopen(writing, "wb") as file:
            file.writelines(data)

    class Starting(list[bytes]):
        def append(self, part: bytes) -> None:
            super().append(part)
            data.append(part)
            started.set()

    thread = threading.Thread(target=write)
    thread.start()
    yield reading, Starting()
    started.set()
    thread.join()
    os.close(reading)


def contents(reader: StreamReader) -> list[tuple[int, bytes]]:
    found = []
    for item in reader:
        if isinstance(item, PageData):
            found += [(pfn, bytes(view)) for pfn, view in item.pages()]
    return found


EXPECTED = [(pfn, page(pfn + 1)) for pfn in range(200)]


def test_path(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(hvm_stream(BIG))
    for name in (path, str(path)):
        with StreamReader(name) as reader:
            assert contents(reader) == EXPECTED
        with pytest.raises(ValueError, match="closed"):
            reader._source.read(1, "anything")


def test_a_path_is_closed_when_its_headers_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(bytes(100))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for read in (StreamReader, check_stream):
        with pytest.raises(StreamError, match="no migration stream"):
            read(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_pipe(pipe: tuple[int, list[bytes]]) -> None:
    reading, data = pipe
    data.append(hvm_stream(BIG))
    with StreamReader(reading) as reader:
        assert not reader._source.seekable
        assert contents(reader) == EXPECTED
    os.fstat(reading)


def test_pipe_without_reading_the_pages(pipe: tuple[int, list[bytes]]) -> None:
    reading, data = pipe
    data.append(hvm_stream(BIG))
    types = [item.type_name for item in StreamReader(reading)]
    assert types[-1] == "END"
    assert types.count("PAGE_DATA") == 2


def test_socket() -> None:
    left, right = socket.socketpair()
    with left, right:
        thread = threading.Thread(target=left.sendall, args=(hvm_stream(BIG),))
        thread.start()
        # The other end stays open: nothing may be asked for beyond END.
        assert contents(StreamReader(right.fileno())) == EXPECTED
        thread.join()


def test_short_reads() -> None:
    assert contents(StreamReader(io.BufferedReader(Drip(hvm_stream(BIG)), 16))) == EXPECTED
    drip: BinaryIO = Drip(hvm_stream(BIG))  # type: ignore[assignment]
    assert contents(StreamReader(drip)) == EXPECTED


def test_a_stream_inside_a_file_is_read_from_where_the_file_stands() -> None:
    stream = hvm_stream()
    file = io.BytesIO(b"before" + stream + b"after")
    file.seek(6)
    records = list(StreamReader(file))
    assert records[0].offset == 40
    assert records[-1] == End(len(stream) - 8, 0)
    assert file.read() == b"after"


def test_a_descriptor_is_left_after_end(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(hvm_stream() + b"after")
    with path.open("rb", buffering=0) as file:
        reader = StreamReader(file.fileno())
        assert list(reader)
        assert reader.offset == len(hvm_stream())
        reader.close()
        assert file.read() == b"after"


class Counting(io.BytesIO):
    """A file that counts what is read from it."""

    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_a_check_reads_every_byte() -> None:
    stream = hvm_stream(BIG)
    file = Counting(stream)
    assert check_stream(file).stream_bytes == len(stream)
    assert file.bytes_read >= len(stream)
    # Looking for VERIFY beforehand does not read the pages.
    assert file.bytes_read < 2 * len(stream) - 200 * 4096 + 1


def test_pages_are_passed_over_by_seeking() -> None:
    stream = hvm_stream(BIG)
    file = Counting(stream)
    assert list(StreamReader(file))
    assert file.bytes_read == len(stream) - 200 * 4096


def test_pages_can_be_read_in_part() -> None:
    stream = headers() + record(STATIC_DATA_END) + pages(*range(100), seed=1) + record(END)
    reader = StreamReader(io.BytesIO(stream))
    for item in reader:
        if isinstance(item, PageData):
            pfn, view = next(item.pages())
            assert (pfn, bytes(view)) == (0, page(1))
    assert reader.offset == len(stream)


def test_pages_stay_valid_but_can_be_read_only_once_and_only_in_time() -> None:
    stream = headers() + pages(1, 2) + pages(3) + page_data([(4, XTAB, None)]) + record(END)
    records = iter(StreamReader(io.BytesIO(stream)))
    first = next(records)
    assert isinstance(first, PageData)
    views = list(first.contents)
    assert all(view.readonly for view in views)
    with pytest.raises(ValueError, match="can be read once"):
        next(first.pages())
    second = next(records)
    assert isinstance(second, PageData)
    late = second.pages()
    third = next(records)
    with pytest.raises(ValueError, match="can be read once"):
        next(late)
    with pytest.raises(ValueError, match="can be read once"):
        second.contents.drop()
    assert isinstance(third, PageData)
    assert list(third.pages()) == []
    assert [bytes(view) for view in views] == [page(2), page(3)]


def test_records_compare_by_what_they_say() -> None:
    def first(stream: bytes) -> Record:
        return next(iter(StreamReader(io.BytesIO(headers() + stream))))

    assert first(pages(1, 2)) == first(pages(1, 2))
    assert hash(first(pages(1, 2))) == hash(first(pages(1, 2)))
    assert first(pages(1, 2)) != first(pages(2, 1))
    assert first(pages(1)) != first(record(END))
    assert repr(first(pages(1, 2))) == "PageData(offset=40, body_length=8216, words=<2 pfns, 2 pages>)"


def test_a_reader_is_iterated_once() -> None:
    reader = StreamReader(io.BytesIO(hvm_stream()))
    assert list(reader)
    assert list(reader) == []


@pytest.mark.parametrize("what", [None, True, 1.5, b"path", io.StringIO("text")])
def test_what_is_no_file_is_refused(what: object) -> None:
    with pytest.raises(TypeError, match="a stream is a path, a file descriptor or a binary file, not "):
        StreamReader(what)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StreamReader(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        StreamReader(tmp_path)
    (tmp_path / "out").touch()
    descriptor = os.open(tmp_path / "out", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            StreamReader(descriptor)
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        StreamReader(descriptor)


def test_a_non_blocking_pipe_without_bytes_is_an_error_of_the_file() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        with pytest.raises(BlockingIOError):
            StreamReader(reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_remarks_are_counted_but_not_all_kept() -> None:
    stream = headers() + record(0x80000001, b"x", padding=1) * 100 + record(END)
    reader = StreamReader(io.BytesIO(stream))
    assert len(list(reader)) == 101
    assert (len(reader.remarks.first), reader.remarks.count) == (64, 100)
    assert reader.remarks.first[0].offset == 49


def test_a_seek_beyond_the_end_is_noticed() -> None:
    stream = headers() + record(STATIC_DATA_END) + pages(1, 2)
    reader = StreamReader(io.BytesIO(stream[:-1]))
    with pytest.raises(StreamError, match="inside the pages of PAGE_DATA: 8191 of 8192") as caught:
        list(reader)
    assert caught.value.offset == len(stream) - 1


def test_a_file_that_grows_is_read_on(tmp_path: Path) -> None:
    stream = hvm_stream(BIG)
    path = tmp_path / "stream"
    path.write_bytes(stream[:100])
    with StreamReader(path) as reader:
        path.write_bytes(stream)
        assert contents(reader) == EXPECTED


def test_rewinding_goes_back_to_the_start_of_the_stream() -> None:
    file = io.BytesIO(b"before" + hvm_stream())
    file.seek(6)
    source = ByteSource(file)
    first = list(StreamReader(source))
    source.rewind()
    assert list(StreamReader(source)) == first
