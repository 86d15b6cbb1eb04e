// SPDX-License-Identifier: GPL-3.0-or-later
//! Walking a bitmap of pfns. What is clean costs next to nothing: on a nearly clean bitmap this is downtime.

use xenmig_hypervisor::{HypervisorError, zeroed_words};
use xenmig_types::Pfn;

/// A batch has at most this many pages. libxc's batches, too, are this long wherever the bitmap has enough pages.
pub const MAX_BATCH_PAGES: usize = 1024;

const BITS: u64 = u64::BITS as u64;
/// This many words are compared with zero together, which takes a few vector instructions.
const BLOCK_WORDS: usize = 64;

/// A place in a bitmap: everything below it was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    next: u64,
}

impl Cursor {
    /// Takes the next pages that are set, at most 1024, into `batch`, which is emptied first. Returns `false` if there
    /// are none left. Where every page is set, batches begin at multiples of 1024, so that the receiver sees whole
    /// 2 MiB runs.
    pub(crate) fn next_batch(&mut self, words: &[u64], batch: &mut Vec<Pfn>) -> bool {
        batch.clear();
        for (base, mut word) in self.rest_of(words) {
            while word != 0 {
                if batch.len() == MAX_BATCH_PAGES {
                    return true;
                }
                let pfn = base + u64::from(word.trailing_zeros());
                batch.push(Pfn(pfn));
                self.next = pfn + 1;
                word &= word - 1;
            }
        }
        !batch.is_empty()
    }

    /// Returns the pfn below which everything was taken.
    pub(crate) const fn reached(&self) -> Pfn {
        Pfn(self.next)
    }

    /// Adds what is still ahead to `owed`, and returns how many pages of it were not owed before.
    pub(crate) fn owe_rest(&self, words: &[u64], owed: &mut Owed) -> u64 {
        let before = owed.count;
        for (base, word) in self.rest_of(words) {
            owed.add_word(base, word);
        }
        owed.count - before
    }

    /// Yields each word that has a bit set at or above the cursor, with the pfn of its bit 0.
    fn rest_of<'w>(&self, words: &'w [u64]) -> impl Iterator<Item = (u64, u64)> + use<'w> {
        let (first, below) = (self.next / BITS, self.next % BITS);
        let index = usize::try_from(first).unwrap_or(usize::MAX);
        let begun = words.get(index).map(|word| (first * BITS, word & (u64::MAX << below)));
        let whole = words.get(index.saturating_add(1)..).unwrap_or_default();
        let blocks = whole.chunks(BLOCK_WORDS).zip((first + 1..).step_by(BLOCK_WORDS));
        let rest = blocks
            .filter(|(block, _)| !is_clean(block))
            .flat_map(|(block, at)| block.iter().zip(at..).map(|(word, at)| (at * BITS, *word)));
        begun.into_iter().chain(rest).filter(|(_, word)| *word != 0)
    }
}

/// Pages that the final pass must send whatever the last CLEAN says.
#[derive(Debug)]
pub(crate) struct Owed {
    words: Vec<u64>,
    count: u64,
}

impl Owed {
    pub(crate) fn new(words: usize) -> Result<Self, HypervisorError> {
        Ok(Self { words: zeroed_words(words, "the bitmap of the pages owed")?, count: 0 })
    }

    /// Owes one page, and says whether it was not owed before.
    pub(crate) fn add(&mut self, pfn: Pfn) -> bool {
        let before = self.count;
        self.add_word(pfn.0 / BITS * BITS, 1 << (pfn.0 % BITS));
        self.count > before
    }

    /// Owes every page of a bitmap of the same size. Returns how many were not owed before.
    pub(crate) fn add_words(&mut self, words: &[u64]) -> u64 {
        let before = self.count;
        for (owed, word) in self.words.iter_mut().zip(words) {
            self.count += u64::from((word & !*owed).count_ones());
            *owed |= word;
        }
        self.count - before
    }

    /// Owes every page that `words` has and `without` has not; all three are of the same size.
    pub(crate) fn add_difference(&mut self, words: &[u64], without: &Self) {
        for ((owed, word), without) in self.words.iter_mut().zip(words).zip(&without.words) {
            self.count += u64::from((word & !without & !*owed).count_ones());
            *owed |= word & !without;
        }
    }

