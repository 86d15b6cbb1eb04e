# SPDX-License-Identifier: GPL-3.0-or-later
"""One job for both engines: two equal domains, each saved by one of them, and what must be the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.parity.compare import explain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import DomainSpec, EngineName, SaveOptions, SaveOutcome, State

#: Calls that both engines make equally often: what changes the log-dirty bitmap, what a batch consists of.
#: (Of others xenmig makes fewer, since it keeps what libxc asks for again.)
SAME_CALLS = (
    "shadow_clean",
    "shadow_clean_final",
    "getpageframeinfo3",
    "mmapbatch",
    "gettscinfo",
    "gethvmcontext",
    "getvcpuinfo",
    "getvcpucontext",
    "get_ext_vcpucontext",
    "getvcpuextstate",
    "get_vcpu_msrs",
)


@dataclass(frozen=True)
class Saved:
    """A domain that was saved, and its state behind that. Of two PV guests only the second still exists."""

    domid: int
    stream: Path
    options: SaveOptions
    outcome: SaveOutcome
    calls: dict[str, int]
    state: State | None


def save_both(xen: Worker, spec: DomainSpec, directory: Path, options: SaveOptions) -> tuple[Saved, Saved]:
    """Saves two equal domains, one with libxc and one with xenmig. The files are named after the engines.

    PV guests have the machine's frames in their memory: each gets a machine of its own, so that these are
    equal.
    """

    def save(engine: EngineName) -> Saved:
        if spec.pv is not None:
            xen.reset()
        domid, stream = xen.create(spec), directory / engine
        outcome = xen.save(engine, domid, stream, options)
        state = None if spec.pv is None else xen.state(domid)
        return Saved(domid, stream, options, outcome, xen.counters(domid)["calls"], state)

    return save("libxc"), save("xenmig")


def save_alike(xen: Worker, spec: DomainSpec, directory: Path, options: SaveOptions) -> tuple[Saved, Saved]:
    """Does the same, and asserts that both succeed with the same bytes, consults, callbacks and calls."""
    libxc, xenmig = save_both(xen, spec, directory, options)
    for saved in (libxc, xenmig):
        assert not saved.outcome.failed, (saved.stream.name, saved.outcome.messages)
    assert_same(libxc, xenmig)
    return libxc, xenmig


def assert_same(libxc: Saved, xenmig: Saved) -> None:
    """Asserts that two saves gave the same bytes by the same consults, callbacks and calls."""
    difference = explain(libxc.stream, xenmig.stream)
    assert difference is None, difference
    assert xenmig.outcome.consults == libxc.outcome.consults
    # For a save that is not live xenmig does not let the device model log: the log would not be read.
    wanted = [event for event in libxc.outcome.events if libxc.options.live or "qemu_logdirty" not in event]
    assert xenmig.outcome.events == wanted
    counts = [{name: saved.calls.get(name, 0) for name in SAME_CALLS} for saved in (libxc, xenmig)]
    assert counts[0] == counts[1]
