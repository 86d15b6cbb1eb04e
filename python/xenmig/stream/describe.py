# SPDX-License-Identifier: GPL-3.0-or-later
"""Records, headers and totals in words, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenmig.stream.records import (
    CheckpointDirtyPfnList,
    HvmParams,
    Record,
    X86CpuidPolicy,
    X86MsrPolicy,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpu,
    X86TscInfo,
)

if TYPE_CHECKING:
    from xenmig.stream.format import DomainHeader, ImageHeader
    from xenmig.stream.remarks import Remarks
    from xenmig.stream.totals import Totals

_UNITS = ("KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def describe_bytes(count: int) -> str:
    """Returns a number of bytes with a unit: ``1536`` is ``1.5 KiB``."""
    if count < _STEP:
        return f"{count} B"
    value = count / _STEP
    units = iter(_UNITS)
    unit = next(units)
    while value >= _STEP and (larger := next(units, None)) is not None:
        value /= _STEP
        unit = larger
    return f"{value:.1f} {unit}"


def describe_pages(pfns: int, pages: int, lowest: int, highest: int) -> str:
    """Returns what is said of one or more PAGE_DATA records."""
    return f"{pfns} pfns, {pages} pages, pfn {lowest:#x}-{highest:#x}"


def describe_record(record: Record) -> str:
    """Returns the gist of a record other than PAGE_DATA; nothing if it has no body or an opaque one."""
    match record:
        case X86PvInfo():
            gist = f"{record.guest_width * 8}-bit guest, {record.pt_levels} page table levels"
        case X86PvP2mFrames():
            gist = f"{record.frames} frames, pfn {record.start_pfn:#x}-{record.end_pfn:#x}"
        case X86PvVcpu():
            gist = f"vCPU {record.vcpu_id}, {len(record.context)} bytes"
        case X86TscInfo():
            gist = f"mode {record.mode}, {record.khz} kHz, {record.elapsed_ns} ns, "
            gist += f"incarnation {record.incarnation}"
        case HvmParams():
            gist = f"{record.count} parameters"
        case CheckpointDirtyPfnList():
            gist = f"{record.body_length // 8} pfns"
        case X86CpuidPolicy():
            gist = f"{record.leaves} leaves"
        case X86MsrPolicy():
            gist = f"{record.entries} MSRs"
        case _:
            gist = ""
    return gist


def describe_headers(image: ImageHeader, domain: DomainHeader) -> str:
    """Returns both headers in one line."""
    saver = f"Xen {domain.xen_major}.{domain.xen_minor}"
    if not domain.xen_major:
        saver = f"a legacy image converted by version {domain.xen_minor}"
    return f"version {image.version}, {domain.guest_type.title}, {1 << domain.page_shift}-byte pages, {saver}"


def headers_as_dict(image: ImageHeader, domain: DomainHeader) -> dict[str, Any]:
    """Returns both headers in JSON's types."""
    return {
        "version": image.version,
        "guest_type": domain.guest_type.title,
        "page_bytes": 1 << domain.page_shift,
        "xen_major": domain.xen_major,
        "xen_minor": domain.xen_minor,
    }


def describe_totals(totals: Totals) -> str:
    """Returns the totals in one line."""
    records = sum(totals.records.values())
    text = f"{records} records, {totals.pages} pages ({describe_bytes(totals.page_bytes)})"
    text += f", {totals.distinct_pages} distinct, {totals.resent_pages} resent"
    if totals.verify_pages:
        text += f", {totals.verify_pages} compared after VERIFY"
    return text


def remarks_as_list(remarks: Remarks) -> list[dict[str, Any]]:
    """Returns the remarks that were kept in JSON's types."""
    return [{"offset": remark.offset, "text": remark.text} for remark in remarks.first]
