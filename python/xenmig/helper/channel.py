# SPDX-License-Identifier: GPL-3.0-or-later
"""The two pipes to libxl: messages go out on descriptor 1, replies come in on descriptor 0.

A message is a 16-bit length and the bytes; a reply is one C ``int``; both in the machine's byte order
(``libxl_save_helper.c``, ``libxl_save_callout.c``). The pipes are moved to other descriptors before any code
of a policy runs: what is printed goes to standard error, and libxl's replies are not read by mistake.
"""

from __future__ import annotations

import fcntl
import os
import struct

from xenmig.errors import XenmigError
from xenmig.helper.signals import uninterrupted

__all__ = ["Channel", "LibxlGone"]


class LibxlGone(XenmigError):  # noqa: N818 - it names what happened
    """libxl does not listen any more: it has ended, or closed the pipes."""


class Channel:
    """The pipes to libxl."""

    def __init__(self, replies: int, messages: int) -> None:
        """Takes two descriptors.

        Args:
            replies: To read replies from.
            messages: To write messages to.
        """
        self._replies = replies
        self._messages = messages

    @classmethod
    def take(cls) -> Channel:
        """Takes the pipes from the descriptors 0 and 1, and puts ``/dev/null`` and standard error there.

        Raises:
            OSError: One of them is closed.
        """
        channel = cls(_move_up(0), _move_up(1))
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)
        try:
            os.dup2(2, 1)
        except OSError:
            # There is no standard error: what is printed is lost.
            os.dup2(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC), 1)
        return channel

    def give_back(self) -> None:
        """Puts the pipes back to the descriptors 0 and 1, for another program."""
        os.dup2(self._replies, 0)
        os.dup2(self._messages, 1)

    @uninterrupted
    def send(self, body: bytes) -> None:
        """Sends a message that has no reply.

        Raises:
            LibxlGone: libxl has closed the pipe.
        """
        rest = memoryview(struct.pack("=H", len(body)) + body)
        try:
            while rest:
                rest = rest[os.write(self._messages, rest) :]
        except OSError as error:
            raise LibxlGone(f"libxl takes no messages any more: {error.strerror}") from None

    @uninterrupted
    def ask(self, body: bytes) -> int:
        """Sends a message and returns its reply. A signal is heard only when the reply is there.

        Raises:
            LibxlGone: libxl has closed the pipe, or there is no reply.
        """
        self.send(body)
        size = struct.calcsize("=i")
        reply = b""
        try:
            while len(reply) < size:
                part = os.read(self._replies, size - len(reply))
                if not part:
                    raise LibxlGone("libxl has closed the pipe without a reply")
                reply += part
        except OSError as error:
            raise LibxlGone(f"libxl's reply cannot be read: {error.strerror}") from None
        number: int = struct.unpack("=i", reply)[0]
        return number


def _move_up(fd: int) -> int:
    """Returns a duplicate that another program does not inherit, and that is none of 0, 1 and 2."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
