// SPDX-License-Identifier: GPL-3.0-or-later
//! What the kernel of a PV guest does while it runs, one step at a time: entries of page tables, pages that become page
//! tables, the balloon, a p2m that moves or grows. Each step is done in the order of Linux, and each page that it writes
//! becomes dirty after the write. A step that is not possible does nothing and says so.
//!
//! The caller holds the control lock, so a CLEAN or a suspension never comes in the middle of a step. A type query, a
//! mapping and a reader of mapped pages do.

use std::sync::atomic::Ordering;

use xenmig_types::{
    Gfn, PAGE_SIZE_U64, PageType, Pfn,
    pv::{Pte, shared_info},
};

use super::{
    PteAt, PteChange, PvGuest,
    kernel::{Kernel, Torn},
    pv_config,
    tables::{SLOTS, entry, flag, level_of_type, pinned, type_of_level},
};
use crate::{gate::lock, machine::INVALID_ENTRY, memory, script::Action};

impl PvGuest<'_> {
    /// Does a step, if the guest has run and is awake. Says whether it was possible.
    pub(super) fn step(&self, step: impl FnOnce(&Self, &mut Kernel) -> bool) -> bool {
        if self.pv.asleep.load(Ordering::Acquire) {
            return false;
        }
        lock(&self.pv.kernel).as_mut().is_some_and(|kernel| step(self, kernel))
    }

    /// Does what a script says, but for writes to data, and says whether it could be done.
    pub(crate) fn act(&self, action: Action) -> bool {
        self.step(|guest, kernel| match action {
            Action::WritePte(at, change) => guest.write_pte(kernel, at, change),
            Action::TearPte(at) => guest.tear(kernel, at, false),
            Action::MendPtes => guest.mend(kernel, false),
            Action::MakeTable(page) => guest.make_table(kernel, page),
            Action::UnmakeTable(table) => guest.unmake_table(kernel, table),
            Action::BumpGeneration => {
                guest.bump_generation();
                true
            }
            Action::GrowP2m(pfns) => guest.grow_p2m(kernel, pfns),
            Action::Churn(steps) => guest.churn(kernel, steps),
            Action::BalloonOut(page) => guest.balloon_out(kernel, page),
            Action::BalloonIn(page) => guest.balloon_in(kernel, page),
            Action::Write(_) => false,
        })
    }

    /// Says whether a page may be mapped for writing: it is no page table and no part of a GDT.
    fn may_write(&self, kernel: &Kernel, page: Pfn) -> bool {
        !self.pv.page_type(page).is_page_table() && !kernel.gdts.contains(&page)
    }

    /// Returns the entry that leads to a page, without the right to write where there must be none.
    fn entry_for(&self, kernel: &Kernel, page: Pfn, flags: u64) -> Option<u64> {
        let flags = if self.may_write(kernel, page) { flags } else { flags & !flag::WRITABLE };
        Some(entry(self.pv.frame(page)?, flags))
    }

    /// Maps a page where the kernel maps all its memory, if there is a page table for it.
    pub(super) fn map_directly(&self, kernel: &Kernel, page: Pfn) {
        if let Some(at) = self.direct_pte_in(kernel.root, page)
            && let Some(value) = self.entry_for(kernel, page, flag::KERNEL)
        {
            self.store(at.table, at.slot.into(), value);
        }
    }

    /// Clears each entry of an L1 table that leads to a page.
    pub(super) fn unmap_everywhere(&self, page: Pfn) {
        let Some(frame) = self.pv.frame(page) else { return };
        for table in self.tables_of_level(1) {
            for slot in 0..SLOTS {
                let pte = Pte(self.load(table, slot));
                if pte.is_present() && pte.frame() == frame.0 {
                    self.store(table, slot, 0);
                }
            }
        }
    }

    /// Returns the page tables of a level.
    pub(super) fn tables_of_level(&self, level: u8) -> Vec<Pfn> {
        let pages = (0..self.pv.end()).map(Pfn);
        pages.filter(|pfn| level_of_type(self.pv.page_type(*pfn)) == level).collect()
    }

    /// Returns a page that the kernel can take for itself: the last page of data.
    pub(super) fn spare_page(&self, kernel: &Kernel) -> Option<Pfn> {
        let is_torn = |pfn: &Pfn| kernel.torn.iter().any(|torn| torn.at.table == *pfn);
        let mut pages = (0..self.pv.end()).rev().map(Pfn);
        pages.find(|pfn| self.is_plain(*pfn) && !is_torn(pfn))
    }

    /// Says whether there is a page of plain data at a pfn.
    pub(super) fn is_plain(&self, pfn: Pfn) -> bool {
        self.pv.frame(pfn).is_some() && self.pv.is_data(pfn)
    }

    /// Takes a page of data away from the workload: when this returns, no vCPU is about to write to it.
    pub(super) fn withdraw(&self, page: Pfn) {
        self.pv.reserved.set(page.0);
        drop(self.guest.gate.stop());
    }

    /// Writes an entry of an L1 table.
    pub(super) fn write_pte(&self, kernel: &mut Kernel, at: PteAt, change: PteChange) -> bool {
        let old = self.pte(at);
        if self.pv.page_type(at.table).number() & 7 != 1 || u64::from(at.slot) >= SLOTS {
            return false;
        }
        let new = match change {
            PteChange::Clear => 0,
            PteChange::Map(page) => {
                let flags = if old.is_present() { old.0 | flag::WRITABLE } else { flag::KERNEL | flag::USER };
                let Some(new) = self.entry_for(kernel, page, flags) else { return false };
                new
            }
            // What is in the middle of an update was not used.
            PteChange::Touch if kernel.torn.iter().any(|torn| torn.at == at) => return false,
            PteChange::Touch if old.is_present() => old.0 ^ (flag::ACCESSED | flag::DIRTY),
            PteChange::Touch => return false,
        };
        kernel.torn.retain(|torn| torn.at != at);
        self.store(at.table, at.slot.into(), new);
        true
    }

    /// Makes an entry that is present lead to a frame that the guest's p2m does not have, until it is mended. An entry
    /// in an odd slot leads to a frame of another domain, if there is one; else it is one of Xen's.
    pub(super) fn tear(&self, kernel: &mut Kernel, at: PteAt, by_churn: bool) -> bool {
        let level = level_of_type(self.pv.page_type(at.table));
        let old = self.pte(at);
        let slot = u64::from(at.slot);
        if level == 0 || !old.is_present() || self.xen_slots_of(at.table, level).contains(&slot) {
            return false;
        }
        if kernel.torn.iter().any(|torn| torn.at == at) {
            return false;
        }
        let machine = &self.pv.machine;
        let others = |frame: &Gfn| {
            machine.entry(*frame).is_some_and(|entry| entry != INVALID_ENTRY) && self.pv.pfn(*frame).is_none()
        };
        let from = old.frame();
        let mut search = (from..machine.frames()).chain(0..from).take(1 << 16).map(Gfn);
        let frame = search.find(|frame| slot % 2 == 1 && others(frame)).unwrap_or(machine.xen_frame(slot));
        let Some(new) = old.with_frame(frame.0) else { return false };
        kernel.torn.push(Torn { at, value: old.0, by_churn });
        self.store(at.table, slot, new.0);
        true
    }

    /// Gives torn entries back what they were: all, or those that were torn in the background. Says whether there were
    /// any.
    pub(super) fn mend(&self, kernel: &mut Kernel, by_churn: bool) -> bool {
        let (torn, left) = kernel.torn.iter().partition(|torn| torn.by_churn || !by_churn);
        kernel.torn = left;
        let torn: Vec<Torn> = torn;
        for Torn { at, value, .. } in torn.iter().rev() {
            // Its table may be none any more, and what it led to may be gone or have become a page table.
            let level = level_of_type(self.pv.page_type(at.table));
            let value = match self.page_behind(Pte(*value)) {
                Some(page) if level > 1 || self.may_write(kernel, page) => *value,
                Some(_) => *value & !flag::WRITABLE,
                None => 0,
            };
            if level != 0 {
                self.store(at.table, at.slot.into(), value);
            }
        }
        !torn.is_empty()
    }

    /// Makes a page of data an L1 table of the user's, pinned: it is cleared, given a few entries, no longer writable
    /// anywhere, and then hung into the L2 table.
    pub(super) fn make_table(&self, kernel: &mut Kernel, page: Pfn) -> bool {
        let free = (0..SLOTS).find(|slot| !Pte(self.load(kernel.user_table, *slot)).is_present());
        let Some((slot, frame)) = free.zip(self.pv.frame(page)).filter(|_| self.is_plain(page)) else {
            return false;
        };
        self.withdraw(page);
        self.unmap_everywhere(page);
        self.fill(page, 0);
        let neighbours = (1..).map(|step| Pfn((page.0 + step * 7) % self.pv.end().max(1)));
        for (slot, other) in (0..SLOTS).step_by(61).zip(neighbours) {
            if other != page && self.is_plain(other) {
                let value = self.entry_for(kernel, other, flag::KERNEL | flag::USER | flag::NO_EXECUTE);
                self.store(page, slot, value.unwrap_or(0));
            }
        }
        let promoted = self.promote(page, 1);
        if promoted {
            self.pv.set_page_type(page, pinned(PageType::L1));
        }
        // From now on its type keeps the workload away.
        self.pv.reserved.clear(page.0);
        if !promoted {
            return false;
        }
        self.map_directly(kernel, page);
        self.store(kernel.user_table, slot, entry(frame, flag::KERNEL | flag::USER));
        true
    }

    /// Makes an L1 table of the user's a page of data again.
    pub(super) fn unmake_table(&self, kernel: &mut Kernel, table: Pfn) -> bool {
        let frame = self.pv.frame(table).map_or(0, |frame| frame.0);
        let leads_there = |slot: &u64| Pte(self.load(kernel.user_table, *slot)).frame() == frame;
        let Some(slot) =
            (0..SLOTS).find(leads_there).filter(|_| self.pv.page_type(table) == PageType::L1Pinned)
        else {
            return false;
        };
        kernel.torn.retain(|torn| torn.at.table != table && torn.at != PteAt::new(kernel.user_table, slot));
        self.store(kernel.user_table, slot, 0);
        self.pv.set_page_type(table, type_of_level(1));
        self.pv.set_page_type(table, PageType::Notab);
        self.guest.logdirty.mark(table);
        self.map_directly(kernel, table);
        self.fill(table, memory::POISON);
        true
    }

    /// Gives a page of data back to Xen: it is cleared and unmapped, the p2m forgets it, and then it is gone.
    pub(super) fn balloon_out(&self, kernel: &mut Kernel, page: Pfn) -> bool {
        if !self.is_plain(page) {
            return false;
        }
        if self.pv.scrubs {
            self.fill(page, 0);
            self.guest.logdirty.mark(page);
        }
        self.unmap_everywhere(page);
        let known = self.set_p2m_entry(&kernel.p2m, page, None);
        self.give_back(page);
        kernel.out.push(page);
        known
    }

    /// Takes a page away from the domain, whatever the guest thinks of it. Says whether there was one.
    pub(super) fn give_back(&self, page: Pfn) -> bool {
        let stopped = self.guest.gate.stop();
        let taken = self.guest.memory.take(page);
        if matches!(taken, Ok(true)) {
            self.pv.take(page);
        }
        drop(stopped);
        matches!(taken, Ok(true))
    }

    /// Gets a page from Xen where the guest has none, in another frame. Nothing logs that, until the guest writes to it.
    /// There is no place after the end that the p2m is said to have, even if the last of its pages has room.
    pub(super) fn balloon_in(&self, kernel: &mut Kernel, page: Pfn) -> bool {
        let has_place = page.0 < self.max_pfn()
            && self.p2m_entry(&kernel.p2m, page).is_some()
            && self.pv.frame(page).is_none();
        if !has_place || !self.make_leaf(kernel, page) || !self.get(page) {
            return false;
        }
        self.set_p2m_entry(&kernel.p2m, page, self.pv.frame(page));
        self.map_directly(kernel, page);
        kernel.out.retain(|out| *out != page);
        true
    }

    /// Gives the domain a page, which holds anything. Says whether that was possible.
    pub(super) fn get(&self, page: Pfn) -> bool {
        let memory = &self.guest.memory;
        let possible = page.0 < pv_config::MAX_PFNS
            && memory.is_free(page, 1)
            && memory.total_pages() < self.guest.layout.max_pages();
        if !possible || self.pv.give(page).is_none() {
            return false;
        }
        memory.give_poisoned(page, 1);
        true
    }

    /// Makes the p2m longer by this number of entries, or fewer if its last page table is full.
    pub(super) fn grow_p2m(&self, kernel: &mut Kernel, pfns: u64) -> bool {
        let per_page = self.width().frames_per_page();
        let Some(max_pfn) = self.max_pfn().checked_add(pfns).filter(|end| *end <= pv_config::MAX_PFNS) else {
            return false;
        };
        let known = kernel.p2m.leaves.len() as u64;
        let leaf = |number| {
            let at = self.pte_at(kernel.root, kernel.p2m.address + number * PAGE_SIZE_U64)?;
            self.page_behind(self.pte(at))
        };
        let Some(more) = (known..max_pfn.div_ceil(per_page)).map(leaf).collect::<Option<Vec<Pfn>>>() else {
            return false;
        };
        kernel.p2m.leaves.extend(more);
        self.set_field(self.shared_info(), shared_info::MAX_PFN, max_pfn);
        true
    }
}
