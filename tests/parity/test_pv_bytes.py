# SPDX-License-Identifier: GPL-3.0-or-later
"""libxc and xenmig save equal PV guests: their streams are equal, byte for byte, and so is what they ask.

Equal means that the guests have the same frames of the machine, too, since these stand in their memory:
of the two domains one is gone when the other is made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.parity.pair import save_alike
from tests.parity.protocol import PvSpec, SaveOptions
from tests.parity.pv_shapes import FORMS, PV_GUESTS, PV_SHAPES, busy, shape, with_steps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import DomainSpec
    from tests.parity.pv_shapes import Guest

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")


@pytest.mark.parametrize("options", [SaveOptions(live=False), SaveOptions()], ids=["non-live", "live"])
@pytest.mark.parametrize("spec", PV_SHAPES.values(), ids=PV_SHAPES)
def test_shapes(*, xen: Worker, tmp_path: Path, options: SaveOptions, spec: DomainSpec) -> None:
    libxc, xenmig = save_alike(xen, with_steps(xen, spec, busy), tmp_path, options)
    assert xenmig.state is not None
    assert xenmig.state["pv"] is not None
    # libxc switches log-dirty mode off also where it has no use for it, and thus somebody else's.
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
