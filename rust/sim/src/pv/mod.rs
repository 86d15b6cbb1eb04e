// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests: what a PV domain has beside memory, and the guest's kernel, which keeps page tables, a p2m and a start info
//! page in that memory and changes them while it runs.
//!
//! ```text
//! Machine: mfns, m2p <── Pv: pfn -> mfn, page types, shared info, vCPUs        what Xen knows
//!                         │
//!                     PvGuest ──> tables · p2m · boot · kernel · actions        what the guest does, by itself
//!                         │
//!                     verbs, vcpus ──> impl PvVerbs for SimHost                 what a toolstack may do
//! ```
//!
//! A page's contents lie in the domain's memory at its pfn, so a page that is ballooned out and in again gets another mfn
//! and keeps its place. The guest knows only its memory: what it must find again after a migration, it finds by its
//! own page tables ([`kernel`]).
//!
//! Who changes anything of this holds the domain's control lock; page types, the frames of pfns and the m2p are also read
//! without it, as a toolstack's calls meet a guest in mid-change.

mod actions;
mod boot;
mod check;
mod churn;
mod config;
mod door;
mod kernel;
mod normal;
mod p2m;
mod tables;
mod vcpus;
mod verbs;
mod view;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use xenmig_types::{
    Gfn, PageType, Pfn,
    pv::{Field, GuestWidth},
};

use self::{kernel::Kernel, vcpus::Vcpu};
use crate::{
    bits::Bits,
    contents,
    guest::Guest,
    machine::Machine,
    memory::PAGE_WORDS,
    region::{Region, index},
};

pub use self::{
    actions::{PteAt, PteChange},
    config::{Churn, P2mForm, PvConfig},
    door::DoorM2p,
    kernel::PvMap,
};
pub(super) use self::{boot::CannotBoot, churn::Churning};

/// What Xen knows of a PV domain.
#[derive(Debug)]
pub(super) struct Pv {
    machine: Arc<Machine>,
    width_bytes: AtomicU8,
    /// The mfn of each pfn; 0 where there is no page.
    frames: Region,
    /// The type of each pfn's page.
    types: Region,
    capacity: u64,
    /// One more than the highest pfn that ever had a page.
    end: AtomicU64,
    /// Pages that the kernel uses itself, and that are no page tables: the workload does not write there.
    reserved: Bits,
    shared_info: Gfn,
    vcpus: Mutex<Vec<Vcpu>>,
    /// What the guest knows of itself; `None` until it has run.
    kernel: Mutex<Option<Kernel>>,
    /// Whether the guest clears a page before it gives it back.
    scrubs: bool,
    /// The seed of what it does at random.
    seed: u64,
    /// Whether the guest has prepared to be suspended, or was never run here.
    asleep: AtomicBool,
}

impl Pv {
    /// Makes the PV part of a domain with pfns below `capacity`, without pages. `None` if the machine has no frame for
    /// its shared info.
    pub(super) fn new(
        machine: &Arc<Machine>,
        config: &PvConfig,
        capacity: u64,
        vcpus: u32,
        seed: u64,
    ) -> io::Result<Option<Self>> {
        let (frames, types) = (Region::private(index(capacity * 8))?, Region::private(index(capacity))?);
        let reserved = Bits::new(capacity)?;
        let Some(shared_info) = machine.give_low() else { return Ok(None) };
        Ok(Some(Self {
            machine: Arc::clone(machine),
            width_bytes: AtomicU8::new(GuestWidth::Bits64.bytes()),
            frames,
            types,
            capacity,
            end: AtomicU64::new(0),
            reserved,
            shared_info,
            vcpus: Mutex::new((0..vcpus).map(|_| Vcpu::default()).collect()),
            kernel: Mutex::new(None),
            scrubs: config.scrubs,
            seed,
            asleep: AtomicBool::new(true),
        }))
    }

    /// Returns the width of the guest's words.
    pub(super) fn width(&self) -> GuestWidth {
        GuestWidth::from_bytes(self.width_bytes.load(Ordering::Acquire)).unwrap_or(GuestWidth::Bits64)
    }

    fn frame_words(&self) -> &[AtomicU64] {
        let base = self.frames.base().cast::<AtomicU64>();
        // SAFETY: the region is aligned to pages, holds a word for each pfn, zero being a valid AtomicU64, lives as long
        // as `self`, and is accessed through this function only.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), index(self.capacity)) }
    }

    fn type_bytes(&self) -> &[AtomicU8] {
        let base = self.types.base().cast::<AtomicU8>();
        // SAFETY: the region holds a byte for each pfn, zero being a valid AtomicU8, lives as long as `self`, and is
        // accessed through this function only.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), index(self.capacity)) }
    }

