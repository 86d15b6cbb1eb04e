// SPDX-License-Identifier: GPL-3.0-or-later
//! What is wrong with a page table of a PV guest.

use xenmig_types::Gfn;

/// Why a page table of a PV guest cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// An entry names a frame that the guest does not own. While the guest runs that is to be expected: an update in two
    /// steps, a page that has just changed hands, a frame of another domain that is mapped by a grant.
    #[error("entry {index} names mfn {mfn}, which is none of the guest's")]
    Frame {
        /// The entry's number.
        index: usize,
        /// What it names.
        mfn: Gfn,
    },
    /// No guest that can be migrated has such a table.
    #[error("entry {index}: {why}")]
    Unfit {
        /// The entry's number.
        index: usize,
        /// Why.
        why: &'static str,
    },
}
