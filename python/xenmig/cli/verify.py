# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig verify``: says whether a migration stream is good.

Reads a file or a pipe to its end with ``xenmig.stream``, which shares no code with the engine. Where the
verdict may differ from that of ``xenmig.restore`` is listed in ``docs/commands.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenmig.errors import StreamError
from xenmig.stream import check_stream
from xenmig.stream.describe import (
    describe_bytes,
    describe_headers,
    describe_totals,
    headers_as_dict,
    remarks_as_list,
)
from xenmig.stream.output import (
    describe_error,
    error_as_dict,
    named_file,
    reading_progress,
    status_of,
    write_error,
    write_json,
    write_out,
)

if TYPE_CHECKING:
    from xenmig.stream import CheckedStream


def verify(
    file: Annotated[str, typer.Argument(help="The stream: a path, or - for standard input.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a migration stream: every record, their order, and the pages after VERIFY.

    What a receiver ignores, such as a reserved field that is not zero, is a warning.

    Exit status: 0 if the stream is good; 1 if it is not; 2 if the file cannot be read.
    """
    try:
        with reading_progress(file) as progress:
            checked = check_stream(named_file(file), on_progress=progress)
    except (StreamError, OSError) as error:
        if as_json:
            write_json(_as_dict(file, None, error))
        write_error(describe_error(file, error))
        raise typer.Exit(status_of(error)) from None
    if as_json:
        write_json(_as_dict(file, checked, None))
        return
    for remark in checked.remarks.first:
        write_error(f"{file}: warning at byte {remark.offset} ({remark.offset:#x}): {remark.text}")
    if unkept := checked.remarks.count - len(checked.remarks.first):
        write_error(f"{file}: {unkept} more warnings")
    headers = describe_headers(checked.image_header, checked.domain_header)
    write_out(f"ok: {headers}; {describe_bytes(checked.stream_bytes)}, {describe_totals(checked.totals)}\n")


def _as_dict(file: str, checked: CheckedStream | None, error: StreamError | OSError | None) -> dict[str, Any]:
    """Returns the verdict in JSON's types, the same keys for a good stream and for a bad one."""
    return {
        "ok": error is None,
        "file": file,
        "error": None if error is None else error_as_dict(error),
        "headers": None if checked is None else headers_as_dict(checked.image_header, checked.domain_header),
        "stream_bytes": None if checked is None else checked.stream_bytes,
        "totals": None if checked is None else checked.totals.as_dict(),
        "warnings": [] if checked is None else remarks_as_list(checked.remarks),
        "warning_count": 0 if checked is None else checked.remarks.count,
    }
