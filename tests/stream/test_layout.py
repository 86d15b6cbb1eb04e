# SPDX-License-Identifier: GPL-3.0-or-later
"""The order rules: each kind of guest, each version, each rule broken once."""

from __future__ import annotations

import io
from typing import Any

import pytest
from tests.stream.make_stream import (
    BASIC_BYTES_32,
    CHECKPOINT,
    CONTEXTS,
    CPUID_POLICY,
    DIRTY_PFN_LIST,
    END,
    HVM,
    HVM_CONTEXT,
    L1TAB,
    MSR_POLICY,
    NOTAB,
    PV,
    SHARED_INFO,
    STATIC_DATA_END,
    TOOLSTACK,
    VCPU_BASIC,
    VCPU_EXTENDED,
    VERIFY,
    XTAB,
    headers,
    hvm_params,
    hvm_stream,
    p2m_frames,
    page,
    page_data,
    pages,
    pv_info,
    pv_stream,
    record,
    tsc_info,
    vcpu,
)

from xenmig.errors import StreamError
from xenmig.stream import check_stream, load_memory

CPUID = record(CPUID_POLICY, bytes(24))
MSRS = record(MSR_POLICY, bytes(16))
SDE = record(STATIC_DATA_END)
PAGES = pages(1, 2)
TSC = tsc_info()
CONTEXT = record(HVM_CONTEXT, b"context")
PARAMS = hvm_params({1: 2})
STOP = record(END)
OPTIONAL = record(0x80000001, b"whatever")
BLOB = record(TOOLSTACK, b"blob")
AGAIN = record(VERIFY)
CUT = record(CHECKPOINT)
REMUS = "CHECKPOINT: xenmig restore does not take streams of Remus and COLO"
HVM_TAIL = [TSC, CONTEXT, PARAMS]
HVM_RECORDS = [CPUID, MSRS, SDE, PAGES, *HVM_TAIL, STOP]

INFO = pv_info()
P2M = p2m_frames(0, 511, [3])
SHARED = record(SHARED_INFO, page(9))
BASIC = vcpu(VCPU_BASIC, 0, CONTEXTS[VCPU_BASIC])
EXTENDED = vcpu(VCPU_EXTENDED, 0, b"extended")
NARROW_TAIL = [TSC, SHARED, vcpu(VCPU_BASIC, 0, bytes(BASIC_BYTES_32)), EXTENDED]
PV_TAIL = [TSC, SHARED, BASIC, EXTENDED]
PV_RECORDS = [INFO, CPUID, MSRS, SDE, P2M, PAGES, *PV_TAIL, STOP]


def check(records: list[bytes], guest: int = HVM, version: int = 3) -> list[str]:
    """Checks a stream in both readers and returns the texts of the remarks."""
    stream = headers(guest, version) + b"".join(records)
    checked = check_stream(io.BytesIO(stream))
    image = load_memory(io.BytesIO(stream))
    texts = [remark.text for remark in checked.remarks.first]
    assert [remark.text for remark in image.remarks.first] == texts
    return texts


def refuse(records: list[bytes], at: int, text: str, guest: int = HVM, version: int = 3) -> None:
    """Checks that a stream is refused because of the record with this index."""
    stream = headers(guest, version) + b"".join(records)
    offset = len(headers() + b"".join(records[:at]))
    for read in (check_stream, load_memory):
        with pytest.raises(StreamError, match=text) as caught:
            read(io.BytesIO(stream))
        assert caught.value.offset == offset
    # Without the rules the records are good: nothing but their order was wrong.
    if AGAIN not in records:
        assert load_memory(io.BytesIO(stream + STOP), check=False)


def without(records: list[bytes], *left_out: bytes) -> list[bytes]:
    return [item for item in records if item not in left_out]


def before(records: list[bytes], moved: bytes, place: bytes) -> list[bytes]:
    """Moves (or inserts) a record in front of another one."""
    rest = without(records, moved)
    at = rest.index(place)
    return [*rest[:at], moved, *rest[at:]]


