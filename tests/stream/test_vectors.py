# SPDX-License-Identifier: GPL-3.0-or-later
"""Each header and record against bytes written by hand from the specification's drawings."""

from __future__ import annotations

import io
import re

import pytest

from xenmig.errors import StreamError
from xenmig.stream import (
    Checkpoint,
    CheckpointDirtyPfnList,
    DomainHeader,
    End,
    GuestType,
    HvmContext,
    HvmParams,
    ImageHeader,
    OptionalRecord,
    PageData,
    PageType,
    Record,
    SharedInfo,
    StaticDataEnd,
    StreamReader,
    Toolstack,
    Verify,
    X86CpuidPolicy,
    X86MsrPolicy,
    X86PvInfo,
    X86PvP2mFrames,
    X86PvVcpuBasic,
    X86PvVcpuExtended,
    X86PvVcpuMsrs,
    X86PvVcpuXsave,
    X86TscInfo,
)

IMAGE_HEADER = "ffffffff ffffffff 58454e46 00000003 0000 000000000000"
DOMAIN_HEADER = "02000000 0c00 0000 04000000 11000000"
END = "00000000 00000000"
FIRST = 40
"""Offset of the first record."""


def read(text: str, after: str = END) -> list[Record]:
    """Reads records given as hexadecimal digits, with headers before and END after them."""
    data = bytes.fromhex(IMAGE_HEADER + DOMAIN_HEADER + text + after)
    return list(StreamReader(io.BytesIO(data)))


def one(text: str) -> Record:
    record, end = read(text)
    assert end == End(FIRST + len(bytes.fromhex(text)), 0)
    assert (record.offset, record.body_length) == (
        FIRST,
        int.from_bytes(bytes.fromhex(text)[4:8], "little"),
    )
    return record


def test_headers() -> None:
    data = bytes.fromhex(
        "ffffffff ffffffff 58454e46 00000002 0000 000000000000 01000000 0c00 0000 04000000 0e000000"
    )
    reader = StreamReader(io.BytesIO(data))
    assert reader.image_header == ImageHeader(version=2, options=0)
    assert reader.domain_header == DomainHeader(GuestType.X86_PV, page_shift=12, xen_major=4, xen_minor=14)
    assert reader.offset == FIRST
    assert reader.remarks.count == 0


@pytest.mark.parametrize(
    ("data", "offset", "text"),
    [
        ("00ffffff ffffffff 58454e46 00000003 0000 000000000000" + DOMAIN_HEADER, 0, "legacy"),
        (b"Xen saved domain, xl format".hex() + DOMAIN_HEADER, 0, "xl save file"),
        (b"LibxlFmt".hex() + "00" * 16 + DOMAIN_HEADER, 0, "libxl stream"),
        ("ffffffff ffffffff 464e4558 00000003 0000 000000000000" + DOMAIN_HEADER, 8, "id 464e4558"),
        ("ffffffff ffffffff 58454e46 00000001 0000 000000000000" + DOMAIN_HEADER, 12, "version 1,"),
        ("ffffffff ffffffff 58454e46 00000004 0000 000000000000" + DOMAIN_HEADER, 12, "version 4,"),
        ("ffffffff ffffffff 58454e46 03000000 0000 000000000000" + DOMAIN_HEADER, 12, "version 50331648"),
        ("ffffffff ffffffff 58454e46 00000003 0001 000000000000" + DOMAIN_HEADER, 16, "big-endian"),
        (IMAGE_HEADER + "00000000 0c00 0000 04000000 11000000", 24, "domain type 0x0"),
        (IMAGE_HEADER + "03000000 0c00 0000 04000000 11000000", 24, "domain type 0x3"),
        (IMAGE_HEADER + "02000000 0d00 0000 04000000 11000000", 28, "page_shift 13"),
        (IMAGE_HEADER + "02000000 ffff 0000 04000000 11000000", 28, "page_shift 65535"),
    ],
)
def test_headers_that_are_refused(data: str, offset: int, text: str) -> None:
    with pytest.raises(StreamError, match=text) as caught:
        StreamReader(io.BytesIO(bytes.fromhex(data)))
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("number", "kind"),
    [("0d", Verify), ("0e", Checkpoint), ("10", StaticDataEnd)],
)
def test_records_without_a_body(number: str, kind: type[Record]) -> None:
    assert one(f"{number}000000 00000000") == kind(FIRST, 0)


