# SPDX-License-Identifier: GPL-3.0-or-later
"""Both engines restore the PV guests that either saved, and make the same guest of them, which is sound and
runs.

The same means: its fingerprint, which covers memory, page types, vCPUs and shared info, with pfns in place of
the machine's frames, since no two guests have the same; and, when it runs again, what it uses its pages for.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
from tests.parity.engine import MODULES
from tests.parity.protocol import RestoreOptions, SaveOptions
from tests.parity.pv_shapes import FORMS, PV_SHAPES, empty, shape, whole, with_steps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import DomainSpec, EngineName, PvSpec

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

#: What the pages of "types without data" hold is not said, so there is no such guest to be compared.
SHAPES = {name: spec for name, spec in PV_SHAPES.items() if not spec.types}
#: Where the fields are that a restore writes into the start info page, in bytes, and how many each has, by
#: the guest's width: ``nr_pages``, ``shared_info``, ``flags``, ``store_mfn``, ``store_evtchn``,
#: ``console.domU.mfn``, ``console.domU.evtchn`` (``public/xen.h``).
START_INFO = {
    8: ((32, 8), (40, 8), (48, 4), (56, 8), (64, 4), (72, 8), (80, 4)),
    4: ((32, 4), (36, 4), (40, 4), (44, 4), (48, 4), (52, 4), (56, 4)),
}


def assert_arrived(xen: Worker, source: int, target: int) -> None:
    """Asserts that a guest has become another one, which waits to be started, and starts it."""
    assert xen.differing(source, target) == []
    old, new = xen.state(source), xen.state(target)
    assert (old["pv"], new["state"]) == (new["pv"], "paused")
    assert xen.pv_state(target)["unsound"] is None
    for name in ("populated_pages", "cpuid", "msrs"):
        assert new[name] == old[name], name
    # Xen counts up how often the TSC was set.
    assert new["tsc"] == old["tsc"] | {"incarnation": old["tsc"]["incarnation"] + 1}
    xen.resume(target)
    assert xen.pv_map(target) == xen.pv_map(source)
    assert xen.pv_state(target)["unsound"] is None


@pytest.mark.parametrize(
    "options", [SaveOptions(live=False), SaveOptions(debug=True)], ids=["non-live", "live, debug"]
)
@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_each_restores_what_the_other_saved(
    *, xen: Worker, tmp_path: Path, options: SaveOptions, spec: DomainSpec
) -> None:
    spec = with_steps(xen, spec, whole)
    stream = tmp_path / "stream"
    # What one engine saves is, byte for byte, what the other one does: that is another test.
    for saver, restorer in zip(MODULES, reversed(MODULES), strict=True):
        xen.reset()
        source, target = xen.create(spec), xen.create(empty(spec))
        saved = xen.save(saver, source, stream, options)
        assert not saved.failed, saved.messages
        restored = xen.restore(restorer, target, stream)
        assert (restored.failed, restored.messages, restored.missing) == (False, [], 0), restorer
        grants = [[1, 0, restored.console_gfn], [1, 0, restored.store_gfn]]
        assert xen.state(target)["grants"] == grants
        assert_arrived(xen, source, target)


@pytest.mark.parametrize("width", START_INFO)
def test_both_connect_it_to_its_toolstack(xen: Worker, tmp_path: Path, width: int) -> None:
    spec, stream = shape(FORMS[f"{8 * width} bits, list"], 700), tmp_path / "stream"
    source = xen.create(spec)
    pages = xen.pv_map(source)
    assert not xen.save("xenmig", source, stream).failed
    shared = []
    options = RestoreOptions(store_evtchn=21, store_domid=5, console_evtchn=0xFFFF_FFFF, console_domid=6)
    for restorer in MODULES:
        target = xen.create(empty(spec))
        restored = xen.restore(restorer, target, stream, options)
        assert not restored.failed, restored.messages
        page = xen.read_page(target, pages["start_info"])
        nr_pages, shared_info, *written = (
            int.from_bytes(page[at : at + size], "little") for at, size in START_INFO[width]
        )
        assert (nr_pages, shared_info % 4096) == (700, 0)
        assert written == [0, restored.store_gfn, 21, restored.console_gfn, 0xFFFF_FFFF]
        shared.append(xen.state(target)["shared_info"])
        assert xen.state(target)["grants"] == [[1, 6, restored.console_gfn], [1, 5, restored.store_gfn]]
        assert_arrived(xen, source, target)
    assert shared[0] == shared[1] != xen.state(source)["shared_info"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("engines", [*product(MODULES, MODULES)], ids=" to ".join)
def test_a_migration_over_a_socket(xen: Worker, engines: tuple[EngineName, EngineName], form: PvSpec) -> None:
    spec = with_steps(xen, shape(form, vcpus=3), whole)
    source, target = xen.create(spec), xen.create(empty(spec))
    saved, restored = xen.migrate(engines, (source, target), SaveOptions(policy="none"))
    assert not saved.failed, saved.messages
    assert not restored.failed, restored.messages
    assert_arrived(xen, source, target)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_guest_that_is_sent_to_and_fro(xen: Worker, form: PvSpec) -> None:
    spec = with_steps(xen, shape(form, holes=[(600, 640)], vcpus=2), whole)
    domid = xen.create(spec)
    for number in range(4):
        # The one that restored it saves it next.
        pair: tuple[EngineName, EngineName] = ("libxc", "xenmig") if number % 2 == 0 else ("xenmig", "libxc")
        target = xen.create(replace(empty(spec), steps=spec.steps))
        saved, restored = xen.migrate(pair, (domid, target), SaveOptions())
        assert not saved.failed, saved.messages
        assert not restored.failed, restored.messages
        assert_arrived(xen, domid, target)
        xen.destroy(domid)
        domid = target
