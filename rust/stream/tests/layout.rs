// SPDX-License-Identifier: GPL-3.0-or-later
//! Each header and record against bytes written by hand from the specification, in both directions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

use xenmig_stream::{
    BodyRule, EncodeError, HvmParam, PageWord, Reader, Record, RecordKind,
    encode::{self, record},
    format::MAX_BODY_BYTES,
};
use xenmig_types::{CpuPolicy, GuestKind, PAGE_SIZE, PageType, Pfn, TscInfo, VcpuPart, XenVersion};

const HVM_HEADERS: [u8; 40] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // marker
    0x58, 0x45, 0x4e, 0x46, 0, 0, 0, 3, // XENF, version 3
    0, 0, 0, 0, 0, 0, 0, 0, // options
    2, 0, 0, 0, 12, 0, 0, 0, // HVM, page shift
    4, 0, 0, 0, 17, 0, 0, 0, // Xen 4.17
];
const STATIC_DATA_END: [u8; 8] = [0x10, 0, 0, 0, 0, 0, 0, 0];

/// Reads one record that stands behind STATIC_DATA_END.
fn read_one(bytes: &[u8]) -> Record {
    let stream = [&HVM_HEADERS[..], &STATIC_DATA_END, bytes].concat();
    let mut reader = Reader::new(stream.as_slice()).unwrap();
    assert_eq!(reader.next_record().unwrap(), Some(Record::StaticDataEnd));
    let record = reader.next_record().unwrap().unwrap();
    assert_eq!(reader.offset() + reader.pages_left() * 4096, stream.len() as u64);
    record
}

#[track_caller]
fn check(encoded: &[u8], expected: &[u8], read: &Record) {
    assert_eq!(encoded, expected);
    assert_eq!(read_one(expected), *read);
}

fn encoded(write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    out
}

#[test]
fn headers() {
    let mut out = Vec::new();
    encode::headers(&mut out, GuestKind::Hvm, XenVersion { major: 4, minor: 17 });
    assert_eq!(out, HVM_HEADERS);
    let headers = *Reader::new(out.as_slice()).unwrap().headers();
    assert_eq!((headers.version, headers.kind), (3, GuestKind::Hvm));
    assert_eq!((headers.xen_major, headers.xen_minor), (4, 17));

    out.clear();
    encode::headers(&mut out, GuestKind::Pv, XenVersion { major: 0x102, minor: 0x304 });
    assert_eq!(out[24..], [1, 0, 0, 0, 12, 0, 0, 0, 2, 1, 0, 0, 4, 3, 0, 0]);
    assert_eq!(Reader::new(out.as_slice()).unwrap().headers().kind, GuestKind::Pv);
}

#[test]
fn page_data() {
    let words = [
        PageWord::new(Pfn(0x12345), PageType::Notab),
        PageWord::new(Pfn(2), PageType::Xtab),
        PageWord::new(Pfn(3), PageType::L4Pinned),
    ];
    let out = encoded(|out| encode::page_data(out, &words));
    let expected = [
        1, 0, 0, 0, 0x20, 0x20, 0, 0, // 8 + 3 * 8 + 2 * 4096 = 0x2020
        3, 0, 0, 0, 0, 0, 0, 0, // count
        0x45, 0x23, 1, 0, 0, 0, 0, 0, // NOTAB
        2, 0, 0, 0, 0, 0, 0, 0xf0, // XTAB
        3, 0, 0, 0, 0, 0, 0, 0xc0, // L4TAB, pinned
    ];
    assert_eq!(out, expected);
    let Record::PageData(batch) = read_one(&[&expected[..], &[0; 2 * PAGE_SIZE]].concat()) else { panic!() };
    assert_eq!((batch.words.as_slice(), batch.pages), (&words[..], 2));
}

