// SPDX-License-Identifier: GPL-3.0-or-later
//! The side door of a simulated domain, for `fakexen`: that test tool plays the kernel and Xen below the real Xen
//! libraries, so it maps the domain's pages itself and answers for calls that [`Hypervisor`](xenmig_hypervisor::Hypervisor)
//! refuses or does not have. Nothing here is for users.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
};

use xenmig_hypervisor::{CleanPass, DirtyBitmap, DirtyCounts, Result};
use xenmig_types::{PAGE_SIZE, Pfn};

use crate::{counters::Verb, domain::SimDomain, gate::lock, region::index, script::When};

impl SimDomain {
    /// Begins a call as every verb does: counts it and lets the script act. Returns its number.
    #[doc(hidden)]
    pub fn door_begin(&self, verb: Verb) -> Result<u64> {
        self.enter(verb)
    }

    /// Lets the script act after the `number`-th mapping.
    #[doc(hidden)]
    pub fn door_mapped(&self, number: u64) {
        self.play(When::AfterMap(number));
    }

    /// Returns the memory: page `pfn` is at offset `pfn * 4096`.
    #[doc(hidden)]
    pub fn door_memory(&self) -> BorrowedFd<'_> {
        self.guest.memory.file.as_fd()
    }

    /// Returns the size of the p2m in pages.
    #[doc(hidden)]
    pub fn door_p2m_pages(&self) -> u64 {
        self.guest.memory.p2m_pages()
    }

    /// Iterates over the runs of pages, in pfn order.
    #[doc(hidden)]
    pub fn door_runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.guest.memory.runs(u64::MAX)
    }

    /// Gives memory to all of RAM, populated or not, so that nobody who is measured pays for the first touch.
    #[doc(hidden)]
    pub fn door_warm(&self) -> io::Result<()> {
        let layout = &self.guest.layout;
        let pages = 0..layout.ram_pages;
        // RAM lies in one piece, or in two around the special pages.
        let above = pages.clone().find(|page| layout.ram_pfn(*page) != *page).unwrap_or(pages.end);
        for piece in [0..above, above..pages.end].into_iter().filter(|piece| !piece.is_empty()) {
            let base = self.guest.memory.address(Pfn(layout.ram_pfn(piece.start)));
            let base = base.ok_or(io::ErrorKind::InvalidInput)?;
            let bytes = index(piece.end - piece.start) * PAGE_SIZE;
            // SAFETY: the piece is inside the region; faulting its pages in changes no content.
            let result = unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Says whether log-dirty mode is on, and how many pages are dirty, without counting as a call.
    #[doc(hidden)]
    pub fn door_logdirty(&self) -> (bool, DirtyCounts) {
        (self.guest.logdirty.is_on(), self.guest.logdirty.counts())
    }

    /// Answers CLEAN (of a pass) or PEEK as Xen does. Its words have no bits beyond the p2m, whatever its size is;
    /// only the first `pages` are cleared, and the count is reset all the same. With log-dirty mode off, nothing is
    /// dirty and nothing is wrong.
    #[doc(hidden)]
    pub fn door_fetch(
        &self,
        clean: Option<CleanPass>,
        pages: u64,
        bitmap: Option<&mut DirtyBitmap>,
    ) -> Result<DirtyCounts> {
        self.enter(if clean.is_some() { Verb::Clean } else { Verb::Peek })?;
        let _life = lock(&self.life);
        let guest = &self.guest;
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
}
