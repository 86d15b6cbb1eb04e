// SPDX-License-Identifier: GPL-3.0-or-later
//! Scripts and faults of the simulated host happen exactly where they were asked for, and its counters tell.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use support::{bitmap, cases, domain, errno, hole, page, pages, set_bits};
use xenmig_hypervisor::{Access, CleanPass, Extent, Hypervisor, PvVerbs, Result};
use xenmig_sim::{Action, DomainConfig, Fault, PvConfig, Script, SimDomain, SimHost, Verb, When, Workload};
use xenmig_types::{CpuPolicy, Domid, Gfn, PageType, Pfn, TscInfo, VcpuPart};

fn scripted(script: Script) -> DomainConfig {
    DomainConfig { workload: Workload::Scripted(script), xen_mapped_pages: 0, ..pages(64) }
}

fn types_of(host: &SimHost, id: Domid, gfns: &[u64]) -> Vec<PageType> {
    let gfns: Vec<Gfn> = gfns.iter().copied().map(Gfn).collect();
    let mut types = vec![PageType::Broken; gfns.len()];
    host.page_types(id, &gfns, &mut types).unwrap();
    types
}

#[test]
fn each_moment_comes_at_its_call() {
    let script = Script::new()
        .with(When::BeforeClean(1), Action::Write(Pfn(1)))
        .with(When::BeforePeek(0), Action::Write(Pfn(2)))
        .with(When::BeforeTypes(1), Action::BalloonOut(Pfn(3)))
        .with(When::BeforeMap(0), Action::BalloonOut(Pfn(4)))
        .with(When::AfterMap(0), Action::Write(Pfn(5)))
        .with(When::AtSuspend, Action::Write(Pfn(6)))
        .with(When::AtSuspend, Action::BalloonIn(Pfn(3)));
    let (host, domain) = domain(scripted(script));
    let id = domain.domid();
    host.enable_logdirty(id).unwrap();
    let mut dirty = bitmap(&host, &domain);
    let mut clean = || {
        host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
        set_bits(&dirty)
    };
    assert_eq!(clean(), [0; 0]);
    assert_eq!(clean(), [1]);
    assert_eq!(host.peek(id, None).unwrap().dirty_count, 1);
    assert_eq!(clean(), [2]);
    assert_eq!(types_of(&host, id, &[3, 4]), [PageType::Notab, PageType::Notab]);
    assert_eq!(types_of(&host, id, &[3, 4, 1 << 40]), [PageType::Xtab, PageType::Notab, PageType::Xtab]);
    assert_eq!(clean(), [3]);
    let before = page(&domain, 5);
    let mapped = host.map(id, &[Gfn(4), Gfn(5)], Access::Read).unwrap();
    assert_eq!(mapped.error(0).unwrap().0, libc::EINVAL);
    assert_eq!(mapped.error(1), None);
    assert_ne!(page(&domain, 5), before);
    assert_eq!(clean(), [4, 5]);
    domain.suspend().unwrap();
    assert_eq!(clean(), [3, 6]);
    assert_eq!(domain.writes(), 4);
}

#[test]
fn a_suspended_guest_does_nothing() {
    let script = Script::new().with(When::BeforeClean(0), Action::Write(Pfn(1)));
    let (host, domain) = domain(scripted(script));
    host.enable_logdirty(domain.domid()).unwrap();
    domain.suspend().unwrap();
    assert_eq!(host.clean(domain.domid(), None, CleanPass::Live).unwrap().dirty_count, 0);
    assert_eq!(domain.writes(), 0);
}

#[test]
fn every_write_gives_the_page_contents_that_it_never_had() {
    let writes = (0..2000).map(|n| (When::BeforeClean(n), Action::Write(Pfn(7))));
    let (host, domain) = domain(scripted(writes.collect()));
    host.enable_logdirty(domain.domid()).unwrap();
    let mut seen = std::collections::HashSet::from([page(&domain, 7)]);
    for n in 0..2000 {
        host.clean(domain.domid(), None, CleanPass::Live).unwrap();
        assert!(seen.insert(page(&domain, 7)), "write {n} left contents that the page had before");
    }
}

fn action() -> impl Strategy<Value = Action> {
    (0_u64..70, 0..3).prop_map(|(pfn, kind)| match kind {
        0 => Action::Write(Pfn(pfn)),
        1 => Action::BalloonOut(Pfn(pfn)),
        _ => Action::BalloonIn(Pfn(pfn)),
    })
}

