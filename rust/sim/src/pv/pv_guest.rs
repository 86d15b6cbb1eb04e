// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest in its memory: how its kernel reads and writes pages there. What it does with them is in the other files.

use xenmig_types::{
    Pfn,
    pv::{Field, GuestWidth},
};

use super::PvDomain;
use crate::{guest::Guest, memory::PAGE_WORDS};

/// A PV guest at work in its memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PvGuest<'a> {
    pub(super) guest: &'a Guest,
    pub(super) pv: &'a PvDomain,
}

impl Guest {
    /// Returns the PV guest, if it is one.
    pub(crate) fn pv(&self) -> Option<PvGuest<'_>> {
        self.pv.as_ref().map(|pv| PvGuest { guest: self, pv })
    }
}

impl PvGuest<'_> {
    pub(super) fn width(&self) -> GuestWidth {
        self.pv.width()
    }

    pub(super) fn load(&self, pfn: Pfn, word: u64) -> u64 {
        self.guest.memory.load(pfn, word)
    }

    /// Stores a word as the guest does: if that changes it, the page becomes dirty.
    pub(super) fn store(&self, pfn: Pfn, word: u64, value: u64) {
        if self.load(pfn, word) != value {
            self.guest.memory.store(pfn, word, value);
            self.guest.logdirty.mark(pfn);
        }
    }

    /// Fills a page with a word.
    pub(super) fn fill(&self, pfn: Pfn, value: u64) {
        (0..PAGE_WORDS).for_each(|word| self.store(pfn, word, value));
    }

    /// Returns how many frames the machine has.
    pub(crate) fn machine_frames(&self) -> u64 {
        self.pv.machine.frames()
    }

    /// Returns where the shared info page is in the memory.
    pub(super) fn shared_info(&self) -> Pfn {
        self.guest.memory.first_extra()
    }

    /// Reads a field of a page.
    pub(super) fn field(&self, page: Pfn, field: Field) -> u64 {
        let contents = self.guest.memory.copy(page);
        field.get(self.width(), &contents).unwrap_or(0)
    }

    /// Writes a field of a page. A value that is too wide is not written: no guest has such frames.
    pub(super) fn set_field(&self, page: Pfn, field: Field, value: u64) {
        let mut contents = self.guest.memory.copy(page);
        if field.set(self.width(), &mut contents, value).is_some() {
            for (word, bytes) in (0..).zip(contents.as_chunks::<8>().0) {
                self.store(page, word, u64::from_le_bytes(*bytes));
            }
        }
    }
}
