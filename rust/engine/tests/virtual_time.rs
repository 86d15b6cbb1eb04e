// SPDX-License-Identifier: GPL-3.0-or-later
//! Whole saves on a clock that stands still but for what each verb costs: the same every time, to the last event.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of the tests stand outside of #[test] functions; their numbers are small"
)]

mod support;

use std::time::Duration;

use proptest::{collection::vec, prelude::*, test_runner::Config};
use support::{
    account::{nothing_left, nothing_lost},
    domains::{Shape, writes},
    policies::Recorder,
    save_to_file,
    tap::Tap,
    toolstack::{Suspends, Toolstack},
};
use xenmig_engine::{ConsultMode, Decision, Phase, PrecopyStats, SaveError, SaveOptions};
use xenmig_sim::{SimHost, When};
use xenmig_types::{DomainInfo, DomainState};

const COST: Duration = Duration::from_micros(700);

/// Saves a domain that writes `dirty` pages before each CLEAN, under a policy that goes by rates and times, and returns all
/// that an observer sees.
fn events(dirty: &[u64], mode: ConsultMode, cost: Duration) -> Vec<String> {
    let host = SimHost::new();
    let steps = dirty.iter().zip(0..).map(|(pages, n)| (When::BeforeClean(n), (0..*pages).collect()));
    let domain = Shape::plain(4000).build(&host, writes(steps));
    let tap = Tap::new(&host).on_manual_clock(cost);
    let options = SaveOptions { consult: mode, progress_interval: 10 * cost, ..SaveOptions::default() };
    let mut toolstack = Toolstack::new(&domain);
    let mut policy = Recorder::new(|_, stats: &PrecopyStats| {
        let enough = stats.expected_copy_s().is_some_and(|seconds| seconds < 0.001)
            || stats.elapsed > Duration::from_millis(80);
        if enough { Decision::StopAndCopy } else { Decision::Continue }
    });
    let saved = save_to_file(&tap, &domain, &options, Some(&mut policy), &mut toolstack);
    nothing_lost(&host, &domain, &saved);
    nothing_left(&domain, false);
    let mut seen = toolstack.events;
    seen.push(format!("{:?}", saved.report()));
    seen
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn two_runs_have_the_same_events_byte_for_byte(dirty in vec(0_u64..3000, 0..8), batch in any::<bool>()) {
        let mode = if batch { ConsultMode::Batch } else { ConsultMode::Round };
        let first = events(&dirty, mode, COST);
        prop_assert!(first.iter().any(|event| event.starts_with("Consult")));
        prop_assert!(first.iter().any(|event| event.starts_with("Progress")));
        prop_assert!(first.iter().any(|event| event.contains("Complete")));
        prop_assert_eq!(first, events(&dirty, mode, COST));
    }
}

/// Time is the clock's and nothing else's. Where no verb costs anything, what is left are the waits of two rounds in which
/// nothing was dirty.
#[test]
fn every_duration_comes_from_the_clock() {
    let elapsed = |cost| {
        let events = events(&[100], ConsultMode::Round, cost);
        let last = events.iter().rev().find(|event| event.starts_with("Stage")).unwrap();
        last.split("elapsed: ").nth(1).unwrap().to_owned()
    };
    assert_ne!(elapsed(COST), elapsed(2 * COST));
    assert_eq!(elapsed(Duration::ZERO), format!("{:?} }}", 2 * SaveOptions::default().min_round));
}

/// A guest that ends is noticed within a second, and not when it fails to suspend itself.
#[test]
fn a_guest_that_ends_during_the_precopy_ends_the_save() {
    for (state, word) in [
        (DomainState::Shutdown { reason: 3 }, "crashed"),
        (DomainState::Shutdown { reason: 1 }, "rebooted"),
        (DomainState::Shutdown { reason: 0 }, "shut down"),
        (DomainState::Dying, "was destroyed"),
    ] {
        let host = SimHost::new();
        let domain = Shape::plain(2000).build(&host, writes([]));
        let story = move |call, info| if call == 0 { info } else { DomainInfo { state, ..info } };
        let tap = Tap::with_story(&host, Box::new(story)).on_manual_clock(COST);
        let mut toolstack = Toolstack { suspends: Suspends::Panics, ..Toolstack::new(&domain) };
        let mut policy = Recorder::new(|_, _: &PrecopyStats| Decision::Continue);
        let options = SaveOptions { consult: ConsultMode::Batch, ..SaveOptions::default() };
        let saved = save_to_file(&tap, &domain, &options, Some(&mut policy), &mut toolstack);
        let failure = saved.failure();
        assert!(matches!(failure.error, SaveError::Ended { state: seen, .. } if seen == state), "{failure}");
        assert!(failure.to_string().contains(word), "{failure}");
        let last = &policy.consults.last().unwrap().stats;
        assert!(last.elapsed < Duration::from_millis(1200), "{:?}", last.elapsed);
        assert!(!toolstack.was_asked_to_suspend());
        nothing_left(&domain, false);
    }
}

/// The final pass looks at no hole that was there before the guest was suspended, however long the p2m is.
#[test]
fn the_holes_of_a_long_p2m_are_looked_at_before_the_guest_is_suspended() {
    const TOP: u64 = 1 << 20;
    let host = SimHost::new();
    let shape = Shape { highest_pfn: Some(TOP), ..Shape::plain(3000) };
    let steps = [(When::BeforeTypes(3), vec![2900]), (When::AtSuspend, vec![5, 2999])];
    let domain = shape.build(&host, writes(steps));
    let mut toolstack = Toolstack::new(&domain);
    let options = SaveOptions { consult: ConsultMode::Batch, ..SaveOptions::default() };
    let mut policy = Recorder::new(|_, stats: &PrecopyStats| match stats.phase {
        Phase::Batch => Decision::StopAndCopy,
        _ => Decision::Continue,
    });
    let saved = save_to_file(&host, &domain, &options, Some(&mut policy), &mut toolstack);
    nothing_lost(&host, &domain, &saved);
    let first = &policy.consults[0].stats;
    assert_eq!((first.dirty_count, first.p2m_size), (Some(3001), TOP + 1));
    let last = saved.report().passes.last().unwrap();
    assert_eq!((last.phase, last.dirty_count), (Phase::StopAndCopy, 3001 - 1024 + 1));
}

/// Where Xen may not log that a hole became a page, the guest's memory has changed in size, and the holes are owed again.
#[test]
fn a_guest_that_balloons_has_its_holes_looked_at_again() {
    const TOP: u64 = 1 << 19;
    let host = SimHost::new();
    let domain = Shape { highest_pfn: Some(TOP), ..Shape::plain(3000) }.build(&host, writes([]));
    // It is said to have one page more at the end than at the start.
    let story =
        |call, info: DomainInfo| DomainInfo { total_pages: info.total_pages + u64::from(call > 0), ..info };
    let tap = Tap::with_story(&host, Box::new(story));
    let mut toolstack = Toolstack::new(&domain);
    let options = SaveOptions { consult: ConsultMode::Batch, ..SaveOptions::default() };
    let mut policy = Recorder::new(|_, stats: &PrecopyStats| match stats.phase {
        Phase::AfterRound => Decision::StopAndCopy,
        _ => Decision::Continue,
    });
    let saved = save_to_file(&tap, &domain, &options, Some(&mut policy), &mut toolstack);
    nothing_lost(&host, &domain, &saved);
    let last = saved.report().passes.last().unwrap();
    assert_eq!((last.phase, last.dirty_count), (Phase::StopAndCopy, TOP + 1 - 3001));
}
