# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated PV guests that do generated things: both engines give the same bytes, or fail alike; what
they give is restored by both to the same guest.

Left out is what the engines differ in on purpose (``test_pv_differences.py``): entries that are torn when the
guest is suspended, a p2m that grows, or moves in a save that is not live, pages that go away between types
and mapping.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.parity.engine import MODULES
from tests.parity.pair import assert_same, save_both
from tests.parity.protocol import CONTINUE, STOP_AND_COPY, DomainSpec, FakexenError, PvSpec, SaveOptions, Step
from tests.parity.pv_shapes import TABLE_PFNS, empty

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import Moment, Pfns, PvAction

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

#: Fewer pages are too few for the page tables of such a guest.
FEWEST_PAGES = 120
#: Entries of the p2m behind the last page: none, some on its last page, on further pages.
SPARE_PFNS = [0, 0, 1, 400, 3000]


@st.composite
def pfn_lists(draw: st.DrawFn, pages: int, most: int = 4) -> list[Pfns]:
    """Pfns of RAM, and ranges of them."""
    pfn = st.integers(0, pages - 1)
    ranges = st.tuples(pfn, st.integers(1, 200)).map(lambda run: (run[0], min(run[0] + run[1], pages)))
    return draw(st.lists(st.one_of(pfn, ranges), max_size=most))


def actions(pages: int, moment: Moment) -> st.SearchStrategy[list[PvAction]]:
    """What the kernel does at a moment. What is not possible, it does not."""
    pfn = st.integers(0, pages - 1)
    entry = st.one_of(pfn, st.tuples(pfn, st.integers(0, 511)))
    named = [
        st.fixed_dictionaries({"touch": entry}),
        # Of entries elsewhere than in the map of all memory the guest itself depends on some.
        *(st.fixed_dictionaries({name: pfn}) for name in ("clear", "make_table", "unmake_table")),
        st.fixed_dictionaries({"map": st.tuples(pfn, pfn)}),
        st.just("mend"),
    ]
    if moment != "at_suspend":
        named.append(st.fixed_dictionaries({"tear": entry}))
    return st.lists(st.one_of(*named), max_size=12)


@st.composite
def steps(draw: st.DrawFn, pages: int) -> list[Step]:
    """What a guest does, and when. It writes to the pages that it gets: nothing else logs that they are
    there."""
    moments: list[Moment] = ["before_clean", "before_types", "at_suspend", "before_map", "after_map"]
    when = draw(st.sampled_from(moments))
    n = 0 if when == "at_suspend" else draw(st.integers(0, 9))
    lists = pfn_lists(pages)
    does = Step(when, n, write=draw(lists), pv=draw(actions(pages, when)))
    if when in {"before_map", "after_map"} or draw(st.booleans()):
        return [does]
    got = draw(lists)
    return [Step(when, n, balloon_out=draw(lists), balloon_in=got), Step(when, n, write=got), does]


@st.composite
def specs(draw: st.DrawFn) -> DomainSpec:
    """PV guests. Those that are impossible are too small."""
    pages = draw(st.one_of(st.integers(FEWEST_PAGES, 2200), st.sampled_from([1023, 1024, 1025, 2048])))
    vcpus = draw(st.integers(1, 4))
    width, tree = draw(st.sampled_from([4, 8])), draw(st.booleans())
    # And on further page tables. There must be more than one of them: if the last one is like no other, and
    # the first is not in slot 0, libxc leaves it out.
    far = [] if tree else [3 * TABLE_PFNS * (8 // width)]
    pv = PvSpec(
        width=width,
        tree=tree,
        first_slot=draw(st.sampled_from([0, 0, 1, 16])),
        spare_pfns=draw(st.sampled_from([*SPARE_PFNS, *far])),
        offline_vcpus=draw(st.lists(st.integers(1, vcpus - 1), unique=True)) if vcpus > 1 else [],
        extended=draw(st.booleans()),
        xsave_bytes=draw(st.sampled_from([0, 16, 577, 832, 8192])),
        msrs=draw(st.integers(0, 7)),
        scrubs=draw(st.booleans()),
    )
    return DomainSpec(
        memory_pages=pages,
        vcpus=vcpus,
        holes=draw(pfn_lists(pages, 3)),
        highest_pfn=draw(st.none() | st.integers(pages, pages + 3000)),
        seed=draw(st.integers(0, 3)),
        fill=draw(st.booleans()),
        pv=pv,
        steps=[*chain(*draw(st.lists(steps(pages), max_size=8))), Step("at_suspend", pv=["mend"])],
    )


answers = st.lists(st.just(CONTINUE), max_size=9).map(lambda front: [*front, STOP_AND_COPY])
options = st.one_of(
    st.just(SaveOptions(live=False)),
    st.builds(SaveOptions, debug=st.booleans(), policy=st.just("none") | st.just("libxc") | answers),
)


@pytest.mark.timeout(1200)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(spec=specs(), options=options)
def test_any_guest(*, xen: Worker, tmp_path: Path, spec: DomainSpec, options: SaveOptions) -> None:
    try:
        libxc, xenmig = save_both(xen, spec, tmp_path, options)
    except FakexenError as error:
        assert "too few" in str(error)  # noqa: PT017 - hypothesis makes many
        return
    if libxc.outcome.failed:
        assert xenmig.outcome.failed, libxc.outcome.messages
        return
    assert not xenmig.outcome.failed, xenmig.outcome.messages
    assert_same(libxc, xenmig)
    assert xenmig.state == libxc.state
    assert xenmig.state is not None
    assert xenmig.state["pv"] is not None
    assert xenmig.state["pv"]["unsound"] is None, "it was sound when it was suspended"
    assert spec.pv is not None
    for engine in MODULES:
        target = xen.create(empty(spec))
        restored = xen.restore(engine, target, xenmig.stream)
        assert (restored.failed, restored.messages) == (False, [])
        new, pv = xen.state(target), xen.pv_state(target)
        assert pv["unsound"] is None
        # libxc leaves the pages that have become holes. That a page is gone which was not cleared before is
        # in no bitmap: then the copy has it.
        if new["populated_pages"] == xenmig.state["populated_pages"]:
            assert xen.differing(xenmig.domid, target) == []
            assert pv == xenmig.state["pv"]
        else:
            assert engine == "libxc" or not spec.pv.scrubs
        xen.resume(target)
        assert xen.pv_state(target)["unsound"] is None
        xen.destroy(target)
