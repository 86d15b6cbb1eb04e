// SPDX-License-Identifier: GPL-3.0-or-later
//! Where a domain's pages lie: RAM from pfn 0 on, around the special pages of a PVH guest, and a test's own page.

use std::ops::Range;

use crate::memory::Memory;

/// 4 GiB, in pages.
const FOUR_GIB: u64 = 1 << 20;
/// Where RAM ends below 4 GiB when special pages lie there.
const LOW_RAM_END: u64 = 0xf0000;
/// The special pages of a PVH guest: its p2m is 0xff000 pfns long, however little RAM it has.
const SPECIAL_PAGES: Range<u64> = 0xfeff8..0xff000;

/// Where a domain's pages lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Pages of RAM, holes included.
    pub(super) ram_pages: u64,
    special_pages: bool,
    highest_pfn: Option<u64>,
}

impl Layout {
    /// Lays out this number of pages of RAM, with the special pages of a PVH guest and a further page if they are asked for.
    pub(super) const fn new(ram_pages: u64, special_pages: bool, highest_pfn: Option<u64>) -> Self {
        Self { ram_pages, special_pages, highest_pfn }
    }

    /// Returns the pfn of a RAM page.
    pub(super) const fn ram_pfn(&self, page: u64) -> u64 {
        if self.special_pages && page >= LOW_RAM_END { page - LOW_RAM_END + FOUR_GIB } else { page }
    }

    /// Says whether a page at this pfn is one of the special pages.
    pub(super) fn is_special(&self, pfn: u64) -> bool {
        self.special_pages && SPECIAL_PAGES.contains(&pfn)
    }

    /// Returns the pfn below which pages can be: what a restore may need, and the test's own page.
    pub(super) fn capacity(&self) -> u64 {
        (FOUR_GIB + self.ram_pages).max(self.highest_pfn.map_or(0, |pfn| pfn + 1))
    }

    /// Returns how many pages the domain may have.
    pub(super) fn max_pages(&self) -> u64 {
        self.ranges().map(|range| range.end - range.start).sum()
    }

    /// Gives the domain all its pages but the holes.
    pub(super) fn populate(&self, memory: &Memory, holes: &[Range<u64>]) {
        for range in self.ranges() {
            memory.give_zeroed(range);
        }
        for hole in holes {
            memory.take_untouched(hole.clone());
        }
        memory.note_highest();
    }

    /// Returns the ranges of pfns that have pages where there is no hole. They do not overlap.
    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let low_end = if self.special_pages { self.ram_pages.min(LOW_RAM_END) } else { self.ram_pages };
        let high = FOUR_GIB..FOUR_GIB + (self.ram_pages - low_end);
        let special = if self.special_pages { SPECIAL_PAGES } else { 0..0 };
        let ranges = [0..low_end, special, high];
        let extra = self.highest_pfn.filter(|pfn| ranges.iter().all(|range| !range.contains(pfn)));
        ranges.into_iter().chain(extra.map(|pfn| pfn..pfn + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_goes_around_the_special_pages() {
        let layout = Layout::new(5 << 18, true, None);
        assert_eq!(layout.ram_pfn(LOW_RAM_END - 1), LOW_RAM_END - 1);
        assert_eq!(layout.ram_pfn(LOW_RAM_END), FOUR_GIB);
        let memory = Memory::new(layout.capacity(), 0).unwrap();
        layout.populate(&memory, &[]);
        assert_eq!(memory.total_pages(), (5 << 18) + 8);
        assert_eq!(memory.total_pages(), layout.max_pages());
        assert_eq!(memory.p2m_pages(), layout.ram_pfn(layout.ram_pages - 1) + 1);
        assert!(memory.populated().get(0xfeff8) && !memory.populated().get(0xff000));
    }

    #[test]
    fn a_small_pvh_guest_has_a_p2m_of_almost_4_gib() {
        let layout = Layout::new(128 << 8, true, None);
        let memory = Memory::new(layout.capacity(), 0).unwrap();
        layout.populate(&memory, &[]);
        assert_eq!(memory.p2m_pages(), 1_044_480);
        assert_eq!(memory.total_pages(), 32768 + 8);
    }
}
