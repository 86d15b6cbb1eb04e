// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests in the descriptions of domains: what makes a domain one, and what its kernel does at a moment of a script.

use serde::Deserialize;
use xenmig_sim::{Action, P2mForm, PteAt, PteChange, PvConfig, SimDomain};
use xenmig_types::{Pfn, pv::GuestWidth};

use crate::failure::Failure;

/// What makes a domain a PV guest.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PvSpec {
    /// The width of its words in bytes: 4 or 8.
    width: u8,
    /// Whether its p2m is a tree, and no list.
    tree: bool,
    /// The slot of an L2 table that the list begins at.
    first_slot: u16,
    /// pfns that the p2m has entries for after the last page.
    spare_pfns: u64,
    /// vCPUs that were never brought up.
    offline_vcpus: Vec<u32>,
    /// Whether a vCPU has an extended context.
    extended: bool,
    /// Size of what XSAVE saves of a vCPU; 0 for nothing.
    xsave_bytes: usize,
    /// MSRs of a vCPU that are not 0.
    msrs: usize,
    /// Whether the kernel clears a page before it gives it back.
    scrubs: bool,
}

impl Default for PvSpec {
    fn default() -> Self {
        let PvConfig { width, spare_pfns, offline_vcpus, extended, xsave_bytes, msrs, scrubs, .. } =
            PvConfig::default();
        Self {
            width: width.bytes(),
            tree: false,
            first_slot: 0,
            spare_pfns,
            offline_vcpus,
            extended,
            xsave_bytes,
            msrs,
            scrubs,
        }
    }
}

impl PvSpec {
    /// Returns the PV part of the simulated domain's configuration.
    pub(crate) fn config(&self) -> Result<PvConfig, Failure> {
        let width = GuestWidth::from_bytes(self.width)
            .ok_or_else(|| Failure::invalid(format!("words of {} bytes: give 4 or 8", self.width)))?;
        let p2m = if self.tree { P2mForm::Tree } else { P2mForm::List { first_slot: self.first_slot } };
        Ok(PvConfig {
            width,
            p2m,
            spare_pfns: self.spare_pfns,
            offline_vcpus: self.offline_vcpus.clone(),
            extended: self.extended,
            xsave_bytes: self.xsave_bytes,
            msrs: self.msrs,
            scrubs: self.scrubs,
            ..PvConfig::default()
        })
    }
}

/// An entry of a page table.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    /// The one by which the kernel maps this page among all its memory.
    Of(u64),
    /// The page table's pfn, and the slot.
    At(u64, u16),
}

impl Entry {
    /// Finds it; `None` if no page table maps the page.
    fn place(&self, domain: &SimDomain) -> Option<PteAt> {
        match *self {
            Self::Of(pfn) => domain.pte_of(Pfn(pfn)),
            Self::At(table, slot) => Some(PteAt { table: Pfn(table), slot }),
        }
    }
}

/// What the kernel of a PV guest does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PvAction {
    /// An entry becomes zero.
    Clear(Entry),
    /// An entry leads to a page.
    Map(Entry, u64),
    /// An entry's accessed and dirty bits change.
    Touch(Entry),
    /// An entry leads to a frame that is none of the guest's.
    Tear(Entry),
    /// All such entries get back what they were.
    Mend,
    /// A page of data becomes an L1 table.
    MakeTable(u64),
    /// Such a table becomes a page of data.
    UnmakeTable(u64),
    /// The kernel says that the pages of its p2m have changed.
    BumpGeneration,
    /// The p2m gets this many entries more.
    GrowP2m(u64),
}

impl PvAction {
    /// Returns the action in a domain; `None` if it is about an entry that is not there.
    pub(crate) fn action(&self, domain: &SimDomain) -> Option<Action> {
        let place = |entry: &Entry| entry.place(domain);
        Some(match self {
            Self::Clear(entry) => Action::WritePte(place(entry)?, PteChange::Clear),
            Self::Map(entry, pfn) => Action::WritePte(place(entry)?, PteChange::Map(Pfn(*pfn))),
            Self::Touch(entry) => Action::WritePte(place(entry)?, PteChange::Touch),
            Self::Tear(entry) => Action::TearPte(place(entry)?),
            Self::Mend => Action::MendPtes,
            Self::MakeTable(pfn) => Action::MakeTable(Pfn(*pfn)),
            Self::UnmakeTable(pfn) => Action::UnmakeTable(Pfn(*pfn)),
            Self::BumpGeneration => Action::BumpGeneration,
            Self::GrowP2m(pfns) => Action::GrowP2m(*pfns),
        })
    }
}
