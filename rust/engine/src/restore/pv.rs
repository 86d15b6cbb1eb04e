// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests: they see the host's frames, so everything that names a frame is rewritten, from pfns in the stream to the
//! frames that the domain was given.
//!
//! ```text
//! X86_PV_INFO ─► width          X86_PV_P2M_FRAMES ─► p2m_pages.rs: which pfns there are
//! PAGE_DATA ─► frame_map.rs: pfn, frame, type ─► page tables: page_tables.rs
//! SHARED_INFO, X86_PV_VCPU_* ─► kept
//! END ─► zeroes ─► shared info ─► start info, vCPUs ─► pins ─► holes ─► p2m ─► grants
//! ```
//!
//! The order at END is libxc's: the vCPUs' page tables become Xen's types before the pins do, and pages that are written to
//! must not be page tables by then. Source: libxc-migration-stream, revision 3; `public/xen.h`.

mod fields;
mod frame_map;
mod p2m_pages;
mod page_tables;
mod pages_at_end;
mod shared_info;
mod start_info;
mod vcpu_states;

use xenmig_hypervisor::PageBuffer;
use xenmig_stream::{Record, RecordKind};
use xenmig_types::{
    DomainInfo, Gfn, Pfn,
    pv::{GuestWidth, Pte},
};

use super::{
    channels::Channels,
    error::RestoreError,
    events::RestoreProgress,
    grants,
    ops::{RestoreOps, SharedFrames},
    options::RestoreOptions,
    static_data::StaticData,
    target::Target,
    typed_pfn::TypedPfn,
};
use frame_map::FrameMap;
use p2m_pages::P2mPages;
use page_tables::TableContext;
use start_info::StartInfo;
use vcpu_states::VcpuStates;

/// Why memory after a vCPU is refused (spec, "x86 PV Guest", the order of records).
const BEFORE_VCPUS: &str = "it must come before the records of vCPUs";

/// What is known of a PV guest.
#[derive(Debug)]
pub(super) struct PvRestore {
    /// The width of its words; `None` before X86_PV_INFO.
    width: Option<GuestWidth>,
    p2m_pages: P2mPages,
    /// The pages that the domain was given.
    frames: FrameMap,
    /// A PAGE_DATA record has come.
    has_pages: bool,
    vcpus: VcpuStates,
    channels: Option<Channels>,
    /// Where the new domain has its shared info page.
    shared_info_frame: Gfn,
    /// The old domain's shared info page.
    shared_info: Option<Vec<u8>>,
}

impl PvRestore {
    /// Begins with an empty domain.
    pub(super) fn new(domain: &DomainInfo, options: &RestoreOptions) -> Self {
        Self {
            width: None,
            p2m_pages: P2mPages::default(),
            frames: FrameMap::default(),
            has_pages: false,
            // Without vCPUs Xen says that the highest one is -1.
            vcpus: VcpuStates::new(domain.max_vcpu_id.wrapping_add(1)),
            channels: options.channels,
            shared_info_frame: Gfn(domain.shared_info_frame),
            shared_info: None,
        }
    }

    /// Gives the domain pages at these pfns and enters their frames.
    fn populate(
        &mut self,
        pfns: &[Pfn],
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        for (pfn, frame) in pfns.iter().zip(target.populate(pfns, progress)?) {
            if !self.can_hold(frame) {
                return Err(RestoreError::FrameTooHigh { frame });
            }
            self.frames.insert(*pfn, frame);
        }
        Ok(())
    }

    /// Says whether the guest's structures have room for a frame. Page table entries have less than a word of 64 bits, and
    /// a word of 32 bits has less than they.
    fn can_hold(&self, frame: Gfn) -> bool {
        let limit = self.width.map_or(0, GuestWidth::invalid_frame);
        Pte::default().with_frame(frame.0).is_some() && frame.0 < limit
    }

    fn table_context(&self, offset: u64) -> TableContext<'_> {
        TableContext { frames: &self.frames, highest: self.p2m_pages.highest(), offset }
    }

    /// Sets the guest's width. A new domain is as wide as Xen.
    fn set_width(
        &mut self,
        (width_bytes, levels): (u8, u8),
        offset: u64,
        target: &Target<'_>,
    ) -> Result<(), RestoreError> {
        let refused = |why| Err(RestoreError::Unsupported { kind: RecordKind::PvInfo, offset, why });
        if self.width.is_some() {
            return refused("it is the second one");
        }
        let width = GuestWidth::from_bytes(width_bytes).filter(|width| width.levels() == levels);
        let Some(width) = width else {
            return refused("guests of this width have another number of page table levels");
        };
        if target.call(|host, domid| host.guest_width(domid))? != width_bytes {
            target.call(|host, domid| host.set_guest_width(domid, width_bytes))?;
        }
        self.width = Some(width);
        Ok(())
    }

    /// Returns the guest's width, on which a record of this kind depends.
    fn width_for(&self, kind: RecordKind, offset: u64) -> Result<GuestWidth, RestoreError> {
        let why = "X86_PV_INFO must come before it";
        self.width.ok_or(RestoreError::Unsupported { kind, offset, why })
    }
}

