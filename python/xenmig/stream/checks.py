# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules about the order and the number of records: the specification's section "Layout".

Gets the records one by one from whoever reads, before their pages are read, and refuses the first one
that must not stand where it stands. A rule follows for each dependency that the specification names:

* static data stands before STATIC_DATA_END, everything else after it; in version 2 that place is
  inferred: the first X86_PV_P2M_FRAMES of a PV guest, the first PAGE_DATA of an HVM guest;
* PV: X86_PV_INFO, X86_PV_P2M_FRAMES, PAGE_DATA, vCPU records, in this order, and no pfn beyond the p2m;
* what a receiver needs is there before each CHECKPOINT and before END;
* after VERIFY come pages;
* no pfn is twice in one record, and none is beyond what x86 can address.

Where the specification is silent, libxc's receiver decides, as it does for ``xenmig.restore``: of a record
that is sent twice the last one holds, a guest may grow, and of vCPUs only the first one needs its
registers. These are remarks. HVM_PARAMS and HVM_CONTEXT may come in either order: the specification wants
the parameters first, libxc writes the context first, and a receiver applies both at the end.
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
    SharedInfo,
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
_NEW_IN_V3 = frozenset({RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY, RecordType.STATIC_DATA_END})

_BOTH = frozenset(
    {
        RecordType.END,
        RecordType.PAGE_DATA,
        RecordType.X86_TSC_INFO,
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
        RecordType.X86_PV_P2M_FRAMES,
        RecordType.X86_PV_VCPU_BASIC,
        RecordType.X86_PV_VCPU_EXTENDED,
        RecordType.X86_PV_VCPU_XSAVE,
        RecordType.X86_PV_VCPU_MSRS,
    }
)
# A second one of these makes no sense; of all others the last one holds.
_ONCE = frozenset({RecordType.X86_PV_INFO, RecordType.VERIFY})
_HVM_PFNS = 1 << 40
"""Physical addresses of x86 have at most 52 bits."""

# Widths of PV guests in bytes, and what follows from them: page table levels, bytes of a vCPU's registers.
_LEVELS = {4: 3, 8: 4}
_BASIC_BYTES = {4: 2800, 8: 5168}
_MAX_EXTENDED_BYTES = 128
_MIN_XSAVE_BYTES = 16
_MSR_BYTES = 16
_MAX_U32 = (1 << 32) - 1