def test_page_data() -> None:
    first, second = b"\x11" * 4096, b"\x22" * 4096
    text = """
        01000000 30200000
        05000000 00000000
        0500000000000000
        06000000000000f0
        ffffffffffff0fc0
        07000000000000d0
        08000000000000e0
    """
    data = bytes.fromhex(IMAGE_HEADER + DOMAIN_HEADER + text) + first + second + bytes.fromhex(END)
    reader = StreamReader(io.BytesIO(data))
    record = next(iter(reader))
    assert isinstance(record, PageData)
    assert (record.offset, record.body_length) == (FIRST, 0x2030)
    assert list(record.words) == [
        (5, PageType.NOTAB),
        (6, PageType.XTAB),
        (0xFFFFFFFFFFFFF, PageType.L4TAB_PIN),
        (7, PageType.BROKEN),
        (8, PageType.XALLOC),
    ]
    assert record.words[-1] == (8, PageType.XALLOC)
    assert record.words[1:3] == tuple(record.words)[1:3]
    assert record.words.pages == 2
    assert [(pfn, bytes(page)) for pfn, page in record.pages()] == [(5, first), (0xFFFFFFFFFFFFF, second)]
    assert list(reader) == [End(FIRST + 8 + 0x2030, 0)]
    assert reader.remarks.count == 0


@pytest.mark.parametrize("number", range(16))
def test_page_types(number: int) -> None:
    has_contents = number in (0, 1, 2, 3, 4, 9, 10, 11, 12)
    length = 16 + 4096 * has_contents
    text = f"01000000 {length.to_bytes(4, 'little').hex()} 01000000 00000000 07000000000000{number << 4:02x}"
    text += "33" * 4096 * has_contents
    if 5 <= number <= 8:
        with pytest.raises(StreamError, match=f"unknown page type 0x{number} of pfn 0x7") as caught:
            read(text)
        assert caught.value.offset == FIRST + 16
    else:
        record = one(text)
        assert isinstance(record, PageData)
        assert list(record.words) == [(7, PageType(number))]
        assert record.words.pages == has_contents


def test_an_unknown_page_type_is_found_behind_others() -> None:
    with pytest.raises(StreamError, match="unknown page type 0x8 of pfn 0x9") as caught:
        read("01000000 20000000 03000000 00000000 00000000000000f0 0900000000000080 0700000000000070")
    assert caught.value.offset == FIRST + 24


def test_pv_info() -> None:
    assert one("02000000 08000000 08 04 0000 00000000") == X86PvInfo(FIRST, 8, 8, 4)
    assert one("02000000 08000000 04 03 0000 00000000") == X86PvInfo(FIRST, 8, 4, 3)


def test_p2m_frames() -> None:
    record = one("03000000 18000000 00020000 ff050000 3412000000000000 efcdab8967452301")
    assert isinstance(record, X86PvP2mFrames)
    assert (record.start_pfn, record.end_pfn) == (0x200, 0x5FF)
    assert record.p2m_pfns == (0x1234, 0x0123456789ABCDEF)
    assert record.frames == 2
    record = one("03000000 10000000 ff010000 ff010000 3412000000000000")
    assert isinstance(record, X86PvP2mFrames)
    assert (record.start_pfn, record.end_pfn, record.p2m_pfns) == (0x1FF, 0x1FF, (0x1234,))


@pytest.mark.parametrize(
    ("number", "kind"),
    [("04", X86PvVcpuBasic), ("05", X86PvVcpuExtended), ("06", X86PvVcpuXsave), ("0c", X86PvVcpuMsrs)],
)
def test_vcpu_records(number: str, kind: type[X86PvVcpuBasic]) -> None:
    record = one(f"{number}000000 0b000000 02010000 00000000 aabbcc 0000000000")
    assert record == kind(FIRST, 11, 0x102, b"\xaa\xbb\xcc")
    assert not record.is_empty


def test_shared_info() -> None:
    assert one("07000000 00100000" + "5a" * 4096) == SharedInfo(FIRST, 4096, b"\x5a" * 4096)


def test_tsc_info() -> None:
    record = one("08000000 18000000 02000000 b8882a00 8877665544332211 05000000 00000000")
    expected = X86TscInfo(FIRST, 24, mode=2, khz=2_787_512, elapsed_ns=0x1122334455667788, incarnation=5)
    assert record == expected


