// SPDX-License-Identifier: GPL-3.0-or-later
//! The operations that depend on the kind of guest, like libxc's `struct xc_sr_restore_ops`. One set of them is chosen by
//! the domain's kind. None is called once per page, except for pages that hold frames and pages that are compared.

use std::fmt;

use xenmig_hypervisor::PageBuffer;
use xenmig_stream::Record;
use xenmig_types::{Gfn, Pfn};

use super::{
    error::RestoreError, events::RestoreProgress, static_data::StaticData, target::Target,
    typed_pfn::TypedPfn,
};

/// What is known of a guest of one kind that is being restored, and what is done to it.
pub(super) trait RestoreOps: fmt::Debug {
    /// Returns the first pfn at which the guest cannot have a page, or why a PAGE_DATA record must not come yet.
    fn pfn_limit(&self) -> Result<Pfn, &'static str>;

    /// Says whether the domain was given a page at a pfn.
    fn is_populated(&self, pfn: Pfn) -> bool;

    /// Returns the frames of pages. The error is the first pfn at which the domain has no page.
    fn frames(&self, pages: &[TypedPfn]) -> Result<Vec<Gfn>, Pfn>;

    /// Brings the domain's pages into line with the types of a batch: takes away pages, and, if they will be filled
    /// (`fills`) rather than compared, populates those that are missing.
    fn settle(
        &mut self,
        batch: &[TypedPfn],
        fills: bool,
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError>;

    /// Says whether page tables hold frames, which are pfns in the stream. If not, their contents are like any other's.
    fn has_page_tables(&self) -> bool {
        false
    }

    /// Copies a page table that holds frames from `sent` to `here`, with this host's frames instead of pfns. Pages that an
    /// entry names and the domain lacks are populated. `offset` is where the PAGE_DATA record begins.
    fn localise(
        &mut self,
        _table: TypedPfn,
        sent: &PageBuffer,
        here: &mut PageBuffer,
        _offset: u64,
        _target: &Target<'_>,
        _progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        *here = *sent;
        Ok(())
    }

    /// Says whether a page of the domain, which contains `here`, is what was sent.
    fn is_same(
        &self,
        _page: TypedPfn,
        sent: &PageBuffer,
        here: &PageBuffer,
        _offset: u64,
    ) -> Result<bool, RestoreError> {
        Ok(sent == here)
    }

    /// Applies a record that only one kind of guest has, or keeps it until END. `offset` is where it begins.
    fn apply(
        &mut self,
        record: Record,
        offset: u64,
        static_data: &StaticData,
        target: &Target<'_>,
    ) -> Result<(), RestoreError>;

    /// Applies what was kept until END, and connects the guest to its toolstack.
    fn finish(
        &mut self,
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<SharedFrames, RestoreError>;
}

/// Where the pages are that a guest shares with its toolstack, if it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SharedFrames {
    pub(super) store: Option<Gfn>,
    pub(super) console: Option<Gfn>,
}
