// SPDX-License-Identifier: GPL-3.0-or-later
//! Verify mode. libxc's compared nothing for years, so these tests check that a page that differs makes it fail.

use xenmig_engine::restore::RestoreError;
use xenmig_sim::Verb;
use xenmig_stream::{RecordKind, encode};
use xenmig_types::{PageType, Pfn};

use super::build::{Stream, fill_of, restore_into, target};

/// Pages 0 to 9, and then VERIFY.
fn before() -> Stream {
    Stream::new().pages(0..10).with(encode::verify)
}

#[test]
fn the_same_pages_are_the_same() {
    let (host, domain) = target();
    let report = restore_into(&host, &domain, &before().pages(0..10).context().end()).unwrap();
    assert_eq!((report.pages_verified, report.pages_received, report.pages_populated), (10, 20, 10));
}

#[test]
fn one_wrong_byte_is_found_and_nothing_is_written() {
    let (host, domain) = target();
    let mut bytes = before().pages(0..10).context().end();
    // The last byte of page 6, counted from the context record (32 bytes) and END (8) at the end.
    let at = bytes.len() - 8 - 32 - 3 * 4096 - 1;
    assert_eq!(bytes[at], 6);
    bytes[at] ^= 0x80;
    let error = restore_into(&host, &domain, &bytes).unwrap_err().error;
    assert!(matches!(error, RestoreError::Differs { pages: 1, first: Pfn(6), .. }), "{error}");
    assert_eq!(fill_of(&domain, 6), 6);
    assert_eq!(domain.counters().calls(Verb::SetHvmContext), 0, "a guest that differs got its context");
}

#[test]
fn every_difference_is_counted() {
    let (host, domain) = target();
    let again = [
        (3, PageType::Notab, 3),
        (20, PageType::Notab, 1),
        (5, PageType::Notab, 0x55),
        (1, PageType::Xalloc, 0),
        (21, PageType::Xalloc, 0),
        (8, PageType::Notab, 0x88),
        (9, PageType::Notab, 9),
        (30, PageType::Xtab, 0),
        (31, PageType::Broken, 0),
    ];
    let bytes = before().batch(&again).pages([40]).context().end();
    let error = restore_into(&host, &domain, &bytes).unwrap_err().error;
    assert!(matches!(error, RestoreError::Differs { pages: 5, first: Pfn(20), .. }), "{error}");
    assert_eq!(domain.populated_pages(), 10, "a missing page was populated");
    assert_eq!((fill_of(&domain, 5), fill_of(&domain, 8)), (5, 8));
}

#[test]
fn a_page_that_only_this_side_has_is_taken_away() {
    let (host, domain) = target();
    let bytes = before().batch(&[(4, PageType::Xtab, 0), (5, PageType::Notab, 5)]).context().end();
    let report = restore_into(&host, &domain, &bytes).unwrap();
    assert_eq!((report.pages_depopulated, report.pages_verified), (1, 1));
    assert!(!domain.is_populated(Pfn(4)));
}

#[test]
fn a_second_verify_does_not_forget_what_the_first_has_found() {
    let (host, domain) = target();
    let bytes = before().batch(&[(4, PageType::Notab, 0x44)]).with(encode::verify).pages(0..10);
    let error = restore_into(&host, &domain, &bytes.context().end()).unwrap_err().error;
    assert!(matches!(error, RestoreError::Differs { pages: 1, first: Pfn(4), .. }), "{error}");
}

#[test]
fn pages_follow_verify() {
    let (host, domain) = target();
    let error = restore_into(&host, &domain, &before().context().end()).unwrap_err().error;
    let RestoreError::Unsupported { kind, why, .. } = error else { panic!("{error}") };
    assert_eq!(kind, RecordKind::End);
    assert!(why.contains("between VERIFY and it"), "{why}");
    assert_eq!(domain.counters().calls(Verb::SetHvmContext), 0);
}

/// Its sender had nothing to send before VERIFY.
#[test]
fn a_guest_without_a_page_is_verified() {
    let (host, domain) = target();
    let holes = Stream::new().with(encode::verify).batch(&[(1, PageType::Xtab, 0), (2, PageType::Xtab, 0)]);
    restore_into(&host, &domain, &holes.context().end()).unwrap();
}
