// SPDX-License-Identifier: GPL-3.0-or-later
//! The vCPUs of a PV domain, as Xen keeps them for it: four parts of a state, most of which only the guest
//! understands, and in the first of them a few frames.

use fastrand::Rng;
use xenmig_types::{
    Gfn,
    pv::{GuestWidth, vcpu_context},
};

use super::PvConfig;

/// Bytes of an extended context (`xen_domctl_ext_vcpucontext`): two numbers stand in front, the vCPU's and the size.
const EXTENDED_BYTES: u8 = 64;
/// The fewest and the most bytes that Xen takes of it.
pub(super) const EXTENDED_LIMITS: std::ops::RangeInclusive<usize> = 32..=128;
/// Bytes of an MSR's entry (`xen_domctl_vcpu_msr`): its number, nothing, its value.
pub(super) const MSR_BYTES: usize = 16;
/// Bytes at the front of a context that change with each write of the guest: floating point registers never stand still.
const CLOCK_BYTES: usize = 8;
/// `VGCF_i387_valid` and `VGCF_in_kernel`.
const FLAGS: u64 = 1 | 1 << 2;
/// Frames of a GDT.
const GDT_FRAMES: usize = 16;
/// What follows the context of a 32-bit guest, where that of a 64-bit one would go on.
pub(super) const AFTER_NARROW: u8 = 0xa5;

/// The state of one vCPU.
#[derive(Clone, Debug, Default)]
pub(super) struct PvVcpu {
    pub(super) online: bool,
    /// Empty as long as the vCPU was never brought up.
    pub(super) basic: Vec<u8>,
    /// What the first bytes said when the guest had written nothing.
    pub(super) clock: u64,
    pub(super) extended: Vec<u8>,
    pub(super) xsave: Vec<u8>,
    pub(super) msrs: Vec<u8>,
}

/// The frames in a vCPU's context.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    pub(super) root: Option<Gfn>,
    pub(super) user_root: Option<Gfn>,
    pub(super) start_info: Gfn,
    pub(super) gdt: Vec<Gfn>,
}

impl Registers {
    /// Reads them; `None` for a context that is too short, or has more of a GDT than there can be.
    pub(super) fn read(width: GuestWidth, context: &[u8]) -> Option<Self> {
        let entries = vcpu_context::GDT_ENTRIES.get(width, context)?;
        let frames = entries.div_ceil(vcpu_context::GDT_ENTRIES_PER_FRAME);
        let frames = usize::try_from(frames).ok().filter(|frames| *frames <= GDT_FRAMES)?;
        let gdt = (0..frames).map(|at| vcpu_context::GDT_FRAMES.at(at).get(width, context).map(Gfn));
        let user_root = match width {
            GuestWidth::Bits64 => Some(vcpu_context::CR1.get(width, context)?).filter(|cr1| *cr1 != 0),
            GuestWidth::Bits32 => None,
        };
        Some(Self {
            root: width.frame_of_cr3(vcpu_context::CR3.get(width, context)?),
            user_root: user_root.map(|cr1| Gfn(cr1 >> 12)),
            start_info: Gfn(vcpu_context::RDX.get(width, context)?),
            gdt: gdt.collect::<Option<_>>()?,
        })
    }

    /// Writes other numbers in their place: each is `translate`d; one that has none becomes 0. `start_info` says whether
    /// rdx is one of them.
    pub(super) fn rewrite(
        width: GuestWidth,
        context: &mut [u8],
        start_info: bool,
        translate: impl Fn(Gfn) -> Option<u64>,
    ) -> Option<()> {
        let registers = Self::read(width, context)?;
        let number = |frame| translate(frame).unwrap_or(0);
        for (at, frame) in registers.gdt.iter().enumerate() {
            vcpu_context::GDT_FRAMES.at(at).set(width, context, number(*frame))?;
        }
        let cr3 = width.cr3_of_frame(registers.root.map_or(0, number))?;
        vcpu_context::CR3.set(width, context, cr3)?;
        if let Some(frame) = registers.user_root {
            vcpu_context::CR1.set(width, context, number(frame) << 12)?;
        }
        if start_info {
            vcpu_context::RDX.set(width, context, number(registers.start_info))?;
        }
        Some(())
    }
}

/// What a vCPU of a new guest is made of.
#[derive(Clone, Debug)]
pub(super) struct BootState {
    pub(super) root: Gfn,
    pub(super) user_root: Option<Gfn>,
    pub(super) start_info: Gfn,
    pub(super) gdt: Vec<Gfn>,
}

impl PvVcpu {
    /// Makes a vCPU that is up; what is never looked at is random.
    pub(super) fn boot(
        width: GuestWidth,
        number: u32,
        boot: &BootState,
        config: &PvConfig,
        rng: &mut Rng,
    ) -> Option<Self> {
        let mut random = |bytes| {
            let mut part = vec![0; bytes];
            rng.fill(&mut part);
            part
        };
        let mut basic = random(width.context_bytes());
        let mut set = |field: xenmig_types::pv::Field, value| field.set(width, &mut basic, value);
        set(vcpu_context::FLAGS, FLAGS | vcpu_context::ONLINE)?;
        if number == 0 {
            set(vcpu_context::RDX, boot.start_info.0)?;
        }
        for at in 0..GDT_FRAMES {
            set(vcpu_context::GDT_FRAMES.at(at), boot.gdt.get(at).map_or(0, |frame| frame.0))?;
        }
        // The last frame is not full.
        let entries = boot.gdt.len() as u64 * vcpu_context::GDT_ENTRIES_PER_FRAME;
        set(vcpu_context::GDT_ENTRIES, entries.saturating_sub(3))?;
        set(vcpu_context::CR3, width.cr3_of_frame(boot.root.0)?)?;
        set(vcpu_context::CR1, boot.user_root.map_or(0, |frame| frame.0 << 12))?;
        let mut extended = if config.extended { random(EXTENDED_BYTES.into()) } else { Vec::new() };
        let front = number.to_le_bytes().into_iter().chain(u32::from(EXTENDED_BYTES).to_le_bytes());
        extended.iter_mut().zip(front).for_each(|(byte, front)| *byte = front);
        let xsave = random(config.xsave_bytes);
        let mut msrs = random(config.msrs * MSR_BYTES);
        msrs.chunks_exact_mut(MSR_BYTES).for_each(|msr| {
            msr.iter_mut().skip(4).take(4).for_each(|byte| *byte = 0);
        });
        let clock = clock_of(&basic);
        Some(Self { online: true, basic, clock, extended, xsave, msrs })
    }

    /// Returns the context, without its clock; `None` if the vCPU was never brought up.
    pub(super) fn context_now(&self) -> Option<&[u8]> {
        (!self.basic.is_empty()).then_some(&*self.basic)
    }

    pub(super) fn context(&self, writes: u64) -> Vec<u8> {
        let mut context = self.basic.clone();
        let clock = self.clock.wrapping_add(writes).to_le_bytes();
        context.iter_mut().zip(clock).for_each(|(byte, clock)| *byte = clock);
        context
    }
}

pub(super) fn clock_of(context: &[u8]) -> u64 {
    let mut clock = [0; CLOCK_BYTES];
    clock.iter_mut().zip(context).for_each(|(clock, byte)| *clock = *byte);
    u64::from_le_bytes(clock)
}
