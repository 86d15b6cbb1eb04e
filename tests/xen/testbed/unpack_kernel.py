# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks a Linux bzImage compressed with xz into the ELF image that Xen starts as dom0.

Xen could unpack it itself, but under emulation that takes longer than the rest of the boot.
Layout: Linux, Documentation/x86/boot.rst, "The Real-Mode Kernel Header".
"""

from __future__ import annotations

import lzma
import struct
import sys
from pathlib import Path

SETUP_SECTS = 0x1F1
"""Offset of the number of 512-byte sectors of the real-mode part, not counting its first one; 0 means 4."""
MAGIC = 0x202
"""Offset of the header's magic, ``HdrS``."""
PAYLOAD = 0x248
"""Offset of payload_offset, counted from the end of the real-mode part, and of payload_length."""
XZ = b"\xfd7zXZ\0"
ELF = b"\x7fELF"


def unpacked(image: bytes) -> bytes:
    """Returns the kernel that a bzImage carries.

    Args:
        image: The whole file.

    Returns:
        An ELF image.

    Raises:
        ValueError: It is no bzImage, or not one that is compressed with xz.
    """
    if image[MAGIC : MAGIC + 4] != b"HdrS":
        raise ValueError("not a bzImage: no HdrS at 0x202")
    start = ((image[SETUP_SECTS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    payload = image[start + offset :][:length]
    if not payload.startswith(XZ):
        raise ValueError(f"the kernel is not compressed with xz: it starts with {payload[:6].hex()}")
    # After the xz stream stands the size of the result, which lzma leaves alone.
    kernel = lzma.LZMADecompressor().decompress(payload)
    if not kernel.startswith(ELF):
        raise ValueError("what was compressed is no ELF image")
    return kernel


if __name__ == "__main__":
    source, target = sys.argv[1:]
    Path(target).write_bytes(unpacked(Path(source).read_bytes()))
