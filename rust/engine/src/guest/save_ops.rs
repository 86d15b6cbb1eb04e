// SPDX-License-Identifier: GPL-3.0-or-later
//! What saving a guest takes that depends on its kind.

use std::fmt;

use xenmig_hypervisor::{Hypervisor, PageBuffer};
use xenmig_types::{Domid, Gfn, PageType, Pfn};

use super::table_fault::TableFault;
use crate::{save::save_caller::Caller, save::save_error::SaveError, watch::Watch};

/// No frame: what a p2m says where there is no page.
pub(crate) const NO_FRAME: Gfn = Gfn(u64::MAX);

/// A domain on its host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Domain<'a> {
    pub(crate) host: &'a dyn Hypervisor,
    pub(crate) domid: Domid,
}

/// The watch over a save.
pub(crate) type SaveWatch<'a> = Watch<'a, dyn Caller + 'a>;

/// What saving a guest takes that depends on its kind.
pub(crate) trait SaveOps: fmt::Debug {
    /// Says whether a device model may write to the guest's memory without the hypervisor noticing.
    fn has_device_model(&self) -> bool;

    /// Returns the number of pfns, from 0 on, at which the guest may have pages.
    fn p2m_size(&self, domain: Domain<'_>, watch: &mut SaveWatch<'_>) -> Result<u64, SaveError>;

    /// Appends the headers and the records that precede the memory.
    fn front(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError>;

    /// Finds the frames behind pfns. Returns how many of them are [`NO_FRAME`].
    fn frames(&self, pfns: &[Pfn], frames: &mut Vec<Gfn>) -> usize;

    /// Appends a page table as the stream has it, with pfns for mfns. After an error some of it may be there.
    fn normalise(&self, kind: PageType, table: &PageBuffer, out: &mut Vec<u8>) -> Result<(), TableFault>;

    /// Fails if what was learnt of the p2m no longer holds.
    fn check_p2m(&self) -> Result<(), SaveError>;

    /// Fails if a guest that has just been suspended has memory beyond the p2m that the save began with, which was
    /// `before` pages: that memory would be lost.
    fn check_size(&self, domain: Domain<'_>, watch: &mut SaveWatch<'_>, before: u64)
    -> Result<(), SaveError>;

    /// Appends the state of the suspended guest.
    fn state(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError>;
}

/// The error of a p2m that grew from `before` to `now` pages, if it did.
pub(crate) const fn check_growth(domid: Domid, before: u64, now: u64) -> Result<(), SaveError> {
    if now > before { Err(SaveError::P2mGrew { domid, before, now }) } else { Ok(()) }
}
