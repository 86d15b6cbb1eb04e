// SPDX-License-Identifier: GPL-3.0-or-later
//! One bit for each pfn, set and tested by several threads at once: which pages a domain has, which are dirty.

use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::region::{Region, index};

const WORD_BITS: u64 = 64;

/// A bitmap of atomics in sparse memory.
#[derive(Debug)]
pub(super) struct Bits {
    region: Region,
    bits: u64,
}

impl Bits {
    /// Makes a bitmap of `bits` clear bits.
    pub(super) fn new(bits: u64) -> io::Result<Self> {
        let bytes = bits.div_ceil(WORD_BITS).max(1) * WORD_BITS / 8;
        Ok(Self { region: Region::private(index(bytes))?, bits })
    }

    /// Returns the words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        let base = self.region.base().cast::<AtomicU64>();
        let length = self.region.bytes() / size_of::<AtomicU64>();
        // SAFETY: the region is aligned to pages, holds `length` words, zero being a valid AtomicU64, lives as long
        // as `self`, and is accessed through this function only.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), length) }
    }

    /// Returns how many bits there are.
    pub(super) const fn len(&self) -> u64 {
        self.bits
    }

    fn word(&self, bit: u64) -> Option<(&AtomicU64, u64)> {
        if bit >= self.bits {
            return None;
        }
        let word = self.words().get(index(bit / WORD_BITS))?;
        Some((word, 1 << (bit % WORD_BITS)))
    }

    /// Says whether a bit is set. One that does not exist is not.
    pub(super) fn get(&self, bit: u64) -> bool {
        self.word(bit).is_some_and(|(word, mask)| word.load(Ordering::Acquire) & mask != 0)
    }

    /// Sets a bit and says whether that changed it.
    pub(super) fn set(&self, bit: u64) -> bool {
        self.word(bit).is_some_and(|(word, mask)| {
            // Most pages are dirty already when they are written again: then a load does.
            word.load(Ordering::Acquire) & mask == 0 && word.fetch_or(mask, Ordering::AcqRel) & mask == 0
        })
    }

    /// Clears a bit and says whether that changed it.
    pub(super) fn clear(&self, bit: u64) -> bool {
        self.word(bit).is_some_and(|(word, mask)| word.fetch_and(!mask, Ordering::AcqRel) & mask != 0)
    }

    /// Sets all bits of a range, or clears them, and returns how many that changed.
    pub(super) fn assign(&self, range: Range<u64>, value: bool) -> u64 {
        let end = range.end.min(self.bits);
        let mut bit = range.start;
        let mut changed = 0;
        while bit < end {
            let until = (bit / WORD_BITS * WORD_BITS).saturating_add(WORD_BITS).min(end);
            let mask = (u64::MAX >> (WORD_BITS - (until - bit))) << (bit % WORD_BITS);
            if let Some(word) = self.words().get(index(bit / WORD_BITS)) {
                let before = if value {
                    word.fetch_or(mask, Ordering::AcqRel)
                } else {
                    word.fetch_and(!mask, Ordering::AcqRel)
                };
                changed += u64::from((if value { !before & mask } else { before & mask }).count_ones());
            }
            bit = until;
        }
        changed
    }

    /// Returns the first bit from `from` on, and before `end`, that is `value`.
    pub(super) fn find(&self, from: u64, end: u64, value: bool) -> Option<u64> {
        let mut first = from;
        for word in self.words().get(index(from / WORD_BITS)..index(end.div_ceil(WORD_BITS)))? {
            let word = word.load(Ordering::Acquire);
            let word = (if value { word } else { !word }) >> (first % WORD_BITS);
            if word != 0 {
                let found = first + u64::from(word.trailing_zeros());
                return (found < end).then_some(found);
            }
            first = (first / WORD_BITS + 1) * WORD_BITS;
        }
        None
    }

    /// Returns the highest set bit.
    pub(super) fn highest(&self) -> Option<u64> {
        let words = self.words();
        let at = words.iter().rposition(|word| word.load(Ordering::Acquire) != 0)?;
        let word = words.get(at)?.load(Ordering::Acquire);
        Some(at as u64 * WORD_BITS + u64::from(word.checked_ilog2()?))
    }

    /// Iterates over the runs of set bits before `end`, none longer than `longest`.
    pub(super) fn runs(&self, end: u64, longest: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = end.min(self.bits);
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = self.find(next, end, true)?;
            next = self.find(start, end, false).unwrap_or(end).min(start.saturating_add(longest));
            Some(start..next)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every operation gives what a plain vector of booleans gives.
        #[test]
        fn bits_are_a_vector_of_booleans(
            size in 1_u64..300,
            steps in prop::collection::vec((0_u64..320, 0_u64..320, any::<bool>()), 0..20),
            (end, longest) in (0_u64..320, 1_u64..100),
        ) {
            let bits = Bits::new(size).unwrap();
            let mut model = vec![false; index(size)];
            for (a, b, value) in steps {
                if a > b {
                    let old = model.get_mut(index(a)).map(|bit| std::mem::replace(bit, value));
                    let changed = if value { bits.set(a) } else { bits.clear(a) };
                    prop_assert_eq!(changed, old == Some(!value));
                } else {
                    let mut changed = 0;
                    for bit in model.iter_mut().take(index(b)).skip(index(a)) {
                        changed += u64::from(*bit != value);
                        *bit = value;
                    }
                    prop_assert_eq!(bits.assign(a..b, value), changed);
                }
            }
            let set: Vec<u64> = (0..size).filter(|bit| model[index(*bit)]).collect();
            prop_assert_eq!(bits.highest(), set.last().copied());
            let found: Vec<u64> = bits.runs(end, longest).flatten().collect();
            prop_assert_eq!(found, set.into_iter().filter(|bit| *bit < end).collect::<Vec<_>>());
            prop_assert!(bits.runs(end, longest).all(|run| run.end - run.start <= longest && !run.is_empty()));
            for bit in 0..size + 70 {
                prop_assert_eq!(bits.get(bit), model.get(index(bit)).copied().unwrap_or(false));
            }
        }
    }
}
