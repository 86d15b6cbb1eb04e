# SPDX-License-Identifier: GPL-3.0-or-later
"""Both engines restore what either saved, and make the same domain of it.

Compared is everything: memory and which pages there are, HVM context, HVM parameters with the event channels
in them, TSC, CPU policy, the grants of the pages of xenstore and console, and where these pages are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from tests.parity.compare import records
from tests.parity.engine import MODULES
from tests.parity.protocol import DomainSpec, RestoreOptions, SaveOptions, Step
from tests.parity.shapes import BUSY, MODES, MORE_SHAPES, SHAPES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import EngineName, RestoreOutcome

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

#: ``HVM_PARAM_STORE_EVTCHN``, ``HVM_PARAM_CONSOLE_EVTCHN``: the toolstack's, and in no stream.
EVENT_CHANNELS = ("2", "18")
#: ``HVM_PARAM_*`` that are saved: the list of ``write_hvm_params`` in libxc.
SAVED_PARAMS = {str(n) for n in (1, 5, 6, 9, 12, 17, 19, 27, 28, 29, 32, 33, 34, 36, 37, 38)}
#: ``HVM_PARAM_*``, and where the pages of a PVH guest are that are shared with xenstore and the console.
STORE_PFN, IOREQ_PFN, BUFIOREQ_PFN, IDENT_PT, CONSOLE_PFN = 1, 5, 6, 12, 17
PVH_PARAMS = {STORE_PFN: 0xFEFFC, CONSOLE_PFN: 0xFEFFB}
#: Records, and the bits for ``static_data_done`` that say that they were missing.
CPUID_POLICY, MSR_POLICY = 0x11, 0x12
MISSING = {CPUID_POLICY: 1, MSR_POLICY: 2}
#: A page that the guest has and that has no contents yet.
XALLOC = 0xE

ALL_SHAPES = SHAPES | MORE_SHAPES
shapes = pytest.mark.parametrize("shape", ALL_SHAPES.values(), ids=ALL_SHAPES)
MIXED = [("libxc", "xenmig"), ("xenmig", "libxc")]
#: Shapes that are worth a socket.
SENT = {name: SHAPES[name] for name in ("holes", "far page", "PVH", "no multiple of 64")}
RUNNING = [Step("before_clean", n, write=[(0, 600), 2000]) for n in range(4)] + [
    Step("at_suspend", write=[1])
]


def empty(shape: DomainSpec) -> DomainSpec:
    """Returns the domain that a shape is restored into."""
    return replace(shape, steps=[], types=[], vram_tracking=False, populated=False)


def comparable(xen: Worker, domid: int) -> dict[str, Any]:
    """Returns the state of a domain without its number."""
    return {name: part for name, part in xen.state(domid).items() if name != "domid"}


def gfns(outcome: RestoreOutcome) -> tuple[int, int]:
    """Returns where the pages of xenstore and of the console are."""
    return outcome.store_gfn, outcome.console_gfn


def assert_arrived(xen: Worker, source: int, target: int) -> None:
    """Asserts that a domain has become another one, which waits to be started."""
    old, new = comparable(xen, source), comparable(xen, target)
    for name in (
        "memory",
        "p2m_pages",
        "populated_pages",
        "hvm_context_bytes",
        "hvm_context",
        "cpuid",
        "msrs",
    ):
        assert new[name] == old[name], name
    sent = {i: value for i, value in old["hvm_params"].items() if i in SAVED_PARAMS}
    assert {i: value for i, value in new["hvm_params"].items() if i not in EVENT_CHANNELS} == sent
    # Xen counts up how often the TSC was set.
    assert new["tsc"] == old["tsc"] | {"incarnation": old["tsc"]["incarnation"] + 1}
    assert new["state"] == "paused"


@shapes
@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("saver", MODULES)
def test_both_restore_the_same_domain(
    *,
    xen: Worker,
    tmp_path: Path,
    saver: EngineName,
    options: SaveOptions,
    shape: DomainSpec,
) -> None:
    stream = tmp_path / "stream"
    source = xen.create(replace(shape, steps=BUSY))
    saved = xen.save(saver, source, stream, options)
    assert not saved.failed, saved.messages
    # A save that is not live leaves log-dirty mode as it finds it: here another program switched it on.
    kept = saver == "xenmig" and shape.vram_tracking and not options.live
    assert (xen.state(source)["state"], xen.state(source)["logdirty_on"]) == ("shutdown", kept)
    targets, outcomes = [], []
    for restorer in MODULES:
        targets.append(xen.create(empty(shape)))
        outcomes.append(xen.restore(restorer, targets[-1], stream))
        assert not outcomes[-1].failed, (restorer, outcomes[-1].messages)
    # What such a page holds is not said: libxc leaves what it finds there, which could be another guest's;
    # xenmig makes it zeros.
    unwritten = [pfn for pfn, kind in shape.types if kind == XALLOC]
    assert xen.differing(*targets) == unwritten
    assert all(xen.read_page(targets[1], pfn) == bytes(4096) for pfn in unwritten)
    states = [comparable(xen, target) for target in targets]
    if shape.hvm_params == {}:
        # xenmig grants no page where there is none; libxc grants pfn 0.
        assert [state.pop("grants") for state in states] == [[[1, 0, 0]] * 2, [[0, 0, 0]] * 2]
    if unwritten:
        states = [{name: part for name, part in state.items() if name != "memory"} for state in states]
    assert states[0] == states[1]
    assert outcomes[0].missing == outcomes[1].missing
    assert gfns(outcomes[0]) == gfns(outcomes[1])
    assert [outcome.messages for outcome in outcomes] == [[], []]
    if not shape.types:
        assert_arrived(xen, source, targets[1])


@pytest.mark.parametrize("saver", MODULES)
def test_both_connect_it_to_its_toolstack(xen: Worker, tmp_path: Path, saver: EngineName) -> None:
    shape = SHAPES["PVH"]
    # Any page may be one that is shared with the device model.
    source = xen.create(
        replace(shape, hvm_params=PVH_PARAMS | {IOREQ_PFN: 20, BUFIOREQ_PFN: 21, IDENT_PT: 22})
    )
    pages = [PVH_PARAMS[STORE_PFN], PVH_PARAMS[CONSOLE_PFN], 20, 21]
    for pfn in [*pages, 22]:
        xen.write_page(source, pfn, bytes([pfn & 0xFF]) * 4096)
    assert not xen.save(saver, source, tmp_path / "stream").failed
    options = RestoreOptions(store_evtchn=21, store_domid=5, console_evtchn=0xFFFF_FFFF, console_domid=6)
    targets = [xen.create(empty(shape)) for _ in MODULES]
    outcomes = [
        xen.restore(name, target, tmp_path / "stream", options)
        for name, target in zip(MODULES, targets, strict=True)
    ]
    assert [outcome.failed for outcome in outcomes] == [False, False], outcomes
    assert comparable(xen, targets[0]) == comparable(xen, targets[1])
    assert gfns(outcomes[0]) == gfns(outcomes[1]) == tuple(pages[:2])
    assert sorted(xen.differing(source, targets[1])) == sorted(pages), "these are emptied, and no others"
    state = xen.state(targets[1])
    assert state["grants"] == [[1, 6, pages[1]], [1, 5, pages[0]]]
    assert [state["hvm_params"][index] for index in EVENT_CHANNELS] == [21, 0xFFFF_FFFF]


def test_a_domain_that_serves_itself_is_granted_nothing(xen: Worker, tmp_path: Path) -> None:
    source, stream = xen.create(SHAPES["PVH"]), tmp_path / "stream"
    assert not xen.save("xenmig", source, stream).failed
    grants = []
    for name in MODULES:
        target = xen.create(empty(SHAPES["PVH"]))
        outcome = xen.restore(name, target, stream, RestoreOptions(store_domid=target))
        assert not outcome.failed, outcome.messages
        grants.append(xen.state(target)["grants"])
    assert grants[0] == grants[1] == [[1, 0, PVH_PARAMS[CONSOLE_PFN]], [0, 0, 0]]


@pytest.mark.parametrize("kinds", [{CPUID_POLICY}, {MSR_POLICY}, {CPUID_POLICY, MSR_POLICY}], ids=str)
def test_a_stream_without_policies(xen: Worker, tmp_path: Path, kinds: set[int]) -> None:
    source, stream = xen.create(SHAPES["holes"]), tmp_path / "stream"
    assert not xen.save("xenmig", source, stream).failed
    contents = stream.read_bytes()
    for record in reversed([record for record in records(contents) if record.kind in kinds]):
        contents = contents[: record.start] + contents[record.end :]
    stream.write_bytes(contents)
    targets = [xen.create(empty(SHAPES["holes"])) for _ in MODULES]
    outcomes = [xen.restore(name, target, stream) for name, target in zip(MODULES, targets, strict=True)]
    assert [outcome.failed for outcome in outcomes] == [False, False]
    assert outcomes[0].missing == outcomes[1].missing == sum(MISSING[kind] for kind in kinds)
    assert comparable(xen, targets[0]) == comparable(xen, targets[1])
    assert xen.differing(source, targets[1]) == []


@pytest.mark.parametrize("shape", SENT.values(), ids=SENT)
@pytest.mark.parametrize(
    "options",
    [SaveOptions(live=False), SaveOptions(policy="none"), SaveOptions(debug=True)],
    ids=["non-live", "live", "live, debug"],
)
@pytest.mark.parametrize("engines", [*product(MODULES, MODULES)], ids=" to ".join)
def test_a_migration_over_a_socket(
    *, xen: Worker, engines: tuple[EngineName, EngineName], options: SaveOptions, shape: DomainSpec
) -> None:
    source, target = xen.create(replace(shape, steps=RUNNING)), xen.create(empty(shape))
    saved, restored = xen.migrate(engines, (source, target), options)
    assert not saved.failed, saved.messages
    assert not restored.failed, restored.messages
    assert xen.differing(source, target) == []
    assert_arrived(xen, source, target)


@pytest.mark.parametrize("engines", MIXED, ids=" to ".join)
def test_a_domain_that_is_sent_to_and_fro(xen: Worker, engines: tuple[EngineName, EngineName]) -> None:
    domid = first = xen.create(replace(SHAPES["holes"], steps=RUNNING))
    for number in range(4):
        # The one that restored it saves it next.
        pair = engines if number % 2 == 0 else engines[::-1]
        target = xen.create(empty(SHAPES["holes"]))
        saved, restored = xen.migrate(pair, (domid, target), SaveOptions())
        assert not saved.failed, saved.messages
        assert not restored.failed, restored.messages
        assert xen.differing(domid, target) == []
        xen.resume(target)
        domid = target
    assert xen.state(domid)["tsc"]["incarnation"] == xen.state(first)["tsc"]["incarnation"] + 4


@pytest.mark.parametrize("engines", MIXED, ids=" to ".join)
def test_a_receiver_that_fails_ends_the_sender(xen: Worker, engines: tuple[EngineName, EngineName]) -> None:
    shape = SHAPES["no multiple of 64"]
    source, target = xen.create(shape), xen.create(empty(shape))
    xen.inject(fault="errno", kind="populate_physmap", nth=1, times=9, domid=target, errno=12)
    saved, restored = xen.migrate(engines, (source, target), SaveOptions())
    assert (saved.failed, restored.failed) == (True, True)
    assert (saved.errno, restored.errno) == (32, 12), "EPIPE at the sender, ENOMEM at the receiver"
    assert xen.state(source)["state"] == "running"
    assert not xen.state(source)["logdirty_on"]
    assert xen.left() == {}