def test_good_streams_have_nothing_to_remark_on() -> None:
    assert check(HVM_RECORDS) == []
    assert check(PV_RECORDS, PV) == []
    for stream in (hvm_stream(), pv_stream()):
        assert check_stream(io.BytesIO(stream)).remarks.count == 0


GOOD: dict[str, tuple[list[bytes], int, int]] = {
    "HVM, parameters before the context": (before(HVM_RECORDS, PARAMS, CONTEXT), HVM, 3),
    "HVM, context before the pages": (before(HVM_RECORDS, CONTEXT, PAGES), HVM, 3),
    "HVM, no policies": (without(HVM_RECORDS, CPUID, MSRS), HVM, 3),
    "HVM, policies in the other order": (before(HVM_RECORDS, MSRS, CPUID), HVM, 3),
    "HVM, version 2": (without(HVM_RECORDS, CPUID, MSRS, SDE), HVM, 2),
    "HVM, version 2, context before the pages": ([CONTEXT, PAGES, TSC, PARAMS, STOP], HVM, 2),
    "HVM, optional records everywhere": ([item for each in HVM_RECORDS for item in (OPTIONAL, each)], HVM, 3),
    "HVM, several PAGE_DATA": ([SDE, PAGES, PAGES, *HVM_TAIL, PAGES, STOP], HVM, 3),
    "HVM, VERIFY": ([SDE, PAGES, AGAIN, PAGES, *HVM_TAIL, STOP], HVM, 3),
    "HVM, VERIFY after the tail": ([SDE, PAGES, *HVM_TAIL, AGAIN, PAGES, STOP], HVM, 3),
    "PV, version 2": (without(PV_RECORDS, CPUID, MSRS, SDE), PV, 2),
    "PV, policies before X86_PV_INFO": ([CPUID, MSRS, INFO, *PV_RECORDS[3:]], PV, 3),
    "PV, p2m frames in two records": (
        [INFO, SDE, P2M, p2m_frames(512, 1023, [4]), pages(1023), *PV_TAIL, STOP],
        PV,
        3,
    ),
    "PV, 32-bit": ([pv_info(4, 3), SDE, p2m_frames(0, 1023, [3]), PAGES, *NARROW_TAIL, STOP], PV, 3),
    "PV, vCPU records in another order": (before(PV_RECORDS, EXTENDED, BASIC), PV, 3),
    "PV, shared info before the pages": (before(PV_RECORDS, SHARED, PAGES), PV, 3),
    "PV, last pfn of the p2m": (before(PV_RECORDS, page_data([(511, XTAB, None)]), TSC), PV, 3),
    "PV, VERIFY": (before(before(PV_RECORDS, AGAIN, TSC), pages(2, 1), TSC), PV, 3),
}


@pytest.mark.parametrize(("records", "guest", "version"), GOOD.values(), ids=GOOD.keys())
def test_what_is_allowed(records: list[bytes], guest: int, version: int) -> None:
    assert check(records, guest, version) == []


