// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest's page tables: how an address is looked up in them, which of their slots are Xen's, and what makes a page a
//! page table in Xen's eyes.

use std::{collections::BTreeMap, ops::Range};

use xenmig_types::{
    Gfn, PageType, Pfn,
    pv::{GuestWidth, Pte},
};

use super::{PteAt, PvGuest};

/// Slots of a page table.
pub(super) const SLOTS: u64 = Pte::PER_TABLE as u64;
/// The bits of an entry that matter here: `_PAGE_*` of `asm/page.h`.
pub(super) mod flag {
    pub(crate) const PRESENT: u64 = 1;
    pub(crate) const WRITABLE: u64 = 1 << 1;
    pub(crate) const USER: u64 = 1 << 2;
    pub(crate) const ACCESSED: u64 = 1 << 5;
    pub(crate) const DIRTY: u64 = 1 << 6;
    pub(crate) const SUPERPAGE: u64 = 1 << 7;
    pub(crate) const NO_EXECUTE: u64 = 1 << 63;
    /// What the kernel maps its data with.
    pub(crate) const KERNEL: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY;
}

/// Returns the type of a page table of a level, 1 to 4.
pub(super) const fn type_of_level(level: u8) -> PageType {
    match level {
        1 => PageType::L1,
        2 => PageType::L2,
        3 => PageType::L3,
        _ => PageType::L4,
    }
}

/// Returns the level of a page table's type; 0 for a page that is none.
pub(super) const fn level_of_type(kind: PageType) -> u8 {
    if kind.is_page_table() { kind.number() & 7 } else { 0 }
}

/// Returns the same type, pinned.
pub(super) const fn pinned(kind: PageType) -> PageType {
    match level_of_type(kind) {
        1 => PageType::L1Pinned,
        2 => PageType::L2Pinned,
        3 => PageType::L3Pinned,
        4 => PageType::L4Pinned,
        _ => kind,
    }
}

/// Returns the entry that leads to a frame.
pub(super) fn entry(frame: Gfn, flags: u64) -> u64 {
    Pte(flags).with_frame(frame.0).unwrap_or_default().0
}

/// Returns the slot of an address in a table of a level.
pub(super) const fn slot_of(address: u64, level: u8) -> u64 {
    address >> (12 + 9 * (level as u64 - 1)) & (SLOTS - 1)
}

/// Returns the slots of a level that Xen may have for itself: in each table of the level, but for L2 tables.
pub(super) const fn xen_slots(width: GuestWidth, level: u8) -> Range<u64> {
    let (first, last) = width.xen_addresses();
    match (width, level) {
        (GuestWidth::Bits64, 4) => slot_of(first, 4)..slot_of(last, 4) + 1,
        // A table has four entries.
        (GuestWidth::Bits32, 3) => 4..SLOTS,
        (GuestWidth::Bits32, 2) => slot_of(first, 2)..slot_of(last, 2) + 1,
        _ => 0..0,
    }
}

