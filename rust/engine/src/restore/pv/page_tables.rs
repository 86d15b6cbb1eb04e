// SPDX-License-Identifier: GPL-3.0-or-later
//! Page tables. In the stream their entries hold pfns; here they get the frames that the domain was given.
//!
//! An entry may refer to a page that the stream has not brought yet: the domain is given that page at once, since its
//! frame is needed. It is filled when it comes; pages that never come are filled with zeroes at END.

use xenmig_hypervisor::PageBuffer;
use xenmig_types::{Pfn, pv::Pte};

use super::{
    super::{error::RestoreError, typed_pfn::TypedPfn},
    frame_map::FrameMap,
};

/// What the entries of a page table are translated by.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableContext<'p> {
    pub(super) frames: &'p FrameMap,
    /// The highest pfn that the guest can have.
    pub(super) highest: Option<Pfn>,
    /// Where the PAGE_DATA record begins.
    pub(super) offset: u64,
}

impl TableContext<'_> {
    /// Copies a table from `sent` to `here`, with frames instead of pfns, and checks its entries. Returns the pfns at which
    /// the domain has no page; if there are any, `here` is incomplete.
    pub(super) fn localise(
        &self,
        TypedPfn { pfn, kind }: TypedPfn,
        sent: &PageBuffer,
        here: &mut PageBuffer,
    ) -> Result<Vec<Pfn>, RestoreError> {
        let level = kind.table_level().unwrap_or(0);
        let mut lookup = self.frames.lookup();
        let mut missing = Vec::new();
        for (index, (from, into)) in sent.as_chunks().0.iter().zip(here.as_chunks_mut().0).enumerate() {
            *into = *from;
            let pte = Pte(u64::from_le_bytes(*from));
            if !pte.is_present() {
                continue;
            }
            let to = Pfn(pte.frame());
            let wrong = |why| RestoreError::TableEntry { offset: self.offset, pfn, level, index, to, why };
            if level > 1 && pte.is_superpage() {
                return Err(wrong("maps a superpage, which no guest may"));
            }
            if self.highest.is_none_or(|highest| to > highest) {
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

#[cfg(test)]
mod tests {
    use xenmig_types::{Gfn, PAGE_SIZE, PageType};

    use super::*;

    fn table(entries: &[(usize, u64)]) -> PageBuffer {
        let mut table = [0; PAGE_SIZE];
        for (index, pte) in entries {
            table[index * 8..index * 8 + 8].copy_from_slice(&pte.to_le_bytes());
        }
        table
    }

    #[test]
    fn entries_get_frames_and_missing_pages_are_named_once() {
        let mut frames = FrameMap::default();
        frames.insert(Pfn(5), Gfn(0x777));
        let context = TableContext { frames: &frames, highest: Some(Pfn(9)), offset: 40 };
        let page = TypedPfn { pfn: Pfn(1), kind: PageType::L1 };
        let mut here = [0; PAGE_SIZE];
        // Not present, known, and two that are not there.
        let sent = table(&[(0, 0x9990), (1, 0x5067), (2, 0x8001), (3, 0x7001), (4, 0x8001)]);
        assert_eq!(context.localise(page, &sent, &mut here).unwrap(), [Pfn(7), Pfn(8)]);
        assert_eq!(here[..16], table(&[(0, 0x9990), (1, 0x77_7067)])[..16]);

        let beyond = context.localise(page, &table(&[(511, 0xa001)]), &mut here).unwrap_err();
        let RestoreError::TableEntry { offset: 40, level: 1, index: 511, to: Pfn(10), .. } = beyond else {
            panic!("{beyond}")
        };
    }
}
