// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest that changes its page tables and its memory stays sound, whatever it does, and the log-dirty bitmap has every
//! page that it changed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use support::{bitmap, cases, page, pages, set_bits};
use xenmig_hypervisor::{Access, CleanPass, Hypervisor};
use xenmig_sim::{
    Action, Churn, DomainConfig, P2mForm, PteAt, PteChange, PvConfig, Script, SimDomain, SimHost, When,
    Workload,
};
use xenmig_types::{Gfn, PageType, Pfn, pv::GuestWidth};

const PAGES: u64 = 300;

fn config(width: GuestWidth, p2m: P2mForm, seed: u64) -> DomainConfig {
    let pv = PvConfig { width, p2m, spare_pfns: 200, ..PvConfig::default() };
    DomainConfig { vcpus: 2, holes: support::hole(20..24), seed, pv: Some(pv), ..pages(PAGES) }
}

/// Makes a domain on its own small machine: there are many of them.
fn domain(config: DomainConfig) -> (SimHost, Arc<SimDomain>) {
    let host = SimHost::with_machine(8192);
    let domain = host.create(config).unwrap();
    (host, domain)
}

fn width() -> impl Strategy<Value = GuestWidth> {
    prop_oneof![Just(GuestWidth::Bits32), Just(GuestWidth::Bits64)]
}

fn form() -> impl Strategy<Value = P2mForm> {
    prop_oneof![(0_u16..3).prop_map(|first_slot| P2mForm::List { first_slot }), Just(P2mForm::Tree)]
}

fn action() -> impl Strategy<Value = Action> {
    let pfn = || (0..PAGES + 20).prop_map(Pfn);
    let at = || (pfn(), 0_u16..520).prop_map(|(table, slot)| PteAt { table, slot });
    let change = prop_oneof![Just(PteChange::Clear), Just(PteChange::Touch), pfn().prop_map(PteChange::Map),];
    prop_oneof![
        2 => pfn().prop_map(Action::Write),
        2 => pfn().prop_map(Action::BalloonOut),
        2 => pfn().prop_map(Action::BalloonIn),
        2 => (at(), change).prop_map(|(at, change)| Action::WritePte(at, change)),
        1 => at().prop_map(Action::TearPte),
        1 => Just(Action::MendPtes),
        2 => pfn().prop_map(Action::MakeTable),
        2 => pfn().prop_map(Action::UnmakeTable),
        1 => Just(Action::BumpGeneration),
        1 => (1_u64..9).prop_map(Action::GrowP2m),
        4 => (1_u32..12).prop_map(Action::Churn),
    ]
}

