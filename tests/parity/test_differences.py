# SPDX-License-Identifier: GPL-3.0-or-later
"""Where xenmig does otherwise than libxc on purpose: what each does, and that xenmig's way is right.

Each test says why.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from tests.parity.compare import explain, records
from tests.parity.engine import MODULES
from tests.parity.pair import save_both
from tests.parity.protocol import DomainSpec, RestoreOptions, SaveOptions, Step
from tests.parity.test_save import END

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import Pfns

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

PAGES = 2500
BUSY = [Step("before_clean", 0, write=[(0, 100)])]
SPEC = DomainSpec(memory_pages=PAGES, steps=BUSY)
EMPTY = DomainSpec(memory_pages=PAGES, populated=False)
NON_LIVE = SaveOptions(live=False)
#: The pages of some batches of a live save: three of the first round, and one of the second, by number.
BATCHES = {0: range(1024), 2: range(2048, PAGES), 3: range(100)}


def assert_restores(xen: Worker, source: int, stream: Path) -> None:
    """Asserts that a stream is right and that libxc makes the saved domain of it."""
    target = xen.create(EMPTY)
    restored = xen.restore("libxc", target, stream)
    assert not restored.failed, restored.messages
    assert xen.differing(source, target) == []


@pytest.mark.parametrize("kind", ["shadow_clean", "shadow_clean_final"])
def test_a_clean_that_is_busy_is_made_again(xen: Worker, tmp_path: Path, kind: str) -> None:
    """EBUSY means that Xen was interrupted in it, and that nothing was lost. libxc gives up."""
    xen.inject(fault="errno", kind=kind, times=3, errno=errno.EBUSY)
    libxc = xen.save("libxc", xen.create(SPEC), tmp_path / "libxc")
    assert (libxc.failed, libxc.errno) == (True, errno.EBUSY)
    xen.clear_faults()
    undisturbed = xen.create(SPEC)
    assert not xen.save("libxc", undisturbed, tmp_path / "undisturbed").failed
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind=kind, times=3, errno=errno.EBUSY)
    assert not xen.save("xenmig", domid, tmp_path / "xenmig").failed
    assert xen.counters(domid)["calls"][kind] == xen.counters(undisturbed)["calls"][kind] + 3
    assert explain(tmp_path / "undisturbed", tmp_path / "xenmig") is None
    assert_restores(xen, domid, tmp_path / "xenmig")


def test_a_clean_that_stays_busy_fails_in_the_end(xen: Worker, tmp_path: Path) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind="shadow_clean", times=10_000, errno=errno.EBUSY)
    saved = xen.save("xenmig", domid, tmp_path / "stream")
    assert (saved.error, saved.errno, saved.guest_state) == ("HypercallError", errno.EBUSY, "running")
    assert 100 < xen.counters(domid)["calls"]["shadow_clean"] < 10_000


@pytest.mark.parametrize("kind", ["set_cpu_policy", "settscinfo", "hvm_set_param", "sethvmcontext"])
def test_a_restore_makes_busy_calls_again(xen: Worker, tmp_path: Path, kind: str) -> None:
    """As for CLEAN. libxc gives up."""
    source, stream = xen.create(SPEC), tmp_path / "stream"
    assert not xen.save("libxc", source, stream).failed
    targets = xen.create(EMPTY), xen.create(EMPTY)
    for target in targets:
        xen.inject(fault="errno", kind=kind, domid=target, times=3, errno=errno.EBUSY)
    libxc = xen.restore("libxc", targets[0], stream)
    assert (libxc.failed, libxc.errno) == (True, errno.EBUSY)
    xenmig = xen.restore("xenmig", targets[1], stream)
    assert not xenmig.failed, xenmig.messages
    assert xen.differing(source, targets[1]) == []


def test_log_dirty_mode_is_left_alone_by_a_save_that_is_not_live(xen: Worker, tmp_path: Path) -> None:
    """Nothing is dirtied that would have to be known. libxc switches it on, and off at the end, and with it
    the VRAM tracking of a guest that may be resumed.
    """
    spec = DomainSpec(memory_pages=PAGES, vram_tracking=True)
    libxc, xenmig = save_both(xen, spec, tmp_path, NON_LIVE)
    assert explain(libxc.stream, xenmig.stream) is None
    assert libxc.outcome.events == ["qemu_logdirty 1", "suspend", "qemu_logdirty 0"]
    assert xenmig.outcome.events == ["suspend"]
    assert [name for name in xenmig.calls if name.startswith("shadow_")] == []
    assert not xen.state(libxc.domid)["logdirty_on"]
    assert xen.state(xenmig.domid)["logdirty_on"]


def test_verify_is_refused_for_a_save_that_is_not_live(xen: Worker, tmp_path: Path) -> None:
    """Each page is sent once, from a guest that stands still: there is nothing to be verified but the
    transport, which is not what it is for. libxc sends everything twice.
    """
    libxc, xenmig = save_both(xen, SPEC, tmp_path, SaveOptions(live=False, debug=True))
    assert not libxc.outcome.failed
    assert_restores(xen, libxc.domid, libxc.stream)
    assert (xenmig.outcome.error, xenmig.outcome.guest_state) == ("ValueError", None)
    assert (xenmig.outcome.events, xenmig.stream.read_bytes()) == ([], b"")


def test_a_verify_pass_makes_no_peek(xen: Worker, tmp_path: Path) -> None:
    """The guest is suspended, and a PEEK's answer would change nothing. libxc logs it."""
    libxc, xenmig = save_both(xen, SPEC, tmp_path, SaveOptions(debug=True))
    assert explain(libxc.stream, xenmig.stream) is None
    assert (libxc.calls["shadow_peek"], xenmig.calls.get("shadow_peek", 0)) == (1, 0)


