// SPDX-License-Identifier: GPL-3.0-or-later
//! PAGE_DATA: every type of page, superpages, and pages that come and go.

use std::{io::Read, os::fd::AsRawFd};

use xenmig_engine::restore::{RestoreOptions, RestoreReport, restore};
use xenmig_hypervisor::Source;
use xenmig_sim::{Fault, SimDomain, Verb};
use xenmig_types::{Gfn, PageType, Pfn};

use super::build::{Quiet, Stream, fill_of, restore_into, restore_with, target};

fn assert_populated(domain: &SimDomain, pfns: impl IntoIterator<Item = u64>) {
    let pfns: Vec<u64> = pfns.into_iter().collect();
    assert!(pfns.iter().all(|pfn| domain.is_populated(Pfn(*pfn))));
    assert_eq!(domain.populated_pages(), pfns.len() as u64);
}

#[test]
fn a_typical_stream_arrives() {
    let (host, domain) = target();
    let bytes = Stream::typical();
    let report = restore_into(&host, &domain, &bytes).unwrap();
    assert_populated(&domain, (512..1024).chain([5, 7]));
    for pfn in 512..1024 {
        assert_eq!(fill_of(&domain, pfn), pfn as u8);
    }
    assert_eq!((fill_of(&domain, 5), fill_of(&domain, 7)), (9, 0));
    let expected = RestoreReport {
        stream_version: 3,
        xen_major: 4,
        xen_minor: 16,
        records: 10,
        bytes_received: bytes.len() as u64,
        pages_received: 512 + 2 + 1,
        pages_populated: 512 + 2 + 1,
        superpages: 1,
        pages_depopulated: 1,
        store_gfn: Some(Gfn(0xfeffc)),
        console_gfn: Some(Gfn(0xfeffb)),
        elapsed: report.elapsed,
        ..RestoreReport::default()
    };
    assert_eq!(report, expected);
}

#[test]
fn the_last_contents_win() {
    let (host, domain) = target();
    let stream = (0..5).fold(Stream::new(), |stream, fill| stream.batch(&[(1, PageType::Notab, fill)]));
    let report = restore_into(&host, &domain, &stream.context().end()).unwrap();
    assert_eq!(fill_of(&domain, 1), 4);
    assert_eq!((report.pages_received, report.pages_populated), (5, 1));
    assert_eq!(domain.counters().calls(Verb::Populate), 1);
}

#[test]
fn pages_without_contents_are_populated_or_not_by_their_type() {
    let (host, domain) = target();
    let kinds = [PageType::Xtab, PageType::Broken, PageType::Xalloc, PageType::Notab];
    let batch: Vec<_> = (0..).zip(kinds).map(|(pfn, kind)| (pfn, kind, 8)).collect();
    restore_into(&host, &domain, &Stream::new().batch(&batch).context().end()).unwrap();
    assert_populated(&domain, [2, 3]);
    assert_eq!((fill_of(&domain, 2), fill_of(&domain, 3)), (0, 8));
    assert_eq!(domain.counters().calls(Verb::Depopulate), 0);
}

#[test]
fn contents_and_zeroes_go_where_they_belong_in_any_order() {
    let (host, domain) = target();
    let batch: Vec<_> = [9, 2, 7, 4, 1, 8, 3, 6]
        .into_iter()
        .map(|pfn| (pfn, if pfn % 3 == 0 { PageType::Xalloc } else { PageType::Notab }, pfn as u8))
        .collect();
    // The second time nothing is populated, but pages that are only allocated are zeroed again.
    let first: Vec<_> = batch.iter().map(|(pfn, _, _)| (*pfn, PageType::Notab, 0xee)).collect();
    restore_into(&host, &domain, &Stream::new().batch(&first).batch(&batch).context().end()).unwrap();
    for (pfn, kind, fill) in batch {
        assert_eq!(fill_of(&domain, pfn), if kind.has_data() { fill } else { 0 });
    }
}

#[test]
fn a_page_that_goes_away_and_comes_back() {
    let (host, domain) = target();
    let stream = Stream::new()
        .pages(512..1024)
        .batch(&[(600, PageType::Xtab, 0), (601, PageType::Xtab, 0), (3, PageType::Xtab, 0)])
        .batch(&[(600, PageType::Xtab, 0), (601, PageType::Notab, 5)])
        .batch(&[(602, PageType::Broken, 0)]);
    let report = restore_into(&host, &domain, &stream.context().end()).unwrap();
    assert_populated(&domain, (512..600).chain(601..1024));
    assert_eq!(fill_of(&domain, 601), 5);
    assert_eq!((report.pages_depopulated, report.pages_populated), (2, 513));
    assert_eq!(domain.counters().calls(Verb::Depopulate), 1);
}

