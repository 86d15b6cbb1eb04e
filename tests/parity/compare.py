# SPDX-License-Identifier: GPL-3.0-or-later
"""Two streams of equal domains, byte for byte: where they part, in which record, and at what in it.

Knows just enough of the format for that, and nothing of either engine: an image header of 24 bytes, a domain
header of 16, records of a type, a length and a body padded to 8 bytes (libxc-migration-stream).
"""

from __future__ import annotations

import struct
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE_HEADER_BYTES, DOMAIN_HEADER_BYTES, RECORD_HEADER_BYTES = 24, 16, 8
PAGE_BYTES, PFN_BITS = 4096, 52
#: Types of pages that are sent without their contents: BROKEN, XALLOC, XTAB.
WITHOUT_DATA = {0xD, 0xE, 0xF}
PAGE_DATA = 1
NAMES = {
    0x0: "END",
    PAGE_DATA: "PAGE_DATA",
    0x2: "X86_PV_INFO",
    0x3: "X86_PV_P2M_FRAMES",
    0x4: "X86_PV_VCPU_BASIC",
    0x5: "X86_PV_VCPU_EXTENDED",
    0x6: "X86_PV_VCPU_XSAVE",
    0x7: "SHARED_INFO",
    0x8: "X86_TSC_INFO",
    0x9: "HVM_CONTEXT",
    0xA: "HVM_PARAMS",
    0xC: "X86_PV_VCPU_MSRS",
    0xD: "VERIFY",
    0x10: "STATIC_DATA_END",
    0x11: "X86_CPUID_POLICY",
    0x12: "X86_MSR_POLICY",
}


class Record(NamedTuple):
    """A record of a stream; the headers in front of them count as one."""

    number: int
    kind: int | None
    start: int
    body: bytes

    @property
    def end(self) -> int:
        """Where the next one begins."""
        header = 0 if self.kind is None else RECORD_HEADER_BYTES
        return self.start + header + (len(self.body) + 7 & ~7)

    def __str__(self) -> str:
        name = "headers" if self.kind is None else NAMES.get(self.kind, f"type {self.kind:#x}")
        return f"record {self.number} ({name}, {len(self.body)} bytes, at {self.start:#x})"

    def place(self, offset: int) -> str:
        """Names what is at an offset of the stream within this record."""
        at = offset - self.start - RECORD_HEADER_BYTES
        if self.kind is None or at < 0:
            return "its header"
        if self.kind != PAGE_DATA or at < 8:
            return f"byte {at} of its body"
        words = page_words(self.body)
        if at < 8 + 8 * len(words):
            return f"word {(at - 8) // 8} of {len(words)}"
        sent = [word & (1 << PFN_BITS) - 1 for word in words if word >> 60 not in WITHOUT_DATA]
        page, byte = divmod(at - 8 - 8 * len(words), PAGE_BYTES)
        return f"byte {byte} of pfn {sent[page]:#x}" if page < len(sent) else "after its pages"


def page_words(body: bytes) -> tuple[int, ...]:
    """Returns the words of a PAGE_DATA record: a type in the highest 4 bits, a pfn in the lowest 52."""
    words: tuple[int, ...] = struct.unpack_from(f"<{struct.unpack_from('<I', body)[0]}Q", body, 8)
    return words


def records(stream: bytes) -> Iterator[Record]:
    """Takes a stream apart, up to its end or the first error."""
    at = IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES
    yield Record(0, None, 0, stream[:at])
    for number in count(1):
        if at + RECORD_HEADER_BYTES > len(stream):
            return
        kind, length = struct.unpack_from("<II", stream, at)
        body = stream[at + RECORD_HEADER_BYTES : at + RECORD_HEADER_BYTES + length]
        record = Record(number, kind, at, body)
        yield record
        at = record.end


def first_difference(one: bytes, other: bytes) -> int | None:
    """Returns the first offset at which two byte strings differ; ``None`` if they are equal."""
    if one == other:
        return None
    low, high = 0, min(len(one), len(other))
    # The longest front that both have: what is equal up to the middle is equal before it.
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def explain(one: Path, other: Path) -> str | None:
    """Says where two streams part; ``None`` if they are equal."""
    streams = [one.read_bytes(), other.read_bytes()]
    offset = first_difference(*streams)
    if offset is None:
        return None
    lines = [f"the streams part at offset {offset:#x}:"]
    for path, stream in zip((one, other), streams, strict=True):
        found = [record for record in records(stream) if record.start <= offset]
        here = found[-1]
        shown = stream[offset : offset + 8].hex(" ") if offset < len(stream) else "nothing more"
        lines.append(f"  {path.name}, {len(stream)} bytes: {here}, {here.place(offset)}: {shown}")
    return "\n".join(lines)