@pytest.mark.parametrize("gone", [[7], [(0, 40)], [(0, 100)], [1023, 1024, PAGES - 1], [(0, PAGES)]], ids=str)
@pytest.mark.parametrize("batch", BATCHES)
def test_a_page_that_goes_away_before_it_is_mapped(
    *, xen: Worker, tmp_path: Path, batch: int, gone: list[Pfns]
) -> None:
    """While the guest runs it may give pages back at any time. libxc fails if that is between the query of
    their types and the mapping.
    """
    spec = DomainSpec(memory_pages=PAGES, steps=[*BUSY, Step("before_map", batch, balloon_out=gone)])
    libxc, xenmig = save_both(xen, spec, tmp_path, SaveOptions())
    assert not xenmig.outcome.failed, xenmig.outcome.messages
    pfns = {pfn for part in gone for pfn in (range(*part) if isinstance(part, tuple) else [part])}
    assert libxc.outcome.failed == (not pfns.isdisjoint(BATCHES[batch]))
    if not libxc.outcome.failed:
        assert explain(libxc.stream, xenmig.stream) is None
    # A page that was sent before it went is there in the copy: no CLEAN tells, before Xen 4.22.
    target = xen.create(EMPTY)
    assert not xen.restore("xenmig", target, xenmig.stream).failed
    assert set(xen.differing(xenmig.domid, target, PAGES)) <= pfns - set(BATCHES[batch])


def test_a_page_that_goes_and_comes_back(xen: Worker, tmp_path: Path) -> None:
    """A page that could not be mapped is owed to the final pass, dirty or not: it may be there again."""
    steps = [
        *BUSY,
        Step("before_map", 0, balloon_out=[(10, 60), 900]),
        Step("at_suspend", balloon_in=[(20, 40), 900]),
    ]
    libxc, xenmig = save_both(xen, DomainSpec(memory_pages=PAGES, steps=steps), tmp_path, SaveOptions())
    assert (libxc.outcome.failed, xenmig.outcome.failed) == (True, False)
    assert_restores(xen, xenmig.domid, xenmig.stream)


def test_a_page_that_cannot_be_mapped_for_a_while(xen: Worker, tmp_path: Path) -> None:
    """As above: while the guest runs that is no failure. In the final pass it is one, for both."""
    outcomes = []
    for engine in MODULES:
        domid = xen.create(SPEC)
        xen.inject(fault="page", domid=domid, pfn=2000, errno=errno.EINVAL, times=1)
        outcomes.append(xen.save(engine, domid, tmp_path / engine))
    assert [outcome.failed for outcome in outcomes] == [True, False]
    assert_restores(xen, domid, tmp_path / "xenmig")
    xen.resume(domid)
    xen.inject(fault="page", domid=domid, pfn=2000, errno=errno.EINVAL)
    saved = xen.save("xenmig", domid, tmp_path / "stream")
    assert (saved.error, saved.errno, saved.guest_state) == ("HypercallError", errno.EINVAL, "resumed")
    assert "0x7d0" in saved.messages[0]
    assert not (tmp_path / "stream").read_bytes().endswith(END)


def test_a_page_behind_the_end_of_the_bitmap(xen: Worker, tmp_path: Path) -> None:
    """The guest gets a page behind what was the end of its p2m when the save began, for which the log-dirty
    bitmap has no place: libxc loses it without a word, xenmig fails, and the guest goes on.
    """
    spec = DomainSpec(
        memory_pages=PAGES, holes=[PAGES - 1], steps=[Step("before_clean", 0, balloon_in=[PAGES - 1])]
    )
    libxc, xenmig = save_both(xen, spec, tmp_path, SaveOptions())
    assert not libxc.outcome.failed
    target = xen.create(EMPTY)
    assert not xen.restore("libxc", target, libxc.stream).failed
    assert xen.differing(libxc.domid, target) == [PAGES - 1]
    outcome = xenmig.outcome
    assert (outcome.error, outcome.guest_state) == ("DomainRefused", "resumed")
    assert xen.state(xenmig.domid)["state"] == "running"


