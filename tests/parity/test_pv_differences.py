# SPDX-License-Identifier: GPL-3.0-or-later
"""Where xenmig does otherwise than libxc on purpose with PV guests; see ``test_differences.py``, of which
most is about these, too.

What fakexen cannot show: an update of a page table that the processor has done half when the other half is
read (here an update is in two steps, but each is done or not), and a p2m that moves, since the simulated
guest only says that it did.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.parity.client import WorkerDiedError
from tests.parity.compare import explain, page_words, records
from tests.parity.engine import MODULES
from tests.parity.pair import save_both
from tests.parity.protocol import PvSpec, SaveOptions, Step
from tests.parity.pv_shapes import FORMS, PAGES, TABLE_PFNS, busy, cleans, does, empty, shape, with_steps
from tests.parity.test_save import END

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.pair import Saved
    from tests.parity.protocol import DomainSpec, PvMap

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

LIVE, NON_LIVE = SaveOptions(), SaveOptions(live=False)
modes = pytest.mark.parametrize("options", [LIVE, NON_LIVE], ids=["live", "non-live"])
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
#: Types of pages: BROKEN, XALLOC, XTAB.
BROKEN, XALLOC, XTAB = 0xD, 0xE, 0xF
#: X86_PV_P2M_FRAMES.
P2M_FRAMES = 0x3


def assert_refused(saved: Saved, why: str) -> None:
    """Asserts that xenmig refused to send a guest that was suspended already, and let it run again."""
    assert (saved.outcome.error, saved.outcome.guest_state) == ("DomainRefused", "resumed")
    assert why in saved.outcome.messages[0]
    assert saved.state is not None
    assert (saved.state["state"], saved.state["logdirty_on"]) == ("running", False)
    assert not saved.stream.read_bytes().endswith(END)


def restored(
    xen: Worker, spec: DomainSpec, saved: Saved, options: SaveOptions
) -> tuple[list[int], str | None]:
    """Restores a stream by libxc. Returns at which pfns the guest differs from its source, and what is
    wrong."""
    xen.reset()
    source, target = xen.create(spec), xen.create(empty(spec))
    assert not xen.save("libxc", source, saved.stream.with_name("again"), options).failed
    assert not xen.restore("libxc", target, saved.stream).failed
    return xen.differing(source, target, 100), xen.pv_state(target)["unsound"]


@modes
@forms
def test_a_page_table_that_a_suspended_guest_has_torn(
    *, xen: Worker, tmp_path: Path, options: SaveOptions, form: PvSpec
) -> None:
    """No guest that can be migrated has an entry that leads to a frame of others when it is suspended. libxc
    asks for *paused*, which a suspended domain is not, takes it for an update that will be completed, and
    sends the table as a page that is not there.
    """

    def torn(pages: PvMap) -> list[Step]:
        return [does({"tear": pages["data"][3]})]

    spec = with_steps(xen, shape(form), torn)
    libxc, xenmig = save_both(xen, spec, tmp_path, options)
    assert not libxc.outcome.failed
    assert_refused(xenmig, "which is none of the guest's")
    lost, _ = restored(xen, spec, libxc, options)
    assert len(lost) == 1, "a page table"


@pytest.mark.parametrize("width", [8, 4])
def test_the_end_of_a_list_that_begins_in_the_middle_of_a_table(
    xen: Worker, tmp_path: Path, width: int
) -> None:
    """Where entries of the L2 table are all the same at the end, the p2m is shorter than the guest says.
    libxc takes a list for such a one if it begins at another slot than 0 and needs more than one entry: it
    compares an index that counts from the first of them with one that counts from slot 0. It loses the memory
    that the last entry is for.
    """
    far = TABLE_PFNS * (8 // width) + 77
    spec = shape(PvSpec(width=width, first_slot=3), 1024, highest_pfn=far)
    libxc, xenmig = save_both(xen, spec, tmp_path, NON_LIVE)
    assert (libxc.outcome.failed, xenmig.outcome.failed) == (False, False)
    last = [
        struct.unpack_from("<II", record.body)[1]
        for saved in (libxc, xenmig)
        for record in records(saved.stream.read_bytes())
        if record.kind == P2M_FRAMES
    ]
    assert last == [far - 78, far]
    lost, unsound = restored(xen, spec, libxc, NON_LIVE)
    assert far in lost
    assert unsound is not None
    assert restored(xen, spec, xenmig, NON_LIVE) == ([], None)


@pytest.mark.parametrize("width", [8, 4])
def test_a_p2m_that_moves_during_a_save_that_is_not_live(xen: Worker, tmp_path: Path, width: int) -> None:
    """The p2m is found while the guest still runs, so it may have moved when the guest is suspended. libxc
    looks at its generation in a live save alone.
    """
    spec = shape(PvSpec(width=width), steps=[does("bump_generation")])
    libxc, xenmig = save_both(xen, spec, tmp_path, NON_LIVE)
    assert not libxc.outcome.failed
    assert_refused(xenmig, "p2m_generation changed")


@pytest.mark.parametrize("width", [8, 4])
def test_a_p2m_that_moves_during_a_live_save(xen: Worker, tmp_path: Path, width: int) -> None:
    """No difference, but that xenmig looks at it before the final pass, and not behind it."""
    spec = shape(PvSpec(width=width), steps=[Step("before_types", 1, pv=["bump_generation"])])
    libxc, xenmig = save_both(xen, spec, tmp_path, LIVE)
    assert (libxc.outcome.failed, xenmig.outcome.failed) == (True, True)
    assert xenmig.outcome.guest_state == "running"
    assert explain(libxc.stream, xenmig.stream) is None
    spec = replace(spec, steps=[does("bump_generation")])
    libxc, xenmig = save_both(xen, spec, tmp_path, LIVE)
    assert libxc.outcome.failed
    assert_refused(xenmig, "p2m_generation changed")


@modes
@forms
def test_a_p2m_that_grows(*, xen: Worker, tmp_path: Path, options: SaveOptions, form: PvSpec) -> None:
    """Pages behind the end that the p2m had when the save began are in no bitmap: libxc loses them, xenmig
    fails and lets the guest go on. It fails also if there is none yet.
    """

    def grows(pages: PvMap) -> list[Step]:
        # A guest has no more pages than it began with.
        return [Step("at_suspend", balloon_out=pages["data"][:9], pv=[{"grow_p2m": 100}])]

    spec = with_steps(xen, shape(form), grows)
    libxc, xenmig = save_both(xen, spec, tmp_path, options)
    assert not libxc.outcome.failed
    assert_refused(xenmig, f"grew from {PAGES} to {PAGES + 100} pages")
    if options.live:
        # It takes the pages that it has announced.
        spec = with_steps(
            xen,
            shape(form),
            lambda pages: [
                *cleans(
                    Step(
                        "at_suspend",
                        write=pages["data"][:60],
                        balloon_out=pages["data"][90:99],
                        pv=[{"grow_p2m": 100}],
                    )
                ),
                Step("at_suspend", balloon_in=[(PAGES, PAGES + 9)]),
            ],
        )
        libxc, xenmig = save_both(xen, spec, tmp_path, options)
        assert not libxc.outcome.failed
        assert_refused(xenmig, "grew")
        lost, unsound = restored(xen, spec, libxc, options)
        assert set(range(PAGES, PAGES + 9)) <= set(lost)
        assert unsound is not None


@forms
def test_a_page_that_the_guest_gave_back_is_taken_from_the_copy(
    xen: Worker, tmp_path: Path, form: PvSpec
) -> None:
    """As of an HVM guest. Here libxc also enters the page that it has left into the guest's p2m."""
    spec, stream = with_steps(xen, shape(form), busy), tmp_path / "stream"
    xen.reset()
    source = xen.create(spec)
    assert not xen.save("xenmig", source, stream).failed
    gone = PAGES - xen.state(source)["populated_pages"]
    assert gone > 0
    populated = []
    for engine in MODULES:
        target = xen.create(empty(spec))
        assert not xen.restore(engine, target, stream).failed
        populated.append(xen.state(target)["populated_pages"])
        xen.resume(target)
        assert xen.pv_state(target)["unsound"] is None
    assert populated == [PAGES, PAGES - gone]


