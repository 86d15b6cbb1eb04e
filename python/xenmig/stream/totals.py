# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts over a whole stream: records, bytes, pages by type, pages sent more than once.

Fed record by record by the two commands, shown by them as text or JSON.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from xenmig.stream.format import PAGE_BYTES, PageType
from xenmig.stream.history import PfnSet
from xenmig.stream.pages import PageData
from xenmig.stream.records import OptionalRecord, Record, Verify

_PAGE_DATA = PageData.type.name


class Totals:
    """What was read of a stream.

    Attributes:
        records: Records of each type, by the type's name; all optional ones are one type.
        body_bytes: Bytes in their bodies, without headers and padding, by the type's name.
        pages_by_type: pfn words of each page type, those after VERIFY left out.
        distinct_pages: Different pfns that had contents at least once.
        verify_pages: Pages with contents after VERIFY.
    """

    def __init__(self) -> None:
        """Starts with nothing."""
        self.records: Counter[str] = Counter()
        self.body_bytes: Counter[str] = Counter()
        self.pages_by_type: Counter[PageType] = Counter()
        self.verify_pages = 0
        self._sent = PfnSet()
        self._verifying = False

    def add(self, record: Record) -> None:
        """Counts a record."""
        if isinstance(record, PageData):
            self._add_pages(record)
            return
        # A hostile stream can have two thousand million optional types.
        name = "optional" if isinstance(record, OptionalRecord) else record.type_name
        self.records[name] += 1
        self.body_bytes[name] += record.body_length
        if isinstance(record, Verify):
            self._verifying = True

    def _add_pages(self, record: PageData) -> None:
        """Counts a PAGE_DATA record, of which there are many."""
        self.records[_PAGE_DATA] += 1
        self.body_bytes[_PAGE_DATA] += record.body_length
        words = record.words
        if self._verifying:
            self.verify_pages += words.pages
            return
        for kind, count in words.counts.items():
            self.pages_by_type[kind] += count
        if words.pages:
            self._sent.update(words.pfns_with_contents())

    @property
    def pages(self) -> int:
        """Pages with contents before VERIFY, each counted as often as it was sent."""
        return sum(count for kind, count in self.pages_by_type.items() if kind.has_contents)

    @property
    def page_bytes(self) -> int:
        """Bytes in these pages."""
        return self.pages * PAGE_BYTES

    @property
    def distinct_pages(self) -> int:
        """Different pfns among these pages."""
        return len(self._sent)

    @property
    def resent_pages(self) -> int:
        """Pages among these whose pfn had been sent before."""
        return self.pages - self.distinct_pages

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it in JSON's types; page types by name."""
        return {
            "records": sum(self.records.values()),
            "records_by_type": dict(self.records),
            "body_bytes_by_type": dict(self.body_bytes),
            "pages": self.pages,
            "page_bytes": self.page_bytes,
            "pages_by_type": {kind.name: count for kind, count in sorted(self.pages_by_type.items())},
            "distinct_pages": self.distinct_pages,
            "resent_pages": self.resent_pages,
            "verify_pages": self.verify_pages,
        }
