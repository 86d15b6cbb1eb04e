// SPDX-License-Identifier: GPL-3.0-or-later
//! The side doors of PV domains, for `fakexen`: see the other doors. Nothing here is for users.

use std::os::fd::OwnedFd;

use xenmig_types::{Gfn, PageType};

use crate::domain::SimDomain;

/// The machine-to-phys table as the hypervisor's tables list it.
#[doc(hidden)]
#[derive(Debug)]
pub struct DoorM2p {
    /// One more than the highest mfn.
    pub frames: u64,
    /// The first mfn of each 2 MiB of the table, in order; that is also where they are in `file`.
    pub chunks: Vec<Gfn>,
    /// The first mfn of the table that 32-bit guests see.
    pub compat: Gfn,
    /// What holds the table.
    pub file: OwnedFd,
}

impl SimDomain {
    /// Returns the m2p of a PV domain's machine.
    #[doc(hidden)]
    pub fn door_m2p(&self) -> Option<DoorM2p> {
        let machine = &self.guest.pv.as_ref()?.machine;
        let file = machine.m2p_file().try_clone_to_owned().ok()?;
        let chunks = machine.m2p_chunks().collect();
        Some(DoorM2p { frames: machine.frames(), chunks, compat: machine.compat_m2p(), file })
    }

    /// Returns at which page of its memory a PV domain has a frame; `None` if it has it not, or may not write it.
    #[doc(hidden)]
    pub fn door_frame(&self, frame: Gfn, write: bool) -> Option<u64> {
        let place = self.guest.pv()?.place(frame, write).0;
        (place != u64::MAX).then_some(place)
    }

    /// Returns the type of a PV domain's frame.
    #[doc(hidden)]
    pub fn door_type(&self, frame: Gfn) -> Option<PageType> {
        Some(self.guest.pv.as_ref()?.frame_type(frame))
    }
}