proptest! {
    #![proptest_config(cases(64))]

    /// The same script gives the same domain, and the dirty bitmaps account for everything that changed.
    #[test]
    fn scripts_are_deterministic_and_logged(
        steps in prop::collection::vec((0_u64..5, action()), 0..40),
        seed in any::<u64>(),
    ) {
        let script: Script = steps.iter().map(|(n, action)| (When::BeforeClean(*n), *action)).collect();
        let run = || {
            let (host, domain) = domain(DomainConfig { holes: hole(10..13), seed, ..scripted(script.clone()) });
            domain.fill(seed);
            host.enable_logdirty(domain.domid()).unwrap();
            let mut history = Vec::new();
            for _ in 0..5 {
                let before: Vec<_> = (0..70).map(|pfn| page(&domain, pfn)).collect();
                let count = host.clean(domain.domid(), None, CleanPass::Live).unwrap().dirty_count;
                let changed = (0..70).filter(|pfn| page(&domain, *pfn) != before[*pfn as usize]).count();
                history.push((count, changed));
            }
            domain.suspend().unwrap();
            (history, domain.fingerprint(), domain.populated_pages(), domain)
        };
        let (first, second) = (run(), run());
        prop_assert_eq!((&first.0, first.1, first.2), (&second.0, second.1, second.2));
        prop_assert!(first.3.differing_pages(&second.3, 1).is_empty());
        prop_assert!(first.0.iter().all(|(logged, changed)| *logged as usize >= *changed), "{:?}", first.0);
    }
}

/// One call of each verb, with arguments that work on a paused domain.
fn call(host: &SimHost, domain: &SimDomain, verb: Verb) -> Result<()> {
    let id = domain.domid();
    match verb {
        Verb::Version => host.version().map(drop),
        Verb::DomainInfo => host.domain_info(id).map(drop),
        Verb::NrGpfns => host.nr_gpfns(id).map(drop),
        Verb::EnableLogdirty => host.enable_logdirty(id),
        Verb::DisableLogdirty => host.disable_logdirty(id),
        Verb::DirtyBitmap => host.dirty_bitmap(id, 64).map(drop),
        Verb::Clean => host.clean(id, None, CleanPass::Live).map(drop),
        Verb::Peek => host.peek(id, None).map(drop),
        Verb::PageTypes => host.page_types(id, &[Gfn(0)], &mut [PageType::Xtab]),
        Verb::Map => host.map(id, &[Gfn(0)], Access::Read).map(drop),
        Verb::HvmContext => host.hvm_context(id).map(drop),
        Verb::SetHvmContext => host.set_hvm_context(id, &[1]),
        Verb::HvmParam => host.hvm_param(id, 1).map(drop),
        Verb::SetHvmParam => host.set_hvm_param(id, 1, 2),
        Verb::TscInfo => host.tsc_info(id).map(drop),
        Verb::SetTscInfo => host.set_tsc_info(id, &TscInfo::default()),
        Verb::CpuPolicy => host.cpu_policy(id).map(drop),
        Verb::SetCpuPolicy => host.set_cpu_policy(id, &CpuPolicy::default()),
        Verb::Populate => host.populate(id, &mut [Gfn(60)], Extent::Page).map(drop),
        Verb::Depopulate => host.depopulate(id, &[Gfn(60)]),
        Verb::SeedGrants => host.seed_grants(id, &[]),
        Verb::GuestWidth => host.guest_width(id).map(drop),
        Verb::SetGuestWidth => host.set_guest_width(id, 8),
        Verb::VcpuOnline => host.vcpu_online(id, 0).map(drop),
        Verb::VcpuState => host.vcpu_state(id, 0, VcpuPart::Msrs).map(drop),
        Verb::SetVcpuState => host.set_vcpu_state(id, 0, VcpuPart::Msrs, &[]),
        Verb::MapM2p => host.map_m2p(id).map(drop),
        Verb::CompatM2pFrame => host.compat_m2p_frame(id).map(drop),
        Verb::PinTables => host.pin_tables(id, &[]).map(drop),
        Verb::Suspend | Verb::Resume => {
            let step = if verb == Verb::Suspend { domain.suspend() } else { domain.resume() };
            step.map_err(|error| match error {
                xenmig_sim::SimError::Hypervisor(error) => error,
                other => panic!("{other}"),
            })
        }
    }
}

