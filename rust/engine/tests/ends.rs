// SPDX-License-Identifier: GPL-3.0-or-later
//! A save ends before its time because something ends it: the policy, the progress callback, Ctrl-C, a panic.
//! The reason comes out unchanged; nothing is left behind; the guest that was not suspended never is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
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
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use support::{
    Mine,
    account::{failed_cleanly, nothing_left, nothing_lost},
    domains::{Shape, writes},
    policies::Recorder,
    save_to_file,
    toolstack::{Asked, Suspends, Toolstack},
};
use xenmig_engine::{
    CallerError, ConsultMode, Decision, GuestState, Phase, Policy, PrecopyStats, SaveError, SaveOptions,
    Verdict,
};
use xenmig_hypervisor::Sink;
use xenmig_sim::{Fault, Script, SimDomain, SimHost, Verb, When};
use xenmig_types::DomainState;

const BOTH: [ConsultMode; 2] = [ConsultMode::Round, ConsultMode::Batch];

fn options(consult: ConsultMode) -> SaveOptions {
    SaveOptions {
        consult,
        min_round: Duration::ZERO,
        progress_interval: Duration::ZERO,
        ..SaveOptions::default()
    }
}

/// A domain that is dirtied in front of every CLEAN.
fn domain(host: &SimHost) -> Arc<SimDomain> {
    let script = writes((0..8).map(|n| (When::BeforeClean(n), (0..1100).collect())));
    Shape { xen_mapped_pages: 1, ..Shape::plain(1300) }.build(host, script)
}

/// Goes on for two rounds.
fn two_rounds(stats: &PrecopyStats) -> Decision {
    if stats.iteration == 2 { Decision::StopAndCopy } else { Decision::Continue }
}

fn save_again(host: &SimHost, domain: &SimDomain) {
    domain.clear_faults();
    let mut policy = Recorder::new(|_, stats| two_rounds(stats));
    let mut toolstack = Toolstack::new(domain);
    let saved = save_to_file(host, domain, &options(ConsultMode::Batch), Some(&mut policy), &mut toolstack);
    nothing_lost(host, domain, &saved);
    nothing_left(domain, false);
}

/// Checks a save that ended before the guest was suspended.
fn never_suspended(domain: &SimDomain, toolstack: &Toolstack<'_>) {
    assert_eq!(toolstack.asked, [Asked::DeviceModel(true), Asked::DeviceModel(false)]);
    assert_eq!(domain.state(), DomainState::Running);
    assert_eq!(domain.counters().calls(Verb::Suspend), 0);
}

#[test]
fn abort_at_every_consult() {
    for consult in BOTH {
        let mut consults = 0;
        for last in 0.. {
            let host = SimHost::new();
            let domain = domain(&host);
            let mut policy = Recorder::new(
                |number, stats| {
                    if number == last { Decision::Abort } else { two_rounds(stats) }
                },
            );
            let mut toolstack = Toolstack::new(&domain);
            let saved = save_to_file(&host, &domain, &options(consult), Some(&mut policy), &mut toolstack);
            if saved.result.is_ok() {
                assert_eq!(consults, policy.consults.len());
                break;
            }
            consults += 1;
            assert_eq!(policy.consults.len(), last + 1, "there is no consult after an ABORT");
            let asked = &policy.consults[last].stats;
            let SaveError::PolicyAbort { stats, reason } = &saved.failure().error else { panic!() };
            assert_eq!(
                (stats.iteration, reason.as_deref()),
                (asked.iteration, Some(&*format!("consult {last}")))
            );
            assert_eq!(saved.failure().guest, GuestState::Running);
            assert_eq!(saved.written, asked.bytes_sent, "not a byte behind an ABORT");
            failed_cleanly(&domain, &saved);
            never_suspended(&domain, &toolstack);
            save_again(&host, &domain);
        }
        // Round: twice a round, and the round number 2 is stopped behind round 1.
        assert_eq!(consults, if consult == ConsultMode::Round { 4 } else { 8 });
    }
}

