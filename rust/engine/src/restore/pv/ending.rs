// SPDX-License-Identifier: GPL-3.0-or-later
//! What is done at END to pages as a whole: those that nobody filled, page tables that are pinned, and holes.

use xenmig_hypervisor::{Access, PinOp};
use xenmig_types::{Gfn, PageType, Pfn};

use super::{
    super::{Restore, RestoreError, pages::ZEROES},
    Pv,
};
use crate::MAX_BATCH_PAGES;

impl Restore<'_, '_, Pv> {
    /// Fills with zeroes what the domain was given because a page table refers to it, and what then never came: Xen does
    /// not scrub everything that it gives.
    pub(super) fn zero_unfilled(&mut self) -> Result<(), RestoreError> {
        for batch in self.guest.p2m.unfilled().chunks(MAX_BATCH_PAGES) {
            let Some(mapped) = self.map(batch, Access::Write)? else { continue };
            for (index, page) in batch.iter().enumerate() {
                self.copy_in(&mapped, index, page.pfn, &ZEROES)?;
            }
            self.attend()?;
        }
        Ok(())
    }

    /// Pins the page tables that were pinned. From here on Xen has them read-only.
    ///
    /// A batch is not tried again: some of it may be pinned, and pinning twice is an error.
    pub(super) fn pin(&mut self) -> Result<(), RestoreError> {
        let pinned = self.guest.p2m.entries().filter(|entry| is_pinned(entry.kind));
        let pins: Vec<PinOp> = pinned.map(|entry| PinOp { frame: entry.frame, kind: entry.kind }).collect();
        for batch in pins.chunks(MAX_BATCH_PAGES) {
            self.host.pin_tables(self.domid, batch)?;
            self.attend()?;
        }
        Ok(())
    }

    /// Takes away the pages that have become holes, so that they do not count against the domain's limit, and makes
    /// their entries of the p2m invalid, as the guest itself has them.
    ///
    /// What a hole was before may still be in a page table that nobody looks at any more. Then Xen frees the page when
    /// that reference goes. If Xen does not take a page, the guest has one that it does not know of, which is what libxc
    /// leaves it with in any case; it is no reason to lose the guest. A broken page is no hole: the guest has it.
    pub(super) fn give_back_holes(&mut self) -> Result<(), RestoreError> {
        let holes = self.guest.p2m.entries().filter(|entry| entry.kind == PageType::Xtab);
        let holes: Vec<(Pfn, Gfn)> = holes.map(|entry| (entry.pfn, entry.frame)).collect();
        for batch in holes.chunks(MAX_BATCH_PAGES) {
            let frames: Vec<Gfn> = batch.iter().map(|(_, frame)| *frame).collect();
            let feed = self.reader.source_mut();
            match feed.retry(|| self.host.depopulate(self.domid, &frames)) {
                Ok(()) => self.report.pages_depopulated += frames.len() as u64,
                Err(RestoreError::Hypervisor(_)) => {}
                Err(error) => return Err(error),
            }
            for (pfn, _) in batch {
                self.guest.p2m.remove(*pfn);
            }
            self.attend()?;
        }
        Ok(())
    }
}

const fn is_pinned(kind: PageType) -> bool {
    matches!(kind, PageType::L1Pinned | PageType::L2Pinned | PageType::L3Pinned | PageType::L4Pinned)
}
