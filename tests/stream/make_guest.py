# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of small guests that a restore takes, for streams that are changed and then held against it."""

from __future__ import annotations

import struct

from tests.stream.make_stream import (
    BASIC_BYTES,
    BASIC_BYTES_32,
    CONTEXTS,
    CPUID_POLICY,
    END,
    HVM,
    HVM_CONTEXT,
    L1TAB,
    MSR_POLICY,
    NOTAB,
    PAGE_BYTES,
    PV,
    SHARED_INFO,
    STATIC_DATA_END,
    VCPU_BASIC,
    VERIFY,
    XALLOC,
    XTAB,
    Entry,
    hvm_params,
    p2m_frames,
    page,
    page_data,
    pv_info,
    record,
    tsc_info,
    vcpu,
)

# Where the PV guest has what its state names.
START_INFO, STORE, CONSOLE, TOP_TABLE, P2M, P2M_NEXT = 1, 2, 3, 4, 5, 6
LAST_PFN = 1023
L2TAB = 0x2
TABLE_PIN = {4: 0xB, 8: 0xC}


def _put(size: int, fields: dict[int, int], width: int) -> bytes:
    """Returns `size` bytes of zeros with words of the guest's width at these places."""
    data = bytearray(size)
    for at, value in fields.items():
        struct.pack_into("<I" if width == 4 else "<Q", data, at, value)
    return bytes(data)


def _static(version: int) -> list[bytes]:
    policies = [record(CPUID_POLICY, bytes(48)), record(MSR_POLICY, bytes(16))]
    return [*policies, record(STATIC_DATA_END)] if version >= 3 else []


def hvm_guest(version: int, context: bytes = b"hvm context") -> tuple[int, list[bytes]]:
    """Returns the records of an HVM or PVH guest; the two differ in their context and parameters alone."""
    first: list[Entry] = [(pfn, NOTAB, page(pfn)) for pfn in range(1, 4)]
    first += [(4, XTAB, None), (5, XALLOC, None)]
    pages = [page_data(first), page_data([(2, NOTAB, page(9))])]
    state = [tsc_info(), record(HVM_CONTEXT, context), hvm_params({1: 0xFEFF8, 5: 1})]
    return HVM, [*_static(version), *pages, *state, record(END)]


def pv_guest(version: int, width: int) -> tuple[int, list[bytes]]:
    """Returns the records of a PV guest with empty page tables."""
    start, regs = ({56: STORE, 72: CONSOLE}, {616: START_INFO, 5008: TOP_TABLE << 12})
    if width == 4:
        start, regs = ({44: STORE, 52: CONSOLE}, {524: START_INFO, 2728: TOP_TABLE << 12})
    frames = [P2M, P2M_NEXT] if width == 8 else [P2M]
    entries: list[Entry] = [(START_INFO, NOTAB, _put(PAGE_BYTES, start, width))]
    entries += [(pfn, NOTAB, page(pfn)) for pfn in (STORE, CONSOLE, P2M, P2M_NEXT, 7)]
    # The top level of a 32-bit guest has four entries, all of them present.
    tables = range(20, 24) if width == 4 else range(0)
    top = b"".join(struct.pack("<Q", pfn << 12 | 1) for pfn in tables).ljust(PAGE_BYTES, b"\0")
    entries += [(TOP_TABLE, TABLE_PIN[width], top), (8, L1TAB, bytes(PAGE_BYTES))]
    entries += [(pfn, L2TAB, bytes(PAGE_BYTES)) for pfn in tables]
    entries.sort()
    context = _put(BASIC_BYTES if width == 8 else BASIC_BYTES_32, regs, width)
    state = [tsc_info(), record(SHARED_INFO, bytes(PAGE_BYTES)), vcpu(VCPU_BASIC, 0, context)]
    state += [vcpu(number, 0, data) for number, data in CONTEXTS.items() if number != VCPU_BASIC]
    return PV, [
        pv_info(width, 4 if width == 8 else 3),
        *_static(version),
        p2m_frames(0, LAST_PFN, frames),
        page_data(entries),
        page_data([(9, XTAB, None), (10, NOTAB, page(1))]),
        *state,
        record(END),
    ]


def verified(records: list[bytes]) -> list[bytes]:
    """Returns the records with VERIFY, and the last batch of pages once more."""
    batches = [at for at, item in enumerate(records) if item[:4] == b"\1\0\0\0"]
    return [*records[: batches[-1] + 1], record(VERIFY), records[batches[-1]], *records[batches[-1] + 1 :]]
