// SPDX-License-Identifier: GPL-3.0-or-later
//! Log-dirty mode of one domain: which pages were written since the last CLEAN.
//!
//! Writers mark a page behind their write. CLEAN and PEEK are called with every writer stopped, so a page is either
//! in the bitmap that CLEAN returns, with what was written before it, or in a later one.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use xenmig_types::Pfn;

use super::{bits::Bits, region::index};
use crate::{DirtyBitmap, DirtyCounts};

/// The log-dirty bitmap and its switch.
#[derive(Debug)]
pub(super) struct LogDirty {
    on: AtomicBool,
    bits: Bits,
    dirty: AtomicU64,
}

impl LogDirty {
    /// Makes a bitmap for pfns below `capacity`, with nothing dirty.
    pub(super) fn new(capacity: u64, on: bool) -> io::Result<Self> {
        Ok(Self { on: AtomicBool::new(on), bits: Bits::new(capacity)?, dirty: AtomicU64::new(0) })
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
            for (to, word) in words.iter_mut().zip(self.bits.words()) {
                *to = word.load(Ordering::Acquire);
            }
        });
    }

    /// Clears the bitmap. The writers are stopped, and nothing beyond the p2m was ever marked.
    pub(super) fn forget(&self, p2m_pages: u64) {
        for word in self.bits.words().iter().take(index(p2m_pages.div_ceil(64))) {
            // Untouched words share one page of zeros: a store would give them memory of their own.
            if word.load(Ordering::Acquire) != 0 {
                word.store(0, Ordering::Release);
            }
        }
        self.dirty.store(0, Ordering::Release);
    }
}
