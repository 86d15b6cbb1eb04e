# SPDX-License-Identifier: GPL-3.0-or-later
"""PAGE_DATA: the pfn words, which are read at once, and the page contents, which are read when asked for.

The words stay packed (9 octets each): a record can hold 16 million of them. The contents come from the
stream in chunks, so that a record of any length costs one chunk of memory.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, overload

from xenmig.errors import StreamError
from xenmig.stream.format import (
    PAGE_BYTES,
    PAGE_TYPE_SHIFT,
    PFN_MASK,
    RECORD_HEADER_BYTES,
    RESERVED_PFN_BITS,
    PageType,
    RecordType,
)
from xenmig.stream.records import Record
from xenmig.stream.source import CHUNK_BYTES

if TYPE_CHECKING:
    from xenmig.stream.remarks import Remarks
    from xenmig.stream.source import ByteSource

PAGE_DATA_HEADER_BYTES = 8
PFN_WORD_BYTES = 8

_KNOWN = frozenset(int(kind) for kind in PageType)
# Work on the words' top octets, one C call for all words of a record instead of one Python step a word.
_TO_TYPE = bytes(top >> 4 for top in range(256))
_KNOWN_TOPS = bytes(top for top in range(256) if top >> 4 in _KNOWN)
# Octets whose bits 3-0 or 7-4 are clear: in a word's top octet and the one below, those bits are reserved.
_LOW_CLEAR = bytes(octet for octet in range(256) if not octet & 0x0F)
_HIGH_CLEAR = bytes(octet for octet in range(256) if not octet & 0xF0)
_TOPS_WITH_CONTENTS = frozenset(top for top in _KNOWN_TOPS if PageType(top >> 4).has_contents)


class PageWord(NamedTuple):
    """One pfn and its type."""

    pfn: int
    type: PageType


class PageWords(Sequence[PageWord]):
    """The pfn words of one PAGE_DATA record.

    Attributes:
        counts: Words of each page type that occurs.
        pages: Words whose type has contents, so the pages that follow the words.
    """

    __slots__ = ("_reserved", "_tops", "_words", "counts", "pages")

    def __init__(self, octets: Iterator[bytes], offset: int) -> None:
        """Takes the words as little-endian octets, in parts of whole words; ``offset`` is the first one's.

        Raises:
            StreamError: A word's page type is none.
        """
        self._words = array("Q")
        tops = bytearray()
        self._reserved = False
        for part in octets:
            self._words.frombytes(part)
            top = part[7::PFN_WORD_BYTES]
            tops += top
            below = part[6::PFN_WORD_BYTES]
            self._reserved |= bool(top.translate(None, _LOW_CLEAR) or below.translate(None, _HIGH_CLEAR))
        if sys.byteorder == "big":
            self._words.byteswap()
        self._tops = bytes(tops)
        if unknown := self._tops.translate(None, _KNOWN_TOPS):
            index = self._tops.find(unknown[:1])
            message = f"unknown page type {unknown[0] >> 4:#x} of pfn {self._words[index] & PFN_MASK:#x}"
            raise StreamError(message, offset=offset + PFN_WORD_BYTES * index)
        types = self._tops.translate(_TO_TYPE)
        counted = {kind: types.count(int(kind)) for kind in PageType}
        self.counts = {kind: count for kind, count in counted.items() if count}
        self.pages = sum(count for kind, count in self.counts.items() if kind.has_contents)

    def __len__(self) -> int:
        """Returns the number of words, the record's *count*."""
        return len(self._words)

    @overload
    def __getitem__(self, index: int) -> PageWord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PageWord]: ...
    def __getitem__(self, index: int | slice) -> PageWord | Sequence[PageWord]:
        """Returns one word, or some."""
        if isinstance(index, slice):
            return tuple(_split(word) for word in self._words[index])
        return _split(self._words[index])

    def __iter__(self) -> Iterator[PageWord]:
        """Goes through the words in the stream's order."""
        return map(_split, self._words)

    def __eq__(self, other: object) -> bool:
        """Says whether the same words, reserved bits included, stand in the same order."""
        return isinstance(other, PageWords) and self._words == other._words

    def __hash__(self) -> int:
        """Returns a hash of the words."""
        return hash(self._words.tobytes())

    def __repr__(self) -> str:
        """Says how many there are."""
        return f"<{len(self)} pfns, {self.pages} pages>"

    def pfns(self) -> Iterator[int]:
        """Goes through all pfns in the stream's order."""
        return (word & PFN_MASK for word in self._words)

    def pfns_with_contents(self) -> Iterator[int]:
        """Goes through the pfns that have a page in the record, in the order of the pages."""
        if self.pages == len(self):
            return self.pfns()
        return (
            word & PFN_MASK
            for word, top in zip(self._words, self._tops, strict=True)
            if top in _TOPS_WITH_CONTENTS
        )

    def first_with_reserved_bits(self) -> int | None:
        """Returns the index of the first word with a reserved bit set, if there is one."""
        if not self._reserved:
            return None
        return next((index for index, word in enumerate(self._words) if word & RESERVED_PFN_BITS), None)


