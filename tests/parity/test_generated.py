# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains, guests and policies that are generated: both engines still give the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.parity.pair import save_alike
from tests.parity.protocol import CONTINUE, STOP_AND_COPY, DomainSpec, SaveOptions, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import Moment, Pfns

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

#: Pages of RAM: up to a few batches, and often just at the end of a word or of a batch.
sizes = st.one_of(
    st.integers(1, 4200),
    st.sampled_from([1, 2, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049]),
)


@st.composite
def pfn_lists(draw: st.DrawFn, pages: int, most: int = 4) -> list[Pfns]:
    """Pfns of RAM, and ranges of them."""
    pfn = st.integers(0, pages - 1)
    ranges = st.tuples(pfn, pfn).map(lambda ends: (min(ends), max(ends) + 1))
    return draw(st.lists(st.one_of(pfn, ranges), max_size=most))


@st.composite
def steps(draw: st.DrawFn, pages: int, *, moves: bool) -> list[Step]:
    """What a guest does, and when: writes at any call; and ballooning, if it ``moves`` pages.

    A page that vanishes between the query of its type and the mapping is where the engines differ on purpose.
    """
    calls: list[Moment] = ["before_clean", "before_types", "at_suspend"]
    when = draw(st.sampled_from(calls if moves else [*calls, "before_map", "after_map"]))
    n = 0 if when == "at_suspend" else draw(st.integers(0, 8))
    lists = pfn_lists(pages)
    return [
        Step(
            when,
            n,
            write=draw(lists),
            balloon_out=draw(lists) if moves else [],
            balloon_in=draw(lists) if moves else [],
        )
    ]


@st.composite
def specs(draw: st.DrawFn) -> DomainSpec:
    """Domains."""
    pages = draw(sizes)
    script = st.one_of(steps(pages, moves=False), steps(pages, moves=True))
    played = [step for script in draw(st.lists(script, max_size=8)) for step in script]
    far = st.integers(pages, pages + 5000)
    # A page that comes behind the end of the p2m is where the engines differ on purpose: then the end is far.
    grows = any(step.balloon_in for step in played)
    return DomainSpec(
        memory_pages=pages,
        holes=draw(pfn_lists(pages)),
        highest_pfn=draw(far if grows else st.none() | far),
        seed=draw(st.integers(0, 3)),
        vram_tracking=draw(st.booleans()),
        xen_mapped_pages=draw(st.integers(0, 3)),
        hvm_context_bytes=draw(st.integers(8, 40)),
        steps=played,
    )


answers = st.lists(st.just(CONTINUE), max_size=9).map(lambda front: [*front, STOP_AND_COPY])
options = st.one_of(
    st.just(SaveOptions(live=False)),
    st.builds(SaveOptions, debug=st.booleans(), policy=st.just("none") | st.just("libxc") | answers),
)


@pytest.mark.timeout(1200)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=specs(), options=options)
def test_any_domain(*, xen: Worker, tmp_path: Path, spec: DomainSpec, options: SaveOptions) -> None:
    xen.reset()
    libxc, xenmig = save_alike(xen, spec, tmp_path, options)
    # libxc switches log-dirty mode off even if another program switched it on.
    kept = spec.vram_tracking and not options.live
    assert xen.state(xenmig.domid) == xen.state(libxc.domid) | {"domid": xenmig.domid, "logdirty_on": kept}
