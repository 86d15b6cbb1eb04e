// SPDX-License-Identifier: GPL-3.0-or-later
//! Streams that lie, are truncated or are not streams at all, and domains that cannot be restored into. Every restore in
//! these tests checks that no mapping is left.

use proptest::prelude::*;
use xenmig_engine::restore::RestoreError;
use xenmig_hypervisor::{Errno, HypervisorError};
use xenmig_sim::{DomainConfig, SimHost, Verb};
use xenmig_stream::StreamError;
use xenmig_types::{Domid, PageType, Pfn};

use super::build::{Stream, error_of, restore_into, target, target_of};

#[test]
fn pfns_that_no_guest_has() {
    for kind in [PageType::Notab, PageType::Xalloc, PageType::Xtab, PageType::Broken] {
        for pfn in [1 << 40, (1 << 52) - 1] {
            let error = error_of(&Stream::new().batch(&[(1, PageType::Notab, 0), (pfn, kind, 0)]).end());
            let RestoreError::PfnTooHigh { offset: 48, pfn: found } = error else { panic!("{error}") };
            assert_eq!(found, Pfn(pfn));
        }
    }
}

#[test]
fn pfns_that_this_host_does_not_have_cost_nothing() {
    let (host, domain) = target();
    let pfn = (1 << 40) - 1;
    let batch = [(1, PageType::Notab, 1), (pfn, PageType::Xalloc, 0)];
    let error = restore_into(&host, &domain, &Stream::new().batch(&batch).end()).unwrap_err().error;
    let RestoreError::Populate { pfn: found, given: 1, asked: 2, .. } = error else { panic!("{error}") };
    assert_eq!(found, Pfn(pfn));

    // A hole there needs nothing.
    let (host, domain) = target();
    let stream = Stream::new().batch(&[(pfn, PageType::Xtab, 0), (pfn - 1, PageType::Broken, 0)]);
    restore_into(&host, &domain, &stream.context().end()).unwrap();
    assert_eq!(domain.counters().calls(Verb::Populate), 0);
}

#[test]
fn pfns_that_are_named_twice() {
    let far_apart = (0..1500).map(|pfn| (pfn, PageType::Xtab, 0)).chain([(7, PageType::Notab, 1)]);
    let cases: [Vec<(u64, PageType, u8)>; 4] = [
        vec![(7, PageType::Notab, 1), (7, PageType::Notab, 2)],
        vec![
            (9, PageType::Notab, 1),
            (7, PageType::Xtab, 0),
            (8, PageType::Notab, 1),
            (7, PageType::Xalloc, 0),
        ],
        vec![(7, PageType::Broken, 0), (6, PageType::Notab, 1), (7, PageType::Broken, 0)],
        far_apart.collect(),
    ];
    for batch in cases {
        let (host, domain) = target();
        let error = restore_into(&host, &domain, &Stream::new().batch(&batch).end()).unwrap_err().error;
        assert!(matches!(error, RestoreError::PfnTwice { offset: 48, pfn: Pfn(7) }), "{error}");
        assert_eq!(domain.counters().calls(Verb::Populate), 0, "checked before anything is done");
    }
}

#[test]
fn more_pages_than_the_domain_may_have() {
    let (host, domain) = target();
    let bytes = Stream::new().pages(0..1024).pages(1024..2050).end();
    let error = restore_into(&host, &domain, &bytes).unwrap_err().error;
    // Two superpages fit, and none of the two pages after them.
    assert!(matches!(error, RestoreError::Populate { pfn: Pfn(2048), given: 0, asked: 2, .. }), "{error}");
    assert_eq!(domain.populated_pages(), 2048);
}

#[test]
fn streams_that_break_off() {
    let bytes = Stream::typical();
    let (mut cuts, mut offsets) = (0, 0..bytes.len());
    while let Some(cut) = offsets.next() {
        let (host, domain) = target();
        let failure = restore_into(&host, &domain, &bytes[..cut]).unwrap_err();
        let RestoreError::Stream(StreamError::Truncated { offset, .. }) = failure.error else {
            panic!("{cut}: {failure}")
        };
        assert_eq!((offset, failure.bytes_read), (cut as u64, cut as u64));
        assert_eq!(domain.counters().calls(Verb::SetHvmContext), 0);
        cuts += 1;
        // Every cut in the first records, then some in pages, then every one after them.
        if cut > 300 && cut + 400 < bytes.len() {
            offsets.nth(9_973);
        }
    }
    assert!(cuts > 500, "{cuts}");
}

