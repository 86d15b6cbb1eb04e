# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams that are cut off, damaged or made to hurt: a ``StreamError``, quickly, and little memory."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stream.make_stream import (
    CPUID_POLICY,
    DIRTY_PFN_LIST,
    END,
    HVM_CONTEXT,
    HVM_PARAMS,
    NOTAB,
    P2M_FRAMES,
    PAGE_DATA,
    STATIC_DATA_END,
    VERIFY,
    XALLOC,
    XTAB,
    Domain,
    headers,
    hvm_stream,
    page,
    page_data,
    pages,
    pv_stream,
    record,
)

from xenmig.errors import StreamError
from xenmig.stream import StreamReader, check_stream, load_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenmig.stream import StreamFile

MIB = 1 << 20

SMALL = Domain(
    batches=[[(1, NOTAB, page(1)), (2, XTAB, None)], [(1, NOTAB, page(3))]],
    verify=[[(1, NOTAB, page(3)), (2, XTAB, None)]],
)
STREAMS = {"hvm": hvm_stream(SMALL), "pv": pv_stream(SMALL), "hvm v2": hvm_stream(SMALL, version=2)}


class OneWay(io.BytesIO):
    """A file that cannot seek, as a pipe."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_the_streams_are_good_as_long_as_nobody_touches_them(stream: bytes) -> None:
    assert check_stream(io.BytesIO(stream)).stream_bytes == len(stream)
    assert load_memory(io.BytesIO(stream)).memory == {1: page(3)}


@pytest.mark.parametrize("file", [io.BytesIO, OneWay])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_cut_off_at_every_byte(stream: bytes, file: type[io.BytesIO]) -> None:
    # Inside a page one place is like the other: only its edges are tried.
    edges = [*range(300), *range(len(stream) - 300, len(stream))]
    edges += [at for at in range(len(stream)) if at % 4096 < 24 or at % 4096 > 4072]
    for at in edges:
        with pytest.raises(StreamError, match="the stream ends inside") as caught:
            check_stream(file(stream[:at]))
        assert caught.value.offset == at
    with pytest.raises(StreamError, match="before any END record"):
        check_stream(file(stream[:-8]))


def test_bytes_after_end() -> None:
    stream = hvm_stream()
    with pytest.raises(StreamError, match="follow the END record") as caught:
        check_stream(io.BytesIO(stream + b"\0"))
    assert caught.value.offset == len(stream)


def read_any(data: bytes) -> None:
    """Reads bytes in all ways; only a ``StreamError`` may come out, with an offset inside."""
    for read in (check_stream, load_memory, lambda file: list(StreamReader(file))):
        offset = offset_of_error(read, io.BytesIO(data))
        assert offset == offset_of_error(read, OneWay(data))
        assert offset is None or 0 <= offset <= len(data)


def offset_of_error(read: Callable[[io.BytesIO], object], file: io.BytesIO) -> int | None:
    try:
        read(file)
    except StreamError as error:
        # An error without an offset must not look like none.
        return -1 if error.offset is None or not str(error) else error.offset
    return None


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_damage(name: str, data: st.DataObject) -> None:
    stream = bytearray(STREAMS[name])
    places = st.one_of(st.integers(0, 200), st.integers(0, len(stream) - 1), st.integers(-400, -1))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(places)
        stream[at] = data.draw(st.one_of(st.integers(0, 255), st.just(stream[at] ^ 1 << 7)))
    read_any(bytes(stream))


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_pieces_taken_out_repeated_and_swapped(name: str, data: st.DataObject) -> None:
    stream = STREAMS[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream) // 8), min_size=2, max_size=6)))
    edges = [0, *(8 * cut for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    order = data.draw(st.lists(st.sampled_from(range(len(pieces))), max_size=8))
    read_any(b"".join(pieces[index] for index in order))


@given(st.lists(st.tuples(st.integers(0, 0x13) | st.just(0x80000000), st.binary(max_size=64))))
def test_records_of_random_bytes(records: list[tuple[int, bytes]]) -> None:
    read_any(headers() + b"".join(record(number, body) for number, body in records))


def peak_of(file: StreamFile) -> int:
    """Returns the most bytes allocated while a stream is read, whatever comes out."""
    tracemalloc.start()
    try:
        with suppress(StreamError):
            check_stream(file)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LONG = [PAGE_DATA, P2M_FRAMES, HVM_CONTEXT, HVM_PARAMS, CPUID_POLICY, DIRTY_PFN_LIST, 1 << 31]


@pytest.mark.parametrize("number", LONG)
def test_a_length_that_lies_allocates_nothing(number: int, tmp_path: Path) -> None:
    count = (128 * MIB - 8) // 8
    body = struct.pack("<II", count, 0) + bytes(1000)
    stream = headers() + record(STATIC_DATA_END) + struct.pack("<II", number, 128 * MIB) + body
    assert peak_of(io.BytesIO(stream)) < MIB
    assert peak_of(OneWay(stream)) < MIB
    # An unbuffered file allocates what it is asked for before it looks at what is there.
    path = tmp_path / "stream"
    path.write_bytes(stream)
    assert peak_of(path) < MIB


def test_pages_pass_through_in_chunks() -> None:
    batch = pages(*range(4096))
    stream = headers() + record(STATIC_DATA_END) + batch
    assert len(batch) > 16 * MIB
    assert peak_of(io.BytesIO(stream)) < 2 * MIB


@pytest.mark.parametrize("kind", [XTAB, XALLOC])
def test_wild_pfns_without_contents_cost_no_more_than_their_words(kind: int) -> None:
    batch = page_data([(pfn << 30, kind, None) for pfn in range(1 << 16)])
    stream = headers() + record(STATIC_DATA_END) + batch
    assert peak_of(OneWay(stream)) < 4 * len(batch)


def test_wild_pfns_with_contents_cost_less_than_their_pages() -> None:
    batch = page_data([(pfn << 30, NOTAB, bytes(4096)) for pfn in range(2000)])
    stream = headers() + record(STATIC_DATA_END) + batch + record(VERIFY)
    assert peak_of(OneWay(stream)) < len(batch)


def test_many_optional_types_cost_nothing() -> None:
    records = b"".join(record(1 << 31 | number) for number in range(20_000))
    assert peak_of(io.BytesIO(headers() + records)) < MIB


def test_the_longest_body_is_taken_and_a_longer_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    for length, text in (
        (128 * MIB, "before any END record: 0 of 8"),
        (128 * MIB + 1, "expected at most 134217728"),
    ):
        path.write_bytes(headers() + struct.pack("<II", 1 << 31, length))
        os.truncate(path, 48 + length)
        with StreamReader(path) as reader, pytest.raises(StreamError, match=text):
            list(reader)


def test_no_end_is_reported_as_such() -> None:
    with pytest.raises(StreamError, match="a record header, before any END record: 0 of 8 bytes"):
        list(StreamReader(io.BytesIO(headers())))
    assert list(StreamReader(io.BytesIO(headers() + record(END))))
