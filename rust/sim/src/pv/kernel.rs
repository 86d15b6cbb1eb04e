// SPDX-License-Identifier: GPL-3.0-or-later
//! What the kernel of a PV guest knows of itself, how it finds that again in its memory after a migration, and what it
//! does before and after a suspension, as Linux does it.
//!
//! It starts at vCPU 0: its page tables, and the start info page, behind whose structure it keeps a few notes. Everything
//! else is found through these page tables.

use std::{collections::BTreeSet, fmt, sync::atomic::Ordering};

use fastrand::Rng;
use xenmig_types::{
    Gfn, PageType, Pfn,
    pv::{GuestWidth, start_info},
};

use super::{
    PteAt, PvGuest,
    config::P2mForm,
    p2m::P2m,
    tables::{entry, flag},
};
use crate::gate::lock;

/// Where the notes are in the start info page, in words.
pub(super) mod note {
    pub(crate) const MAGIC: u64 = 256;
    pub(crate) const IS_TREE: u64 = 257;
    pub(crate) const FIRST_SLOT: u64 = 258;
    pub(crate) const MISSING: u64 = 259;
    pub(crate) const TOP: u64 = 260;
    pub(crate) const MID_MISSING: u64 = 261;
    pub(crate) const USER_TABLE: u64 = 262;
    pub(crate) const MIDS: u64 = 263;
    pub(crate) const FIRST_MID: u64 = 264;
    /// The most pages of the second level that there is room for.
    pub(crate) const MAX_MIDS: u64 = 512 - FIRST_MID;
    /// What stands at `MAGIC`.
    pub(crate) const IS_NOTES: u64 = 0x786d_6967_2d6b_6e6c;
}

/// Where the kernel maps all its memory.
pub(super) const fn direct_map(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits64 => 0xffff_8880_0000_0000,
        GuestWidth::Bits32 => 0x4000_0000,
    }
}

/// Pages for which the direct map has room: a 32-bit guest does not reach all of a large memory.
pub(super) const fn direct_pages(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits64 => 1 << 36,
        GuestWidth::Bits32 => (0xf000_0000 - direct_map(width)) >> 12,
    }
}

/// Where it maps the shared info page.
pub(super) const fn shared_info_address(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits64 => 0xffff_ffff_ff5f_b000,
        GuestWidth::Bits32 => 0xf57f_f000,
    }
}

/// What the kernel knows of itself.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) root: Pfn,
    /// The L2 table of the user's addresses; its free slots take new L1 tables.
    pub(super) user_table: Pfn,
    pub(super) start_info: Pfn,
    pub(super) store: Pfn,
    pub(super) console: Pfn,
    pub(super) p2m: P2m,
    pub(super) gdts: Vec<Pfn>,
    /// Entries that lead to frames of others for a moment.
    pub(super) torn: Vec<Torn>,
    /// Pages that the balloon has given back, the last one last.
    pub(super) out: Vec<Pfn>,
    /// Chooses what it does in the background.
    pub(super) rng: Rng,
}

/// An entry in the middle of an update.
#[derive(Clone, Copy, Debug)]
pub(super) struct Torn {
    pub(super) at: PteAt,
    /// What it was.
    pub(super) value: u64,
    /// Whether this happened in the background: then it is mended when the guest suspends itself.
    pub(super) by_churn: bool,
}

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

/// Why a guest does not find its way in its own memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost(pub(super) &'static str);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

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

    /// Says whether the guest has suspended itself: the start info page names other pages by pfn then.
    pub(super) fn is_suspended(&self) -> bool {
        self.pv.asleep.load(Ordering::Acquire) && lock(&self.pv.kernel).is_some()
    }

    /// Notes which pages the kernel uses itself.
    pub(super) fn reserve(&self, kernel: &Kernel) {
        self.pv.reserved.assign(0..self.pv.capacity, false);
        for page in kernel.own_pages() {
            self.pv.reserved.set(page.0);
        }
    }

    /// Prepares to be suspended: what it does in the background is brought to an end, the shared info page is no longer mapped, store and console are named by pfn, and vCPU 0
    /// hands over the start info page.
    pub(crate) fn fall_asleep(&self) {
        let mut known = lock(&self.pv.kernel);
        let Some(kernel) = known.as_mut() else { return };
        self.mend(kernel, true);
        if let Some(at) = self.pte_at(kernel.root, shared_info_address(self.width())) {
            self.store(at.table, at.slot.into(), 0);
        }
        self.set_field(kernel.start_info, start_info::STORE_MFN, kernel.store.0);
        self.set_field(kernel.start_info, start_info::CONSOLE_MFN, kernel.console.0);
        if let Some(frame) = self.pv.frame(kernel.start_info) {
            self.hand_over(frame);
        }
        self.pv.asleep.store(true, Ordering::Release);
    }

    /// Goes on after a suspension, here or where it was restored: the frames of everything may be others.
    ///
    /// # Errors
    ///
    /// [`Lost`] if the guest does not find its way: what was restored is not what was saved.
    pub(crate) fn wake(&self) -> Result<(), Lost> {
        if !self.pv.asleep.load(Ordering::Acquire) {
            return Ok(());
        }
        let known = lock(&self.pv.kernel).take();
        let kernel = match known {
            Some(kernel) => {
                // The suspension was cancelled.
                for (field, page) in
                    [(start_info::STORE_MFN, kernel.store), (start_info::CONSOLE_MFN, kernel.console)]
                {
                    self.set_field(kernel.start_info, field, self.pv.frame(page).map_or(0, |frame| frame.0));
                }
                kernel
            }
            None => self.find_kernel()?,
        };
        self.reserve(&kernel);
        if let Some(at) = self.pte_at(kernel.root, shared_info_address(self.width())) {
            self.store(at.table, at.slot.into(), entry(self.pv.shared_info, flag::KERNEL));
        }
        self.announce_p2m(&kernel);
        self.pv.asleep.store(false, Ordering::Release);
        *lock(&self.pv.kernel) = Some(kernel);
        Ok(())
    }

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

impl Kernel {
    /// Returns the pages that the kernel uses itself and that are no page tables.
    pub(super) fn own_pages(&self) -> BTreeSet<Pfn> {
        let p2m = &self.p2m;
        let single = [self.start_info, self.store, self.console, p2m.missing, p2m.top, p2m.mid_missing];
        let several = [&p2m.leaves, &p2m.mids, &self.gdts];
        single.into_iter().chain(several.into_iter().flatten().copied()).collect()
    }
}
