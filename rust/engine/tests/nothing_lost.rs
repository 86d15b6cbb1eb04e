// SPDX-License-Identifier: GPL-3.0-or-later
//! Whatever the domain looks like, whatever its guest does and whenever, whatever the policy says: what a receiver
//! has at the end is the suspended domain, and the report says how it came there.

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

use std::{
    io::{Seek, SeekFrom},
    os::fd::AsRawFd,
    time::Duration,
};

use proptest::{collection::vec, prelude::*, sample::select};
use support::{
    Saved,
    account::{failed_cleanly, nothing_left, nothing_lost, report_adds_up, well_formed},
    cases,
    domains::{Burst, Shape, bursts, faults, placed, play, shapes},
    policies::Recorder,
    save_to_file,
    toolstack::Toolstack,
};
use xenmig_engine::{
    ConsultMode, Decision, GuestState, Interrupt, PrecopyStats, SaveError, SaveOptions,
    restore::{RestoreCaller, RestoreOptions, restore},
};
use xenmig_hypervisor::{Hypervisor, Source};
use xenmig_sim::{DomainConfig, Fault, Script, SimDomain, SimHost, Workload};
use xenmig_types::DomainState;

/// How a policy decides. All give up going on after six rounds.
#[derive(Clone, Debug)]
enum Plan {
    /// None is given: libxc's rule.
    Builtin,
    /// These answers, then STOP.
    Answers(Vec<Decision>),
    /// STOP when at most this number of pages is known to be dirty.
    Below(u64),
    /// STOP when this part of the p2m was sent, in percent.
    Sent(u64),
    /// STOP after so many batches, wherever that is.
    Batches(usize),
}

impl Plan {
    fn answer(&self, number: usize, stats: &PrecopyStats) -> Decision {
        let stop = match self {
            Self::Builtin => true,
            Self::Answers(answers) => {
                return answers.get(number).copied().unwrap_or(Decision::StopAndCopy);
            }
            Self::Below(pages) => stats.dirty_count.is_some_and(|dirty| dirty < *pages),
            Self::Sent(percent) => stats.pages_sent * 100 > stats.p2m_size * percent,
            Self::Batches(batches) => number >= *batches,
        };
        if stop || stats.iteration >= 6 { Decision::StopAndCopy } else { Decision::Continue }
    }

    fn may_abort(&self) -> bool {
        matches!(self, Self::Answers(answers) if answers.contains(&Decision::Abort))
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let answers = vec(select(vec![Decision::Continue; 12]), 0..14);
    let last = prop_oneof![9 => Just(Decision::StopAndCopy), 1 => Just(Decision::Abort)];
    prop_oneof![
        1 => Just(Plan::Builtin),
        4 => (answers, last).prop_map(|(mut answers, last)| {
            answers.push(last);
            Plan::Answers(answers)
        }),
        1 => (1_u64..200).prop_map(Plan::Below),
        1 => (0_u64..300).prop_map(Plan::Sent),
        1 => (0_usize..12).prop_map(Plan::Batches),
    ]
}

fn options() -> impl Strategy<Value = SaveOptions> {
    let consult = select(vec![ConsultMode::Round, ConsultMode::Batch, ConsultMode::Batch]);
    let interval = select(vec![Duration::ZERO, Duration::from_millis(20)]);
    (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.15),
        consult,
        any::<bool>(),
        interval.clone(),
        interval,
    )
        .prop_map(|(live, verify, consult, skip_redirtied, skip_interval, progress_interval)| {
            SaveOptions {
                live,
                verify: verify && live,
                consult,
                // Only this mode has it.
                skip_redirtied: skip_redirtied && consult == ConsultMode::Batch,
                skip_interval,
                min_round: Duration::from_micros(100),
                progress_interval,
                ..SaveOptions::default()
            }
        })
}

fn save(
    host: &SimHost,
    domain: &SimDomain,
    options: &SaveOptions,
    plan: &Plan,
    heals: bool,
) -> (Saved, usize) {
    let mut toolstack = Toolstack { heals, ..Toolstack::new(domain) };
    let mut policy = Recorder::new(|number, stats| {
        assert_eq!(domain.counters().mappings_now, 0, "a mapping outlives its batch");
        plan.answer(number, stats)
    });
    let given = !matches!(plan, Plan::Builtin);
    let saved = save_to_file(host, domain, options, given.then_some(&mut policy as _), &mut toolstack);
    let consults = match &saved.result {
        // The built-in policy cannot be asked how often it was asked.
        Ok(report) if !given => report.consults as usize,
        _ => policy.consults.len(),
    };
    (saved, consults)
}

