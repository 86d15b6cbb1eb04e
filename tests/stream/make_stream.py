# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds migration streams for the tests, from the specification's numbers and from nothing of xenmig.

A ``Domain`` is the state that a stream carries; ``hvm_stream`` and ``pv_stream`` write a good stream of it.
The other functions write one record each, for streams that are not good.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PAGE_BYTES = 4096

END = 0x0
PAGE_DATA = 0x1
PV_INFO = 0x2
P2M_FRAMES = 0x3
VCPU_BASIC = 0x4
VCPU_EXTENDED = 0x5
VCPU_XSAVE = 0x6
SHARED_INFO = 0x7
TSC_INFO = 0x8
HVM_CONTEXT = 0x9
HVM_PARAMS = 0xA
TOOLSTACK = 0xB
VCPU_MSRS = 0xC
VERIFY = 0xD
CHECKPOINT = 0xE
DIRTY_PFN_LIST = 0xF
STATIC_DATA_END = 0x10
CPUID_POLICY = 0x11
MSR_POLICY = 0x12

PV = 1
HVM = 2

# A vCPU's registers in a 64-bit and in a 32-bit guest; a state of each kind, of a length that it can have.
BASIC_BYTES = 5168
BASIC_BYTES_32 = 2800
CONTEXTS = {
    VCPU_BASIC: b"basic".ljust(BASIC_BYTES, b"\0"),
    # Its own vCPU and length are in front, and have to be vCPU 0 and this length for Xen to take it.
    VCPU_EXTENDED: struct.pack("<II", 0, 128).ljust(128, b"\0"),
    VCPU_XSAVE: b"xsave".ljust(16, b"\0"),
    VCPU_MSRS: b"msrs".ljust(16, b"\0"),
}

# What a PAGE_DATA record says about one pfn: (pfn, type number, contents or None).
Entry = tuple[int, int, "bytes | None"]

NOTAB = 0x0
L1TAB = 0x1
BROKEN = 0xD
XALLOC = 0xE
XTAB = 0xF


def page(seed: int) -> bytes:
    """Returns a page that differs for each seed; 0 gives zeros."""
    return struct.pack("<Q", seed) * (PAGE_BYTES // 8)


def image_header(version: int = 3, options: int = 0) -> bytes:
    return b"\xff" * 8 + b"XENF" + struct.pack(">IH6x", version, options)


def domain_header(guest: int = HVM, page_shift: int = 12, major: int = 4, minor: int = 17) -> bytes:
    return struct.pack("<IH2xII", guest, page_shift, major, minor)


def headers(guest: int = HVM, version: int = 3) -> bytes:
    return image_header(version) + domain_header(guest)


def record(number: int, body: bytes = b"", padding: int = 0) -> bytes:
    """Returns a record; ``padding`` is the value of the padding's bytes."""
    return struct.pack("<II", number, len(body)) + body + bytes([padding]) * (-len(body) % 8)


def page_data(entries: list[Entry]) -> bytes:
    words = b"".join(struct.pack("<Q", kind << 60 | pfn) for pfn, kind, _ in entries)
    contents = b"".join(contents for _, _, contents in entries if contents is not None)
    return record(PAGE_DATA, struct.pack("<II", len(entries), 0) + words + contents)


def pages(*pfns: int, seed: int = 1) -> bytes:
    """Returns a PAGE_DATA record of ordinary pages."""
    return page_data([(pfn, NOTAB, page(seed + pfn)) for pfn in pfns])


def tsc_info() -> bytes:
    return record(TSC_INFO, struct.pack("<IIQII", 1, 2_400_000, 123_456_789_012, 3, 0))


def hvm_params(params: dict[int, int]) -> bytes:
    body = struct.pack("<II", len(params), 0)
    return record(HVM_PARAMS, body + b"".join(struct.pack("<QQ", *param) for param in params.items()))


def vcpu(number: int, vcpu_id: int, context: bytes) -> bytes:
    return record(number, struct.pack("<II", vcpu_id, 0) + context)


def p2m_frames(start: int, end: int, frames: list[int]) -> bytes:
    return record(P2M_FRAMES, struct.pack(f"<II{len(frames)}Q", start, end, *frames))


def pv_info(width: int = 8, levels: int = 4) -> bytes:
    return record(PV_INFO, struct.pack("<BBHI", width, levels, 0, 0))


@dataclass
class Domain:
    """What is put into a stream.

    Attributes:
        batches: The PAGE_DATA records, in order.
        verify: The PAGE_DATA records after VERIFY; None for no VERIFY.
    """

    batches: list[list[Entry]] = field(default_factory=lambda: [[(5, NOTAB, page(5))]])
    verify: list[list[Entry]] | None = None
    cpuid: bytes = bytes(range(48))
    msrs: bytes = bytes(range(16))
    context: bytes = b"hvm context"
    params: dict[int, int] = field(default_factory=lambda: {1: 0xFEFF8000, 5: 1})

    def memory(self) -> dict[int, bytes]:
        """Returns what a receiver ends with: a model of its own, page by page."""
        memory: dict[int, bytes] = {}
        for batch in self.batches:
            for pfn, _, contents in batch:
                memory.pop(pfn, None)
                if contents is not None:
                    memory[pfn] = contents
        return memory

    def page_records(self) -> bytes:
        data = b"".join(page_data(batch) for batch in self.batches)
        if self.verify is not None:
            data += record(VERIFY) + b"".join(page_data(batch) for batch in self.verify)
        return data


def policies(domain: Domain) -> bytes:
    return record(CPUID_POLICY, domain.cpuid) + record(MSR_POLICY, domain.msrs)


def hvm_tail(domain: Domain) -> bytes:
    """Returns what follows the pages, in libxc's order: the context before the parameters."""
    return tsc_info() + record(HVM_CONTEXT, domain.context) + hvm_params(domain.params)


def hvm_stream(domain: Domain | None = None, version: int = 3) -> bytes:
    domain = Domain() if domain is None else domain
    static = policies(domain) + record(STATIC_DATA_END) if version >= 3 else b""
    return headers(HVM, version) + static + domain.page_records() + hvm_tail(domain) + record(END)


def pv_tail(vcpus: int = 2) -> bytes:
    data = tsc_info() + record(SHARED_INFO, page(99))
    for vcpu_id in range(vcpus):
        for number, context in CONTEXTS.items():
            data += vcpu(number, vcpu_id, context)
    return data


def pv_stream(domain: Domain | None = None, version: int = 3) -> bytes:
    """Returns a 64-bit PV guest's stream with a p2m of 1024 pfns in two frames."""
    domain = Domain() if domain is None else domain
    static = pv_info()
    if version >= 3:
        static += policies(domain) + record(STATIC_DATA_END)
    p2m = p2m_frames(0, 1023, [3, 4])
    return headers(PV, version) + static + p2m + domain.page_records() + pv_tail() + record(END)
