// SPDX-License-Identifier: GPL-3.0-or-later
//! The vCPUs. Their states are checked as they come and kept until END, since what they refer to may still come or change.
//! Then the pfns in the registers become frames.
//!
//! vCPU 0 is the one that has suspended the guest: its `rdx` names the start info page.

use std::collections::BTreeMap;

use xenmig_stream::RecordKind;
use xenmig_types::{
    Gfn, Pfn, VcpuPart,
    pv::{Field, GuestWidth, vcpu_context as context},
};

use super::{
    super::{error::RestoreError, events::RestoreProgress, named_page::NamedPage, target::Target},
    fields::{get, put},
    frame_map::FrameMap,
};

/// The longest extended context in bytes: the domctl has room for no more.
const MAX_EXTENDED_BYTES: usize = 128;
/// The shortest XSAVE state in bytes: two words that say which components follow.
const MIN_XSAVE_BYTES: usize = 16;
/// The longest XSAVE state in bytes. Today's largest, with AMX, has about 11,000.
const MAX_XSAVE_BYTES: usize = 1 << 16;
/// Bytes of one entry of the MSRs (`xen_domctl_vcpu_msr`), and the most of them. Xen has less than a dozen.
const MSR_BYTES: usize = 16;
const MAX_MSRS_BYTES: usize = MSR_BYTES << 8;

/// What the stream has said of one vCPU.
#[derive(Debug, Default)]
pub(super) struct VcpuState {
    basic: Option<Vec<u8>>,
    extended: Option<Vec<u8>>,
    xsave: Option<Vec<u8>>,
    msrs: Option<Vec<u8>>,
}

impl VcpuState {
    const fn part_mut(&mut self, part: VcpuPart) -> &mut Option<Vec<u8>> {
        match part {
            VcpuPart::Basic => &mut self.basic,
            VcpuPart::Extended => &mut self.extended,
            VcpuPart::Xsave => &mut self.xsave,
            VcpuPart::Msrs => &mut self.msrs,
        }
    }
}

/// Says whether a part of a vCPU's state can have this length.
const fn is_length(width: GuestWidth, part: VcpuPart, length: usize) -> bool {
    match part {
        VcpuPart::Basic => length == width.context_bytes(),
        VcpuPart::Extended => length <= MAX_EXTENDED_BYTES,
        VcpuPart::Xsave => length >= MIN_XSAVE_BYTES && length <= MAX_XSAVE_BYTES,
        VcpuPart::Msrs => length.is_multiple_of(MSR_BYTES) && length <= MAX_MSRS_BYTES,
    }
}

/// What the stream has said of the domain's vCPUs.
#[derive(Debug)]
pub(super) struct VcpuStates {
    /// How many vCPUs the domain has.
    count: u32,
    states: BTreeMap<u32, VcpuState>,
}

impl VcpuStates {
    /// Begins with a domain of `count` vCPUs, of which nothing is known.
    pub(super) const fn new(count: u32) -> Self {
        Self { count, states: BTreeMap::new() }
    }