/// Saves a domain and checks everything that can be checked without knowing what had to happen.
fn check(
    shape: &Shape,
    bursts: &[Burst],
    (faults, heals): (&[(f64, Fault)], bool),
    plan: &Plan,
    options: &SaveOptions,
) {
    let host = SimHost::new();
    let domain = shape.build(&host, Script::new());
    let p2m_size = host.nr_gpfns(domain.domid()).unwrap();
    play(&domain, p2m_size, bursts);
    let faults: Vec<_> = faults.iter().map(|(at, fault)| placed(*at, *fault, p2m_size)).collect();
    faults.iter().for_each(|fault| domain.inject(*fault));
    let (mut saved, consults) = save(&host, &domain, options, plan, heals);
    domain.clear_faults();
    match &saved.result {
        Ok(_) => {
            assert!(domain.state().is_suspended());
            // A save that is not live leaves the mode alone.
            nothing_left(&domain, shape.vram_tracking && !options.live);
            nothing_lost(&host, &domain, &saved);
            report_adds_up(&domain, &saved, options, consults);
            well_formed(&saved.stream(), options.verify);
            restored_is_the_same(shape, &host, &domain, &mut saved);
        }
        Err(failure) => {
            if options.live {
                failed_cleanly(&domain, &saved);
            }
            match &failure.error {
                SaveError::PolicyAbort { .. } => {
                    assert!(plan.may_abort());
                    assert_eq!(failure.guest, GuestState::Running);
                }
                SaveError::Map { pfn, .. } => {
                    assert_eq!(failure.guest, GuestState::Resumed);
                    assert!(!heals);
                    let why = |fault: &Fault| matches!(fault, Fault::VanishBeforeMap { pfn: at } | Fault::PageMapErrno { pfn: at, .. } if at == pfn);
                    assert!(faults.iter().any(why), "{failure}");
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// A receiver that waits for nothing.
struct Receiver;

impl Interrupt for Receiver {}

impl RestoreCaller for Receiver {}

/// Restores a stream with the engine's own other end, and compares the domains.
fn restored_is_the_same(shape: &Shape, host: &SimHost, domain: &SimDomain, saved: &mut Saved) {
    let far_host = SimHost::new();
    let copy = shape.build_empty(&far_host);
    saved.file.seek(SeekFrom::Start(0)).unwrap();
    let mut source = Source::new(saved.file.as_raw_fd()).unwrap();
    let report =
        restore(&far_host, copy.domid(), &mut source, &RestoreOptions::default(), &mut Receiver).unwrap();
    assert_eq!(report.bytes_received, saved.written);
    assert_eq!(domain.differing_pages(&copy, 5), []);
    // These are the toolstack's own (event channels, PAE): no stream carries them.
    for index in [2, 4, 18] {
        let value = host.hvm_param(domain.domid(), index).unwrap();
        far_host.set_hvm_param(copy.domid(), index, value).unwrap();
    }
    assert_eq!(domain.fingerprint(), copy.fingerprint(), "the state differs");
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn the_receiver_has_the_suspended_domain(
        shape in shapes(),
        bursts in bursts(),
        faults in faults(),
        heals in any::<bool>(),
        plan in plans(),
        options in options(),
    ) {
        check(&shape, &bursts, (&faults, heals), &plan, &options);
    }
}

proptest! {
    #![proptest_config(cases(8))]

    /// A PVH guest: its special pages make its p2m a thousand times as long as its memory.
    #[test]
    fn special_pages_are_far_away(
        bursts in bursts(),
        plan in plans(),
        options in options(),
    ) {
        let shape = Shape { special_pages: true, holes: vec![3..5], ..Shape::plain(200) };
        check(&shape, &bursts, (&[], false), &plan, &SaveOptions { verify: false, ..options });
    }

    /// vCPU threads that really write, in a race with everything.
    #[test]
    fn a_guest_that_writes_at_its_own_pace(
        plan in plans(),
        options in options(),
        pages_per_s in 1e3..1e6_f64,
    ) {
        let host = SimHost::new();
        let config = DomainConfig {
            memory_bytes: 8 << 20,
            holes: vec![100..130],
            vcpus: 2,
            workload: Workload::HotCold { hot_pages: 60, hot_pages_per_s: pages_per_s, cold_pages_per_s: 1e4 },
            ..DomainConfig::default()
        };
        let domain = host.create(config).unwrap();
        domain.fill(3);
        let (saved, consults) = save(&host, &domain, &options, &plan, false);
        nothing_left(&domain, false);
        if saved.result.is_ok() {
            nothing_lost(&host, &domain, &saved);
            report_adds_up(&domain, &saved, &options, consults);
            well_formed(&saved.stream(), options.verify);
        } else {
            prop_assert!(plan.may_abort());
            prop_assert_eq!(domain.state(), DomainState::Running);
        }
        host.destroy(domain.domid()).unwrap();
    }
}