class PageContents:
    """The pages of one PAGE_DATA record, still in the stream.

    They can be read once, and only until the reader is asked for the next record.

    Attributes:
        offset: Where the first page starts, in octets from the start of the stream.
        end: Where the last page ends.
    """

    __slots__ = ("_source", "end", "offset")

    def __init__(self, source: ByteSource, pages: int) -> None:
        """Takes the source, which stands at the first page."""
        self._source = source
        self.offset = source.offset
        self.end = source.offset + pages * PAGE_BYTES

    def __iter__(self) -> Iterator[memoryview]:
        """Reads the pages one after the other, each as a read-only view that stays valid.

        Raises:
            StreamError: The stream ends before.
            ValueError: They were read already, or the reader has gone on.
        """
        position = self.offset
        while position < self.end:
            self._stand_at(position)
            chunk = memoryview(
                self._source.read(min(CHUNK_BYTES, self.end - position), "the pages of PAGE_DATA")
            )
            position += len(chunk)
            for start in range(0, len(chunk), PAGE_BYTES):
                yield chunk[start : start + PAGE_BYTES]

    def drop(self) -> None:
        """Reads what is left of the pages and forgets it, so that an error of the file shows."""
        self._source.drop(self._left(), "the pages of PAGE_DATA")

    def skip(self) -> None:
        """Passes over what is left of the pages: by a seek where the file can."""
        self._source.skip(self._left(), "the pages of PAGE_DATA")

    def _left(self) -> int:
        """Returns how many octets of the pages are still in the stream."""
        if not self.offset <= self._source.offset <= self.end:
            self._stand_at(self.offset)
        return self.end - self._source.offset

    def _stand_at(self, position: int) -> None:
        """Refuses if the source is elsewhere."""
        if self._source.offset != position:
            message = "the pages of a PAGE_DATA record can be read once, before the next record is asked for"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class PageData(Record):
    """PAGE_DATA: types of some pfns and the contents of those that have any.

    Attributes:
        words: The pfns and their types.
        contents: The pages, in the order of ``words.pfns_with_contents()``.
    """

    type: ClassVar[RecordType] = RecordType.PAGE_DATA

    words: PageWords
    contents: PageContents = field(repr=False, compare=False)

    def pages(self) -> Iterator[tuple[int, memoryview]]:
        """Reads the pages: (pfn, contents) of each.

        Raises:
            StreamError: The stream ends before.
            ValueError: They were read already, or the reader has gone on.
        """
        return zip(self.words.pfns_with_contents(), self.contents, strict=True)


def read_page_data(source: ByteSource, offset: int, body_length: int, remarks: Remarks) -> PageData:
    """Reads the words of the PAGE_DATA record at ``offset``; the source stands at its body.

    Raises:
        StreamError: The lengths contradict each other, a page type is none, or the stream ends before.
    """
    if body_length < PAGE_DATA_HEADER_BYTES + PFN_WORD_BYTES:
        message = f"PAGE_DATA has {body_length} octets, expected at least one pfn: 16 octets"
        raise StreamError(message, offset=offset)
    count, reserved = struct.unpack("<II", source.read(PAGE_DATA_HEADER_BYTES, "the head of PAGE_DATA"))
    if reserved:
        remarks.add(
            offset + RECORD_HEADER_BYTES + 4, f"the reserved field of PAGE_DATA is not zero: {reserved:#x}"
        )
    words_bytes = count * PFN_WORD_BYTES
    if not count or PAGE_DATA_HEADER_BYTES + words_bytes > body_length:
        fit = (body_length - PAGE_DATA_HEADER_BYTES) // PFN_WORD_BYTES
        message = f"PAGE_DATA counts {count} pfns, expected 1 to {fit} in a body of {body_length} octets"
        raise StreamError(message, offset=offset + RECORD_HEADER_BYTES)
    first = source.offset
    parts = (
        source.read(min(CHUNK_BYTES, words_bytes - start), "the pfns of PAGE_DATA")
        for start in range(0, words_bytes, CHUNK_BYTES)
    )
    words = PageWords(parts, first)
    expected = PAGE_DATA_HEADER_BYTES + words_bytes + words.pages * PAGE_BYTES
    if body_length != expected:
        message = (
            f"PAGE_DATA of {count} pfns and {words.pages} pages has {body_length} octets, expected {expected}"
        )
        raise StreamError(message, offset=offset)
    if (index := words.first_with_reserved_bits()) is not None:
        pfn = words[index].pfn
        remarks.add(first + PFN_WORD_BYTES * index, f"reserved bits are set in the word of pfn {pfn:#x}")
    return PageData(offset, body_length, words, PageContents(source, words.pages))


def _split(word: int) -> PageWord:
    """Takes a word apart."""
    return PageWord(word & PFN_MASK, PageType(word >> PAGE_TYPE_SHIFT))
