// SPDX-License-Identifier: GPL-3.0-or-later
//! What a hostile header can make the reader allocate, as the kernel saw it. Alone in its file: it measures the
//! whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

use xenmig_stream::{Reader, RecordKind, StreamError, encode};
use xenmig_types::{GuestKind, XenVersion};

/// The peak of the process's address space so far, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn read_up_to_the_end(kind: u32, length: u32, arrives: usize) {
    let mut bytes = Vec::new();
    encode::headers(&mut bytes, GuestKind::Hvm, XenVersion { major: 4, minor: 17 });
    encode::static_data_end(&mut bytes);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    // As many words as the length has room for, if it is PAGE_DATA.
    bytes.extend(((length - 8) / 8).to_le_bytes());
    bytes.resize(bytes.len() + arrives, 0xff);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    reader.next_record().unwrap();
    let error = reader.next_record().unwrap_err();
    assert!(matches!(error, StreamError::Truncated { .. }), "{error}");
}

#[test]
fn claims_cost_nothing() {
    const CLAIM: u32 = 120 << 20;
    read_up_to_the_end(RecordKind::HvmContext.number(), 64, 0);
    let before = peak_kib();
    let kinds = RecordKind::ALL.map(RecordKind::number).into_iter().chain([0x8000_0001]);
    let mut tried = 0;
    for kind in kinds {
        // Lengths that the kind's rule allows, so that the body is read.
        let length = RecordKind::try_from(kind)
            .map_or(Some(CLAIM), |kind| (CLAIM..CLAIM + 48).find(|length| kind.body_rule().allows(*length)));
        for arrives in [0, 4096, 1 << 20] {
            if let Some(length) = length {
                read_up_to_the_end(kind, length, arrives);
                tried += 1;
            }
        }
    }
    assert!(tried >= 36, "{tried}");
    let grown = peak_kib() - before;
    assert!(grown < 32 << 10, "{grown} KiB more for claims of 120 MiB");
}
