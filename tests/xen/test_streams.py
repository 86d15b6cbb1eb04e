# SPDX-License-Identifier: GPL-3.0-or-later
"""What libxl's own helper and ours write of one and the same guest, which is suspended meanwhile.

A guest that runs is not the same at two moments. So ``xl save -c`` is given a program that has libxl suspend
the guest, and then runs both helpers (``save_twice``). Of a suspended guest only the clocks go on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.xen.stream_pair import compare

from xenmig.helper import stock
from xenmig.stream import GuestType, load_memory

if TYPE_CHECKING:
    from tests.xen.guest import Guest
    from tests.xen.toolstack import Toolstack

NOT_LIVE, LIVE = 0, 1
CLOCKS: dict[int, set[int]] = {
    # Type of the part, and which of its bytes keep counting: public/arch-x86/hvm/save.h.
    2: {*range(1008, 1016)},  # CPU: tsc, what the guest would read now
    12: {  # HPET: mc64, the main counter, and of each timer cmp, which follows it
        *range(240, 248),
        *(byte for timer in (256, 288, 320) for byte in range(timer + 8, timer + 16)),
    },
    13: {*range(4)},  # PMTIMER: tmr_val
}
RECORDS = [
    *("X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END"),
    *("PAGE_DATA", "X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS", "END"),
]
PV_RECORDS = [
    *("X86_PV_INFO", "X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END", "X86_PV_P2M_FRAMES"),
    *("PAGE_DATA", "X86_TSC_INFO", "SHARED_INFO"),
    *("X86_PV_VCPU_BASIC", "X86_PV_VCPU_EXTENDED", "X86_PV_VCPU_XSAVE", "END"),
]


def save_with_both(
    guest: Guest, toolstack: Toolstack, directory: Path, flags: int, policy: str | None = None
) -> tuple[Path, Path]:
    """Returns the streams that libxl's own helper and ours write of the guest, suspended once for both."""
    program = directory / "save-twice"
    program.write_text(f"#!{sys.executable}\n{Path(__file__).with_name('save_twice.py').read_text()}")
    program.chmod(0o700)
    streams = directory / "stock", directory / "xenmig"
    helpers = stock.find(None), toolstack.helper
    saves = [
        {"helper": str(helper), "stream": str(stream)}
        for helper, stream in zip(helpers, streams, strict=True)
    ]
    plan = {"SAVE_TWICE": json.dumps({"flags": flags, "saves": saves})}
    guest.check_goes_on(reports=1)
    run = toolstack.xl(
        *("save", "-c", guest.name, directory / "image"), helper=program, policy=policy, environment=plan
    )
    run.ok()
    assert "save_twice" not in run.output, run.output
    # libxl's own helper keeps no run log: this is our save.
    run.saved()
    guest.check_goes_on()
    return streams


def test_live_streams_are_equal_but_for_the_clocks(
    guest: Guest, toolstack: Toolstack, tmp_path: Path
) -> None:
    assert_equal_but_for_the_clocks(guest, *save_with_both(guest, toolstack, tmp_path, LIVE))


def test_other_streams_are_equal_but_for_the_clocks(
    pvh_guest: Guest, toolstack: Toolstack, tmp_path: Path
) -> None:
    assert_equal_but_for_the_clocks(pvh_guest, *save_with_both(pvh_guest, toolstack, tmp_path, NOT_LIVE))


def assert_equal_but_for_the_clocks(guest: Guest, theirs: Path, ours: Path) -> None:
    """Checks two streams."""
    found = compare(theirs, ours)
    assert found.differences == []
    # Whether a PV guest has registers of that kind is a matter of the processor.
    records = [name for name in found.records if name != "X86_PV_VCPU_MSRS"]
    assert records == (PV_RECORDS if guest.kind == "pv" else RECORDS)
    # An HVM guest's memory has some holes in it.
    assert found.pages > 0.99 * guest.memory_pages
    for kind, offsets in found.context_differences.items():
        assert kind in CLOCKS, f"HVM context part {kind} differs at {offsets}"
        assert set(offsets) <= CLOCKS[kind], f"HVM context part {kind} differs at {offsets}"


def test_a_policy_changes_how_the_memory_is_sent_and_not_which(
    pvh_guest: Guest, toolstack: Toolstack, tmp_path: Path
) -> None:
    theirs, ours = (
        load_memory(stream, digests=True)
        for stream in save_with_both(pvh_guest, toolstack, tmp_path, LIVE, policy="stop-after:rounds=3")
    )
    assert ours.domain_header.guest_type is GuestType.X86_HVM
    assert ours.memory == theirs.memory
    assert len(ours.memory) > 0.99 * pvh_guest.memory_pages
    assert ours.types == theirs.types
    assert ours.hvm_params == theirs.hvm_params
    assert ours.cpuid_policy == theirs.cpuid_policy
    assert ours.msr_policy == theirs.msr_policy
    assert ours.remarks.first == theirs.remarks.first == ()
