// SPDX-License-Identifier: GPL-3.0-or-later
//! The pages that the guest's own p2m is on. The stream names them in advance, and at END the new p2m is written over
//! what came as their contents.

use xenmig_hypervisor::{Access, PageBuffer};
use xenmig_stream::RecordKind;
use xenmig_types::{Pfn, pv::GuestWidth};

use super::{
    super::{NamedPage, Restore, RestoreError, pages::ZEROES},
    Pv,
};
use crate::MAX_BATCH_PAGES;

/// What X86_PV_P2M_FRAMES records have said.
#[derive(Debug, Default)]
pub(super) struct P2mFrames {
    /// The pages of the p2m, from the one that holds pfn 0 on.
    pages: Vec<Pfn>,
    /// The highest pfn that the guest can have.
    highest: Option<Pfn>,
}

impl P2mFrames {
    /// Returns the highest pfn that the guest can have; `None` before the first record.
    pub(super) const fn highest(&self) -> Option<Pfn> {
        self.highest
    }

    /// Takes pages, beginning with number `start`, in place of those that were known of this part, and behind them.
    /// Returns `None` if there were a gap: what is kept is never more than what came.
    fn replace(&mut self, start: u64, pages: &[Pfn]) -> Option<()> {
        let known = self.pages.get_mut(usize::try_from(start).ok()?..)?;
        let (over, behind) = pages.split_at(known.len().min(pages.len()));
        known.get_mut(..over.len())?.copy_from_slice(over);
        self.pages.extend_from_slice(behind);
        Some(())
    }
}

impl Restore<'_, '_, Pv> {
    /// Keeps an X86_PV_P2M_FRAMES record. A guest that has grown has further ones.
    pub(super) fn p2m_frames(&mut self, first: u32, last: u32, pages: &[Pfn]) -> Result<(), RestoreError> {
        let kind = RecordKind::PvP2mFrames;
        let width = self.width(kind)?;
        if width == GuestWidth::Bits32 && last == u32::MAX {
            return self.unsupported(kind, "a 32-bit guest cannot count so many pages");
        }
        let per_page = width.frames_per_page();
        let (start, end) = (u64::from(first) / per_page, u64::from(last) / per_page + 1);
        if pages.len() as u64 != end - start {
            return self.unsupported(kind, "it has more or fewer pages than this part of the p2m takes");
        }
        let frames = &mut self.guest.frames;
        if frames.replace(start, pages).is_none() {
            return self.unsupported(kind, "between it and what came before is a gap");
        }
        frames.highest = frames.highest.max(Some(Pfn(last.into())));
        Ok(())
    }

    /// Writes the new p2m. An entry without a page is invalid.
    pub(super) fn write_p2m(&mut self, width: GuestWidth) -> Result<(), RestoreError> {
        let highest = self.guest.frames.highest.ok_or(RestoreError::Missing(RecordKind::PvP2mFrames))?;
        let all = std::mem::take(&mut self.guest.frames.pages);
        let mut first = Pfn(0);
        for (number, batch) in all.chunks(MAX_BATCH_PAGES).enumerate() {
            let mut pages = Vec::with_capacity(batch.len());
            for (index, pfn) in batch.iter().enumerate() {
                let index = number * MAX_BATCH_PAGES + index;
                pages.push(self.plain(NamedPage::P2m { index }, *pfn)?.page());
            }
            let Some(mapped) = self.map(&pages, Access::Write)? else { continue };
            for (index, page) in pages.iter().enumerate() {
                let mut contents = ZEROES;
                // Behind the last entry there may be something else.
                if !mapped.copy_out(index, &mut contents) {
                    return Err(self.unmapped(page.pfn));
                }
                self.put_frames(width, &mut contents, first, highest);
                self.copy_in(&mapped, index, page.pfn, &contents)?;
                first.0 += width.frames_per_page();
            }
            self.attend()?;
        }
        Ok(())
    }

    /// Puts the frames from pfn `first` to pfn `last` into a page of the p2m, as far as it reaches.
    fn put_frames(&self, width: GuestWidth, contents: &mut PageBuffer, first: Pfn, last: Pfn) {
        let mut lookup = self.guest.p2m.lookup();
        for (pfn, entry) in (first.0..=last.0).zip(contents.chunks_exact_mut(width.bytes().into())) {
            let frame = lookup.frame(Pfn(pfn)).map_or(width.invalid_frame(), |frame| frame.0);
            entry.iter_mut().zip(frame.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(records: &[(u64, &[u64])]) -> Option<Vec<u64>> {
        let mut frames = P2mFrames::default();
        for (start, pages) in records {
            frames.replace(*start, &pages.iter().copied().map(Pfn).collect::<Vec<_>>())?;
        }
        Some(frames.pages.iter().map(|pfn| pfn.0).collect())
    }

    #[test]
    fn later_records_replace_and_extend() {
        for (record, expected) in [
            ((3, &[4][..]), &[1, 2, 3, 4][..]),
            ((1, &[8, 9]), &[1, 8, 9]),
            ((1, &[9]), &[1, 9, 3]),
            ((0, &[4, 5, 6, 7]), &[4, 5, 6, 7]),
        ] {
            assert_eq!(known(&[(0, &[1, 2, 3]), record]).as_deref(), Some(expected));
        }
        let far = (1 << 32) / 512 - 1;
        assert_eq!(known(&[(1, &[1])]), None);
        assert_eq!(known(&[(0, &[1]), (far, &[2])]), None);
    }
}
