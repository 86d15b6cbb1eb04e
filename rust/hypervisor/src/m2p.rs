// SPDX-License-Identifier: GPL-3.0-or-later
//! Xen's machine-to-phys table: for each frame of the host, at which pfn its owner has it. It changes while domains run,
//! and says nothing of who the owner is: an entry is believed only if that guest's p2m leads back.

use std::{fmt, ptr::NonNull};

use xenmig_types::{Gfn, Pfn};

/// The mapped table. It is unmapped when it is dropped.
pub struct M2p {
    base: NonNull<u64>,
    frames: u64,
    /// Its drop unmaps the table.
    _mapping: Box<dyn Send>,
}

// SAFETY: the address is valid in every thread of the process for as long as `_mapping`, which is Send, lives.
unsafe impl Send for M2p {}
// SAFETY: it is only read, and volatile.
unsafe impl Sync for M2p {}

impl M2p {
    /// Takes a mapping of the table, which has an entry for each of `frames` frames. Dropping `mapping` must be what
    /// unmaps it.
    ///
    /// # Safety
    ///
    /// Until `mapping` is dropped, `base` must lead to `frames` aligned 64-bit words that stay mapped for reading, and no
    /// Rust reference to them may exist.
    #[must_use]
    pub unsafe fn new(base: NonNull<u64>, frames: u64, mapping: Box<dyn Send>) -> Self {
        Self { base, frames, _mapping: mapping }
    }

    /// Returns the number of entries: the highest mfn of the host, plus one.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns the entry of a frame as it is at this moment; `None` for a frame that the host does not have. What stands
    /// there may be any number: frames that no guest has, and such that are shared, are entered as very high ones.
    #[must_use]
    pub fn entry(&self, mfn: Gfn) -> Option<Pfn> {
        if mfn.0 >= self.frames {
            return None;
        }
        let index = usize::try_from(mfn.0).ok()?;
        // SAFETY: the index is below the number of words that `base` leads to (`new`).
        let word = unsafe { self.base.add(index) };
        // SAFETY: aligned and mapped (`new`); the hypervisor may write meanwhile, so the read is volatile.
        Some(Pfn(unsafe { word.read_volatile() }))
    }
}

impl fmt::Debug for M2p {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("M2p").field("frames", &self.frames).finish_non_exhaustive()
    }
}
