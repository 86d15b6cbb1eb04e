// SPDX-License-Identifier: GPL-3.0-or-later
//! Behind a VERIFY record the sender, whose guest is suspended, sends its whole memory once more: pages are compared
//! with what is there, and nothing is written. Every difference is counted; END then fails with the sum.
//!
//! A hole of the sender that is a page here is no difference but is taken away as before: until Xen 4.22 the log-dirty
//! bitmap does not show that a page went, so this pass may be the first to tell.

use xenmig_hypervisor::{Access, PageBuffer};
use xenmig_types::Pfn;

use super::{
    Guest, Restore, RestoreError,
    pages::{Page, ZEROES},
};

/// What the comparison has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verification {
    /// Pages whose contents differ, or that are missing.
    pub(super) differing: u64,
    /// The first of them.
    pub(super) first: Option<Pfn>,
}

impl<G: Guest> Restore<'_, '_, G> {
    /// Compares the pages of a batch with those of the domain.
    pub(super) fn compare(&mut self) -> Result<(), RestoreError> {
        let (there, missing): (Vec<Page>, Vec<Page>) = self
            .pages
            .iter()
            .filter(|page| page.kind.is_populated())
            .partition(|page| self.guest.contains(page.pfn));
        for page in missing {
            self.differs(page.pfn);
        }
        let with_data: Vec<Page> = there.into_iter().filter(|page| page.kind.has_data()).collect();
        let mapped = self.map(&with_data, Access::Read)?;
        let (mut sent, mut here) = (ZEROES, ZEROES);
        let mut index = 0;
        for at in 0..self.pages.len() {
            let Some(page) = self.pages.get(at).copied().filter(|page| page.kind.has_data()) else {
                continue;
            };
            self.reader.copy_page(&mut sent)?;
            self.report.pages_received += 1;
            if !self.guest.contains(page.pfn) {
                continue;
            }
            if !mapped.as_ref().is_some_and(|mapped| mapped.copy_out(index, &mut here)) {
                return Err(self.unmapped(page.pfn));
            }
            index += 1;
            self.report.pages_verified += 1;
            if !self.is_same(page, &sent, &here)? {
                self.differs(page.pfn);
            }
        }
        Ok(())
    }

    /// Says whether a page is what was sent. One that refers to a page that is missing is not: nothing is given now.
    fn is_same(&self, page: Page, sent: &PageBuffer, here: &PageBuffer) -> Result<bool, RestoreError> {
        if !G::holds_frames(page.kind) {
            return Ok(sent == here);
        }
        let mut localised = ZEROES;
        let missing = self.guest.localise(page, sent, &mut localised, self.reader.record_offset())?;
        Ok(missing.is_empty() && localised == *here)
    }

    fn differs(&mut self, pfn: Pfn) {
        let verification = self.verification.get_or_insert_default();
        verification.differing += 1;
        verification.first.get_or_insert(pfn);
    }
}
