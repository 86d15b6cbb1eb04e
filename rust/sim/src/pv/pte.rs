// SPDX-License-Identifier: GPL-3.0-or-later
//! Entries of a PV guest's page tables, and what becomes of them: as scripts name them.

use xenmig_types::Pfn;

/// Where an entry of a page table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PteAt {
    /// The page table.
    pub table: Pfn,
    /// Its slot, 0 to 511.
    pub slot: u16,
}

/// What an entry of an L1 page table becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PteChange {
    /// Not present, and all zeros.
    Clear,
    /// It leads to this page, with the flags that it had; writable unless the page must not be.
    Map(Pfn),
    /// What it leads to was accessed and written, or that was forgotten.
    Touch,
}

impl PteAt {
    pub(super) fn new(table: Pfn, slot: u64) -> Self {
        Self { table, slot: u16::try_from(slot).unwrap_or(u16::MAX) }
    }
}
