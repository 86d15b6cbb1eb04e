// SPDX-License-Identifier: GPL-3.0-or-later
//! After a VERIFY record the sender, whose guest is suspended, sends the whole memory once more: pages are compared and
//! nothing is written. Every difference is counted, and END fails with the sum.
//!
//! A hole of the sender that is a page here is not a difference but is taken away as before: until Xen 4.22 the log-dirty
//! bitmap does not show that a page went, so this pass may be the first to tell.

use xenmig_stream::RecordKind;
use xenmig_types::{Domid, Pfn};

use super::error::RestoreError;

/// What the comparison has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verification {
    /// Pages whose contents differ, or that are missing.
    differing: u64,
    first: Option<Pfn>,
    /// PAGE_DATA has come since VERIFY.
    has_pages: bool,
}

impl Verification {
    /// Counts a page that differs.
    pub(super) fn differs(&mut self, pfn: Pfn) {
        self.differing += 1;
        self.first.get_or_insert(pfn);
    }

    /// Notes that PAGE_DATA has come.
    pub(super) const fn note_pages(&mut self) {
        self.has_pages = true;
    }

    /// Fails if there was a difference, or if nothing was compared. `offset` is where END begins.
    pub(super) const fn check(&self, domid: Domid, offset: u64) -> Result<(), RestoreError> {
        match self.first {
            Some(first) => Err(RestoreError::Differs { domid, pages: self.differing, first }),
            None if self.has_pages => Ok(()),
            None => {
                let (kind, why) = (RecordKind::End, "PAGE_DATA must come between VERIFY and it");
                Err(RestoreError::Unsupported { kind, offset, why })
            }
        }
    }
}
