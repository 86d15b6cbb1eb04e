// SPDX-License-Identifier: GPL-3.0-or-later
//! The hypervisor fails: every verb, at every one of its calls. The error says which, the guest runs on or is as the
//! failure says, nothing is left behind, and the next save works.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::single_range_in_vec_init,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use support::{
    Mine, Saved,
    account::{failed_cleanly, nothing_left, nothing_lost},
    domains::{Shape, libc_errno::*, writes},
    policies::Recorder,
    save_to_file,
    tap::Tap,
    toolstack::{Asked, Resumes, Toolstack},
};
use xenmig_engine::{ConsultMode, Decision, GuestState, SaveError, SaveOptions};
use xenmig_hypervisor::{Errno, Hypervisor, HypervisorError};
use xenmig_sim::{Fault, SimDomain, SimHost, Verb, When};
use xenmig_types::{DomainState, Pfn};

/// The verbs that a save cannot do without.
const VERBS: [Verb; 13] = [
    Verb::Version,
    Verb::DomainInfo,
    Verb::NrGpfns,
    Verb::EnableLogdirty,
    Verb::DisableLogdirty,
    Verb::DirtyBitmap,
    Verb::Clean,
    Verb::PageTypes,
    Verb::Map,
    Verb::HvmContext,
    Verb::HvmParam,
    Verb::TscInfo,
    Verb::CpuPolicy,
];

/// The kinds of save that are made to fail.
fn kinds() -> [SaveOptions; 4] {
    let base =
        SaveOptions { min_round: Duration::ZERO, skip_interval: Duration::ZERO, ..SaveOptions::default() };
    [
        SaveOptions { consult: ConsultMode::Batch, skip_redirtied: true, ..base.clone() },
        SaveOptions { consult: ConsultMode::Round, ..base.clone() },
        SaveOptions { consult: ConsultMode::Batch, verify: true, ..base.clone() },
        SaveOptions { live: false, ..base },
    ]
}

/// A domain that is dirtied in front of every CLEAN of its first saves.
fn domain(host: &SimHost) -> Arc<SimDomain> {
    let script = writes((0..8).map(|n| (When::BeforeClean(n), (0..1100).collect())));
    Shape { holes: vec![50..60], xen_mapped_pages: 1, ..Shape::plain(1300) }.build(host, script)
}

/// Saves under a policy that wants two rounds.
fn save(
    host: &dyn Hypervisor,
    domain: &SimDomain,
    options: &SaveOptions,
    toolstack: &mut Toolstack<'_>,
) -> Saved {
    let mut policy =
        Recorder::new(
            |_, stats| {
                if stats.iteration == 2 { Decision::StopAndCopy } else { Decision::Continue }
            },
        );
    save_to_file(host, domain, options, Some(&mut policy), toolstack)
}

/// Saves once more, without faults.
fn save_again(host: &SimHost, domain: &SimDomain, options: &SaveOptions) {
    domain.clear_faults();
    let saved = save(host, domain, options, &mut Toolstack::new(domain));
    saved.report();
    nothing_lost(host, domain, &saved);
    nothing_left(domain, false);
}

