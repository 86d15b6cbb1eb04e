// SPDX-License-Identifier: GPL-3.0-or-later
//! What cannot be saved, and every call that can fail: a clear error, nothing left behind, the guest goes on.

use xenmig_engine::{GuestState, SaveError, TableFault};
use xenmig_hypervisor::HypervisorError;
use xenmig_sim::{Action, DomainConfig, Fault, P2mForm, PvConfig, Script, SimHost, Verb, When, Workload};
use xenmig_types::{DomainState, pv::GuestWidth};

use crate::{
    guests::{FORMS, WIDTHS, guest, odd, plain, pte, saved},
    support::{
        account::{failed_cleanly, nothing_left},
        domains::libc_errno::{EINVAL, EPERM},
    },
};

#[test]
fn a_page_table_that_is_torn_to_the_end_cannot_be_sent() {
    for width in WIDTHS {
        for live in [true, false] {
            let host = SimHost::new();
            let _neighbour = host.create(plain(width, FORMS[0], 512)).unwrap();
            let domain = guest(&host, &plain(width, FORMS[0], 512), Script::new());
            let at = pte(&domain, live);
            domain
                .set_workload(Workload::Scripted(Script::new().with(When::AtSuspend, Action::TearPte(at))))
                .unwrap();
            let saved = saved(&host, &domain, live);
            let failure = saved.failure();
            match failure.error {
                SaveError::PageTable { pfn, fault: TableFault::Frame { index, mfn }, .. } => {
                    assert_eq!((pfn, index), (at.table, usize::from(at.slot)));
                    assert_eq!(mfn.0, domain.pte(at).frame());
                }
                _ => panic!("{failure}"),
            }
            assert_eq!(failure.guest, GuestState::Resumed);
            failed_cleanly(&domain, &saved);
        }
    }
}

/// The pages that are mapped may hold anything by now.
#[test]
fn a_p2m_that_moves_ends_the_save() {
    for (when, live, guest_state) in [
        (When::BeforeTypes(0), true, GuestState::Running),
        (When::BeforeClean(0), true, GuestState::Running),
        (When::AtSuspend, true, GuestState::Resumed),
        (When::AtSuspend, false, GuestState::Resumed),
    ] {
        let host = SimHost::new();
        let domain = guest(&host, &plain(GuestWidth::Bits64, FORMS[1], 512), Script::new());
        let busy = domain.pv_map().unwrap().data.into_iter().take(60);
        let busy = busy.map(|page| (When::BeforeClean(0), Action::Write(page)));
        let script = busy.chain([(when, Action::BumpGeneration)]).collect();
        domain.set_workload(Workload::Scripted(script)).unwrap();
        let saved = saved(&host, &domain, live);
        let failure = saved.failure();
        assert!(matches!(failure.error, SaveError::P2mMoved { .. }), "{failure}");
        assert_eq!(failure.guest, guest_state, "{when:?}");
        failed_cleanly(&domain, &saved);
    }
}

/// A tree has no generation that could tell.
#[test]
fn a_tree_has_no_generation() {
    let host = SimHost::new();
    let script = Script::new().with(When::BeforeTypes(0), Action::BumpGeneration);
    let domain = guest(&host, &plain(GuestWidth::Bits64, P2mForm::Tree, 512), script);
    saved(&host, &domain, true).report();
}

/// What lies behind the end that the save began with would be lost.
#[test]
fn a_p2m_that_grows_ends_the_save() {
    for form in FORMS {
        let plain = plain(GuestWidth::Bits64, form, 300);
        let config =
            DomainConfig { pv: Some(PvConfig { spare_pfns: 100, ..plain.pv.clone().unwrap() }), ..plain };
        let host = SimHost::new();
        let script = Script::new().with(When::BeforeTypes(0), Action::GrowP2m(7));
        let domain = guest(&host, &config, script);
        let saved = saved(&host, &domain, true);
        let failure = saved.failure();
        assert!(
            matches!(failure.error, SaveError::P2mGrew { before, now, .. } if before + 7 == now),
            "{form:?}: {failure}"
        );
        assert_eq!(failure.guest, GuestState::Resumed);
        failed_cleanly(&domain, &saved);
    }
}

/// The calls that a save of a PV guest makes, and no other guest's.
const VERBS: [Verb; 6] =
    [Verb::GuestWidth, Verb::MapM2p, Verb::CompatM2pFrame, Verb::VcpuOnline, Verb::VcpuState, Verb::TscInfo];

#[test]
fn whichever_call_fails_nothing_is_left() {
    for width in WIDTHS {
        for live in [true, false] {
            let config = odd(width, FORMS[0]);
            let counted = SimHost::new();
            let domain = guest(&counted, &config, Script::new());
            saved(&counted, &domain, live).report();
            let calls = domain.counters();
            for verb in VERBS.into_iter().chain([Verb::Map]) {
                for nth in 0..calls.calls(verb) {
                    let host = SimHost::new();
                    let domain = guest(&host, &config, Script::new());
                    domain.inject(Fault::Errno { verb, nth, errno: EPERM });
                    let saved = saved(&host, &domain, live);
                    let failure = saved.failure();
                    let is_it = |error: &HypervisorError| matches!(error, HypervisorError::Call { errno, .. } if errno.0 == EPERM);
                    assert!(
                        matches!(&failure.error, SaveError::Hypervisor(error) if is_it(error)),
                        "{failure}"
                    );
                    failed_cleanly(&domain, &saved);
                    assert_eq!(domain.state(), DomainState::Running);
                }
            }
        }
    }
}

/// A frame that the save goes by cannot be mapped: of the shared info page, of the p2m's page tables, of the p2m.
#[test]
fn a_frame_that_cannot_be_mapped_is_named() {
    let config = plain(GuestWidth::Bits64, FORMS[0], 512);
    let host = SimHost::new();
    let domain = guest(&host, &config, Script::new());
    let page = domain.pv_map().unwrap().p2m_pages[0];
    let frame = domain.frame_of(page).unwrap();
    domain.inject(Fault::PageMapErrno { pfn: page, errno: EINVAL });
    let saved = saved(&host, &domain, true);
    let failure = saved.failure();
    match failure.error {
        SaveError::MapFrame { frame: told, errno, .. } => assert_eq!((told, errno.0), (frame, EINVAL)),
        _ => panic!("{failure}"),
    }
    assert_eq!((failure.guest, saved.written), (GuestState::Running, 0));
    nothing_left(&domain, false);
}
