# SPDX-License-Identifier: GPL-3.0-or-later
"""What a receiver has at the end of a stream: the last contents of each page, and the rest of the state.

The oracle of the tests: ``load_memory`` shares no code with the engine, so that a domain's memory can be
compared with what its stream really says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenmig.errors import StreamError
from xenmig.stream.checks import LayoutRules
from xenmig.stream.format import PAGE_BYTES, PageType, RecordType
from xenmig.stream.history import page_digest
from xenmig.stream.pages import PageData
from xenmig.stream.reader import StreamReader
from xenmig.stream.records import (
    HvmParams,
    OpaqueRecord,
    Record,
    Verify,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
    X86TscInfo,
)

if TYPE_CHECKING:
    from xenmig.stream.format import DomainHeader, ImageHeader
    from xenmig.stream.remarks import Remarks
    from xenmig.stream.source import StreamFile

_ZERO_PAGE = bytes(PAGE_BYTES)
# Where the blobs go.
_OPAQUE = {
    RecordType.SHARED_INFO: "shared_info",
    RecordType.HVM_CONTEXT: "hvm_context",
    RecordType.TOOLSTACK: "toolstack",
    RecordType.X86_CPUID_POLICY: "cpuid_policy",
    RecordType.X86_MSR_POLICY: "msr_policy",
}


@dataclass(slots=True)
class Image:
    """A domain as its stream describes it. Fields whose record did not occur are None or empty.

    Attributes:
        image_header: Version and options.
        domain_header: Guest type, page size, Xen's version.
        remarks: What was odd in the stream.
        digests: Whether ``memory`` holds digests.
        memory: For each pfn that has contents at the end: the 4096 bytes, or their ``page_digest``.
        types: For each pfn that the stream named and that is no hole at the end: its type.
        tsc: TSC settings.
        hvm_context: HVM context.
        hvm_params: Value of each HVM parameter, by its index.
        cpuid_policy: Array of ``xen_cpuid_leaf_t``.
        msr_policy: Array of ``xen_msr_entry_t``.
        toolstack: Blob of the layers above.
        pv_info: Width and page table levels of a PV guest.
        p2m_frames: Where a PV guest keeps its p2m.
        shared_info: Shared info page of a PV guest.
        vcpus: Contexts of a PV guest's vCPUs: vCPU number, then record type.
        verified_pages: Pages that were sent again after VERIFY and compared.
    """

    image_header: ImageHeader
    domain_header: DomainHeader
    remarks: Remarks
    digests: bool
    memory: dict[int, bytes] = field(default_factory=dict, repr=False)
    types: dict[int, PageType] = field(default_factory=dict, repr=False)
    tsc: X86TscInfo | None = None
    hvm_context: bytes | None = field(default=None, repr=False)
    hvm_params: dict[int, int] = field(default_factory=dict)
    cpuid_policy: bytes = field(default=b"", repr=False)
    msr_policy: bytes = field(default=b"", repr=False)
    toolstack: bytes | None = field(default=None, repr=False)
    pv_info: X86PvInfo | None = None
    p2m_frames: list[X86PvP2mFrames] = field(default_factory=list)
    shared_info: bytes | None = field(default=None, repr=False)
    vcpus: dict[int, dict[RecordType, bytes]] = field(default_factory=dict, repr=False)
    verified_pages: int = 0


def load_memory(file: StreamFile, *, digests: bool = False, check: bool = True) -> Image:
    """Reads a stream up to END and keeps what a receiver would end with.

    Of each pfn the last mention counts: a type without contents removes the page, and XTAB the pfn.
    Pages after VERIFY change nothing; they have to equal what is there.

    Args:
        file: A path, a file descriptor or a binary file. What is passed open stays open and stands at the
            byte after END.
        digests: Keep 16 bytes of each page instead of 4096.
        check: Apply the order rules as well; without, any sequence of well-formed records is taken.

    Raises:
        StreamError: The stream is malformed, its records are out of order, or a page after VERIFY differs.
        OSError: The file cannot be read.
    """
    with StreamReader(file) as reader:
        image = Image(reader.image_header, reader.domain_header, reader.remarks, digests)
        rules = LayoutRules(image.image_header, image.domain_header, image.remarks)
        verifying = False
        for record in reader:
            if check:
                rules.check(record)
            verifying |= isinstance(record, Verify)
            if not isinstance(record, PageData):
                _apply(image, record)
            elif verifying:
                _compare_pages(image, record)
            else:
                _apply_pages(image, record)
    return image


def _apply_pages(image: Image, record: PageData) -> None:
    """Takes the pages over."""
    pages = iter(record.contents)
    for pfn, kind in record.words:
        if kind is PageType.XTAB:
            image.types.pop(pfn, None)
        else:
            image.types[pfn] = kind
        if kind.has_contents:
            image.memory[pfn] = _keep(image, next(pages))
        else:
            image.memory.pop(pfn, None)


def _compare_pages(image: Image, record: PageData) -> None:
    """Refuses a page that differs from what is there."""
    pages = iter(record.contents)
    at = record.contents.offset
    for pfn, kind in record.words:
        before = image.memory.get(pfn)
        if before is None and image.types.get(pfn) is PageType.XALLOC:
            before = _keep(image, memoryview(_ZERO_PAGE))
        if kind.has_contents:
            if _keep(image, next(pages)) != before:
                message = f"pfn {pfn:#x} differs from its contents before VERIFY"
                raise StreamError(message, offset=at)
            image.verified_pages += 1
            at += PAGE_BYTES
        elif before is None and kind is PageType.XALLOC:
            message = f"pfn {pfn:#x} is XALLOC after VERIFY, expected no page as before VERIFY"
            raise StreamError(message, offset=record.offset)
        elif before is not None:
            image.remarks.add(
                record.offset, f"pfn {pfn:#x} is {kind.name} after VERIFY, and had contents before"
            )


def _keep(image: Image, contents: memoryview) -> bytes:
    """Returns what is kept of a page; all pages of zeros are one object."""
    if image.digests:
        return page_digest(contents)
    return _ZERO_PAGE if contents == _ZERO_PAGE else bytes(contents)


def _apply(image: Image, record: Record) -> None:
    """Takes over what is no page; of a record that occurs again the last one counts."""
    match record:
        case X86TscInfo():
            image.tsc = record
        case HvmParams():
            image.hvm_params.update(record.params)
        case X86PvInfo():
            image.pv_info = record
        case X86PvP2mFrames():
            image.p2m_frames.append(record)
        case OpaqueRecord() if record.data:
            setattr(image, _OPAQUE[record.type], record.data)
        case X86PvVcpu() if record.context:
            image.vcpus.setdefault(record.vcpu_id, {})[record.type] = record.context
        case _:
            pass
