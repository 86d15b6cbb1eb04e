// SPDX-License-Identifier: GPL-3.0-or-later
//! What a simulated host leaves behind: no thread, and nothing in a child after fork. One test, because it counts the
//! threads of the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;

use std::{
    cell::RefCell,
    fs, thread,
    time::{Duration, Instant},
};

use support::pages;
use xenmig_hypervisor::{Hypervisor, HypervisorError};
use xenmig_sim::{DomainConfig, SimError, SimHost, Workload};

/// Waits until this process has this many vCPU threads: a new thread gives itself its name, and a thread that was
/// joined stays in the list for a moment.
fn expect_vcpu_threads(expected: usize, why: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while vcpu_threads() != expected {
        assert!(Instant::now() < deadline, "{} vCPU threads, not {expected}: {why}", vcpu_threads());
        thread::sleep(Duration::from_millis(1));
    }
}

fn vcpu_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("sim-vcpu")).count()
}

#[test]
fn threads_end_with_their_domain_and_nothing_works_in_a_child() {
    let busy = |vcpus| DomainConfig { vcpus, workload: Workload::Uniform { pages_per_s: 1e5 }, ..pages(64) };
    let host = SimHost::new();
    host.create(DomainConfig { vcpus: 64, ..pages(64) }).unwrap();
    expect_vcpu_threads(0, "an idle domain needs no threads");
    let destroyed = host.create(busy(5)).unwrap();
    let dropped = host.create(busy(7)).unwrap();
    expect_vcpu_threads(12, "each vCPU is one");
    host.destroy(destroyed.domid()).unwrap();
    expect_vcpu_threads(7, "destroy joins the threads, though there is still a reference to the domain");
    dropped.suspend().unwrap();
    let before = support::page(&dropped, 0);
    let held = RefCell::new(Some((host, dropped)));
    in_child_after_fork(|| {
        let (host, dropped) = held.take().unwrap();
        let forked =
            |result: Result<_, HypervisorError>| matches!(result, Err(HypervisorError::Forked { .. }));
        let refused = forked(host.version().map(drop))
            && forked(host.domain_info(dropped.domid()).map(drop))
            && forked(host.enable_logdirty(dropped.domid()))
            && matches!(dropped.resume(), Err(SimError::Hypervisor(HypervisorError::Forked { .. })));
        dropped.fill(9);
        // This must not wait for threads that only the parent has.
        drop((host, dropped));
        refused
    });
    let (host, dropped) = held.take().unwrap();
    assert_eq!(support::page(&dropped, 0), before, "the child wrote to the parent's domain");
    drop(host);
    expect_vcpu_threads(7, "there is still a reference to the domain");
    drop(dropped);
    expect_vcpu_threads(0, "the last holder's drop joins them");
}

/// Runs `check` in a child and asserts that it says yes there.
fn in_child_after_fork(check: impl FnOnce() -> bool) {
    // SAFETY: the child takes no lock that another thread of the parent may hold, and leaves with _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::from(!check());
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the check failed in the child");
}
