# SPDX-License-Identifier: GPL-3.0-or-later
"""The pfn words of a PAGE_DATA record: which pfns, of which types.

The words stay bytes, as they came: a record can hold 16 million of them. All checks are operations on
columns of bytes, a few calls for all words of a record.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import compress, islice, starmap
from operator import lt
from typing import TYPE_CHECKING, NamedTuple, overload

from xenmig.errors import StreamError
from xenmig.stream.format import PAGE_TYPE_SHIFT, PFN_MASK, RESERVED_PFN_BITS, PageType
from xenmig.stream.pfn_run import LEAST_WORDS

if TYPE_CHECKING:
    from xenmig.stream.pfn_run import PfnRuns

__all__ = ["PFN_WORD_BYTES", "PageWord", "PageWords"]

PFN_WORD_BYTES = 8

_WORD = struct.Struct("<Q")
_TYPES = {int(kind): kind for kind in PageType}
# What a word's top byte says, and the byte below it.
_TO_TYPE = bytes(top >> 4 for top in range(256))
_KNOWN_TOPS = bytes(top for top in range(256) if top >> 4 in _TYPES)
_HAS_CONTENTS = bytes(top >> 4 in _TYPES and _TYPES[top >> 4].has_contents for top in range(256))
_LOW_CLEAR = bytes(byte for byte in range(256) if not byte & 0x0F)
_HIGH_CLEAR = bytes(byte for byte in range(256) if not byte & 0xF0)
_LOW_BITS = bytes(byte & 0x0F for byte in range(256))

# pfns that are looked at together for one that occurs twice: the more, the more memory.
_SET_PFNS = 1 << 14


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

    __slots__ = ("_data", "_pfns", "counts", "pages")

    def __init__(self, data: bytes, offset: int, runs: PfnRuns) -> None:
        """Takes the words as little-endian bytes, at least one word; ``offset`` is the first one's.

        Raises:
            StreamError: A word's page type is reserved.
        """
        self._data = data
        self._pfns: Sequence[int] | None = None
        count = len(data) // PFN_WORD_BYTES
        (first,) = _WORD.unpack_from(data)
        if count >= LEAST_WORDS and not first & RESERVED_PFN_BITS and runs.has(first, data):
            self._pfns = range(first & PFN_MASK, (first & PFN_MASK) + count)
            kind = _TYPES.get(first >> PAGE_TYPE_SHIFT)
            if kind is None:
                raise self._unknown(0, offset)
            self.counts = {kind: count}
            self.pages = count if kind.has_contents else 0
            return
        tops = data[7::PFN_WORD_BYTES]
        if unknown := tops.translate(None, _KNOWN_TOPS):
            raise self._unknown(tops.find(unknown[:1]), offset)
        types = tops.translate(_TO_TYPE)
        counted = {kind: types.count(number) for number, kind in _TYPES.items()}
        self.counts = {kind: count for kind, count in counted.items() if count}
        self.pages = sum(count for kind, count in self.counts.items() if kind.has_contents)

    def __len__(self) -> int:
        """Returns the number of words, the record's *count*."""
        return len(self._data) // PFN_WORD_BYTES

    @overload
    def __getitem__(self, index: int) -> PageWord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PageWord]: ...
    def __getitem__(self, index: int | slice) -> PageWord | Sequence[PageWord]:
        """Returns one word, or some."""
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(len(self))))
        (word,) = _WORD.unpack_from(self._data, range(len(self))[index] * PFN_WORD_BYTES)
        return _split(word)

    def __iter__(self) -> Iterator[PageWord]:
        """Goes through the words in the stream's order."""
        return starmap(_split, _WORD.iter_unpack(self._data))

    def __eq__(self, other: object) -> bool:
        """Says whether the same words, reserved bits included, stand in the same order."""
        return isinstance(other, PageWords) and self._data == other._data

    def __hash__(self) -> int:
        """Returns a hash of the words."""
        return hash(self._data)

    def __repr__(self) -> str:
        """Says how many there are."""
        return f"<{len(self)} pfns, {self.pages} pages>"

    @property
    def lowest(self) -> int:
        """The lowest pfn."""
        pfns = self.pfns()
        return pfns[0] if isinstance(pfns, range) else min(pfns)

    @property
    def highest(self) -> int:
        """The highest pfn."""
        pfns = self._pfns if self._pfns is not None else self.pfns()
        return pfns[-1] if type(pfns) is range else max(pfns)

    def pfns(self) -> Sequence[int]:
        """Returns all pfns in the stream's order."""
        if self._pfns is None:
            data = bytearray(self._data)
            data[7::PFN_WORD_BYTES] = bytes(len(self))
            data[6::PFN_WORD_BYTES] = data[6::PFN_WORD_BYTES].translate(_LOW_BITS)
            pfns = array("Q")
            pfns.frombytes(data)
            if sys.byteorder == "big":
                pfns.byteswap()
            self._pfns = pfns
        return self._pfns

    def pfns_with_contents(self) -> Iterator[int]:
        """Goes through the pfns that have a page in the record, in the order of the pages."""
        if self.pages == len(self):
            return iter(self.pfns())
        if not self.pages:
            return iter(())
        return compress(self.pfns(), self._data[7::PFN_WORD_BYTES].translate(_HAS_CONTENTS))

    def repeated_pfn(self) -> int | None:
        """Returns a pfn that occurs more than once, if there is one."""
        pfns = self._pfns if self._pfns is not None else self.pfns()
        # Savers walk upwards, so there is rarely anything to search.
        if type(pfns) is range or all(map(lt, pfns, islice(pfns, 1, None))):
            return None
        if len(pfns) <= _SET_PFNS:
            return _repeated(pfns)
        # A set of all of them would take ten times the memory of the record: one part after the other.
        parts = [array("Q") for _ in range(len(pfns) // _SET_PFNS + 1)]
        for pfn in pfns:
            # A pfn's hash is the pfn itself, and those of a hostile stream could all be of one part.
            parts[hash((_SALT, pfn)) % len(parts)].append(pfn)
        return next((found for part in parts if (found := _repeated(part)) is not None), None)

    def first_with_reserved_bits(self) -> int | None:
        """Returns the index of the first word with a reserved bit set, if there is one."""
        if isinstance(self._pfns, range):
            return None
        high = self._data[7::PFN_WORD_BYTES].translate(None, _LOW_CLEAR)
        low = self._data[6::PFN_WORD_BYTES].translate(None, _HIGH_CLEAR)
        if not high and not low:
            return None
        words = _WORD.iter_unpack(self._data)
        return next(index for index, (word,) in enumerate(words) if word & RESERVED_PFN_BITS)

    def _unknown(self, index: int, offset: int) -> StreamError:
        """Says that the word at `index` is of no known type."""
        (word,) = _WORD.unpack_from(self._data, PFN_WORD_BYTES * index)
        message = f"unknown page type {word >> PAGE_TYPE_SHIFT:#x} of pfn {word & PFN_MASK:#x}"
        return StreamError(message, offset=offset + PFN_WORD_BYTES * index)


_SALT = object()


def _repeated(pfns: Sequence[int]) -> int | None:
    """Returns the first pfn that has occurred before; None if all differ."""
    if len(set(pfns)) == len(pfns):
        return None
    seen: set[int] = set()
    return next(pfn for pfn in pfns if pfn in seen or seen.add(pfn))  # type: ignore[func-returns-value]


def _split(word: int) -> PageWord:
    """Takes a word apart."""
    return PageWord(word & PFN_MASK, _TYPES[word >> PAGE_TYPE_SHIFT])
