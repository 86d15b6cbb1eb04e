// SPDX-License-Identifier: GPL-3.0-or-later
//! The life of a simulated domain: states, numbers, and that suspending really stops the vCPUs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;

use std::{thread, time::Duration};

use support::{domain, errno, hole, page, pages};
use xenmig_hypervisor::{Access, Extent, Hypervisor};
use xenmig_sim::{DomainConfig, Phase, SimDomain, SimError, SimHost, Workload};
use xenmig_types::{DomainState, Domid, Gfn, GuestKind, PAGE_SIZE};

const SUSPENDED: DomainState = DomainState::Shutdown { reason: 2 };

fn uniform(pages_per_s: f64) -> Workload {
    Workload::Uniform { pages_per_s }
}

#[test]
fn nothing_is_written_while_a_domain_is_suspended_or_paused() {
    let (host, domain) = domain(DomainConfig { vcpus: 3, workload: uniform(3e5), ..pages(500) });
    for (halt, go, state) in
        [(Step::Suspend, Step::Resume, SUSPENDED), (Step::Pause, Step::Unpause, DomainState::Paused)]
    {
        for _ in 0..20 {
            let before = domain.writes();
            while domain.writes() == before {
                thread::sleep(Duration::from_millis(1));
            }
            halt.take(&domain).unwrap();
            assert_eq!(host.domain_info(domain.domid()).unwrap().state, state);
            let (writes, fingerprint) = (domain.writes(), domain.fingerprint());
            thread::sleep(Duration::from_millis(5));
            assert_eq!((domain.writes(), domain.fingerprint()), (writes, fingerprint));
            go.take(&domain).unwrap();
            assert_eq!(domain.state(), DomainState::Running);
        }
    }
}

enum Step {
    Suspend,
    Resume,
    Pause,
    Unpause,
}

impl Step {
    fn take(&self, domain: &SimDomain) -> Result<(), SimError> {
        match self {
            Self::Suspend => domain.suspend(),
            Self::Resume => domain.resume(),
            Self::Pause => domain.pause(),
            Self::Unpause => domain.unpause(),
        }
    }
}

#[test]
fn a_step_from_the_wrong_state_is_refused() {
    use Step::{Pause, Resume, Suspend, Unpause};
    let (host, domain) = domain(pages(4));
    let refused = |steps: &[Step]| {
        for step in steps {
            let error = step.take(&domain).unwrap_err();
            assert!(matches!(error, SimError::WrongState { .. }), "{error}");
            assert_eq!(error.errno().unwrap().0, libc::EINVAL);
        }
    };
    refused(&[Resume, Unpause]);
    Suspend.take(&domain).unwrap();
    refused(&[Suspend]);
    // Paused by the toolstack while suspended: it takes both to make it run.
    Pause.take(&domain).unwrap();
    Resume.take(&domain).unwrap();
    assert_eq!(domain.state(), DomainState::Paused);
    refused(&[Suspend, Pause]);
    Unpause.take(&domain).unwrap();
    assert_eq!(domain.state(), DomainState::Running);
    host.destroy(domain.domid()).unwrap();
    assert_eq!(domain.state(), DomainState::Dying);
    refused(&[Suspend, Resume, Pause, Unpause]);
    assert!(matches!(domain.set_workload(uniform(1e3)), Err(SimError::WrongState { .. })));
}