impl PvGuest<'_> {
    /// Returns an entry of a table.
    pub(super) fn pte(&self, at: PteAt) -> Pte {
        Pte(self.load(at.table, at.slot.into()))
    }

    /// Returns the page that an entry leads to, if it is the guest's.
    pub(super) fn page_behind(&self, pte: Pte) -> Option<Pfn> {
        if pte.is_present() { self.pv.pfn(Gfn(pte.frame())) } else { None }
    }

    /// Returns the table of a level that an address is looked up in; `None` if there is none.
    pub(super) fn table_of(&self, root: Pfn, address: u64, level: u8) -> Option<Pfn> {
        let mut table = root;
        for above in (level + 1..=self.width().levels()).rev() {
            table = self.page_behind(Pte(self.load(table, slot_of(address, above))))?;
        }
        Some(table)
    }

    /// Returns where the entry of an address is; `None` if there is no table for it.
    pub(super) fn pte_at(&self, root: Pfn, address: u64) -> Option<PteAt> {
        let table = self.table_of(root, address, 1)?;
        Some(PteAt::new(table, slot_of(address, 1)))
    }

    /// Returns the slots of this table that are Xen's.
    pub(super) fn xen_slots_of(&self, table: Pfn, level: u8) -> Range<u64> {
        let slots = xen_slots(self.width(), level);
        let is_xens = |slot| Pte(self.load(table, slot)).frame() == self.pv.machine.compat_m2p().0;
        if self.width() == GuestWidth::Bits32 && level == 2 && !is_xens(slots.start) { 0..0 } else { slots }
    }

    /// Puts Xen's own mappings into a table, as Xen does when a page becomes one. `last` says that it is the L2 table of
    /// the last GiB of a 32-bit guest.
    pub(super) fn fill_xen_slots(&self, table: Pfn, level: u8, last: bool) {
        let memory = &self.guest.memory;
        let machine = &self.pv.machine;
        match (self.width(), level) {
            (GuestWidth::Bits64, 4) => {
                for slot in xen_slots(GuestWidth::Bits64, 4) {
                    memory.store(table, slot, entry(machine.xen_frame(slot), flag::KERNEL));
                }
            }
            (GuestWidth::Bits32, 2) if last => {
                let slots = xen_slots(GuestWidth::Bits32, 2);
                let flags = flag::KERNEL | flag::SUPERPAGE;
                memory.store(table, slots.start, entry(machine.compat_m2p(), flags));
                for slot in slots.skip(1) {
                    memory.store(table, slot, entry(machine.xen_frame(slot), flags));
                }
            }
            _ => {}
        }
    }

    /// Makes a page a page table of a level, with all tables below it, if Xen finds nothing wrong with their entries.
    /// New page tables are dirty. Says whether that could be done.
    pub(super) fn promote(&self, table: Pfn, level: u8) -> bool {
        let mut survey =
            Survey { guest: *self, tables: BTreeMap::new(), last: Vec::new(), writable: Vec::new() };
        if !survey.visit(table, level) {
            return false;
        }
        let Survey { tables, last, writable, .. } = survey;
        let is_table = |pfn: &Pfn| tables.contains_key(pfn) || self.pv.page_type(*pfn).is_page_table();
        if writable.iter().any(is_table) {
            return false;
        }
        for (table, level) in tables {
            self.fill_xen_slots(table, level, last.contains(&table));
            self.pv.set_page_type(table, type_of_level(level));
            self.guest.logdirty.mark(table);
        }
        true
    }
}

/// Pages that are to become page tables together.
struct Survey<'a> {
    guest: PvGuest<'a>,
    tables: BTreeMap<Pfn, u8>,
    /// The L2 tables of the last GiB of a 32-bit guest.
    last: Vec<Pfn>,
    /// Pages that L1 tables let the guest write.
    writable: Vec<Pfn>,
}

impl Survey<'_> {
    /// Looks at a page that is to be a table, and says whether it can be one.
    fn visit(&mut self, table: Pfn, level: u8) -> bool {
        let guest = self.guest;
        let is = level_of_type(guest.pv.page_type(table));
        if is != 0 {
            return is == level;
        }
        if let Some(known) = self.tables.get(&table) {
            return *known == level;
        }
        if guest.guest.memory.is_written_by_others(table) || level > guest.width().levels() {
            return false;
        }
        self.tables.insert(table, level);
        let narrow_l3 = guest.width() == GuestWidth::Bits32 && level == 3;
        let xens = match level {
            // Which table is Xen's is known from where it stands.
            2 if self.last.contains(&table) => xen_slots(guest.width(), level),
            2 => 0..0,
            _ => xen_slots(guest.width(), level),
        };
        for slot in (0..SLOTS).filter(|slot| !xens.contains(slot)) {
            let pte = Pte(guest.load(table, slot));
            if !pte.is_present() {
                if narrow_l3 && slot == 3 {
                    return false;
                }
                continue;
            }
            if level > 1 && pte.is_superpage() {
                return false;
            }
            let page = guest.page_behind(pte);
            if level == 1 {
                // The shared info page may be mapped, and is no page of the p2m.
                if page.is_none() && Gfn(pte.frame()) != guest.pv.shared_info {
                    return false;
                }
                self.writable.extend(page.filter(|_| pte.0 & flag::WRITABLE != 0));
                continue;
            }
            let Some(page) = page else { return false };
            if narrow_l3 && slot == 3 {
                // A table that became one without Xen's mappings gets none any more.
                if guest.pv.page_type(page).is_page_table() && guest.xen_slots_of(page, 2).is_empty() {
                    return false;
                }
                self.last.push(page);
            }
            if !self.visit(page, level - 1) {
                return false;
            }
        }
        true
    }
}
