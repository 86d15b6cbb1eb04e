// SPDX-License-Identifier: GPL-3.0-or-later
//! What connects a restored guest to its toolstack: pages that are emptied, event channels, grants.

use std::sync::Arc;

use xenmig_engine::{
    CallerError, Interrupt,
    restore::{
        Channel, Channels, MissingPolicies, RestoreCaller, RestoreError, RestoreFailure, RestoreOptions,
        RestoreReport,
    },
};
use xenmig_hypervisor::{Hypervisor, ReservedEntry, ReservedGrant};
use xenmig_sim::{Fault, SimDomain, SimHost, Verb};
use xenmig_stream::encode;
use xenmig_types::{CpuPolicy, Domid, Gfn, GuestKind};

use super::build::{Quiet, Stream, fill_of, restore_with, target};

fn domid(number: i64) -> Domid {
    Domid::new(number).unwrap()
}

fn channels(store_domid: Domid, console_domid: Domid) -> RestoreOptions {
    let channels = Channels {
        store: Channel { evtchn: 21, domid: store_domid },
        console: Channel { evtchn: 22, domid: console_domid },
    };
    RestoreOptions { channels: Some(channels), ..RestoreOptions::default() }
}

/// Restores with event channels to domain 0.
fn connected(bytes: &[u8]) -> (SimHost, Arc<SimDomain>, Result<RestoreReport, RestoreFailure>) {
    let (host, domain) = target();
    let result = restore_with(&host, &domain, bytes, &channels(domid(0), domid(0)), &mut Quiet);
    (host, domain, result)
}

/// Pages 3 to 7, of which parameters name four: store, ioreq, bufioreq, console.
fn guest() -> Stream {
    Stream::new().pages(3..8).params(&[(1, 3), (5, 4), (6, 5), (17, 6), (12, 7)]).context()
}

fn grant(entry: ReservedEntry, backend: i64, gfn: u64) -> ReservedGrant {
    ReservedGrant { entry, backend: domid(backend), gfn: Gfn(gfn) }
}

#[test]
fn the_pages_are_emptied_and_granted_and_the_channels_are_named() {
    let (host, domain, result) = connected(&guest().end());
    let report = result.unwrap();
    let fills: Vec<_> = (3..8).map(|pfn| fill_of(&domain, pfn)).collect();
    assert_eq!(fills, [0, 0, 0, 0, 7], "the page of IDENT_PT is the guest's own");
    let params = [2, 18, 1, 17].map(|index| host.hvm_param(domain.domid(), index).unwrap());
    assert_eq!(params, [21, 22, 3, 6]);
    assert_eq!(domain.grants(), [grant(ReservedEntry::Console, 0, 6), grant(ReservedEntry::Xenstore, 0, 3)]);
    assert_eq!((report.store_gfn, report.console_gfn), (Some(Gfn(3)), Some(Gfn(6))));
}

#[test]
fn without_channels_the_domain_is_what_was_saved() {
    let (host, domain) = target();
    let report =
        restore_with(&host, &domain, &guest().end(), &RestoreOptions::default(), &mut Quiet).unwrap();
    assert!((3..8).all(|pfn| fill_of(&domain, pfn) == pfn as u8));
    assert_eq!([2, 18].map(|index| host.hvm_param(domain.domid(), index).unwrap()), [0, 0]);
    assert_eq!((domain.grants().len(), domain.counters().calls(Verb::SeedGrants)), (0, 0));
    assert_eq!((report.store_gfn, report.console_gfn), (Some(Gfn(3)), Some(Gfn(6))));
}

#[test]
fn a_page_that_comes_after_the_parameters_is_emptied_too() {
    let (_host, domain, result) = connected(&guest().pages([3, 6]).end());
    result.unwrap();
    assert_eq!([3, 6].map(|pfn| fill_of(&domain, pfn)), [0, 0]);
}

#[test]
fn verification_sees_the_pages_as_they_were_sent() {
    let stream = Stream::new().pages(3..8).with(encode::verify).pages(3..8);
    let (_host, domain, result) = connected(&stream.params(&[(1, 3), (17, 6)]).context().end());
    assert_eq!(result.unwrap().pages_verified, 5);
    assert_eq!(fill_of(&domain, 3), 0);
}

#[test]
fn a_domain_that_serves_itself_needs_no_grant() {
    let (host, domain) = target();
    let options = channels(domain.domid(), domid(9));
    restore_with(&host, &domain, &guest().end(), &options, &mut Quiet).unwrap();
    assert_eq!(domain.grants(), [grant(ReservedEntry::Console, 9, 6)]);
}

#[test]
fn a_guest_without_such_pages_gets_no_grants() {
    let (_host, domain, result) = connected(&Stream::new().pages(0..8).context().end());
    let report = result.unwrap();
    assert_eq!((report.store_gfn, report.console_gfn), (None, None));
    assert_eq!(domain.grants(), []);
    assert!((0..8).all(|pfn| fill_of(&domain, pfn) == pfn as u8));
}

