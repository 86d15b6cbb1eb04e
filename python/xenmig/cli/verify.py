# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig verify``: says whether a migration stream is in order.

Reads a file or a pipe to its end with ``xenmig.stream``, which shares nothing with the engine that wrote it.
"""

from __future__ import annotations

from typing import Annotated

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
    status_of,
    write_error,
    write_json,
    write_out,
)


def verify(
    file: Annotated[str, typer.Argument(help="The stream: a path, or - for standard input.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a migration stream: every record, their order, and the pages after VERIFY.

    What a receiver has to ignore, as reserved fields that are not zero, is a warning.

    Exit status: 0 if the stream is in order; 1 if it is not; 2 if it cannot be read.
    """
    try:
        checked = check_stream(named_file(file))
    except (StreamError, OSError) as error:
        if as_json:
            write_json({"ok": False, "file": file, "error": error_as_dict(error)})
        write_error(describe_error(file, error))
        raise typer.Exit(status_of(error)) from None
    if as_json:
        write_json(
            {
                "ok": True,
                "file": file,
                "headers": headers_as_dict(checked.image_header, checked.domain_header),
                "stream_bytes": checked.stream_bytes,
                "totals": checked.totals.as_dict(),
                "warnings": remarks_as_list(checked.remarks),
                "warning_count": checked.remarks.count,
            }
        )
        return
    for remark in checked.remarks.first:
        write_error(f"{file}: warning at octet {remark.offset} ({remark.offset:#x}): {remark.text}")
    if unkept := checked.remarks.count - len(checked.remarks.first):
        write_error(f"{file}: {unkept} more warnings")
    headers = describe_headers(checked.image_header, checked.domain_header)
    write_out(f"ok: {headers}; {describe_bytes(checked.stream_bytes)}, {describe_totals(checked.totals)}\n")
