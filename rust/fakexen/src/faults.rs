// SPDX-License-Identifier: GPL-3.0-or-later
//! What a test injects: calls that fail, pages that cannot be mapped, time that calls and pages cost. Without faults
//! a call pays for one load of a flag.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use xenmig_hypervisor::{Clock, MachineClock};

use crate::kinds::Kind;

/// A fault, as the control interface takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// Calls of a kind fail.
    Errno {
        /// Of which kind.
        kind: Kind,
        /// Calls about this domain only.
        domid: Option<u16>,
        /// How many such calls, counted from now, succeed before.
        #[serde(default)]
        nth: u64,
        /// How many fail then.
        #[serde(default = "once")]
        times: u64,
        /// With what.
        errno: i32,
    },
    /// A page cannot be mapped.
    Page {
        /// Of this domain.
        domid: u16,
        /// At this pfn.
        pfn: u64,
        /// What stands in the page's `err`. `ENOENT` (2) makes libxenforeignmemory try again until it succeeds.
        errno: i32,
        /// How many attempts fail; all without it.
        times: Option<u64>,
    },
    /// Time that is spent, in nanoseconds. What is left out is 0.
    Cost {
        /// For each ioctl that is a hypercall or maps pages.
        #[serde(default)]
        call_ns: u64,
        /// For each page that is mapped.
        #[serde(default)]
        map_ns_per_page: u64,
        /// For each page that is unmapped.
        #[serde(default)]
        unmap_ns_per_page: u64,
    },
}

const fn once() -> u64 {
    1
}

#[derive(Debug)]
struct FailingCall {
    kind: Kind,
    domid: Option<u16>,
    spared: u64,
    times: u64,
    errno: i32,
}

#[derive(Debug)]
struct FailingPage {
    errno: i32,
    times: Option<u64>,
}

#[derive(Debug)]
struct Armory {
    calls: Vec<FailingCall>,
    pages: BTreeMap<(u16, u64), FailingPage>,
}

static ARMORY: Mutex<Armory> = Mutex::new(Armory { calls: Vec::new(), pages: BTreeMap::new() });
static CALLS_FAIL: AtomicBool = AtomicBool::new(false);
static PAGES_FAIL: AtomicBool = AtomicBool::new(false);
/// Nanoseconds for each call.
static CALL_NS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds for each page that is mapped.
static MAP_NS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds for each page that is unmapped.
static UNMAP_NS: AtomicU64 = AtomicU64::new(0);

fn armory() -> MutexGuard<'static, Armory> {
    ARMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a fault to those that are there.
pub(crate) fn add(fault: &Fault) {
    let mut armory = armory();
    match *fault {
        Fault::Errno { kind, domid, nth, times, errno } => {
            armory.calls.push(FailingCall { kind, domid, spared: nth, times, errno });
            CALLS_FAIL.store(true, Ordering::Release);
        }
        Fault::Page { domid, pfn, errno, times } => {
            armory.pages.insert((domid, pfn), FailingPage { errno, times });
            PAGES_FAIL.store(true, Ordering::Release);
        }
        Fault::Cost { call_ns, map_ns_per_page, unmap_ns_per_page } => {
            CALL_NS.store(call_ns, Ordering::Relaxed);
            MAP_NS.store(map_ns_per_page, Ordering::Relaxed);
            UNMAP_NS.store(unmap_ns_per_page, Ordering::Relaxed);
        }
    }
}

/// Removes all faults and costs.
pub(crate) fn clear() {
    let mut armory = armory();
    armory.calls.clear();
    armory.pages.clear();
    CALLS_FAIL.store(false, Ordering::Release);
    PAGES_FAIL.store(false, Ordering::Release);
    for cost in [&CALL_NS, &MAP_NS, &UNMAP_NS] {
        cost.store(0, Ordering::Relaxed);
    }
}

/// Returns the errno that the call which is made now fails with. Every fault that matches counts the call.
pub(crate) fn errno(kind: Kind, domid: Option<u16>) -> Option<i32> {
    if !CALLS_FAIL.load(Ordering::Acquire) {
        return None;
    }
    let mut fails = None;
    let matches = |fault: &FailingCall| fault.kind == kind && (fault.domid.is_none() || fault.domid == domid);
    for fault in armory().calls.iter_mut().filter(|fault| matches(fault)) {
        if let Some(left) = fault.spared.checked_sub(1) {
            fault.spared = left;
        } else if let Some(left) = fault.times.checked_sub(1) {
            fault.times = left;
            fails = fails.or(Some(fault.errno));
        }
    }
    fails
}

/// Says whether any page of a domain cannot be mapped.
pub(crate) fn pages_fail(domid: u16) -> bool {
    PAGES_FAIL.load(Ordering::Acquire)
        && armory().pages.range((domid, 0)..=(domid, u64::MAX)).next().is_some()
}

/// Returns the errno that mapping this page fails with, this time.
pub(crate) fn page_errno(domid: u16, pfn: u64) -> Option<i32> {
    let mut armory = armory();
    let fault = armory.pages.get_mut(&(domid, pfn))?;
    if let Some(times) = &mut fault.times {
        *times = times.checked_sub(1)?;
    }
    Some(fault.errno)
}

/// Spends the time that a call costs.
pub(crate) fn spend_call() {
    spend(CALL_NS.load(Ordering::Relaxed));
}

/// Spends the time that mapping this number of pages costs.
pub(crate) fn spend_map(pages: u64) {
    spend(MAP_NS.load(Ordering::Relaxed).saturating_mul(pages));
}

/// Spends the time that unmapping this number of pages costs.
pub(crate) fn spend_unmap(pages: u64) {
    spend(UNMAP_NS.load(Ordering::Relaxed).saturating_mul(pages));
}

fn spend(ns: u64) {
    if ns != 0 {
        let start = MachineClock.now();
        MachineClock.spend_until(start + Duration::from_nanos(ns));
    }
}
