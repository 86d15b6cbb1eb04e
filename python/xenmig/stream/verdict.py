# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a whole stream: every record, their order, and after VERIFY the pages.

The pages are read and forgotten. Only a stream with VERIFY needs 64 bits of each page: a file is read again
from its start when VERIFY comes; in a pipe, which cannot be, they are always kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenmig.errors import StreamError
from xenmig.stream.checks import LayoutRules
from xenmig.stream.format import PAGE_BYTES, PageType
from xenmig.stream.history import PageDigests
from xenmig.stream.pages import PageData
from xenmig.stream.reader import StreamReader
from xenmig.stream.source import ByteSource, StreamFile
from xenmig.stream.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig.stream.format import DomainHeader, ImageHeader
    from xenmig.stream.remarks import Remarks


@dataclass(frozen=True, slots=True)
class CheckedStream:
    """A stream that is in order.

    Attributes:
        image_header: Version and options.
        domain_header: Guest type, page size, Xen's version.
        stream_bytes: Length of the stream in bytes.
        totals: What it held.
        remarks: What was odd in it.
    """

    image_header: ImageHeader
    domain_header: DomainHeader
    stream_bytes: int
    totals: Totals
    remarks: Remarks


def check_stream(file: StreamFile, *, on_progress: Callable[[int], object] | None = None) -> CheckedStream:
    """Reads a stream to its end and checks all that can be checked without a hypervisor.

    Args:
        file: A path, a file descriptor or a binary file. What is passed open stays open.
        on_progress: Called after each record with the bytes of the stream that have been checked. The number
            goes back to 0 once if the file turns out to have a VERIFY record.

    Raises:
        StreamError: The stream is malformed, records stand in the wrong order or are missing, bytes
            follow END, or a page after VERIFY is not the page that was sent before.
        OSError: The file cannot be read.
    """
    with ByteSource(file) as source:
        digests = None if source.seekable else PageDigests()
        try:
            return _check(source, digests, on_progress)
        except _PagesForgottenError:
            source.rewind()
            return _check(source, PageDigests(), on_progress)


class _PagesForgottenError(Exception):
    """VERIFY has come, and the pages before it were not remembered."""


def _check(
    source: ByteSource, digests: PageDigests | None, on_progress: Callable[[int], object] | None
) -> CheckedStream:
    """Reads a stream to its end, and compares pages with the digests of those before VERIFY."""
    reader = StreamReader(source)
    totals = Totals()
    rules = LayoutRules(reader.image_header, reader.domain_header, reader.remarks)
    for record in reader:
        rules.check(record)
        totals.add(record)
        if isinstance(record, PageData):
            if digests is None:
                if record.words.pages:
                    record.contents.drop()
            elif rules.verifying:
                _compare(record, digests, reader)
            else:
                digests.update(record)
        elif rules.verifying and digests is None:
            raise _PagesForgottenError
        if on_progress is not None:
            on_progress(source.offset)
    end = source.offset
    if not source.at_end():
        message = "bytes follow the END record, expected it to be the last"
        raise StreamError(message, offset=end)
    if rules.verifying and digests is not None and totals.verify_pages < len(digests):
        missing = len(digests) - totals.verify_pages
        reader.remarks.add(end, f"{missing} of {len(digests)} pages were not sent again after VERIFY")
    return CheckedStream(reader.image_header, reader.domain_header, end, totals, reader.remarks)


def _compare(record: PageData, digests: PageDigests, reader: StreamReader) -> None:
    """Compares pages after VERIFY with those before it.

    A page that comes without contents is not compared, as a receiver does not: the saver may learn only in
    this pass that the guest has given the page back.
    """
    if record.words.pages < len(record.words):
        for pfn, kind in record.words:
            if kind.has_contents:
                continue
            if not digests.has(pfn):
                if kind is PageType.XALLOC:
                    message = f"pfn {pfn:#x} is XALLOC after VERIFY, expected no page as before VERIFY"
                    raise StreamError(message, offset=record.offset)
                continue
            text = f"pfn {pfn:#x} is {kind.name} after VERIFY, and had contents before"
            reader.remarks.add(record.offset, text)
            if kind is PageType.XTAB:
                digests.forget(pfn)
    at = record.contents.offset
    for pfn, contents in record.pages():
        if not digests.matches(pfn, contents):
            before = "other contents than" if digests.has(pfn) else "contents, expected none as"
            message = f"pfn {pfn:#x} has {before} before VERIFY"
            raise StreamError(message, offset=at)
        at += PAGE_BYTES