    /// Says whether the stream has had no vCPU's state yet.
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Keeps a part of a vCPU's state; the last one of a kind holds. The error says why it is not valid.
    pub(super) fn keep(
        &mut self,
        width: GuestWidth,
        vcpu: u32,
        part: VcpuPart,
        state: Vec<u8>,
    ) -> Result<(), &'static str> {
        if vcpu >= self.count {
            return Err("the domain has no vCPU of this number");
        }
        if !is_length(width, part, state.len()) {
            return Err("a state of this kind cannot have this length");
        }
        let too_many =
            |entries: Option<u64>| entries.is_none_or(|entries| entries > context::MAX_GDT_ENTRIES);
        if part == VcpuPart::Basic && too_many(context::GDT_ENTRIES.get(width, &state)) {
            return Err("its GDT has more entries than a guest may have");
        }
        *self.states.entry(vcpu).or_default().part_mut(part) = Some(state);
        Ok(())
    }

    /// Returns where the suspended guest says that its start info page is.
    pub(super) fn start_info(&self, width: GuestWidth) -> Result<Pfn, RestoreError> {
        let first = self.states.get(&0).and_then(|state| state.basic.as_deref());
        let first = first.ok_or(RestoreError::Missing(RecordKind::PvVcpuBasic))?;
        Ok(Pfn(get(context::RDX, width, first)?))
    }

    /// Loads the vCPUs.
    pub(super) fn load(
        &mut self,
        width: GuestWidth,
        start_info: Gfn,
        frames: &FrameMap,
        target: &Target<'_>,
        progress: &RestoreProgress,
    ) -> Result<(), RestoreError> {
        for (vcpu, mut state) in std::mem::take(&mut self.states) {
            if let Some(registers) = &mut state.basic {
                if vcpu == 0 {
                    put(context::RDX, width, registers, start_info.0)?;
                }
                localise_context(width, vcpu, registers, frames)?;
            }
            for part in VcpuPart::ALL {
                if let Some(state) = state.part_mut(part) {
                    target.call(|host, domid| host.set_vcpu_state(domid, vcpu, part, state))?;
                }
            }
            target.attend(progress)?;
        }
        Ok(())
    }
}

/// Replaces the pfns in a vCPU's registers by frames: those of the GDT and of the page tables.
fn localise_context(
    width: GuestWidth,
    vcpu: u32,
    registers: &mut [u8],
    frames: &FrameMap,
) -> Result<(), RestoreError> {
    let flags = get(context::FLAGS, width, registers)?;
    put(context::FLAGS, width, registers, flags | context::ONLINE)?;

    let entries = get(context::GDT_ENTRIES, width, registers)?;
    for index in 0..entries.div_ceil(context::GDT_ENTRIES_PER_FRAME) {
        let at = context::GDT_FRAMES.at(usize::try_from(index).unwrap_or(usize::MAX));
        let pfn = Pfn(get(at, width, registers)?);
        let frame = frames.ordinary(NamedPage::Gdt { vcpu, index }, pfn)?.frame;
        put(at, width, registers, frame.0)?;
    }

    let cr3 = get(context::CR3, width, registers)?;
    let pfn = Pfn(width.frame_of_cr3(cr3).map_or(u64::MAX, |frame| frame.0));
    let frame = frames.top_table(width, NamedPage::Cr3 { vcpu }, pfn)?.frame;
    put_frame(context::CR3, width, registers, frame)?;

    if width == GuestWidth::Bits64 {
        // Bit 0 says that there is a page table for user mode.
        let cr1 = get(context::CR1, width, registers)?;
        if cr1 & 1 == 1 {
            let frame = frames.top_table(width, NamedPage::Cr1 { vcpu }, Pfn(cr1 >> 12))?.frame;
            put_frame(context::CR1, width, registers, frame)?;
        } else {
            put(context::CR1, width, registers, 0)?;
        }
    }
    Ok(())
}

/// Puts a frame into a control register.
fn put_frame(
    register: Field,
    width: GuestWidth,
    registers: &mut [u8],
    frame: Gfn,
) -> Result<(), RestoreError> {
    let value = width.cr3_of_frame(frame.0).ok_or(RestoreError::FrameTooHigh { frame })?;
    put(register, width, registers, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_kept_if_the_domain_has_the_vcpu_and_its_length_is_possible() {
        let width = GuestWidth::Bits64;
        let mut vcpus = VcpuStates::new(2);
        for (vcpu, part, length, is_kept) in [
            (1, VcpuPart::Msrs, 32, true),
            (2, VcpuPart::Msrs, 32, false),
            (1, VcpuPart::Msrs, 33, false),
            (0, VcpuPart::Basic, width.context_bytes(), true),
            (0, VcpuPart::Basic, width.context_bytes() - 1, false),
        ] {
            assert_eq!(vcpus.keep(width, vcpu, part, vec![0; length]).is_ok(), is_kept, "{vcpu} {length}");
        }
        assert_eq!(vcpus.start_info(width).unwrap(), Pfn(0));
        assert!(VcpuStates::new(2).start_info(width).is_err());
    }
}
