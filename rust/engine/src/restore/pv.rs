// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests: they see the frames of the host, so everything that names a frame is rewritten, from pfns in the stream
//! to the frames that the domain was given.
//!
//! ```text
//! X86_PV_INFO ─► width          X86_PV_P2M_FRAMES ─► frames.rs: which pfns there are
//! PAGE_DATA ─► p2m.rs: pfn, frame, type ─► page tables: tables.rs
//! SHARED_INFO, X86_PV_VCPU_* ─► kept
//! END ─► zeroes ─► shared info ─► vCPUs, start info ─► pins ─► holes ─► p2m ─► grants      connect.rs, vcpus.rs, ending.rs
//! ```
//!
//! The order at END is libxc's: the vCPUs' page tables become types of Xen's before the pins do, and pages that are
//! written to must not be page tables by then. Source: libxc-migration-stream, revision 3; `public/xen.h`.

mod connect;
mod ending;
mod frames;
mod p2m;
mod tables;
mod vcpus;

use std::collections::BTreeMap;

use xenmig_hypervisor::PageBuffer;
use xenmig_stream::{Record, RecordKind};
use xenmig_types::{
    DomainInfo, Gfn, PageType, Pfn,
    pv::{Field, GuestWidth, Pte},
};

use super::{Guest, NamedPage, Restore, RestoreError, pages::Page};
use frames::P2mFrames;
use p2m::{Entry, P2m};
use vcpus::VcpuState;

/// What is known of a PV guest.
#[derive(Debug)]
pub(super) struct Pv {
    /// The width of its words; `None` before X86_PV_INFO.
    width: Option<GuestWidth>,
    frames: P2mFrames,
    /// The pages that the domain was given.
    p2m: P2m,
    /// How many vCPUs the domain has.
    vcpu_count: u32,
    vcpus: BTreeMap<u32, VcpuState>,
    /// Where the new domain has its shared info page.
    shared_info_frame: Gfn,
    /// What the stream says of the old one's.
    shared_info: Option<Vec<u8>>,
}

impl Pv {
    /// Begins with an empty domain.
    pub(super) fn new(domain: &DomainInfo) -> Self {
        Self {
            width: None,
            frames: P2mFrames::default(),
            p2m: P2m::default(),
            // If there are none, Xen calls the highest one -1.
            vcpu_count: domain.max_vcpu_id.wrapping_add(1),
            vcpus: BTreeMap::new(),
            shared_info_frame: Gfn(domain.shared_info_frame),
            shared_info: None,
        }
    }
}

impl Guest for Pv {
    fn pfn_limit(&self, offset: u64) -> Result<Pfn, RestoreError> {
        let (kind, why) = (RecordKind::PageData, "X86_PV_P2M_FRAMES must come before it");
        let highest = self.frames.highest().ok_or(RestoreError::Unsupported { kind, offset, why })?;
        Ok(Pfn(highest.0 + 1))
    }

    fn contains(&self, pfn: Pfn) -> bool {
        self.p2m.entry(pfn).is_some()
    }

    fn frames(&self, pages: &[Page]) -> Result<Vec<Gfn>, Pfn> {
        let mut lookup = self.p2m.lookup();
        pages.iter().map(|page| lookup.frame(page.pfn).ok_or(page.pfn)).collect()
    }

    fn insert(&mut self, pfn: Pfn, frame: Gfn) -> Option<()> {
        // Page table entries have less room than a word of 64 bits, and a word of 32 bits has less than they.
        Pte::default().with_frame(frame.0)?;
        if frame.0 >= self.width?.invalid_frame() {
            return None;
        }
        self.p2m.insert(pfn, frame);
        Some(())
    }

    /// A page that has become a hole stays until END: an entry of a page table that came before may refer to it, and a
    /// page table that its guest is just changing is sent as a hole until the guest is suspended.
    fn settle(restore: &mut Restore<'_, '_, Self>) -> Result<(), RestoreError> {
        let fills = restore.verification.is_none();
        if fills {
            let mut lookup = restore.guest.p2m.lookup();
            let wanted = restore.pages.iter().filter(|page| page.kind.is_populated());
            let missing: Vec<Pfn> =
                wanted.map(|page| page.pfn).filter(|pfn| lookup.frame(*pfn).is_none()).collect();
            restore.give(&missing)?;
        }
        restore.guest.p2m.note(&restore.pages, fills);
        Ok(())
    }

