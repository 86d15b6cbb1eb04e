# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered about pages that went by: which pfns had contents, and what the contents were.

Both grow with the pages that were really in the stream, in small blocks, so that a stream with a few
wild pfns costs little.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

from xenmig.stream.format import PAGE_BYTES, PageType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenmig.stream.pages import PageData

_ZERO_PAGE = memoryview(bytes(PAGE_BYTES))
DIGEST_BYTES = 16
"""Length of ``page_digest``."""


def page_digest(contents: bytes | memoryview) -> bytes:
    """Returns what stands for a page where its contents would be too much: BLAKE2b, 16 bytes."""
    return blake2b(contents, digest_size=DIGEST_BYTES).digest()


class PfnSet:
    """A set of pfns: one bit each, in blocks of 4096 pfns."""

    def __init__(self) -> None:
        """Starts empty."""
        self._blocks: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        """Returns the number of pfns."""
        return self._count

    def update(self, pfns: Iterable[int]) -> None:
        """Adds pfns."""
        blocks = self._blocks
        for pfn in pfns:
            block = blocks.get(pfn >> 12)
            if block is None:
                block = blocks[pfn >> 12] = bytearray(512)
            index = (pfn >> 3) & 511
            bit = 1 << (pfn & 7)
            if not block[index] & bit:
                block[index] |= bit
                self._count += 1


class PageDigests:
    """The last contents of each pfn as 64 bits, in blocks of 128 pfns.

    64 bits are enough to notice damage; they do not protect against a deliberate collision.
    """

    _NONE = 0

    def __init__(self) -> None:
        """Starts without any page."""
        self._blocks: dict[int, array[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Returns the number of pfns that have contents now."""
        return self._count

    def update(self, record: PageData) -> None:
        """Reads a record's pages and remembers them.

        A page that is only allocated is a page of zeros, a hole is forgotten, and a broken page stays what
        it was.
        """
        pages = iter(record.contents)
        if record.words.pages == len(record.words):
            for pfn, contents in zip(record.words.pfns(), pages, strict=True):
                self._put(pfn, contents)
        else:
            # Word by word: the same pfn may occur twice, and then the order counts.
            for pfn, kind in record.words:
                if kind.has_contents:
                    self._put(pfn, next(pages))
                elif kind is PageType.XALLOC:
                    self._put(pfn, _ZERO_PAGE)
                elif kind is PageType.XTAB:
                    self.forget(pfn)

    def has(self, pfn: int) -> bool:
        """Says whether the page has contents."""
        block = self._blocks.get(pfn >> 7)
        return block is not None and block[pfn & 127] != self._NONE

    def forget(self, pfn: int) -> None:
        """Forgets the contents of a page, if it has any."""
        if self.has(pfn):
            self._blocks[pfn >> 7][pfn & 127] = self._NONE
            self._count -= 1

    def matches(self, pfn: int, contents: memoryview) -> bool:
        """Says whether a page has these contents."""
        block = self._blocks.get(pfn >> 7)
        return block is not None and block[pfn & 127] == self._digest(contents)

    def _put(self, pfn: int, contents: memoryview) -> None:
        """Remembers the contents of a page."""
        block = self._blocks.get(pfn >> 7)
        if block is None:
            block = self._blocks[pfn >> 7] = array("Q", bytes(8 * 128))
        self._count += block[pfn & 127] == self._NONE
        block[pfn & 127] = self._digest(contents)

    @staticmethod
    def _digest(contents: memoryview) -> int:
        """Returns 64 bits that are never ``_NONE``."""
        return int.from_bytes(blake2b(contents, digest_size=8).digest(), "little") or 1
