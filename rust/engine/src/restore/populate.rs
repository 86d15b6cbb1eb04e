// SPDX-License-Identifier: GPL-3.0-or-later
//! Giving the domain the pages that a batch names, and taking back those that the guest has given up.

use xenmig_hypervisor::{Extent, HypervisorError};
use xenmig_types::{Gfn, PageType, Pfn};

use super::{
    Guest, Restore, RestoreError,
    hvm::Hvm,
    pfn_set::{PIECE_PAGES, piece_of},
};
use crate::guest::hvm;

impl Restore<'_, '_, Hvm> {
    /// Takes away each page of the batch that is a hole now but was a page earlier in the stream. A page left behind
    /// would count against the domain's limit, and would be in the way when the guest balloons in again.
    pub(super) fn vacate(&mut self) -> Result<(), RestoreError> {
        let holes = self.pages.iter().filter(|page| page.kind == PageType::Xtab);
        let stale: Vec<Pfn> =
            holes.map(|page| page.pfn).filter(|pfn| self.guest.populated.contains(*pfn)).collect();
        if stale.is_empty() {
            return Ok(());
        }
        let gfns: Vec<Gfn> = stale.iter().map(|pfn| hvm::gfn(*pfn)).collect();
        self.reader.source_mut().retry(|| self.host.depopulate(self.domid, &gfns))?;
        for pfn in &stale {
            self.guest.populated.remove(*pfn);
        }
        self.report.pages_depopulated += stale.len() as u64;
        Ok(())
    }

    /// Gives the domain each page of the batch that it needs and does not have.
    pub(super) fn populate(&mut self) -> Result<(), RestoreError> {
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        for group in self.pages.chunk_by(|a, b| piece_of(a.pfn) == piece_of(b.pfn)) {
            let Some(first) = group.first() else { continue };
            let there = self.guest.populated.piece(first.pfn);
            let wanted = group.iter().filter(|page| page.kind.is_populated() && !there.contains(page.pfn));
            let before = single.len();
            single.extend(wanted.map(|page| page.pfn));
            // No pfn is in a batch twice, so as many as a superpage has are all of it.
            if self.options.superpages && (single.len() - before) as u64 == PIECE_PAGES {
                whole.push(Pfn(piece_of(first.pfn) * PIECE_PAGES));
                single.truncate(before);
            }
        }
        for refused in self.populate_superpages(&whole)? {
            single.extend((refused.0..refused.0 + PIECE_PAGES).map(Pfn));
        }
        self.give(&single)
    }

    /// Gives superpages and returns those that could not be had: the host's memory may be in pieces too small.
    fn populate_superpages<'w>(&mut self, whole: &'w [Pfn]) -> Result<&'w [Pfn], RestoreError> {
        if whole.is_empty() {
            return Ok(whole);
        }
        let given = match self.ask(whole, Extent::Superpage) {
            Ok((_, given)) => given,
            // Whatever is wrong, the same question for small pages brings it to light if it matters.
            Err(RestoreError::Hypervisor(HypervisorError::Call { .. })) => 0,
            Err(error) => return Err(error),
        };
        let (given, refused) = whole.split_at_checked(given).unwrap_or((whole, &[]));
        for first in given {
            self.guest.populated.insert_superpage(*first);
        }
        self.report.superpages += given.len() as u64;
        self.report.pages_populated += given.len() as u64 * PIECE_PAGES;
        Ok(refused)
    }
}

impl<G: Guest> Restore<'_, '_, G> {
    /// Gives the domain a page of 4 KiB at each pfn.
    pub(super) fn give(&mut self, pfns: &[Pfn]) -> Result<(), RestoreError> {
        if pfns.is_empty() {
            return Ok(());
        }
        let (frames, given) = self.ask(pfns, Extent::Page)?;
        if let Some(pfn) = pfns.get(given) {
            let (given, asked) = (given as u64, pfns.len() as u64);
            return Err(RestoreError::Populate { domid: self.domid, pfn: *pfn, given, asked });
        }
        for (pfn, frame) in pfns.iter().zip(frames) {
            self.guest.insert(*pfn, frame).ok_or(RestoreError::FrameTooHigh { frame })?;
        }
        self.report.pages_populated += pfns.len() as u64;
        Ok(())
    }

    /// Asks for extents and returns their frames, and how many of them, from the front, the domain got.
    fn ask(&mut self, firsts: &[Pfn], extent: Extent) -> Result<(Vec<Gfn>, usize), RestoreError> {
        let mut frames = Vec::new();
        let given = self.reader.source_mut().retry(|| {
            frames = firsts.iter().map(|pfn| Gfn(pfn.0)).collect();
            self.host.populate(self.domid, &mut frames, extent)
        })?;
        Ok((frames, given))
    }
}
