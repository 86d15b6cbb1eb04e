# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbers of libxc's migration stream: headers, record types, page types.

Source: Xen's "libxenctrl Domain Image Format", revision 3. Every length here is in bytes. The rest of
the package takes its numbers from this module and from nowhere else.

::

    image header, 24 bytes, big-endian             domain header, 16 bytes
    +-------------------------------+               +-----------+-----------+-----------+
    | marker  (8 x 0xff)            |               | type  (4) | shift (2) | rsvd  (2) |
    +---------------+---------------+               +-----------+-----------+-----------+
    | id "XENF" (4) | version   (4) |               | xen_major (4)         | minor (4) |
    +-------+-------+---------------+               +-----------------------+-----------+
    | options (2)   | reserved  (6) |
    +---------------+---------------+

    record: type (4), body_length (4), body, zeros up to a multiple of 8
    pfn word of PAGE_DATA: bits 63-60 page type, 59-52 reserved, 51-0 pfn
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenmig.errors import StreamError
from xenmig.stream.foreign import describe_foreign

if TYPE_CHECKING:
    from xenmig.stream.remarks import Remarks

IMAGE_HEADER_BYTES = 24
DOMAIN_HEADER_BYTES = 16
RECORD_HEADER_BYTES = 8
MAX_BODY_BYTES = 128 << 20
"""Largest record body that Xen's own restore takes; a longer one is refused before anything is read."""

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
"""Guest page size: both domain types of the specification are x86."""

PFN_MASK = (1 << 52) - 1
PAGE_TYPE_SHIFT = 60
RESERVED_PFN_BITS = 0xFF << 52

OPTIONAL_RECORD = 1 << 31
"""Bit of a record's type number that lets a receiver ignore the record."""

CPUID_LEAF_BYTES = 24
MSR_ENTRY_BYTES = 16

VERSIONS = (2, 3)

_MARKER = b"\xff" * 8
_ID = b"XENF"
_IMAGE_HEADER = struct.Struct(">8s4sIH6s")
_DOMAIN_HEADER = struct.Struct("<IHHII")
_BIG_ENDIAN = 1


class GuestType(enum.IntEnum):
    """``type`` of the domain header."""

    X86_PV = 1
    X86_HVM = 2

    @property
    def title(self) -> str:
        """The name in Xen's words."""
        return self.name.replace("_", " ").replace("X", "x")


class RecordType(enum.IntEnum):
    """``type`` of a record: the mandatory ones that the specification defines."""

    END = 0x00
    PAGE_DATA = 0x01
    X86_PV_INFO = 0x02
    X86_PV_P2M_FRAMES = 0x03
    X86_PV_VCPU_BASIC = 0x04
    X86_PV_VCPU_EXTENDED = 0x05
    X86_PV_VCPU_XSAVE = 0x06
    SHARED_INFO = 0x07
    X86_TSC_INFO = 0x08
    HVM_CONTEXT = 0x09
    HVM_PARAMS = 0x0A
    TOOLSTACK = 0x0B
    X86_PV_VCPU_MSRS = 0x0C
    VERIFY = 0x0D
    CHECKPOINT = 0x0E
    CHECKPOINT_DIRTY_PFN_LIST = 0x0F
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


class PageType(enum.IntEnum):
    """``XEN_DOMCTL_PFINFO_*``: what bits 63-60 of a pfn word say."""

    NOTAB = 0x0
    L1TAB = 0x1
    L2TAB = 0x2
    L3TAB = 0x3
    L4TAB = 0x4
    L1TAB_PIN = 0x9
    L2TAB_PIN = 0xA
    L3TAB_PIN = 0xB
    L4TAB_PIN = 0xC
    BROKEN = 0xD
    XALLOC = 0xE
    XTAB = 0xF

    @property
    def has_contents(self) -> bool:
        """Whether ``page_data`` holds a page for a pfn of this type."""
        return self < PageType.BROKEN


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the image header says.

    Attributes:
        version: Version of the format, 2 or 3.
        options: The option bits; bit 0, big-endian, is never set in a stream that was accepted.
    """

    version: int
    options: int


@dataclass(frozen=True, slots=True)
class DomainHeader:
    """What the domain header says.

    Attributes:
        guest_type: PV or HVM; a PVH domain is HVM here.
        page_shift: Binary logarithm of the guest page size: 12.
        xen_major: Major version of the Xen that saved; 0 if a legacy image was converted.
        xen_minor: Minor version of the Xen that saved, or the converter's version.
    """

    guest_type: GuestType
    page_shift: int
    xen_major: int
    xen_minor: int


def parse_image_header(data: bytes, remarks: Remarks) -> ImageHeader:
    """Reads the image header, the first 24 bytes of a stream; of a file that is no stream there may be fewer.

    Raises:
        StreamError: This is no migration stream, or one that an x86 receiver of version 3 cannot read.
    """
    if not data.startswith(_MARKER):
        message = f"no migration stream, whose marker is {_MARKER.hex()}, but {describe_foreign(data)}"
        raise StreamError(message, offset=0)
    _, magic, version, options, reserved = _IMAGE_HEADER.unpack(data)
    if magic != _ID:
        message = f"no migration stream: id {magic.hex()}, expected {_ID.hex()} (XENF)"
        raise StreamError(message, offset=8)
    if version not in VERSIONS:
        message = f"stream version {version}, expected 2 or 3"
        raise StreamError(message, offset=12)
    if options & _BIG_ENDIAN:
        message = "big-endian stream: those of x86 domains are little-endian"
        raise StreamError(message, offset=16)
    if options:
        remarks.add(16, f"reserved option bits are set: {options:#06x}")
    if any(reserved):
        remarks.add(18, f"reserved bytes of the image header are not zero: {reserved.hex()}")
    return ImageHeader(version, options)


def parse_domain_header(data: bytes, remarks: Remarks) -> DomainHeader:
    """Reads the domain header, the 16 bytes after the image header.

    Raises:
        StreamError: The domain type or the page size is none of an x86 domain.
    """
    number, page_shift, reserved, xen_major, xen_minor = _DOMAIN_HEADER.unpack(data)
    try:
        guest_type = GuestType(number)
    except ValueError:
        message = f"domain type {number:#x}, expected 0x1 (x86 PV) or 0x2 (x86 HVM)"
        raise StreamError(message, offset=IMAGE_HEADER_BYTES) from None
    if page_shift != PAGE_SHIFT:
        message = (
            f"page_shift {page_shift}, expected {PAGE_SHIFT}: pages of x86 domains have {PAGE_BYTES} bytes"
        )
        raise StreamError(message, offset=IMAGE_HEADER_BYTES + 4)
    if reserved:
        remarks.add(
            IMAGE_HEADER_BYTES + 6, f"the reserved field of the domain header is not zero: {reserved:#06x}"
        )
    return DomainHeader(guest_type, page_shift, xen_major, xen_minor)
