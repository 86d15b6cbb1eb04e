// SPDX-License-Identifier: GPL-3.0-or-later
//! What the vCPU threads of a domain share with its owner: memory, log-dirty bitmap, gate, and the writing itself.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fastrand::Rng;
use xenmig_types::Pfn;

use super::{
    config::Layout,
    gate::Gate,
    logdirty::LogDirty,
    memory::{Memory, PAGE_WORDS},
    workload::WriteStream,
};

/// How often a vCPU looks for another page when the one that it chose is a hole.
const TRIES: u32 = 16;

/// The part of a domain that its vCPU threads see.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) memory: Arc<Memory>,
    pub(super) logdirty: LogDirty,
    pub(super) gate: Gate,
    pub(super) layout: Layout,
    /// Pages that Xen keeps mapped, known once the domain has run.
    xen_mapped: OnceLock<Vec<Pfn>>,
    /// The next value to be written. No value is written twice.
    next_value: AtomicU64,
    writes: AtomicU64,
}

impl Guest {
    /// Makes the shared part of a domain without pages.
    pub(super) fn new(layout: Layout, vcpus: usize, logdirty_on: bool) -> io::Result<Self> {
        let capacity = layout.capacity();
        Ok(Self {
            memory: Arc::new(Memory::new(capacity)?),
            logdirty: LogDirty::new(capacity, logdirty_on)?,
            gate: Gate::new(vcpus),
            layout,
            xen_mapped: OnceLock::new(),
            next_value: AtomicU64::new(1),
            writes: AtomicU64::new(0),
        })
    }

    /// Returns how many pages the vCPUs wrote.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Chooses the pages that Xen keeps mapped, when the domain runs for the first time: the last ones of RAM.
    pub(super) fn register_xen_mapped(&self, count: u64) {
        self.xen_mapped.get_or_init(|| {
            let pages = (0..self.layout.ram_pages).rev().map(|page| Pfn(self.layout.ram_pfn(page)));
            let existing = pages.filter(|pfn| self.memory.populated().get(pfn.0));
            existing.zip(0..count).map(|(pfn, _)| pfn).collect()
        });
    }

    /// Returns the pages that Xen keeps mapped.
    pub(super) fn xen_mapped(&self) -> &[Pfn] {
        self.xen_mapped.get().map_or(&[], Vec::as_slice)
    }

    /// Writes to a page that Xen keeps mapped: nothing logs it. The caller is inside the gate or has closed it.
    pub(super) fn write_unlogged(&self, which: usize) {
        let pages = self.xen_mapped();
        if let Some(pfn) = which.checked_rem(pages.len()).and_then(|i| pages.get(i))
            && self.memory.populated().get(pfn.0)
        {
            let number = self.next_value.fetch_add(1, Ordering::Relaxed);
            self.memory.store(*pfn, number % PAGE_WORDS, value(number));
        }
    }

    /// Writes one page as the guest does, if it exists. The caller holds the domain's control lock.
    pub(super) fn write_once(&self, pfn: Pfn) {
        let number = self.next_value.fetch_add(1, Ordering::Relaxed);
        if self.write(pfn, number % PAGE_WORDS, value(number)) {
            self.writes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Writes `count` random pages of a stream, as a vCPU that is inside the gate.
    pub(super) fn write_some(&self, stream: &WriteStream, count: u64, rng: &mut Rng) {
        if stream.pages == 0 {
            return;
        }
        let first = self.next_value.fetch_add(count, Ordering::Relaxed);
        let mut written = 0;
        for number in first..first + count {
            let word = rng.u64(..PAGE_WORDS);
            let done = (0..TRIES).any(|_| {
                let page = stream.first + rng.u64(..stream.pages);
                self.write(Pfn(self.layout.ram_pfn(page)), word, value(number))
            });
            written += u64::from(done);
        }
        self.writes.fetch_add(written, Ordering::AcqRel);
    }

    /// Stores a word and marks the page, in this order. Returns `false` if there is no page.
    fn write(&self, pfn: Pfn, word: u64, value: u64) -> bool {
        if !self.memory.populated().get(pfn.0) {
            return false;
        }
        self.memory.store(pfn, word, value);
        self.logdirty.mark(pfn);
        true
    }
}

/// Spreads a number over all bits, so that each byte of a page changes. Different numbers give different values.
const fn value(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
