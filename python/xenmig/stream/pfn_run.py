# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognises pfn words that follow each other by one comparison of bytes, not a Python step for each word.

A p2m has holes of millions of pfns, which arrive as PAGE_DATA records of consecutive words of one type.
Each of them is a slice of a table of 65536 consecutive words. Going to the next table changes one byte of
each word, which is one assignment to a slice.
"""

from __future__ import annotations

import struct

__all__ = ["LEAST_WORDS", "PfnRuns"]

LEAST_WORDS = 64
"""Shorter records are not worth a table."""

_WORD_BYTES = 8
_WORD = struct.Struct("<Q")
_TABLE_BITS = 16
_TABLE_WORDS = 1 << _TABLE_BITS
_TABLE_MASK = _TABLE_WORDS - 1


class PfnRuns:
    """A table of consecutive words, half a megabyte.

    It is made when it is first needed, and moved as the words go up.
    """

    __slots__ = ("_above", "_table")

    def __init__(self) -> None:
        """Starts without a table."""
        self._above = -1
        self._table = bytearray()

    def has(self, first: int, data: bytes) -> bool:
        """Says whether `data` is `first` and the words after it, as little-endian words of 64 bits.

        Words that cross a boundary of the table are not recognised.
        """
        if _WORD.unpack_from(data, len(data) - _WORD_BYTES)[0] - first != len(data) // _WORD_BYTES - 1:
            return False
        above = first >> _TABLE_BITS
        if above != self._above:
            self._move(above)
        return self._table.startswith(data, (first & _TABLE_MASK) * _WORD_BYTES)

    def _move(self, above: int) -> None:
        """Makes the table one of the words whose upper 48 bits are `above`."""
        if not self._table:
            self._table = bytearray(_TABLE_WORDS * _WORD_BYTES)
            self._table[0::_WORD_BYTES] = bytes(range(256)) * 256
            self._table[1::_WORD_BYTES] = b"".join(bytes((byte,)) * 256 for byte in range(256))
            self._above = 0
        changed = above ^ self._above
        for column in range(2, _WORD_BYTES):
            shift = 8 * (column - 2)
            if changed >> shift & 0xFF:
                self._table[column::_WORD_BYTES] = bytes((above >> shift & 0xFF,)) * _TABLE_WORDS
        self._above = above