    fn holds_frames(kind: PageType) -> bool {
        kind.is_page_table()
    }

    fn localise(
        &self,
        page: Page,
        sent: &PageBuffer,
        here: &mut PageBuffer,
        offset: u64,
    ) -> Result<Vec<Pfn>, RestoreError> {
        self.localise_table(page, sent, here, offset)
    }

    fn apply(restore: &mut Restore<'_, '_, Self>, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::PvInfo { width_bytes, levels } => restore.pv_info(width_bytes, levels),
            Record::PvP2mFrames { first, last, frames } => restore.p2m_frames(first, last, &frames),
            Record::PvVcpu { part, vcpu, state } => restore.vcpu(part, vcpu, state),
            Record::SharedInfo(page) => {
                restore.width(RecordKind::SharedInfo)?;
                restore.guest.shared_info = Some(page);
                Ok(())
            }
            record => {
                restore.misplaced(&record, "it belongs to an HVM guest, and the stream is of a PV guest")
            }
        }
    }

    fn finish(restore: &mut Restore<'_, '_, Self>) -> Result<(), RestoreError> {
        let width = restore.guest.width.ok_or(RestoreError::Missing(RecordKind::PvInfo))?;
        restore.zero_unfilled()?;
        restore.connect_shared_info(width)?;
        restore.set_vcpus(width)?;
        restore.pin()?;
        restore.give_back_holes()?;
        restore.write_p2m(width)?;
        restore.grant_shared_pages()
    }
}

impl Restore<'_, '_, Pv> {
    /// Gives the domain the guest's width. New domains are as wide as Xen.
    fn pv_info(&mut self, width_bytes: u8, levels: u8) -> Result<(), RestoreError> {
        let kind = RecordKind::PvInfo;
        self.static_data.expect_open(kind, self.reader.record_offset())?;
        if self.guest.width.is_some() {
            return self.unsupported(kind, "it is the second one");
        }
        let width = GuestWidth::from_bytes(width_bytes).filter(|width| width.levels() == levels);
        let Some(width) = width else {
            return self.unsupported(kind, "guests of this width have another number of page table levels");
        };
        let feed = self.reader.source_mut();
        if feed.retry(|| self.host.guest_width(self.domid))? != width_bytes {
            feed.retry(|| self.host.set_guest_width(self.domid, width_bytes))?;
        }
        self.guest.width = Some(width);
        Ok(())
    }

    /// Returns the guest's width, which a record of this kind depends on.
    fn width(&self, kind: RecordKind) -> Result<GuestWidth, RestoreError> {
        let (offset, why) = (self.reader.record_offset(), "X86_PV_INFO must come before it");
        self.guest.width.ok_or(RestoreError::Unsupported { kind, offset, why })
    }

    /// Returns a page that the guest's state names.
    fn named(&self, what: NamedPage, pfn: Pfn) -> Result<Entry, RestoreError> {
        let why = "which the guest does not have";
        self.guest.p2m.entry(pfn).ok_or(RestoreError::Named { what, pfn, why })
    }

    /// Returns one that must be an ordinary page.
    fn plain(&self, what: NamedPage, pfn: Pfn) -> Result<Entry, RestoreError> {
        let entry = self.named(what, pfn)?;
        if matches!(entry.kind, PageType::Notab | PageType::Xalloc) {
            return Ok(entry);
        }
        Err(RestoreError::Named { what, pfn, why: "which is no ordinary page" })
    }

    /// Returns one that must be a page table of the top level.
    fn top_table(&self, width: GuestWidth, what: NamedPage, pfn: Pfn) -> Result<Entry, RestoreError> {
        let entry = self.named(what, pfn)?;
        if tables::level(entry.kind) == width.levels() {
            return Ok(entry);
        }
        Err(RestoreError::Named { what, pfn, why: "which is no page table of the top level" })
    }
}

/// Reads a field of a structure that is long enough for it.
fn field(field: Field, width: GuestWidth, structure: &[u8]) -> Result<u64, RestoreError> {
    field.get(width, structure).ok_or(RestoreError::Missing(RecordKind::PvVcpuBasic))
}

/// Writes a field of such a structure.
fn put(field: Field, width: GuestWidth, structure: &mut [u8], value: u64) -> Result<(), RestoreError> {
    field.set(width, structure, value).ok_or(RestoreError::FrameTooHigh { frame: Gfn(value) })
}
