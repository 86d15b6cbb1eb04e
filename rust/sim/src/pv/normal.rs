// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest without its mfns: what is the same before a migration and after it. Each frame of the guest's is replaced
//! by its pfn, and what is made anew on the other side is left out: Xen's mappings, what the toolstack writes into the
//! start info page, the upper levels of a p2m that is a tree, and where the shared info page says that the p2m is.

use std::collections::BTreeMap;

use xenmig_hypervisor::PageBuffer;
use xenmig_types::{
    Gfn, PAGE_SIZE, Pfn, VcpuPart,
    pv::{Field, Pte, shared_info, start_info},
};

use super::{P2mForm, PvGuest, kernel::Kernel, pv_vcpu::Registers, tables::level_of_type};
use crate::gate::lock;

/// What an entry leads to that leads to the shared info page.
const SHARED_INFO: u64 = 0xff_ffff_fff0;

/// Takes the mfns out of a guest.
#[derive(Debug)]
pub(crate) struct Normaliser<'a> {
    guest: PvGuest<'a>,
    /// `None` if the guest does not find its way: then only its page tables are known.
    kernel: Option<Kernel>,
    /// Whether store and console are named by pfn.
    by_pfn: bool,
    /// Which part of the p2m a page is.
    leaves: BTreeMap<Pfn, u64>,
    upper: Vec<Pfn>,
}

impl<'a> PvGuest<'a> {
    /// Looks at the guest as it is now. The caller has stopped it.
    pub(crate) fn normaliser(&self) -> Normaliser<'a> {
        let by_pfn = self.is_suspended();
        let kernel = self.find_kernel().ok();
        let mut leaves = BTreeMap::new();
        let mut upper = Vec::new();
        if let Some(kernel) = &kernel {
            leaves.extend(kernel.p2m.leaves.iter().copied().zip(0..));
            if kernel.p2m.form == P2mForm::Tree {
                upper.extend([kernel.p2m.top, kernel.p2m.mid_missing]);
                upper.extend(&kernel.p2m.mids);
            }
        }
        Normaliser { guest: *self, kernel, by_pfn, leaves, upper }
    }
}

impl Normaliser<'_> {
    fn pfn(&self, frame: Gfn) -> Option<u64> {
        self.guest.pv.pfn(frame).map(|pfn| pfn.0)
    }

    /// Normalises the contents of a page and returns its type's number.
    pub(crate) fn normalise(&self, pfn: Pfn, page: &mut PageBuffer) -> u8 {
        let kind = self.guest.pv.page_type(pfn);
        let level = level_of_type(kind);
        if level != 0 {
            self.table(pfn, level, page);
        } else if self.kernel.as_ref().is_some_and(|kernel| kernel.start_info == pfn) {
            self.start_info(page);
        } else if let Some(number) = self.leaves.get(&pfn) {
            self.leaf(*number, page);
        } else if self.upper.contains(&pfn) {
            page.fill(0);
        }
        kind.number()
    }

    fn table(&self, table: Pfn, level: u8, page: &mut PageBuffer) {
        let xens = self.guest.xen_slots_of(table, level);
        for (slot, bytes) in (0..).zip(page.as_chunks_mut::<8>().0) {
            let pte = Pte(u64::from_le_bytes(*bytes));
            let number = match self.pfn(Gfn(pte.frame())) {
                Some(pfn) => Some(pfn),
                None if Gfn(pte.frame()) == self.guest.pv.shared_info => Some(SHARED_INFO),
                None => None,
            };
            let normal = if xens.contains(&slot) {
                Pte(0)
            } else {
                number.filter(|_| pte.is_present()).and_then(|number| pte.with_frame(number)).unwrap_or(pte)
            };
            *bytes = normal.0.to_le_bytes();
        }
    }

    fn start_info(&self, page: &mut PageBuffer) {
        let width = self.guest.width();
        let mut set = |field: Field, value: u64| field.set(width, page, value).unwrap_or_default();
        for field in [
            start_info::NR_PAGES,
            start_info::SHARED_INFO,
            start_info::FLAGS,
            start_info::STORE_EVTCHN,
            start_info::CONSOLE_EVTCHN,
        ] {
            set(field, 0);
        }
        if let Some(kernel) = self.kernel.as_ref().filter(|_| !self.by_pfn) {
            set(start_info::STORE_MFN, kernel.store.0);
            set(start_info::CONSOLE_MFN, kernel.console.0);
        }
    }

    fn leaf(&self, number: u64, page: &mut PageBuffer) {
        let width = self.guest.width();
        let bytes = usize::from(width.bytes());
        let first = number * width.frames_per_page();
        for (pfn, entry) in (first..).zip(page.chunks_exact_mut(bytes)) {
            let mut word = [0; 8];
            word.iter_mut().zip(&*entry).for_each(|(to, from)| *to = *from);
            if self.guest.pv.frame(Pfn(pfn)) == Some(Gfn(u64::from_le_bytes(word))) {
                entry.iter_mut().zip(pfn.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
        }
    }

    /// Feeds what is not in the guest's pages to `update`.
    pub(crate) fn digest(&self, mut update: impl FnMut(&[u8])) {
        let width = self.guest.width();
        update(&[width.bytes(), self.kernel.is_some().into()]);
        let vcpus = u32::try_from(lock(&self.guest.pv.vcpus).len()).unwrap_or(u32::MAX);
        for vcpu in 0..vcpus {
            update(&[self.guest.vcpu_online(vcpu).is_ok_and(|online| online).into()]);
            for part in VcpuPart::ALL {
                let mut state = self.guest.vcpu_state(vcpu, part).unwrap_or_default();
                if part == VcpuPart::Basic && !state.is_empty() {
                    state.truncate(width.context_bytes());
                    let is_first = vcpu == 0;
                    let done = Registers::rewrite(width, &mut state, is_first, |frame| self.pfn(frame));
                    update(&[done.is_some().into()]);
                }
                update(&(state.len() as u64).to_le_bytes());
                update(&state);
            }
        }
        update(&self.shared_info());
    }

    fn shared_info(&self) -> Vec<u8> {
        let width = self.guest.width();
        let page: PageBuffer = self.guest.guest.memory.copy(self.guest.shared_info());
        let mut kept = vec![0; PAGE_SIZE];
        for range in [shared_info::VCPU_INFO, shared_info::arch(width)] {
            let pair = kept.get_mut(range.clone()).zip(page.get(range));
            pair.into_iter().for_each(|(to, from)| to.copy_from_slice(from));
        }
        for info in kept.chunks_exact_mut(shared_info::VCPU_INFO_BYTES).take(shared_info::VCPUS) {
            shared_info::PENDING_SELECTOR.set(width, info, 0).unwrap_or_default();
        }
        for field in [shared_info::FRAME_LIST_LIST, shared_info::P2M_CR3] {
            field.set(width, &mut kept, 0).unwrap_or_default();
        }
        kept
    }
}