/// Injects the fault at the n-th call of the verb, and saves. Returns `None` if the save had no such call.
fn fail_at(verb: Verb, nth: u64, options: &SaveOptions, resumes: Resumes) -> Option<()> {
    let host = SimHost::new();
    let domain = domain(&host);
    let before = domain.counters().calls(verb);
    domain.inject(Fault::Errno { verb, nth, errno: EIO });
    let mut toolstack = Toolstack { resumes, ..Toolstack::new(&domain) };
    let saved = save(&host, &domain, options, &mut toolstack);
    if domain.counters().calls(verb) - before <= nth {
        saved.report();
        return None;
    }
    let place = format!("{verb:?} number {nth}, {options:?}");
    match (verb, nth) {
        // It may have been on already: it is switched off and on again.
        (Verb::EnableLogdirty, 0) => {
            saved.report();
            nothing_left(&domain, false);
        }
        // Everything was sent: a warning, because it remains to be done.
        (Verb::DisableLogdirty, _) => {
            assert_eq!(saved.report().warnings.len(), 1);
            assert!(saved.report().warnings[0].contains("shadow_op OFF"), "{:?}", saved.report().warnings);
            nothing_left(&domain, true);
            host.disable_logdirty(domain.domid()).unwrap();
            nothing_lost(&host, &domain, &saved);
        }
        _ => {
            let failure = saved.failure();
            let want = HypervisorError::Call { op: verb.name(), domid: domain.domid(), errno: Errno(EIO) };
            assert!(
                matches!(&failure.error, SaveError::Hypervisor(error) if *error == want),
                "{place}: {failure}"
            );
            assert!(failure.to_string().contains("Input/output error"), "{failure}");
            assert!(failure.warnings.is_empty());
            failed_cleanly(&domain, &saved);
            let want = match (toolstack.was_asked_to_suspend(), resumes) {
                (false, _) => GuestState::Running,
                (true, Resumes::Works) => GuestState::Resumed,
                (true, _) => GuestState::Suspended,
            };
            assert_eq!(failure.guest, want, "{place}");
            let ends = (options.live && toolstack.asked.contains(&Asked::DeviceModel(true))) as usize;
            let ended = toolstack.asked.iter().filter(|asked| **asked == Asked::DeviceModel(false)).count();
            assert_eq!(ended, ends, "{place}");
        }
    }
    if domain.state().is_suspended() {
        domain.resume().unwrap();
    }
    save_again(&host, &domain, options);
    Some(())
}

#[test]
fn every_verb_fails_at_every_call() {
    let mut failures = 0;
    for options in kinds() {
        for verb in VERBS {
            for nth in 0.. {
                let resumes = if nth % 2 == 0 { Resumes::Works } else { Resumes::Cannot };
                if fail_at(verb, nth, &options, resumes).is_none() {
                    break;
                }
                failures += 1;
            }
        }
    }
    // Two rounds of two batches, a final pass of two: no verb was left out.
    assert!(failures > 140, "{failures} failures");
}

/// The mode is not switched on, not even at the second attempt.
#[test]
fn logdirty_that_cannot_be_switched_on() {
    for errnos in [[EINVAL, EPERM], [ENOMEM, ENOMEM]] {
        let host = SimHost::new();
        let domain = domain(&host);
        for (nth, errno) in (0..).zip(errnos) {
            domain.inject(Fault::Errno { verb: Verb::EnableLogdirty, nth, errno });
        }
        let saved = save(&host, &domain, &kinds()[0], &mut Toolstack::new(&domain));
        let SaveError::Hypervisor(error) = &saved.failure().error else { panic!("{}", saved.failure()) };
        assert_eq!(error.errno(), Some(Errno(errnos[1])));
        failed_cleanly(&domain, &saved);
        save_again(&host, &domain, &kinds()[0]);
    }
}

/// VRAM tracking has it on, or a helper that was killed: with rubbish in the bitmap.
#[test]
fn logdirty_that_is_on_already_starts_clean() {
    for vram_tracking in [true, false] {
        let host = SimHost::new();
        let domain = Shape { vram_tracking, ..Shape::plain(100) }.build(&host, writes([]));
        if !vram_tracking {
            host.enable_logdirty(domain.domid()).unwrap();
        }
        domain.fill(9);
        let tap = Tap::new(&host);
        let saved = save(&tap, &domain, &kinds()[0], &mut Toolstack::new(&domain));
        assert_eq!(saved.report().pages_sent, 100, "what was dirty before is of no interest");
        nothing_lost(&host, &domain, &saved);
        nothing_left(&domain, false);
        let switches: Vec<_> =
            tap.verbs().into_iter().filter(|verb| ["enable", "off"].contains(verb)).collect();
        assert_eq!(switches, ["enable", "off", "enable", "off"]);
    }
}

#[test]
fn ebusy_means_try_again() {
    for errno in [EBUSY, EAGAIN, EINTR] {
        for verb in [Verb::Clean, Verb::Peek] {
            for first in 0..3 {
                let host = SimHost::new();
                let domain = domain(&host);
                (first..first + 3).for_each(|nth| domain.inject(Fault::Errno { verb, nth, errno }));
                let saved = save(&host, &domain, &kinds()[0], &mut Toolstack::new(&domain));
                saved.report();
                nothing_lost(&host, &domain, &saved);
                nothing_left(&domain, false);
            }
        }
    }
}