    /// Returns the frame of a pfn; `None` if it has no page.
    pub(super) fn frame(&self, pfn: Pfn) -> Option<Gfn> {
        let frame = self.frame_words().get(index(pfn.0))?.load(Ordering::Acquire);
        (frame != 0).then_some(Gfn(frame))
    }

    fn set_frame(&self, pfn: Pfn, frame: Option<Gfn>) {
        if let Some(word) = self.frame_words().get(index(pfn.0)) {
            word.store(frame.map_or(0, |frame| frame.0), Ordering::Release);
        }
    }

    /// Returns the pfn of a frame, if it is a page of this domain.
    pub(super) fn pfn(&self, frame: Gfn) -> Option<Pfn> {
        let pfn = Pfn(self.machine.entry(frame)?);
        (frame.0 != 0 && self.frame(pfn) == Some(frame)).then_some(pfn)
    }

    /// Returns the type of a page.
    pub(super) fn page_type(&self, pfn: Pfn) -> PageType {
        let number = self.type_bytes().get(index(pfn.0)).map_or(0, |byte| byte.load(Ordering::Acquire));
        PageType::try_from(number).unwrap_or_default()
    }

    fn set_page_type(&self, pfn: Pfn, kind: PageType) {
        if let Some(byte) = self.type_bytes().get(index(pfn.0)) {
            byte.store(kind.number(), Ordering::Release);
        }
    }

    /// Returns the pfn below which all pages are, and were.
    fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Says whether a page holds plain data, which the workload may write.
    pub(super) fn is_data(&self, pfn: Pfn) -> bool {
        !self.reserved.get(pfn.0) && !self.page_type(pfn).is_page_table()
    }

    /// Gives a pfn without a page a frame; `None` if the machine has no more.
    pub(super) fn give(&self, pfn: Pfn) -> Option<Gfn> {
        let frame = self.machine.give(pfn)?;
        self.set_page_type(pfn, PageType::Notab);
        self.set_frame(pfn, Some(frame));
        self.end.fetch_max(pfn.0 + 1, Ordering::AcqRel);
        Some(frame)
    }

    /// Takes the frame of a pfn back.
    pub(super) fn take(&self, pfn: Pfn) {
        if let Some(frame) = self.frame(pfn) {
            self.set_frame(pfn, None);
            self.set_page_type(pfn, PageType::Notab);
            self.machine.take(frame);
        }
    }
}

impl Drop for Pv {
    fn drop(&mut self) {
        for pfn in 0..self.end() {
            self.take(Pfn(pfn));
        }
        self.machine.take(self.shared_info);
    }
}

/// A PV guest at work in its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct PvGuest<'a> {
    guest: &'a Guest,
    pv: &'a Pv,
}

impl Guest {
    /// Returns the PV guest, if it is one.
    pub(super) fn pv(&self) -> Option<PvGuest<'_>> {
        self.pv.as_ref().map(|pv| PvGuest { guest: self, pv })
    }
}

impl PvGuest<'_> {
    fn width(&self) -> GuestWidth {
        self.pv.width()
    }

    fn load(&self, pfn: Pfn, word: u64) -> u64 {
        self.guest.memory.load(pfn, word)
    }

    /// Stores a word as the guest does: if that changes it, the page becomes dirty.
    fn store(&self, pfn: Pfn, word: u64, value: u64) {
        if self.load(pfn, word) != value {
            self.guest.memory.store(pfn, word, value);
            self.guest.logdirty.mark(pfn);
        }
    }

    /// Fills a page with a word.
    fn fill(&self, pfn: Pfn, value: u64) {
        (0..PAGE_WORDS).for_each(|word| self.store(pfn, word, value));
    }

    /// Returns how many frames the machine has.
    pub(super) fn machine_frames(&self) -> u64 {
        self.pv.machine.frames()
    }

    /// Returns where the shared info page is in the memory.
    fn shared_info(&self) -> Pfn {
        self.guest.memory.first_extra()
    }

    /// Reads a field of a page.
    fn field(&self, page: Pfn, field: Field) -> u64 {
        let contents = contents::copy(&self.guest.memory, page);
        field.get(self.width(), &contents).unwrap_or(0)
    }

    /// Writes a field of a page. A value that is too wide is not written: no guest has such frames.
    fn set_field(&self, page: Pfn, field: Field, value: u64) {
        let mut contents = contents::copy(&self.guest.memory, page);
        if field.set(self.width(), &mut contents, value).is_some() {
            for (word, bytes) in (0..).zip(contents.as_chunks::<8>().0) {
                self.store(page, word, u64::from_le_bytes(*bytes));
            }
        }
    }
}
