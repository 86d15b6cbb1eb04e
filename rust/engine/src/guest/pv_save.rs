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

use xenmig_hypervisor::{Access, ForeignPages, M2p, PageBuffer};
use xenmig_stream::encode;
use xenmig_types::{
    DomainInfo, Domid, Gfn, GuestKind, PAGE_SIZE, PageType, Pfn, VcpuPart,
    pv::{Field, GuestWidth, shared_info},
};

use super::{
    save_ops::{Domain, NO_FRAME, SaveOps, SaveWatch, check_growth},
    table_fault::TableFault,
};
use crate::save::save_error::SaveError;
use p2m::P2m;

/// The shared info page of a guest, which goes on changing.
#[derive(Debug)]
struct SharedInfo {
    page: ForeignPages,
    width: GuestWidth,
}

impl SharedInfo {
    fn map(
        domain: Domain<'_>,
        info: &DomainInfo,
        width: GuestWidth,
        watch: &mut SaveWatch<'_>,
    ) -> Result<Self, SaveError> {
        let Domain { host, domid } = domain;
        let frame = [Gfn(info.shared_info_frame)];
        let page = watch.retry(|| host.map(domid, &frame, Access::Read))?;
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
pub(crate) struct PvSave {
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

impl PvSave {
    /// Finds and maps everything that says where the guest's frames are.
    pub(super) fn open(
        domain: Domain<'_>,
        info: &DomainInfo,
        watch: &mut SaveWatch<'_>,
    ) -> Result<Self, SaveError> {
        let Domain { host, domid } = domain;
        let refused = SaveError::Refused { domid, why: "its words are neither 32 nor 64 bits wide" };
        let width = GuestWidth::from_bytes(watch.retry(|| host.guest_width(domid))?).ok_or(refused)?;
        let m2p = watch.retry(|| host.map_m2p(domid))?;
        let compat_m2p = match width {
            GuestWidth::Bits32 => Some(watch.retry(|| host.compat_m2p_frame(domid))?),
            GuestWidth::Bits64 => None,
        };
        let shared = SharedInfo::map(domain, info, width, watch)?;
        // Before the p2m is followed: a change from here on shows.
        let found = P2mStamp::read(&shared);
        let p2m = P2m::find(domain, width, &m2p, &shared.read(), watch)?;
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

    /// Appends X86_PV_P2M_FRAMES.
    fn p2m_frames(&self, out: &mut Vec<u8>) -> Result<(), SaveError> {
        let pfn = |mfn: &Gfn| {
            let what = "a frame of it, which the guest does not own";
            self.frames.pfn(*mfn).ok_or(SaveError::BadP2m { domid: self.domid, what, value: mfn.0 })
        };
        let frames: Vec<Pfn> = self.frames.p2m.pages().iter().map(pfn).collect::<Result<_, _>>()?;
        // The p2m has at most 2^32 entries, and one at least.
        let last = u32::try_from(self.frames.p2m.entries().saturating_sub(1)).unwrap_or(u32::MAX);
        Ok(encode::pv_p2m_frames(out, 0, last, &frames)?)
    }

    /// Fails if the p2m has moved onto other pages since it was found: those that are mapped may hold anything now.
    fn check_generation(&self) -> Result<(), SaveError> {
        let now = P2mStamp::read(&self.shared);
        if now.generation == self.found.generation {
            Ok(())
        } else {
            Err(SaveError::P2mMoved { domid: self.domid })
        }
    }

    /// Appends the parts of one vCPU's state.
    fn vcpu(
        &self,
        vcpu: u32,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        let Domain { host, domid } = domain;
        for part in VcpuPart::ALL {
            let mut state = watch.retry(|| host.vcpu_state(domid, vcpu, part))?;
            if part == VcpuPart::Basic {
                let pfn = |mfn| self.frames.pfn(mfn);
                let refused = |vcpu::Fault { what, value }| SaveError::Vcpu { domid, vcpu, what, value };
                vcpu::normalise(self.width, vcpu, &mut state, pfn).map_err(refused)?;
            }
            if !state.is_empty() {
                encode::pv_vcpu(out, part, vcpu, &state)?;
            }
        }
        Ok(())
    }
}

impl SaveOps for PvSave {
    fn has_device_model(&self) -> bool {
        false
    }

    /// The number of entries of the p2m, without the empty end that the guest may have announced.
    fn p2m_size(&self, _domain: Domain<'_>, _watch: &mut SaveWatch<'_>) -> Result<u64, SaveError> {
        Ok(self.frames.p2m.entries())
    }

    fn front(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        let Domain { host, domid } = domain;
        encode::headers(out, GuestKind::Pv, watch.retry(|| host.version())?);
        encode::pv_info(out, self.width.bytes(), self.width.levels());
        encode::cpu_policy(out, &watch.retry(|| host.cpu_policy(domid))?)?;
        encode::static_data_end(out);
        self.p2m_frames(out)
    }

    fn frames(&self, pfns: &[Pfn], frames: &mut Vec<Gfn>) -> usize {
        frames.clear();
        frames.extend(pfns.iter().map(|pfn| self.frames.p2m.frame(*pfn).unwrap_or(NO_FRAME)));
        frames.iter().filter(|frame| **frame == NO_FRAME).count()
    }

    /// Puts pfns for mfns, and leaves Xen's own slots empty.
    fn normalise(&self, kind: PageType, table: &PageBuffer, out: &mut Vec<u8>) -> Result<(), TableFault> {
        tables::normalise(self.width, self.compat_m2p, kind, table, |mfn| self.frames.pfn(mfn), out)
    }

    fn check_p2m(&self) -> Result<(), SaveError> {
        self.check_generation()
    }

    /// Compares what the guest itself says of its p2m: the p2m that is mapped has no empty end.
    fn check_size(
        &self,
        _domain: Domain<'_>,
        _watch: &mut SaveWatch<'_>,
        _before: u64,
    ) -> Result<(), SaveError> {
        self.check_generation()?;
        check_growth(self.domid, self.found.entries, P2mStamp::read(&self.shared).entries)
    }

    /// TSC, shared info, and the vCPUs that are online.
    fn state(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        let Domain { host, domid } = domain;
        encode::tsc_info(out, &watch.retry(|| host.tsc_info(domid))?);
        encode::shared_info(out, &self.shared.read());
        for vcpu in 0..=self.max_vcpu_id {
            if watch.retry(|| host.vcpu_online(domid, vcpu))? {
                self.vcpu(vcpu, domain, watch, out)?;
            }
        }
        Ok(())
    }
}
