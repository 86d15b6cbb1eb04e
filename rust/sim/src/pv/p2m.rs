// SPDX-License-Identifier: GPL-3.0-or-later
//! The p2m of a PV guest, in its own memory: pages of frame numbers, the *leaves*, which it has mapped as one list, and
//! the two ways in which it tells a toolstack where they are.
//!
//! A leaf of which no entry has a page is not kept: there is one *missing* leaf, and one page table that maps nothing
//! else, for all of them.

use xenmig_types::{
    Gfn, Pfn,
    pv::{GuestWidth, Pte, shared_info},
};

use super::{
    P2mForm, PvGuest,
    kernel::{Kernel, P2m},
    tables::{SLOTS, entry, flag},
};

impl PvGuest<'_> {
    /// Returns an entry of a page of frame numbers.
    pub(super) fn frame_entry(&self, page: Pfn, index: u64) -> u64 {
        match self.width() {
            GuestWidth::Bits64 => self.load(page, index),
            GuestWidth::Bits32 => self.load(page, index / 2) >> (index % 2 * 32) & 0xffff_ffff,
        }
    }

    /// Writes an entry of a page of frame numbers.
    pub(super) fn set_frame_entry(&self, page: Pfn, index: u64, value: u64) {
        match self.width() {
            GuestWidth::Bits64 => self.store(page, index, value),
            GuestWidth::Bits32 => {
                let shift = index % 2 * 32;
                let word = self.load(page, index / 2) & !(0xffff_ffff << shift);
                self.store(page, index / 2, word | (value & 0xffff_ffff) << shift);
            }
        }
    }

    /// Returns the number of p2m entries, as the shared info page says it.
    pub(super) fn max_pfn(&self) -> u64 {
        self.field(self.shared_info(), shared_info::MAX_PFN)
    }

    /// Returns what the guest's p2m says of a pfn; `None` if it has no entry for it.
    pub(super) fn p2m_entry(&self, p2m: &P2m, pfn: Pfn) -> Option<u64> {
        let per_page = self.width().frames_per_page();
        let leaf = p2m.leaves.get(usize::try_from(pfn.0 / per_page).ok()?)?;
        Some(self.frame_entry(*leaf, pfn.0 % per_page))
    }

    /// Writes what the guest's p2m says of a pfn, and says whether it could be written: there is a leaf for it.
    pub(super) fn set_p2m_entry(&self, p2m: &P2m, pfn: Pfn, frame: Option<Gfn>) -> bool {
        let per_page = self.width().frames_per_page();
        let leaf = usize::try_from(pfn.0 / per_page).ok().and_then(|leaf| p2m.leaves.get(leaf));
        let Some(leaf) = leaf.filter(|leaf| **leaf != p2m.missing) else { return false };
        let frame = frame.map_or(self.width().invalid_frame(), |frame| frame.0);
        self.set_frame_entry(*leaf, pfn.0 % per_page, frame);
        true
    }

    /// Makes a page of data the leaf of a pfn that has the missing one, as a guest does that has run out of its p2m.
    /// Its toolstack is told that the list has changed. Says whether the pfn has a leaf now.
    pub(super) fn make_leaf(&self, kernel: &mut Kernel, pfn: Pfn) -> bool {
        let per_page = self.width().frames_per_page();
        let number = pfn.0 / per_page;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        match kernel.p2m.leaves.get(place) {
            Some(leaf) if *leaf != kernel.p2m.missing => return true,
            Some(_) => {}
            None => return false,
        }
        let mid = usize::try_from(number / per_page).ok().and_then(|mid| kernel.p2m.mids.get(mid)).copied();
        let is_tree = kernel.p2m.form == P2mForm::Tree;
        if is_tree && mid.is_none_or(|mid| mid == kernel.p2m.mid_missing) {
            return false;
        }
        // A table that maps nothing but the missing leaf is shared, and stays as it is.
        let Some(at) = self.pte_at(kernel.root, kernel.p2m.address + number * 4096) else { return false };
        let first = Pte(self.load(at.table, 0));
        let shared = (0..SLOTS).all(|slot| self.load(at.table, slot) == first.0);
        let Some(leaf) = self.spare_page(kernel).filter(|_| !shared) else { return false };
        self.withdraw(leaf);
        self.unmap_everywhere(leaf);
        self.fill(leaf, u64::MAX);
        let Some(frame) = self.pv.frame(leaf) else { return false };
        self.map_directly(kernel, leaf);
        self.store(at.table, at.slot.into(), entry(frame, flag::KERNEL));
        if let Some(place) = kernel.p2m.leaves.get_mut(place) {
            *place = leaf;
        }
        if let Some(mid) = mid.filter(|_| is_tree) {
            self.set_frame_entry(mid, number % per_page, frame.0);
        }
        self.bump_generation();
        true
    }

    /// Says in the shared info page that the pages of the list have changed.
    pub(super) fn bump_generation(&self) {
        let generation = self.field(self.shared_info(), shared_info::P2M_GENERATION);
        self.set_field(self.shared_info(), shared_info::P2M_GENERATION, generation + 1);
    }

    /// Writes the upper levels of the tree, and where the p2m is into the shared info page. A guest does that when it
    /// boots and when it has been restored: then all frames are others.
    pub(super) fn announce_p2m(&self, kernel: &Kernel) {
        let p2m = &kernel.p2m;
        let page = self.shared_info();
        let frame = |pfn| self.pv.frame(pfn).map_or(0, |frame| frame.0);
        let P2mForm::List { .. } = p2m.form else {
            let per_page = self.width().frames_per_page();
            let leaf = |number| usize::try_from(number).ok().and_then(|leaf| p2m.leaves.get(leaf)).copied();
            for index in 0..per_page {
                self.set_frame_entry(p2m.mid_missing, index, frame(p2m.missing));
                let mid = usize::try_from(index).ok().and_then(|mid| p2m.mids.get(mid));
                self.set_frame_entry(p2m.top, index, frame(mid.copied().unwrap_or(p2m.mid_missing)));
            }
            for (number, mid) in (0..).zip(&p2m.mids).filter(|(_, mid)| **mid != p2m.mid_missing) {
                for index in 0..per_page {
                    let leaf = leaf(number * per_page + index).unwrap_or(p2m.missing);
                    self.set_frame_entry(*mid, index, frame(leaf));
                }
            }
            self.set_field(page, shared_info::FRAME_LIST_LIST, frame(p2m.top));
            self.set_field(page, shared_info::P2M_CR3, 0);
            self.set_field(page, shared_info::P2M_VADDR, 0);
            return;
        };
        let cr3 = self.width().cr3_of_frame(frame(kernel.root)).unwrap_or(0);
        self.set_field(page, shared_info::FRAME_LIST_LIST, self.width().invalid_frame());
        self.set_field(page, shared_info::P2M_VADDR, p2m.address);
        self.set_field(page, shared_info::P2M_CR3, cr3);
    }
}