@pytest.mark.parametrize("options", [SaveOptions(), NON_LIVE], ids=["live", "non-live"])
def test_a_failure_after_the_suspension(xen: Worker, tmp_path: Path, options: SaveOptions) -> None:
    """xenmig has the guest resumed, if it is told how. libxc leaves that to its caller."""
    xen.inject(fault="errno", kind="gettscinfo", times=2, errno=errno.EPERM)
    libxc, xenmig = save_both(xen, SPEC, tmp_path, options)
    assert (libxc.outcome.errno, xenmig.outcome.errno) == (errno.EPERM, errno.EPERM)
    assert xen.state(libxc.domid)["state"] == "shutdown"
    assert xen.state(xenmig.domid)["state"] == "running"
    assert (xenmig.outcome.guest_state, "resume" in xenmig.outcome.events) == ("resumed", True)


def test_state_is_fetched_before_any_of_it_is_written(xen: Worker, tmp_path: Path) -> None:
    """A failure leaves fewer records behind than with libxc, which writes each as it gets it."""
    xen.inject(fault="errno", kind="gethvmcontext", nth=0, times=9, errno=errno.EPERM)
    libxc, xenmig = save_both(xen, SPEC, tmp_path, SaveOptions())
    kinds = [[record.kind for record in records(saved.stream.read_bytes())] for saved in (libxc, xenmig)]
    tsc_info = 8
    assert kinds[0] == [*kinds[1], tsc_info]


def test_a_page_that_the_guest_gave_back_is_taken_from_the_copy(xen: Worker, tmp_path: Path) -> None:
    """It was sent in the first round and is a hole in a later one. libxc 4.17 leaves the old page in the
    copy, where it counts against the domain's memory and is in the way of the next ballooning.
    """
    steps = [Step("before_clean", 0, write=[(0, 100)], balloon_out=[(20, 50)])]
    source = xen.create(DomainSpec(memory_pages=PAGES, steps=steps))
    assert not xen.save("xenmig", source, tmp_path / "stream").failed
    populated = []
    for engine in MODULES:
        target = xen.create(EMPTY)
        assert not xen.restore(engine, target, tmp_path / "stream").failed
        populated.append(xen.state(target)["populated_pages"])
    assert populated == [PAGES, PAGES - 30]
    assert xen.differing(source, target) == []


def test_superpages_are_asked_for(xen: Worker, tmp_path: Path) -> None:
    """libxc has asked for them since 4.21 only. Such memory is faster to map, and for the guest to use."""
    source, stream = xen.create(DomainSpec(memory_pages=4096)), tmp_path / "stream"
    assert not xen.save("libxc", source, stream).failed
    target = xen.create(DomainSpec(memory_pages=4096, populated=False))
    xen.inject(fault="errno", kind="populate_physmap", domid=target, errno=errno.ENOMEM)
    assert not xen.restore("xenmig", target, stream).failed
    assert xen.counters(target)["calls"]["populate_physmap"] == 4 + 1
    assert xen.differing(source, target) == []


def test_a_toolstack_that_refuses_the_static_data_ends_the_restore(xen: Worker, tmp_path: Path) -> None:
    """No difference, but xenmig's exception is the callback's own."""
    stream = tmp_path / "stream"
    assert not xen.save("xenmig", xen.create(SPEC), stream).failed
    refusing = RestoreOptions(static_data=-1)
    for engine in MODULES:
        target = xen.create(EMPTY)
        outcome = xen.restore(engine, target, stream, refusing)
        assert (outcome.failed, outcome.missing) == (True, 0)
        assert xen.state(target)["populated_pages"] == 0
    assert outcome.error == "CallbackError"


@pytest.mark.parametrize("index", [1, 17], ids=["store", "console"])
def test_a_shared_page_that_no_grant_can_name(xen: Worker, tmp_path: Path, index: int) -> None:
    """An entry of a grant table has 32 bits for a frame. libxc cuts the rest off, and so grants another page
    of the guest to the domain of xenstore or of the console.
    """
    source = xen.create(DomainSpec(memory_pages=64, hvm_params={index: (1 << 32) + 5}))
    assert not xen.save("libxc", source, tmp_path / "stream").failed
    targets = [xen.create(DomainSpec(memory_pages=64, populated=False)) for _ in MODULES]
    libxc, xenmig = (
        xen.restore(engine, target, tmp_path / "stream")
        for engine, target in zip(MODULES, targets, strict=True)
    )
    assert not libxc.failed
    assert [1, 0, 5] in xen.state(targets[0])["grants"]
    assert (xenmig.error, "beyond what a grant can name" in xenmig.messages[0]) == ("StreamError", True)
    assert xen.state(targets[1])["grants"] == [[0, 0, 0]] * 2
