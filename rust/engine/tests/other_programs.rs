// SPDX-License-Identifier: GPL-3.0-or-later
//! Other programs do something to the domain during a save: they save it as well, suspend it, resume it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::single_range_in_vec_init,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use std::{os::fd::AsRawFd, sync::Arc, time::Duration};

use support::{
    Mine, Saved,
    account::{failed_cleanly, nothing_lost},
    domains::{Shape, writes},
    save_to_file,
    tap::Tap,
    toolstack::{Asked, Suspends, Toolstack},
};
use xenmig_engine::{
    Caller, CallerError, Decision, GuestState, Interrupt, Phase, Policy, PrecopyStats, SaveError,
    SaveOptions, Verdict,
};
use xenmig_hypervisor::{ClaimError, Hypervisor, Sink};
use xenmig_sim::{SimDomain, SimHost, When};
use xenmig_types::{DomainInfo, DomainState};

fn domain(host: &SimHost) -> Arc<SimDomain> {
    Shape::plain(100).build(host, writes([(When::BeforeClean(0), (0..60).collect())]))
}

fn options(live: bool) -> SaveOptions {
    SaveOptions { live, min_round: Duration::ZERO, ..SaveOptions::default() }
}

fn save(host: &dyn Hypervisor, domain: &SimDomain, live: bool, toolstack: &mut Toolstack<'_>) -> Saved {
    save_to_file(host, domain, &options(live), None, toolstack)
}

/// Does something to the domain when the first round has been sent, and has the guest suspended then.
struct Meddler<F>(F);

impl<F: FnMut()> Policy for Meddler<F> {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        if stats.phase != Phase::AfterRound {
            return Ok(Decision::Continue.into());
        }
        (self.0)();
        Ok(Decision::StopAndCopy.into())
    }
}

/// A toolstack suspends the guest while a save sends its memory: the save fails, and leaves the guest to it.
#[test]
fn a_guest_that_someone_else_suspends_during_the_precopy_stays_suspended() {
    for suspends in [Suspends::Works, Suspends::Refuses] {
        let host = SimHost::new();
        let domain = domain(&host);
        let mut toolstack = Toolstack { suspends, ..Toolstack::new(&domain) };
        let mut policy = Meddler(|| domain.suspend().unwrap());
        let saved = save_to_file(&host, &domain, &options(true), Some(&mut policy), &mut toolstack);
        let failure = saved.failure();
        assert!(matches!(failure.error, SaveError::Suspend(_)), "{failure}");
        assert_eq!(failure.guest, GuestState::Suspended);
        assert!(domain.state().is_suspended(), "it was not suspended by this save");
        assert!(!toolstack.asked.contains(&Asked::Resume));
        failed_cleanly(&domain, &saved);
    }
}

/// A second save is refused before it touches anything, and the first one loses nothing by it.
#[test]
fn a_second_save_of_the_domain_is_refused() {
    let host = SimHost::new();
    let (domain, other) = (domain(&host), domain(&host));
    let tap = Tap::new(&host);
    let mut refused = 0;
    let mut policy = Meddler(|| {
        for live in [true, false] {
            let mut toolstack = Toolstack::new(&domain);
            let second = save(&tap, &domain, live, &mut toolstack);
            let SaveError::Claim(ClaimError::Held { holder: Some(holder), .. }) = &second.failure().error
            else {
                panic!("{}", second.failure())
            };
            assert_eq!(holder.pid, std::process::id());
            assert_eq!(second.failure().guest, GuestState::Running);
            assert_eq!((second.written, toolstack.asked.len()), (0, 0));
            refused += 1;
        }
        assert_eq!(tap.verbs(), ["info"; 2], "nothing but the guest's state was asked for");
        save(&host, &other, true, &mut Toolstack::new(&other)).report();
    });
    let mut toolstack = Toolstack::new(&domain);
    let first = save_to_file(&host, &domain, &options(true), Some(&mut policy), &mut toolstack);
    first.report();
    nothing_lost(&host, &domain, &first);
    assert_eq!(refused, 2);
    // The claim ends with the save, and that of a save which fails.
    let mut toolstack = Toolstack { suspends: Suspends::Refuses, ..Toolstack::new(&domain) };
    assert!(matches!(save(&host, &domain, true, &mut toolstack).failure().error, SaveError::Suspend(_)));
    let mut toolstack = Toolstack { suspends: Suspends::Pretends, ..Toolstack::new(&domain) };
    save(&host, &domain, true, &mut toolstack).report();
}

/// A program that takes no claims saves the domain as well: neither image is complete.
#[test]
fn a_save_that_bypasses_the_claim_ends_this_one() {
    let host = SimHost::new();
    let domain = domain(&host);
    let tap = Tap::bypassed(&host);
    for live in [true, false] {
        let mut toolstack = Toolstack::new(&domain);
        let saved = save(&tap, &domain, live, &mut toolstack);
        let failure = saved.failure();
        assert!(matches!(failure.error, SaveError::Claim(ClaimError::Bypassed { .. })), "{failure}");
        assert_eq!(failure.guest, GuestState::Running);
        assert!(!toolstack.was_asked_to_suspend());
        failed_cleanly(&domain, &saved);
    }
}

/// Another program resumes the guest in the final pass, or destroys it: what was sent is of several moments.
#[test]
fn a_guest_that_does_not_stay_suspended_fails_the_save() {
    for state in [DomainState::Running, DomainState::Paused, DomainState::Dying] {
        for live in [true, false] {
            // The answers: at the start, before and after the suspension, and at the end.
            let story = move |number, info| if number < 3 { info } else { DomainInfo { state, ..info } };
            let host = SimHost::new();
            let domain = domain(&host);
            let tap = Tap::with_story(&host, Box::new(story));
            let mut toolstack = Toolstack::new(&domain);
            let saved = save(&tap, &domain, live, &mut toolstack);
            let failure = saved.failure();
            assert!(matches!(failure.error, SaveError::Disturbed { state: found, .. } if found == state));
            assert_eq!(failure.guest == GuestState::Running, state != DomainState::Dying);
            assert!(!toolstack.asked.contains(&Asked::Resume), "another program has done it");
        }
    }
}

/// A save keeps its claim until the guest that it suspended is running again.
#[test]
fn no_other_save_begins_before_the_guest_is_resumed() {
    struct Resumer<'a>(&'a SimHost, &'a SimDomain);
    impl Caller for Resumer<'_> {
        fn suspend(&mut self) -> Result<(), CallerError> {
            self.1.suspend()?;
            Err(Mine("suspend").into())
        }

        fn resume(&mut self) -> Result<bool, CallerError> {
            let second = save(self.0, self.1, false, &mut Toolstack::new(self.1));
            assert!(matches!(second.failure().error, SaveError::Claim(_)), "{}", second.failure());
            self.1.resume()?;
            Ok(true)
        }
    }
    impl Interrupt for Resumer<'_> {}
    let host = SimHost::new();
    let domain = domain(&host);
    let file = tempfile::tempfile().unwrap();
    let mut sink = Sink::new(file.as_raw_fd()).unwrap();
    let mut resumer = Resumer(&host, &domain);
    let failure = xenmig_engine::save(&host, domain.domid(), &mut sink, &options(true), None, &mut resumer)
        .unwrap_err();
    assert_eq!(failure.guest, GuestState::Resumed);
}
