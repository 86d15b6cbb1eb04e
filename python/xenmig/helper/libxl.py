# SPDX-License-Identifier: GPL-3.0-or-later
"""What libxl and a save helper tell each other, as methods.

The numbers and arguments of the messages are those of ``libxl_save_msgs_gen.pl``: they have been the same
since Xen 4.14, or longer. A string is its length with the NUL, and its bytes with the NUL.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING

from xenmig.errors import XenmigError

if TYPE_CHECKING:
    from xenmig.helper.channel import Channel

__all__ = [
    "DEVICE_MODEL_BIT",
    "LOG_INTERVAL_S",
    "PROGRESS_INTERVAL_S",
    "STATIC_DATA_BIT",
    "SUSPEND_BIT",
    "Level",
    "Libxl",
    "LibxlRefused",
]

_LOG, _PROGRESS, _SUSPEND, _SWITCH_QEMU_LOGDIRTY = 1, 2, 3, 7
_STATIC_DATA_DONE, _RESTORE_RESULTS, _COMPLETE = 8, 9, 10
SUSPEND_BIT = 1 << _SUSPEND
"""The bit of ``cbflags`` that says that libxl suspends the guest when asked."""
STATIC_DATA_BIT = 1 << _STATIC_DATA_DONE
"""The bit of ``cbflags`` that says that libxl wants to hear when the static data is complete."""
DEVICE_MODEL_BIT = 1 << _SWITCH_QEMU_LOGDIRTY
"""The bit of ``cbflags`` that says that libxl switches the device model's log-dirty mode."""

PROGRESS_INTERVAL_S = 0.5
"""The least time between two progress messages."""
LOG_INTERVAL_S = 5.0
"""So often the same is logged where progress messages are hidden."""

_CONTEXT = "xenmig"
_TEXT_BYTES = 8000
_CUT = " ... (cut)"
_NO_ERRNO = 0xFFFF_FFFF


class Level(enum.IntEnum):
    """How important a log message is (``xentoollog.h``). xl shows PROGRESS and above."""

    DEBUG = 1
    PROGRESS = 4
    INFO = 5
    WARN = 7
    ERROR = 8


class LibxlRefused(XenmigError):  # noqa: N818 - it names what libxl did
    """libxl could not do what it was asked to; its own log messages say why."""


class Libxl:
    """The toolstack that has started this helper."""

    def __init__(self, channel: Channel, subject: str = "") -> None:
        """Talks to it through a channel.

        Args:
            channel: The pipes.
            subject: What stands at the front of each log line.
        """
        self._channel = channel
        self._subject = subject

    def line(self, text: str) -> str:
        """Returns a text as it is logged."""
        return f"{self._subject}: {text}" if self._subject else text

    def log(self, level: Level, text: str) -> None:
        """Has a line logged, which xl prints on its standard error.

        Raises:
            LibxlGone: libxl has closed the pipe.
        """
        numbers = struct.pack("=HII", _LOG, level, _NO_ERRNO)
        self._channel.send(numbers + _string(_CONTEXT) + _string(self.line(text)))

    def progress(self, doing: str, done: int, total: int) -> None:
        """Has the progress shown, as ``doing: done/total percent``.

        ``xl save`` shows it if the percentage has grown by 5 or has shrunk; ``xl migrate`` shows none.

        Raises:
            LibxlGone: libxl has closed the pipe.
        """
        numbers = struct.pack("@LL", done, total)
        self._channel.send(struct.pack("=H", _PROGRESS) + _string(_CONTEXT) + _string(doing) + numbers)

    def suspend(self) -> None:
        """Has the guest suspended, and returns when it is.

        Raises:
            LibxlRefused: It could not be.
            LibxlGone: libxl has ended.
        """
        if not self._channel.ask(struct.pack("=H", _SUSPEND)):
            raise LibxlRefused("libxl could not suspend the guest: its own messages say why")

    def switch_device_model_logdirty(self, domid: int, *, on: bool) -> None:
        """Has the device model log the pages that it writes, or stop that.

        Raises:
            LibxlRefused: The device model did not do it.
            LibxlGone: libxl has ended.
        """
        if self._channel.ask(struct.pack("=HII", _SWITCH_QEMU_LOGDIRTY, domid, on)):
            switch = "on" if on else "off"
            raise LibxlRefused(
                f"libxl could not switch the device model's log-dirty mode {switch}: its own messages say why"
            )

    def static_data_done(self, missing: int) -> None:
        """Has libxl set what the stream does not say of the CPU policy.

        Args:
            missing: What that is, as :func:`xenmig.restore` tells it.

        Raises:
            LibxlRefused: It could not be set.
            LibxlGone: libxl has ended.
        """
        if self._channel.ask(struct.pack("=HI", _STATIC_DATA_DONE, missing)):
            raise LibxlRefused(
                "libxl could not complete the CPU policy of the new domain: its own messages say why"
            )

    def restore_results(self, store_gfn: int, console_gfn: int) -> None:
        """Says where the pages are that the new domain shares with xenstore and with its console.

        Raises:
            LibxlGone: libxl has closed the pipe.
        """
        self._channel.send(struct.pack("=H", _RESTORE_RESULTS) + struct.pack("@LL", store_gfn, console_gfn))

    def complete(self, errno: int) -> None:
        """Says how the save or restore ended.

        Args:
            errno: 0 if the whole stream is written, or restored; else what failed. libxl logs its text.

        Raises:
            LibxlGone: libxl has ended.
        """
        self._channel.ask(struct.pack("=Hii", _COMPLETE, -1 if errno else 0, errno))


def _string(text: str) -> bytes:
    """Returns a string as it goes into a message: one line, not too long for libxl's stack and a log."""
    line = " | ".join(filter(None, (part.strip() for part in text.replace("\0", " ").splitlines())))
    encoded = line.encode("utf-8", "backslashreplace")
    if len(encoded) > _TEXT_BYTES:
        # A character that is cut in two is dropped.
        encoded = encoded[:_TEXT_BYTES].decode("utf-8", "ignore").encode() + _CUT.encode()
    return struct.pack("=I", len(encoded) + 1) + encoded + b"\0"
