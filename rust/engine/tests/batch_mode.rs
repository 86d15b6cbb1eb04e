// SPDX-License-Identifier: GPL-3.0-or-later
//! The contract of `ConsultMode::Batch`: when the policy is asked and with what, where its answer takes effect, what
//! the first round leaves out, and how the hypervisor is spared.

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
    collections::BTreeSet,
    time::{Duration, Instant},
};

use support::{
    Saved,
    account::{nothing_lost, report_adds_up},
    domains::{Shape, writes},
    policies::{Consult, Recorder, at_consult},
    save_to_file,
    stream::Item,
    tap::Tap,
    toolstack::{Asked, Toolstack},
};
use xenmig_engine::{ConsultMode, Decision, Phase, Policy, SaveOptions};
use xenmig_sim::{Action, Fault, Script, SimDomain, SimHost, Verb, When};
use xenmig_types::{PageType, Pfn};

fn options() -> SaveOptions {
    SaveOptions { consult: ConsultMode::Batch, min_round: Duration::ZERO, ..SaveOptions::default() }
}

/// Saves, checks that nothing is lost and that the report adds up, and returns the save and where it was suspended.
fn save<F: FnMut(usize, &xenmig_engine::PrecopyStats) -> Decision>(
    host: &SimHost,
    domain: &SimDomain,
    options: &SaveOptions,
    policy: &mut Recorder<F>,
) -> (Saved, usize) {
    let mut toolstack = Toolstack::new(domain);
    let saved = save_to_file(host, domain, options, Some(policy as &mut dyn Policy), &mut toolstack);
    nothing_lost(host, domain, &saved);
    report_adds_up(domain, &saved, options, policy.consults.len());
    let [Asked::DeviceModel(true), Asked::Suspend { batches, .. }, Asked::DeviceModel(false)] =
        toolstack.asked[..]
    else {
        panic!("{:?}", toolstack.asked)
    };
    (saved, batches as usize)
}

fn pfns(items: &[&Item]) -> BTreeSet<u64> {
    items.iter().flat_map(|item| &item.words).map(|word| word.pfn).collect()
}

/// Three batches of all pages, then two of what was dirtied.
fn two_rounds(host: &SimHost) -> std::sync::Arc<SimDomain> {
    let script =
        writes([(When::BeforeClean(0), (0..1500).collect()), (When::BeforeClean(1), (0..10).collect())]);
    Shape::plain(2500).build(host, script)
}

#[test]
fn the_policy_is_asked_in_front_of_a_round_after_each_batch_and_behind_the_round() {
    let host = SimHost::new();
    let domain = two_rounds(&host);
    let mut policy = at_consult(9, Decision::StopAndCopy);
    save(&host, &domain, &options(), &mut policy);
    let asked: Vec<_> = policy
        .consults
        .iter()
        .map(|Consult { stats, .. }| {
            (
                stats.phase.name(),
                stats.iteration,
                stats.total_written,
                stats.dirty_count,
                stats.pages_remaining,
            )
        })
        .collect();
    assert_eq!(
        asked,
        [
            ("before_round", 0, 0, Some(2500), 2500),
            ("batch", 0, 0, None, 1476),
            ("batch", 0, 0, None, 452),
            ("batch", 0, 0, None, 0),
            ("after_round", 1, 2500, None, 0),
            ("before_round", 1, 2500, Some(1500), 1500),
            ("batch", 1, 2500, None, 476),
            ("batch", 1, 2500, None, 0),
            ("after_round", 2, 4000, None, 0),
            ("before_round", 2, 4000, Some(10), 10),
        ]
    );
    for pair in policy.consults.windows(2) {
        let [before, after] = [&pair[0].stats, &pair[1].stats];
        assert!(before.bytes_sent <= after.bytes_sent && before.elapsed <= after.elapsed);
        let sent = after.pages_sent - before.pages_sent;
        assert_eq!(sent, if after.phase == Phase::Batch { before.pages_remaining.min(1024) } else { 0 });
        assert_eq!(after.send_rate.is_some(), after.pages_sent > 0);
        assert_eq!((after.p2m_size, after.pages_skipped, after.pages_deferred), (2500, 0, 0));
    }
}

