# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules about the order and the number of records: the specification's section "Layout".

Gets the records one by one from whoever reads, before their pages are read, and refuses the first one
that must not stand where it stands. A rule follows for each dependency that the specification names:

* static data stands before STATIC_DATA_END, everything else after it; in version 2 that place is
  inferred: the first X86_PV_P2M_FRAMES of a PV guest, the first PAGE_DATA of an HVM guest;
* PV: X86_PV_INFO, X86_PV_P2M_FRAMES, PAGE_DATA, vCPU records, in this order, and no pfn beyond the p2m;
* what a receiver needs is there, and once, before each CHECKPOINT and before END;
* after VERIFY come pages, and no new static data.

HVM_PARAMS and HVM_CONTEXT may come in either order: the specification wants the parameters first, libxc
writes the context first, and a receiver applies both at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenmig.errors import StreamError
from xenmig.stream.format import PAGE_BYTES, GuestType, RecordType
from xenmig.stream.pages import PageData
from xenmig.stream.records import (
    Checkpoint,
    End,
    OptionalRecord,
    Record,
    Verify,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
)

if TYPE_CHECKING:
    from xenmig.stream.format import DomainHeader, ImageHeader
    from xenmig.stream.remarks import Remarks

_STATIC = frozenset(
    {
        RecordType.X86_PV_INFO,
        RecordType.X86_CPUID_POLICY,
        RecordType.X86_MSR_POLICY,
        RecordType.STATIC_DATA_END,
    }
)
# Only these are neither static data nor memory nor register content, so they may stand on both sides.
_ANYWHERE = frozenset({RecordType.TOOLSTACK})
_NEW_IN_V3 = frozenset({RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY, RecordType.STATIC_DATA_END})

_BOTH = frozenset(
    {
        RecordType.END,
        RecordType.PAGE_DATA,
        RecordType.X86_TSC_INFO,
        RecordType.TOOLSTACK,
        RecordType.VERIFY,
        RecordType.CHECKPOINT,
        RecordType.STATIC_DATA_END,
        RecordType.X86_CPUID_POLICY,
        RecordType.X86_MSR_POLICY,
    }
)
_VALID = {
    GuestType.X86_HVM: _BOTH | {RecordType.HVM_CONTEXT, RecordType.HVM_PARAMS},
    GuestType.X86_PV: _BOTH
    | {
        RecordType.X86_PV_INFO,
        RecordType.X86_PV_P2M_FRAMES,
        RecordType.X86_PV_VCPU_BASIC,
        RecordType.X86_PV_VCPU_EXTENDED,
        RecordType.X86_PV_VCPU_XSAVE,
        RecordType.X86_PV_VCPU_MSRS,
        RecordType.SHARED_INFO,
    },
}
# Where version 2 has its static data end.
_STATIC_END_IN_V2 = {GuestType.X86_HVM: RecordType.PAGE_DATA, GuestType.X86_PV: RecordType.X86_PV_P2M_FRAMES}
# Needed before each CHECKPOINT and before END; X86_PV_VCPU_BASIC is needed once for each vCPU.
_NEEDED = {
    GuestType.X86_HVM: (RecordType.HVM_CONTEXT,),
    GuestType.X86_PV: (RecordType.SHARED_INFO, RecordType.X86_PV_VCPU_BASIC),
}
# A guest can be restored without these, but a saver that leaves them out is likely to be wrong.
_EXPECTED = {
    GuestType.X86_HVM: (RecordType.X86_TSC_INFO, RecordType.HVM_PARAMS),
    GuestType.X86_PV: (RecordType.X86_TSC_INFO,),
}
# These may occur any number of times; vCPU records are counted for each vCPU.
_ANY_NUMBER = frozenset(
    {
        RecordType.PAGE_DATA,
        RecordType.X86_PV_P2M_FRAMES,
        RecordType.X86_PV_VCPU_BASIC,
        RecordType.X86_PV_VCPU_EXTENDED,
        RecordType.X86_PV_VCPU_XSAVE,
        RecordType.X86_PV_VCPU_MSRS,
        RecordType.TOOLSTACK,
    }
)


@dataclass
class _Section:
    """What has been seen since the start of the stream or the last CHECKPOINT.

    Attributes:
        seen: Types that have occurred.
        vcpus: For each vCPU, the types of its records.
    """

    seen: set[RecordType] = field(default_factory=set)
    vcpus: dict[int, set[RecordType]] = field(default_factory=dict)


