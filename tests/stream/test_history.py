# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered about pages, against Python's own sets and dictionaries."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from tests.stream.make_stream import END, NOTAB, XTAB, Entry, headers, page, page_data, record

from xenmig.stream import PageData, StreamReader
from xenmig.stream.history import PageDigests, PfnSet

# Neighbours, both sides of a block's edge, and the ends of the range.
pfns = st.one_of(
    st.integers(0, 20),
    st.integers(4080, 4110),
    st.integers(120, 135),
    st.integers(2040, 2070),
    st.integers(8190, 8195),
    st.integers(0, (1 << 52) - 1),
)


@given(st.lists(st.lists(pfns)))
def test_pfn_set(batches: list[list[int]]) -> None:
    found = PfnSet()
    for batch in batches:
        found.update(batch)
    assert len(found) == len({pfn for batch in batches for pfn in batch})


@given(st.lists(st.lists(st.tuples(pfns, st.integers(0, 2)), min_size=1)), pfns)
def test_page_digests(batches: list[list[tuple[int, int]]], other: int) -> None:
    digests, model = PageDigests(), {}
    stream = headers()
    for batch in batches:
        entries: list[Entry] = []
        for pfn, seed in batch:
            model[pfn] = seed
            entries.append((pfn, NOTAB, page(seed)) if seed else (pfn, XTAB, None))
        stream += page_data(entries)
    for item in StreamReader(io.BytesIO(stream + record(END))):
        if isinstance(item, PageData):
            digests.update(item)
    assert len(digests) == sum(seed != 0 for seed in model.values())
    for pfn in (*model, other):
        seed = model.get(pfn, 0)
        assert digests.has(pfn) == (seed != 0)
        assert digests.matches(pfn, memoryview(page(1))) == (seed == 1)
        assert digests.matches(pfn, memoryview(page(2))) == (seed == 2)
