// SPDX-License-Identifier: GPL-3.0-or-later
//! How a PV guest finds in its memory what it knew before a migration. It starts at vCPU 0: its page tables, and the
//! start info page, after whose structure it keeps a few notes. The page tables lead to everything else.

use fastrand::Rng;
use xenmig_types::{Gfn, Pfn, pv::start_info};

use super::{
    P2mForm, PteAt, PvGuest,
    kernel::{Kernel, Lost, P2m, direct_map, direct_pages, note},
};
use crate::gate::lock;

impl PvGuest<'_> {
    /// Finds everything in the guest's memory, starting at vCPU 0.
    pub(super) fn find_kernel(&self) -> Result<Kernel, Lost> {
        let registers = self.registers(0).ok_or(Lost("vCPU 0 has no state"))?;
        let page = |frame: Gfn| self.pv.pfn(frame);
        let root = registers.root.and_then(page).ok_or(Lost("cr3 of vCPU 0 is no frame of the guest"))?;
        if registers.user_root.is_some_and(|frame| page(frame).is_none()) {
            return Err(Lost("cr1 of vCPU 0 is no frame of the guest"));
        }
        let start_info =
            page(registers.start_info).ok_or(Lost("the start info page is no frame of the guest"))?;
        let note = |number| self.load(start_info, number);
        if note(note::MAGIC) != note::IS_NOTES {
            return Err(Lost("there is no start info page where rdx of vCPU 0 leads"));
        }
        let asleep = self.is_suspended();
        let shared = |field| {
            let number = self.field(start_info, field);
            if asleep { self.pv.frame(Pfn(number)).map(|_| Pfn(number)) } else { page(Gfn(number)) }
        };
        let first_slot = u16::try_from(note(note::FIRST_SLOT)).map_err(|_| Lost("the notes are damaged"))?;
        let form = if note(note::IS_TREE) == 0 { P2mForm::List { first_slot } } else { P2mForm::Tree };
        let address = P2m::address(self.width(), first_slot);
        let leaves = self.max_pfn().div_ceil(self.width().frames_per_page());
        let leaf = |number| {
            let at = self.pte_at(root, address + number * 4096)?;
            self.page_behind(self.pte(at))
        };
        let leaves: Option<Vec<Pfn>> = (0..leaves).map(leaf).collect();
        let mids = note(note::MIDS).min(note::MAX_MIDS);
        Ok(Kernel {
            root,
            user_table: Pfn(note(note::USER_TABLE)),
            start_info,
            store: shared(start_info::STORE_MFN).ok_or(Lost("the store page is no frame of the guest"))?,
            console: shared(start_info::CONSOLE_MFN)
                .ok_or(Lost("the console page is no frame of the guest"))?,
            p2m: P2m {
                form,
                address,
                leaves: leaves.ok_or(Lost("the p2m is not mapped where the guest has it"))?,
                missing: Pfn(note(note::MISSING)),
                top: Pfn(note(note::TOP)),
                mid_missing: Pfn(note(note::MID_MISSING)),
                mids: (0..mids).map(|mid| Pfn(note(note::FIRST_MID + mid))).collect(),
            },
            gdts: self.gdt_frames().into_iter().filter_map(page).collect(),
            torn: Vec::new(),
            out: Vec::new(),
            rng: Rng::with_seed(self.pv.seed),
        })
    }

    /// Returns where the kernel's page tables map a page of its memory.
    pub(super) fn direct_pte(&self, pfn: Pfn) -> Option<PteAt> {
        let root = lock(&self.pv.kernel).as_ref()?.root;
        self.direct_pte_in(root, pfn)
    }

    /// Returns the same in given page tables.
    pub(super) fn direct_pte_in(&self, root: Pfn, pfn: Pfn) -> Option<PteAt> {
        if pfn.0 >= direct_pages(self.width()) {
            return None;
        }
        self.pte_at(root, direct_map(self.width()) + pfn.0 * 4096)
    }
}