#[test]
fn a_complete_run_is_a_superpage() {
    let cases: [(&str, Vec<Vec<u64>>, u64); 8] = [
        ("one", vec![(512..1024).collect()], 1),
        ("two", vec![(0..1024).collect()], 2),
        ("with pages around it", vec![(500..1030).collect()], 1),
        ("backwards", vec![(512..1024).rev().collect()], 1),
        ("not aligned", vec![(256..768).collect()], 0),
        ("one page short", vec![(512..1023).collect()], 0),
        ("in two batches", vec![(512..700).collect(), (700..1024).collect()], 0),
        ("one page was there before", vec![vec![1000], (512..1024).collect()], 0),
    ];
    for (name, batches, superpages) in cases {
        let (host, domain) = target();
        let stream = batches.iter().fold(Stream::new(), |stream, batch| stream.pages(batch.iter().copied()));
        let report = restore_into(&host, &domain, &stream.context().end()).unwrap();
        assert_eq!(report.superpages, superpages, "{name}");
        assert_eq!(domain.counters().superpages_populated, superpages, "{name}");
        let mut pfns: Vec<u64> = batches.concat();
        pfns.sort_unstable();
        pfns.dedup();
        assert!(pfns.iter().all(|pfn| fill_of(&domain, *pfn) == *pfn as u8), "{name}");
        assert_eq!(report.pages_populated, pfns.len() as u64, "{name}");
        assert_populated(&domain, pfns);
    }
}

#[test]
fn a_run_of_pages_allocated_only_is_a_superpage_of_zeroes() {
    let (host, domain) = target();
    let batch: Vec<_> = (512..1024).map(|pfn| (pfn, PageType::Xalloc, 0)).collect();
    let report = restore_into(&host, &domain, &Stream::new().batch(&batch).context().end()).unwrap();
    assert_eq!((report.superpages, report.pages_received), (1, 0));
    assert!((512..1024).all(|pfn| fill_of(&domain, pfn) == 0));
}

#[test]
fn a_hole_in_a_run_makes_small_pages() {
    let (host, domain) = target();
    let batch: Vec<_> =
        (512..1024).map(|pfn| (pfn, if pfn == 777 { PageType::Xtab } else { PageType::Notab }, 1)).collect();
    let report = restore_into(&host, &domain, &Stream::new().batch(&batch).context().end()).unwrap();
    assert_eq!((report.superpages, report.pages_populated), (0, 511));
    assert!(!domain.is_populated(Pfn(777)));
}

#[test]
fn a_refused_superpage_comes_in_small_pages() {
    let (host, domain) = target();
    domain.inject(Fault::Errno { verb: Verb::Populate, nth: 0, errno: 12 });
    let report = restore_into(&host, &domain, &Stream::new().pages(512..1024).context().end()).unwrap();
    assert_eq!((report.superpages, report.pages_populated), (0, 512));
    assert_populated(&domain, 512..1024);
}

#[test]
fn superpages_can_be_declined() {
    let (host, domain) = target();
    let options = RestoreOptions { superpages: false, ..RestoreOptions::default() };
    let bytes = Stream::new().pages(512..1024).context().end();
    let report = restore_with(&host, &domain, &bytes, &options, &mut Quiet).unwrap();
    assert_eq!((report.superpages, report.pages_populated), (0, 512));
    assert_eq!(domain.counters().calls(Verb::Populate), 1);
}

#[test]
fn a_record_longer_than_any_batch_is_taken_in_parts() {
    let (host, domain) = target();
    let report = restore_into(&host, &domain, &Stream::new().pages(0..2048).context().end()).unwrap();
    assert_eq!((report.records, report.pages_received, report.superpages), (4, 2048, 4));
    assert!((0..2048).all(|pfn| fill_of(&domain, pfn) == pfn as u8));
    assert_eq!(domain.counters().calls(Verb::Map), 2);
}

#[test]
fn what_follows_end_is_left_to_others() {
    let (host, domain) = target();
    let mut bytes = Stream::typical();
    bytes.extend(b"the toolstack's own");
    let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut source = Source::new(here.as_raw_fd()).unwrap();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut &there, &bytes).unwrap());
    restore(&host, domain.domid(), &mut source, &RestoreOptions::default(), &mut Quiet).unwrap();
    sender.join().unwrap();
    let mut rest = String::new();
    here.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the toolstack's own");
}