#[test]
fn counts_and_lengths_that_lie() {
    let params =
        [10, 0, 0, 0, 24, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let error = error_of(&Stream::new().with(|out| out.extend(params)).end());
    assert!(matches!(error, RestoreError::Stream(StreamError::Count { count: 2, .. })), "{error}");

    let mut bytes = Stream::new().pages([1, 2]).end();
    bytes[56] = 3;
    let error = error_of(&bytes);
    assert!(matches!(error, RestoreError::Stream(StreamError::Count { count: 3, .. })), "{error}");

    let error = error_of(b"GET / HTTP/1.1\r\nHost: somewhere else\r\n\r\n");
    assert!(matches!(error, RestoreError::Stream(StreamError::Marker { .. })), "{error}");
}

#[test]
fn other_files_are_named() {
    for (bytes, part) in [
        (
            &b"Xen saved domain, xl format\n \0 \r"[..],
            "an xl save image (its header is \"Xen saved domain, xl format\")",
        ),
        (b"LibxlFmt\0\0\0\x02", "a libxl stream"),
        (b"\0\0\x04\0\0\0\0\0and so on, for a while", "a legacy image (version 1"),
        (b"\x1f\x8b\x08\0", "`gzip -dc FILE`"),
        (b"\x28\xb5\x2f\xfd", "`zstd -dc FILE`"),
        (b"\xfd7zXZ\0", "`xz -dc FILE`"),
        (b"LibvirtQemudSave", "libvirt's QEMU driver"),
        (b"QEVM", "a migration stream of QEMU"),
        (b"hello\n", "text:"),
        (b"", "it is empty"),
    ] {
        let text = error_of(bytes).to_string();
        assert!(text.contains(part), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn domains_that_cannot_be_restored_into() {
    let bytes = Stream::typical();
    let refused = |host: &SimHost, domain, why: &str| {
        let failure = restore_into(host, domain, &bytes).unwrap_err();
        assert!(matches!(failure.error, RestoreError::Refused { .. }), "{failure}");
        assert!(failure.to_string().contains(why), "{failure}");
        assert_eq!(failure.bytes_read, 0, "the stream is untouched");
    };
    let host = SimHost::new();
    let domain = host.create(DomainConfig::default()).unwrap();
    refused(&host, &domain, "running");
    domain.suspend().unwrap();
    refused(&host, &domain, "shut down");

    // Not empty: it already has pages of the stream.
    domain.resume().unwrap();
    domain.pause().unwrap();
    let error = restore_into(&host, &domain, &bytes).unwrap_err().error;
    assert!(matches!(error, RestoreError::Populate { given: 0, .. }), "{error}");

    host.destroy(domain.domid()).unwrap();
    let error = restore_into(&host, &domain, &bytes).unwrap_err().error;
    let gone = HypervisorError::call(Verb::DomainInfo.name(), Domid::new(1).unwrap(), 3);
    assert!(matches!(error, RestoreError::Hypervisor(found) if found == gone), "{error}");
    assert_eq!(gone.errno(), Some(Errno(3)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Changing a stream in some places never causes a panic or leaves a mapping.
    #[test]
    fn corruption_is_survived(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = Stream::new()
            .pages([1, 2, 3])
            .batch(&[(2, PageType::Xtab, 0), (9, PageType::Xalloc, 0), (1, PageType::Notab, 5)])
            .with(xenmig_stream::encode::verify)
            .batch(&[(1, PageType::Notab, 5)])
            .params(&[(1, 2), (5, 6)])
            .context()
            .end();
        // Most bytes belong to pages, so most of the changes are aimed at the records.
        let records: Vec<usize> = (0..bytes.len()).filter(|at| {
            *at < 100 || (12_376..12_420).contains(at) || *at + 160 > bytes.len()
        }).collect();
        for (number, (at, value)) in changes.into_iter().enumerate() {
            let at = if number == 0 { at.index(bytes.len()) } else { *at.get(&records) };
            bytes[at] = value;
        }
        let (host, domain) = target_of(DomainConfig { memory_bytes: 64 << 10, ..DomainConfig::default() });
        match restore_into(&host, &domain, &bytes) {
            Ok(report) => prop_assert!(report.pages_populated <= 16),
            Err(failure) => prop_assert!(failure.bytes_read <= bytes.len() as u64),
        }
        prop_assert!(domain.populated_pages() <= 16);
    }
}
