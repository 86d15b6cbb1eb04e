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

/// Returns the level of a page table, from 1. For other types it is a number that no level has.
pub(super) const fn level(kind: PageType) -> u8 {
    kind.number() & 7
}

impl Pv {
    /// Copies a table, with frames for pfns, and checks its entries. Returns the pfns at which the domain has no page.
    pub(super) fn localise_table(
        &self,
        Page { pfn, kind }: Page,
        sent: &PageBuffer,
        here: &mut PageBuffer,
        offset: u64,
    ) -> Result<Vec<Pfn>, RestoreError> {
        let (level, highest) = (level(kind), self.frames.highest());
        let mut lookup = self.p2m.lookup();
        let mut missing = Vec::new();
        for (index, (from, into)) in sent.as_chunks().0.iter().zip(here.as_chunks_mut().0).enumerate() {
            *into = *from;
            let pte = Pte(u64::from_le_bytes(*from));
            if !pte.is_present() {
                continue;
            }
            let to = Pfn(pte.frame());
            let wrong = |why| RestoreError::TableEntry { offset, pfn, level, index, to, why };
            if level > 1 && pte.is_superpage() {
                return Err(wrong("maps a superpage, which no guest may"));
            }
            if highest.is_none_or(|highest| to > highest) {
                return Err(wrong("is beyond what the guest can address"));
            }
            match lookup.frame(to) {
                Some(frame) => {
                    let pte = pte.with_frame(frame.0).ok_or(RestoreError::FrameTooHigh { frame })?;
                    *into = pte.0.to_le_bytes();
                }
                None => missing.push(to),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }
}
