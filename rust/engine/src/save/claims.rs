// SPDX-License-Identifier: GPL-3.0-or-later
//! Which pages a round claims, and which the final pass must send whatever the last CLEAN says.

use xenmig_hypervisor::DirtyBitmap;
use xenmig_types::Pfn;

use super::save_error::SaveError;
use crate::bitmap::{self, Cursor, Owed};

/// The bitmaps of a save.
#[derive(Debug)]
pub(crate) struct Claims {
    /// What the current round claims.
    pub(crate) bitmap: DirtyBitmap,
    /// What the final pass must send in any case.
    owed: Owed,
    /// Holes that the first round was spared: nothing says so if one becomes a page that is never written.
    holes: Option<Owed>,
    /// Nothing at or above this pfn was ever sent, so holes there need not be sent: a first round that was stopped midway.
    pub(crate) holes_below: Pfn,
}

impl Claims {
    pub(crate) fn new(bitmap: DirtyBitmap) -> Result<Self, SaveError> {
        let owed = Owed::new(bitmap.words().len())?;
        Ok(Self { bitmap, owed, holes: None, holes_below: Pfn(u64::MAX) })
    }

    /// Claims every pfn.
    pub(crate) fn claim_all(&mut self) {
        let pages = self.bitmap.pages();
        self.bitmap.fill(|words| bitmap::set_all(words, pages));
    }

    /// Returns how many pages the bitmap holds.
    pub(crate) fn count(&self) -> u64 {
        bitmap::count(self.bitmap.words())
    }

    /// Takes the next pages, at most 1024, into `pfns`. Returns `false` if there are none left.
    pub(crate) fn next_batch(&self, cursor: &mut Cursor, pfns: &mut Vec<Pfn>) -> bool {
        cursor.next_batch(self.bitmap.words(), pfns)
    }

    /// Owes one page to the final pass, and says whether it was not owed before.
    pub(crate) fn owe(&mut self, pfn: Pfn) -> bool {
        self.owed.add(pfn)
    }

    /// Owes what the bitmap holds from the cursor on. Returns how many pages of it were not owed before.
    pub(crate) fn owe_rest(&mut self, cursor: Cursor) -> u64 {
        cursor.owe_rest(self.bitmap.words(), &mut self.owed)
    }

    /// Adds what is owed to the bitmap: the final pass claims it.
    pub(crate) fn claim_owed(&mut self) {
        let owed = &self.owed;
        self.bitmap.fill(|words| owed.merge_into(words));
    }

    /// Claims what is not a hole, and remembers the holes. `pages` has the pfns that are not.
    pub(crate) fn claim_only(&mut self, pages: &Owed) -> Result<(), SaveError> {
        let mut holes = Owed::new(self.bitmap.words().len())?;
        self.bitmap.fill(|words| {
            holes.add_difference(words, pages);
            words.copy_from_slice(pages.words());
        });
        self.holes = Some(holes);
        Ok(())
    }

    /// Owes the holes that the first round was spared, because some may have become pages.
    pub(crate) fn owe_holes(&mut self) -> u64 {
        self.holes.take().map_or(0, |holes| self.owed.add_words(holes.words()))
    }
}
