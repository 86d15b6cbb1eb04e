# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig inspect``: lists the records of a migration stream.

Goes through a file with ``xenmig.stream``, passing over page contents where the file can seek. It shows what
is there and in which order; ``xenmig verify`` says whether that is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from xenmig.errors import StreamError
from xenmig.stream import PageData, Record, StreamFile, StreamReader, Totals
from xenmig.stream.describe import (
    describe_bytes,
    describe_headers,
    describe_pages,
    describe_record,
    describe_totals,
    headers_as_dict,
    remarks_as_list,
)
from xenmig.stream.output import (
    describe_error,
    error_as_dict,
    named_file,
    reading_progress,
    render_table,
    status_of,
    write_error,
    write_json,
    write_out,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig.stream import DomainHeader, ImageHeader, Remarks

DEFAULT_ROWS = 1000
"""Rows shown unless ``--limit`` or ``--all`` says otherwise: a hostile stream has a row every 8 bytes."""


@dataclass(slots=True)
class _Row:
    """One line of the table: a record, or a run of PAGE_DATA records.

    Attributes:
        offset: Where the (first) record starts, in bytes.
        name: The record type's name.
        number: The record type's number.
        records: How many records it stands for.
        body_bytes: Bytes in their bodies.
        detail: What is in a record that is not PAGE_DATA.
        pages: pfns, pages, lowest and highest pfn of PAGE_DATA.
    """

    offset: int
    name: str
    number: int
    records: int
    body_bytes: int
    detail: str
    pages: tuple[int, int, int, int] | None = None

    def text(self) -> str:
        """Returns the detail column."""
        if self.pages is None:
            return self.detail
        return (
            describe_pages(*self.pages)
            if self.records == 1
            else f"{self.records} records: {describe_pages(*self.pages)}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the row in JSON's types."""
        row = {
            "offset": self.offset,
            "type": self.name,
            "type_number": self.number,
            "records": self.records,
            "body_bytes": self.body_bytes,
            "detail": self.text(),
        }
        if self.pages is not None:
            row.update(zip(("pfns", "pages", "lowest_pfn", "highest_pfn"), self.pages, strict=True))
        return row


@dataclass(slots=True)
class _Listing:
    """What was found up to the end of the stream or its first error.

    Attributes:
        merge: Whether consecutive PAGE_DATA records become one row.
        limit: Most rows that are kept; 0 for all.
        rows: The rows.
        rows_left_out: Rows beyond the limit.
    """

    merge: bool
    limit: int
    rows: list[_Row] = field(default_factory=list)
    rows_left_out: int = 0
    totals: Totals = field(default_factory=Totals)
    stream_bytes: int = 0
    headers: tuple[ImageHeader, DomainHeader] | None = None
    remarks: Remarks | None = None
    _last: _Row | None = None

    def read(self, file: StreamFile, on_progress: Callable[[int], object]) -> None:
        """Goes through the stream and reports after each record how many bytes have been read.

        Raises:
            StreamError: The stream is malformed; what stands before that place is listed.
            OSError: The file cannot be read.
        """
        with StreamReader(file) as reader:
            self.headers = reader.image_header, reader.domain_header
            self.remarks = reader.remarks
            for record in reader:
                self.add(record)
                self.totals.add(record)
                on_progress(reader.offset)
            self.stream_bytes = reader.offset

    def add(self, record: Record) -> None:
        """Adds a record, to the last row if it continues that."""
        last = self._last
        pages = _pages_of(record)
        if self.merge and pages is not None and last is not None and last.pages is not None:
            last.records += 1
            last.body_bytes += record.body_length
            last.pages = (
                last.pages[0] + pages[0],
                last.pages[1] + pages[1],
                min(last.pages[2], pages[2]),
                max(last.pages[3], pages[3]),
            )
            return
        detail = "" if pages is not None else describe_record(record)
        row = _Row(record.offset, record.type_name, record.type_number, 1, record.body_length, detail, pages)
        self._last = row
        if self.limit and len(self.rows) >= self.limit:
            self.rows_left_out += 1
        else:
            self.rows.append(row)

    def as_dict(self, name: str, error: StreamError | OSError | None) -> dict[str, Any]:
        """Returns the listing in JSON's types."""
        return {
            "ok": error is None,
            "file": name,
            "error": None if error is None else error_as_dict(error),
            "headers": None if self.headers is None else headers_as_dict(*self.headers),
            "stream_bytes": self.stream_bytes if error is None else None,
            "rows": [row.as_dict() for row in self.rows],
            "rows_left_out": self.rows_left_out,
            "totals": self.totals.as_dict(),
            "warnings": [] if self.remarks is None else remarks_as_list(self.remarks),
            "warning_count": 0 if self.remarks is None else self.remarks.count,
        }

    def as_text(self, name: str) -> str:
        """Returns headers, table and totals; nothing if not even the headers could be read."""
        if self.headers is None:
            return ""
        table = Table("offset", "type", "length", "detail")
        table.columns[0].justify = table.columns[2].justify = "right"
        for row in self.rows:
            table.add_row(f"{row.offset:#x}", row.name, str(row.body_bytes), row.text())
        lines = [f"{name}: {describe_headers(*self.headers)}", render_table(table)]
        if self.rows_left_out:
            lines.append(f"{self.rows_left_out} more rows are not shown")
        lines.append(describe_totals(self.totals))
        by_type = self.totals.pages_by_type
        if by_type:
            lines.append(
                "pfns by type: " + ", ".join(f"{kind.name} {by_type[kind]}" for kind in sorted(by_type))
            )
        if self.stream_bytes:
            lines.append(f"stream: {self.stream_bytes} bytes ({describe_bytes(self.stream_bytes)})")
        if self.remarks is not None and self.remarks.count:
            lines.append(f"warnings: {self.remarks.count}, see xenmig verify")
        return "\n".join(lines) + "\n"


def inspect(
    file: Annotated[str, typer.Argument(help="The stream: a path, or - for standard input.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, help=f"Most rows to show, 0 for all. Default: {DEFAULT_ROWS}, or all with --all."
        ),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show each PAGE_DATA record by itself.")] = False,
) -> None:
    """List the records of a migration stream.

    Exit status: 0 if the stream could be read up to its END record;
    1 if it is malformed, after listing what stands before the error;
    2 if it cannot be read.
    """
    if limit is None:
        limit = 0 if show_all else DEFAULT_ROWS
    listing = _Listing(merge=not show_all, limit=limit)
    failure: StreamError | OSError | None = None
    try:
        with reading_progress(file) as progress:
            listing.read(named_file(file), progress)
    except (StreamError, OSError) as error:
        failure = error
    if as_json:
        write_json(listing.as_dict(file, failure))
    else:
        write_out(listing.as_text(file))
    if failure is not None:
        write_error(describe_error(file, failure))
        raise typer.Exit(status_of(failure))


def _pages_of(record: Record) -> tuple[int, int, int, int] | None:
    """Returns the numbers of a PAGE_DATA record."""
    if not isinstance(record, PageData):
        return None
    words = record.words
    return len(words), words.pages, words.lowest, words.highest
