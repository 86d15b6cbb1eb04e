# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of PAGE_DATA against a model that looks at each word."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from xenmig.stream import PageType, PageWords
from xenmig.stream.pfn_run import LEAST_WORDS, PfnRuns

MASK = (1 << 52) - 1
KINDS = [int(kind) for kind in PageType]

runs = st.tuples(
    st.sampled_from([0, 1, 0xFF, 0xFFC0, 0xFFFF, 0x10000, 0xFFFFFF, (1 << 40) - 70, MASK - 200]),
    st.integers(1, 3 * LEAST_WORDS),
    st.sampled_from(KINDS),
)


@st.composite
def words(draw: st.DrawFn) -> list[int]:
    """Runs of pfns of one type, and now and then a word that is changed."""
    found = [kind << 60 | pfn for first, count, kind in draw(st.lists(runs, min_size=1, max_size=3))
             for pfn in range(first, first + count)]  # fmt: skip
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(found) - 1))
        found[at] = draw(st.sampled_from(KINDS)) << 60 | draw(st.integers(0, (1 << 60) - 1))
    return found


#: One table for all examples, as one reader has for all records: it is moved to and fro.
TABLE = PfnRuns()


@given(words())
def test_words(found: list[int]) -> None:
    page_words = PageWords(struct.pack(f"<{len(found)}Q", *found), 0, TABLE)
    pfns = [word & MASK for word in found]
    kinds = [PageType(word >> 60) for word in found]
    with_contents = [pfn for pfn, kind in zip(pfns, kinds, strict=True) if kind.has_contents]
    assert list(page_words.pfns()) == pfns
    assert list(page_words) == list(zip(pfns, kinds, strict=True))
    assert list(page_words.pfns_with_contents()) == with_contents
    assert page_words.pages == len(with_contents)
    assert page_words.counts == {kind: kinds.count(kind) for kind in PageType if kind in kinds}
    assert (page_words.lowest, page_words.highest) == (min(pfns), max(pfns))
    repeated = page_words.repeated_pfn()
    assert (repeated is not None) == (len(set(pfns)) < len(pfns))
    assert repeated is None or pfns.count(repeated) > 1
    reserved = [at for at, word in enumerate(found) if word >> 52 & 0xFF]
    assert page_words.first_with_reserved_bits() == (reserved[0] if reserved else None)


def test_a_run_is_recognised_without_a_step_for_each_word() -> None:
    for kind in (PageType.XTAB, PageType.NOTAB):
        for first in (0, 0x12345678, (1 << 40) - 2048):
            data = struct.pack("<1024Q", *(kind << 60 | pfn for pfn in range(first, first + 1024)))
            assert isinstance(PageWords(data, 0, TABLE).pfns(), range)


def test_a_pfn_that_is_twice_among_very_many() -> None:
    pfns = [(at * 7919) % (1 << 17) for at in range(1 << 16)]
    data = struct.pack(f"<{len(pfns)}Q", *pfns)
    assert PageWords(data, 0, TABLE).repeated_pfn() is None
    pfns[60_000] = pfns[5]
    assert PageWords(struct.pack(f"<{len(pfns)}Q", *pfns), 0, TABLE).repeated_pfn() == pfns[5]
