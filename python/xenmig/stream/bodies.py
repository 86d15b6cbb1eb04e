# SPDX-License-Identifier: GPL-3.0-or-later
"""From the bytes of a record's body to the record, for all types but PAGE_DATA.

A record whose variable part is empty is remarked on and ignored (erratum 1). Every parser gets the whole
body, at most ``MAX_BODY_BYTES`` long, and checks its length before it takes anything out. What follows from
other records (the number of p2m frames, the order) is in ``checks``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from xenmig.errors import StreamError
from xenmig.stream.format import (
    CPUID_LEAF_BYTES,
    MSR_ENTRY_BYTES,
    PAGE_BYTES,
    RECORD_HEADER_BYTES,
    RecordType,
)
from xenmig.stream.records import (
    Checkpoint,
    CheckpointDirtyPfnList,
    End,
    HvmContext,
    HvmParams,
    OpaqueRecord,
    Record,
    SharedInfo,
    StaticDataEnd,
    Toolstack,
    Verify,
    X86CpuidPolicy,
    X86MsrPolicy,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
    X86PvVcpuBasic,
    X86PvVcpuExtended,
    X86PvVcpuMsrs,
    X86PvVcpuXsave,
    X86TscInfo,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig.stream.remarks import Remarks

_GUEST_WIDTHS = (4, 8)
_PT_LEVELS = (3, 4)
_PFN_BYTES = 8
_HVM_PARAM_BYTES = 16
_VCPU_HEADER_BYTES = 8
_MAX_U32 = (1 << 32) - 1


class Body(NamedTuple):
    """A record's body and what is needed to speak about it.

    Attributes:
        type: The record's type.
        offset: Where the record header starts, in bytes from the start of the stream.
        bytes: The body without padding.
        remarks: Takes what is odd.
    """

    type: RecordType
    offset: int
    data: bytes
    remarks: Remarks

    def error(self, text: str, at: int = 0) -> StreamError:
        """Returns an error about the byte ``at`` of the body."""
        return StreamError(f"{self.type.name} {text}", offset=self.offset + RECORD_HEADER_BYTES + at)

    def expect(self, length: int) -> None:
        """Refuses a body of another length."""
        if len(self.data) != length:
            raise self.error(f"has {len(self.data)} bytes, expected {length}")

    def expect_multiple(self, size: int, start: int = 0) -> None:
        """Refuses a body that is not ``start`` bytes and then one or more elements of ``size`` bytes."""
        rest = len(self.data) - start
        if rest < size or rest % size:
            after = f"{start} and " if start else ""
            raise self.error(f"has {len(self.data)} bytes, expected {after}a multiple of {size}")

    def reserved(self, at: int, value: int) -> None:
        """Remarks on a reserved field, at byte ``at`` of the body, that is not zero."""
        if value:
            self.remarks.add(
                self.offset + RECORD_HEADER_BYTES + at,
                f"a reserved field of {self.type.name} is not zero: {value:#x}",
            )

    def empty(self) -> None:
        """Remarks that the record has no content and should have been left out."""
        self.remarks.add(self.offset, f"{self.type.name} has no content: it should have been left out")


_Parser: TypeAlias = "Callable[[Body], Record]"


def parse_body(body: Body) -> Record:
    """Makes the record of a body.

    Raises:
        StreamError: The body cannot be one of this type.
    """
    return _PARSERS[body.type](body)


def _signal(kind: type[Record]) -> _Parser:
    """Returns the parser of a record without a body."""

    def parse(body: Body) -> Record:
        body.expect(0)
        return kind(body.offset, 0)

    return parse


def _array(kind: type[OpaqueRecord], size: int = 1) -> _Parser:
    """Returns the parser of a record that is an array of elements of ``size`` bytes, or one blob."""

    def parse(body: Body) -> Record:
        if body.data:
            body.expect_multiple(size)
        else:
            body.empty()
        return kind(body.offset, len(body.data), body.data)

    return parse


def _vcpu(kind: type[X86PvVcpu]) -> _Parser:
    """Returns the parser of a vCPU record: vCPU (4), reserved (4), context."""

    def parse(body: Body) -> Record:
        data = body.data
        if not data:
            body.empty()
            return kind(body.offset, 0, 0, b"")
        if len(data) < _VCPU_HEADER_BYTES:
            raise body.error(f"has {len(data)} bytes, expected at least {_VCPU_HEADER_BYTES}")
        vcpu_id, reserved = struct.unpack_from("<II", data)
        body.reserved(4, reserved)
        if len(data) == _VCPU_HEADER_BYTES:
            body.empty()
        return kind(body.offset, len(data), vcpu_id, data[_VCPU_HEADER_BYTES:])

    return parse


def _shared_info(body: Body) -> Record:
    """SHARED_INFO: exactly one page."""
    body.expect(PAGE_BYTES)
    return SharedInfo(body.offset, len(body.data), body.data)


def _pv_info(body: Body) -> Record:
    """X86_PV_INFO: width (1), levels (1), reserved (2 and 4)."""
    body.expect(8)
    width, levels, reserved_word, reserved_long = struct.unpack("<BBHI", body.data)
    if width not in _GUEST_WIDTHS:
        raise body.error(f"has guest width {width}, expected 4 or 8")
    if levels not in _PT_LEVELS:
        raise body.error(f"has {levels} page table levels, expected 3 or 4", 1)
    body.reserved(2, reserved_word)
    body.reserved(4, reserved_long)
    return X86PvInfo(body.offset, 8, width, levels)


def _p2m_frames(body: Body) -> Record:
    """X86_PV_P2M_FRAMES: first pfn (4), last pfn (4), pfns of the frames (8 each)."""
    body.expect_multiple(_PFN_BYTES, start=8)
    start, end = struct.unpack_from("<II", body.data)
    if start > end:
        raise body.error(f"covers pfn {start:#x} to {end:#x}, expected the first not to be above the last")
    return X86PvP2mFrames(body.offset, len(body.data), start, end, body.data[8:])


def _tsc_info(body: Body) -> Record:
    """X86_TSC_INFO: mode (4), kHz (4), ns (8), incarnation (4), reserved (4)."""
    body.expect(24)
    mode, khz, elapsed_ns, incarnation, reserved = struct.unpack("<IIQII", body.data)
    body.reserved(20, reserved)
    return X86TscInfo(body.offset, 24, mode, khz, elapsed_ns, incarnation)


def _hvm_params(body: Body) -> Record:
    """HVM_PARAMS: count (4), reserved (4), index and value (8 each) of each parameter."""
    data = body.data
    if not data:
        body.empty()
        return HvmParams(body.offset, 0, b"")
    if len(data) < 8:
        raise body.error(f"has {len(data)} bytes, expected at least 8")
    count, reserved = struct.unpack_from("<II", data)
    body.expect(8 + count * _HVM_PARAM_BYTES)
    body.reserved(4, reserved)
    if not count:
        body.empty()
    for number, (index,) in enumerate(struct.iter_unpack("<Q8x", data[8:])):
        if index > _MAX_U32:
            at = 8 + number * _HVM_PARAM_BYTES
            raise body.error(f"has a parameter of index {index:#x}, expected at most {_MAX_U32:#x}", at)
    return HvmParams(body.offset, len(data), data[8:])


def _dirty_pfn_list(body: Body) -> Record:
    """CHECKPOINT_DIRTY_PFN_LIST: pfns (8 each), also none."""
    if len(body.data) % _PFN_BYTES:
        raise body.error(f"has {len(body.data)} bytes, expected a multiple of {_PFN_BYTES}")
    return CheckpointDirtyPfnList(body.offset, len(body.data), body.data)


_PARSERS: dict[RecordType, _Parser] = {
    RecordType.END: _signal(End),
    RecordType.X86_PV_INFO: _pv_info,
    RecordType.X86_PV_P2M_FRAMES: _p2m_frames,
    RecordType.X86_PV_VCPU_BASIC: _vcpu(X86PvVcpuBasic),
    RecordType.X86_PV_VCPU_EXTENDED: _vcpu(X86PvVcpuExtended),
    RecordType.X86_PV_VCPU_XSAVE: _vcpu(X86PvVcpuXsave),
    RecordType.SHARED_INFO: _shared_info,
    RecordType.X86_TSC_INFO: _tsc_info,
    RecordType.HVM_CONTEXT: _array(HvmContext),
    RecordType.HVM_PARAMS: _hvm_params,
    RecordType.TOOLSTACK: _array(Toolstack),
    RecordType.X86_PV_VCPU_MSRS: _vcpu(X86PvVcpuMsrs),
    RecordType.VERIFY: _signal(Verify),
    RecordType.CHECKPOINT: _signal(Checkpoint),
    RecordType.CHECKPOINT_DIRTY_PFN_LIST: _dirty_pfn_list,
    RecordType.STATIC_DATA_END: _signal(StaticDataEnd),
    RecordType.X86_CPUID_POLICY: _array(X86CpuidPolicy, CPUID_LEAF_BYTES),
    RecordType.X86_MSR_POLICY: _array(X86MsrPolicy, MSR_ENTRY_BYTES),
}
