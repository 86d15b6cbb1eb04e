# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are no migration stream: what they are, and what to do with them."""

from __future__ import annotations

__all__ = ["describe_foreign"]

_XL_RESTORE = "restore it with `xl restore`, which takes the migration stream out of it"
_NO_XEN_DOMAIN = "which is no Xen domain"

_MAGICS = {
    b"Xen saved domain, xl format": f"an xl save file: {_XL_RESTORE}",
    b"Xen save": f"an xl save file: {_XL_RESTORE}",
    b"LibxlFmt": f"a libxl stream: {_XL_RESTORE}",
    b"libvirt-xml": "an image saved by libvirt's libxl driver: restore it with `virsh restore`",
    b"Libvirt": f"an image saved by libvirt, {_NO_XEN_DOMAIN}: restore it with `virsh restore`",
    b"QEVM": f"a migration stream of QEMU, {_NO_XEN_DOMAIN}: load it with QEMU",
    b"QFI\xfb": "a qcow2 disk image, not a saved domain",
    b"\x7fELF": "an ELF file, such as a core dump or a kernel, not a saved domain",
    b"\x1f\x8b": "compressed with gzip: decompress it first, as in `gzip -dc FILE | xenmig verify -`",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: decompress it first, as in `zstd -dc FILE | xenmig verify -`",
    b"\xfd7zXZ\0": "compressed with xz: decompress it first, as in `xz -dc FILE | xenmig verify -`",
    b"BZh": "compressed with bzip2: decompress it first, as in `bzip2 -dc FILE | xenmig verify -`",
    b"\x04\x22\x4d\x18": "compressed with lz4: decompress it first, as in `lz4 -dc FILE | xenmig verify -`",
    b"\x89LZO\0": "compressed with lzop: decompress it first, as in `lzop -dc FILE | xenmig verify -`",
    b"XENF": "a stream whose first eight bytes are missing: read it from its start",
    bytes(8): "zeros: nothing was written here, or the stream begins further on",
}
_LEGACY = "a legacy image, of Xen before 4.6: convert it with Xen's convert-legacy-stream"
_TEXT = "text: name the file that holds the stream, or look for an error message of its sender in it"
_UNKNOWN = "neither a migration stream nor anything else that is known here"

_TEXT_BYTES = bytes(range(0x20, 0x7F)) + b"\t\r\n"


def describe_foreign(start: bytes) -> str:
    """Describes a file that begins with `start`, which is not the marker of a stream.

    Args:
        start: Its first bytes, as many as an image header has or all that there are.
    """
    for magic, what in _MAGICS.items():
        if start.startswith(magic):
            return what
    if not start.translate(None, _TEXT_BYTES):
        return _TEXT
    # A legacy image begins with the size of its p2m. A 64-bit toolstack wrote 64 bits, whose upper half is
    # clear; after the 32 bits of a 32-bit one comes a chunk of type -1.
    return _LEGACY if start[4:8] in {bytes(4), b"\xff" * 4} else _UNKNOWN
