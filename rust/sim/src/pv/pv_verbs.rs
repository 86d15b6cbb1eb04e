// SPDX-License-Identifier: GPL-3.0-or-later
//! The verbs of [`PvVerbs`] on simulated domains, and what the verbs of [`Hypervisor`](xenmig_hypervisor::Hypervisor) do for PV guests,
//! whose frames are mfns.

use std::sync::{Arc, atomic::Ordering};

use xenmig_hypervisor::{HypervisorError, M2p, PinOp, PvVerbs, Result};
use xenmig_types::{Domid, Gfn, PageType, Pfn, VcpuPart, pv::GuestWidth};

use super::{
    PvDomain, PvGuest,
    tables::{level_of_type, pinned, type_of_level},
};
use crate::{
    counters::Verb,
    domain::SimDomain,
    gate::lock,
    host::SimHost,
    hypervisor_verbs::{no_errno, require},
    memory::Memory,
};

/// A frame that no domain has a page at.
const NOWHERE: Gfn = Gfn(u64::MAX);

impl PvDomain {
    /// Returns the frame of the shared info page.
    pub(crate) const fn shared_info_frame(&self) -> Gfn {
        self.shared_info
    }

    /// Returns the type of a frame: `Xtab` for one that is no page of the domain, and for its shared info page.
    pub(crate) fn frame_type(&self, frame: Gfn) -> PageType {
        self.pfn(frame).map_or(PageType::Xtab, |pfn| self.page_type(pfn))
    }
}

impl PvGuest<'_> {
    /// Returns the number of frames as Xen answers it: what the shared info page says of the p2m's length.
    pub(crate) fn nr_gpfns(&self) -> u64 {
        self.max_pfn().max(1)
    }

    /// Returns where a frame of the domain is in its memory; for one that is not the domain's, where nothing is. A page
    /// table cannot be had for writing.
    pub(crate) fn place(&self, frame: Gfn, write: bool) -> Gfn {
        match self.pv.pfn(frame) {
            Some(pfn) if write && self.pv.page_type(pfn).is_page_table() => NOWHERE,
            Some(pfn) => Gfn(pfn.0),
            None if frame == self.pv.shared_info => Gfn(self.shared_info().0),
            None => NOWHERE,
        }
    }

    /// Gives the domain pages at pfns, and puts the frames into their place. Returns how many it got.
    pub(crate) fn populate(&self, frames: &mut [Gfn]) -> usize {
        let mut given = 0;
        for frame in frames {
            let pfn = Pfn(frame.0);
            let Some(got) = self.get(pfn).then(|| self.pv.frame(pfn)).flatten() else { break };
            *frame = got;
            given += 1;
        }
        given
    }

    /// Takes the page of a frame away, and says whether it was one of the domain's.
    pub(crate) fn depopulate(&self, frame: Gfn) -> bool {
        self.pv.pfn(frame).is_some_and(|pfn| self.give_back(pfn))
    }

    /// A page vanishes under a toolstack's hands: by the guest's doing, if it is at home.
    pub(crate) fn vanish(&self, page: Pfn) -> bool {
        self.step(|guest, kernel| guest.balloon_out(kernel, page)) || self.give_back(page)
    }

    fn set_width(&self, bytes: u8) -> std::result::Result<(), i32> {
        let now = self.width();
        match GuestWidth::from_bytes(bytes) {
            Some(width) if width == now => Ok(()),
            Some(GuestWidth::Bits32) if self.guest.memory.total_pages() > 0 => Err(libc::EACCES),
            Some(GuestWidth::Bits32) => {
                self.pv.width_bytes.store(bytes, Ordering::Release);
                Ok(())
            }
            // Once narrow, a domain stays so.
            Some(GuestWidth::Bits64) | None => Err(libc::EINVAL),
        }
    }

    fn pin(&self, op: &PinOp) -> bool {
        let level = level_of_type(op.kind);
        let Some(page) = self.pv.pfn(op.frame).filter(|_| level != 0) else { return false };
        // What is pinned cannot be pinned again.
        if self.pv.page_type(page) == pinned(type_of_level(level)) || !self.promote(page, level) {
            return false;
        }
        self.pv.set_page_type(page, pinned(type_of_level(level)));
        self.guest.logdirty.mark(page);
        true
    }
}

