// SPDX-License-Identifier: GPL-3.0-or-later
//! Streams that break the format: each gets the error that says so, at the right offset, and costs no memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod records;

use std::io::{self, Read};

use proptest::prelude::*;
use records::{Item, cases, encode_stream, items};
use xenmig_stream::{BodyRule, Expected, PageWord, Reader, Record, RecordKind, StreamError, encode};
use xenmig_types::{GuestKind, PAGE_SIZE, PageType, Pfn};

const HEADERS: usize = 40;

fn headers() -> Vec<u8> {
    let mut bytes = encode_stream(GuestKind::Hvm, &[Record::StaticDataEnd.into()]);
    bytes.truncate(HEADERS + 8);
    bytes
}

/// Reads up to the first error, forgetting the pages.
fn read(bytes: &[u8]) -> Result<Vec<Record>, StreamError> {
    let mut reader = Reader::new(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
        reader.skip_pages(reader.pages_left())?;
    }
    Ok(records)
}

/// The error of a stream that has this record, header and body, behind its STATIC_DATA_END.
fn error_of(kind: u32, length: u32, body: &[u8]) -> StreamError {
    let mut bytes = headers();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(body);
    read(&bytes).unwrap_err()
}

const RECORD: u64 = HEADERS as u64 + 8;

macro_rules! assert_error {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error}");
    };
}

#[test]
fn headers_of_something_else() {
    let good = encode_stream(GuestKind::Hvm, &[]);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Reader::new(bytes.as_slice()).unwrap_err()
    };
    assert_error!(with(3, 0xfe), StreamError::Marker { offset: 0, found: 0xffff_fffe_ffff_ffff });
    assert_error!(with(8, b'Y'), StreamError::Identifier { offset: 8, found: 0x5945_4e46 });
    assert_error!(with(15, 1), StreamError::Version { offset: 12, found: 1 });
    assert_error!(with(15, 4), StreamError::Version { offset: 12, found: 4 });
    assert_error!(with(12, 3), StreamError::Version { offset: 12, found: 0x0300_0003 });
    assert_error!(with(17, 1), StreamError::BigEndian { offset: 16 });
    assert_error!(with(24, 3), StreamError::GuestType { offset: 24, found: 3 });
    assert_error!(with(24, 0), StreamError::GuestType { offset: 24, found: 0 });
    assert_error!(with(28, 13), StreamError::PageShift { offset: 28, found: 13 });

    // Reserved bits are not looked at.
    let mut reserved = good;
    reserved[17] = 0xfe;
    reserved[20..24].fill(0xff);
    reserved[30..32].fill(0xff);
    assert!(Reader::new(reserved.as_slice()).is_ok());
}

#[test]
fn kinds_that_do_not_exist() {
    assert_error!(error_of(0x13, 0, &[]), StreamError::UnknownRecord { offset: RECORD, found: 0x13 });
    let error = error_of(0x7fff_ffff, 8, &[0; 8]);
    assert_error!(error, StreamError::UnknownRecord { found: 0x7fff_ffff, .. });
}

#[test]
fn bodies_that_are_too_long() {
    let max = 128 << 20;
    let error = error_of(9, max + 1, &[]);
    assert_error!(error, StreamError::BodyTooLong { offset: RECORD, found: 9, length } if *length == max + 1);
    assert_error!(error_of(0x8000_0000, u32::MAX, &[]), StreamError::BodyTooLong { length: u32::MAX, .. });
    let error = error_of(9, max, &[1; 5]);
    assert_error!(error, StreamError::Truncated { offset, missing, .. }
        if *offset == RECORD + 13 && *missing == u64::from(max) - 5);
}

