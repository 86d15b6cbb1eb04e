# SPDX-License-Identifier: GPL-3.0-or-later
"""How the two stream commands open their file, speak and end.

Results go to standard output, everything that is wrong to standard error, one line each; the exit status
is the verdict. If the reader of standard output stops early (``head``), the verdict stays the same.
"""

from __future__ import annotations

import enum
import io
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from xenmig.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from xenmig.stream.source import StreamFile


_PROGRESS_INTERVAL_S = 0.1

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


@contextmanager
def reading_progress(name: str) -> Iterator[Callable[[int], object]]:
    """Shows how far a stream has been read, on standard error and only if that is a terminal.

    Args:
        name: The FILE argument. Of standard input the length is unknown.

    Yields:
        What is to be called with the bytes that have been read, as often as wanted.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield int
        return
    path = Path(name)
    total = path.stat().st_size if name != "-" and path.is_file() else None
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        shown = 0.0

        def show(read_bytes: int) -> None:
            nonlocal shown
            # A stream can have a record every eight bytes: the clock is cheap, and the bar is not.
            if (now := monotonic()) - shown >= _PROGRESS_INTERVAL_S:
                shown = now
                progress.update(task, completed=read_bytes)

        yield show


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
        SystemExit: They cannot be written, for another reason than a closed pipe.
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
        at = "" if error.offset is None else f" at byte {error.offset} ({error.offset:#x})"
        return f"{name}: bad stream{at}: {error}"
    return f"{name}: cannot read: {error.strerror or error}"


def error_as_dict(error: StreamError | OSError) -> dict[str, Any]:
    """Returns an error in JSON's types."""
    if isinstance(error, StreamError):
        return {"kind": "stream_bad", "message": str(error), "offset": error.offset}
    return {"kind": "cannot_read", "message": error.strerror or str(error), "errno": error.errno}


def _encodable(text: str, file: TextIO) -> str:
    """Escapes what a file cannot encode: a file's name can be any bytes."""
    encoding = file.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