/// Counts the end of a mapping of the m2p.
struct Mapped(Arc<Memory>);

impl Drop for Mapped {
    fn drop(&mut self) {
        self.0.mappings.unmapped(0);
    }
}

impl SimHost {
    /// Begins a verb on a domain, which must be a PV guest's.
    fn enter_pv(&self, verb: Verb, domid: Domid) -> Result<Arc<SimDomain>> {
        let domain = self.enter(verb, domid)?;
        require(domain.guest.pv.is_some(), verb, domid, libc::EOPNOTSUPP)?;
        Ok(domain)
    }

    /// Runs a verb on a PV guest; an error is an errno.
    fn on_pv<T>(
        &self,
        verb: Verb,
        domid: Domid,
        call: impl FnOnce(&SimDomain, PvGuest<'_>) -> std::result::Result<T, i32>,
    ) -> Result<T> {
        let domain = self.enter_pv(verb, domid)?;
        let guest = domain.guest.pv().ok_or(HypervisorError::call(verb.name(), domid, libc::EOPNOTSUPP))?;
        call(&domain, guest).map_err(|errno| HypervisorError::call(verb.name(), domid, errno))
    }
}

impl PvVerbs for SimHost {
    fn guest_width(&self, domid: Domid) -> Result<u8> {
        self.on_pv(Verb::GuestWidth, domid, |_, guest| Ok(guest.width().bytes()))
    }

    fn set_guest_width(&self, domid: Domid, width_bytes: u8) -> Result<()> {
        self.on_pv(Verb::SetGuestWidth, domid, |domain, guest| {
            let _life = lock(&domain.life);
            guest.set_width(width_bytes)
        })
    }

    fn vcpu_online(&self, domid: Domid, vcpu: u32) -> Result<bool> {
        self.on_pv(Verb::VcpuOnline, domid, |_, guest| guest.vcpu_online(vcpu))
    }

    fn vcpu_state(&self, domid: Domid, vcpu: u32, part: VcpuPart) -> Result<Vec<u8>> {
        self.on_pv(Verb::VcpuState, domid, |_, guest| guest.vcpu_state(vcpu, part))
    }

    fn set_vcpu_state(&self, domid: Domid, vcpu: u32, part: VcpuPart, state: &[u8]) -> Result<()> {
        self.on_pv(Verb::SetVcpuState, domid, |domain, guest| {
            let life = lock(&domain.life);
            no_errno(life.state() != xenmig_types::DomainState::Running, libc::EBUSY)?;
            guest.set_vcpu_state(vcpu, part, state)
        })
    }

    fn map_m2p(&self, domid: Domid) -> Result<M2p> {
        self.on_pv(Verb::MapM2p, domid, |domain, guest| {
            let memory = &domain.guest.memory;
            memory.mappings.mapped(0);
            Ok(guest.pv.machine.map_m2p(Box::new(Mapped(Arc::clone(memory)))))
        })
    }

    fn compat_m2p_frame(&self, domid: Domid) -> Result<Gfn> {
        self.on_pv(Verb::CompatM2pFrame, domid, |_, guest| Ok(guest.pv.machine.compat_m2p()))
    }

    fn pin_tables(&self, domid: Domid, pins: &[PinOp]) -> Result<usize> {
        self.on_pv(Verb::PinTables, domid, |domain, guest| {
            let _life = lock(&domain.life);
            let pinned = pins.iter().take_while(|op| guest.pin(op)).count();
            no_errno(pinned > 0 || pins.is_empty(), libc::EINVAL)?;
            Ok(pinned)
        })
    }
}