#[test]
fn bodies_of_the_wrong_length() {
    for kind in RecordKind::ALL {
        let rule = kind.body_rule();
        // One byte too many, or an item that is not whole.
        let wrong = match rule {
            BodyRule::Exactly(exact) => exact + 1,
            BodyRule::Items { fixed, item } if item > 1 => fixed + item + 1,
            // One byte of the fixed part alone.
            BodyRule::Items { fixed: 8, .. } => 1,
            BodyRule::Items { .. } => continue,
        };
        let error = error_of(kind.number(), wrong, &vec![0; wrong.next_multiple_of(8) as usize]);
        if kind == RecordKind::StaticDataEnd {
            assert_error!(error, StreamError::StaticDataTwice { .. });
        } else {
            assert_error!(error, StreamError::BodyLength { offset: RECORD, kind: found, length, .. }
                if *found == kind && *length == wrong);
        }
    }
    // What may be void is, but not these.
    for kind in [RecordKind::PageData, RecordKind::PvP2mFrames, RecordKind::TscInfo, RecordKind::SharedInfo] {
        for length in [0, 8] {
            assert_error!(error_of(kind.number(), length, &[0; 8]), StreamError::BodyLength { .. });
        }
    }
}

fn page_data(count: u32, words: &[u64], pages: usize, extra: i64) -> StreamError {
    let mut body = count.to_le_bytes().to_vec();
    body.extend([0; 4]);
    body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    body.resize(body.len() + pages * PAGE_SIZE, 0);
    let length = i64::try_from(body.len()).unwrap() + extra;
    body.resize(body.len() + 64, 0);
    error_of(1, u32::try_from(length).unwrap(), &body)
}

#[test]
fn page_data_that_does_not_add_up() {
    let notab = 5;
    let xtab = 0xf << 60 | 5;
    assert_error!(page_data(0, &[notab], 0, 0), StreamError::NoPages { offset: RECORD });
    // More words than the body has room for.
    assert_error!(page_data(3, &[xtab, xtab], 0, 0), StreamError::Count { count: 3, expected: 32, .. });
    assert_error!(page_data(u32::MAX, &[xtab], 0, 0), StreamError::Count { count: u32::MAX, .. });
    // A page too few, one too many, eight bytes too many.
    assert_error!(page_data(1, &[notab], 0, 0), StreamError::Count { expected: 4112, length: 16, .. });
    assert_error!(page_data(1, &[xtab], 1, 0), StreamError::Count { expected: 16, length: 4112, .. });
    assert_error!(page_data(1, &[notab], 1, 8), StreamError::Count { expected: 4112, length: 4120, .. });
    for number in 5..9 {
        let error = page_data(2, &[xtab, number << 60 | 7], 1, 0);
        assert_error!(error, StreamError::PageType { offset, pfn: Pfn(7), found }
            if *offset == RECORD + 24 && u64::from(*found) == number);
    }
}

