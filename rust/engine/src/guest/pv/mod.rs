// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests: they know the frames of the host, mfns, and have them in their page tables, in their p2m and in their
//! registers. The stream has pfns everywhere. This is the way from mfn to pfn.
//!
//! ```text
//! shared info ─► p2m.rs ─┐
//!                        ├─► Frames: pfn ─► mfn, and back where both tables agree ─┬─► tables.rs   page tables
//! Xen's m2p ─────────────┘                                                         └─► vcpu.rs     registers, GDT
//! ```
//!
//! The m2p, the p2m and the shared info page stay mapped for the whole save and are read entry by entry, so a pfn is
//! always looked up as it is now. That the p2m itself may move, onto other pages, is what its generation is for.
//! Sources: libxc-migration-stream, "x86 PV Guest"; `public/arch-x86/xen.h`, `arch_shared_info`.

mod p2m;
mod tables;
mod vcpu;

use xenmig_hypervisor::{Access, ForeignPages, Hypervisor, M2p, PageBuffer};
use xenmig_stream::encode;
use xenmig_types::{
    DomainInfo, Domid, Gfn, PAGE_SIZE, PageType, Pfn, VcpuPart,
    pv::{Field, GuestWidth, shared_info},
};

use super::{NO_FRAME, TableFault};
use crate::SaveError;
use p2m::P2m;

/// The shared info page of a guest, which goes on changing.
#[derive(Debug)]
struct SharedInfo {
    page: ForeignPages,
    width: GuestWidth,
}

impl SharedInfo {
    fn map(host: &dyn Hypervisor, info: &DomainInfo, width: GuestWidth) -> Result<Self, SaveError> {
        let domid = info.domid;
        let page = host.map(domid, &[Gfn(info.shared_info_frame)], Access::Read)?;
        match page.error(0) {
            None => Ok(Self { page, width }),
            Some(errno) => Err(SaveError::MapFrame {
                domid,
                what: "the shared info page",
                frame: Gfn(info.shared_info_frame),
                errno,
            }),
        }
    }

    /// Copies the page.
    fn read(&self) -> PageBuffer {
        let mut page = [0; PAGE_SIZE];
        // The page is mapped: that was looked at when it was.
        self.page.copy_out(0, &mut page);
        page
    }

    fn field(&self, field: Field) -> u64 {
        field.get(self.width, &self.read()).unwrap_or_default()
    }
}

/// Where the frames of the guest are: both directions.
#[derive(Debug)]
pub(super) struct Frames {
    m2p: M2p,
    p2m: P2m,
}

impl Frames {
    /// Returns the pfn of a frame, if it is one of the guest's: the guest's own table must lead back to it.
    fn pfn(&self, mfn: Gfn) -> Option<Pfn> {
        let pfn = self.m2p.entry(mfn)?;
        (self.p2m.frame(pfn) == Some(mfn)).then_some(pfn)
    }
}

/// A PV guest that is being saved.
#[derive(Debug)]
pub(crate) struct PvGuest {
    domid: Domid,
    width: GuestWidth,
    max_vcpu_id: u32,
    shared: SharedInfo,
    frames: Frames,
    /// What the shared info page said of the p2m when it was found.
    found: P2mStamp,
    /// In 32-bit guests, what stands in the first of Xen's own slots of an L2 table.
    compat_m2p: Option<Gfn>,
}

/// What changes in the shared info page when the p2m does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct P2mStamp {
    /// Entries that the guest says the p2m has.
    entries: u64,
    /// `None` for a p2m that is a tree: it has no generation.
    generation: Option<u64>,
}

impl P2mStamp {
    fn read(shared: &SharedInfo) -> Self {
        let is_list = shared.field(shared_info::P2M_CR3) != 0;
        Self {
            entries: shared.field(shared_info::MAX_PFN),
            generation: is_list.then(|| shared.field(shared_info::P2M_GENERATION)),
        }
    }
}

