// SPDX-License-Identifier: GPL-3.0-or-later
//! Whole guests of the simulated host, which follow their own page tables: saved while they run and do what a kernel does,
//! restored, compared, and run again.

use std::{
    io::{Read, Seek},
    os::fd::AsRawFd,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use proptest::{prelude::*, sample::select};
use xenmig_engine::{
    Caller, CallerError, Interrupt, SaveOptions,
    restore::{RestoreReport, restore},
    save,
};
use xenmig_hypervisor::{Sink, Source};
use xenmig_sim::{Churn, DomainConfig, P2mForm, PvConfig, SimDomain, SimHost, Workload};
use xenmig_stream::{Reader, Record};
use xenmig_types::{Pfn, pv::GuestWidth};

use super::{
    super::build::{Quiet, restore_with, target_of},
    guest::{WIDTHS, connected},
};

struct Toolstack(Arc<SimDomain>);

impl Interrupt for Toolstack {}

impl Caller for Toolstack {
    fn suspend(&mut self) -> Result<(), CallerError> {
        Ok(self.0.suspend()?)
    }
}

fn config(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    let pv = PvConfig { width, p2m, ..PvConfig::default() };
    DomainConfig { memory_bytes: 8 << 20, vcpus: 2, pv: Some(pv), ..DomainConfig::default() }
}

/// Saves a guest into a file and restores it, on the same host or on another, and compares the two.
fn migrated(
    host: &SimHost,
    domain: &Arc<SimDomain>,
    config: &DomainConfig,
    live: bool,
) -> (SimHost, Arc<SimDomain>, RestoreReport) {
    let mut file = tempfile::tempfile().unwrap();
    let mut sink = Sink::new(file.as_raw_fd()).unwrap();
    let options = SaveOptions { live, verify: live, ..SaveOptions::default() };
    save(host, domain.domid(), &mut sink, &options, None, &mut Toolstack(Arc::clone(domain))).unwrap();
    file.rewind().unwrap();
    let (far_host, copy) = target_of(DomainConfig { workload: Workload::Idle, ..config.clone() });
    let mut source = Source::new(file.as_raw_fd()).unwrap();
    let report = restore(&far_host, copy.domid(), &mut source, &connected(), &mut Quiet).unwrap();
    copy.check_pv().unwrap();
    assert_eq!(domain.differing_pages(&copy, 5), [], "pages differ");
    assert_eq!(domain.fingerprint(), copy.fingerprint(), "the state differs");
    assert_eq!(report.pages_populated - report.pages_depopulated, copy.populated_pages());
    assert_eq!(copy.counters().mappings_now, 0);
    (far_host, copy, report)
}

#[test]
fn a_guest_that_is_busy_with_its_page_tables() {
    for width in WIDTHS {
        for p2m in [P2mForm::List { first_slot: 3 }, P2mForm::Tree] {
            let mut config = config(width, p2m);
            config.workload = Workload::Uniform { pages_per_s: 5_000.0 };
            config.pv.as_mut().unwrap().churn =
                Churn { ptes_per_s: 20_000.0, tables_per_s: 2_000.0, balloons_per_s: 500.0 };
            let host = SimHost::new();
            let domain = host.create(config.clone()).unwrap();
            domain.fill(3);
            thread::sleep(Duration::from_millis(20));
            let (_far_host, copy, report) = migrated(&host, &domain, &config, true);
            assert_eq!(report.pages_verified, domain.populated_pages());
            assert!(report.store_gfn.is_some_and(|gfn| copy.frame_of(Pfn(gfn.0)) != Some(gfn)));
            copy.resume().unwrap();
            thread::sleep(Duration::from_millis(5));
            // While it runs it may be in the middle of an update.
            copy.suspend().unwrap();
            copy.check_pv().unwrap();
        }
    }
}

#[test]
fn a_guest_that_goes_on_and_on() {
    for width in WIDTHS {
        let config = config(width, P2mForm::default());
        let mut host = SimHost::new();
        let mut domain = host.create(config.clone()).unwrap();
        for _ in 0..3 {
            domain.balloon_out(Pfn(1000)).ok();
            let (far_host, copy, _) = migrated(&host, &domain, &config, false);
            copy.resume().unwrap();
            copy.balloon_in(Pfn(1000)).ok();
            (host, domain) = (far_host, copy);
        }
        assert_eq!(host.domids().len(), 1);
    }
}

/// Saves a small guest that is suspended. Returns the stream, and where in it there are no contents of pages.
fn saved(width: GuestWidth) -> (Vec<u8>, Vec<usize>) {
    let host = SimHost::new();
    let domain = host.create(small(width)).unwrap();
    domain.fill(1);
    let mut file = tempfile::tempfile().unwrap();
    let mut sink = Sink::new(file.as_raw_fd()).unwrap();
    let options = SaveOptions { live: false, ..SaveOptions::default() };
    save(&host, domain.domid(), &mut sink, &options, None, &mut Toolstack(Arc::clone(&domain))).unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let (mut outside, mut from) = (Vec::new(), 0);
    while let Some(record) = reader.next_record().unwrap() {
        if let Record::PageData(batch) = record {
            outside.extend(from..reader.offset() as usize);
            reader.skip_pages(batch.pages).unwrap();
            from = reader.offset() as usize;
        }
    }
    outside.extend(from..bytes.len());
    (bytes, outside)
}

fn small(width: GuestWidth) -> DomainConfig {
    DomainConfig { memory_bytes: 300 << 12, ..config(width, P2mForm::default()) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Changing a stream in some places, mostly outside of pages, may make an unsound guest, but never causes a panic or
    /// leaves a mapping.
    #[test]
    fn corruption_is_survived(
        is_wide in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5_u8), 1..4),
    ) {
        static STREAMS: OnceLock<[(Vec<u8>, Vec<usize>); 2]> = OnceLock::new();
        let streams = STREAMS.get_or_init(|| WIDTHS.map(saved));
        let (bytes, outside) = &streams[usize::from(is_wide)];
        let mut bytes = bytes.clone();
        for (at, value, how) in changes {
            let at = if how == 0 { at.index(bytes.len()) } else { *at.get(outside) };
            bytes[at] = if how > 2 { bytes[at] ^ 1 << (value % 8) } else { value };
        }
        let (far_host, copy) = target_of(small(WIDTHS[usize::from(is_wide)]));
        let result = restore_with(&far_host, &copy, &bytes, &connected(), &mut Quiet);
        if result.is_ok() {
            copy.check_pv().ok();
            copy.resume().ok();
        }
        prop_assert!(copy.populated_pages() <= 300);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn any_guest_is_the_same_afterwards(
        pages in 300..2000_u64,
        seed: u64,
        holes in prop::collection::vec((100..2000_u64, 1..200_u64), 0..4),
        highest in prop::option::of(2000..20_000_u64),
        spare_pfns in select(vec![0, 1, 600, 5000_u64]),
        ballooned in prop::collection::vec(0..2000_u64, 0..20),
        (is_wide, is_tree, extended, live) in any::<(bool, bool, bool, bool)>(),
        xsave_bytes in select(vec![0, 16, 832, 8192_usize]),
        msrs in 0..8_usize,
        offline in any::<bool>(),
    ) {
        let width = WIDTHS[usize::from(is_wide)];
        let p2m = if is_tree { P2mForm::Tree } else { P2mForm::List { first_slot: (seed % 17) as u16 } };
        let pv = PvConfig {
            width, p2m, spare_pfns, extended, xsave_bytes, msrs,
            offline_vcpus: if offline { vec![1] } else { Vec::new() },
            ..PvConfig::default()
        };
        let config = DomainConfig {
            memory_bytes: pages << 12,
            vcpus: 3,
            holes: holes.into_iter().map(|(start, length)| start..start + length).collect(),
            highest_pfn: highest,
            seed,
            pv: Some(pv),
            ..DomainConfig::default()
        };
        let host = SimHost::new();
        let domain = host.create(config.clone()).unwrap();
        domain.fill(seed);
        for pfn in ballooned {
            domain.balloon_out(Pfn(pfn)).ok();
        }
        let (_far_host, copy, _) = migrated(&host, &domain, &config, live);
        copy.resume().unwrap();
        copy.check_pv().unwrap();
    }
}