#[test]
fn an_empty_domain_is_paused_and_starts_when_it_is_resumed_or_unpaused() {
    for start in [Step::Resume, Step::Unpause] {
        let (host, domain) = domain(DomainConfig { populated: false, workload: uniform(1e5), ..pages(64) });
        let id = domain.domid();
        let info = host.domain_info(id).unwrap();
        assert_eq!((info.state, info.total_pages, info.max_pages), (DomainState::Paused, 0, 64));
        assert_eq!(host.nr_gpfns(id).unwrap(), 1);
        let mut frames: Vec<Gfn> = (0..64).map(Gfn).collect();
        assert_eq!(host.populate(id, &mut frames, Extent::Page).unwrap(), 64);
        host.set_hvm_context(id, &[1; 100]).unwrap();
        assert!(domain.xen_mapped().is_empty());
        start.take(&domain).unwrap();
        assert_eq!(errno(host.set_hvm_context(id, &[1; 100])), libc::EBUSY);
        assert_eq!(domain.xen_mapped().len(), 2);
        while domain.writes() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn domids_are_given_from_1_on_and_missing_domains_are_esrch() {
    let host = SimHost::new();
    let make = |number: Option<i64>| {
        let domid = number.map(|number| Domid::new(number).unwrap());
        host.create(DomainConfig { domid, ..pages(1) }).map(|domain| domain.domid().get())
    };
    assert_eq!([make(None), make(Some(3)), make(None), make(None)], [Ok(1), Ok(3), Ok(2), Ok(4)]);
    assert!(matches!(make(Some(3)), Err(SimError::DomidInUse { .. })));
    let two = Domid::new(2).unwrap();
    host.destroy(two).unwrap();
    assert_eq!(host.domids().iter().map(|id| id.get()).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(host.destroy(two), Err(SimError::NoSuchDomain { domid: two }));
    assert_eq!(host.domain(two).unwrap_err().errno().unwrap().0, libc::ESRCH);
    // Domain 3 exists: getdomaininfo must not answer with it.
    assert_eq!(errno(host.domain_info(two)), libc::ESRCH);
    assert_eq!(errno(host.nr_gpfns(two)), libc::ESRCH);
    assert_eq!(errno(host.map(two, &[Gfn(0)], Access::Read)), libc::ESRCH);
    assert_eq!(make(None), Ok(2));
}

#[test]
fn domain_info_and_version() {
    let (host, domain) = domain(DomainConfig { vcpus: 5, holes: hole(2..4), ..pages(10) });
    let info = host.domain_info(domain.domid()).unwrap();
    assert_eq!((info.domid, info.kind, info.max_vcpu_id), (domain.domid(), GuestKind::Hvm, 4));
    assert_eq!((info.state, info.total_pages, info.max_pages), (DomainState::Running, 8, 10));
    assert_eq!((domain.memory_pages(), domain.populated_pages()), (10, 8));
    assert_eq!((host.version().unwrap().major, host.version().unwrap().minor), (4, 17));
}

#[test]
fn mapped_pages_outlive_their_domain() {
    let (host, domain) = domain(pages(4));
    domain.fill(1);
    let content = page(&domain, 2).unwrap();
    let mapped = host.map(domain.domid(), &[Gfn(2)], Access::Read).unwrap();
    host.destroy(domain.domid()).unwrap();
    drop((domain, host));
    let mut copy = [0; PAGE_SIZE];
    assert!(mapped.copy_out(0, &mut copy));
    assert_eq!(copy, content);
}

#[test]
fn rates_are_kept() {
    for (vcpus, workload, pages_per_s) in [
        (1, uniform(20_000.0), 20_000.0),
        (4, Workload::HotCold { hot_pages: 9, hot_pages_per_s: 2e5, cold_pages_per_s: 1e5 }, 3e5),
        (2, phased(0.02, 1e5), 5e4),
    ] {
        let (_host, domain) = domain(DomainConfig { vcpus, workload: workload.clone(), ..pages(5000) });
        thread::sleep(Duration::from_millis(100));
        let (before, start) = (domain.writes(), std::time::Instant::now());
        thread::sleep(Duration::from_millis(400));
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let rate = (domain.writes() - before) as f64 / start.elapsed().as_secs_f64();
        // The machine may be busy: then the vCPUs get less time, as on Xen.
        assert!((0.3..1.4).contains(&(rate / pages_per_s)), "{workload:?}: {rate} pages/s");
    }
}

fn phased(seconds: f64, pages_per_s: f64) -> Workload {
    let phase = |workload| Phase { seconds, workload };
    Workload::Phased(vec![phase(uniform(pages_per_s)), phase(Workload::Idle)])
}

#[test]
fn the_workload_can_be_changed_while_the_domain_runs() {
    let (_host, domain) = domain(pages(100));
    thread::sleep(Duration::from_millis(5));
    assert_eq!(domain.writes(), 0);
    domain.set_workload(uniform(1e5)).unwrap();
    while domain.writes() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(domain.set_workload(uniform(f64::NAN)).is_err());
    domain.set_workload(Workload::Idle).unwrap();
    let writes = domain.writes();
    thread::sleep(Duration::from_millis(5));
    assert_eq!(domain.writes(), writes);
}
