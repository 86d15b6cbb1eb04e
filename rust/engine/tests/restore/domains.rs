// SPDX-License-Identifier: GPL-3.0-or-later
//! Whole domains, saved by the engine and restored by it: what was saved is what is restored.

use std::{
    io::Seek,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::Duration,
};

use proptest::prelude::*;
use xenmig_engine::{
    Caller, CallerError, Interrupt, SaveOptions,
    restore::{RestoreOptions, restore},
    save,
};
use xenmig_hypervisor::{Hypervisor, Sink, Source};
use xenmig_sim::{DomainConfig, SimDomain, SimHost, Workload};
use xenmig_types::Pfn;

use super::build::{Quiet, target_of};

struct Toolstack(Arc<SimDomain>);

impl Interrupt for Toolstack {}

impl Caller for Toolstack {
    fn suspend(&mut self) -> Result<(), CallerError> {
        Ok(self.0.suspend()?)
    }
}

/// Compares everything except what no stream carries: event channels, which the toolstack sets, and PAE_ENABLED, which has
/// no meaning any more (`public/hvm/params.h`).
fn assert_same((host, saved): (&SimHost, &SimDomain), (far_host, restored): (&SimHost, &SimDomain)) {
    for index in [2, 4, 18] {
        assert_eq!(far_host.hvm_param(restored.domid(), index).unwrap(), 0);
        let value = host.hvm_param(saved.domid(), index).unwrap();
        far_host.set_hvm_param(restored.domid(), index, value).unwrap();
    }
    assert_eq!(saved.differing_pages(restored, 5), [], "pages differ");
    assert_eq!(saved.fingerprint(), restored.fingerprint(), "the state differs");
}

#[test]
fn a_running_domain_over_a_socket() {
    let host = SimHost::new();
    let config = DomainConfig {
        memory_bytes: 32 << 20,
        vcpus: 2,
        workload: Workload::Uniform { pages_per_s: 20_000.0 },
        holes: vec![100..200, 5000..5001],
        special_pages: true,
        ..DomainConfig::default()
    };
    let domain = host.create(config.clone()).unwrap();
    domain.fill(11);
    thread::sleep(Duration::from_millis(20));
    let (far_host, copy) = target_of(DomainConfig { workload: Workload::Idle, ..config });
    let (here, there) = UnixStream::pair().unwrap();
    let receiver = thread::spawn(move || {
        let mut source = Source::new(there.as_raw_fd()).unwrap();
        let options = RestoreOptions::default();
        (restore(&far_host, copy.domid(), &mut source, &options, &mut Quiet).unwrap(), far_host, copy)
    });
    let mut sink = Sink::new(here.as_raw_fd()).unwrap();
    let options = SaveOptions { verify: true, ..SaveOptions::default() };
    let mut toolstack = Toolstack(Arc::clone(&domain));
    let saved = save(&host, domain.domid(), &mut sink, &options, None, &mut toolstack).unwrap();
    let (report, far_host, copy) = receiver.join().unwrap();
    assert_same((&host, &domain), (&far_host, &copy));
    assert_eq!((report.bytes_received, report.pages_received), (saved.bytes_sent, saved.pages_sent));
    assert_eq!(report.pages_verified, domain.populated_pages());
    assert_eq!(report.superpages, 14, "of 16, two have holes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_domain_is_the_same_afterwards(
        pages in 1..1500_u64,
        seed: u64,
        holes in prop::collection::vec((0..1500_u64, 1..300_u64), 0..4),
        ballooned in prop::collection::vec(0..1500_u64, 0..20),
        special: bool,
        live: bool,
        superpages: bool,
    ) {
        let config = DomainConfig {
            memory_bytes: pages << 12,
            holes: holes.into_iter().map(|(start, length)| start..start + length).collect(),
            special_pages: special,
            seed,
            ..DomainConfig::default()
        };
        let host = SimHost::new();
        let domain = host.create(config.clone()).unwrap();
        domain.fill(seed);
        for pfn in ballooned {
            domain.balloon_out(Pfn(pfn)).ok();
        }
        let mut file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(file.as_raw_fd()).unwrap();
        let options = SaveOptions { live, verify: live, ..SaveOptions::default() };
        save(&host, domain.domid(), &mut sink, &options, None, &mut Toolstack(Arc::clone(&domain))).unwrap();
        file.rewind().unwrap();
        let (far_host, copy) = target_of(config);
        let mut source = Source::new(file.as_raw_fd()).unwrap();
        let options = RestoreOptions { superpages, ..RestoreOptions::default() };
        let report = restore(&far_host, copy.domid(), &mut source, &options, &mut Quiet).unwrap();
        assert_same((&host, &domain), (&far_host, &copy));
        prop_assert_eq!(report.pages_populated - report.pages_depopulated, domain.populated_pages());
        prop_assert!(superpages || report.superpages == 0);
        prop_assert_eq!(copy.counters().mappings_now, 0);
    }
}