#[test]
fn an_injected_errno_comes_at_the_nth_call_of_its_verb_and_only_there() {
    for verb in Verb::ALL {
        // The verbs of PV guests fail on all others.
        let pv = (Verb::GuestWidth..=Verb::PinTables).contains(&verb).then(PvConfig::default);
        let populated = pv.is_none();
        let (host, domain) = domain(DomainConfig { holes: hole(60..61), pv, populated, ..pages(64) });
        let prepare = |call_number: u64| match verb {
            // So that each call finds the domain in a state in which it works.
            Verb::EnableLogdirty => host.disable_logdirty(domain.domid()).unwrap(),
            Verb::Clean | Verb::Peek => drop(host.enable_logdirty(domain.domid())),
            Verb::SetHvmContext => drop(domain.pause()),
            Verb::Populate => drop(domain.balloon_out(Pfn(60))),
            Verb::Depopulate => drop(domain.balloon_in(Pfn(60))),
            Verb::Suspend if call_number > 0 => drop(domain.resume()),
            Verb::Resume => drop(domain.suspend()),
            _ => {}
        };
        for number in 0..2 {
            prepare(number);
            call(&host, &domain, verb).unwrap();
        }
        domain.inject(Fault::Errno { verb, nth: 1, errno: libc::EBUSY });
        domain.inject(Fault::Errno { verb, nth: 3, errno: libc::EPERM });
        let mut errnos = Vec::new();
        for number in 2..7 {
            prepare(number);
            errnos
                .push(call(&host, &domain, verb).err().and_then(|error| error.errno()).map(|errno| errno.0));
        }
        assert_eq!(errnos, [None, Some(libc::EBUSY), None, Some(libc::EPERM), None], "{verb:?}");
        assert!(domain.counters().calls(verb) >= 7, "{verb:?}");
    }
}

#[test]
fn a_page_vanishes_once_between_its_types_and_its_mapping() {
    let (host, domain) = domain(pages(64));
    let id = domain.domid();
    domain.suspend().unwrap();
    domain.inject(Fault::VanishBeforeMap { pfn: Pfn(5) });
    host.map(id, &[Gfn(4), Gfn(6)], Access::Read).unwrap();
    assert_eq!(types_of(&host, id, &[5]), [PageType::Notab]);
    let mapped = host.map(id, &[Gfn(4), Gfn(5), Gfn(6)], Access::Read).unwrap();
    let errors = [0, 1, 2].map(|at| mapped.error(at).map(|errno| errno.0));
    assert_eq!(errors, [None, Some(libc::EINVAL), None]);
    assert_eq!(types_of(&host, id, &[5]), [PageType::Xtab]);
    domain.balloon_in(Pfn(5)).unwrap();
    assert_eq!(host.map(id, &[Gfn(5)], Access::Read).unwrap().error(0), None);
}

#[test]
fn a_page_that_cannot_be_mapped_fails_alone_until_faults_are_cleared() {
    let (host, domain) = domain(pages(64));
    domain.inject(Fault::PageMapErrno { pfn: Pfn(1), errno: libc::ENOMEM });
    let map = || host.map(domain.domid(), &[Gfn(0), Gfn(1)], Access::Read).unwrap();
    for _ in 0..2 {
        assert_eq!(map().error(0), None);
        assert_eq!(map().error(1).unwrap().0, libc::ENOMEM);
    }
    domain.clear_faults();
    assert_eq!(map().error(1), None);
}

#[test]
fn mapping_costs_what_was_injected() {
    let (host, domain) = domain(pages(64));
    domain.inject(Fault::MapCost { ns_per_page: 1_000_000 });
    let gfns: Vec<Gfn> = (0..20).map(Gfn).collect();
    let start = Instant::now();
    drop(host.map(domain.domid(), &gfns, Access::Read).unwrap());
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn mappings_are_counted_until_the_last_is_gone() {
    let (host, domain) = domain(DomainConfig { holes: hole(2..3), ..pages(64) });
    let map = |gfns: &[u64]| {
        let gfns: Vec<Gfn> = gfns.iter().copied().map(Gfn).collect();
        host.map(domain.domid(), &gfns, Access::Read).unwrap()
    };
    let first = map(&[0, 1, 2, 1 << 50]);
    let second = map(&[1]);
    // What tests read must not count.
    let _ = domain.fingerprint();
    let counters = domain.counters();
    assert_eq!((counters.maps, counters.unmaps, counters.mappings_now), (2, 0, 2));
    assert_eq!((counters.pages_mapped, counters.pages_mapped_now), (3, 3));
    drop(first);
    assert_eq!(domain.counters().pages_mapped_now, 1);
    drop(second);
    let counters = domain.counters();
    assert_eq!((counters.maps, counters.unmaps, counters.mappings_now), (2, 2, 0));
    assert_eq!((counters.pages_mapped, counters.pages_mapped_now), (3, 0));
    assert_eq!(errno(host.map(domain.domid(), &[], Access::Read)), libc::EINVAL);
}
