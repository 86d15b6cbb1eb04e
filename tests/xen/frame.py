# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``xl save`` puts around libxc's stream, for a stream of ``xenmig.save`` to become an image for xl.

::

    xl's header, the domain's configuration │ LibxlFmt, LIBXC_CONTEXT │ libxc's stream │ device model, END
    └─────────────────────────── before ──────────────────────────────┘                └──── after ──────┘

The two outer parts are of a checkpoint (``xl save -c``) of the same domain. Xen's ``libxl-migration-stream``
has the layout of the record in front of libxc's stream, ``libxc-migration-stream`` how that begins.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenmig.stream import StreamReader

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Frame"]

# A record of type LIBXC_CONTEXT without a body, then the marker and the number of libxc's image header.
_BEGINNING = struct.pack("<II", 1, 0) + struct.pack(">QI", 0xFFFF_FFFF_FFFF_FFFF, 0x5845_4E46)
_CONTEXT_BYTES = 8
_MOST_BEFORE = 1 << 20


@dataclass(frozen=True)
class Frame:
    """The parts of an image around libxc's stream.

    Attributes:
        before: What comes before it.
        after: What comes after it.
    """

    before: bytes
    after: bytes

    @classmethod
    def of(cls, image: Path) -> Frame:
        """Returns the frame of a file that ``xl save`` has written."""
        with image.open("rb") as file:
            start = file.read(_MOST_BEFORE).index(_BEGINNING) + _CONTEXT_BYTES
            file.seek(0)
            before = file.read(start)
            for record in StreamReader(file):
                del record
            return cls(before, file.read())

    def around(self, stream: Path, image: Path) -> None:
        """Writes an image with this frame around another stream."""
        with stream.open("rb") as source, image.open("wb") as target:
            target.write(self.before)
            shutil.copyfileobj(source, target, 1 << 20)
            target.write(self.after)
