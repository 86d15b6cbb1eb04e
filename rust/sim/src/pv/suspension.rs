// SPDX-License-Identifier: GPL-3.0-or-later
//! What a PV guest's kernel does before a suspension and after it, as Linux does it.

use std::sync::atomic::Ordering;

use xenmig_types::pv::start_info;

use super::{
    PvGuest,
    kernel::{Kernel, Lost, shared_info_address},
    tables::{entry, flag},
};
use crate::gate::lock;

impl PvGuest<'_> {
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
}
