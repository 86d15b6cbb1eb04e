# SPDX-License-Identifier: GPL-3.0-or-later
"""libxc and xenmig save equal PV guests: their streams are equal, byte for byte, and so is what they ask.

Equal means that the guests have the same frames of the machine, too, since these stand in their memory:
of the two domains one is gone when the other is made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.parity.compare import explain
from tests.parity.engine import MODULES
from tests.parity.pair import save_alike
from tests.parity.protocol import PvSpec, SaveOptions
from tests.parity.pv_shapes import FORMS, PV_GUESTS, PV_SHAPES, busy, shape, with_steps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import DomainSpec
    from tests.parity.pv_shapes import Guest

#: The type of an L1 table that is pinned.
L1_PINNED = 0x9

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")


@pytest.mark.parametrize("options", [SaveOptions(live=False), SaveOptions()], ids=["non-live", "live"])
@pytest.mark.parametrize("spec", PV_SHAPES.values(), ids=PV_SHAPES)
def test_shapes(*, xen: Worker, tmp_path: Path, options: SaveOptions, spec: DomainSpec) -> None:
    libxc, xenmig = save_alike(xen, with_steps(xen, spec, busy), tmp_path, options)
    assert xenmig.state is not None
    assert xenmig.state["pv"] is not None
    # libxc switches log-dirty mode off even if another program switched it on.
    kept = spec.vram_tracking and not options.live
    assert xenmig.state == (libxc.state or {}) | {"logdirty_on": kept}
    assert xenmig.state["pv"]["unsound"] is None


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("guest", PV_GUESTS.values(), ids=PV_GUESTS)
def test_guests(*, xen: Worker, tmp_path: Path, form: PvSpec, guest: Guest) -> None:
    spec = with_steps(xen, shape(form, vcpus=2), guest)
    libxc, xenmig = save_alike(xen, spec, tmp_path, SaveOptions(policy="none"))
    assert xenmig.state == libxc.state


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "name", ["everything each round", "entries torn until the suspension", "tables made and unmade"]
)
def test_guests_whose_pages_are_sent_again(*, xen: Worker, tmp_path: Path, form: PvSpec, name: str) -> None:
    save_alike(xen, with_steps(xen, shape(form), PV_GUESTS[name]), tmp_path, SaveOptions(debug=True))


@pytest.mark.parametrize("name", PV_GUESTS)
def test_the_guests_do_something(xen: Worker, tmp_path: Path, name: str) -> None:
    busy_one = with_steps(xen, shape(PvSpec(width=4)), PV_GUESTS[name])
    streams = []
    for spec in (busy_one, replace(busy_one, steps=[])):
        xen.reset()
        assert not xen.save("libxc", xen.create(spec), tmp_path / "stream").failed
        streams.append((tmp_path / "stream").read_bytes())
    assert (streams[0] == streams[1]) == (name == "nothing")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_entries_that_are_not_present(xen: Worker, tmp_path: Path, form: PvSpec) -> None:
    """What stands in them is the guest's own affair, even if it looks like a frame: of a page that it has
    swapped out, for example.
    """
    entry = 0x8000_0000_0123_4066
    for engine in MODULES:
        xen.reset()
        domid = xen.create(shape(form, 700))
        # The one that maps the user's addresses is not full.
        table = next(pfn for pfn, kind in xen.pv_map(domid)["tables"] if kind == L1_PINNED)
        contents = xen.read_page(domid, table)
        assert contents[-8:] == bytes(8)
        xen.write_page(domid, table, contents[:-8] + entry.to_bytes(8, "little"))
        assert not xen.save(engine, domid, tmp_path / engine).failed
    assert explain(tmp_path / "libxc", tmp_path / "xenmig") is None
    assert entry.to_bytes(8, "little") in (tmp_path / "xenmig").read_bytes()
