# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig.restore`` of PV guests: what a stream that is wrong about one raises."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from typing import TYPE_CHECKING, Literal

import pytest

import xenmig
from xenmig.sim import Host, Pv

if TYPE_CHECKING:
    from collections.abc import Iterator

Width = Literal[32, 64]

#: Length of the two headers in bytes, X86_PV_P2M_FRAMES and PAGE_DATA, and the bits of a word that is a hole.
HEADERS, P2M_FRAMES, PAGE_DATA, HOLE = 40, 3, 1, 0xF << 60


def stream_of(host: Host, pv: Pv | None) -> bytes:
    """Saves a guest of 64 MiB."""
    guest = host.create(memory="64M", pv=pv)
    with tempfile.TemporaryFile() as file:
        xenmig.save(guest.domid, file, host=host, live=False)
        return os.pread(file.fileno(), file.tell(), 0)


def restored(host: Host, stream: bytes, pv: Pv | None) -> xenmig.RestoreResult:
    """Restores a stream into a new domain of 64 MiB."""
    copy = host.create(memory="64M", pv=pv, populated=False)
    with tempfile.TemporaryFile() as file:
        file.write(stream)
        file.seek(0)
        return xenmig.restore(copy.domid, file, host=host)


def records(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields type, offset and length of the body of each record."""
    file = io.BytesIO(stream)
    file.seek(HEADERS)
    while header := file.read(8):
        kind, length = struct.unpack("<II", header)
        yield kind, file.tell() - 8, length
        file.seek(-length % 8 + length, os.SEEK_CUR)


@pytest.mark.parametrize("width", [32, 64])
def test_store_and_console_are_frames_of_the_host(width: Width) -> None:
    host = Host()
    pv = Pv(width=width)
    stream = stream_of(host, pv)
    first, second = restored(host, stream, pv), restored(host, stream, pv)
    frames = [first.store_gfn, first.console_gfn, second.store_gfn, second.console_gfn]
    assert None not in frames
    assert len(set(frames)) == len(frames), "two domains, and four pages of theirs"


@pytest.mark.parametrize(("saved", "target"), [(Pv(), None), (None, Pv())], ids=["PV", "HVM"])
def test_kinds_of_stream_and_domain_must_agree(saved: Pv | None, target: Pv | None) -> None:
    host = Host()
    stream = stream_of(host, saved)
    with pytest.raises(
        xenmig.DomainRefused, match=r"the stream is of an? .* guest, and the domain is an? .* one"
    ):
        restored(host, stream, target)


def test_a_page_table_that_leads_nowhere_is_found_where_it_is() -> None:
    host = Host()
    stream = bytearray(stream_of(host, Pv()))
    kind, start, _ = next(record for record in records(bytes(stream)) if record[0] == PAGE_DATA)
    count = struct.unpack_from("<I", stream, start + 8)[0]
    words = struct.unpack_from(f"<{count}Q", stream, start + 16)
    table = next(number for number, word in enumerate(words) if word >> 60 & 7 == 1 and word < HOLE)
    contents = start + 16 + 8 * count + 4096 * table
    struct.pack_into("<Q", stream, contents + 8 * 100, 0xFFFFF << 12 | 1)
    with pytest.raises(
        xenmig.StreamError, match=r"entry 100 of the L1 page table at pfn .*, to pfn 0xfffff"
    ) as caught:
        restored(host, bytes(stream), Pv())
    assert (kind, caught.value.offset) == (PAGE_DATA, start)


def test_a_page_that_the_state_names_must_be_there() -> None:
    host = Host()
    stream = bytearray(stream_of(host, Pv()))
    _, start, _ = next(record for record in records(bytes(stream)) if record[0] == P2M_FRAMES)
    struct.pack_into("<Q", stream, start + 16, 0x123456)
    with pytest.raises(
        xenmig.StreamError, match="page 0 of the p2m is said to be pfn 0x123456, which the guest"
    ):
        restored(host, bytes(stream), Pv())


def test_a_domain_that_gets_too_little() -> None:
    host = Host()
    guest = host.create(memory="65M", pv=Pv())
    copy = host.create(memory="64M", pv=Pv(), populated=False)
    with tempfile.TemporaryFile() as file:
        xenmig.save(guest.domid, file, host=host, live=False)
        file.seek(0)
        with pytest.raises(xenmig.HypercallError, match=r"got .* of .* pages") as caught:
            xenmig.restore(copy.domid, file, host=host)
    assert caught.value.op == "populate_physmap"