def test_pages_that_never_come(xen: Worker, tmp_path: Path) -> None:
    """Page tables refer to pages without contents in the stream. libxc leaves what it finds in the memory
    that Xen gives, which could be another guest's; xenmig makes it zeros.
    """
    types = [(2000, BROKEN), (2001, XALLOC)]
    spec, stream = shape(PvSpec(), types=types), tmp_path / "stream"
    assert not xen.save("libxc", xen.create(spec), stream).failed
    targets = []
    for engine in MODULES:
        targets.append(xen.create(empty(spec)))
        assert not xen.restore(engine, targets[-1], stream).failed
    assert xen.differing(*targets) == [pfn for pfn, _ in types]
    zeros = bytes(4096)
    assert [xen.read_page(targets[1], pfn) for pfn, _ in types] == [zeros, zeros]
    assert zeros not in [xen.read_page(targets[0], pfn) for pfn, _ in types]


def test_a_page_that_goes_away_before_it_is_mapped(xen: Worker, tmp_path: Path) -> None:
    """As of an HVM guest: libxc fails, for xenmig it is a hole, and owed to the final pass."""

    def goes(pages: PvMap) -> list[Step]:
        # The shared info page and those of the p2m, its page tables among them, are mapped before.
        first = 1 + 4 + 1
        assert pages["data"][:40][-1] < 1024, "they are in the first batch"
        return [
            Step("before_map", first, balloon_out=pages["data"][10:40]),
            Step("at_suspend", balloon_in=pages["data"][20:40]),
        ]

    spec = with_steps(xen, shape(PvSpec()), goes)
    libxc, xenmig = save_both(xen, spec, tmp_path, LIVE)
    assert (libxc.outcome.failed, xenmig.outcome.failed) == (True, False)
    target = xen.create(empty(spec))
    assert not xen.restore("xenmig", target, xenmig.stream).failed
    assert xen.differing(xenmig.domid, target) == []