/// One rule for every verb that a save uses, log-dirty off above all.
#[test]
fn every_verb_is_tried_again_while_the_hypervisor_is_busy() {
    const ERESTART: i32 = 85;
    let verbs = [
        Verb::Version,
        Verb::DomainInfo,
        Verb::NrGpfns,
        Verb::EnableLogdirty,
        Verb::DisableLogdirty,
        Verb::DirtyBitmap,
        Verb::PageTypes,
        Verb::Map,
        Verb::HvmContext,
        Verb::HvmParam,
        Verb::TscInfo,
        Verb::CpuPolicy,
    ];
    for verb in verbs {
        for errno in [EBUSY, EAGAIN, EINTR, ERESTART] {
            let host = SimHost::new();
            let domain = domain(&host);
            (0..3).for_each(|nth| domain.inject(Fault::Errno { verb, nth, errno }));
            let saved = save(&host, &domain, &kinds()[0], &mut Toolstack::new(&domain));
            assert_eq!(saved.report().warnings, Vec::<String>::new(), "{verb:?} {errno}");
            assert!(domain.counters().calls(verb) > 3, "{verb:?} was not called again");
            nothing_lost(&host, &domain, &saved);
            nothing_left(&domain, false);
        }
    }
}

/// A hypervisor that stays busy: the caller can end the wait, and else it ends by itself.
#[test]
fn ebusy_does_not_mean_for_ever() {
    for interrupts_after in [Some(Duration::from_millis(50)), None] {
        let host = SimHost::new();
        let domain = domain(&host);
        (0..10_000).for_each(|nth| domain.inject(Fault::Errno { verb: Verb::Clean, nth, errno: EBUSY }));
        let mut toolstack = Toolstack { interrupts_after, ..Toolstack::new(&domain) };
        let began = Instant::now();
        let saved = save(&host, &domain, &kinds()[0], &mut toolstack);
        match &saved.failure().error {
            SaveError::Interrupted(error) => {
                assert_eq!(error.downcast_ref(), Some(&Mine("interrupt")));
                assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
            }
            SaveError::Hypervisor(error) => {
                assert_eq!(error.errno(), Some(Errno(EBUSY)));
                assert!(interrupts_after.is_none() && began.elapsed() < Duration::from_secs(20));
            }
            other => panic!("{other}"),
        }
        failed_cleanly(&domain, &saved);
        save_again(&host, &domain, &kinds()[0]);
    }
}

/// The count of what is dirty again is a comfort for the policy, no more: the save goes on without it.
#[test]
fn a_peek_for_the_count_may_fail() {
    let host = SimHost::new();
    let domain = Shape::plain(8 * 1024).build(&host, writes([]));
    domain.inject(Fault::MapCost { ns_per_page: 40_000 });
    (0..100).for_each(|nth| domain.inject(Fault::Errno { verb: Verb::Peek, nth, errno: EIO }));
    let saved = save(&host, &domain, &kinds()[2], &mut Toolstack::new(&domain));
    assert!(domain.counters().calls(Verb::Peek) > 0);
    nothing_lost(&host, &domain, &saved);
}

/// Skipping only saves work: without a PEEK nothing is skipped, and nothing is lost.
#[test]
fn a_peek_of_the_bitmap_may_fail() {
    let host = SimHost::new();
    let domain = domain(&host);
    (0..100).for_each(|nth| domain.inject(Fault::Errno { verb: Verb::Peek, nth, errno: EIO }));
    let saved = save(&host, &domain, &kinds()[0], &mut Toolstack::new(&domain));
    assert_eq!(saved.report().pages_skipped, 0);
    assert!(domain.counters().calls(Verb::Peek) > 0);
    nothing_lost(&host, &domain, &saved);
    nothing_left(&domain, false);
}

