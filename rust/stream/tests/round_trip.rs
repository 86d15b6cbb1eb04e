// SPDX-License-Identifier: GPL-3.0-or-later
//! Any sequence of records comes back as it went in, and every way of cutting one short is noticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod records;

use std::io::Read;

use proptest::prelude::*;
use records::{Item, cases, encode_stream, items};
use xenmig_stream::{Expected, Reader, Record, StreamError};
use xenmig_types::{GuestKind, PAGE_SIZE};

/// Reads a whole stream, pages included.
fn read(bytes: &[u8]) -> Result<Vec<Item>, StreamError> {
    let mut reader = Reader::new(bytes)?;
    let mut found = Vec::new();
    while let Some(record) = reader.next_record()? {
        let mut pages = Vec::new();
        while reader.pages_left() > 0 {
            let mut page = [0; PAGE_SIZE];
            match reader.pages_left() % 3 {
                0 => reader.copy_page(&mut page)?,
                1 => reader.read_pages(1, |source| source.read_exact(&mut page).map_err(|e| (0, e)))?,
                _ => {
                    reader.skip_pages(1)?;
                    page.fill(0xff);
                }
            }
            pages.push(page[0]);
        }
        found.push(Item { record, pages });
    }
    assert_eq!(reader.offset(), bytes.len() as u64);
    let inferred = usize::from(reader.headers().version == 2);
    assert_eq!(reader.records(), (found.len() + 1 - inferred) as u64);
    Ok(found)
}

/// What `read` makes of the items: pages that it skips count as 0xff.
fn seen(mut items: Vec<Item>) -> Vec<Item> {
    for item in &mut items {
        let count = item.pages.len();
        for (index, page) in item.pages.iter_mut().enumerate() {
            if (count - index) % 3 == 2 {
                *page = 0xff;
            }
        }
    }
    items
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_sequence_of_records_comes_back(items in items(), pv: bool) {
        let kind = if pv { GuestKind::Pv } else { GuestKind::Hvm };
        let bytes = encode_stream(kind, &items);
        prop_assert_eq!(Reader::new(bytes.as_slice()).unwrap().headers().kind, kind);
        prop_assert_eq!(read(&bytes).unwrap(), seen(items));
    }

    #[test]
    fn a_stream_cut_short_ends_where_it_was_cut(items in items(), at: prop::sample::Index) {
        let bytes = encode_stream(GuestKind::Hvm, &items);
        let cut = at.index(bytes.len());
        // What a direct read took is only known to whoever did it, so its pages are cut elsewhere.
        let mut reader = match Reader::new(&bytes[..cut]) {
            Ok(reader) => reader,
            Err(error) => {
                prop_assert!(matches!(error, StreamError::Truncated { .. }), "{}", error);
                prop_assert_eq!(error.offset(), cut as u64);
                return Ok(());
            }
        };
        let error = loop {
            match reader.next_record().and_then(|record| {
                reader.skip_pages(reader.pages_left())?;
                Ok(record)
            }) {
                Ok(record) => prop_assert!(record.is_some(), "END was not reached"),
                Err(error) => break error,
            }
        };
        let StreamError::Truncated { offset, missing, .. } = error else { panic!("{error}") };
        prop_assert_eq!(offset, cut as u64);
        prop_assert!(missing > 0 && cut as u64 + missing <= bytes.len() as u64);
        let again = reader.next_record();
        prop_assert!(matches!(again, Err(StreamError::Failed { .. })), "{:?}", again);
    }
}

#[test]
fn every_cut_of_one_stream_is_noticed() {
    let items = records::one_of_each();
    let bytes = encode_stream(GuestKind::Hvm, &items);
    let mut boundaries = 0;
    // Every boundary, and one cut in 61 between them.
    for cut in (0..bytes.len()).filter(|cut| cut % 61 == 0 || cut % 8 == 0) {
        let error = read_copying(&bytes[..cut]).unwrap_err();
        let StreamError::Truncated { offset, expected, .. } = error else { panic!("{cut}: {error}") };
        assert_eq!(offset, cut as u64);
        boundaries += usize::from(expected == Expected::RecordHeader && cut % 8 == 0);
    }
    assert_eq!(boundaries, items.len() + 1);
    assert_eq!(read_copying(&bytes).unwrap(), items.len());
}

fn read_copying(bytes: &[u8]) -> Result<usize, StreamError> {
    let mut reader = Reader::new(bytes)?;
    let mut records = 0;
    let mut page = [0; PAGE_SIZE];
    while reader.next_record()?.is_some() {
        records += 1;
        while reader.pages_left() > 0 {
            reader.copy_page(&mut page)?;
        }
    }
    Ok(records)
}

#[test]
fn what_follows_end_stays_unread() {
    let mut bytes = encode_stream(GuestKind::Hvm, &records::one_of_each());
    let end = bytes.len() as u64;
    bytes.extend(b"another stream's");
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    while reader.next_record().unwrap().is_some() {
        reader.skip_pages(reader.pages_left()).unwrap();
    }
    assert!(reader.next_record().unwrap().is_none());
    assert_eq!((reader.offset(), reader.record_offset()), (end, end - 8));
    assert_eq!(reader.records(), records::one_of_each().len() as u64 + 1);
    let mut rest = String::new();
    reader.into_source().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "another stream's");
}

#[test]
fn version_two_gets_its_static_data_end() {
    let mut items = records::one_of_each();
    assert_eq!(items.remove(0).record, Record::StaticDataEnd);
    let mut bytes = encode_stream(GuestKind::Hvm, &items);
    bytes[15] = 2;
    let found = read(&bytes).unwrap();
    let at = found.iter().position(|item| item.record == Record::StaticDataEnd).unwrap();
    assert!(matches!(found[at + 1].record, Record::PageData(_) | Record::PvP2mFrames { .. }));
    assert!(at > 0, "in front of the first page data only");
    assert_eq!(found.len(), items.len() + 1);

    bytes[15] = 3;
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, StreamError::StaticDataOpen { .. }), "{error}");
}
