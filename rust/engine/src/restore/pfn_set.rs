// SPDX-License-Identifier: GPL-3.0-or-later
//! The pages that an HVM domain was given: a sparse set of pfns, in blocks of one superpage.
//!
//! A pfn is entered when the hypervisor has given a page for it. So the set grows with the domain's own memory, which
//! its limit bounds, and not with the numbers in the stream: a pfn near 2^40 costs one block of 64 bytes. A dense guest
//! takes less than two bits per page.

use std::collections::BTreeMap;

use xenmig_types::Pfn;

/// 4 KiB pages of a superpage.
pub(super) const SUPERPAGE_PAGES: u64 = 512;
const BITS: u64 = u64::BITS as u64;
const WORDS: usize = 8;

/// Returns the number of the superpage that a pfn is in, and so of its block.
pub(super) const fn superpage_of(pfn: Pfn) -> u64 {
    pfn.0 / SUPERPAGE_PAGES
}

/// The pages of one superpage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SuperpageBlock([u64; WORDS]);

impl SuperpageBlock {
    const FULL: Self = Self([u64::MAX; WORDS]);

    /// Says whether a page of this superpage is in the set.
    pub(super) fn contains(&self, pfn: Pfn) -> bool {
        let Self(words) = self;
        words.get(word_of(pfn)).is_some_and(|word| word >> (pfn.0 % BITS) & 1 == 1)
    }

    fn word_mut(&mut self, pfn: Pfn) -> Option<&mut u64> {
        self.0.get_mut(word_of(pfn))
    }
}

const fn word_of(pfn: Pfn) -> usize {
    (pfn.0 % SUPERPAGE_PAGES / BITS) as usize
}

/// A set of pfns.
#[derive(Debug, Default)]
pub(super) struct PfnSet {
    /// Pieces that are not empty.
    blocks: BTreeMap<u64, SuperpageBlock>,
}

impl PfnSet {
    /// Returns the block that a pfn is in.
    pub(super) fn block(&self, pfn: Pfn) -> SuperpageBlock {
        self.blocks.get(&superpage_of(pfn)).copied().unwrap_or_default()
    }

    /// Says whether a page is in the set.
    pub(super) fn contains(&self, pfn: Pfn) -> bool {
        self.blocks.get(&superpage_of(pfn)).is_some_and(|block| block.contains(pfn))
    }

    /// Adds a page.
    pub(super) fn insert(&mut self, pfn: Pfn) {
        if let Some(word) = self.blocks.entry(superpage_of(pfn)).or_default().word_mut(pfn) {
            *word |= 1 << (pfn.0 % BITS);
        }
    }

    /// Adds all the pages of the superpage that a pfn is in.
    pub(super) fn insert_superpage(&mut self, pfn: Pfn) {
        self.blocks.insert(superpage_of(pfn), SuperpageBlock::FULL);
    }

    /// Removes a page.
    pub(super) fn remove(&mut self, pfn: Pfn) {
        let number = superpage_of(pfn);
        if let Some(block) = self.blocks.get_mut(&number) {
            if let Some(word) = block.word_mut(pfn) {
                *word &= !(1 << (pfn.0 % BITS));
            }
            if *block == SuperpageBlock::default() {
                self.blocks.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0..4_u8, 0..2000_u64, any::<bool>()), 0..60)) {
            let (mut set, mut model) = (PfnSet::default(), BTreeSet::new());
            for (what, low, far) in steps {
                let pfn = Pfn(if far { (1 << 40) - 1 - low } else { low });
                match what {
                    0 => {
                        set.insert_superpage(pfn);
                        let first = superpage_of(pfn) * SUPERPAGE_PAGES;
                        model.extend(first..first + SUPERPAGE_PAGES);
                    }
                    1 | 2 => {
                        set.insert(pfn);
                        model.insert(pfn.0);
                    }
                    _ => {
                        set.remove(pfn);
                        model.remove(&pfn.0);
                    }
                }
                let first = superpage_of(pfn) * SUPERPAGE_PAGES;
                for pfn in (first..first + SUPERPAGE_PAGES).map(Pfn) {
                    prop_assert_eq!(set.contains(pfn), model.contains(&pfn.0));
                    prop_assert_eq!(set.block(pfn).contains(pfn), model.contains(&pfn.0));
                }
            }
        }
    }
    #[test]
    fn empty_blocks_are_not_kept() {
        let mut set = PfnSet::default();
        for pfn in [Pfn(7), Pfn(600), Pfn(601)] {
            set.insert(pfn);
        }
        set.remove(Pfn(7));
        set.remove(Pfn(600));
        set.remove(Pfn(1 << 39));
        assert_eq!(set.blocks.keys().collect::<Vec<_>>(), [&1]);
    }
}
