// SPDX-License-Identifier: GPL-3.0-or-later
//! The vCPUs of a PV domain as a toolstack reads and sets them, part by part.

use xenmig_types::{
    Gfn, Pfn, VcpuPart,
    pv::{GuestWidth, vcpu_context},
};

use super::{
    PvGuest, pv_config,
    pv_vcpu::{AFTER_NARROW, EXTENDED_LIMITS, MSR_BYTES, PvVcpu, Registers, clock_of},
    tables::level_of_type,
};
use crate::gate::lock;

impl PvGuest<'_> {
    /// Replaces the vCPUs.
    pub(super) fn set_vcpus(&self, vcpus: Vec<PvVcpu>) {
        *lock(&self.pv.vcpus) = vcpus;
    }

    /// Returns the frames in a vCPU's context; `None` if it has none.
    pub(super) fn registers(&self, vcpu: usize) -> Option<Registers> {
        Registers::read(self.width(), &lock(&self.pv.vcpus).get(vcpu)?.basic)
    }

    /// Returns the frames of all GDTs.
    pub(super) fn gdt_frames(&self) -> Vec<Gfn> {
        let vcpus = lock(&self.pv.vcpus);
        let registers = vcpus.iter().filter_map(|vcpu| Registers::read(self.width(), &vcpu.basic));
        registers.flat_map(|registers| registers.gdt).collect()
    }

    /// Makes vCPU 0 hand over the start info page.
    pub(super) fn hand_over(&self, start_info: Gfn) {
        if let Some(vcpu) = lock(&self.pv.vcpus).first_mut() {
            let set = vcpu_context::RDX.set(self.width(), &mut vcpu.basic, start_info.0);
            debug_assert!(set.is_some(), "vCPU 0 runs, so it has a context");
        }
    }

    /// Says whether a vCPU is online; the error is an errno.
    pub(super) fn vcpu_online(&self, vcpu: u32) -> Result<bool, i32> {
        lock(&self.pv.vcpus).get(vcpu as usize).map(|vcpu| vcpu.online).ok_or(libc::EINVAL)
    }

    /// Returns a part of a vCPU's state; the error is an errno.
    pub(super) fn vcpu_state(&self, vcpu: u32, part: VcpuPart) -> Result<Vec<u8>, i32> {
        let vcpus = lock(&self.pv.vcpus);
        let vcpu = vcpus.get(vcpu as usize).ok_or(libc::ESRCH)?;
        match part {
            VcpuPart::Basic if vcpu.basic.is_empty() => Err(libc::ENODATA),
            VcpuPart::Basic => {
                let mut context = vcpu.context(self.guest.writes());
                context.resize(GuestWidth::Bits64.context_bytes(), AFTER_NARROW);
                Ok(context)
            }
            VcpuPart::Extended => Ok(vcpu.extended.clone()),
            VcpuPart::Xsave => Ok(vcpu.xsave.clone()),
            VcpuPart::Msrs => Ok(vcpu.msrs.clone()),
        }
    }

    /// Sets a part of a vCPU's state as Xen does: the frames in a context must be the guest's, and what they lead to must
    /// be page tables or become such; a vCPU that has a context keeps its frames. The error is an errno.
    pub(super) fn set_vcpu_state(&self, number: u32, part: VcpuPart, state: &[u8]) -> Result<(), i32> {
        let mut vcpus = lock(&self.pv.vcpus);
        let vcpu = vcpus.get_mut(number as usize).ok_or(libc::ESRCH)?;
        let valid = match part {
            VcpuPart::Basic => {
                self.check_context(&vcpu.basic, state)?;
                vcpu.clock = clock_of(state).wrapping_sub(self.guest.writes());
                vcpu.online = vcpu_context::FLAGS
                    .get(self.width(), state)
                    .is_some_and(|flags| flags & vcpu_context::ONLINE != 0);
                true
            }
            VcpuPart::Extended => {
                let bytes = u32::try_from(state.len()).unwrap_or(u32::MAX);
                let front = number.to_le_bytes().into_iter().chain(bytes.to_le_bytes());
                EXTENDED_LIMITS.contains(&state.len()) && state.iter().copied().take(8).eq(front)
            }
            VcpuPart::Xsave => {
                (pv_config::MIN_XSAVE_BYTES..=pv_config::MAX_XSAVE_BYTES).contains(&state.len())
            }
            VcpuPart::Msrs => {
                let (entries, rest) = state.as_chunks::<MSR_BYTES>();
                rest.is_empty()
                    && entries.len() <= pv_config::MAX_MSRS
                    && entries.iter().all(|entry| entry.iter().skip(4).take(4).all(|byte| *byte == 0))
            }
        };
        if !valid {
            return Err(libc::EINVAL);
        }
        let place = match part {
            VcpuPart::Basic => &mut vcpu.basic,
            VcpuPart::Extended => &mut vcpu.extended,
            VcpuPart::Xsave => &mut vcpu.xsave,
            VcpuPart::Msrs => &mut vcpu.msrs,
        };
        state.clone_into(place);
        Ok(())
    }

    fn check_context(&self, old: &[u8], new: &[u8]) -> Result<(), i32> {
        let width = self.width();
        let registers = Registers::read(width, new).filter(|_| new.len() == width.context_bytes());
        let registers = registers.ok_or(libc::EINVAL)?;
        if let Some(old) = Registers::read(width, old) {
            let same =
                (old.root, old.user_root, old.gdt) == (registers.root, registers.user_root, registers.gdt);
            return if same { Ok(()) } else { Err(libc::EOPNOTSUPP) };
        }
        let page = |frame| self.pv.pfn(frame).ok_or(libc::EINVAL);
        for frame in registers.gdt {
            if self.pv.page_type(page(frame)?).is_page_table() {
                return Err(libc::EINVAL);
            }
        }
        let roots: [Option<Gfn>; 2] = [registers.root, registers.user_root];
        if registers.root.is_none() {
            return Err(libc::EINVAL);
        }
        for root in roots.into_iter().flatten() {
            self.make_root(page(root)?)?;
        }
        Ok(())
    }

    fn make_root(&self, page: Pfn) -> Result<(), i32> {
        let levels = self.width().levels();
        let is = level_of_type(self.pv.page_type(page));
        if is == levels || (is == 0 && self.promote(page, levels)) { Ok(()) } else { Err(libc::EINVAL) }
    }
}