#[test]
fn values_that_cannot_be() {
    let two = [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_error!(error_of(10, 24, &two), StreamError::Count { count: 2, expected: 40, length: 24, .. });
    assert_error!(error_of(10, 8, &[1, 0, 0, 0, 0, 0, 0, 0]), StreamError::Count { count: 1, .. });
    let wide = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_error!(error_of(10, 24, &wide), StreamError::ParamIndex { index: 0x1_0000_0000, .. });
    for (width, levels) in [(0, 4), (5, 3), (8, 2), (8, 5)] {
        let error = error_of(2, 8, &[width, levels, 0, 0, 0, 0, 0, 0]);
        assert_error!(error, StreamError::PvInfo { offset: RECORD, .. });
    }
    let reversed = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_error!(error_of(3, 16, &reversed), StreamError::P2mRange { first: 2, last: 1, .. });
}

#[test]
fn void_records_are_reported_as_such() {
    for kind in [4, 5, 6, 9, 10, 11, 12, 15, 17, 18] {
        for length in [0_u32, 8] {
            if length == 8 && !matches!(kind, 4..=6 | 10 | 12) {
                continue;
            }
            let mut bytes = headers();
            bytes.extend([kind, 0, 0, 0]);
            bytes.extend(length.to_le_bytes());
            bytes.resize(bytes.len() + length as usize + 8, 0);
            let kind = RecordKind::try_from(u32::from(kind)).unwrap();
            assert_eq!(read(&bytes).unwrap()[1..], [Record::Void(kind)]);
        }
    }
}

#[test]
fn static_data_ends_once_and_first() {
    let error = error_of(0x10, 0, &[]);
    assert_error!(error, StreamError::StaticDataTwice { offset: RECORD });
    for kind in RecordKind::ALL.into_iter().filter(|kind| kind.is_guest_state()) {
        let mut bytes = headers();
        bytes.truncate(HEADERS);
        bytes.extend(kind.number().to_le_bytes());
        bytes.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_error!(read(&bytes).unwrap_err(), StreamError::StaticDataOpen { offset: 40, kind: found }
            if *found == kind);
    }
}

#[test]
fn pages_must_be_taken_and_no_more() {
    let mut bytes = headers();
    encode::page_data(&mut bytes, &[1, 2].map(|pfn| PageWord::new(Pfn(pfn), PageType::Notab))).unwrap();
    bytes.extend([1; 2 * PAGE_SIZE]);
    encode::end(&mut bytes);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    reader.next_record().unwrap();
    assert_error!(reader.skip_pages(1).unwrap_err(), StreamError::PagesLeft { left: 0, asked: 1, .. });
    reader.next_record().unwrap();
    assert_error!(reader.next_record().unwrap_err(), StreamError::PagesLeft { left: 2, asked: 0, .. });
    let error = reader.read_pages(3, |_| unreachable!()).unwrap_err();
    assert_error!(error, StreamError::PagesLeft { left: 2, asked: 3, .. });
    let page = reader.offset();
    reader.skip_pages(1).unwrap();
    assert_error!(reader.next_record().unwrap_err(), StreamError::PagesLeft { left: 1, .. });
    // A direct read that fails says how far it came.
    let error = reader.read_pages(1, |_| Err((100, io::ErrorKind::UnexpectedEof.into()))).unwrap_err();
    assert_error!(error, StreamError::Truncated { offset, missing: 3996, expected: Expected::Pages }
        if *offset == page + 4096 + 100);
    assert_error!(reader.next_record().unwrap_err(), StreamError::Failed { .. });
    assert_error!(reader.skip_pages(0).unwrap_err(), StreamError::Failed { .. });
}

/// Fails with an error of its own after some bytes.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) => Err(io::Error::from_raw_os_error(104)),
            other => other,
        }
    }
}

#[test]
fn errors_of_the_source_come_through() {
    let bytes = encode_stream(GuestKind::Hvm, &records::one_of_each());
    for cut in [0, 30, 43, 100, bytes.len() - 4] {
        let mut error = Reader::new(Broken(&bytes[..cut])).err();
        if error.is_none() {
            let mut reader = Reader::new(Broken(&bytes[..cut])).unwrap();
            while error.is_none() {
                error = reader.next_record().and_then(|_| reader.skip_pages(reader.pages_left())).err();
            }
        }
        let Some(StreamError::Io { offset, source, .. }) = error else { panic!("{error:?}") };
        assert_eq!((offset, source.raw_os_error()), (cut as u64, Some(104)));
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn corruption_never_panics_and_errors_know_their_place(
        items in items(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = encode_stream(GuestKind::Hvm, &items);
        // Headers of records are few among page bytes: aim half of the changes at the first part.
        for (number, (at, value)) in changes.into_iter().enumerate() {
            let reach = if number % 2 == 0 { bytes.len().min(400) } else { bytes.len() };
            bytes[at.index(reach)] = value;
        }
        match read(&bytes) {
            Ok(records) => prop_assert!(records.len() <= bytes.len() / 8),
            Err(error) => prop_assert!(error.offset() <= bytes.len() as u64, "{}", error),
        }
    }

    #[test]
    fn noise_behind_good_headers_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let items: [Item; 1] = [Record::StaticDataEnd.into()];
        let mut bytes = encode_stream(GuestKind::Hvm, &items);
        bytes.truncate(HEADERS + 8);
        bytes.extend(noise);
        if let Err(error) = read(&bytes) {
            prop_assert!(error.offset() <= bytes.len() as u64);
        }
    }
}