/// A policy that fails at some consult.
struct Failing(usize);

impl Policy for Failing {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        if self.0 == 0 {
            return Err(Mine("policy").into());
        }
        self.0 -= 1;
        Ok(two_rounds(stats).into())
    }
}

#[test]
fn an_error_of_the_policy_comes_out_as_it_is() {
    for consult in BOTH {
        for last in 0..4 {
            let host = SimHost::new();
            let domain = domain(&host);
            let mut toolstack = Toolstack::new(&domain);
            let saved =
                save_to_file(&host, &domain, &options(consult), Some(&mut Failing(last)), &mut toolstack);
            let SaveError::Policy(error) = &saved.failure().error else { panic!("{}", saved.failure()) };
            assert_eq!(error.downcast_ref(), Some(&Mine("policy")));
            assert_eq!(saved.failure().guest, GuestState::Running);
            failed_cleanly(&domain, &saved);
            never_suspended(&domain, &toolstack);
            save_again(&host, &domain);
        }
    }
}

#[test]
fn an_error_of_the_progress_callback_comes_out_as_it_is() {
    for consult in BOTH {
        let (mut before, mut behind) = (0, 0);
        for call in 0.. {
            let host = SimHost::new();
            let domain = domain(&host);
            let mut toolstack = Toolstack { progress_fails: Some(call), ..Toolstack::new(&domain) };
            let mut policy = Recorder::new(|_, stats| two_rounds(stats));
            let saved = save_to_file(&host, &domain, &options(consult), Some(&mut policy), &mut toolstack);
            if saved.result.is_ok() {
                assert_eq!(toolstack.progress.len(), call);
                break;
            }
            let SaveError::Observer(error) = &saved.failure().error else { panic!("{}", saved.failure()) };
            assert_eq!(error.downcast_ref(), Some(&Mine("progress")));
            failed_cleanly(&domain, &saved);
            if toolstack.was_asked_to_suspend() {
                behind += 1;
                assert_eq!(saved.failure().guest, GuestState::Resumed);
            } else {
                before += 1;
                assert_eq!(saved.failure().guest, GuestState::Running);
                never_suspended(&domain, &toolstack);
            }
            save_again(&host, &domain);
        }
        assert!(before >= 8 && behind >= 1, "{before} {behind}");
    }
}

/// In the live phase, in the final pass, and while there is nothing to do. The sink takes everything.
#[test]
fn an_interrupt_is_heard_within_a_tenth_of_a_second() {
    let base = options(ConsultMode::Batch);
    let idle = SaveOptions { min_round: Duration::from_secs(3), ..base.clone() };
    let busy = [base.clone(), options(ConsultMode::Round), SaveOptions { live: false, ..base }];
    for options in busy.iter().chain([&idle]) {
        let host = SimHost::new();
        let waits = options.min_round > Duration::ZERO;
        let domain = Shape::plain(if waits { 100 } else { 30 * 1024 }).build(&host, Script::new());
        if !waits {
            // A batch takes 20 ms, the whole domain more than half a second.
            domain.inject(Fault::MapCost { ns_per_page: 20_000 });
        }
        let time = Duration::from_millis(150);
        let mut toolstack = Toolstack { interrupts_after: Some(time), ..Toolstack::new(&domain) };
        // A save that does not listen comes to an end as well.
        let mut policy = Recorder::new(|_, stats| {
            if stats.elapsed > Duration::from_secs(2) { Decision::Abort } else { Decision::Continue }
        });
        let began = Instant::now();
        let saved = save_to_file(&host, &domain, options, Some(&mut policy), &mut toolstack);
        let SaveError::Interrupted(error) = &saved.failure().error else { panic!("{}", saved.failure()) };
        assert_eq!(error.downcast_ref(), Some(&Mine("interrupt")));
        // Reading the file back is in it.
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}, {options:?}", began.elapsed());
        let gaps = toolstack.interrupt_checks.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max() < Some(Duration::from_millis(250)), "asked too seldom");
        failed_cleanly(&domain, &saved);
        let want = if options.live { GuestState::Running } else { GuestState::Resumed };
        assert_eq!(saved.failure().guest, want);
    }
}