class LayoutRules:
    """Checks the records of one stream, in the stream's order.

    Attributes:
        verifying: Whether VERIFY has been seen: pages from here on repeat what was sent before.
    """

    def __init__(self, image: ImageHeader, domain: DomainHeader, remarks: Remarks) -> None:
        """Starts before the first record; ``remarks`` takes what is odd."""
        self.verifying = False
        self._version = image.version
        self._guest = domain.guest_type
        self._remarks = remarks
        self._section = _Section()
        self._static_ended = False
        self._pages_seen = False
        self._verified = False
        self._checkpoints = 0
        self._guest_width = 0
        self._p2m_end: int | None = None

    def check(self, record: Record) -> None:
        """Takes the next record.

        Raises:
            StreamError: It must not stand here, or something that must stand before it is missing.
        """
        if isinstance(record, OptionalRecord):
            return
        self._check_guest(record)
        self._check_static(record)
        if record.is_empty:
            return
        self._check_number(record)
        match record:
            case X86PvInfo():
                self._guest_width = record.guest_width
            case X86PvP2mFrames():
                self._check_p2m_frames(record)
            case PageData():
                self._check_pages(record)
            case X86PvVcpu():
                self._check_vcpu(record)
            case Verify():
                self._check_verify(record)
            case Checkpoint():
                self._check_complete(record)
                self._section = _Section()
                self._checkpoints += 1
            case End():
                self._check_complete(record)
            case _:
                pass

    def _check_number(self, record: Record) -> None:
        """Refuses what has been there already."""
        if record.type in self._section.seen and record.type not in _ANY_NUMBER:
            raise _error(record, "occurs twice, expected it once")
        self._section.seen.add(record.type)

    def _check_guest(self, record: Record) -> None:
        """Refuses records that this type of guest does not have."""
        if record.type is RecordType.CHECKPOINT_DIRTY_PFN_LIST:
            raise _error(record, "belongs to the back channel from the receiver to the sender")
        if record.type not in _VALID[self._guest]:
            raise _error(record, f"is no record of an {self._guest.title} domain")

    def _check_static(self, record: Record) -> None:
        """Keeps static data and all else apart."""
        if self._version < 3 and record.type in _NEW_IN_V3:
            self._remarks.add(record.offset, f"{record.type_name} is not known to version 2 of the format")
        if record.type in _STATIC:
            if self._static_ended:
                raise _error(record, "stands after the end of the static data, expected it before")
            self._static_ended = record.type is RecordType.STATIC_DATA_END
        elif not self._static_ended and record.type not in _ANYWHERE:
            if self._version >= 3:
                raise _error(record, "stands before STATIC_DATA_END, expected it after")
            self._static_ended = record.type is _STATIC_END_IN_V2[self._guest]

    def _check_p2m_frames(self, record: X86PvP2mFrames) -> None:
        """X86_PV_P2M_FRAMES: after the guest's width is known, before the first page."""
        if not self._guest_width:
            raise _error(record, "stands before X86_PV_INFO, expected it after")
        if self._pages_seen:
            raise _error(record, "stands after PAGE_DATA, expected it before")
        entries_per_frame = PAGE_BYTES // self._guest_width
        frames = record.end_pfn // entries_per_frame - record.start_pfn // entries_per_frame + 1
        if record.frames != frames:
            covered = f"pfn {record.start_pfn:#x} to {record.end_pfn:#x}"
            raise _error(record, f"has {record.frames} frames, expected {frames} for {covered}")
        self._p2m_end = max(record.end_pfn, self._p2m_end or 0)

    def _check_pages(self, record: PageData) -> None:
        """PAGE_DATA of a PV guest: after the p2m is known, before the vCPUs, within the p2m."""
        self._pages_seen = True
        self._verified |= self.verifying
        if self._guest is not GuestType.X86_PV:
            return
        if self._p2m_end is None:
            raise _error(record, "stands before X86_PV_P2M_FRAMES, expected it after")
        if self._section.vcpus:
            raise _error(record, "stands after a vCPU record, expected it before")
        if (highest := max(record.words.pfns())) > self._p2m_end:
            raise _error(
                record, f"has pfn {highest:#x}, expected none above the p2m's last, {self._p2m_end:#x}"
            )

    def _check_vcpu(self, record: X86PvVcpu) -> None:
        """VCPU records: after the pages, each kind once for each vCPU."""
        if not self._pages_seen:
            raise _error(record, "stands before PAGE_DATA, expected it after")
        kinds = self._section.vcpus.setdefault(record.vcpu_id, set())
        if record.type in kinds:
            raise _error(record, f"of vCPU {record.vcpu_id} occurs twice, expected it once")
        kinds.add(record.type)

    def _check_verify(self, record: Record) -> None:
        """VERIFY: once, after pages."""
        if self.verifying:
            raise _error(record, "occurs twice, expected it once")
        if not self._pages_seen:
            raise _error(record, "stands before PAGE_DATA, expected it after")
        self.verifying = True

    def _check_complete(self, record: Record) -> None:
        """CHECKPOINT and END: everything that a receiver needs stands before them."""
        if self.verifying and not self._verified:
            raise _error(record, "follows VERIFY without any PAGE_DATA between, expected the pages once more")
        if self._checkpoints and self._section.seen == {RecordType.END}:
            return  # the last checkpoint is the state to restore
        for needed in _NEEDED[self._guest]:
            if needed not in self._section.seen:
                raise _error(record, f"comes too early, expected {needed.name} before it")
        for vcpu_id, kinds in self._section.vcpus.items():
            if RecordType.X86_PV_VCPU_BASIC not in kinds:
                raise _error(
                    record, f"comes too early, expected X86_PV_VCPU_BASIC of vCPU {vcpu_id} before it"
                )
        for expected in _EXPECTED[self._guest]:
            if expected not in self._section.seen:
                self._remarks.add(
                    record.offset, f"there is no {expected.name} before this {record.type_name}"
                )
        if not self._pages_seen:
            self._remarks.add(record.offset, f"there is no PAGE_DATA before this {record.type_name}")


def _error(record: Record, text: str) -> StreamError:
    """Says what is wrong with a record."""
    return StreamError(f"{record.type_name} {text}", offset=record.offset)
