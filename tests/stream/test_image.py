# SPDX-License-Identifier: GPL-3.0-or-later
"""``load_memory``: what a receiver has at the end, against a model that knows what was put in."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stream.make_stream import (
    BROKEN,
    CONTEXTS,
    END,
    L1TAB,
    NOTAB,
    STATIC_DATA_END,
    TOOLSTACK,
    VCPU_XSAVE,
    XALLOC,
    XTAB,
    Domain,
    Entry,
    headers,
    hvm_params,
    hvm_stream,
    hvm_tail,
    page,
    page_data,
    pv_stream,
    record,
    vcpu,
)

from xenmig.errors import StreamError
from xenmig.stream import GuestType, Image, PageType, RecordType, check_stream, load_memory, page_digest

WITH_CONTENTS = [0x0, 0x1, 0x2, 0x3, 0x4, 0x9, 0xA, 0xB, 0xC]
WITHOUT = [BROKEN, XALLOC, XTAB]


def load(stream: bytes, **options: bool) -> Image:
    return load_memory(io.BytesIO(stream), **options)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    pfn = draw(st.integers(0, 40) | st.integers(0, (1 << 40) - 1))
    kind = draw(st.sampled_from(WITH_CONTENTS + WITHOUT))
    return pfn, kind, page(draw(st.integers(0, 2**64 - 1))) if kind in WITH_CONTENTS else None


batches = st.lists(st.lists(entries(), min_size=1, max_size=8, unique_by=lambda entry: entry[0]), max_size=8)


@given(batches)
def test_the_last_contents_of_each_page_count(batch_list: list[list[Entry]]) -> None:
    domain = Domain(batches=batch_list)
    image = load(hvm_stream(domain))
    assert image.memory == domain.memory()
    last = {pfn: PageType(kind) for batch in batch_list for pfn, kind, _ in batch}
    assert image.types == {pfn: kind for pfn, kind in last.items() if kind is not PageType.XTAB}
    digests = load(hvm_stream(domain), digests=True)
    assert digests.memory == {pfn: page_digest(contents) for pfn, contents in domain.memory().items()}


@given(batches, st.data())
def test_verify_finds_any_page_that_differs(batch_list: list[list[Entry]], data: st.DataObject) -> None:
    memory = Domain(batches=batch_list).memory()
    if not memory:
        return
    again: list[Entry] = [(pfn, NOTAB, contents) for pfn, contents in memory.items()]
    good = hvm_stream(Domain(batches=batch_list, verify=[again]))
    assert load(good).verified_pages == len(memory)
    assert load(good).memory == memory
    assert check_stream(io.BytesIO(good)).totals.verify_pages == len(memory)
    index = data.draw(st.integers(0, len(again) - 1))
    pfn, kind, contents = again[index]
    assert contents is not None
    at = data.draw(st.integers(0, 4095))
    damaged = contents[:at] + bytes([contents[at] ^ 1 << data.draw(st.integers(0, 7))]) + contents[at + 1 :]
    again[index] = (pfn, kind, damaged)
    bad = hvm_stream(Domain(batches=batch_list, verify=[again]))
    for read in (load_memory, check_stream):
        with pytest.raises(StreamError, match=f"pfn {pfn:#x} ") as caught:
            read(io.BytesIO(bad))
        assert caught.value.offset is not None
        assert bad[caught.value.offset : caught.value.offset + 4096] == damaged


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize(
    ("again", "text"),
    [
        ([(1, NOTAB, page(2))], "pfn 0x1 "),
        ([(3, NOTAB, page(1))], "pfn 0x3 "),
        ([(2, NOTAB, bytes(4096))], "pfn 0x2 "),
        ([(1, NOTAB, page(1)), (9, XTAB, None), (2, NOTAB, page(2))], "pfn 0x2 "),
    ],
)
def test_what_verify_refuses(again: list[Entry], text: str, *, digests: bool) -> None:
    batch: list[Entry] = [(1, NOTAB, page(1)), (2, NOTAB, page(2))]
    stream = hvm_stream(Domain(batches=[batch, [(2, XTAB, None)]], verify=[again]))
    with pytest.raises(StreamError, match=text):
        load(stream, digests=digests)
    with pytest.raises(StreamError, match=text):
        check_stream(io.BytesIO(stream))


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_page_without_contents_after_verify_is_remarked_on(kind: int) -> None:
    batch: list[Entry] = [(1, NOTAB, page(1)), (2, NOTAB, page(2))]
    again: list[Entry] = [(1, kind, None), (2, NOTAB, page(2))]
    stream = hvm_stream(Domain(batches=[batch], verify=[again]))
    text = f"pfn 0x1 is {PageType(kind).name} after VERIFY, and had contents before"
    assert load(stream).remarks.first[0].text == text
    assert check_stream(io.BytesIO(stream)).remarks.first[0].text == text


def test_what_a_page_without_contents_is_to_verify() -> None:
    """What is only allocated is zeros, and a broken page stays what it was."""
    batches: list[list[Entry]] = [
        [(1, NOTAB, page(1)), (2, NOTAB, page(2))],
        [(1, XALLOC, None), (2, BROKEN, None)],
    ]
    again: list[Entry] = [(1, NOTAB, bytes(4096)), (2, NOTAB, page(2))]
    assert check_stream(io.BytesIO(hvm_stream(Domain(batches=batches, verify=[again])))).remarks.count == 0
    again[0] = (1, NOTAB, page(1))
    with pytest.raises(StreamError, match="pfn 0x1 has other contents than before VERIFY"):
        check_stream(io.BytesIO(hvm_stream(Domain(batches=batches, verify=[again]))))


def test_a_page_not_sent_again_after_verify_is_remarked_on() -> None:
    batch: list[Entry] = [(pfn, NOTAB, page(pfn)) for pfn in range(5)]
    stream = hvm_stream(Domain(batches=[batch, [(4, XTAB, None)]], verify=[batch[:3]]))
    checked = check_stream(io.BytesIO(stream))
    assert [remark.text for remark in checked.remarks.first] == [
        "1 of 4 pages were not sent again after VERIFY"
    ]
    stream = hvm_stream(Domain(batches=[batch, [(4, XTAB, None)]], verify=[batch[:4]]))
    assert check_stream(io.BytesIO(stream)).remarks.count == 0


def test_hvm_state() -> None:
    domain = Domain()
    image = load(hvm_stream(domain))
    assert image.domain_header.guest_type is GuestType.X86_HVM
    assert image.hvm_context == domain.context
    assert image.hvm_params == domain.params
    assert (image.cpuid_policy, image.msr_policy) == (domain.cpuid, domain.msrs)
    assert image.tsc is not None
    assert (image.tsc.mode, image.tsc.khz, image.tsc.incarnation) == (1, 2_400_000, 3)
    assert image.tsc.elapsed_ns == 123_456_789_012
    assert (image.toolstack, image.pv_info, image.shared_info, image.vcpus) == (None, None, None, {})


def test_pv_state() -> None:
    image = load(pv_stream(Domain(batches=[[(5, L1TAB, page(5))]])))
    assert image.domain_header.guest_type is GuestType.X86_PV
    assert image.pv_info is not None
    assert (image.pv_info.guest_width, image.pv_info.pt_levels) == (8, 4)
    assert [frames.p2m_pfns for frames in image.p2m_frames] == [(3, 4)]
    assert image.types == {5: PageType.L1TAB}
    assert image.shared_info == page(99)
    contexts = {RecordType(number): context for number, context in CONTEXTS.items()}
    assert image.vcpus == {0: contexts, 1: contexts}


def test_version_2_has_no_policies() -> None:
    image = load(hvm_stream(version=2))
    assert image.image_header.version == 2
    assert (image.cpuid_policy, image.msr_policy) == (b"", b"")
    assert image.hvm_params == Domain().params


def test_pages_of_zeros_are_one_object() -> None:
    stream = hvm_stream(Domain(batches=[[(pfn, NOTAB, bytes(4096)) for pfn in range(9)]]))
    assert len({id(contents) for contents in load(stream).memory.values()}) == 1


def test_the_rules_can_be_left_out() -> None:
    stream = headers() + record(TOOLSTACK, b"blob") + page_data([(1, NOTAB, page(1))]) + record(END)
    with pytest.raises(StreamError, match="TOOLSTACK is deprecated"):
        load(stream)
    image = load(stream, check=False)
    assert (image.memory, image.toolstack) == ({1: page(1)}, b"blob")


def test_of_state_that_is_sent_again_the_last_counts() -> None:
    first, last = Domain(context=b"first", params={1: 1, 2: 2}), Domain(context=b"last", params={1: 3, 2: 4})
    stream = (
        headers() + record(STATIC_DATA_END) + hvm_tail(first) + record(0xE) + hvm_tail(last) + record(END)
    )
    image = load(stream)
    assert (image.hvm_context, image.hvm_params) == (b"last", {1: 3, 2: 4})


def test_an_empty_record_changes_nothing() -> None:
    tail = hvm_tail(Domain()) + hvm_params({})
    image = load(headers() + record(STATIC_DATA_END) + tail + record(END))
    assert image.hvm_params == Domain().params
    # An empty record of a vCPU that has no other one, in front of END.
    image = load(pv_stream()[:-8] + vcpu(VCPU_XSAVE, 7, b"") + record(END))
    assert sorted(image.vcpus) == [0, 1]
    assert [remark.text[:17] for remark in image.remarks.first] == ["X86_PV_VCPU_XSAVE"]


def test_the_file_stands_after_end() -> None:
    file = io.BytesIO(hvm_stream() + b"after")
    load_memory(file)
    assert file.read() == b"after"


RESENT = Domain(batches=[[(1, NOTAB, page(1)), (2, XTAB, None)], [(1, NOTAB, page(2)), (3, XALLOC, None)]])
VERIFIED = Domain(batches=[[(1, NOTAB, page(1)), (8192, L1TAB, page(2))]], verify=[[(1, NOTAB, page(1))]])


@pytest.mark.parametrize(
    ("domain", "by_type", "expected"),
    [
        (
            RESENT,
            {"NOTAB": 2, "XALLOC": 1, "XTAB": 1},
            {"distinct_pages": 1, "resent_pages": 1, "verify_pages": 0},
        ),
        (VERIFIED, {"NOTAB": 1, "L1TAB": 1}, {"distinct_pages": 2, "resent_pages": 0, "verify_pages": 1}),
    ],
)
def test_totals(domain: Domain, by_type: dict[str, int], expected: dict[str, int]) -> None:
    stream = hvm_stream(domain)
    checked = check_stream(io.BytesIO(stream))
    totals = checked.totals.as_dict()
    assert {key: totals[key] for key in expected} == expected
    assert totals["pages_by_type"] == by_type
    assert (totals["pages"], totals["page_bytes"]) == (2, 8192)
    assert checked.stream_bytes == len(stream)
    assert totals["records"] == sum(totals["records_by_type"].values())
    assert totals["records"] == 7 + len(domain.batches) + (
        0 if domain.verify is None else 1 + len(domain.verify)
    )
    assert totals["body_bytes_by_type"]["HVM_CONTEXT"] == len(domain.context)
