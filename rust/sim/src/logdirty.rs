// SPDX-License-Identifier: GPL-3.0-or-later
//! Log-dirty mode of one domain: which pages were written since the last CLEAN.
//!
//! Writers mark a page after they wrote to it. CLEAN and PEEK are called with every writer stopped, so a page is either
//! in the bitmap that CLEAN returns, with what was written before it, or in a later one.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use xenmig_hypervisor::{DirtyBitmap, DirtyCounts};
use xenmig_types::Pfn;

use crate::{bits::Bits, region::index};

/// The log-dirty bitmap and its switch.
#[derive(Debug)]
pub(super) struct LogDirty {
    on: AtomicBool,
    bits: Bits,
    /// A bit for each block of words that may have a bit set, so that a clean bitmap is fetched in no time.
    blocks: Bits,
    dirty: AtomicU64,
}

/// Words in a block, and pages in it.
const BLOCK_WORDS: usize = 64;
const BLOCK_PAGES: u64 = 64 * 64;

impl LogDirty {
    /// Makes a bitmap for pfns below `capacity`, with nothing dirty.
    pub(super) fn new(capacity: u64, on: bool) -> io::Result<Self> {
        Ok(Self {
            on: AtomicBool::new(on),
            bits: Bits::new(capacity)?,
            blocks: Bits::new(capacity.div_ceil(BLOCK_PAGES))?,
            dirty: AtomicU64::new(0),
        })
    }

    /// Says whether it is on.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Turns it on with nothing dirty. Returns `false` if it is on already. The writers are stopped.
    pub(super) fn enable(&self, p2m_pages: u64) -> bool {
        if self.is_on() {
            return false;
        }
        self.forget(p2m_pages);
        self.on.store(true, Ordering::Release);
        true
    }

    /// Turns it off.
    pub(super) fn disable(&self) {
        self.on.store(false, Ordering::Release);
    }

    /// Notes that a page was written.
    pub(super) fn mark(&self, pfn: Pfn) {
        if self.is_on() && self.bits.set(pfn.0) {
            self.blocks.set(pfn.0 / BLOCK_PAGES);
            self.dirty.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the statistics, 32 bits wide as in the domctl.
    pub(super) fn counts(&self) -> DirtyCounts {
        #[expect(clippy::cast_possible_truncation, reason = "the domctl's fields are 32 bits wide, and wrap")]
        let dirty_count = self.dirty.load(Ordering::Acquire) as u32;
        // The first write to a clean page is what faults.
        DirtyCounts { fault_count: dirty_count, dirty_count }
    }

    /// Copies the bitmap. The writers are stopped.
    pub(super) fn copy(&self, to: &mut DirtyBitmap) {
        to.fill(|words| {
            words.fill(0);
            for block in self.dirty_blocks() {
                let from = self.bits.words().iter().skip(block * BLOCK_WORDS);
                let to = words.iter_mut().skip(block * BLOCK_WORDS).take(BLOCK_WORDS);
                to.zip(from).for_each(|(to, word)| *to = word.load(Ordering::Acquire));
            }
        });
    }

    /// Clears the bitmap's first `pages` bits and the count. The writers are stopped.
    pub(super) fn forget(&self, pages: u64) {
        let end = index(pages.div_ceil(64));
        for block in self.dirty_blocks() {
            let first = block * BLOCK_WORDS;
            let words = self.bits.words().iter().take(end).skip(first).take(BLOCK_WORDS);
            words.for_each(|word| word.store(0, Ordering::Release));
            if end >= first + BLOCK_WORDS || end >= self.bits.words().len() {
                self.blocks.clear(block as u64);
            }
        }
        self.dirty.store(0, Ordering::Release);
    }

    /// Yields the blocks that may have a bit set.
    fn dirty_blocks(&self) -> impl Iterator<Item = usize> {
        let words = self.blocks.words().iter().map(|word| word.load(Ordering::Acquire)).enumerate();
        words.filter(|(_, word)| *word != 0).flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }
}
