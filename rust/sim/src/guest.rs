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

use crate::{
    gate::Gate,
    layout::Layout,
    logdirty::LogDirty,
    memory::{Memory, PAGE_WORDS},
    pv::PvDomain,
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
    /// What a PV guest has beside.
    pub(super) pv: Option<PvDomain>,
    /// Pages that Xen keeps mapped, known once the domain has run.
    xen_mapped: OnceLock<Vec<Pfn>>,
    /// The next value to be written. No value is written twice.
    next_value: AtomicU64,
    writes: AtomicU64,
}

impl Guest {
    /// Makes the shared part of a domain without pages.
    pub(super) fn new(
        layout: Layout,
        pv: Option<PvDomain>,
        vcpus: usize,
        logdirty_on: bool,
    ) -> io::Result<Self> {
        let capacity = layout.capacity();
        Ok(Self {
            memory: Arc::new(Memory::new(capacity, pv.is_some().into())?),
            logdirty: LogDirty::new(capacity, logdirty_on)?,
            gate: Gate::new(vcpus),
            layout,
            pv,
            xen_mapped: OnceLock::new(),
            next_value: AtomicU64::new(1),
            writes: AtomicU64::new(0),
        })
    }

    /// Returns how many pages the vCPUs wrote.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Returns the pfn below which pages are logged.
    pub(super) fn logged_pages(&self) -> u64 {
        if self.pv.is_some() { self.layout.capacity() } else { self.memory.p2m_pages() }
    }

    /// Chooses the pages that Xen keeps mapped, when the domain runs for the first time: the last ones of RAM. A PV guest
    /// has none, as FINAL reports only other guests' pages.
    pub(super) fn register_xen_mapped(&self, count: u64) {
        let count = if self.pv.is_some() { 0 } else { count };
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

    /// Writes one page as the guest does, and says whether it exists. The caller holds the domain's control lock.
    pub(super) fn write_once(&self, pfn: Pfn) -> bool {
        let number = self.next_value.fetch_add(1, Ordering::Relaxed);
        let written = self.write(pfn, number % PAGE_WORDS, value(number));
        if written {
            self.writes.fetch_add(1, Ordering::AcqRel);
        }
        written
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

    /// Says whether the workload may write a page: it exists, and a PV guest's kernel does not need it.
    pub(super) fn is_data(&self, pfn: Pfn) -> bool {
        self.memory.populated().get(pfn.0) && self.pv.as_ref().is_none_or(|pv| pv.is_data(pfn))
    }

    /// Stores a word and marks the page, in this order. Returns `false` if there is no page of data.
    fn write(&self, pfn: Pfn, word: u64, value: u64) -> bool {
        if !self.is_data(pfn) {
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
