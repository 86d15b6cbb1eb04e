// SPDX-License-Identifier: GPL-3.0-or-later
//! A simulated domain without the boundary's checks, for a program that itself plays the kernel and Xen on it: it maps
//! the domain's pages from a file, and answers calls that [`Hypervisor`](xenmig_hypervisor::Hypervisor) refuses or does
//! not have. The cargo feature `raw-domains` turns it on.

use std::{
    io,
    ops::Range,
    os::fd::{BorrowedFd, OwnedFd},
};

use xenmig_hypervisor::{CleanPass, DirtyBitmap, DirtyCounts, Result};
use xenmig_types::{Gfn, PageType};

use crate::{counters::Verb, domain::SimDomain, gate::lock, script::When};

/// A domain without the boundary's checks.
#[derive(Clone, Copy, Debug)]
pub struct RawDomain<'a>(&'a SimDomain);

/// The machine-to-phys table as the hypervisor's own tables list it.
#[derive(Debug)]
pub struct RawM2p {
    /// One more than the highest mfn.
    pub frames: u64,
    /// The first mfn of each 2 MiB of the table, in order; the chunks are in `file` in the same order.
    pub chunks: Vec<Gfn>,
    /// The first mfn of the table that 32-bit guests see.
    pub compat: Gfn,
    /// The file that holds the table.
    pub file: OwnedFd,
}

impl SimDomain {
    /// Returns the domain without the boundary's checks.
    #[must_use]
    pub const fn raw(&self) -> RawDomain<'_> {
        RawDomain(self)
    }
}

impl<'a> RawDomain<'a> {
    /// Begins a call as every verb does: counts it, lets the script act, and fails if a fault says so. Returns the
    /// number of calls of this verb before it.
    ///
    /// # Errors
    ///
    /// An injected fault, or a fork since the domain was made.
    pub fn begin(self, verb: Verb) -> Result<u64> {
        self.0.enter(verb)
    }

    /// Lets the script act after mapping number `number`, as [`RawDomain::begin`] counted it.
    pub fn mapped(self, number: u64) {
        self.0.play(When::AfterMap(number));
    }

    /// Returns the domain's memory: page `pfn` is at offset `pfn * 4096`.
    #[must_use]
    pub fn memory(self) -> BorrowedFd<'a> {
        self.0.guest.memory.file()
    }

    /// Returns the size of the p2m in pages, also for a PV guest: the highest pfn that ever had a page, plus one.
    #[must_use]
    pub fn p2m_pages(self) -> u64 {
        self.0.guest.memory.p2m_pages()
    }

    /// Iterates over the runs of pages, in pfn order.
    pub fn runs(self) -> impl Iterator<Item = Range<u64>> + 'a {
        self.0.guest.memory.runs(u64::MAX)
    }

    /// Backs all of RAM with memory, populated or not, so that no measurement pays for a first touch.
    ///
    /// # Errors
    ///
    /// What `madvise` says.
    pub fn warm(self) -> io::Result<()> {
        let layout = &self.0.guest.layout;
        let pages = 0..layout.ram_pages;
        // RAM is one run of pfns, or two around the special pages.
        let above = pages.clone().find(|page| layout.ram_pfn(*page) != *page).unwrap_or(pages.end);
        for part in [0..above, above..pages.end].into_iter().filter(|part| !part.is_empty()) {
            let first = layout.ram_pfn(part.start);
            self.0.guest.memory.warm(first..first + (part.end - part.start))?;
        }
        Ok(())
    }

    /// Says whether log-dirty mode is on, and how many pages are dirty, without counting as a call.
    #[must_use]
    pub fn logdirty(self) -> (bool, DirtyCounts) {
        (self.0.guest.logdirty.is_on(), self.0.guest.logdirty.counts())
    }

    /// Answers CLEAN (of a pass) or PEEK (`None`) as Xen does. The bitmap has no bits beyond the p2m, whatever its size
    /// is; only the first `pages` are cleared, and the count is reset all the same. With log-dirty mode off, nothing is
    /// dirty, and that is no error.
    ///
    /// # Errors
    ///
    /// An injected fault, or a fork since the domain was made.
    pub fn fetch(
        self,
        clean: Option<CleanPass>,
        pages: u64,
        bitmap: Option<&mut DirtyBitmap>,
    ) -> Result<DirtyCounts> {
        self.0.enter(if clean.is_some() { Verb::Clean } else { Verb::Peek })?;
        let _life = lock(&self.0.life);
        let guest = &self.0.guest;
        if !guest.logdirty.is_on() {
            if let Some(bitmap) = bitmap {
                bitmap.fill(|words| words.fill(0));
            }
            return Ok(DirtyCounts::default());
        }
        let stopped = guest.gate.stop();
        if clean == Some(CleanPass::Final) {
            let mapped = guest.xen_mapped().iter().filter(|pfn| guest.memory.populated().get(pfn.0));
            mapped.for_each(|pfn| guest.logdirty.mark(*pfn));
        }
        let counts = guest.logdirty.counts();
        if let Some(bitmap) = bitmap {
            if bitmap.pages() > guest.memory.populated().len() {
                bitmap.fill(|words| words.fill(0));
            }
            guest.logdirty.copy(bitmap);
        }
        if clean.is_some() {
            guest.logdirty.forget(pages.min(guest.logged_pages()));
        }
        drop(stopped);
        Ok(counts)
    }

    /// Returns the m2p of a PV domain's machine; `None` for other domains.
    #[must_use]
    pub fn m2p(self) -> Option<RawM2p> {
        let machine = self.0.guest.pv.as_ref()?.machine();
        let file = machine.m2p_file().try_clone_to_owned().ok()?;
        let chunks = machine.m2p_chunks().collect();
        Some(RawM2p { frames: machine.frames(), chunks, compat: machine.compat_m2p(), file })
    }

    /// Returns at which page of [`RawDomain::memory`] a PV domain has a frame; `None` if the frame is not the domain's,
    /// or, with `write`, may not be written.
    #[must_use]
    pub fn place(self, frame: Gfn, write: bool) -> Option<u64> {
        let place = self.0.guest.pv()?.place(frame, write).0;
        (place != u64::MAX).then_some(place)
    }

    /// Returns the type of a PV domain's frame; `None` for other domains.
    #[must_use]
    pub fn frame_type(self, frame: Gfn) -> Option<PageType> {
        Some(self.0.guest.pv.as_ref()?.frame_type(frame))
    }
}
