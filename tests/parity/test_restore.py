# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores: everything that a stream carries arrives, and bad streams leave nothing mapped."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from tests.parity.protocol import DomainSpec, RestoreOptions, SaveOptions, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import EngineName, RestoreOutcome

PVH = DomainSpec(memory_pages=700, special_pages=True, seed=77, hvm_context_bytes=5000)
EMPTY = DomainSpec(memory_pages=700, special_pages=True, populated=False, warm=True)
STORE_PFN, STORE_EVTCHN, PAE_ENABLED, CONSOLE_PFN, CONSOLE_EVTCHN = "1", "2", "4", "17", "18"
NO_SUBLEAF = 0xFFFF_FFFF
#: Bits of a policy leaf that are in no usual policy.
ODD_POLICY = {"leaves": [[0, NO_SUBLEAF, 1, 2, 3, 4], [1, NO_SUBLEAF, 5, 6, 7, 8]], "msrs": {0x10A: 1 << 40}}


def test_all_state_arrives(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    source = xen.create(PVH)
    assert not xen.save("libxc", source, tmp_path / "stream").failed
    target = xen.create(EMPTY)
    options = RestoreOptions(store_evtchn=21, store_domid=5, console_evtchn=22, console_domid=6)
    restored = xen.restore(engine, target, tmp_path / "stream", options)
    assert not restored.failed, restored.messages
    old, new = xen.state(source), xen.state(target)
    for name in ("memory", "p2m_pages", "populated_pages", "hvm_context", "cpuid", "msrs"):
        assert new[name] == old[name], name
    changed = {STORE_EVTCHN: 21, CONSOLE_EVTCHN: 22}
    expected = {index: value for index, value in old["hvm_params"].items() if index != PAE_ENABLED}
    assert new["hvm_params"] == expected | changed
    assert new["tsc"] == old["tsc"] | {"incarnation": old["tsc"]["incarnation"] + 1}
    store, console = old["hvm_params"][STORE_PFN], old["hvm_params"][CONSOLE_PFN]
    assert (restored.store_gfn, restored.console_gfn, restored.missing) == (store, console, 0)
    # GTF_permit_access, the backend's domain, the frame.
    assert new["grants"] == [[1, 6, console], [1, 5, store]]
    assert (new["state"], xen.counters()["unsafe_pointers"]) == ("paused", 0)


def test_an_odd_cpu_policy_arrives(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    source = xen.create(DomainSpec(memory_pages=10, cpu_policy=ODD_POLICY))
    assert not xen.save("libxc", source, tmp_path / "stream", SaveOptions(live=False)).failed
    target = xen.create(DomainSpec(memory_pages=10, populated=False))
    assert xen.state(source)["cpuid"] != xen.state(target)["cpuid"]
    assert not xen.restore(engine, target, tmp_path / "stream").failed
    old, new = xen.state(source), xen.state(target)
    assert (new["cpuid"], new["msrs"]) == (old["cpuid"], old["msrs"])


def test_a_domain_that_ran_is_refused(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    source, target = xen.create(PVH), xen.create(PVH)
    assert not xen.save("libxc", source, tmp_path / "stream").failed
    memory = xen.state(target)["memory"]
    restored = xen.restore(engine, target, tmp_path / "stream")
    assert restored.failed
    if engine == "libxc":
        assert restored.errno == errno.EEXIST, "its CPU policy is settled"
    else:
        # xenmig looks at it before it touches anything.
        assert restored.error == "DomainRefused"
        assert xen.counters(target)["calls"] == {"getdomaininfo": 1}
    assert xen.state(target)["memory"] == memory


def test_a_live_migration_over_a_socket(xen: Worker, engine: EngineName) -> None:
    steps = [Step("before_clean", n, write=[(0, 600)]) for n in range(4)]
    source = xen.create(DomainSpec(memory_pages=3000, holes=[(40, 50)], steps=steps))
    target = xen.create(DomainSpec(memory_pages=3000, populated=False))
    saved, restored = xen.migrate((engine, engine), (source, target))
    assert not saved.failed, saved.messages
    assert not restored.failed, restored.messages
    assert xen.differing(source, target) == []
    assert xen.state(source)["writes"] == 4 * (600 - 10)


@pytest.mark.parametrize("part", [0.0, 0.00001, 0.001, 0.5, 0.999, 0.9999999])
def test_a_truncated_stream_fails(xen: Worker, tmp_path: Path, engine: EngineName, part: float) -> None:
    stream = tmp_path / "stream"
    assert not xen.save("libxc", xen.create(PVH), stream).failed
    whole = stream.read_bytes()
    stream.write_bytes(whole[: int(len(whole) * part)])
    restored = xen.restore(engine, xen.create(EMPTY), stream)
    assert restored.failed
    if engine == "xenmig":
        assert restored.error == "StreamError", restored.messages
    assert xen.left() == {}


def test_verify_mode_finds_a_page_that_differs(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    def restored() -> RestoreOutcome:
        return xen.restore(engine, xen.create(DomainSpec(memory_pages=600, populated=False)), stream)

    stream = tmp_path / "stream"
    source = xen.create(DomainSpec(memory_pages=600))
    assert not xen.save("libxc", source, stream, SaveOptions(debug=True)).failed
    intact = restored()
    assert (intact.failed, intact.messages) == (False, [])
    contents = bytearray(stream.read_bytes())
    page = xen.read_page(source, 300)
    second = contents.rindex(page)
    assert contents.index(page) < second, "it is there twice"
    contents[second] ^= 1
    stream.write_bytes(contents)
    outcome = restored()
    assert any("pfn" in message and "0x12c" in message for message in outcome.messages), outcome.messages
    # libxc logs it and goes on; of xenmig, who asks for the comparison gets a failure.
    assert (outcome.failed, outcome.error) == ((False, "") if engine == "libxc" else (True, "StreamError"))
