// SPDX-License-Identifier: GPL-3.0-or-later
//! `ConsultMode::Round` is libxc's loop call for call: the same consults with the same numbers, the same PAGE_DATA
//! records in the same places, as a second writing of that loop gives them (`support/libxc.rs`).

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

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};
use support::{
    Saved,
    account::{failed_cleanly, nothing_lost, well_formed},
    cases,
    domains::{Burst, Deed, Shape, bursts, shapes},
    libxc::{Event, Model},
    policies::{Consult, Recorder, at_consult, libxc_rule},
    save_to_file,
    stream::Stream,
    tap::Tap,
    toolstack::{Asked, Toolstack},
};
use xenmig_engine::{Decision, GuestState, LibxcPolicy, Policy, SaveError, SaveOptions};
use xenmig_hypervisor::Hypervisor;
use xenmig_sim::{Action, Script, SimDomain, SimHost, When, Workload};
use xenmig_stream::Record;
use xenmig_types::Pfn;

/// A domain, its guest's deeds, and the model of both.
struct Setting {
    host: SimHost,
    domain: std::sync::Arc<SimDomain>,
    model: Model,
}

fn setting(shape: &Shape, steps: impl Fn(u64) -> Vec<(When, Action)>) -> Setting {
    let host = SimHost::new();
    let domain = shape.build(&host, Script::new());
    let p2m_size = host.nr_gpfns(domain.domid()).unwrap();
    let steps = steps(p2m_size);
    domain.set_workload(Workload::Scripted(steps.iter().copied().collect())).unwrap();
    let populated = (0..p2m_size).map(|pfn| domain.is_populated(Pfn(pfn))).collect();
    let xen_mapped = domain.xen_mapped().iter().map(|pfn| pfn.0).collect();
    let max_pages = host.domain_info(domain.domid()).unwrap().max_pages;
    Setting { model: Model::new(populated, max_pages, xen_mapped, steps), host, domain }
}

fn options(live: bool, verify: bool) -> SaveOptions {
    SaveOptions { live, verify, min_round: Duration::ZERO, ..SaveOptions::default() }
}

/// Puts what was observed of a save into one sequence: consults say how many bytes went before them, the
/// suspension how many batches.
fn observed(saved: &Saved, consults: &[Consult], toolstack: &Toolstack<'_>) -> Vec<Event> {
    let stream: Stream = saved.stream();
    let suspended_after = toolstack.asked.iter().find_map(|asked| match asked {
        Asked::Suspend { batches, .. } => Some(*batches as usize),
        _ => None,
    });
    let mut events = Vec::new();
    let mut consults = consults.iter().peekable();
    let mut batches = 0;
    let mut suspended = false;
    for item in &stream.items {
        let before = |consult: &&&Consult| consult.stats.bytes_sent <= item.at as u64;
        while let Some(consult) = consults.next_if(|consult| before(&consult)) {
            events.push(asked(consult));
        }
        // The guest is suspended behind the last consult, and in front of the first record that needs it.
        if !suspended && consults.peek().is_none() && suspended_after == Some(batches) && item.at > 0 {
            let due = matches!(item.record, Record::PageData(_) | Record::Verify | Record::TscInfo(_));
            if due {
                events.push(Event::Suspend);
                suspended = true;
            }
        }
        match &item.record {
            Record::PageData(_) => {
                batches += 1;
                events.push(Event::Batch(item.words.iter().map(|word| (word.pfn, word.kind)).collect()));
            }
            Record::Verify => events.push(Event::Verify),
            _ => {}
        }
    }
    events.extend(consults.map(asked));
    if saved.result.is_err() {
        events.push(Event::Aborted);
    }
    events
}

fn asked(consult: &Consult) -> Event {
    let stats = &consult.stats;
    Event::Consult {
        iteration: stats.iteration,
        total_written: stats.total_written,
        dirty_count: stats.dirty_count,
    }
}

