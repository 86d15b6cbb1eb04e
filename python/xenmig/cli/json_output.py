# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps standard output for the JSON object of a ``--json`` run, whatever a user's policy prints."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["prints_to_stderr"]


@contextmanager
def prints_to_stderr(*, wanted: bool) -> Iterator[None]:
    """Within the block, everything that is printed goes to standard error, if `wanted`.

    A command runs other people's code in such a block, and writes its own JSON after it. The file descriptor
    is redirected as well as ``sys.stdout``, for code that keeps the old ``sys.stdout``, writes to descriptor
    1, or starts a program that prints.
    """
    if not wanted:
        yield
        return
    with _descriptor_to_stderr(sys.stdout), redirect_stdout(sys.stderr or sys.stdout):
        yield


@contextmanager
def _descriptor_to_stderr(out: TextIO | None) -> Iterator[None]:
    try:
        descriptor = -1 if out is None else out.fileno()
    except OSError:
        # It is not a file: a test reads what is written.
        descriptor = -1
    if out is None or descriptor < 0:
        yield
        return
    out.flush()
    # If standard error is closed, a plain dup() would take its number.
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        _point_to_stderr(descriptor)
        yield
    finally:
        with suppress(OSError):
            out.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


def _point_to_stderr(descriptor: int) -> None:
    if sys.stderr is not None:
        os.dup2(2, descriptor)
        return
    # Standard error was closed when the program started: what is printed is lost.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