/// Progress is told at every consult's phase, never more often than asked for, and does not run backwards.
#[test]
fn progress_is_told() {
    for consult in BOTH {
        let host = SimHost::new();
        let domain = domain(&host);
        let mut toolstack = Toolstack::new(&domain);
        let mut policy = Recorder::new(|_, stats| two_rounds(stats));
        save_to_file(&host, &domain, &options(consult), Some(&mut policy), &mut toolstack).report();
        let phases: Vec<_> = toolstack.progress.iter().map(|stats| stats.phase).collect();
        for phase in [Phase::BeforeRound, Phase::Batch, Phase::AfterRound, Phase::StopAndCopy] {
            assert!(phases.contains(&phase), "{phases:?}");
        }
        assert!(
            toolstack.progress.is_sorted_by(|a, b| a.bytes_sent <= b.bytes_sent && a.elapsed <= b.elapsed)
        );

        domain.resume().unwrap();
        let seldom = SaveOptions { progress_interval: Duration::from_secs(60), ..options(consult) };
        let mut toolstack = Toolstack::new(&domain);
        let mut policy = Recorder::new(|_, stats| two_rounds(stats));
        save_to_file(&host, &domain, &seldom, Some(&mut policy), &mut toolstack).report();
        assert_eq!(toolstack.progress.len(), 1);
    }
}

/// A policy may do anything, even save another domain of the same host.
#[test]
fn a_policy_that_saves_another_domain() {
    let host = SimHost::new();
    let [one, other] = [domain(&host), domain(&host)];
    let mut policy = Recorder::new(|number, stats| {
        if number == 2 {
            save_again(&host, &other);
        }
        two_rounds(stats)
    });
    let options = options(ConsultMode::Batch);
    let saved = save_to_file(&host, &one, &options, Some(&mut policy), &mut Toolstack::new(&one));
    nothing_lost(&host, &one, &saved);
    nothing_left(&one, false);
}

/// A policy that panics.
struct Panicking;

impl Policy for Panicking {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        assert!(stats.iteration == 0, "a panic in the policy");
        Ok(Decision::Continue.into())
    }
}

/// Saves with something that panics.
fn panicking(host: &SimHost, domain: &SimDomain, toolstack: &mut Toolstack<'_>, policy: &mut dyn Policy) {
    let file = tempfile::tempfile().unwrap();
    let mut sink = Sink::new(file.as_raw_fd()).unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| {
        xenmig_engine::save(
            host,
            domain.domid(),
            &mut sink,
            &options(ConsultMode::Batch),
            Some(policy),
            toolstack,
        )
    }));
    assert!(result.is_err(), "no panic");
}

#[test]
fn a_panic_leaves_nothing_behind() {
    for suspends in [Suspends::Works, Suspends::Panics] {
        let host = SimHost::new();
        let domain = domain(&host);
        let mut toolstack = Toolstack { suspends, ..Toolstack::new(&domain) };
        let mut stopping = Recorder::new(|_, stats| two_rounds(stats));
        let policy: &mut dyn Policy =
            if suspends == Suspends::Works { &mut Panicking } else { &mut stopping };
        panicking(&host, &domain, &mut toolstack, policy);
        nothing_left(&domain, false);
        assert_eq!(domain.state(), DomainState::Running);
        save_again(&host, &domain);
    }
}

#[test]
fn a_panic_leaves_the_log_dirty_mode_of_the_device_model_off() {
    let host = SimHost::new();
    let domain = domain(&host);
    let mut toolstack = Toolstack::new(&domain);
    panicking(&host, &domain, &mut toolstack, &mut Panicking);
    assert_eq!(toolstack.asked, [Asked::DeviceModel(true), Asked::DeviceModel(false)]);
}