/// Says whether an action leaves alone how the kernel maps its own p2m and its shared info, which it does not repair.
fn harmless(domain: &SimDomain, action: Action) -> bool {
    let Action::WritePte(at, _) = action else { return true };
    (0..PAGES + 64).any(|pfn| domain.pte_of(Pfn(pfn)).is_some_and(|mapped| mapped == at))
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn whatever_it_does_it_stays_sound_and_is_logged(
        width in width(),
        form in form(),
        seed in any::<u64>(),
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let (host, domain) = domain(config(width, form, seed));
        let id = domain.domid();
        host.enable_logdirty(id).unwrap();
        let mut dirty = bitmap(&host, &domain);
        for action in actions {
            if !harmless(&domain, action) {
                continue;
            }
            let look = |pfn| (page(&domain, pfn), domain.frame_of(Pfn(pfn)));
            let before: Vec<_> = (0..PAGES + 20).map(look).collect();
            let changed = domain.perform(action);
            host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
            let dirty = set_bits(&dirty);
            for pfn in 0..PAGES + 20 {
                let ((old, old_frame), (new, frame)) = (&before[pfn as usize], look(pfn));
                // The contents of a page that Xen gives were not written.
                let same = *old == new || frame.is_some() && *old_frame != frame;
                prop_assert!(same || (changed && dirty.contains(&pfn)), "{action:?} changed {pfn}");
            }
        }
        domain.perform(Action::MendPtes);
        domain.check_pv().unwrap();
        domain.suspend().unwrap();
        domain.check_pv().unwrap();
        domain.resume().unwrap();
        domain.check_pv().unwrap();
    }

    /// The same script gives the same guest, in other frames.
    #[test]
    fn scripts_are_deterministic(
        width in width(),
        form in form(),
        seed in any::<u64>(),
        steps in prop::collection::vec((0_u64..4, action()), 0..20),
    ) {
        let run = || {
            let script: Script = steps.iter().map(|(n, action)| (When::BeforeClean(*n), *action)).collect();
            let workload = Workload::Scripted(script.with(When::BeforeClean(3), Action::MendPtes));
            let (host, domain) = domain(DomainConfig { workload, ..config(width, form, seed) });
            host.enable_logdirty(domain.domid()).unwrap();
            let mut dirty = bitmap(&host, &domain);
            let history: Vec<_> = (0..4).map(|_| {
                host.clean(domain.domid(), Some(&mut dirty), CleanPass::Live).unwrap();
                set_bits(&dirty)
            }).collect();
            domain.suspend().unwrap();
            (history, domain.fingerprint(), domain.populated_pages(), domain)
        };
        let (first, second) = (run(), run());
        prop_assert_eq!((&first.0, first.1, first.2), (&second.0, second.1, second.2));
        prop_assert!(first.3.differing_pages(&second.3, 1).is_empty());
    }
}

#[test]
fn a_guest_that_never_rests_is_sound_whenever_it_is_suspended() {
    for (width, p2m) in [(GuestWidth::Bits32, P2mForm::Tree), (GuestWidth::Bits64, P2mForm::default())] {
        let churn = Churn { ptes_per_s: 20_000.0, tables_per_s: 5_000.0, balloons_per_s: 5_000.0 };
        let mut config = config(width, p2m, 3);
        config.workload = Workload::Uniform { pages_per_s: 50_000.0 };
        config.pv.as_mut().unwrap().churn = churn;
        let (host, domain) = domain(config);
        let id = domain.domid();
        host.enable_logdirty(id).unwrap();
        let mut dirty = bitmap(&host, &domain);
        let mut seen = [0_u64; 3];
        let start = Instant::now();
        // Until a page table was seen, a page that is none any more, and a page that is gone.
        while seen.contains(&0) {
            assert!(start.elapsed() < Duration::from_secs(60), "{seen:?}");
            let frames: Vec<Gfn> = (0..PAGES).filter_map(|pfn| domain.frame_of(Pfn(pfn))).collect();
            let mut before = vec![PageType::Xtab; frames.len()];
            host.page_types(id, &frames, &mut before).unwrap();
            let mapped = host.map(id, &frames, Access::Read).unwrap();
            host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
            let mut after = before.clone();
            host.page_types(id, &frames, &mut after).unwrap();
            for (at, (before, after)) in before.iter().zip(&after).enumerate() {
                seen[0] += u64::from(*before == PageType::Notab && after.is_page_table());
                seen[1] += u64::from(before.is_page_table() && *after == PageType::Notab);
                seen[2] += u64::from(mapped.error(at).is_some() || *after == PageType::Xtab);
            }
        }
        for _ in 0..20 {
            domain.suspend().unwrap();
            domain.check_pv().unwrap();
            let fingerprint = domain.fingerprint();
            std::thread::sleep(Duration::from_millis(3));
            assert_eq!(domain.fingerprint(), fingerprint);
            domain.resume().unwrap();
        }
        domain.set_churn(Churn::default()).unwrap();
        domain.set_workload(Workload::Idle).unwrap();
        domain.perform(Action::MendPtes);
        domain.check_pv().unwrap();
        host.destroy(id).unwrap();
        assert!(domain.set_churn(churn).is_err());
    }
    let (_host, hvm) = domain(pages(16));
    assert!(hvm.set_churn(Churn::default()).is_err());
}
