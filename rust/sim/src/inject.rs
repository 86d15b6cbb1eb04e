// SPDX-License-Identifier: GPL-3.0-or-later
//! Faults that a test injects into a domain: what Xen does on a bad day.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use xenmig_types::Pfn;

use crate::{counters::Verb, gate::lock};

/// A fault. Each stays until it has happened, if it happens once, or until `clear_faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Mapping costs time for each page: the mapping thread spends it, or the host's clock moves on.
    MapCost {
        /// Nanoseconds for each page that is mapped.
        ns_per_page: u64,
    },
    /// One call of a verb fails.
    Errno {
        /// The verb.
        verb: Verb,
        /// Which call fails, counted from 0 from now on.
        nth: u64,
        /// The error number.
        errno: i32,
    },
    /// The page is ballooned out between its type query and its mapping: at the next mapping that asks for it.
    /// Happens once, and in any state of the domain.
    VanishBeforeMap {
        /// The page.
        pfn: Pfn,
    },
    /// The page cannot be mapped.
    PageMapErrno {
        /// The page.
        pfn: Pfn,
        /// The error number.
        errno: i32,
    },
}

/// The faults of one domain.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Whether there are any, so that a call without faults takes no lock.
    armed: AtomicBool,
    armory: Mutex<Armory>,
}

#[derive(Debug, Default)]
struct Armory {
    errnos: BTreeMap<(Verb, u64), i32>,
    vanishing: BTreeSet<Pfn>,
    mapping: MapFaults,
}

/// The faults of mapping that stay.
#[derive(Clone, Debug, Default)]
pub(super) struct MapFaults {
    pub(super) ns_per_page: u64,
    pub(super) errnos: BTreeMap<u64, i32>,
}

impl Faults {
    /// Adds a fault. `calls` says how often each verb was called so far.
    pub(super) fn add(&self, fault: Fault, calls: impl FnOnce(Verb) -> u64) {
        let mut armory = lock(&self.armory);
        match fault {
            Fault::MapCost { ns_per_page } => armory.mapping.ns_per_page = ns_per_page,
            Fault::Errno { verb, nth, errno } => {
                armory.errnos.insert((verb, calls(verb).saturating_add(nth)), errno);
            }
            Fault::VanishBeforeMap { pfn } => {
                armory.vanishing.insert(pfn);
            }
            Fault::PageMapErrno { pfn, errno } => {
                armory.mapping.errnos.insert(pfn.0, errno);
            }
        }
        self.armed.store(true, Ordering::Release);
    }

    /// Removes all faults.
    pub(super) fn clear(&self) {
        let mut armory = lock(&self.armory);
        *armory = Armory::default();
        self.armed.store(false, Ordering::Release);
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Takes the errno with which call `n` of a verb fails.
    pub(super) fn errno(&self, verb: Verb, n: u64) -> Option<i32> {
        if self.is_armed() { lock(&self.armory).errnos.remove(&(verb, n)) } else { None }
    }

    /// Takes the pages among `pfns` that vanish now.
    pub(super) fn vanishing(&self, pfns: impl Iterator<Item = Pfn>) -> Vec<Pfn> {
        if !self.is_armed() {
            return Vec::new();
        }
        let mut armory = lock(&self.armory);
        if armory.vanishing.is_empty() {
            return Vec::new();
        }
        pfns.filter(|pfn| armory.vanishing.remove(pfn)).collect()
    }

    /// Returns the faults of mapping, if there are any.
    pub(super) fn mapping(&self) -> Option<MapFaults> {
        self.is_armed().then(|| lock(&self.armory).mapping.clone())
    }
}
