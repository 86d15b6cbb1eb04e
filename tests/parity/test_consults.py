# SPDX-License-Identifier: GPL-3.0-or-later
"""Which questions a policy is asked during a live save, and what its answers do: the same with both engines.

xenmig is asked in its mode ``consult="round"``, which is libxc's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.parity import model
from tests.parity.pair import assert_same, save_alike, save_both
from tests.parity.protocol import ABORT, CONTINUE, STOP_AND_COPY, Consult, DomainSpec, SaveOptions, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import EngineName

PAGES = 1500
#: Pages that are dirtied before each CLEAN.
DIRTYINGS = [
    [],
    [1],
    [49],
    [50],
    [51],
    [50, 49],
    [51, 50, 50, 50, 50],
    [PAGES] * 6,
    [1000, 500, 250, 125, 60],
    [60, 600, 6],
    [0, 1000],
]
#: Those at each consult of which a policy gives its last answer.
ANSWERED = [[], [200, 100, 300, 80], [PAGES] * 6, [0, 1000, 0, 49, 1]]


def steps(dirtied: list[int]) -> list[Step]:
    """Returns the script of a guest that dirties pages before each CLEAN, from the last pfn down."""
    return [
        Step("before_clean", n, write=[(PAGES - count, PAGES)]) for n, count in enumerate(dirtied) if count
    ]


@pytest.mark.parametrize("dirtied", DIRTYINGS, ids=str)
def test_the_default_policy_is_asked_as_in_the_model(
    xen: Worker, tmp_path: Path, engine: EngineName, dirtied: list[int]
) -> None:
    domid = xen.create(DomainSpec(memory_pages=PAGES, steps=steps(dirtied)))
    saved = xen.save(engine, domid, tmp_path / "recorded")
    assert not saved.failed, saved.messages
    assert saved.consults == model.consults(PAGES, dirtied)
    other = xen.create(DomainSpec(memory_pages=PAGES, steps=steps(dirtied)))
    assert not xen.save(engine, other, tmp_path / "default", SaveOptions(policy="none")).failed
    same = (tmp_path / "recorded").read_bytes() == (tmp_path / "default").read_bytes()
    assert same, "the engine's own default policy answers otherwise"


@pytest.mark.usefixtures("xenmig_on_xen")
@pytest.mark.parametrize("dirtied", DIRTYINGS, ids=str)
def test_both_ask_the_default_policy_the_same(xen: Worker, tmp_path: Path, dirtied: list[int]) -> None:
    spec = DomainSpec(memory_pages=PAGES, holes=[(5, 25)], special_pages=True, steps=steps(dirtied))
    libxc, xenmig = save_alike(xen, spec, tmp_path, SaveOptions())
    assert len(libxc.outcome.consults) >= 3
    assert xenmig.outcome.events == libxc.outcome.events


def test_the_model_knows_the_numbers() -> None:
    assert model.consults(1000, [60]) == [
        Consult(0, 0, 1000, CONTINUE),
        Consult(1, 1000, -1, CONTINUE),
        Consult(1, 1000, 60, CONTINUE),
        Consult(2, 1060, -1, CONTINUE),
        Consult(2, 1060, 0, STOP_AND_COPY),
    ]


@pytest.mark.usefixtures("xenmig_on_xen")
@pytest.mark.parametrize("dirtied", ANSWERED, ids=str)
@pytest.mark.parametrize("number", range(10))
def test_a_stop_at_each_consult(*, xen: Worker, tmp_path: Path, number: int, dirtied: list[int]) -> None:
    answers = [CONTINUE] * number + [STOP_AND_COPY]
    spec = DomainSpec(memory_pages=PAGES, steps=steps(dirtied))
    libxc, xenmig = save_alike(xen, spec, tmp_path, SaveOptions(policy=answers))
    assert xenmig.outcome.consults == model.consults(PAGES, dirtied, answers)
    assert len(libxc.outcome.consults) == number + 1
    assert xenmig.outcome.events == libxc.outcome.events
    for saved in (libxc, xenmig):
        state = xen.state(saved.domid)
        assert (state["state"], state["logdirty_on"]) == ("shutdown", False)
    target = xen.create(DomainSpec(memory_pages=PAGES, populated=False))
    assert not xen.restore("libxc", target, xenmig.stream).failed
    assert xen.differing(xenmig.domid, target) == []


@pytest.mark.usefixtures("xenmig_on_xen")
@pytest.mark.parametrize("dirtied", ANSWERED, ids=str)
@pytest.mark.parametrize("number", range(10))
def test_an_abort_at_each_consult(xen: Worker, tmp_path: Path, number: int, dirtied: list[int]) -> None:
    answers = [CONTINUE] * number + [ABORT]
    spec = DomainSpec(memory_pages=PAGES, steps=steps(dirtied))
    libxc, xenmig = save_both(xen, spec, tmp_path, SaveOptions(policy=answers))
    assert (libxc.outcome.failed, xenmig.outcome.failed) == (True, True)
    # Nothing was sent after the ABORT, by either.
    assert_same(libxc, xenmig)
    assert xenmig.outcome.consults == model.consults(PAGES, dirtied, answers)
    assert len(libxc.outcome.consults) == number + 1
    assert xenmig.outcome.events == libxc.outcome.events
    assert (xenmig.outcome.error, xenmig.outcome.guest_state) == ("PolicyAbort", "running")
    for saved in (libxc, xenmig):
        assert "suspend" not in saved.outcome.events
        state = xen.state(saved.domid)
        assert (state["state"], state["logdirty_on"]) == ("running", False)


def test_the_last_pfn_counts(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    last = 66_000
    script = [Step("before_clean", 0, write=[(0, 49), last])]
    domid = xen.create(DomainSpec(memory_pages=100, highest_pfn=last, steps=script))
    saved = xen.save(engine, domid, tmp_path / "stream")
    assert [consult.dirty_count for consult in saved.consults] == [last + 1, -1, 50, -1, 0]
    target = xen.create(DomainSpec(memory_pages=100, highest_pfn=last, populated=False))
    assert not xen.restore(engine, target, tmp_path / "stream").failed
    assert xen.differing(domid, target) == []
    assert xen.read_page(target, last) == xen.read_page(domid, last)