/// Saves a domain and checks it against the model. Returns the events.
fn compare(
    setting: Setting,
    verify: bool,
    policy: impl Fn(usize, u32, Option<u64>) -> Decision + Copy,
) -> Vec<Event> {
    let Setting { host, domain, model } = setting;
    let mut recorder = Recorder::new(|number, stats| policy(number, stats.iteration, stats.dirty_count));
    let mut toolstack = Toolstack::new(&domain);
    let saved = save_to_file(&host, &domain, &options(true, verify), Some(&mut recorder), &mut toolstack);
    let want = model.save_live(verify, policy);
    let got = observed(&saved, &recorder.consults, &toolstack);
    assert_same(&got, &want);
    if saved.result.is_ok() {
        nothing_lost(&host, &domain, &saved);
        well_formed(&saved.stream(), verify);
    } else {
        failed_cleanly(&domain, &saved);
        assert!(matches!(saved.failure().error, SaveError::PolicyAbort { .. }));
        assert_eq!(saved.failure().guest, GuestState::Running);
        assert!(!toolstack.was_asked_to_suspend());
    }
    got
}

/// Compares without printing thousands of pfns when it fails.
fn assert_same(got: &[Event], want: &[Event]) {
    let short = |event: Option<&Event>| match event {
        Some(Event::Batch(words)) => {
            format!("{} pfns, from {:?} to {:?}", words.len(), words.first(), words.last())
        }
        other => format!("{other:?}"),
    };
    for at in 0..got.len().max(want.len()) {
        let (got, want) = (got.get(at), want.get(at));
        assert!(got == want, "event {at}: got {}, want {}", short(got), short(want));
    }
}

fn burst(when: When, first: f64, count: u64) -> Burst {
    Burst { when, deed: Deed::Write, first, count }
}

proptest! {
    #![proptest_config(cases(300))]

    /// Anything the guest may do, but for a page that goes away just before it is mapped: that ends C's save.
    #[test]
    fn any_dirtying(
        shape in shapes(),
        bursts in bursts(),
        end in option::of((0_usize..11, select(vec![Decision::StopAndCopy, Decision::Abort]))),
        verify in prop::bool::weighted(0.1),
    ) {
        let steps = |p2m_size| {
            let steps = bursts.iter().flat_map(|burst| burst.steps(p2m_size));
            steps.filter(|step| !matches!(step, (When::BeforeMap(_), Action::BalloonOut(_)))).collect()
        };
        compare(setting(&shape, steps), verify, |number, iteration, dirty| match end {
            Some((last, answer)) => if number == last { answer } else { Decision::Continue },
            None => libxc_rule(iteration, dirty),
        });
    }
}

proptest! {
    #![proptest_config(cases(80))]

    /// Dirty counts around the threshold, round after round: the built-in policy and a copy of its rule.
    #[test]
    fn counts_around_the_threshold(
        pages in 60_u64..1500,
        counts in vec(prop_oneof![select(vec![0_u64, 1, 49, 50, 51]), 0..1500_u64], 6),
        place in 0.0..1.0,
    ) {
        let bursts: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(n, count)| burst(When::BeforeClean(n as u64), place * (1.0 - (*count as f64 / pages as f64).min(1.0)), *count))
            .collect();
        let steps = |p2m_size| bursts.iter().flat_map(|burst| burst.steps(p2m_size)).collect::<Vec<_>>();
        let shape = Shape::plain(pages);
        let events = compare(setting(&shape, steps), false, |_, iteration, dirty| libxc_rule(iteration, dirty));

        // The same without a policy, and with the built-in rule given as a policy: the streams do not differ.
        for given in [false, true] {
            let Setting { host, domain, .. } = setting(&shape, steps);
            let mut toolstack = Toolstack::new(&domain);
            let mut rule = LibxcPolicy;
            let policy = given.then_some(&mut rule as &mut dyn Policy);
            let saved = save_to_file(&host, &domain, &options(true, false), policy, &mut toolstack);
            let consults = events.iter().filter(|event| matches!(event, Event::Consult { .. })).count();
            prop_assert_eq!(saved.report().consults, consults as u64);
            let without_consults = |events: &[Event]| -> Vec<Event> {
                events.iter().filter(|event| !matches!(event, Event::Consult { .. })).cloned().collect()
            };
            assert_same(&observed(&saved, &[], &toolstack), &without_consults(&events));
        }
    }

    #[test]
    fn a_save_that_is_not_live_asks_nobody(shape in shapes(), bursts in bursts()) {
        let steps = |p2m_size| bursts.iter().flat_map(|burst| burst.steps(p2m_size)).collect();
        let Setting { host, domain, model } = setting(&shape, steps);
        let mut recorder = Recorder::new(|_, _| Decision::Abort);
        let mut toolstack = Toolstack::new(&domain);
        let saved = save_to_file(&host, &domain, &options(false, false), Some(&mut recorder), &mut toolstack);
        prop_assert!(recorder.consults.is_empty());
        prop_assert_eq!(toolstack.asked.len(), 1, "the device model is left alone");
        prop_assert_eq!(saved.report().verdict.as_ref(), None);
        assert_same(&observed(&saved, &[], &toolstack), &model.save_nonlive());
        nothing_lost(&host, &domain, &saved);
    }
}