#[test]
fn page_data_without_pages() {
    let words = [PageType::Broken, PageType::Xalloc].map(|kind| PageWord::new(Pfn(1), kind));
    let expected = [
        1, 0, 0, 0, 24, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, //
        1, 0, 0, 0, 0, 0, 0, 0xd0, 1, 0, 0, 0, 0, 0, 0, 0xe0,
    ];
    assert_eq!(encoded(|out| encode::page_data(out, &words)), expected);
    let Record::PageData(batch) = read_one(&expected) else { panic!() };
    assert_eq!((batch.words.as_slice(), batch.pages), (&words[..], 0));
}

#[test]
fn reserved_bits_of_a_word_are_ignored() {
    let bytes = [1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9, 7, 0, 0, 0, 0, 0, 0xf0, 0xff];
    let Record::PageData(batch) = read_one(&bytes) else { panic!() };
    assert_eq!((batch.words[0].pfn(), batch.words[0].page_type()), (Pfn(7), Ok(PageType::Xtab)));
}

#[test]
fn pv_info() {
    let mut out = Vec::new();
    encode::pv_info(&mut out, 8, 4);
    let expected = [2, 0, 0, 0, 8, 0, 0, 0, 8, 4, 0, 0, 0, 0, 0, 0];
    check(&out, &expected, &Record::PvInfo { width_bytes: 8, levels: 4 });
}

#[test]
fn pv_p2m_frames() {
    let expected = [
        3, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, //
        0x10, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 1, 0, 0, 0,
    ];
    let frames = vec![Pfn(0x10), Pfn(0x1_0000_0011)];
    let out = encoded(|out| encode::pv_p2m_frames(out, 0, 0x3ff, &frames));
    check(&out, &expected, &Record::PvP2mFrames { first: 0, last: 0x3ff, frames });
}

#[test]
fn pv_vcpus() {
    let parts = [(VcpuPart::Basic, 4), (VcpuPart::Extended, 5), (VcpuPart::Xsave, 6), (VcpuPart::Msrs, 0x0c)];
    for (part, number) in parts {
        let expected = [
            number, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, //
            0xa, 0xb, 0xc, 0, 0, 0, 0, 0,
        ];
        let out = encoded(|out| encode::pv_vcpu(out, part, 1, &[0xa, 0xb, 0xc]));
        check(&out, &expected, &Record::PvVcpu { part, vcpu: 1, state: vec![0xa, 0xb, 0xc] });
    }
}

#[test]
fn shared_info() {
    let mut out = Vec::new();
    encode::shared_info(&mut out, &[5; PAGE_SIZE]);
    let expected = [&[7, 0, 0, 0, 0, 0x10, 0, 0][..], &[5; PAGE_SIZE]].concat();
    check(&out, &expected, &Record::SharedInfo(vec![5; PAGE_SIZE]));
}

#[test]
fn tsc_info() {
    let tsc = TscInfo { mode: 1, khz: 0x0023_2805, elapsed_ns: 0x0102_0304_0506_0708, incarnation: 9 };
    let mut out = Vec::new();
    encode::tsc_info(&mut out, &tsc);
    let expected = [
        8, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 5, 0x28, 0x23, 0, //
        8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0,
    ];
    check(&out, &expected, &Record::TscInfo(tsc));
}

