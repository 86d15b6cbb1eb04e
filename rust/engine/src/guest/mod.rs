// SPDX-License-Identifier: GPL-3.0-or-later
//! What differs between kinds of guests: how long the p2m is, by which frame a pfn is known, which pages must not be sent
//! as they are, the static data, and the state that follows the memory.

pub(crate) mod hvm;
mod pv;

use xenmig_hypervisor::{Hypervisor, PageBuffer};
use xenmig_stream::encode;
use xenmig_types::{DomainInfo, Domid, Gfn, GuestKind, PageType, Pfn};

use crate::SaveError;
use pv::PvGuest;

/// No frame: what a p2m says where there is no page.
pub(crate) const NO_FRAME: Gfn = Gfn(u64::MAX);

/// The guest that is being saved.
#[derive(Debug)]
pub(crate) enum Guest {
    /// HVM or PVH.
    Hvm,
    /// PV. What Xen and the guest say of its frames stays mapped for the whole save.
    Pv(Box<PvGuest>),
}

/// Why a page table of a PV guest cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// An entry names a frame that is none of the guest's. While the guest runs that is to be expected: an update in two
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

impl Guest {
    /// Finds out what a guest is like.
    pub(crate) fn open(host: &dyn Hypervisor, info: &DomainInfo) -> Result<Self, SaveError> {
        match info.kind {
            GuestKind::Hvm => Ok(Self::Hvm),
            GuestKind::Pv => Ok(Self::Pv(Box::new(PvGuest::open(host, info)?))),
        }
    }

    /// Says whether a device model may write to the guest's memory, behind the hypervisor's back.
    pub(crate) const fn has_device_model(&self) -> bool {
        matches!(self, Self::Hvm)
    }

    /// Returns the number of pfns, from 0 on, that the guest may have pages at.
    pub(crate) fn p2m_size(&self, host: &dyn Hypervisor, domid: Domid) -> Result<u64, SaveError> {
        match self {
            Self::Hvm => Ok(host.nr_gpfns(domid)?),
            Self::Pv(guest) => Ok(guest.p2m_size()),
        }
    }

    /// Appends the headers and the records in front of the memory.
    pub(crate) fn front(
        &self,
        host: &dyn Hypervisor,
        domid: Domid,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        let kind = match self {
            Self::Hvm => GuestKind::Hvm,
            Self::Pv(_) => GuestKind::Pv,
        };
        encode::headers(out, kind, host.version()?);
        if let Self::Pv(guest) = self {
            guest.info(out);
        }
        encode::cpu_policy(out, &host.cpu_policy(domid)?)?;
        encode::static_data_end(out);
        if let Self::Pv(guest) = self {
            guest.p2m_frames(out)?;
        }
        Ok(())
    }

    /// Finds the frames behind pfns. Returns how many of them are [`NO_FRAME`].
    pub(crate) fn frames(&self, pfns: &[Pfn], frames: &mut Vec<Gfn>) -> usize {
        frames.clear();
        match self {
            Self::Hvm => {
                frames.extend(pfns.iter().map(|pfn| hvm::gfn(*pfn)));
                0
            }
            Self::Pv(guest) => {
                frames.extend(pfns.iter().map(|pfn| guest.frame(*pfn)));
                frames.iter().filter(|frame| **frame == NO_FRAME).count()
            }
        }
    }

    /// Appends a page table as the stream has it, with pfns for mfns.
    pub(crate) fn normalise(
        &self,
        kind: PageType,
        table: &PageBuffer,
        out: &mut Vec<u8>,
    ) -> Result<(), TableFault> {
        match self {
            // No page of theirs is of a page table's type.
            Self::Hvm => {
                out.extend_from_slice(table);
                Ok(())
            }
            Self::Pv(guest) => guest.normalise(kind, table, out),
        }
    }

    /// Finds out whether what was learnt of the p2m still holds.
    pub(crate) fn check_p2m(&self) -> Result<(), SaveError> {
        match self {
            Self::Hvm => Ok(()),
            Self::Pv(guest) => guest.check_generation(),
        }
    }

    /// Finds out whether a guest that has just been suspended has memory behind the end of the p2m that the save began
    /// with: it would be lost without a word.
    pub(crate) fn check_size(
        &self,
        host: &dyn Hypervisor,
        domid: Domid,
        before: u64,
    ) -> Result<(), SaveError> {
        let (before, now) = match self {
            Self::Hvm => (before, host.nr_gpfns(domid)?),
            Self::Pv(guest) => guest.claimed_sizes()?,
        };
        if now > before { Err(SaveError::P2mGrew { domid, before, now }) } else { Ok(()) }
    }

    /// Appends the state of the suspended guest.
    pub(crate) fn state(
        &self,
        host: &dyn Hypervisor,
        domid: Domid,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        match self {
            Self::Hvm => hvm::state(host, domid, out),
            Self::Pv(guest) => guest.state(host, out),
        }
    }
}