/// The save fails, and then log-dirty mode cannot be switched off: the first error counts, the second is a warning.
#[test]
fn two_failures_are_both_told() {
    let host = SimHost::new();
    let domain = domain(&host);
    domain.inject(Fault::Errno { verb: Verb::HvmContext, nth: 0, errno: EIO });
    domain.inject(Fault::Errno { verb: Verb::DisableLogdirty, nth: 0, errno: EPERM });
    let saved = save(&host, &domain, &kinds()[0], &mut Toolstack::new(&domain));
    let failure = saved.failure();
    assert!(
        matches!(failure.error, SaveError::Hypervisor(error) if error.errno() == Some(Errno(EIO))),
        "{failure}"
    );
    assert_eq!((failure.guest, failure.warnings.len()), (GuestState::Resumed, 1));
    assert!(failure.warnings[0].contains("Operation not permitted"), "{:?}", failure.warnings);
    nothing_left(&domain, true);
}

/// A page that goes away between its type query and its mapping: a hole for now, looked at again in the final pass.
#[test]
fn a_page_that_vanishes_while_the_guest_runs_is_deferred() {
    for (options, pfn) in [(&kinds()[0], Pfn(1200)), (&kinds()[1], Pfn(3))] {
        let host = SimHost::new();
        let domain = domain(&host);
        domain.inject(Fault::VanishBeforeMap { pfn });
        let saved = save(&host, &domain, options, &mut Toolstack::new(&domain));
        assert_eq!((saved.report().pages_deferred, saved.report().passes[0].pages_deferred), (1, 1));
        nothing_lost(&host, &domain, &saved);
        nothing_left(&domain, false);
        assert!(!domain.is_populated(pfn));
        let stream = saved.stream();
        let named: Vec<_> =
            stream.batches().flat_map(|item| &item.words).filter(|word| word.pfn == pfn.0).collect();
        assert!(!named.is_empty() && named.iter().all(|word| word.contents.is_none()));
        let first: Vec<_> = stream.batches().take(2).flat_map(|item| &item.words).collect();
        let in_first = first.iter().any(|word| word.pfn == pfn.0);
        assert_eq!(
            in_first,
            options.consult == ConsultMode::Round,
            "the batch mode's first round has no holes"
        );
    }
}

/// A page that cannot be mapped for a while, though it is there: owed, and sent in the end.
#[test]
fn a_page_that_cannot_be_mapped_in_the_live_phase_is_sent_in_the_final_pass() {
    for options in &kinds()[..2] {
        let host = SimHost::new();
        let domain = Shape::plain(100).build(&host, writes([]));
        domain.inject(Fault::PageMapErrno { pfn: Pfn(7), errno: ENOMEM });
        let owner = Arc::clone(&domain);
        let mut policy = Recorder::new(move |_, stats| {
            // The fault goes when the live phase is over; by then its page was owed.
            assert_eq!(stats.pages_deferred, u64::from(stats.pages_sent > 0));
            if stats.iteration == 1 {
                owner.clear_faults();
                return Decision::StopAndCopy;
            }
            Decision::Continue
        });
        let saved = save_to_file(&host, &domain, options, Some(&mut policy), &mut Toolstack::new(&domain));
        nothing_lost(&host, &domain, &saved);
        assert_eq!((saved.report().pages_deferred, saved.report().pages_sent), (1, 100));
    }
}

/// The guest does not run: a page that cannot be mapped now never can.
#[test]
fn a_page_that_cannot_be_mapped_in_the_final_pass_ends_the_save() {
    let at = Pfn(1234);
    let vanish = Fault::VanishBeforeMap { pfn: at };
    let broken = Fault::PageMapErrno { pfn: at, errno: EACCES };
    for (fault, errno) in [(vanish, EINVAL), (broken, EACCES)] {
        for resumes in [Resumes::Works, Resumes::Cannot] {
            let host = SimHost::new();
            let domain = domain(&host);
            domain.inject(fault);
            let mut toolstack = Toolstack { resumes, ..Toolstack::new(&domain) };
            let saved = save(&host, &domain, &kinds()[3], &mut toolstack);
            let SaveError::Map { domid, pfn, errno: found } = saved.failure().error else { panic!() };
            assert_eq!((domid, pfn, found), (domain.domid(), at, Errno(errno)));
            failed_cleanly(&domain, &saved);
            let works = resumes == Resumes::Works;
            assert_eq!(domain.state() == DomainState::Running, works);
            assert_eq!(
                saved.failure().guest,
                if works { GuestState::Resumed } else { GuestState::Suspended }
            );
        }
    }
}