impl PvGuest {
    /// Finds and maps everything that says where the guest's frames are.
    pub(super) fn open(host: &dyn Hypervisor, info: &DomainInfo) -> Result<Self, SaveError> {
        let domid = info.domid;
        let refused = SaveError::Refused { domid, why: "its words are neither 32 nor 64 bits wide" };
        let width = GuestWidth::from_bytes(host.guest_width(domid)?).ok_or(refused)?;
        let m2p = host.map_m2p(domid)?;
        let compat_m2p = match width {
            GuestWidth::Bits32 => Some(host.compat_m2p_frame(domid)?),
            GuestWidth::Bits64 => None,
        };
        let shared = SharedInfo::map(host, info, width)?;
        // Before the p2m is followed: a change from here on shows.
        let found = P2mStamp::read(&shared);
        let p2m = P2m::find(host, domid, width, &m2p, &shared.read())?;
        Ok(Self {
            domid,
            width,
            max_vcpu_id: info.max_vcpu_id,
            shared,
            frames: Frames { m2p, p2m },
            found,
            compat_m2p,
        })
    }

    /// Returns the number of entries of the p2m, without the empty end that the guest may have announced.
    pub(super) const fn p2m_size(&self) -> u64 {
        self.frames.p2m.entries()
    }

    /// Returns the frame behind a pfn as the p2m has it now.
    pub(super) fn frame(&self, pfn: Pfn) -> Gfn {
        self.frames.p2m.frame(pfn).unwrap_or(NO_FRAME)
    }

    /// Appends X86_PV_INFO.
    pub(super) fn info(&self, out: &mut Vec<u8>) {
        encode::pv_info(out, self.width.bytes(), self.width.levels());
    }

    /// Appends X86_PV_P2M_FRAMES.
    pub(super) fn p2m_frames(&self, out: &mut Vec<u8>) -> Result<(), SaveError> {
        let pfn = |mfn: &Gfn| {
            let what = "a frame of it, which is none of the guest's";
            self.frames.pfn(*mfn).ok_or(SaveError::BadP2m { domid: self.domid, what, value: mfn.0 })
        };
        let frames: Vec<Pfn> = self.frames.p2m.pages().iter().map(pfn).collect::<Result<_, _>>()?;
        // The p2m has at most 2^32 entries, and one at least.
        let last = u32::try_from(self.p2m_size().saturating_sub(1)).unwrap_or(u32::MAX);
        Ok(encode::pv_p2m_frames(out, 0, last, &frames)?)
    }

    /// Appends a page table with pfns for mfns, and without Xen's own slots.
    pub(super) fn normalise(
        &self,
        kind: PageType,
        table: &PageBuffer,
        out: &mut Vec<u8>,
    ) -> Result<(), TableFault> {
        tables::normalise(self.width, self.compat_m2p, kind, table, |mfn| self.frames.pfn(mfn), out)
    }

    /// Fails if the p2m has moved onto other pages since it was found: those that are mapped may be anything now.
    pub(super) fn check_generation(&self) -> Result<(), SaveError> {
        let now = P2mStamp::read(&self.shared);
        if now.generation == self.found.generation {
            Ok(())
        } else {
            Err(SaveError::P2mMoved { domid: self.domid })
        }
    }

    /// Returns how many entries the guest said its p2m has, when the save began and now.
    pub(super) fn claimed_sizes(&self) -> Result<(u64, u64), SaveError> {
        self.check_generation()?;
        Ok((self.found.entries, P2mStamp::read(&self.shared).entries))
    }

    /// Appends the state of the suspended guest: TSC, shared info, and the vCPUs that are online.
    pub(super) fn state(&self, host: &dyn Hypervisor, out: &mut Vec<u8>) -> Result<(), SaveError> {
        encode::tsc_info(out, &host.tsc_info(self.domid)?);
        encode::shared_info(out, &self.shared.read());
        for vcpu in 0..=self.max_vcpu_id {
            if !host.vcpu_online(self.domid, vcpu)? {
                continue;
            }
            for part in VcpuPart::ALL {
                let mut state = host.vcpu_state(self.domid, vcpu, part)?;
                if part == VcpuPart::Basic {
                    vcpu::normalise(self.width, vcpu, &mut state, |mfn| self.frames.pfn(mfn)).map_err(
                        |fault| SaveError::Vcpu {
                            domid: self.domid,
                            vcpu,
                            what: fault.what,
                            value: fault.value,
                        },
                    )?;
                }
                if !state.is_empty() {
                    encode::pv_vcpu(out, part, vcpu, &state)?;
                }
            }
        }
        Ok(())
    }
}