impl RestoreOps for PvRestore {
    fn pfn_limit(&self) -> Result<Pfn, &'static str> {
        if !self.vcpus.is_empty() {
            return Err(BEFORE_VCPUS);
        }
        let highest = self.p2m_pages.highest().ok_or("X86_PV_P2M_FRAMES must come before it")?;
        Ok(Pfn(highest.0 + 1))
    }

    fn is_populated(&self, pfn: Pfn) -> bool {
        self.frames.entry(pfn).is_some()
    }

    fn frames(&self, pages: &[TypedPfn]) -> Result<Vec<Gfn>, Pfn> {
        self.frames.frames(pages)
    }

    /// A page that has become a hole stays until END: an entry of an earlier page table may refer to it, and a page table
    /// that its guest is just changing is sent as a hole until the guest is suspended.
    fn settle(
        &mut self,
        batch: &[TypedPfn],
        fills: bool,
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        self.has_pages = true;
        if fills {
            let mut lookup = self.frames.lookup();
            let wanted = batch.iter().filter(|page| page.kind.is_populated()).map(|page| page.pfn);
            let missing: Vec<Pfn> = wanted.filter(|pfn| lookup.frame(*pfn).is_none()).collect();
            self.populate(&missing, target, progress)?;
        }
        self.frames.note(batch, fills);
        Ok(())
    }

    fn has_page_tables(&self) -> bool {
        true
    }

    fn localise(
        &mut self,
        table: TypedPfn,
        sent: &PageBuffer,
        here: &mut PageBuffer,
        offset: u64,
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        let missing = self.table_context(offset).localise(table, sent, here)?;
        if !missing.is_empty() {
            self.populate(&missing, target, progress)?;
            self.table_context(offset).localise(table, sent, here)?;
        }
        Ok(())
    }

    /// A page table with an entry to a page that is missing is not what was sent: nothing is populated now.
    fn is_same(
        &self,
        page: TypedPfn,
        sent: &PageBuffer,
        here: &PageBuffer,
        offset: u64,
    ) -> Result<bool, RestoreError> {
        if !page.kind.is_page_table() {
            return Ok(sent == here);
        }
        let mut localised = *sent;
        let missing = self.table_context(offset).localise(page, sent, &mut localised)?;
        Ok(missing.is_empty() && localised == *here)
    }

    fn apply(
        &mut self,
        record: Record,
        offset: u64,
        static_data: &StaticData,
        target: &Target<'_>,
    ) -> Result<(), RestoreError> {
        match record {
            Record::PvInfo { width_bytes, levels } => {
                static_data.expect_open(RecordKind::PvInfo, offset)?;
                self.set_width((width_bytes, levels), offset, target)
            }
            Record::PvP2mFrames { first, last, frames } => {
                let kind = RecordKind::PvP2mFrames;
                let width = self.width_for(kind, offset)?;
                let refused = |why| RestoreError::Unsupported { kind, offset, why };
                if !self.vcpus.is_empty() {
                    return Err(refused(BEFORE_VCPUS));
                }
                self.p2m_pages.add(width, first, last, &frames).map_err(refused)
            }
            Record::PvVcpu { part, vcpu, state } => {
                let kind = RecordKind::of_vcpu(part);
                let width = self.width_for(kind, offset)?;
                let refused = |why| RestoreError::Unsupported { kind, offset, why };
                self.vcpus.keep(width, vcpu, part, state).map_err(refused)?;
                if self.has_pages { Ok(()) } else { Err(refused("PAGE_DATA must come before it")) }
            }
            Record::SharedInfo(page) => {
                self.width_for(RecordKind::SharedInfo, offset)?;
                self.shared_info = Some(page);
                Ok(())
            }
            record => {
                let why = "it belongs to an HVM guest, and the stream is of a PV guest";
                RestoreError::misplaced(&record, offset, why)
            }
        }
    }

    fn finish(
        &mut self,
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<SharedFrames, RestoreError> {
        let width = self.width.ok_or(RestoreError::Missing(RecordKind::PvInfo))?;
        pages_at_end::zero_unfilled(&self.frames, target, progress)?;

        let saved = self.shared_info.take().ok_or(RestoreError::Missing(RecordKind::SharedInfo))?;
        shared_info::load(target, self.shared_info_frame, width, &saved)?;

        let start_info = StartInfo {
            pfn: self.vcpus.start_info(width)?,
            shared_info: self.shared_info_frame,
            pages: self.p2m_pages.highest().map_or(0, |highest| highest.0 + 1),
            channels: self.channels,
        };
        let (start_info_frame, shared) = start_info.load(target, width, &self.frames)?;
        self.vcpus.load(width, start_info_frame, &self.frames, target, progress)?;

        pages_at_end::pin(&self.frames, target, progress)?;
        pages_at_end::depopulate_holes(&mut self.frames, target, progress)?;
        self.p2m_pages.write(width, &self.frames, target, progress)?;
        if let Some(channels) = &self.channels {
            grants::grant(channels, target, shared)?;
        }
        Ok(shared)
    }
}
