// SPDX-License-Identifier: GPL-3.0-or-later
//! What tests ask of a PV domain: where its things are, and what stands there.

use xenmig_types::{Gfn, Pfn, pv::Pte};

use super::{PteAt, PvMap};
use crate::{domain::SimDomain, gate::lock};

impl SimDomain {
    /// Returns what a PV guest uses its pages for; `None` for other guests, and for one that never ran here.
    #[must_use]
    pub fn pv_map(&self) -> Option<PvMap> {
        let _life = lock(&self.life);
        self.guest.pv()?.map()
    }

    /// Returns where a PV guest's kernel maps a page among all its memory; `None` if it does not.
    #[must_use]
    pub fn pte_of(&self, pfn: Pfn) -> Option<PteAt> {
        self.guest.pv()?.direct_pte(pfn)
    }

    /// Returns an entry of a PV guest's page table; zero if there is none.
    #[must_use]
    pub fn pte(&self, at: PteAt) -> Pte {
        self.guest.pv().map_or(Pte(0), |guest| guest.pte(at))
    }

    /// Returns the mfn of a PV guest's page; `None` for other guests, and where there is no page.
    #[must_use]
    pub fn frame_of(&self, pfn: Pfn) -> Option<Gfn> {
        self.guest.pv.as_ref()?.frame(pfn)
    }
}
