// SPDX-License-Identifier: GPL-3.0-or-later
//! What tests ask of a PV domain: where its things are, and what stands there.

use xenmig_types::{Gfn, PageType, Pfn, pv::Pte};

use super::{PteAt, PvGuest};
use crate::{domain::SimDomain, gate::lock};

/// What a PV guest uses its pages for: for tests, which want to say what is to happen where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvMap {
    /// The start info page.
    pub start_info: Pfn,
    /// The page shared with xenstore.
    pub store: Pfn,
    /// The page shared with the console.
    pub console: Pfn,
    /// The pages of the p2m, in the order of the pfns that they are about; one of them may come more than once.
    pub p2m_pages: Vec<Pfn>,
    /// The pages of the vCPUs' GDTs.
    pub gdts: Vec<Pfn>,
    /// The page tables and their types.
    pub tables: Vec<(Pfn, PageType)>,
    /// The pages that the workload writes.
    pub data: Vec<Pfn>,
}

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

impl PvGuest<'_> {
    /// Returns what the guest uses its pages for; `None` if it never ran here.
    pub(super) fn map(&self) -> Option<PvMap> {
        let known = lock(&self.pv.kernel);
        let kernel = known.as_ref()?;
        let pages = || self.guest.memory.runs(u64::MAX).flatten().map(Pfn);
        let types = pages().map(|pfn| (pfn, self.pv.page_type(pfn)));
        Some(PvMap {
            start_info: kernel.start_info,
            store: kernel.store,
            console: kernel.console,
            p2m_pages: kernel.p2m.leaves.clone(),
            gdts: kernel.gdts.clone(),
            tables: types.filter(|(_, kind)| kind.is_page_table()).collect(),
            data: pages().filter(|pfn| self.pv.is_data(*pfn)).collect(),
        })
    }
}