/// At each consult: nothing goes out live after a STOP, and what was not sent, and nothing else, is in the final pass.
#[test]
fn a_stop_takes_effect_at_once_and_what_is_unsent_is_owed() {
    for last in 0..10 {
        let host = SimHost::new();
        let domain = two_rounds(&host);
        let mut policy = at_consult(last, Decision::StopAndCopy);
        let (saved, suspended_after) = save(&host, &domain, &options(), &mut policy);
        let asked = policy.consults.iter().filter(|consult| consult.stats.phase == Phase::Batch).count();
        assert_eq!(suspended_after, asked, "a batch was sent behind the STOP at consult {last}");
        let stream = saved.stream();
        let batches: Vec<_> = stream.batches().collect();
        let stop = &policy.consults[last].stats;
        assert!(batches.iter().take(asked).all(|item| (item.at as u64) < stop.bytes_sent));
        assert!(batches.iter().skip(asked).all(|item| item.at as u64 >= stop.bytes_sent));
        // What a round claims leaves the log; scripted writes come only in front of a CLEAN.
        let want: BTreeSet<u64> = match last {
            0 => (0..2500).collect(),
            1 => (1024..2500).collect(),
            2 => (2048..2500).collect(),
            5 => (0..1500).collect(),
            6 => (1024..1500).collect(),
            9 => (0..10).collect(),
            _ => BTreeSet::new(),
        };
        assert_eq!(pfns(&batches[asked..]), want, "stopped at consult {last}");
        assert_eq!(saved.report().pages_deferred, want.len() as u64);
        let reason = saved.report().verdict.as_ref().unwrap().reason.clone();
        assert_eq!(reason, Some(format!("consult {last}")));
    }
}

/// Pages that were dirtied again are merged with those that are owed; the guest's last deeds are there as well.
#[test]
fn the_final_pass_is_what_is_owed_and_what_is_dirty() {
    let host = SimHost::new();
    let script = writes([(When::BeforeTypes(1), vec![3, 2400]), (When::AtSuspend, vec![7])]);
    let shape = Shape { xen_mapped_pages: 2, ..Shape::plain(2500) };
    let domain = shape.build(&host, script);
    let mut policy = at_consult(2, Decision::StopAndCopy);
    let (saved, _) = save(&host, &domain, &options(), &mut policy);
    let stream = saved.stream();
    let last: Vec<_> = stream.batches().skip(2).collect();
    assert_eq!(pfns(&last), [3, 7].into_iter().chain(2048..2500).collect());
    assert_eq!(saved.report().passes.last().unwrap().dirty_count, 454);
}

#[test]
fn the_first_round_has_no_holes_and_whole_superpages() {
    let host = SimHost::new();
    let shape = Shape {
        holes: vec![10..11, 1000..1030, 3000..3500, 4096..5120],
        highest_pfn: Some(7777),
        ..Shape::plain(6000)
    };
    let script = Script::new()
        .with(When::BeforeClean(0), Action::BalloonOut(Pfn(1)))
        .with(When::BeforeClean(0), Action::BalloonIn(Pfn(10)))
        .with(When::BeforeClean(0), Action::Write(Pfn(7777)));
    let domain = shape.build(&host, script);
    let mut policy =
        Recorder::new(
            |_, stats| {
                if stats.iteration == 2 { Decision::StopAndCopy } else { Decision::Continue }
            },
        );
    let (saved, _) = save(&host, &domain, &options(), &mut policy);
    let stream = saved.stream();
    let split = stream.items.iter().position(|item| {
        item.at as u64
            >= policy.consults.iter().find(|consult| consult.stats.iteration == 1).unwrap().stats.bytes_sent
    });
    let (first, rest) = stream.items.split_at(split.unwrap());
    let chunks: Vec<_> = first.iter().filter(|item| !item.words.is_empty()).collect();
    assert_eq!(chunks.iter().map(|item| item.words[0].pfn / 1024).collect::<Vec<_>>(), [0, 1, 2, 3, 5, 7]);
    for item in &chunks {
        assert!(item.words.iter().all(|word| word.pfn / 1024 == item.words[0].pfn / 1024));
        assert!(item.words.iter().all(|word| word.kind == PageType::Notab));
    }
    // A batch that is nothing but holes is no batch to be asked about.
    let batch_of_first =
        |consult: &&Consult| consult.stats.phase == Phase::Batch && consult.stats.iteration == 0;
    assert_eq!(policy.consults.iter().filter(batch_of_first).count(), chunks.len());
    assert_eq!(saved.report().passes[0].pages_sent, 6001 - 1 - 30 - 500 - 1024);
    assert_eq!(saved.report().passes[0].pages_claimed, 7778);
    let words: Vec<_> = rest.iter().flat_map(|item| &item.words).map(|word| (word.pfn, word.kind)).collect();
    assert_eq!(words, [(1, PageType::Xtab), (10, PageType::Notab), (7777, PageType::Notab)]);
}