def test_hvm_context() -> None:
    assert one("09000000 05000000 0102030405 000000") == HvmContext(FIRST, 5, b"\1\2\3\4\5")


def test_hvm_params() -> None:
    record = one(
        "0a000000 28000000 02000000 00000000"
        "0100000000000000 00f0fffe00000000"
        "0500000000000000 efcdab8967452301"
    )
    assert isinstance(record, HvmParams)
    assert record.params == ((1, 0xFEFFF000), (5, 0x0123456789ABCDEF))
    assert record.count == 2


def test_toolstack() -> None:
    assert one("0b000000 01000000 7f 00000000000000") == Toolstack(FIRST, 1, b"\x7f")


def test_checkpoint_dirty_pfn_list() -> None:
    record = one("0f000000 10000000 0300000000000000 0200000001000000")
    assert isinstance(record, CheckpointDirtyPfnList)
    assert record.pfns == (3, 0x100000002)


def test_policies() -> None:
    cpuid = one("11000000 30000000" + "c1" * 48)
    assert isinstance(cpuid, X86CpuidPolicy)
    assert (cpuid.data, cpuid.leaves) == (b"\xc1" * 48, 2)
    msrs = one("12000000 30000000" + "35" * 48)
    assert isinstance(msrs, X86MsrPolicy)
    assert (msrs.data, msrs.entries) == (b"\x35" * 48, 3)


