# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a whole stream: every record, their order, and after VERIFY the pages.

The pages are read and forgotten. Only if VERIFY occurs, 64 bits of each page are kept: a file is first
looked through for it by seeking; in a pipe it cannot be known, so there they are always kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenmig.errors import StreamError
from xenmig.stream.checks import LayoutRules
from xenmig.stream.format import PAGE_BYTES
from xenmig.stream.history import PageDigests
from xenmig.stream.pages import PageData
from xenmig.stream.reader import StreamReader
from xenmig.stream.records import Verify
from xenmig.stream.source import ByteSource, StreamFile
from xenmig.stream.totals import Totals

if TYPE_CHECKING:
    from xenmig.stream.format import DomainHeader, ImageHeader
    from xenmig.stream.remarks import Remarks


@dataclass(frozen=True, slots=True)
class CheckedStream:
    """A stream that is in order.

    Attributes:
        image_header: Version and options.
        domain_header: Guest type, page size, Xen's version.
        stream_bytes: Length of the stream in octets.
        totals: What it held.
        remarks: What was odd in it.
    """

    image_header: ImageHeader
    domain_header: DomainHeader
    stream_bytes: int
    totals: Totals
    remarks: Remarks


def check_stream(file: StreamFile) -> CheckedStream:
    """Reads a stream to its end and checks all that can be checked without a hypervisor.

    Args:
        file: A path, a file descriptor or a binary file. What is passed open stays open.

    Raises:
        StreamError: The stream is malformed, records stand in the wrong order or are missing, octets
            follow END, or a page after VERIFY is not the page that was sent before.
        OSError: The file cannot be read.
    """
    with ByteSource(file) as source:
        digests = PageDigests() if not source.seekable or _has_verify(source) else None
        reader = StreamReader(source)
        totals = Totals()
        rules = LayoutRules(reader.image_header, reader.domain_header, reader.remarks)
        for record in reader:
            rules.check(record)
            totals.add(record)
            if isinstance(record, PageData):
                _check_pages(record, digests, verifying=rules.verifying)
        end = source.offset
        if not source.at_end():
            message = "octets follow the END record, expected it to be the last"
            raise StreamError(message, offset=end)
    if rules.verifying and digests is not None and totals.verify_pages < len(digests):
        missing = len(digests) - totals.verify_pages
        reader.remarks.add(end, f"{missing} of {len(digests)} pages were not sent again after VERIFY")
    return CheckedStream(reader.image_header, reader.domain_header, end, totals, reader.remarks)


def _has_verify(source: ByteSource) -> bool:
    """Looks for VERIFY, passing over the pages, and goes back; what is bad is left to the check."""
    try:
        return any(isinstance(record, Verify) for record in StreamReader(source))
    except StreamError:
        return False
    finally:
        source.rewind()


def _check_pages(record: PageData, digests: PageDigests | None, *, verifying: bool) -> None:
    """Remembers the pages, compares them with those remembered, or only reads them."""
    if digests is None and verifying:
        message = (
            "pages after VERIFY cannot be compared: VERIFY was not there when the file was looked through"
        )
        raise StreamError(message, offset=record.offset)
    if digests is None:
        record.contents.drop()
        return
    if not verifying:
        digests.update(record)
        return
    for pfn, kind in record.words:
        if not kind.has_contents and digests.has(pfn):
            message = f"pfn {pfn:#x} is {kind.name} after VERIFY, expected the contents that were sent before"
            raise StreamError(message, offset=record.offset)
    at = record.contents.offset
    for pfn, contents in record.pages():
        if not digests.matches(pfn, contents):
            before = "other contents than" if digests.has(pfn) else "contents, expected none as"
            message = f"pfn {pfn:#x} has {before} before VERIFY"
            raise StreamError(message, offset=at)
        at += PAGE_BYTES