    /// Returns the words of the bitmap.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    fn add_word(&mut self, base: u64, bits: u64) {
        let index = usize::try_from(base / BITS).unwrap_or(usize::MAX);
        if let Some(word) = self.words.get_mut(index) {
            self.count += u64::from((bits & !*word).count_ones());
            *word |= bits;
        }
    }

    /// Adds every page that is owed to a bitmap of the same size.
    pub(crate) fn merge_into(&self, words: &mut [u64]) {
        for (word, owed) in words.iter_mut().zip(&self.words) {
            *word |= owed;
        }
    }
}

/// Returns how many pages a bitmap holds.
pub(crate) fn count(words: &[u64]) -> u64 {
    let dirty = words.chunks(BLOCK_WORDS).filter(|block| !is_clean(block));
    dirty.flatten().map(|word| u64::from(word.count_ones())).sum()
}

fn is_clean(block: &[u64]) -> bool {
    block.iter().fold(0, |all, word| all | word) == 0
}

/// Says whether a bitmap holds a page.
pub(crate) fn contains(words: &[u64], pfn: Pfn) -> bool {
    let word = usize::try_from(pfn.0 / BITS).ok().and_then(|index| words.get(index));
    word.is_some_and(|word| word >> (pfn.0 % BITS) & 1 == 1)
}

/// Sets the bits of the first `pages` pages.
pub(crate) fn set_all(words: &mut [u64], pages: u64) {
    words.fill(u64::MAX);
    let used = pages % BITS;
    if used != 0
        && let Some(last) = words.last_mut()
    {
        *last = (1 << used) - 1;
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the bitmaps of these tests are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bitmap(pfns: &[u64], pages: u64) -> Vec<u64> {
        let mut words = vec![0; pages.div_ceil(BITS) as usize];
        for pfn in pfns {
            words[(pfn / BITS) as usize] |= 1 << (pfn % BITS);
        }
        words
    }

    fn batches(words: &[u64]) -> Vec<Vec<u64>> {
        let (mut cursor, mut batch, mut all) = (Cursor::default(), Vec::new(), Vec::new());
        while cursor.next_batch(words, &mut batch) {
            all.push(batch.iter().map(|pfn| pfn.0).collect());
        }
        all
    }

    proptest! {
        #[test]
        fn filled_batches_are_the_set_bits_cut_at_1024(pfns in proptest::collection::btree_set(0_u64..10_000, 0..4000)) {
            let pfns: Vec<_> = pfns.into_iter().collect();
            let want: Vec<Vec<u64>> = pfns.chunks(MAX_BATCH_PAGES).map(<[u64]>::to_vec).collect();
            prop_assert_eq!(batches(&bitmap(&pfns, 10_000)), want);
        }

        #[test]
        fn what_is_ahead_and_what_was_taken_is_everything(
            pfns in proptest::collection::btree_set(0_u64..5000, 0..3000),
            owed_before in proptest::collection::btree_set(0_u64..5000, 0..50),
            taken in 0_usize..5,
        ) {
            let pfns: Vec<_> = pfns.into_iter().collect();
            let words = bitmap(&pfns, 5000);
            let (mut cursor, mut batch) = (Cursor::default(), Vec::new());
            for _ in 0..taken {
                cursor.next_batch(&words, &mut batch);
            }
            let mut owed = Owed::new(words.len()).unwrap();
            for pfn in &owed_before {
                prop_assert!(owed.add(Pfn(*pfn)) && !owed.add(Pfn(*pfn)));
            }
            let new = cursor.owe_rest(&words, &mut owed);
            let mut want: std::collections::BTreeSet<u64> = pfns.iter().copied().skip(taken * MAX_BATCH_PAGES).collect();
            let added = want.difference(&owed_before).count();
            want.extend(&owed_before);
            prop_assert_eq!(new, added as u64);
            prop_assert_eq!(owed.count, want.len() as u64);
            let mut merged = vec![0; words.len()];
            owed.merge_into(&mut merged);
            prop_assert_eq!(merged, bitmap(&want.into_iter().collect::<Vec<_>>(), 5000));
        }
    }

    #[test]
    fn set_all_stops_at_the_last_page() {
        for pages in [1, 63, 64, 65, 1024, 1025] {
            let mut words = vec![0; u64::div_ceil(pages, BITS) as usize];
            set_all(&mut words, pages);
            assert_eq!(count(&words), pages);
            assert_eq!(batches(&words).concat(), (0..pages).collect::<Vec<_>>());
        }
    }
}
