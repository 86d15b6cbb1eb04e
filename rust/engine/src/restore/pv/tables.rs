// SPDX-License-Identifier: GPL-3.0-or-later
//! Page tables. In the stream their entries hold pfns; here they get the frames that the domain was given.
//!
//! An entry may refer to a page that the stream has not brought yet: the domain is given that page at once, since its
//! frame is needed. It is filled when it comes. Those that never come are filled with zeroes at END.

use xenmig_hypervisor::PageBuffer;
use xenmig_types::{PageType, Pfn, pv::Pte};

use super::{
    super::{RestoreError, pages::Page},
    Pv,
};

/// An entry that refers to a page, and its place in the table.
fn present(table: &PageBuffer) -> impl Iterator<Item = (usize, Pte)> + '_ {
    let words = table.as_chunks().0.iter().map(|word| Pte(u64::from_le_bytes(*word)));
    words.enumerate().filter(|(_, pte)| pte.is_present())
}

/// Returns the level of a page table, from 1. For other types it is a number that no level has.
pub(super) const fn level(kind: PageType) -> u8 {
    kind.number() & 7
}

impl Pv {
    /// Checks the entries of a table, and returns the pages that they refer to and that the domain does not have.
    pub(super) fn missing_pages(
        &self,
        Page { pfn, kind }: Page,
        table: &PageBuffer,
        offset: u64,
    ) -> Result<Vec<Pfn>, RestoreError> {
        let (level, highest) = (level(kind), self.frames.highest());
        let mut lookup = self.p2m.lookup();
        let mut missing = Vec::new();
        for (index, pte) in present(table) {
            let to = Pfn(pte.frame());
            let wrong = |why| RestoreError::TableEntry { offset, pfn, level, index, to, why };
            if level > 1 && pte.is_superpage() {
                return Err(wrong("maps a superpage, which no guest may"));
            }
            if highest.is_none_or(|highest| to > highest) {
                return Err(wrong("is beyond what the guest can address"));
            }
            if lookup.frame(to).is_none() {
                missing.push(to);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    /// Replaces the pfns in a table. Returns `None` if the domain lacks one of the pages.
    pub(super) fn localise_table(&self, table: &mut PageBuffer) -> Option<()> {
        let mut lookup = self.p2m.lookup();
        for word in table.as_chunks_mut().0 {
            let pte = Pte(u64::from_le_bytes(*word));
            if pte.is_present() {
                let frame = lookup.frame(Pfn(pte.frame()))?;
                *word = pte.with_frame(frame.0)?.0.to_le_bytes();
            }
        }
        Some(())
    }
}
