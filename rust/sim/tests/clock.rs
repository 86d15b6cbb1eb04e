// SPDX-License-Identifier: GPL-3.0-or-later
//! A host on a clock that the test moves: its guests do what falls due when they are called, the same every time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected should panic"
)]

mod support;

use std::{sync::Arc, time::Duration};

use support::{bitmap, pages, set_bits};
use xenmig_hypervisor::{Access, CleanPass, Clock, Hypervisor, ManualClock, Moment};
use xenmig_sim::{Churn, DomainConfig, Fault, Fingerprint, PvConfig, SimDomain, SimHost, Workload};
use xenmig_types::Gfn;

const SECOND: Duration = Duration::from_secs(1);

fn make(config: DomainConfig) -> (Arc<ManualClock>, SimHost, Arc<SimDomain>) {
    let clock = Arc::new(ManualClock::default());
    let host = SimHost::new().with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let domain = host.create(config).unwrap();
    (clock, host, domain)
}

fn busy(pages_per_s: f64) -> DomainConfig {
    DomainConfig { workload: Workload::Uniform { pages_per_s }, vcpus: 3, seed: 7, ..pages(2048) }
}

/// Cleans, and returns what was dirty.
fn clean(host: &SimHost, domain: &SimDomain) -> Vec<u64> {
    let mut bitmap = bitmap(host, domain);
    host.clean(domain.domid(), Some(&mut bitmap), CleanPass::Live).unwrap();
    set_bits(&bitmap)
}

#[test]
fn a_guest_writes_what_falls_due_on_the_clock_and_nothing_while_it_stands_still() {
    let (clock, host, domain) = make(busy(3000.0));
    host.enable_logdirty(domain.domid()).unwrap();
    assert_eq!(clean(&host, &domain), [0; 0]);
    clock.advance(2 * SECOND);
    let dirty = clean(&host, &domain);
    // Each vCPU begins with a part of a page that is due, and ends with one.
    assert!((5997..=6003).contains(&domain.writes()), "{}", domain.writes());
    assert!(dirty.len() > 1500, "6000 random writes reach most of 2048 pages, not {}", dirty.len());
    assert_eq!(clean(&host, &domain), [0; 0]);
}

#[test]
fn the_same_calls_give_the_same_dirty_pages_and_the_same_memory() {
    fn run(config: DomainConfig) -> (Vec<Vec<u64>>, Fingerprint) {
        let (clock, host, domain) = make(config);
        host.enable_logdirty(domain.domid()).unwrap();
        let rounds = (1..20).map(|round| {
            clock.advance(Duration::from_micros(700 * round));
            clean(&host, &domain)
        });
        let rounds: Vec<_> = rounds.collect();
        domain.suspend().unwrap();
        (rounds, domain.fingerprint())
    }
    let churn = Churn { ptes_per_s: 900.0, tables_per_s: 90.0, balloons_per_s: 400.0 };
    let pv = DomainConfig { pv: Some(PvConfig { churn, ..PvConfig::default() }), ..busy(5000.0) };
    for config in [busy(20_000.0), pv] {
        let (rounds, fingerprint) = run(config.clone());
        assert!(rounds.iter().all(|dirty| !dirty.is_empty()));
        assert_eq!(run(config.clone()), (rounds.clone(), fingerprint));
        assert_ne!(run(DomainConfig { seed: 8, ..config }), (rounds, fingerprint));
    }
}

#[test]
fn the_time_for_which_a_guest_is_stopped_is_none_of_its_time() {
    let (clock, host, domain) = make(busy(1000.0));
    clock.advance(SECOND);
    domain.suspend().unwrap();
    let writes = domain.writes();
    assert!((997..=1003).contains(&writes), "{writes}");
    clock.advance(3600 * SECOND);
    domain.resume().unwrap();
    domain.pause().unwrap();
    clock.advance(3600 * SECOND);
    domain.unpause().unwrap();
    host.nr_gpfns(domain.domid()).unwrap();
    assert_eq!(domain.writes(), writes);
}

#[test]
fn costs_move_the_clock_and_work_takes_no_time() {
    let (clock, host, domain) = make(pages(64));
    domain.inject(Fault::MapCost { ns_per_page: 250 });
    let gfns: Vec<Gfn> = (0..40).map(Gfn).collect();
    host.map(domain.domid(), &gfns, Access::Read).unwrap();
    assert_eq!(clock.now(), Moment::at(Duration::from_micros(10)));
    host.enable_logdirty(domain.domid()).unwrap();
    clean(&host, &domain);
    assert_eq!(domain.counters().clean_time_ns, 0);
}
