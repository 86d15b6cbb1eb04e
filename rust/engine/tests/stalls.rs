// SPDX-License-Identifier: GPL-3.0-or-later
//! The other end takes nothing: while the guest runs the policy is asked, and while it is suspended a limit counts.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of the tests stand outside of #[test] functions; their numbers are small"
)]

mod support;

use std::{
    io::Read,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use support::{
    account::{nothing_left, nothing_lost},
    domains::{Shape, writes},
    policies::Recorder,
    toolstack::{Asked, Toolstack},
};
use xenmig_engine::{
    ConsultMode, Decision, GuestState, Phase, PrecopyStats, SaveError, SaveFailure, SaveOptions, SaveReport,
};
use xenmig_hypervisor::Sink;
use xenmig_sim::{SimDomain, SimHost, When};
use xenmig_types::DomainState;

use crate::support::Saved;

fn options(consult: ConsultMode) -> SaveOptions {
    SaveOptions { consult, progress_interval: Duration::ZERO, ..SaveOptions::default() }
}

/// A domain whose first round is longer than any buffer of the kernel's.
fn domain(host: &SimHost) -> Arc<SimDomain> {
    Shape::plain(4096).build(host, writes([(When::AtSuspend, (0..2000).collect())]))
}

fn save_to(
    to: &UnixStream,
    host: &SimHost,
    options: &SaveOptions,
    answer: impl FnMut(usize, &PrecopyStats) -> Decision,
    toolstack: &mut Toolstack<'_>,
) -> (Result<SaveReport, SaveFailure>, Vec<support::policies::Consult>) {
    let mut sink = Sink::new(to.as_raw_fd()).unwrap();
    let mut policy = Recorder::new(answer);
    let domid = toolstack.domain.domid();
    let result = xenmig_engine::save(host, domid, &mut sink, options, Some(&mut policy), toolstack);
    (result, policy.consults)
}

fn phase_is(wanted: Phase) -> impl Fn(&PrecopyStats) -> bool {
    move |stats| stats.phase == wanted
}

#[test]
fn a_policy_can_abort_a_save_whose_other_end_has_stalled() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut toolstack = Toolstack::new(&domain);
    let abort = |_, stats: &PrecopyStats| match stats.phase {
        Phase::Waiting => Decision::Abort,
        _ => Decision::Continue,
    };
    let (result, consults) = save_to(&ours, &host, &options(ConsultMode::Batch), abort, &mut toolstack);
    let failure = result.unwrap_err();
    let SaveError::PolicyAbort { stats, .. } = &failure.error else { panic!("{failure}") };
    assert_eq!((stats.phase, failure.guest), (Phase::Waiting, GuestState::Running));
    assert!(stats.elapsed >= Duration::from_millis(100), "asked before anything was waited for");
    assert_eq!(consults.iter().filter(|consult| consult.stats.phase == Phase::Waiting).count(), 1);
    assert!(toolstack.progress.iter().any(phase_is(Phase::Waiting)));
    assert!(!toolstack.was_asked_to_suspend());
    nothing_left(&domain, false);
}

/// A record cannot be left in its middle: the STOP counts once the other end has taken it, and nothing is lost.
#[test]
fn a_stop_while_a_batch_waits_counts_once_it_is_through() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (go, gone) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        gone.recv().unwrap();
        theirs.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut toolstack = Toolstack::new(&domain);
    let stop = |_, stats: &PrecopyStats| match stats.phase {
        Phase::Waiting => {
            go.send(()).unwrap();
            Decision::StopAndCopy
        }
        _ => Decision::Continue,
    };
    let (result, consults) = save_to(&ours, &host, &options(ConsultMode::Batch), stop, &mut toolstack);
    drop(ours);
    let bytes = reader.join().unwrap();
    let report = result.as_ref().unwrap();
    assert_eq!(consults.last().unwrap().stats.phase, Phase::Waiting, "asked again after the STOP");
    assert_eq!((report.rounds, report.consults), (1, consults.len() as u64));
    assert!(report.passes[0].pages_claimed < 4096, "the round went on after the STOP");
    assert_eq!(report.pages_deferred, 4096 - report.passes[0].pages_claimed);
    let written = bytes.len() as u64;
    let saved = Saved { result, bytes, written, file: tempfile::tempfile().unwrap() };
    nothing_lost(&host, &domain, &saved);
    nothing_left(&domain, false);
}

