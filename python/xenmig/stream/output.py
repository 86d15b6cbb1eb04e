# SPDX-License-Identifier: GPL-3.0-or-later
"""How the two stream commands open their file, speak and end.

Results go to standard output, everything that is wrong to standard error, one line each; the exit status
is the verdict. Somebody who stops reading (``head``) changes neither the verdict nor gets a traceback.
"""

from __future__ import annotations

import enum
import io
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console

from xenmig.errors import StreamError

if TYPE_CHECKING:
    from rich.table import Table

    from xenmig.stream.source import StreamFile


_PIPE_WIDTH = 120
"""Columns of a table where there is no terminal to ask."""


class ExitStatus(enum.IntEnum):
    """What ``xenmig inspect`` and ``xenmig verify`` end with."""

    OK = 0
    STREAM_BAD = 1
    IO_FAILED = 2


def named_file(name: str) -> StreamFile:
    """Returns what is meant by a FILE argument: a path, or standard input for ``-``.

    Raises:
        OSError: Standard input is closed.
    """
    if name != "-":
        return name
    if sys.stdin is None:
        message = "standard input is closed"
        raise OSError(message)
    return sys.stdin.buffer


def render_table(table: Table) -> str:
    """Returns a table as text for standard output: coloured and of its width on a terminal, else plain."""
    # The console gets a file of its own: one that has standard output may write to it, and fail.
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _PIPE_WIDTH
    if sys.stdout is None or not (sys.stdout.encoding or "").lower().startswith("utf"):
        table.box = box.ASCII
    text = io.StringIO()
    Console(file=text, force_terminal=terminal, width=width).print(table)
    return text.getvalue().rstrip("\n")


def write_out(text: str) -> None:
    """Writes lines to standard output and sees that they go out now.

    Raises:
        SystemExit: They cannot be written, and not because nobody reads them.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(_encodable(text, sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more when it ends; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            write_error(f"cannot write to standard output: {error.strerror or error}")
            raise SystemExit(ExitStatus.IO_FAILED) from None


def write_json(value: dict[str, Any]) -> None:
    """Writes the one object of a ``--json`` run to standard output."""
    write_out(json.dumps(value) + "\n")


def write_error(text: str) -> None:
    """Writes one line to standard error."""
    if sys.stderr is not None:
        line = " ".join(text.splitlines())
        sys.stderr.write(_encodable(f"xenmig: {line}\n", sys.stderr))


def status_of(error: StreamError | OSError) -> ExitStatus:
    """Returns the exit status that an error means."""
    return ExitStatus.STREAM_BAD if isinstance(error, StreamError) else ExitStatus.IO_FAILED


def describe_error(name: str, error: StreamError | OSError) -> str:
    """Returns an error and where it is as one line."""
    if isinstance(error, StreamError):
        at = "" if error.offset is None else f" at octet {error.offset} ({error.offset:#x})"
        return f"{name}: bad stream{at}: {error}"
    return f"{name}: cannot read: {error.strerror or error}"


def error_as_dict(error: StreamError | OSError) -> dict[str, Any]:
    """Returns an error in JSON's types."""
    if isinstance(error, StreamError):
        return {"kind": "stream_bad", "message": str(error), "offset": error.offset}
    return {"kind": "cannot_read", "message": error.strerror or str(error), "errno": error.errno}


def _encodable(text: str, file: TextIO) -> str:
    """Escapes what a file cannot encode: a file's name can be any octets."""
    encoding = file.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
