# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig verify`` and ``xenmig.restore`` say the same of a stream, or differ for a reason that the manual
names.

Good streams of small guests are changed: records moved, repeated, left out, put in; lengths, counts, types,
reserved bits and contents. Each result is verified, and restored into a new domain of the simulated host.
"""

from __future__ import annotations

import io
import re
import struct
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stream.make_guest import LAST_PFN, hvm_guest, pv_guest, verified
from tests.stream.make_stream import (
    BROKEN,
    CHECKPOINT,
    CONTEXTS,
    CPUID_POLICY,
    DIRTY_PFN_LIST,
    END,
    HVM_CONTEXT,
    HVM_PARAMS,
    L1TAB,
    MSR_POLICY,
    NOTAB,
    PV,
    SHARED_INFO,
    STATIC_DATA_END,
    TOOLSTACK,
    TSC_INFO,
    VCPU_BASIC,
    VCPU_EXTENDED,
    VERIFY,
    XALLOC,
    XTAB,
    headers,
    hvm_params,
    p2m_frames,
    page,
    page_data,
    pv_info,
    record,
    tsc_info,
    vcpu,
)

import xenmig
from xenmig.stream import check_stream

GUESTS = {
    f"{name}, version {version}{', verified' if again else ''}": (
        guest,
        again(records) if again else records,
        version,
    )
    for version in (2, 3)
    for again in (None, verified)
    for name, (guest, records) in {
        "HVM": hvm_guest(version),
        "PVH": hvm_guest(version, b"x" * 900),
        "64-bit PV": pv_guest(version, 8),
        "32-bit PV": pv_guest(version, 4),
    }.items()
}

# What a restore refuses and a check of the stream alone does not: docs/commands.md names each.
OF_THE_HOST = "the host refuses"
REASONS = (
    OF_THE_HOST,
    "Remus and COLO are not supported",  # a valid stream of another use
    "the domain has no vCPU of this number",  # the new domain
    "page table at pfn",  # contents of pages
    "is said to be pfn",  # pages that the guest's state names
    "GDT has more entries",  # contents of a vCPU's registers
    "no such state is so long",  # limits of Xen on the host
)
BEYOND_THE_STREAM = re.compile("|".join(REASONS))

POOL = [
    record(STATIC_DATA_END),
    record(VERIFY),
    record(CHECKPOINT),
    record(END),
    record(TOOLSTACK, b"blob"),
    record(TOOLSTACK),
    record(DIRTY_PFN_LIST, bytes(8)),
    record(DIRTY_PFN_LIST),
    record(1 << 31 | 5, b"optional"),
    record(0x13),
    record(CPUID_POLICY, bytes(24)),
    record(CPUID_POLICY),
    record(MSR_POLICY, bytes(16)),
    record(HVM_CONTEXT, b"other"),
    record(HVM_CONTEXT),
    record(HVM_PARAMS),
    hvm_params({}),
    hvm_params({2: 3}),
    hvm_params({1 << 32: 3}),
    tsc_info(),
    record(TSC_INFO),
    record(SHARED_INFO, bytes(4096)),
    pv_info(8, 4),
    pv_info(4, 3),
    pv_info(8, 3),
    p2m_frames(0, LAST_PFN, [5, 6]),
    p2m_frames(0, LAST_PFN, [5]),
    p2m_frames(LAST_PFN + 1, LAST_PFN + 1, [7]),
    p2m_frames(2 * LAST_PFN, 2 * LAST_PFN, [7]),
    p2m_frames(600, 700, [6]),
    *(vcpu(number, 0, context) for number, context in CONTEXTS.items()),
    *(vcpu(number, 0, b"") for number in CONTEXTS),
    *(record(number) for number in CONTEXTS),
    vcpu(VCPU_EXTENDED, 0, bytes(129)),
    vcpu(VCPU_BASIC, 0, bytes(9)),
    vcpu(VCPU_EXTENDED, 1, b"x"),
    page_data([(7, NOTAB, page(3))]),
    page_data([(7, NOTAB, page(3)), (7, NOTAB, page(3))]),
    page_data([(2, XTAB, None), (12, XALLOC, None), (13, BROKEN, None)]),
    page_data([(12, NOTAB, bytes(4096))]),
    page_data([(5, XALLOC, None), (3, BROKEN, None)]),
    page_data([(LAST_PFN + 1, XTAB, None)]),
    page_data([(1 << 40, XTAB, None)]),
    page_data([(8, L1TAB, bytes(4096))]),
    page_data([(14, 5, page(1))]),
]


@st.composite
def changed(draw: st.DrawFn, records: list[bytes]) -> bytes:
    """Returns the records after some changes."""
    records = list(records)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(records) - 1))
        match draw(
            st.sampled_from(["put in", "put in", "leave out", "repeat", "move", "length", "body", "reserved"])
        ):
            case "put in":
                records.insert(at, draw(st.sampled_from(POOL)))
            case "leave out" if len(records) > 1:
                del records[at]
            case "repeat":
                records.insert(draw(st.integers(0, len(records))), records[at])
            case "move":
                item = records.pop(at)
                records.insert(draw(st.integers(0, len(records))), item)
            case "length":
                number, length = struct.unpack_from("<II", records[at])
                length = draw(
                    st.integers(0, length + 24) | st.sampled_from([0, 8, 16, 128 << 20, (1 << 32) - 1])
                )
                body = records[at][8:][:length]
                records[at] = struct.pack("<II", number, length) + body + bytes(-len(body) % 8)
            case "body" if len(records[at]) > 8:
                data = bytearray(records[at])
                data[draw(st.integers(8, min(len(data) - 1, 90)))] ^= draw(st.integers(1, 255))
                records[at] = bytes(data)
            case "reserved" if len(records[at]) >= 16:
                data = bytearray(records[at])
                data[12:16] = draw(st.binary(min_size=4, max_size=4))
                records[at] = bytes(data)
            case _:
                pass
    return b"".join(records)


def one_line(error: xenmig.StreamError) -> str:
    """Returns the message of an error, which must have an offset and be one line."""
    assert error.offset is not None
    assert "\n" not in str(error)
    return str(error)


def verify_says(stream: bytes) -> str | None:
    """Returns what is wrong with a stream, None for a good one."""
    try:
        check_stream(io.BytesIO(stream))
    except xenmig.StreamError as error:
        return one_line(error)
    return None


def restore_says(stream: bytes, guest: int) -> str | None:
    """Restores into a new domain and returns why that failed, None for success.

    What follows END is not restore's, and is for verify to refuse.
    """
    host = xenmig.sim.Host()
    pv = xenmig.sim.Pv() if guest == PV else None
    domain = host.create(memory="64M", populated=False, pv=pv)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(stream)
            file.seek(0)
            xenmig.restore(domain.domid, file, host=host)
            return None if file.tell() == len(stream) else "bytes follow END"
    except xenmig.StreamError as error:
        return one_line(error)
    except xenmig.HypercallError as error:
        return f"{OF_THE_HOST}: {error}"
    finally:
        host.destroy(domain.domid)


def compare(stream: bytes, guest: int) -> None:
    """Fails if the two readers differ for no reason that is known."""
    verified, restored = verify_says(stream), restore_says(stream, guest)
    if restored is not None and BEYOND_THE_STREAM.search(restored):
        return
    assert (verified is None) == (restored is None), f"verify: {verified}\nrestore: {restored}"


@pytest.mark.parametrize("name", GUESTS)
def test_good_streams_are_good(name: str) -> None:
    guest, records, version = GUESTS[name]
    stream = headers(guest, version) + b"".join(records)
    assert (verify_says(stream), restore_says(stream, guest)) == (None, None)


@pytest.mark.parametrize(
    "name",
    [name for name in GUESTS if not name.startswith(("PVH", "32-bit")) and not name.endswith("2, verified")],
)
def test_each_record_at_each_place(name: str) -> None:
    """All that one record more does, without chance."""
    guest, records, version = GUESTS[name]
    for at in range(len(records) + 1):
        for item in POOL:
            compare(headers(guest, version) + b"".join([*records[:at], item, *records[at:]]), guest)


@given(st.sampled_from(sorted(GUESTS)), st.data())
def test_verify_and_restore_agree(name: str, data: st.DataObject) -> None:
    guest, records, version = GUESTS[name]
    compare(headers(guest, version) + data.draw(changed(records)), guest)


FOREIGN = {
    b"Xen saved domain, xl format\n \0 \r" + bytes(16): "xl restore",
    b"LibxlFmt" + bytes(8): "libxl stream",
    b"\0\0\4\0" + bytes(4) + b"x" * 40: "convert-legacy-stream",
    b"\0\0\4\0" + b"\xff" * 4 + b"x" * 40: "convert-legacy-stream",
    b"\x1f\x8b\x08\0": "gzip -dc",
    b"\x28\xb5\x2f\xfd" + bytes(40): "zstd -dc",
    b"\xfd7zXZ\0": "xz -dc",
    b"BZh9": "bzip2 -dc",
    b"\x04\x22\x4d\x18": "lz4 -dc",
    b"\x89LZO\0": "lzop -dc",
    b"LibvirtQemudSave" + bytes(40): "virsh restore",
    b"libvirt-xml\n \0 \r": "virsh restore",
    b"QEVM" + bytes(40): "QEMU",
    b"QFI\xfb" + bytes(40): "qcow2",
    b"\x7fELF": "ELF",
    bytes(100): "nothing was written here",
    b"": "it is empty",
    b"hello\n": "but text",
    b"xl: migration of domain failed, see the log for more\n": "but text",
    headers()[8:]: "first eight bytes are missing",
    b"\x80\x81\x82\x83\x84\x85\x86\x87" * 9: "known here",
}


@pytest.mark.parametrize(("start", "text"), FOREIGN.items(), ids=FOREIGN.values())
def test_both_name_what_is_no_stream(start: bytes, text: str) -> None:
    for said in (verify_says(start), restore_says(start, PV)):
        assert said is not None
        assert text in said
