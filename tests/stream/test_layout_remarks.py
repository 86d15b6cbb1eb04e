# SPDX-License-Identifier: GPL-3.0-or-later
"""What the order rules remark on: a receiver takes it, and a saver should not have written it."""

from __future__ import annotations

import pytest
from tests.stream.make_stream import (
    CPUID_POLICY,
    HVM,
    PV,
    VCPU_EXTENDED,
    hvm_params,
    p2m_frames,
    record,
    vcpu,
)
from tests.stream.test_layout import (
    AGAIN,
    BASIC,
    CONTEXT,
    CPUID,
    CUT,
    HVM_RECORDS,
    HVM_TAIL,
    PAGES,
    PARAMS,
    PV_RECORDS,
    PV_TAIL,
    REMUS,
    SDE,
    SHARED,
    STOP,
    TSC,
    before,
    check,
    without,
)


@pytest.mark.parametrize(
    ("records", "texts", "guest", "version"),
    [
        (without(HVM_RECORDS, TSC), ["there is no X86_TSC_INFO before this END"], HVM, 3),
        (without(HVM_RECORDS, PARAMS), ["there is no HVM_PARAMS before this END"], HVM, 3),
        (without(HVM_RECORDS, PAGES), ["there is no PAGE_DATA before this END"], HVM, 3),
        (without(PV_RECORDS, TSC), ["there is no X86_TSC_INFO before this END"], PV, 3),
        (
            [SDE, PAGES, CONTEXT, PARAMS, CUT, *HVM_TAIL, STOP],
            ["there is no X86_TSC_INFO before this CHECKPOINT", REMUS],
            HVM,
            3,
        ),
        (
            HVM_RECORDS,
            [
                f"{name} is not known to version 2 of the format"
                for name in ("X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END")
            ],
            HVM,
            2,
        ),
        # In version 2 the static data of an HVM guest goes on up to the first page.
        (
            [TSC, CPUID, PAGES, CONTEXT, PARAMS, STOP],
            ["X86_CPUID_POLICY is not known to version 2 of the format"],
            HVM,
            2,
        ),
        # Where the specification is silent, libxc's receiver decides.
        ([CPUID, *HVM_RECORDS], ["X86_CPUID_POLICY occurs twice: the last one holds"], HVM, 3),
        ([SDE, PAGES, CONTEXT, *HVM_TAIL, STOP], ["HVM_CONTEXT occurs twice: the last one holds"], HVM, 3),
        ([SDE, PAGES, PARAMS, *HVM_TAIL, STOP], ["HVM_PARAMS occurs twice: the last one holds"], HVM, 3),
        ([SDE, PAGES, TSC, *HVM_TAIL, STOP], ["X86_TSC_INFO occurs twice: the last one holds"], HVM, 3),
        ([*PV_RECORDS[:-1], SHARED, STOP], ["SHARED_INFO occurs twice: the last one holds"], PV, 3),
        (
            [*PV_RECORDS[:-1], BASIC, STOP],
            ["X86_PV_VCPU_BASIC of vCPU 0 occurs twice: the last one holds"],
            PV,
            3,
        ),
        (
            before(PV_RECORDS, vcpu(VCPU_EXTENDED, 7, b"x"), STOP),
            ["there is no X86_PV_VCPU_BASIC of vCPU 7 before this END"],
            PV,
            3,
        ),
        (
            before(PV_RECORDS, p2m_frames(512, 1023, [4]), TSC),
            ["X86_PV_P2M_FRAMES stands after PAGE_DATA: the guest has grown"],
            PV,
            3,
        ),
        ([SDE, PAGES, *HVM_TAIL, CUT, PAGES, *HVM_TAIL, CUT, STOP], [REMUS, REMUS], HVM, 3),
        ([SDE, PAGES, *HVM_TAIL, CUT, *HVM_TAIL, STOP], [REMUS], HVM, 3),
        ([*PV_RECORDS[:-1], CUT, PAGES, *PV_TAIL, STOP], [REMUS], PV, 3),
        (
            [SDE, PAGES, AGAIN, PAGES, AGAIN, *HVM_TAIL, STOP],
            ["VERIFY occurs twice: the last one holds"],
            HVM,
            3,
        ),
        # Erratum 1: an empty record counts as none, even where it must not stand.
        (
            before(HVM_RECORDS, record(CPUID_POLICY), STOP),
            ["X86_CPUID_POLICY has no content: it should have been left out"],
            HVM,
            3,
        ),
        (
            before(HVM_RECORDS, hvm_params({}), STOP),
            ["HVM_PARAMS has no content: it should have been left out"],
            HVM,
            3,
        ),
        (
            before(PV_RECORDS, vcpu(VCPU_EXTENDED, 5, b""), STOP),
            ["X86_PV_VCPU_EXTENDED has no content: it should have been left out"],
            PV,
            3,
        ),
    ],
)
def test_what_is_remarked_on(records: list[bytes], texts: list[str], guest: int, version: int) -> None:
    assert check(records, guest, version) == texts
