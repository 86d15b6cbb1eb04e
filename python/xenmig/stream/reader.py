# SPDX-License-Identifier: GPL-3.0-or-later
"""The bounded reader of libxc's migration stream, versions 2 and 3, in pure Python.

Bytes come from ``source``, record after record goes to whoever iterates: ``checks``, ``image``, the command
line. It is written from the specification and shares nothing with the engine's reader in Rust, so that
each can be held against the other. At most one record's body is in memory, and of PAGE_DATA only the
pfn words.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from xenmig.errors import StreamError
from xenmig.stream.bodies import Body, parse_body
from xenmig.stream.format import (
    DOMAIN_HEADER_BYTES,
    IMAGE_HEADER_BYTES,
    MAX_BODY_BYTES,
    OPTIONAL_RECORD,
    RECORD_HEADER_BYTES,
    DomainHeader,
    ImageHeader,
    RecordType,
    parse_domain_header,
    parse_image_header,
)
from xenmig.stream.pages import PageData, read_page_data
from xenmig.stream.pfn_run import PfnRuns
from xenmig.stream.records import End, OptionalRecord, Record
from xenmig.stream.remarks import Remarks
from xenmig.stream.source import ByteSource, StreamFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

_RECORD_HEADER = struct.Struct("<II")
_ALIGNMENT = 8
_PAGE_DATA = int(RecordType.PAGE_DATA)


class StreamReader:
    """Reads the headers at once and the records one by one.

    A reader is iterated once; iteration ends after END and leaves what follows it unread.

    Attributes:
        image_header: Version and options.
        domain_header: Guest type, page size, Xen's version.
        remarks: Reserved fields and padding that are not zero, in what was read.

    Example:
        >>> import io
        >>> from xenmig.stream import StreamReader
        >>> headers = bytes.fromhex("ffffffffffffffff 58454e46 00000003 0000 000000000000"
        ...                         "02000000 0c00 0000 04000000 11000000")
        >>> reader = StreamReader(io.BytesIO(headers + bytes(8)))
        >>> reader.domain_header.guest_type.title, [record.type_name for record in reader]
        ('x86 HVM', ['END'])
    """

    def __init__(self, file: StreamFile | ByteSource) -> None:
        """Reads the two headers.

        Args:
            file: A path, a file descriptor or a binary file. What is passed open stays open, and is read
                from its present position.

        Raises:
            StreamError: The headers are not those of a stream that can be read.
            OSError: The file cannot be read.
        """
        self._owned = not isinstance(file, ByteSource)
        self._source = file if isinstance(file, ByteSource) else ByteSource(file)
        self.remarks = Remarks()
        self._runs = PfnRuns()
        try:
            data = self._source.read_start(IMAGE_HEADER_BYTES, "the image header")
            self.image_header: ImageHeader = parse_image_header(data, self.remarks)
            data = self._source.read(DOMAIN_HEADER_BYTES, "the domain header")
            self.domain_header: DomainHeader = parse_domain_header(data, self.remarks)
        except BaseException:
            self.close()
            raise
        self._records = self._read_records()

    @property
    def offset(self) -> int:
        """Bytes of the stream read or passed over so far."""
        return self._source.offset

    def __iter__(self) -> Iterator[Record]:
        """Returns the iterator over the records, the same one each time.

        Raises:
            StreamError: From the iterator; the record is malformed or the stream ends before END.
            OSError: From the iterator; the file cannot be read.
        """
        return self._records

    def close(self) -> None:
        """Closes the file if the reader opened it."""
        if self._owned:
            self._source.close()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file if the reader opened it."""
        self.close()

    def _read_records(self) -> Iterator[Record]:
        """Goes from record to record up to END."""
        while True:
            record = self._read_record()
            yield record
            if isinstance(record, PageData):
                if record.words.pages:
                    record.contents.skip()  # its length is always a multiple of 8: no padding follows
            elif isinstance(record, End):
                return

    def _read_record(self) -> Record:
        """Reads one record, except for the contents and the padding of PAGE_DATA."""
        offset = self.offset
        number, body_length = _RECORD_HEADER.unpack(
            self._source.read(RECORD_HEADER_BYTES, "a record header, before any END record")
        )
        if number == _PAGE_DATA and body_length <= MAX_BODY_BYTES:
            return read_page_data(self._source, offset, body_length, self.remarks, self._runs)
        name = _name(number, offset)
        if body_length > MAX_BODY_BYTES:
            message = f"{name} has {body_length} bytes, expected at most {MAX_BODY_BYTES}"
            raise StreamError(message, offset=offset + 4)
        if number & OPTIONAL_RECORD:
            self._source.skip(body_length, f"the body of {name}")
            record: Record = OptionalRecord(offset, body_length, number)
        else:
            data = self._source.read(body_length, f"the body of {name}")
            record = parse_body(Body(RecordType(number), offset, data, self.remarks))
        self._take_padding(body_length, name)
        return record

    def _take_padding(self, body_length: int, name: str) -> None:
        """Reads the bytes between the end of a body and the next record header."""
        size = -body_length % _ALIGNMENT
        data = self._source.read(size, f"the padding of {name}")
        if any(data):
            self.remarks.add(self.offset - size, f"the padding of {name} is not zero: {data.hex()}")


def _name(number: int, offset: int) -> str:
    """Returns the name of a record type, which is at ``offset``; refuses an unknown mandatory one."""
    if number & OPTIONAL_RECORD:
        return f"optional {number:#x}"
    try:
        return RecordType(number).name
    except ValueError:
        message = f"unknown mandatory record type {number:#x}, expected at most {max(RecordType):#x}"
        raise StreamError(message, offset=offset) from None