#[test]
fn parameters_may_name_any_pfn() {
    // There is no such page: nothing is emptied or populated, and the domain that maps it will get an error.
    let (_host, domain, result) =
        connected(&Stream::new().params(&[(1, 0xfeffc), (5, u64::MAX)]).context().end());
    result.unwrap();
    assert_eq!((domain.populated_pages(), domain.counters().calls(Verb::Map)), (0, 0));
    // The same page twice.
    let (_host, domain, result) =
        connected(&Stream::new().pages([3]).params(&[(1, 3), (17, 3)]).context().end());
    result.unwrap();
    assert_eq!(fill_of(&domain, 3), 0);
    // The last one of a kind counts.
    let stream = Stream::new().pages([3, 4]).params(&[(1, 3), (1, 4)]).params(&[(17, 4)]);
    let (_host, domain, result) = connected(&stream.context().end());
    assert_eq!(result.unwrap().store_gfn, Some(Gfn(4)));
    assert_eq!(fill_of(&domain, 3), 3);
}

#[test]
fn a_page_that_no_grant_can_name_is_refused() {
    for index in [1, 17] {
        let (_host, domain, result) = connected(&Stream::new().params(&[(index, 1 << 32)]).context().end());
        let error = result.unwrap_err().error;
        assert!(matches!(error, RestoreError::NoGrant { .. }), "{error}");
        assert_eq!(domain.counters().calls(Verb::SeedGrants), 0);
    }
}

#[test]
fn each_step_can_fail() {
    for (verb, nth) in [(Verb::SetHvmParam, 5), (Verb::SetHvmParam, 6), (Verb::Map, 1), (Verb::SeedGrants, 0)]
    {
        let (host, domain) = target();
        domain.inject(Fault::Errno { verb, nth, errno: 1 });
        let options = channels(domid(0), domid(0));
        let failure = restore_with(&host, &domain, &guest().end(), &options, &mut Quiet).unwrap_err();
        assert!(failure.to_string().contains("os error 1"), "{failure}");
        assert_eq!(domain.grants(), []);
    }
}

#[test]
fn a_busy_grant_table_is_asked_again() {
    let (host, domain) = target();
    domain.inject(Fault::Errno { verb: Verb::SeedGrants, nth: 0, errno: 16 });
    restore_with(&host, &domain, &guest().end(), &channels(domid(0), domid(0)), &mut Quiet).unwrap();
    assert_eq!(domain.grants().len(), 2);
}

/// Hears of the static data, and may object.
struct Asked<'a> {
    domain: &'a SimDomain,
    objects: bool,
    heard: Vec<(MissingPolicies, u64, u64)>,
}

impl Interrupt for Asked<'_> {}

impl RestoreCaller for Asked<'_> {
    fn static_data_done(&mut self, missing: MissingPolicies) -> Result<(), CallerError> {
        let policies = self.domain.counters().calls(Verb::SetCpuPolicy);
        self.heard.push((missing, policies, self.domain.populated_pages()));
        if self.objects { Err("no".into()) } else { Ok(()) }
    }
}

#[test]
fn the_static_data_is_reported_after_the_policy_and_before_any_memory() {
    for (leaves, entries) in [(0, 0), (24, 0), (0, 16), (24, 16)] {
        let policy = CpuPolicy { cpuid: vec![3; leaves], msrs: vec![4; entries] };
        let stream = Stream::headers(GuestKind::Hvm)
            .with(|out| encode::cpu_policy(out, &policy).unwrap())
            .with(encode::static_data_end)
            .pages([1])
            .context()
            .end();
        let (host, domain) = target();
        let mut caller = Asked { domain: &domain, objects: false, heard: Vec::new() };
        restore_with(&host, &domain, &stream, &RestoreOptions::default(), &mut caller).unwrap();
        let missing = MissingPolicies { cpuid: leaves == 0, msrs: entries == 0 };
        assert_eq!(caller.heard, [(missing, u64::from(leaves + entries > 0), 0)]);
    }
}

#[test]
fn version_two_is_told_of_as_well() {
    let (host, domain) = target();
    let mut caller = Asked { domain: &domain, objects: false, heard: Vec::new() };
    let stream = Stream::version_2().pages([1, 2]).pages([3]).context().end();
    restore_with(&host, &domain, &stream, &RestoreOptions::default(), &mut caller).unwrap();
    assert_eq!(caller.heard, [(MissingPolicies { cpuid: true, msrs: true }, 0, 0)]);
}

#[test]
fn a_caller_that_objects_ends_the_restore() {
    let (host, domain) = target();
    let mut caller = Asked { domain: &domain, objects: true, heard: Vec::new() };
    let options = RestoreOptions::default();
    let failure = restore_with(&host, &domain, &Stream::typical(), &options, &mut caller).unwrap_err();
    assert!(matches!(failure.error, RestoreError::StaticData(_)), "{failure}");
    assert_eq!(domain.populated_pages(), 0);
}