def test_optional_record() -> None:
    record = one("01000080 03000000 616263 0000000000")
    assert record == OptionalRecord(FIRST, 3, 0x80000001)
    assert (record.type_number, record.type_name) == (0x80000001, "optional 0x80000001")
    assert one("ffffffff 00000000").type_number == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("13000000 00000000", 0, "unknown mandatory record type 0x13"),
        ("ffffff7f 00000000", 0, "unknown mandatory record type 0x7fffffff"),
        ("00000000 08000000 0000000000000000", 8, "END has 8 bytes, expected 0"),
        ("0d000000 01000000 0000000000000000", 8, "VERIFY has 1 bytes, expected 0"),
        ("09000000 01000008", 4, "HVM_CONTEXT has 134217729 bytes, expected at most 134217728"),
        ("01000080 01000008", 4, "optional 0x80000001 has 134217729 bytes"),
        ("01000000 00000000", 0, "PAGE_DATA has 0 bytes, expected at least"),
        ("01000000 08000000 01000000 00000000", 0, "PAGE_DATA has 8 bytes, expected at least"),
        ("01000000 10000000 00000000 00000000 0000000000000000", 8, "counts 0 pfns, expected 1 to 1"),
        ("01000000 10000000 02000000 00000000 00000000000000f0", 8, "counts 2 pfns, expected 1 to 1"),
        ("01000000 10000000 ffffffff 00000000 00000000000000f0", 8, "counts 4294967295 pfns"),
        ("01000000 10000000 01000000 00000000 0000000000000000", 0, "16 bytes, expected 4112"),
        ("01000000 18000000 01000000 00000000 00000000000000f0 0000000000000000", 0, "expected 16"),
        ("02000000 07000000 0804000000000000", 8, "X86_PV_INFO has 7 bytes, expected 8"),
        ("02000000 08000000 0504000000000000", 8, "guest width 5, expected 4 or 8"),
        ("02000000 08000000 0805000000000000", 9, "5 page table levels, expected 3 or 4"),
        ("03000000 08000000 0000000000000000", 8, "has 8 bytes, expected 8 and a multiple of 8"),
        ("03000000 0c000000 0000000000000000 00000000 00000000", 8, "has 12 bytes"),
        ("03000000 10000000 02000000 01000000 0000000000000000", 8, "covers pfn 0x2 to 0x1"),
        ("05000000 07000000 0000000000000000", 8, "EXTENDED has 7 bytes, expected at least 8"),
        ("07000000 08000000 0000000000000000", 8, "SHARED_INFO has 8 bytes, expected 4096"),
        ("08000000 10000000 00000000000000000000000000000000", 8, "X86_TSC_INFO has 16 bytes, expected 24"),
        ("0a000000 04000000 0000000000000000", 8, "HVM_PARAMS has 4 bytes, expected at least 8"),
        ("0a000000 08000000 01000000 00000000", 8, "HVM_PARAMS has 8 bytes, expected 24"),
        (
            "0a000000 18000000 01000000 00000000 0000000001000000" + "00" * 8,
            16,
            "index 0x100000000, expected",
        ),
        ("0a000000 08000000 ffffffff 00000000", 8, "HVM_PARAMS has 8 bytes, expected 68719476728"),
        ("0f000000 09000000 00000000000000000000000000000000", 8, "has 9 bytes, expected a multiple of 8"),
        ("11000000 20000000" + "00" * 32, 8, "X86_CPUID_POLICY has 32 bytes"),
        ("12000000 18000000" + "00" * 24, 8, "X86_MSR_POLICY has 24 bytes, expected a multiple of 16"),
    ],
)
def test_records_that_are_refused(text: str, at: int, message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        read(text)
    assert caught.value.offset == FIRST + at


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("09000000 05000000 0102030405 000100", 13, "the padding of HVM_CONTEXT is not zero: 000100"),
        ("01000080 07000000 01020304050607 08", 15, "the padding of optional 0x80000001"),
        ("01000000 10000000 01000000 01000000 00000000000000f0", 12, "the reserved field of PAGE_DATA"),
        ("01000000 10000000 01000000 00000000 00000000000000f1", 16, "reserved bits .* of pfn 0x0"),
        ("01000000 18000000 02000000 00000000 02000000000000f0 01000000000010f0", 24, "of pfn 0x1"),
        ("02000000 08000000 0804 0100 00000000", 10, "a reserved field of X86_PV_INFO"),
        ("02000000 08000000 0804 0000 00000080", 12, "a reserved field of X86_PV_INFO"),
        (
            "04000000 09000000 00000000 01000000 aa 00000000000000",
            12,
            "a reserved field of X86_PV_VCPU_BASIC",
        ),
        ("08000000 18000000" + "00" * 20 + "01000000", 28, "a reserved field of X86_TSC_INFO"),
        ("0a000000 18000000 01000000 05000000" + "00" * 16, 12, "a reserved field of HVM_PARAMS"),
        ("0a000000 08000000 00000000 00000000", 0, "HVM_PARAMS has no content"),
        ("05000000 08000000 00000000 00000000", 0, "X86_PV_VCPU_EXTENDED has no content"),
        ("06000000 08000000 00000000 00000000", 0, "X86_PV_VCPU_XSAVE has no content"),
        ("0c000000 08000000 00000000 00000000", 0, "X86_PV_VCPU_MSRS has no content"),
        ("0b000000 00000000", 0, "TOOLSTACK has no content"),
        ("04000000 08000000 0000000000000000", 0, "X86_PV_VCPU_BASIC has no content"),
        ("04000000 00000000", 0, "X86_PV_VCPU_BASIC has no content"),
        ("09000000 00000000", 0, "HVM_CONTEXT has no content"),
        ("0a000000 00000000", 0, "HVM_PARAMS has no content"),
        ("11000000 00000000", 0, "X86_CPUID_POLICY has no content"),
        ("12000000 00000000", 0, "X86_MSR_POLICY has no content"),
    ],
)
def test_oddities_are_remarked_on_and_ignored(text: str, at: int, message: str) -> None:
    reader = StreamReader(io.BytesIO(bytes.fromhex(IMAGE_HEADER + DOMAIN_HEADER + text + END)))
    record, _ = list(reader)
    assert record.is_empty == ("no content" in message)
    (remark,) = reader.remarks.first
    assert remark.offset == FIRST + at
    assert re.search(message, remark.text)


def test_reserved_fields_of_the_headers_are_remarked_on() -> None:
    data = bytes.fromhex(
        "ffffffff ffffffff 58454e46 00000003 8002 000000000001 02000000 0c00 0100 04000000 11000000"
    )
    reader = StreamReader(io.BytesIO(data))
    assert [remark.offset for remark in reader.remarks.first] == [16, 18, 30]
    assert reader.image_header.options == 0x8002


def test_reserved_bits_of_a_pfn_word_do_not_change_the_pfn() -> None:
    record = one("01000000 10000000 01000000 00000000 070000000000f0ff")
    assert isinstance(record, PageData)
    assert list(record.words) == [(7, PageType.XTAB)]
    assert list(record.words.pfns()) == [7]