@pytest.mark.parametrize("kind", ["set_address_size", "setvcpucontext", "setvcpuextstate", "settscinfo"])
def test_a_restore_makes_busy_calls_again(xen: Worker, tmp_path: Path, kind: str) -> None:
    """As for an HVM guest. libxc gives up."""
    spec, stream = shape(PvSpec(width=4), vcpus=2), tmp_path / "stream"
    source = xen.create(spec)
    assert not xen.save("libxc", source, stream).failed
    targets = xen.create(empty(spec)), xen.create(empty(spec))
    for target in targets:
        xen.inject(fault="errno", kind=kind, domid=target, times=3, errno=errno.EBUSY)
    assert xen.restore("libxc", targets[0], stream).failed
    outcome = xen.restore("xenmig", targets[1], stream)
    assert not outcome.failed, outcome.messages
    assert xen.differing(source, targets[1]) == []


def test_an_entry_beyond_the_end_of_the_p2m(xen: Worker, tmp_path: Path) -> None:
    """A stream with a page table that refers to a page which the guest cannot have: xenmig refuses it, and
    says where it is. In libxc an assertion fails, which ends the process.
    """
    spec, stream = shape(PvSpec(), 600), tmp_path / "stream"
    source = xen.create(spec)
    table = next(pfn for pfn, kind in xen.pv_map(source)["tables"] if kind & 7 == 1)
    assert not xen.save("xenmig", source, stream, NON_LIVE).failed
    contents = bytearray(stream.read_bytes())
    batch = next(record for record in records(bytes(contents)) if record.kind == 1)
    words = page_words(batch.body)
    place = batch.start + 8 + 8 + 8 * len(words) + 4096 * table
    assert all(word >> 60 == 0 or word >> 60 < BROKEN for word in words), "all pages have contents"
    contents[place : place + 8] = (600 << 12 | 0x67).to_bytes(8, "little")
    stream.write_bytes(contents)
    refused = xen.restore("xenmig", xen.create(empty(spec)), stream)
    assert refused.error == "StreamError"
    assert f"{table:#x}" in refused.messages[0]
    with pytest.raises(WorkerDiedError):
        xen.restore("libxc", xen.create(empty(spec)), stream)
