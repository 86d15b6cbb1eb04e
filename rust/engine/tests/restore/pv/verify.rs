// SPDX-License-Identifier: GPL-3.0-or-later
//! Verify mode: page tables are compared with the frames of this host in them.

use xenmig_engine::restore::RestoreError;
use xenmig_stream::encode;
use xenmig_types::{PAGE_SIZE, PageType, Pfn};

use super::{
    guest::{DATA, L1, PvGuest, WIDTHS, restore_pv, table},
    host::PvHost,
};

/// Sends all of the guest, and then `again` to be compared.
fn compared(guest: &PvGuest, again: &PvGuest) -> (PvHost, Result<u64, (u64, u64)>) {
    let host = PvHost::new(100);
    let stream = guest.all(guest.start(), true).with(encode::verify);
    let result = match restore_pv(&host, &again.state(again.all(stream, false)).end()) {
        Ok(report) => Ok(report.pages_verified),
        Err(failure) => match failure.error {
            RestoreError::Differs { pages, first: Pfn(first), .. } => Err((pages, first)),
            error => panic!("{error}"),
        },
    };
    (host, result)
}

#[test]
fn the_same_guest_is_the_same() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        let (host, result) = compared(&guest, &guest);
        assert_eq!(result, Ok(guest.pages.len() as u64));
        guest.check(&host);
    }
}

#[test]
fn a_page_table_that_differs_is_found() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        // One refers to another page, one to a page that is not there, one has another flag.
        for entry in [(10, DATA.start + 1, 0x67), (10, 37, 0x67), (10, DATA.start, 0x65)] {
            let mut again = guest.clone();
            let (kind, page) = again.pages.get_mut(&L1).unwrap();
            assert_eq!(*kind, PageType::L1);
            page[80..88].copy_from_slice(&table([entry])[80..88]);
            let (host, result) = compared(&guest, &again);
            assert_eq!(result, Err((1, L1)));
            assert!(host.frame(37).is_none(), "comparing gives no pages");
            assert!(host.calls().iter().all(|call| matches!(call, super::host::Call::Width(_))));
        }
    }
}

#[test]
fn pages_that_differ_or_are_missing_are_found() {
    let guest = PvGuest::new(WIDTHS[1]);
    let mut again = guest.clone();
    again.plain(DATA.start + 2, [0; PAGE_SIZE]);
    again.plain(DATA.start + 4, [0; PAGE_SIZE]);
    again.plain(37, [0; PAGE_SIZE]);
    // Missing pages are seen first, batch by batch of seven.
    assert_eq!(compared(&guest, &again).1, Err((3, DATA.start + 2)));
}

#[test]
fn comparing_fills_nothing() {
    // The page never comes. The stream says that it has no contents only after VERIFY, when nothing is written.
    let mut guest = PvGuest::new(WIDTHS[1]);
    let absent = DATA.start + 5;
    guest.pages.remove(&absent);
    let mut again = guest.clone();
    again.pages.insert(absent, (PageType::Xalloc, [0; PAGE_SIZE]));
    let (host, result) = compared(&guest, &again);
    assert_eq!(result, Ok(guest.pages.len() as u64));
    assert_eq!(host.page(host.frame(absent).unwrap()), [0; PAGE_SIZE], "another guest's bytes");
}

#[test]
fn a_page_that_only_this_side_has_is_taken_away() {
    let mut guest = PvGuest::new(WIDTHS[1]);
    guest.plain(37, [0; PAGE_SIZE]);
    let mut again = guest.clone();
    again.pages.insert(37, (PageType::Xtab, [0; PAGE_SIZE]));
    let (host, result) = compared(&guest, &again);
    assert_eq!(result, Ok(guest.pages.len() as u64 - 1));
    assert!(host.frame(37).is_none());
}
