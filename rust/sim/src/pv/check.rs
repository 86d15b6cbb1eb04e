// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether a PV guest is sound: its p2m, its page tables, Xen's types and the m2p all tell the same story. A guest that
//! was restored wrongly is not, even if a comparison with its source finds nothing.

use xenmig_types::{
    Gfn, Pfn,
    pv::{GuestWidth, shared_info},
};

use super::{
    P2mForm, PteAt, PvGuest,
    kernel::Kernel,
    pv_vcpu::Registers,
    tables::{SLOTS, flag, level_of_type},
};
use crate::{domain::SimDomain, error::SimError, gate::lock};

impl SimDomain {
    /// Checks that a PV guest is sound, as it is at this moment: its vCPUs are stopped meanwhile. An update that it is in
    /// the middle of is an error, too.
    ///
    /// # Errors
    ///
    /// [`SimError::Unsound`] with the first thing that is wrong; [`SimError::InvalidConfig`] if it is no PV guest.
    pub fn check_pv(&self) -> Result<(), SimError> {
        let _life = lock(&self.life);
        let _stopped = self.guest.gate.stop();
        let guest = self.guest.pv().ok_or_else(|| SimError::invalid("this is no PV guest"))?;
        guest.check().map_err(|reason| SimError::Unsound { domid: self.domid, reason })
    }
}

/// Fails with what is wrong unless the condition holds.
fn must(condition: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(wrong()) }
}

impl PvGuest<'_> {
    fn check(&self) -> Result<(), String> {
        let kernel = self.find_kernel().map_err(|lost| lost.to_string())?;
        self.check_vcpus()?;
        self.check_p2m(&kernel)?;
        for pfn in (0..self.pv.end()).map(Pfn) {
            let level = level_of_type(self.pv.page_type(pfn));
            if level != 0 {
                self.check_table(&kernel, pfn, level)?;
            }
        }
        for page in kernel.own_pages() {
            must(self.pv.frame(page).is_some(), || format!("the kernel has no page at pfn {page}"))?;
        }
        let announced = lock(&self.pv.kernel).is_some();
        if announced { self.check_announced(&kernel) } else { Ok(()) }
    }

    fn check_p2m(&self, kernel: &Kernel) -> Result<(), String> {
        let memory = &self.guest.memory;
        for pfn in (0..self.pv.end().max(self.max_pfn())).map(Pfn) {
            let frame = self.pv.frame(pfn);
            must(frame.is_some() == memory.populated().get(pfn.0), || format!("pfn {pfn} is half a page"))?;
            let entry = self.p2m_entry(&kernel.p2m, pfn);
            let known = entry.filter(|entry| *entry != self.width().invalid_frame()).map(Gfn);
            must(known == frame, || match (known, frame) {
                (Some(known), Some(frame)) => format!("p2m: pfn {pfn} is at {known}, but it is at {frame}"),
                (Some(known), None) => format!("p2m: pfn {pfn} is at {known}, but there is no page"),
                _ => format!("p2m: nothing at pfn {pfn}, but there is a page"),
            })?;
            if let Some(frame) = frame {
                must(self.pv.pfn(frame) == Some(pfn), || format!("m2p: frame {frame} is not pfn {pfn}"))?;
            }
        }
        Ok(())
    }

    fn check_table(&self, kernel: &Kernel, table: Pfn, level: u8) -> Result<(), String> {
        let xens = self.xen_slots_of(table, level);
        for slot in 0..SLOTS {
            let pte = self.pte(PteAt::new(table, slot));
            let what = || format!("entry {:#x} in slot {slot} of the L{level} table {table}", pte.0);
            let page = self.page_behind(pte);
            // Nothing after the four entries counts of a PAE guest's L3 table.
            if xens.contains(&slot) {
                let is_l3 = self.width() == GuestWidth::Bits32 && level == 3;
                must(is_l3 || (pte.is_present() && page.is_none()), || format!("{} is not Xen's", what()))?;
                continue;
            }
            if !pte.is_present() {
                continue;
            }
            if level == 1 {
                let shared_info = Gfn(pte.frame()) == self.pv.shared_info;
                must(page.is_some() || shared_info, || format!("{} leads to no page", what()))?;
                let table = page
                    .filter(|page| self.pv.page_type(*page).is_page_table() || kernel.gdts.contains(page));
                must(table.is_none() || pte.0 & flag::WRITABLE == 0, || {
                    format!("{} lets a page table or GDT be written", what())
                })?;
                continue;
            }
            must(!pte.is_superpage(), || format!("{} is a superpage", what()))?;
            let below = page.map(|page| level_of_type(self.pv.page_type(page)));
            must(below == Some(level - 1), || format!("{} leads to no L{} table", what(), level - 1))?;
        }
        Ok(())
    }

    fn check_vcpus(&self) -> Result<(), String> {
        let (width, levels) = (self.width(), self.width().levels());
        let vcpus = lock(&self.pv.vcpus);
        for (number, vcpu) in vcpus.iter().enumerate() {
            let Some(context) = vcpu.context_now() else {
                must(!vcpu.online, || format!("vCPU {number} is online and has no context"))?;
                continue;
            };
            let registers = Registers::read(width, context).ok_or(format!("vCPU {number}: no context"))?;
            let roots = [registers.root, registers.user_root];
            must(registers.root.is_some(), || format!("vCPU {number}: no cr3"))?;
            for root in roots.into_iter().flatten() {
                let level = self.pv.pfn(root).map(|page| level_of_type(self.pv.page_type(page)));
                must(level == Some(levels), || format!("vCPU {number}: {root} is no L{levels} table"))?;
            }
            for frame in &registers.gdt {
                let plain = self.pv.pfn(*frame).is_some_and(|page| !self.pv.page_type(page).is_page_table());
                must(plain, || format!("vCPU {number}: {frame} is no page for a GDT"))?;
            }
        }
        Ok(())
    }

    /// Checks where the shared info page says that the p2m is.
    fn check_announced(&self, kernel: &Kernel) -> Result<(), String> {
        let page = self.shared_info();
        let p2m = &kernel.p2m;
        if let P2mForm::List { .. } = p2m.form {
            let cr3 = self.width().frame_of_cr3(self.field(page, shared_info::P2M_CR3));
            must(cr3.and_then(|frame| self.pv.pfn(frame)) == Some(kernel.root), || {
                "p2m_cr3 is wrong".to_owned()
            })?;
            let address = self.field(page, shared_info::P2M_VADDR);
            return must(address == p2m.address, || "p2m_vaddr is wrong".to_owned());
        }
        let top = self.pv.pfn(Gfn(self.field(page, shared_info::FRAME_LIST_LIST)));
        let top = top.ok_or("the root of the p2m's tree is no page of the guest")?;
        let per_page = self.width().frames_per_page();
        for (number, leaf) in (0..).zip(&p2m.leaves) {
            let mid = self.pv.pfn(Gfn(self.frame_entry(top, number / per_page)));
            let found = mid.and_then(|mid| self.pv.pfn(Gfn(self.frame_entry(mid, number % per_page))));
            must(found == Some(*leaf), || format!("the p2m's tree has another page {number} than the list"))?;
        }
        Ok(())
    }
}