/// libxc's loop asks twice a round and no more; the caller hears of the wait all the same.
#[test]
fn in_rounds_nobody_is_consulted_while_waiting_but_progress_is_told() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut toolstack =
        Toolstack { interrupts_after: Some(Duration::from_millis(350)), ..Toolstack::new(&domain) };
    let go_on = |_, _: &PrecopyStats| Decision::Continue;
    let (result, consults) = save_to(&ours, &host, &options(ConsultMode::Round), go_on, &mut toolstack);
    assert!(matches!(result.unwrap_err().error, SaveError::Interrupted(_)));
    let asked: Vec<_> = consults.iter().map(|consult| consult.stats.phase).collect();
    assert_eq!(asked, [Phase::BeforeRound]);
    assert!(toolstack.progress.iter().any(phase_is(Phase::Waiting)));
    nothing_left(&domain, false);
}

#[test]
fn a_peer_that_stalls_while_the_guest_is_suspended_ends_the_save_and_the_guest_goes_on() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (done, running) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let guest = &domain;
        scope.spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while guest.state() == DomainState::Running && theirs.read(&mut buffer).is_ok_and(|n| n > 0) {}
            // Keeps its end open, and takes nothing.
            running.recv().unwrap_err();
        });
        let limit = Some(Duration::from_millis(300));
        let options = SaveOptions { stall_timeout: limit, ..options(ConsultMode::Batch) };
        let mut toolstack = Toolstack::new(&domain);
        let answer = |_, stats: &PrecopyStats| match stats.phase {
            Phase::Waiting => Decision::Continue,
            _ if stats.pages_remaining == 0 => Decision::StopAndCopy,
            _ => Decision::Continue,
        };
        let (result, consults) = save_to(&ours, &host, &options, answer, &mut toolstack);
        drop(done);
        let failure = result.unwrap_err();
        let SaveError::Stalled { waited } = failure.error else { panic!("{failure}") };
        assert!(waited >= Duration::from_millis(300), "{waited:?}");
        assert_eq!((failure.guest, domain.state()), (GuestState::Resumed, DomainState::Running));
        assert_eq!(toolstack.asked.last(), Some(&Asked::Resume));
        assert!(consults.iter().all(|consult| consult.stats.phase != Phase::StopAndCopy));
        assert!(toolstack.progress.iter().any(phase_is(Phase::StopAndCopy)));
        nothing_left(&domain, false);
    });
}

/// What a caller has set on its socket counts at any time.
#[test]
fn a_timeout_of_the_socket_counts_while_the_guest_runs() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer_timeout = Some(Duration::from_millis(250));
    let options = SaveOptions { peer_timeout, ..options(ConsultMode::Batch) };
    let mut toolstack = Toolstack::new(&domain);
    let go_on = |_, _: &PrecopyStats| Decision::Continue;
    let (result, _) = save_to(&ours, &host, &options, go_on, &mut toolstack);
    let failure = result.unwrap_err();
    assert!(matches!(failure.error, SaveError::Stalled { .. }), "{failure}");
    assert_eq!(failure.guest, GuestState::Running);
    nothing_left(&domain, false);
}

/// A policy that takes long must not starve a peer that reads, if slowly: it is asked for a tenth of the time at most.
#[test]
#[expect(clippy::disallowed_methods, reason = "a peer and a policy that take their time are the test")]
fn a_slow_policy_does_not_hold_up_a_slow_peer() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while theirs.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut toolstack = Toolstack::new(&domain);
    let slow = |_, stats: &PrecopyStats| {
        if stats.phase == Phase::Waiting {
            thread::sleep(Duration::from_millis(150));
        }
        if stats.iteration > 0 { Decision::StopAndCopy } else { Decision::Continue }
    };
    let (result, consults) = save_to(&ours, &host, &options(ConsultMode::Batch), slow, &mut toolstack);
    drop(ours);
    reader.join().unwrap();
    let report = result.unwrap();
    let waiting = consults.iter().filter(|consult| consult.stats.phase == Phase::Waiting).count();
    let asked = Duration::from_millis(150) * u32::try_from(waiting).unwrap();
    // Of the time that the writes took, and one consult more: the first is asked before its length is known.
    assert!(asked <= report.elapsed / 4 + Duration::from_millis(300), "{waiting} in {:?}", report.elapsed);
}
