# SPDX-License-Identifier: GPL-3.0-or-later
"""PAGE_DATA: the pfn words, which are read at once, and the page contents, which are read when asked for.

The contents come from the stream in chunks, so that a record of any length costs one chunk of memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from xenmig.errors import StreamError
from xenmig.stream.format import PAGE_BYTES, RECORD_HEADER_BYTES, RecordType
from xenmig.stream.page_words import PFN_WORD_BYTES, PageWords
from xenmig.stream.records import Record
from xenmig.stream.source import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenmig.stream.pfn_run import PfnRuns
    from xenmig.stream.remarks import Remarks
    from xenmig.stream.source import ByteSource

PAGE_DATA_HEADER_BYTES = 8
_HEAD = struct.Struct("<II")


class PageContents:
    """The pages of one PAGE_DATA record, still in the stream.

    They can be read once, and only until the reader is asked for the next record.

    Attributes:
        offset: Where the first page starts, in bytes from the start of the stream.
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
        """Returns how many bytes of the pages are still in the stream."""
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


def read_page_data(
    source: ByteSource, offset: int, body_length: int, remarks: Remarks, runs: PfnRuns
) -> PageData:
    """Reads the words of the PAGE_DATA record at ``offset``; the source stands at its body.

    Raises:
        StreamError: The lengths contradict each other, a page type is none, or the stream ends before.
    """
    if body_length < PAGE_DATA_HEADER_BYTES + PFN_WORD_BYTES:
        message = f"PAGE_DATA has {body_length} bytes, expected at least one pfn: 16 bytes"
        raise StreamError(message, offset=offset)
    count, reserved = _HEAD.unpack(source.read(PAGE_DATA_HEADER_BYTES, "the head of PAGE_DATA"))
    if reserved:
        remarks.add(
            offset + RECORD_HEADER_BYTES + 4, f"the reserved field of PAGE_DATA is not zero: {reserved:#x}"
        )
    words_bytes = count * PFN_WORD_BYTES
    if not count or PAGE_DATA_HEADER_BYTES + words_bytes > body_length:
        fit = (body_length - PAGE_DATA_HEADER_BYTES) // PFN_WORD_BYTES
        message = f"PAGE_DATA counts {count} pfns, expected 1 to {fit} in a body of {body_length} bytes"
        raise StreamError(message, offset=offset + RECORD_HEADER_BYTES)
    first = source.offset
    words = PageWords(source.read(words_bytes, "the pfns of PAGE_DATA"), first, runs)
    expected = PAGE_DATA_HEADER_BYTES + words_bytes + words.pages * PAGE_BYTES
    if body_length != expected:
        message = (
            f"PAGE_DATA of {count} pfns and {words.pages} pages has {body_length} bytes, expected {expected}"
        )
        raise StreamError(message, offset=offset)
    if (index := words.first_with_reserved_bits()) is not None:
        pfn = words[index].pfn
        remarks.add(first + PFN_WORD_BYTES * index, f"reserved bits are set in the word of pfn {pfn:#x}")
    return PageData(offset, body_length, words, PageContents(source, words.pages))