/// Six rounds in which the guest dirties nothing, everything, as many pages as the limit, or the last page.
fn rounds_of(pages: u64, each: &[(f64, u64)]) -> Vec<Burst> {
    (0..7)
        .flat_map(|n| {
            each.iter().map(move |(first, count)| burst(When::BeforeClean(n), *first, (*count).min(pages)))
        })
        .collect()
}

/// A STOP or an ABORT at every consult that there can be.
#[test]
fn every_answer_at_every_consult() {
    let shape =
        Shape { holes: vec![70..90], highest_pfn: Some(1200), xen_mapped_pages: 2, ..Shape::plain(1100) };
    let last_page = [(1200.0 / 1201.0 + 1e-9, 1)];
    let guests: [&[(f64, u64)]; 6] =
        [&[], &[(0.0, 49)], &[(0.0, 50)], &[(0.1, 51)], &[(0.0, 4000)], &last_page];
    for guest in guests {
        for last in 0..10 {
            for answer in [Decision::StopAndCopy, Decision::Abort] {
                let bursts = rounds_of(4000, guest);
                let steps =
                    |p2m_size| bursts.iter().flat_map(|burst| burst.steps(p2m_size)).collect::<Vec<_>>();
                let policy = move |number, _, _| if number == last { answer } else { Decision::Continue };
                let events = compare(setting(&shape, steps), false, policy);
                let consults = events.iter().filter(|event| matches!(event, Event::Consult { .. })).count();
                assert_eq!(consults, last + 1);
                assert_eq!(events.contains(&Event::Aborted), answer == Decision::Abort);
                assert_eq!(events.contains(&Event::Suspend), answer != Decision::Abort);
            }
        }
    }
}

/// What the header file promises and a reader of it expects, in numbers.
#[test]
fn the_numbers_of_a_guest_that_dirties_everything() {
    let bursts = [rounds_of(100, &[(0.0, 100)]), vec![burst(When::AtSuspend, 0.0, 100)]].concat();
    let steps = |p2m_size| bursts.iter().flat_map(|burst| burst.steps(p2m_size)).collect();
    let Setting { host, domain, .. } = setting(&Shape::plain(100), steps);
    let mut policy = Recorder::new(|_, stats| libxc_rule(stats.iteration, stats.dirty_count));
    // This host's own counts are of no use.
    let tap = Tap::new(&host);
    let mut toolstack = Toolstack::new(&domain);
    let saved = save_to_file(&tap, &domain, &options(true, false), Some(&mut policy), &mut toolstack);
    let asked: Vec<_> = policy
        .consults
        .iter()
        .map(|consult| (consult.stats.iteration, consult.stats.total_written, consult.stats.dirty_count))
        .collect();
    let mut want = Vec::new();
    for round in 0..5_u32 {
        want.push((round, u64::from(round) * 100, Some(100)));
        want.push((round + 1, u64::from(round + 1) * 100, None));
    }
    assert_eq!(asked, want);
    assert_eq!((saved.report().rounds, saved.report().pages_sent), (5, 600));
}

/// `skip_redirtied` belongs to the other mode: here it would change the stream.
#[test]
fn no_page_is_skipped_in_this_mode() {
    let host = SimHost::new();
    let writes = (0..20).map(|n| (When::BeforeTypes(n), Action::Write(Pfn(5))));
    let domain = Shape::plain(3000).build(&host, writes.collect());
    let mut policy = at_consult(3, Decision::StopAndCopy);
    let options = SaveOptions { skip_redirtied: true, skip_interval: Duration::ZERO, ..options(true, false) };
    let saved = save_to_file(&host, &domain, &options, Some(&mut policy), &mut Toolstack::new(&domain));
    match &saved.result {
        Ok(report) => {
            assert_eq!(report.pages_skipped, 0);
            assert_eq!(domain.counters().calls(xenmig_sim::Verb::Peek), 0);
        }
        Err(failure) => assert!(matches!(failure.error, SaveError::Refused { .. })),
    }
}
