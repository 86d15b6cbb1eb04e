# SPDX-License-Identifier: GPL-3.0-or-later
"""Two streams of one domain, record by record, as the reader of :mod:`xenmig.stream` sees them.

Of a domain that did not change between the two saves all is equal, byte for byte, but for the clocks, which
go on in a suspended domain. They are in X86_TSC_INFO and in parts of HVM_CONTEXT, and told apart here.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from xenmig.stream import PAGE_BYTES, HvmContext, PageData, Record, StreamReader, X86TscInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Comparison", "compare"]

# Each part of the context: a type, an instance, a length (struct hvm_save_descriptor of public/hvm/save.h).
_DESCRIPTOR = struct.Struct("<HHI")


class ContextPart(NamedTuple):
    """A part of an HVM context.

    Attributes:
        type: Its type, as ``DECLARE_HVM_SAVE_TYPE`` of ``public/arch-x86/hvm/save.h`` numbers it.
        instance: Which of several, mostly the vCPU.
        contents: Its bytes.
    """

    type: int
    instance: int
    contents: bytes


class Comparison(NamedTuple):
    """What two streams had in common.

    Attributes:
        records: The types of the records, in order, a run of PAGE_DATA as one.
        pages: Pages whose contents were compared.
        pfns: Words of PAGE_DATA that were compared.
        differences: What differs, in words; empty if they are equal byte for byte.
        context_differences: Types of HVM context parts that differ, with the offsets of the bytes that do.
    """

    records: list[str]
    pages: int
    pfns: int
    differences: list[str]
    context_differences: dict[int, list[int]]


def compare(first: Path, second: Path) -> Comparison:
    """Compares two streams.

    Raises:
        StreamError: One of them is malformed.
    """
    records: list[str] = []
    differences: list[str] = []
    context_differences: dict[int, list[int]] = {}
    pages = pfns = 0
    with StreamReader(first) as one, StreamReader(second) as two:
        if (one.image_header, one.domain_header) != (two.image_header, two.domain_header):
            differences.append("the headers differ")
        for left, right in zip_longest(one, two):
            if left is None or right is None or type(left) is not type(right):
                differences.append(f"{_name(left)} against {_name(right)} at {_place(left, right)}")
                break
            if records[-1:] != [left.type_name]:
                records.append(left.type_name)
            if isinstance(left, PageData) and isinstance(right, PageData):
                pfns += len(left.words)
                pages += left.words.pages
                if left.words != right.words:
                    differences.append(f"the pfns or types differ in the PAGE_DATA at {_place(left, right)}")
                else:
                    differences += _page_differences(left, _contents(first, left), _contents(second, right))
            elif isinstance(left, HvmContext) and isinstance(right, HvmContext):
                context_differences = _context_differences(left.data, right.data)
            elif _stopped(left) != _stopped(right):
                differences.append(f"{_name(left)} differs at {_place(left, right)}")
        if one.remarks.first != two.remarks.first:
            differences.append(f"odd are {one.remarks.first} and {two.remarks.first}")
    return Comparison(records, pages, pfns, differences, context_differences)


def _stopped(record: Record) -> Record:
    """Returns a record without the clock that is in it, if one is."""
    return replace(record, elapsed_ns=0) if isinstance(record, X86TscInfo) else record


def _contents(stream: Path, record: PageData) -> bytes:
    """Returns the pages of a record, all at once: page by page it takes ten times as long."""
    with stream.open("rb") as file:
        file.seek(record.contents.offset)
        return file.read(record.contents.end - record.contents.offset)


def _page_differences(record: PageData, left: bytes, right: bytes) -> Iterator[str]:
    if left == right:
        return
    for number, pfn in enumerate(record.words.pfns_with_contents()):
        start = number * PAGE_BYTES
        one, two = (pages[start : start + PAGE_BYTES] for pages in (left, right))
        if one != two:
            at = next(index for index, (a, b) in enumerate(zip_longest(one, two)) if a != b)
            yield f"pfn {pfn:#x} differs at byte {at}"


def _context_differences(left: bytes, right: bytes) -> dict[int, list[int]]:
    """Returns for each type of part that differs the offsets of the bytes that do; -1 if its length does."""
    found: dict[int, list[int]] = {}
    for one, two in zip_longest(_parts(left), _parts(right)):
        if one is None or two is None or one[:2] != two[:2] or len(one.contents) != len(two.contents):
            part = one or two
            assert part is not None
            found.setdefault(part.type, []).append(-1)
        elif one.contents != two.contents:
            offsets = [at for at, (a, b) in enumerate(zip(one.contents, two.contents, strict=True)) if a != b]
            found[one.type] = sorted({*found.get(one.type, []), *offsets})
    return found


def _parts(context: bytes) -> Iterator[ContextPart]:
    at = 0
    while at < len(context):
        kind, instance, length = _DESCRIPTOR.unpack_from(context, at)
        at += _DESCRIPTOR.size
        yield ContextPart(kind, instance, context[at : at + length])
        at += length


def _name(record: Record | None) -> str:
    return "nothing" if record is None else record.type_name


def _place(left: Record | None, right: Record | None) -> str:
    return " and ".join(f"{record.offset:#x}" for record in (left, right) if record is not None)
