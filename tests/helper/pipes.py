# SPDX-License-Identifier: GPL-3.0-or-later
"""A channel to libxl in this process, and libxl's ends of its pipes."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

from tests.helper.messages import read_message

from xenmig.helper.channel import Channel
from xenmig.helper.libxl import Libxl

if TYPE_CHECKING:
    from tests.helper.messages import Message


class Pipes:
    """The pipes."""

    def __init__(self) -> None:
        """Opens them."""
        (self.replies, self.answers), (self.messages, self.channel_end) = os.pipe(), os.pipe()
        self.channel = Channel(self.replies, self.channel_end)
        self.libxl = Libxl(self.channel)

    def read(self) -> Message:
        """Returns the next message."""
        return read_message(self.messages, 1)

    def reply(self, number: int) -> None:
        """Answers, also beforehand."""
        os.write(self.answers, struct.pack("=i", number))

    def close(self) -> None:
        """Closes what is open."""
        for fd in (self.replies, self.answers, self.messages, self.channel_end):
            with contextlib.suppress(OSError):
                os.close(fd)