/// What a first round never reached, the receiver never heard of: its holes need not be named. Those below do.
#[test]
fn the_holes_of_a_first_round_that_was_stopped() {
    let host = SimHost::new();
    let out = [5, 2000].map(|pfn| (When::AtSuspend, Action::BalloonOut(Pfn(pfn))));
    let domain = Shape::with_holes(3000, &[2500..2600]).build(&host, out.into_iter().collect());
    let mut policy = at_consult(1, Decision::StopAndCopy);
    let (saved, _) = save(&host, &domain, &options(), &mut policy);
    let stream = saved.stream();
    let words = stream.batches().flat_map(|item| &item.words);
    let holes: Vec<_> = words.filter(|word| word.kind == PageType::Xtab).map(|word| word.pfn).collect();
    assert_eq!(holes, [5]);
}

/// A policy that goes on with nothing dirty: the hypervisor must not be kept busy with CLEANs.
#[test]
fn nothing_dirty_waits_for_the_least_time_of_a_round() {
    for consult in [ConsultMode::Batch, ConsultMode::Round] {
        let host = SimHost::new();
        let domain = Shape::plain(100).build(&host, Script::new());
        let options = SaveOptions { consult, min_round: Duration::from_millis(20), ..options() };
        let mut policy = Recorder::new(|_, stats| {
            if stats.elapsed > Duration::from_millis(210) {
                Decision::StopAndCopy
            } else {
                Decision::Continue
            }
        });
        save(&host, &domain, &options, &mut policy);
        let cleans = domain.counters().calls(Verb::Clean);
        // The first follows the first round at once; one is the final one.
        assert!((3..=13).contains(&cleans), "{cleans} CLEANs in 210 ms, {consult:?}");
    }
}

/// A page that is hot enough to be skipped every time is nothing to send either.
#[test]
fn rounds_of_skipped_pages_wait_as_well() {
    let host = SimHost::new();
    let script = writes((0..10_000).map(|n| (When::BeforePeek(n), vec![5])));
    let domain = Shape::plain(100).build(&host, script);
    let options = SaveOptions {
        skip_redirtied: true,
        skip_interval: Duration::ZERO,
        min_round: Duration::from_millis(20),
        ..options()
    };
    let mut policy = Recorder::new(|_, stats| {
        if stats.elapsed > Duration::from_millis(210) { Decision::StopAndCopy } else { Decision::Continue }
    });
    let (saved, _) = save(&host, &domain, &options, &mut policy);
    assert!(saved.report().pages_skipped > 0);
    let cleans = domain.counters().calls(Verb::Clean);
    assert!(cleans <= 13, "{cleans} CLEANs in 210 ms with nothing sent between them");
}

