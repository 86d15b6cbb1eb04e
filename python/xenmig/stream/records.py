# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a stream as frozen dataclasses, one for each type of the specification.

``bodies`` fills them from the bytes of a body; PAGE_DATA, which is read lazily, is in ``pages``. Arrays
stay bytes until their numbers are asked for, which take several times the memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar

from xenmig.stream.format import CPUID_LEAF_BYTES, MSR_ENTRY_BYTES, RecordType


@dataclass(frozen=True, slots=True)
class Record:
    """What every record has.

    Attributes:
        offset: Where the record header starts, in bytes from the start of the stream.
        body_length: Length of the body in bytes, without padding.
    """

    type: ClassVar[RecordType]

    offset: int
    body_length: int

    @property
    def type_number(self) -> int:
        """The number in the record header."""
        return int(self.type)

    @property
    def type_name(self) -> str:
        """The specification's name."""
        return self.type.name

    @property
    def is_empty(self) -> bool:
        """Whether the record has room for content and none in it (erratum 1): it is to be ignored."""
        return False


class End(Record):
    """END: the last record."""

    __slots__ = ()
    type = RecordType.END


class Verify(Record):
    """VERIFY: all memory has been sent; the PAGE_DATA that follows repeats it for comparison."""

    __slots__ = ()
    type = RecordType.VERIFY


class Checkpoint(Record):
    """CHECKPOINT: the records before it are a consistent state of the domain."""

    __slots__ = ()
    type = RecordType.CHECKPOINT


class StaticDataEnd(Record):
    """STATIC_DATA_END: what does not depend on the guest's execution has been sent."""

    __slots__ = ()
    type = RecordType.STATIC_DATA_END


@dataclass(frozen=True, slots=True)
class X86PvInfo(Record):
    """X86_PV_INFO.

    Attributes:
        guest_width: Bytes in a guest's word: 4 or 8.
        pt_levels: Levels of its page tables: 3 or 4.
    """

    type: ClassVar[RecordType] = RecordType.X86_PV_INFO

    guest_width: int
    pt_levels: int


@dataclass(frozen=True, slots=True)
class X86PvP2mFrames(Record):
    """X86_PV_P2M_FRAMES: where the guest keeps its p2m.

    Attributes:
        start_pfn: First pfn that the frames cover.
        end_pfn: Last pfn that the frames cover.
        data: The pfns of the frames, as they are in the stream.
    """

    type: ClassVar[RecordType] = RecordType.X86_PV_P2M_FRAMES

    start_pfn: int
    end_pfn: int
    data: bytes = field(repr=False)

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.data) // 8

    @property
    def p2m_pfns(self) -> tuple[int, ...]:
        """The pfns of the frames."""
        return struct.unpack(f"<{self.frames}Q", self.data)


@dataclass(frozen=True, slots=True)
class X86PvVcpu(Record):
    """One of the four kinds of vCPU state.

    Attributes:
        vcpu_id: The vCPU's number.
        context: What the domctl of this kind gave.
    """

    vcpu_id: int
    context: bytes = field(repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether the context has no bytes."""
        return not self.context


class X86PvVcpuBasic(X86PvVcpu):
    """X86_PV_VCPU_BASIC: ``XEN_DOMCTL_getvcpucontext``."""

    __slots__ = ()
    type = RecordType.X86_PV_VCPU_BASIC


class X86PvVcpuExtended(X86PvVcpu):
    """X86_PV_VCPU_EXTENDED: ``XEN_DOMCTL_get_ext_vcpucontext``."""

    __slots__ = ()
    type = RecordType.X86_PV_VCPU_EXTENDED


class X86PvVcpuXsave(X86PvVcpu):
    """X86_PV_VCPU_XSAVE: ``XEN_DOMCTL_getvcpuextstate``."""

    __slots__ = ()
    type = RecordType.X86_PV_VCPU_XSAVE


class X86PvVcpuMsrs(X86PvVcpu):
    """X86_PV_VCPU_MSRS: ``XEN_DOMCTL_get_vcpu_msrs``."""

    __slots__ = ()
    type = RecordType.X86_PV_VCPU_MSRS


@dataclass(frozen=True, slots=True)
class X86TscInfo(Record):
    """X86_TSC_INFO.

    Attributes:
        mode: ``TSC_MODE_*``.
        khz: TSC frequency in kHz.
        elapsed_ns: Elapsed guest time in nanoseconds.
        incarnation: How often the domain was saved and restored.
    """

    type: ClassVar[RecordType] = RecordType.X86_TSC_INFO

    mode: int
    khz: int
    elapsed_ns: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class HvmParams(Record):
    """HVM_PARAMS.

    Attributes:
        data: Index and value of each parameter, as they are in the stream.
    """

    type: ClassVar[RecordType] = RecordType.HVM_PARAMS

    data: bytes = field(repr=False)

    @property
    def count(self) -> int:
        """How many parameters there are."""
        return len(self.data) // 16

    @property
    def params(self) -> tuple[tuple[int, int], ...]:
        """(index, value) of each parameter, in the stream's order."""
        return tuple((index, value) for index, value in struct.iter_unpack("<QQ", self.data))

    @property
    def is_empty(self) -> bool:
        """Whether there is no parameter."""
        return not self.data


@dataclass(frozen=True, slots=True)
class CheckpointDirtyPfnList(Record):
    """CHECKPOINT_DIRTY_PFN_LIST: only in COLO's back channel.

    Attributes:
        data: The pfns, as they are in the stream.
    """

    type: ClassVar[RecordType] = RecordType.CHECKPOINT_DIRTY_PFN_LIST

    data: bytes = field(repr=False)

    @property
    def pfns(self) -> tuple[int, ...]:
        """The pfns, in no order."""
        return struct.unpack(f"<{len(self.data) // 8}Q", self.data)


@dataclass(frozen=True, slots=True)
class OpaqueRecord(Record):
    """A record whose body this package does not open.

    Attributes:
        data: The body.
    """

    data: bytes = field(repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether the body has no bytes."""
        return not self.data


class SharedInfo(OpaqueRecord):
    """SHARED_INFO: the shared info page."""

    __slots__ = ()
    type = RecordType.SHARED_INFO


class HvmContext(OpaqueRecord):
    """HVM_CONTEXT: what ``XEN_DOMCTL_gethvmcontext`` gave."""

    __slots__ = ()
    type = RecordType.HVM_CONTEXT


class Toolstack(OpaqueRecord):
    """TOOLSTACK, deprecated: belongs to the layers above."""

    __slots__ = ()
    type = RecordType.TOOLSTACK


class X86CpuidPolicy(OpaqueRecord):
    """X86_CPUID_POLICY: an array of ``xen_cpuid_leaf_t``."""

    __slots__ = ()
    type = RecordType.X86_CPUID_POLICY

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return len(self.data) // CPUID_LEAF_BYTES


class X86MsrPolicy(OpaqueRecord):
    """X86_MSR_POLICY: an array of ``xen_msr_entry_t``."""

    __slots__ = ()
    type = RecordType.X86_MSR_POLICY

    @property
    def entries(self) -> int:
        """How many MSRs there are."""
        return len(self.data) // MSR_ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class OptionalRecord(Record):
    """A record of a type with bit 31 set: a receiver may not know it, and its body is skipped.

    Attributes:
        number: The type number.
    """

    number: int

    @property
    def type_number(self) -> int:
        """The number in the record header."""
        return self.number

    @property
    def type_name(self) -> str:
        """The number as text: the specification defines no such record yet."""
        return f"optional {self.number:#x}"
