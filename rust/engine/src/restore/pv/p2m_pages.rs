// SPDX-License-Identifier: GPL-3.0-or-later
//! The pages that the guest's own p2m is on. The stream names them in advance, and at END the new p2m is written over their
//! contents.

use xenmig_hypervisor::{Access, PageBuffer};
use xenmig_stream::RecordKind;
use xenmig_types::{Pfn, pv::GuestWidth};

use super::{
    super::{
        error::RestoreError,
        events::RestoreProgress,
        mapped_pages::{MappedPages, ZEROES},
        named_page::NamedPage,
        target::Target,
    },
    frame_map::FrameMap,
};
use crate::bitmap::MAX_BATCH_PAGES;

/// What X86_PV_P2M_FRAMES records have said.
#[derive(Debug, Default)]
pub(super) struct P2mPages {
    /// The pages of the p2m, beginning with the one that holds pfn 0.
    pages: Vec<Pfn>,
    /// The highest pfn that the guest can have.
    highest: Option<Pfn>,
}

impl P2mPages {
    /// Returns the highest pfn that the guest can have; `None` before the first record.
    pub(super) const fn highest(&self) -> Option<Pfn> {
        self.highest
    }

    /// Adds the pages that hold the entries of pfns `first` to `last`. A guest that has grown has further records. The error
    /// says why such a record is not valid.
    pub(super) fn add(
        &mut self,
        width: GuestWidth,
        first: u32,
        last: u32,
        pages: &[Pfn],
    ) -> Result<(), &'static str> {
        if width == GuestWidth::Bits32 && last == u32::MAX {
            return Err("a 32-bit guest cannot have that many pages");
        }
        let per_page = width.frames_per_page();
        let (start, end) = (u64::from(first) / per_page, u64::from(last) / per_page + 1);
        if Some(pages.len() as u64) != end.checked_sub(start) {
            return Err("it has more or fewer pages than this part of the p2m takes");
        }
        self.replace(start, pages).ok_or("there is a gap between it and what came before")?;
        self.highest = self.highest.max(Some(Pfn(last.into())));
        Ok(())
    }

    /// Replaces the known pages from number `start` on, and appends the rest. Returns `None` if that would leave a gap: what
    /// is kept is never more than what came.
    fn replace(&mut self, start: u64, pages: &[Pfn]) -> Option<()> {
        let known = self.pages.get_mut(usize::try_from(start).ok()?..)?;
        let (over, further) = pages.split_at(known.len().min(pages.len()));
        known.get_mut(..over.len())?.copy_from_slice(over);
        self.pages.extend_from_slice(further);
        Some(())
    }

    /// Writes the new p2m. An entry without a page is invalid.
    pub(super) fn write(
        &self,
        width: GuestWidth,
        frames: &FrameMap,
        target: &Target<'_>,
        progress: &RestoreProgress,
    ) -> Result<(), RestoreError> {
        let highest = self.highest.ok_or(RestoreError::Missing(RecordKind::PvP2mFrames))?;
        let mut first = Pfn(0);
        for (number, batch) in self.pages.chunks(MAX_BATCH_PAGES).enumerate() {
            let mut pages = Vec::with_capacity(batch.len());
            for (index, pfn) in batch.iter().enumerate() {
                let index = number * MAX_BATCH_PAGES + index;
                pages.push(frames.ordinary(NamedPage::P2m { index }, *pfn)?.page());
            }
            let mapped = MappedPages::new(target, &pages, frames.frames(&pages), Access::Write)?;
            for index in 0..pages.len() {
                let mut contents = ZEROES;
                // After the last entry there may be something else.
                mapped.copy_out(index, &mut contents)?;
                put_frames(frames, width, &mut contents, first, highest);
                mapped.copy_in(index, &contents)?;
                first.0 += width.frames_per_page();
            }
            target.attend(progress)?;
        }
        Ok(())
    }
}

/// Puts the frames of pfns `first` to `last` into a page of the p2m, or those that have room in it.
fn put_frames(frames: &FrameMap, width: GuestWidth, contents: &mut PageBuffer, first: Pfn, last: Pfn) {
    let mut lookup = frames.lookup();
    for (pfn, entry) in (first.0..=last.0).zip(contents.chunks_exact_mut(width.bytes().into())) {
        let frame = lookup.frame(Pfn(pfn)).map_or(width.invalid_frame(), |frame| frame.0);
        entry.iter_mut().zip(frame.to_le_bytes()).for_each(|(to, byte)| *to = byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(records: &[(u64, &[u64])]) -> Option<Vec<u64>> {
        let mut p2m = P2mPages::default();
        for (start, pages) in records {
            p2m.replace(*start, &pages.iter().copied().map(Pfn).collect::<Vec<_>>())?;
        }
        Some(p2m.pages.iter().map(|pfn| pfn.0).collect())
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

    #[test]
    fn a_record_that_ends_before_it_begins_is_refused() {
        let mut p2m = P2mPages::default();
        assert!(p2m.add(GuestWidth::Bits64, 5000, 10, &[]).is_err());
        assert_eq!(p2m.highest(), None);
    }
}