BAD: dict[str, tuple[list[bytes], int, str, dict[str, Any]]] = {
    "toolstack blob early": ([BLOB, *HVM_RECORDS], 0, "TOOLSTACK is deprecated", {}),
    "toolstack blob late": (before(HVM_RECORDS, BLOB, STOP), 7, "TOOLSTACK is deprecated", {}),
    "pfn twice in a record": (
        before(HVM_RECORDS, page_data([(7, XTAB, None), (5, XTAB, None), (7, NOTAB, page(1))]), STOP),
        7,
        "PAGE_DATA has pfn 0x7 twice",
        {},
    ),
    "pfn beyond x86": (
        before(HVM_RECORDS, page_data([(1 << 40, XTAB, None)]), STOP),
        7,
        "has pfn 0x10000000000, expected none above x86's last, 0xffffffffff",
        {},
    ),
    "width and levels that differ": (
        [pv_info(8, 3), SDE],
        0,
        "X86_PV_INFO has guest width 8 and 3 page table levels, expected 4",
        {"guest": PV},
    ),
    "too many pfns of 32 bits": (
        [pv_info(4, 3), SDE, p2m_frames(0, (1 << 32) - 1, [3])],
        2,
        "X86_PV_P2M_FRAMES ends at pfn 0xffffffff, which a 32-bit guest cannot",
        {"guest": PV},
    ),
    "gap in the p2m": (
        [INFO, SDE, p2m_frames(512, 1023, [4])],
        2,
        "starts at pfn 0x200, expected at most 0x0: there is a gap",
        {"guest": PV},
    ),
    "shared info before X86_PV_INFO": (
        [SHARED, *without(PV_RECORDS, CPUID, MSRS, SDE, SHARED)],
        0,
        "SHARED_INFO stands before X86_PV_INFO",
        {"guest": PV, "version": 2},
    ),
    "p2m frames after a vCPU": (before(PV_RECORDS, P2M, STOP), 4, "PAGE_DATA stands before", {"guest": PV}),
    "p2m frames once more after a vCPU": (
        before(PV_RECORDS, p2m_frames(0, 511, [4]), STOP),
        10,
        "X86_PV_P2M_FRAMES stands after a vCPU record",
        {"guest": PV},
    ),
    "short registers": (
        before(PV_RECORDS, vcpu(VCPU_BASIC, 1, bytes(BASIC_BYTES_32)), STOP),
        10,
        "X86_PV_VCPU_BASIC of vCPU 1 has a state of 2800 bytes, expected 5168",
        {"guest": PV},
    ),
    "long extended state": (
        before(PV_RECORDS, vcpu(VCPU_EXTENDED, 1, bytes(129)), STOP),
        10,
        "has a state of 129 bytes, expected at most 128",
        {"guest": PV},
    ),
    "no registers of vCPU 0": (
        [*without(PV_RECORDS, BASIC, EXTENDED, STOP), vcpu(VCPU_BASIC, 1, CONTEXTS[VCPU_BASIC]), STOP],
        9,
        "END comes too early, expected X86_PV_VCPU_BASIC of vCPU 0 before it",
        {"guest": PV},
    ),
    "no STATIC_DATA_END": (without(HVM_RECORDS, SDE), 2, "PAGE_DATA stands before STATIC_DATA_END", {}),
    "only END": ([STOP], 0, "END stands before STATIC_DATA_END", {}),
    "context before STATIC_DATA_END": (
        [CONTEXT, *HVM_RECORDS],
        0,
        "HVM_CONTEXT stands before STATIC_DATA",
        {},
    ),
    "VERIFY before STATIC_DATA_END": ([AGAIN, *HVM_RECORDS], 0, "VERIFY stands before STATIC_DATA_END", {}),
    "policy after STATIC_DATA_END": (
        before(HVM_RECORDS, MSRS, PAGES),
        2,
        "X86_MSR_POLICY stands after the end of the static data",
        {},
    ),
    "STATIC_DATA_END twice": ([SDE, SDE, PAGES, *HVM_TAIL, STOP], 1, "STATIC_DATA_END stands after", {}),
    "policy after the pages in version 2": (
        [PAGES, CPUID],
        1,
        "X86_CPUID_POLICY stands after",
        {"version": 2},
    ),
    "policy after the p2m in version 2": (
        [INFO, P2M, MSRS],
        2,
        "X86_MSR_POLICY stands after",
        {"guest": PV, "version": 2},
    ),
    "no context": (without(HVM_RECORDS, CONTEXT), 6, "END comes too early, expected HVM_CONTEXT", {}),
    "PV record in HVM": ([INFO, *HVM_RECORDS], 0, "X86_PV_INFO is no record of an x86 HVM domain", {}),
    "PV vCPU in HVM": (before(HVM_RECORDS, BASIC, STOP), 7, "VCPU_BASIC is no record of an x86 HVM", {}),
    "HVM record in PV": (
        before(PV_RECORDS, CONTEXT, STOP),
        10,
        "HVM_CONTEXT is no record of an x86 PV",
        {"guest": PV},
    ),
    "back channel": (
        before(HVM_RECORDS, record(DIRTY_PFN_LIST, bytes(8)), STOP),
        7,
        "DIRTY_PFN_LIST belongs to the back",
        {},
    ),
    "VERIFY without pages": (
        [SDE, PAGES, AGAIN, *HVM_TAIL, STOP],
        6,
        "END follows VERIFY without any PAGE",
        {},
    ),
    "static data after VERIFY": ([SDE, PAGES, AGAIN, CPUID], 3, "X86_CPUID_POLICY stands after", {}),
    "checkpoint without context": ([SDE, PAGES, TSC, CUT], 3, "CHECKPOINT comes too early", {}),
    "half a state after a checkpoint": (
        [SDE, PAGES, *HVM_TAIL, CUT, PAGES, STOP],
        7,
        "END comes too early, expected HVM_CONTEXT",
        {},
    ),
    "no X86_PV_INFO": (without(PV_RECORDS, INFO), 3, "P2M_FRAMES stands before X86_PV_INFO", {"guest": PV}),
    "X86_PV_INFO after the p2m": ([SDE, P2M, INFO], 1, "P2M_FRAMES stands before X86_PV_INFO", {"guest": PV}),
    "X86_PV_INFO twice": ([INFO, INFO], 1, "X86_PV_INFO occurs twice", {"guest": PV}),
    "no p2m": (without(PV_RECORDS, P2M), 4, "PAGE_DATA stands before X86_PV_P2M_FRAMES", {"guest": PV}),
    "too few p2m frames": (
        [INFO, SDE, p2m_frames(0, 512, [3])],
        2,
        "has 1 frames, expected 2",
        {"guest": PV},
    ),
    "too many p2m frames": (
        [INFO, SDE, p2m_frames(0, 511, [3, 4])],
        2,
        "has 2 frames, expected 1",
        {"guest": PV},
    ),
    "too many p2m frames of 32 bits": (
        [pv_info(4, 3), SDE, p2m_frames(0, 1023, [3, 4])],
        2,
        "has 2 frames, expected 1",
        {"guest": PV},
    ),
    "p2m frames across an edge": (
        [INFO, SDE, p2m_frames(511, 512, [3])],
        2,
        "has 1 frames, expected 2",
        {"guest": PV},
    ),
    "pfn beyond the p2m": (
        before(PV_RECORDS, page_data([(0, XTAB, None), (512, L1TAB, page(1))]), TSC),
        6,
        "has pfn 0x200, expected none above the p2m's last, 0x1ff",
        {"guest": PV},
    ),
    "vCPU before the pages": (
        before(PV_RECORDS, BASIC, PAGES),
        5,
        "VCPU_BASIC stands before PAGE",
        {"guest": PV},
    ),
    "pages after a vCPU": (
        before(PV_RECORDS, pages(7), STOP),
        10,
        "PAGE_DATA stands after a vCPU",
        {"guest": PV},
    ),
    "no vCPU": (without(PV_RECORDS, BASIC, EXTENDED), 8, "expected X86_PV_VCPU_BASIC before", {"guest": PV}),
    "no shared info": (without(PV_RECORDS, SHARED), 9, "expected SHARED_INFO before it", {"guest": PV}),
}


@pytest.mark.parametrize(("records", "at", "text", "options"), BAD.values(), ids=BAD.keys())
def test_what_is_refused(records: list[bytes], at: int, text: str, options: dict[str, int]) -> None:
    refuse(records, at, text, **options)
