# SPDX-License-Identifier: GPL-3.0-or-later
"""What is odd in a stream but no reason to refuse it.

Reserved fields and padding are zero in a good stream, and a receiver has to ignore them: the reader
says so here and goes on. ``xenmig verify`` shows the list as warnings.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remark:
    """One oddity.

    Attributes:
        offset: Where it is, in bytes from the start of the stream.
        text: What it is.
    """

    offset: int
    text: str


class Remarks:
    """The oddities of one stream, in the order of their offsets.

    A hostile stream can hold millions, so only the first ``KEPT`` are kept; all are counted.
    """

    KEPT = 64

    def __init__(self) -> None:
        """Starts with none."""
        self._first: list[Remark] = []
        self._count = 0

    def add(self, offset: int, text: str) -> None:
        """Notes one at ``offset`` bytes from the start of the stream."""
        self._count += 1
        if len(self._first) < self.KEPT:
            self._first.append(Remark(offset, text))

    @property
    def first(self) -> tuple[Remark, ...]:
        """The first of them, at most ``KEPT``."""
        return tuple(self._first)

    @property
    def count(self) -> int:
        """How many there were."""
        return self._count
