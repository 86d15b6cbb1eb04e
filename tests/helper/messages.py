# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of a save helper as libxl reads them: every byte must be accounted for.

Numbers and arguments from ``libxl_save_msgs_gen.pl``; a string is its length, its bytes, and a NUL that is
part of the length.
"""

from __future__ import annotations

import os
import select
import struct
import time
from typing import NamedTuple

_ARGUMENTS = {
    1: ("log", "IISS"),
    2: ("progress", "SSLL"),
    3: ("suspend", ""),
    4: ("postcopy", ""),
    5: ("checkpoint", ""),
    6: ("wait_checkpoint", ""),
    7: ("switch_qemu_logdirty", "II"),
    8: ("static_data_done", "I"),
    9: ("restore_results", "LL"),
    10: ("complete", "ii"),
}
#: Messages that have a reply.
WITH_REPLY = {
    "suspend",
    "postcopy",
    "checkpoint",
    "wait_checkpoint",
    "switch_qemu_logdirty",
    "static_data_done",
    "complete",
}
#: Levels of ``xentoollog.h`` by number.
LEVELS = {1: "debug", 4: "progress", 5: "info", 7: "warning", 8: "error"}


class Message(NamedTuple):
    """A message: its name and its arguments."""

    name: str
    arguments: tuple[int | str, ...] = ()


class EndOfMessages(Exception):  # noqa: N818 - it is no failure
    """The helper has closed its end."""


def read_message(fd: int, timeout_s: float) -> Message:
    """Reads one message.

    Raises:
        EndOfMessages: There is none any more.
        TimeoutError: There is none yet.
    """
    deadline_s = time.monotonic() + timeout_s
    head = _read(fd, 2, deadline_s)
    if not head:
        raise EndOfMessages
    (length,) = struct.unpack("=H", head)
    return parse(_read(fd, length, deadline_s))


def parse(body: bytes) -> Message:
    """Reads a message's body."""
    (number,) = struct.unpack_from("=H", body)
    name, kinds = _ARGUMENTS[number]
    at = 2
    arguments: list[int | str] = []
    for kind in kinds:
        if kind == "S":
            (size,) = struct.unpack_from("=I", body, at)
            text = body[at + 4 : at + 4 + size]
            assert len(text) == size > 0, "a string is cut off"
            assert text.index(b"\0") == size - 1, "a string ends with its only NUL"
            arguments.append(text[:-1].decode())
            at += 4 + size
        else:
            arguments += struct.unpack_from(f"@{kind}", body, at)
            at += struct.calcsize(f"@{kind}")
    assert at == len(body), "there are bytes behind the arguments"
    return Message(name, tuple(arguments))


def _read(fd: int, size: int, deadline_s: float) -> bytes:
    """Reads a number of bytes, or none at the end."""
    data = b""
    while len(data) < size:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            raise TimeoutError("the helper says nothing")
        part = os.read(fd, size - len(data))
        if not part:
            assert not data, "the helper ended in the middle of a message"
            return b""
        data += part
    return data
