// SPDX-License-Identifier: GPL-3.0-or-later
//! What differs between the kinds of guests when they are restored: which pfns there can be, by which frame the
//! hypervisor knows a page, when a page is given and taken, whether contents are changed on their way, and the records
//! that only one kind has.

use xenmig_hypervisor::PageBuffer;
use xenmig_stream::Record;
use xenmig_types::{Gfn, PageType, Pfn};

use super::{Restore, RestoreError, pages::Page};

/// A kind of guest: what is known of one that is being restored, and what is done to it.
pub(super) trait Guest: Sized {
    /// Returns the first pfn at which this guest cannot have a page. `offset` is where the PAGE_DATA record begins.
    fn pfn_limit(&self, offset: u64) -> Result<Pfn, RestoreError>;

    /// Says whether the domain was given a page at a pfn.
    fn contains(&self, pfn: Pfn) -> bool;

    /// Returns the frames of pages that the domain was given; the first one that it was not given is the error.
    fn frames(&self, pages: &[Page]) -> Result<Vec<Gfn>, Pfn>;

    /// Takes note that the domain was given a page at a pfn, which is this frame. Returns `None` for a frame that the
    /// guest cannot have.
    fn insert(&mut self, pfn: Pfn, frame: Gfn) -> Option<()>;

    /// Brings the domain's pages in line with the types of the batch: takes pages, and, unless pages are only compared,
    /// gives those that are missing.
    fn settle(restore: &mut Restore<'_, '_, Self>) -> Result<(), RestoreError>;

    /// Says whether pages of this type hold frames, which are pfns in the stream.
    fn holds_frames(_kind: PageType) -> bool {
        false
    }

    /// Copies a page [with frames](Self::holds_frames), from `sent`, which has pfns in it, to `here`, with the frames of
    /// here. Returns the pfns at which the domain has no page; if there are any, `here` is of no use. `offset` is where
    /// the PAGE_DATA record begins.
    fn localise(
        &self,
        _page: Page,
        _sent: &PageBuffer,
        _here: &mut PageBuffer,
        _offset: u64,
    ) -> Result<Vec<Pfn>, RestoreError> {
        Ok(Vec::new())
    }

    /// Applies a record that one kind of guest has, or keeps it until END.
    fn apply(restore: &mut Restore<'_, '_, Self>, record: Record) -> Result<(), RestoreError>;

    /// Applies what was kept, at END.
    fn finish(restore: &mut Restore<'_, '_, Self>) -> Result<(), RestoreError>;
}
