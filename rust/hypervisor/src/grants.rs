// SPDX-License-Identifier: GPL-3.0-or-later
//! Grants that a toolstack makes for a new domain, before it runs: the domains that serve its console and xenstore map
//! their pages by them, with no right over the domain's other memory.

use xenmig_types::{Domid, Gfn};

/// An entry of the grant table that is kept for the toolstack (`GNTTAB_RESERVED_*` of `public/grant_table.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReservedEntry {
    /// `GNTTAB_RESERVED_CONSOLE`.
    Console = 0,
    /// `GNTTAB_RESERVED_XENSTORE`.
    Xenstore = 1,
}

/// A grant in a reserved entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedGrant {
    /// Where it stands.
    pub entry: ReservedEntry,
    /// The domain that may map the page, for reading and writing.
    pub backend: Domid,
    /// The page. An entry of version 1 has 32 bits for it.
    pub gfn: Gfn,
}
