// SPDX-License-Identifier: GPL-3.0-or-later
//! The vCPUs. What the stream says of them is checked as it comes and kept until END, since what it refers to may still
//! come or change. Then the pfns in the registers become frames.
//!
//! vCPU 0 is the one that has suspended the guest: its `rdx` names the start info page.

use xenmig_stream::RecordKind;
use xenmig_types::{
    Gfn, Pfn, VcpuPart,
    pv::{Field, GuestWidth, vcpu_context as context},
};

use super::{
    super::{NamedPage, Restore, RestoreError},
    Pv, field, put,
};

/// The longest extended context in bytes: what the domctl has room for.
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

/// Says whether a part of a vCPU's state can be so long.
const fn is_length(width: GuestWidth, part: VcpuPart, length: usize) -> bool {
    match part {
        VcpuPart::Basic => length == width.context_bytes(),
        VcpuPart::Extended => length <= MAX_EXTENDED_BYTES,
        VcpuPart::Xsave => length >= MIN_XSAVE_BYTES && length <= MAX_XSAVE_BYTES,
        VcpuPart::Msrs => length.is_multiple_of(MSR_BYTES) && length <= MAX_MSRS_BYTES,
    }
}

impl Restore<'_, '_, Pv> {
    /// Keeps a part of a vCPU's state. The last one of a kind holds.
    pub(super) fn vcpu(&mut self, part: VcpuPart, vcpu: u32, state: Vec<u8>) -> Result<(), RestoreError> {
        let kind = RecordKind::of_vcpu(part);
        let width = self.width(kind)?;
        if vcpu >= self.guest.vcpu_count {
            return self.unsupported(kind, "the domain has no vCPU of this number");
        }
        if !is_length(width, part, state.len()) {
            return self.unsupported(kind, "no such state is so long, or so short");
        }
        if part == VcpuPart::Basic && field(context::GDT_ENTRIES, width, &state)? > context::MAX_GDT_ENTRIES {
            return self.unsupported(kind, "its GDT has more entries than a guest may have");
        }
        *self.guest.vcpus.entry(vcpu).or_default().part_mut(part) = Some(state);
        Ok(())
    }

    /// Loads the vCPUs.
    pub(super) fn set_vcpus(&mut self, width: GuestWidth) -> Result<(), RestoreError> {
        let vcpus = std::mem::take(&mut self.guest.vcpus);
        if vcpus.get(&0).is_none_or(|first| first.basic.is_none()) {
            return Err(RestoreError::Missing(RecordKind::PvVcpuBasic));
        }
        for (vcpu, mut state) in vcpus {
            if let Some(context) = &mut state.basic {
                if vcpu == 0 {
                    let pfn = Pfn(field(context::RDX, width, context)?);
                    let frame = self.connect_start_info(width, pfn)?;
                    put(context::RDX, width, context, frame.0)?;
                }
                self.localise_context(width, vcpu, context)?;
            }
            for part in VcpuPart::ALL {
                if let Some(state) = state.part_mut(part) {
                    let feed = self.reader.source_mut();
                    feed.retry(|| self.host.set_vcpu_state(self.domid, vcpu, part, state))?;
                }
            }
            self.attend()?;
        }
        Ok(())
    }

    /// Replaces the pfns in a vCPU's registers by frames: those of the GDT and of the page tables.
    fn localise_context(
        &self,
        width: GuestWidth,
        vcpu: u32,
        registers: &mut [u8],
    ) -> Result<(), RestoreError> {
        let flags = field(context::FLAGS, width, registers)?;
        put(context::FLAGS, width, registers, flags | context::ONLINE)?;

        let entries = field(context::GDT_ENTRIES, width, registers)?;
        for index in 0..entries.div_ceil(context::GDT_ENTRIES_PER_FRAME) {
            let at = context::GDT_FRAMES.at(usize::try_from(index).unwrap_or(usize::MAX));
            let pfn = Pfn(field(at, width, registers)?);
            let frame = self.plain(NamedPage::Gdt { vcpu, index }, pfn)?.frame;
            put(at, width, registers, frame.0)?;
        }

        let cr3 = field(context::CR3, width, registers)?;
        let pfn = Pfn(width.frame_of_cr3(cr3).map_or(u64::MAX, |frame| frame.0));
        let frame = self.top_table(width, NamedPage::Cr3 { vcpu }, pfn)?.frame;
        put_frame(context::CR3, width, registers, frame)?;

        if width == GuestWidth::Bits64 {
            // Bit 0 says that there is a page table for user mode.
            let cr1 = field(context::CR1, width, registers)?;
            if cr1 & 1 == 1 {
                let frame = self.top_table(width, NamedPage::Cr1 { vcpu }, Pfn(cr1 >> 12))?.frame;
                put_frame(context::CR1, width, registers, frame)?;
            } else {
                put(context::CR1, width, registers, 0)?;
            }
        }
        Ok(())
    }
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