#[test]
fn hvm_context_is_padded() {
    let out = encoded(|out| encode::hvm_context(out, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let expected = [9, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0];
    check(&out, &expected, &Record::HvmContext(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let mut rubbish = expected;
    rubbish[17..].fill(0xee);
    assert_eq!(read_one(&rubbish), Record::HvmContext(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn hvm_params() {
    let params = vec![HvmParam { index: 1, value: 0xfeff_d000 }, HvmParam { index: 19, value: 2 }];
    let out = encoded(|out| encode::hvm_params(out, &params));
    let expected = [
        0x0a, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, //
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0xd0, 0xff, 0xfe, 0, 0, 0, 0, //
        19, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
    ];
    check(&out, &expected, &Record::HvmParams(params));
}

#[test]
fn records_without_a_body() {
    type Write = fn(&mut Vec<u8>);
    let cases: [(Write, u8, Record); 2] =
        [(encode::verify, 0x0d, Record::Verify), (encode::checkpoint, 0x0e, Record::Checkpoint)];
    for (write, number, read) in cases {
        let mut out = Vec::new();
        write(&mut out);
        check(&out, &[number, 0, 0, 0, 0, 0, 0, 0], &read);
    }
    let mut out = Vec::new();
    encode::static_data_end(&mut out);
    encode::end(&mut out);
    assert_eq!(out, [STATIC_DATA_END, [0; 8]].concat());
}

#[test]
fn blobs() {
    let leaf = vec![3; 24];
    let policy = CpuPolicy { cpuid: leaf.clone(), msrs: vec![4; 32] };
    let out = encoded(|out| encode::cpu_policy(out, &policy));
    let expected =
        [&[0x11, 0, 0, 0, 24, 0, 0, 0][..], &leaf, &[0x12, 0, 0, 0, 32, 0, 0, 0], &policy.msrs].concat();
    assert_eq!(out, expected);
    assert_eq!(read_one(&out[..32]), Record::CpuidPolicy(leaf));
    assert_eq!(read_one(&out[32..]), Record::MsrPolicy(policy.msrs));
    assert_eq!(encoded(|out| encode::cpu_policy(out, &CpuPolicy::default())), []);

    let out = encoded(|out| record(out, RecordKind::Toolstack, &[b"ab", b"c"]));
    check(&out, b"\x0b\0\0\0\x03\0\0\0abc\0\0\0\0\0", &Record::Toolstack(b"abc".to_vec()));
    let pfn = 6_u64.to_le_bytes();
    let out = encoded(|out| record(out, RecordKind::CheckpointDirtyPfnList, &[&pfn]));
    let expected = [0x0f, 0, 0, 0, 8, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    check(&out, &expected, &Record::CheckpointDirtyPfnList(vec![Pfn(6)]));
}

#[test]
fn records_that_receivers_would_refuse_are_not_written() {
    let mut out = vec![0x55];
    for kind in RecordKind::ALL {
        let body: &[u8] = if kind.body_rule() == BodyRule::Exactly(0) { &[0; 8] } else { &[] };
        let error = record(&mut out, kind, &[body]).unwrap_err();
        let length = u32::try_from(body.len()).unwrap();
        assert_eq!(error, EncodeError::Length { kind, length, expected: kind.body_rule() });
    }
    assert!(encode::page_data(&mut out, &[]).is_err());
    assert!(encode::hvm_params(&mut out, &[]).is_err());
    assert!(encode::hvm_context(&mut out, &[]).is_err());
    assert!(encode::pv_vcpu(&mut out, VcpuPart::Msrs, 0, &[]).is_err());
    assert!(encode::cpu_policy(&mut out, &CpuPolicy { cpuid: vec![0; 24], msrs: vec![0; 15] }).is_err());
    assert_eq!(out, [0x55], "an error appends nothing");
}

#[test]
fn bodies_end_at_128_mib() {
    // 8 bytes of count, then 4104 for each page: 32704 pages fit.
    let pages = (MAX_BODY_BYTES as usize - 8) / 4104;
    let words = vec![PageWord::new(Pfn(1), PageType::Notab); pages + 1];
    let mut out = Vec::new();
    encode::page_data(&mut out, &words[..pages]).unwrap();
    let error = encode::page_data(&mut out, &words).unwrap_err();
    assert!(matches!(error, EncodeError::TooLong { kind: RecordKind::PageData, .. }), "{error}");

    let blob = vec![0; MAX_BODY_BYTES as usize];
    out.clear();
    encode::hvm_context(&mut out, &blob).unwrap();
    assert!(record(&mut out, RecordKind::HvmContext, &[&blob, &[0]]).is_err());
    assert_eq!(out.len(), blob.len() + 8);
}
