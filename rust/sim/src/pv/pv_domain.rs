// SPDX-License-Identifier: GPL-3.0-or-later
//! What Xen knows of a PV domain: the frame and the type of each page, the shared info page, the vCPUs.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use xenmig_types::{Gfn, PageType, Pfn, pv::GuestWidth};

use super::{PvConfig, kernel::Kernel, pv_vcpu::PvVcpu};
use crate::{
    bits::Bits,
    machine::Machine,
    region::{Region, index},
};

/// What Xen knows of a PV domain.
#[derive(Debug)]
pub(crate) struct PvDomain {
    pub(super) machine: Arc<Machine>,
    pub(super) width_bytes: AtomicU8,
    /// The mfn of each pfn; 0 where there is no page.
    frames: Region,
    /// The type of each pfn's page.
    types: Region,
    pub(super) capacity: u64,
    /// One more than the highest pfn that ever had a page.
    end: AtomicU64,
    /// Pages that the kernel uses itself, and that are no page tables: the workload does not write there.
    pub(super) reserved: Bits,
    pub(super) shared_info: Gfn,
    pub(super) vcpus: Mutex<Vec<PvVcpu>>,
    /// What the guest knows of itself; `None` until it has run.
    pub(super) kernel: Mutex<Option<Kernel>>,
    /// Whether the guest clears a page before it gives it back.
    pub(super) scrubs: bool,
    /// The seed of what it does at random.
    pub(super) seed: u64,
    /// Whether the guest has prepared to be suspended, or was never run here.
    pub(super) asleep: AtomicBool,
}

impl PvDomain {
    /// Makes the PV part of a domain with pfns below `capacity`, without pages. `None` if the machine has no frame for
    /// its shared info.
    pub(crate) fn new(
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
            vcpus: Mutex::new((0..vcpus).map(|_| PvVcpu::default()).collect()),
            kernel: Mutex::new(None),
            scrubs: config.scrubs,
            seed,
            asleep: AtomicBool::new(true),
        }))
    }

    /// Returns the width of the guest's words.
    pub(crate) fn width(&self) -> GuestWidth {
        GuestWidth::from_bytes(self.width_bytes.load(Ordering::Acquire)).unwrap_or(GuestWidth::Bits64)
    }

    /// Returns the machine whose frames the domain has.
    #[cfg(feature = "raw-domains")]
    pub(crate) const fn machine(&self) -> &Arc<Machine> {
        &self.machine
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
    pub(crate) fn frame(&self, pfn: Pfn) -> Option<Gfn> {
        let frame = self.frame_words().get(index(pfn.0))?.load(Ordering::Acquire);
        (frame != 0).then_some(Gfn(frame))
    }

    fn set_frame(&self, pfn: Pfn, frame: Option<Gfn>) {
        if let Some(word) = self.frame_words().get(index(pfn.0)) {
            word.store(frame.map_or(0, |frame| frame.0), Ordering::Release);
        }
    }

    /// Returns the pfn of a frame, if it is a page of this domain.
    pub(crate) fn pfn(&self, frame: Gfn) -> Option<Pfn> {
        let pfn = Pfn(self.machine.entry(frame)?);
        (frame.0 != 0 && self.frame(pfn) == Some(frame)).then_some(pfn)
    }

    /// Returns the type of a page.
    pub(crate) fn page_type(&self, pfn: Pfn) -> PageType {
        let number = self.type_bytes().get(index(pfn.0)).map_or(0, |byte| byte.load(Ordering::Acquire));
        PageType::try_from(number).unwrap_or_default()
    }

    pub(super) fn set_page_type(&self, pfn: Pfn, kind: PageType) {
        if let Some(byte) = self.type_bytes().get(index(pfn.0)) {
            byte.store(kind.number(), Ordering::Release);
        }
    }

    /// Returns the pfn below which all pages are, and were.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Says whether a page holds plain data, which the workload may write.
    pub(crate) fn is_data(&self, pfn: Pfn) -> bool {
        !self.reserved.get(pfn.0) && !self.page_type(pfn).is_page_table()
    }

    /// Gives a pfn without a page a frame; `None` if the machine has no more.
    pub(crate) fn give(&self, pfn: Pfn) -> Option<Gfn> {
        let frame = self.machine.give(pfn)?;
        self.set_page_type(pfn, PageType::Notab);
        self.set_frame(pfn, Some(frame));
        self.end.fetch_max(pfn.0 + 1, Ordering::AcqRel);
        Some(frame)
    }

    /// Takes the frame of a pfn back.
    pub(crate) fn take(&self, pfn: Pfn) {
        if let Some(frame) = self.frame(pfn) {
            self.set_frame(pfn, None);
            self.set_page_type(pfn, PageType::Notab);
            self.machine.take(frame);
        }
    }
}

impl Drop for PvDomain {
    fn drop(&mut self) {
        for pfn in 0..self.end() {
            self.take(Pfn(pfn));
        }
        self.machine.take(self.shared_info);
    }
}