@dataclass
class _Section:
    """What has been seen since the start of the stream or the last CHECKPOINT.

    Attributes:
        seen: Types that have occurred, PAGE_DATA left out.
        pages: Whether PAGE_DATA has occurred.
        vcpus: For each vCPU, the types of its records.
    """

    seen: set[RecordType] = field(default_factory=set)
    pages: bool = False
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
        # The p2m's frames that are known, from its first on, and the pfns that the guest can have.
        self._p2m_frames = 0
        self._pfns = 0 if domain.guest_type is GuestType.X86_PV else _HVM_PFNS

    def check(self, record: Record) -> None:
        """Takes the next record.

        Raises:
            StreamError: It must not stand here, or something that must stand before it is missing.
        """
        if isinstance(record, PageData):
            if not self._static_ended:
                self._check_static(record)
            self._check_pages(record)
            return
        if isinstance(record, OptionalRecord):
            return
        self._check_guest(record)
        self._check_static(record)
        if not record.is_empty:
            self._check_number(record)
            self._check_one(record)

    def _check_one(self, record: Record) -> None:
        """Checks what one type of record needs."""
        match record:
            case X86PvInfo():
                self._check_pv_info(record)
            case X86PvP2mFrames():
                self._check_p2m_frames(record)
            case X86PvVcpu():
                self._check_vcpu(record)
            case SharedInfo():
                self._expect_width(record)
            case Verify():
                self._check_verify(record)
            case Checkpoint():
                self._check_complete(record)
                text = "CHECKPOINT: xenmig restore does not take streams of Remus and COLO"
                self._remarks.add(record.offset, text)
                self._section = _Section()
                self._checkpoints += 1
            case End():
                self._check_complete(record)
            case _:
                pass

    def _expect_width(self, record: Record) -> None:
        """Refuses what depends on the guest's width before that is known."""
        if not self._guest_width:
            raise _error(record, "stands before X86_PV_INFO, expected it after")

    def _check_number(self, record: Record) -> None:
        """Looks for what has been there already."""
        if record.type in self._section.seen and record.type not in _ANY_NUMBER:
            if record.type is RecordType.X86_PV_INFO:
                raise _error(record, "occurs twice, expected it once")
            self._remarks.add(record.offset, f"{record.type_name} occurs twice: the last one holds")
        self._section.seen.add(record.type)

    def _check_guest(self, record: Record) -> None:
        """Refuses records that this type of guest does not have."""
        if record.type is RecordType.CHECKPOINT_DIRTY_PFN_LIST:
            raise _error(record, "belongs to the back channel from the receiver to the sender")
        if record.type is RecordType.TOOLSTACK:
            raise _error(record, "is deprecated: no released toolstack sends it, and none takes it")
        if record.type not in _VALID[self._guest]:
            raise _error(record, f"is no record of an {self._guest.title} domain")

    def _check_static(self, record: Record) -> None:
        """Keeps static data and all else apart."""
        if self._version < 3 and record.type in _NEW_IN_V3:
            self._remarks.add(record.offset, f"{record.type_name} is not known to version 2 of the format")
        if record.type in _STATIC:
            if self._static_ended and not record.is_empty:
                raise _error(record, "stands after the end of the static data, expected it before")
            self._static_ended |= record.type is RecordType.STATIC_DATA_END
        elif not self._static_ended:
            if self._version >= 3:
                raise _error(record, "stands before STATIC_DATA_END, expected it after")
            self._static_ended = record.type is _STATIC_END_IN_V2[self._guest]

    def _check_pv_info(self, record: X86PvInfo) -> None:
        """X86_PV_INFO: a width and the levels of page tables that go with it."""
        if record.pt_levels != _LEVELS[record.guest_width]:
            expected = f"{record.pt_levels} page table levels, expected {_LEVELS[record.guest_width]}"
            raise _error(record, f"has guest width {record.guest_width} and {expected}")
        self._guest_width = record.guest_width

    def _check_p2m_frames(self, record: X86PvP2mFrames) -> None:
        """X86_PV_P2M_FRAMES: after the guest's width is known, from the p2m's start on, without gaps."""
        self._expect_width(record)
        if self._section.vcpus:
            raise _error(record, "stands after a vCPU record, expected it before")
        if self._guest_width == 4 and record.end_pfn == _MAX_U32:
            raise _error(record, f"ends at pfn {_MAX_U32:#x}, which a 32-bit guest cannot count up to")
        entries_per_frame = PAGE_BYTES // self._guest_width
        first, last = record.start_pfn // entries_per_frame, record.end_pfn // entries_per_frame
        if record.frames != last - first + 1:
            covered = f"pfn {record.start_pfn:#x} to {record.end_pfn:#x}"
            raise _error(record, f"has {record.frames} frames, expected {last - first + 1} for {covered}")
        if first > self._p2m_frames:
            known = self._p2m_frames * entries_per_frame
            raise _error(
                record, f"starts at pfn {record.start_pfn:#x}, expected at most {known:#x}: there is a gap"
            )
        if self._pages_seen:
            self._remarks.add(record.offset, "X86_PV_P2M_FRAMES stands after PAGE_DATA: the guest has grown")
        self._p2m_frames = max(self._p2m_frames, last + 1)
        self._pfns = max(record.end_pfn + 1, self._pfns)

    def _check_pages(self, record: PageData) -> None:
        """PAGE_DATA: no pfn twice or too high; of a PV guest after the p2m is known, before the vCPUs."""
        self._pages_seen = self._section.pages = True
        self._verified = self.verifying or self._verified
        if self._guest is GuestType.X86_PV:
            if not self._pfns:
                raise _error(record, "stands before X86_PV_P2M_FRAMES, expected it after")
            if self._section.vcpus:
                raise _error(record, "stands after a vCPU record, expected it before")
        words = record.words
        highest = words.highest
        if highest >= self._pfns:
            what = "the p2m's last" if self._guest is GuestType.X86_PV else "x86's last"
            raise _error(record, f"has pfn {highest:#x}, expected none above {what}, {self._pfns - 1:#x}")
        if (pfn := words.repeated_pfn()) is not None:
            raise _error(record, f"has pfn {pfn:#x} twice, expected it once")

    def _check_vcpu(self, record: X86PvVcpu) -> None:
        """VCPU records: after the pages, and as long as Xen's structures are."""
        self._expect_width(record)
        if not self._pages_seen:
            raise _error(record, "stands before PAGE_DATA, expected it after")
        length, expected = len(record.context), ""
        match record.type:
            case RecordType.X86_PV_VCPU_BASIC if length != _BASIC_BYTES[self._guest_width]:
                expected = str(_BASIC_BYTES[self._guest_width])
            case RecordType.X86_PV_VCPU_EXTENDED if length > _MAX_EXTENDED_BYTES:
                expected = f"at most {_MAX_EXTENDED_BYTES}"
            case RecordType.X86_PV_VCPU_XSAVE if length < _MIN_XSAVE_BYTES:
                expected = f"at least {_MIN_XSAVE_BYTES}"
            case RecordType.X86_PV_VCPU_MSRS if length % _MSR_BYTES:
                expected = f"a multiple of {_MSR_BYTES}"
            case _:
                pass
        if expected:
            raise _error(
                record, f"of vCPU {record.vcpu_id} has a state of {length} bytes, expected {expected}"
            )
        kinds = self._section.vcpus.setdefault(record.vcpu_id, set())
        if record.type in kinds:
            text = f"{record.type_name} of vCPU {record.vcpu_id} occurs twice: the last one holds"
            self._remarks.add(record.offset, text)
        kinds.add(record.type)

    def _check_verify(self, _record: Record) -> None:
        """VERIFY: a guest without a page has sent none before it."""
        self.verifying = True

    def _check_complete(self, record: Record) -> None:
        """CHECKPOINT and END: everything that a receiver needs stands before them."""
        if self.verifying and not self._verified:
            raise _error(record, "follows VERIFY without any PAGE_DATA between, expected the pages once more")
        if self._checkpoints and self._section.seen == {RecordType.END} and not self._section.pages:
            return  # the last checkpoint is the state to restore
        for needed in _NEEDED[self._guest]:
            if needed not in self._section.seen:
                raise _error(record, f"comes too early, expected {needed.name} before it")
        self._check_vcpus(record)
        for expected in _EXPECTED[self._guest]:
            if expected not in self._section.seen:
                self._remarks.add(
                    record.offset, f"there is no {expected.name} before this {record.type_name}"
                )
        if not self._pages_seen:
            self._remarks.add(record.offset, f"there is no PAGE_DATA before this {record.type_name}")

    def _check_vcpus(self, record: Record) -> None:
        """CHECKPOINT and END: which vCPUs have registers."""
        for vcpu_id, kinds in self._section.vcpus.items():
            if RecordType.X86_PV_VCPU_BASIC not in kinds:
                text = f"there is no X86_PV_VCPU_BASIC of vCPU {vcpu_id} before this {record.type_name}"
                self._remarks.add(record.offset, text)
        if self._section.vcpus and RecordType.X86_PV_VCPU_BASIC not in self._section.vcpus.get(0, ()):
            raise _error(record, "comes too early, expected X86_PV_VCPU_BASIC of vCPU 0 before it")


def _error(record: Record, text: str) -> StreamError:
    """Says what is wrong with a record."""
    return StreamError(f"{record.type_name} {text}", offset=record.offset)
