# SPDX-License-Identifier: GPL-3.0-or-later
"""libxc and xenmig save equal domains: their streams are equal, byte for byte.

As in all these tests, Xen's own verifier checks every stream that xenmig writes to a file.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.parity.compare import explain
from tests.parity.engine import MODULES
from tests.parity.pair import save_alike
from tests.parity.protocol import DomainSpec, SaveOptions, Step
from tests.parity.shapes import BUSY, MODES, MORE_SHAPES, SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import EngineName, Moment, Pfns

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

ALL_SHAPES = SHAPES | MORE_SHAPES
modes = pytest.mark.parametrize("options", MODES.values(), ids=MODES)

#: Pages of the domains whose guests are varied: two batches, and a part of one that ends within a word.
PAGES = 2100
FAR = 70_000
#: Domains of that many pages.
GROUNDS = {
    "RAM": DomainSpec(memory_pages=PAGES),
    "holes": DomainSpec(memory_pages=PAGES, holes=[(3, 60), (500, 1050), *range(1200, 1300, 3), PAGES - 1]),
    "far page": DomainSpec(memory_pages=PAGES, highest_pfn=FAR),
}
ALL, LAST = (0, PAGES), PAGES - 1


def cleans(*writes: Sequence[Pfns]) -> list[Step]:
    """A guest that writes these pages before the first CLEAN, those before the second, and so on."""
    return [Step("before_clean", n, write=pages) for n, pages in enumerate(writes)]


def each(when: Moment, calls: int, pages: Sequence[Pfns]) -> list[Step]:
    """A guest that writes the same pages at each of the first calls of a kind."""
    return [Step(when, n, write=pages) for n in range(calls)]


#: What guests do. The default policy stops below 50 dirty pages, or after five rounds.
GUESTS = {
    "nothing": [],
    "one page": cleans([7]),
    "49 pages": cleans([(100, 149)]),
    "50 pages": cleans([(100, 150)]),
    "51 pages": cleans([(100, 151)]),
    "50, then 49": cleans([(0, 50)], [(60, 109)]),
    "50 each round": cleans(*[[(n, n + 50)] for n in range(6)]),
    "51 each round, at the end": cleans(*[[(PAGES - 51, PAGES)]] * 6),
    "everything once": cleans([ALL]),
    "everything each round": [*cleans(*[[ALL]] * 6), Step("at_suspend", write=[ALL])],
    "the last page each round": [Step("before_clean", n, write=[(0, 50), LAST, FAR]) for n in range(6)],
    "first and last": cleans([0, LAST, FAR]),
    "first and last at suspend": [Step("at_suspend", write=[0, LAST, FAR])],
    "every other page": cleans(list(range(0, PAGES, 2)), list(range(1, PAGES, 2))),
    "ends of words": cleans([pfn for word in range(0, PAGES, 64) for pfn in (word, word + 63)] * 2),
    "one page of a word": cleans(list(range(17, PAGES, 64)), list(range(18, PAGES, 32))),
    "a batch in the middle": cleans([(700, 1724)]),
    "a batch and one": cleans([(700, 1725)]),
    "less and less": cleans([(0, 1000)], [(0, 500)], [(0, 250)], [(0, 125)], [(0, 60)]),
    "more and more": cleans([(0, 60)], [(0, 120)], [(0, 300)], [(0, 2000)], [ALL]),
    "busy later": cleans([(0, 50)], [], [ALL], [ALL]),
    "before types are queried": each("before_types", 12, [(0, 30), (1000, 1040), LAST]),
    "between types and mapping": each("before_map", 12, [(10, 45), (1010, 1035), LAST]),
    "between mapping and reading": each("after_map", 12, [(20, 75), LAST]),
    "pages given back": [Step("before_clean", 0, write=[(0, 90)], balloon_out=[(30, 60), (1024, 2048)])],
    "pages given back and got again": [
        Step("before_clean", 0, write=[(0, 90)], balloon_out=[(0, 900)]),
        Step("before_clean", 1, write=[(1000, 1100)], balloon_in=[(0, 450)]),
        Step("at_suspend", balloon_in=[(450, 900)], write=[899]),
    ],
    "pages given back at suspend": [Step("at_suspend", write=[(0, 9)], balloon_out=[5, LAST])],
}


@modes
@pytest.mark.parametrize("shape", ALL_SHAPES.values(), ids=ALL_SHAPES)
def test_shapes(*, xen: Worker, tmp_path: Path, options: SaveOptions, shape: DomainSpec) -> None:
    save_alike(xen, replace(shape, steps=BUSY), tmp_path, options)


@pytest.mark.parametrize(
    "options", [SaveOptions(policy="none"), SaveOptions(debug=True)], ids=["live", "live, debug"]
)
@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("steps", GUESTS.values(), ids=GUESTS)
def test_guests(
    *,
    xen: Worker,
    tmp_path: Path,
    options: SaveOptions,
    ground: DomainSpec,
    steps: list[Step],
) -> None:
    libxc, xenmig = save_alike(xen, replace(ground, steps=steps), tmp_path, options)
    assert xen.state(xenmig.domid) == xen.state(libxc.domid) | {"domid": xenmig.domid}


@pytest.mark.parametrize(
    "pages",
    [1, 2, 49, 50, 51, 63, 64, 65, 127, 128, 129, 1022, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 4097],
)
def test_sizes(xen: Worker, tmp_path: Path, pages: int) -> None:
    steps = [*cleans(*[[(pages // 2, pages)]] * 3), Step("at_suspend", write=[pages - 1])]
    spec = DomainSpec(memory_pages=pages, xen_mapped_pages=min(pages, 2), steps=steps)
    save_alike(xen, spec, tmp_path, SaveOptions(policy="none"))


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_a_guest_that_is_suspended_already(xen: Worker, tmp_path: Path, options: SaveOptions) -> None:
    streams = []
    for engine in MODULES:
        domid, stream = xen.create(GROUNDS["holes"]), tmp_path / engine
        xen.suspend(domid)
        # The callback has nothing to do.
        saved = xen.save(engine, domid, stream, replace(options, suspend="lies"))
        assert not saved.failed, saved.messages
        assert xen.state(domid)["state"] == "shutdown"
        streams.append(stream)
    assert explain(*streams) is None


@pytest.mark.parametrize("first", MODULES)
def test_a_guest_that_was_saved_before(xen: Worker, tmp_path: Path, first: EngineName) -> None:
    streams = []
    for engine in MODULES:
        steps = cleans([(0, 100)], [], [(0, 200)], [(5, 99)], [(90, 91)])
        domid, stream = xen.create(replace(GROUNDS["holes"], steps=steps)), tmp_path / engine
        assert not xen.save(first, domid, tmp_path / "first").failed
        xen.resume(domid)
        assert not xen.save(engine, domid, stream).failed
        streams.append(stream)
    assert explain(*streams) is None


def test_a_difference_is_explained(xen: Worker, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    domid = xen.create(DomainSpec(memory_pages=1100, holes=[(3, 7)]))
    assert not xen.save("libxc", domid, one, SaveOptions(live=False)).failed
    stream = one.read_bytes()
    assert explain(one, one) is None

    def explained(offset: int) -> str:
        other.write_bytes(stream[:offset] + bytes([stream[offset] ^ 1]) + stream[offset + 1 :])
        return explain(one, other) or ""

    assert "byte 5 of pfn 0x12c" in explained(stream.index(xen.read_page(domid, 300)) + 5)
    assert "byte 4095 of pfn 0x44b" in explained(stream.index(xen.read_page(domid, 1099)) + 4095)
    assert "word 9 of 1024" in explained(stream.index(struct.pack("<4Q", 0, 1, 2, 0xF << 60 | 3)) + 9 * 8)
    other.write_bytes(stream[:-1])
    assert "(END, 0 bytes" in (explain(one, other) or "")
    assert "nothing more" in (explain(one, other) or "")