/// A page that is dirty again when its turn comes is left out, counted, and sent later.
#[test]
fn pages_that_are_dirty_again_are_skipped_and_not_lost() {
    let host = SimHost::new();
    // Behind the first batch: 1500 is still to come in this round, 10 was sent, 2200 comes after the next PEEK.
    let script = writes([(When::BeforeTypes(0), vec![10, 1500]), (When::BeforeTypes(1), vec![2200])]);
    let domain = Shape::plain(2500).build(&host, script);
    let options = SaveOptions { skip_redirtied: true, skip_interval: Duration::ZERO, ..options() };
    let mut policy =
        Recorder::new(
            |_, stats| {
                if stats.iteration == 2 { Decision::StopAndCopy } else { Decision::Continue }
            },
        );
    let (saved, _) = save(&host, &domain, &options, &mut policy);
    let report = saved.report();
    assert_eq!((report.pages_skipped, report.passes[0].pages_skipped), (2, 2));
    assert_eq!((report.passes[0].pages_claimed, report.passes[0].pages_sent), (2500, 2498));
    assert_eq!((report.passes[1].dirty_count, report.passes[1].pages_sent), (3, 3));
    let skipped: Vec<_> = policy.consults.iter().map(|consult| consult.stats.pages_skipped).collect();
    assert_eq!(skipped[..5], [0, 0, 1, 2, 2]);
    // One PEEK for each batch, of two rounds; the final pass has none.
    assert_eq!(domain.counters().calls(Verb::Peek), 4);
}

/// With an interval, a PEEK serves several batches; a CLEAN makes it worthless.
#[test]
fn peeks_are_paced() {
    let host = SimHost::new();
    let domain = Shape::plain(12 * 1024).build(&host, writes([(When::BeforeClean(0), vec![1, 2])]));
    domain.inject(Fault::MapCost { ns_per_page: 20_000 });
    let policy = || {
        Recorder::new(
            |_, stats| {
                if stats.iteration == 2 { Decision::StopAndCopy } else { Decision::Continue }
            },
        )
    };

    // Twelve batches of at least 20 ms: a PEEK for the count every 50 ms.
    let tap = Tap::new(&host);
    let mut toolstack = Toolstack::new(&domain);
    let mut counting = policy();
    let began = Instant::now();
    save_to_file(&tap, &domain, &options(), Some(&mut counting), &mut toolstack).report();
    let most = began.elapsed().as_millis() as usize / 50;
    let peeks = tap.verbs().into_iter().filter(|verb| *verb == "peek count").count();
    assert!((2..=most).contains(&peeks), "{peeks} PEEKs in {:?}", began.elapsed());
    assert!(!tap.verbs().contains(&"peek"));
    assert!(counting.consults.iter().any(|consult| consult.stats.pages_redirtied.is_some()));
    domain.resume().unwrap();

    // A PEEK of the bitmap every 60 ms, and one more for the second round.
    let tap = Tap::new(&host);
    let options = SaveOptions { skip_redirtied: true, skip_interval: Duration::from_millis(60), ..options() };
    let began = Instant::now();
    save_to_file(&tap, &domain, &options, Some(&mut policy()), &mut toolstack).report();
    let most = began.elapsed().as_millis() as usize / 60 + 2;
    let peeks = tap.verbs().into_iter().filter(|verb| *verb == "peek").count();
    assert!((4..=most).contains(&peeks), "{peeks} PEEKs of the bitmap in {:?}", began.elapsed());
}

/// The count of pages that are dirty again is the guest's, and belongs to its round.
#[test]
fn a_peek_tells_the_policy_how_much_is_dirty_again() {
    let host = SimHost::new();
    let script =
        writes([(When::BeforeTypes(3), (0..37).collect()), (When::BeforeTypes(6), (0..50).collect())]);
    let domain = Shape::plain(8 * 1024).build(&host, script);
    domain.inject(Fault::MapCost { ns_per_page: 50_000 });
    let mut policy = at_consult(10, Decision::StopAndCopy);
    save(&host, &domain, &options(), &mut policy);
    let counts: Vec<_> = policy.consults.iter().map(|consult| consult.stats.pages_redirtied).collect();
    assert!(counts.contains(&Some(37)) && counts.contains(&Some(50)), "{counts:?}");
    assert_eq!(policy.consults[10].stats.phase, Phase::BeforeRound);
    assert_eq!((counts[10], policy.consults[10].stats.dirty_count), (None, Some(50)));
    let rate = policy.consults[10].stats.dirty_rate.unwrap();
    assert!(rate > 0.0 && rate < 50.0 / 0.4, "50 pages in more than 0.4 s are not {rate} a second");
}
