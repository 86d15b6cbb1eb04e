// SPDX-License-Identifier: GPL-3.0-or-later
//! The contents of a simulated domain's pages: read, written and filled from outside, as a guest would.

use std::io::{ErrorKind, Read};

use fastrand::Rng;
use xenmig_hypervisor::{Access, PageBuffer, Process};
use xenmig_types::{Gfn, PAGE_SIZE, PAGE_SIZE_U64, Pfn};

use crate::{domain::SimDomain, domain_config::MAX_MEMORY_BYTES, error::SimError, gate::lock};

/// Pages that are filled at a time.
const CHUNK_PAGES: usize = 256;

impl SimDomain {
    /// Copies a page out. While the domain runs, the copy may be torn between two writes.
    ///
    /// # Errors
    ///
    /// [`SimError::NoPage`] if there is none.
    pub fn read_page(&self, pfn: Pfn, to: &mut PageBuffer) -> Result<(), SimError> {
        let page = self.guest.memory.map_own(pfn.0..pfn.0.saturating_add(1), Access::Read);
        if page.copy_out(0, to) { Ok(()) } else { Err(SimError::NoPage { domid: self.domid, pfn }) }
    }

    /// Writes a page as the guest would: it is marked dirty. Possible in every state; not counted by
    /// [`SimDomain::writes`].
    ///
    /// # Errors
    ///
    /// [`SimError::NoPage`] if there is none.
    pub fn write_page(&self, pfn: Pfn, from: &PageBuffer) -> Result<(), SimError> {
        self.process.check("write_page")?;
        let _life = lock(&self.life);
        let page = self.guest.memory.map_own(pfn.0..pfn.0.saturating_add(1), Access::Write);
        if !page.copy_in(0, from) {
            return Err(SimError::NoPage { domid: self.domid, pfn });
        }
        self.guest.logdirty.mark(pfn);
        Ok(())
    }

    /// Takes a page away from the domain, as a balloon driver does.
    ///
    /// # Errors
    ///
    /// [`SimError::NoPage`] if there is none.
    pub fn balloon_out(&self, pfn: Pfn) -> Result<(), SimError> {
        self.process.check("balloon_out")?;
        let _life = lock(&self.life);
        match self.take_page(pfn).map_err(SimError::system("giving memory back"))? {
            true => Ok(()),
            false => Err(SimError::NoPage { domid: self.domid, pfn }),
        }
    }

    /// Gives the domain a page where it has none. The page holds anything but what stood there before.
    ///
    /// # Errors
    ///
    /// [`SimError::NoRoom`] if there is one, or the domain has all the pages it may have.
    pub fn balloon_in(&self, pfn: Pfn) -> Result<(), SimError> {
        self.process.check("balloon_in")?;
        let _life = lock(&self.life);
        if self.give_pages(pfn, 1) { Ok(()) } else { Err(SimError::NoRoom { domid: self.domid, pfn }) }
    }

    /// Fills all pages but the special ones, and those that a PV guest's kernel needs, with bytes that look random and
    /// depend on `seed` and the pfn alone.
    /// In a child after fork it does nothing: the memory is the parent's.
    pub fn fill(&self, seed: u64) {
        if self.process != Process::current() {
            return;
        }
        let memory = &self.guest.memory;
        let mut page: PageBuffer = [0; PAGE_SIZE];
        for run in memory.runs(CHUNK_PAGES as u64) {
            let _life = lock(&self.life);
            let pages = memory.map_own(run.clone(), Access::Write);
            for (at, pfn) in run
                .enumerate()
                .filter(|(_, pfn)| !self.guest.layout.is_special(*pfn) && self.guest.is_data(Pfn(*pfn)))
            {
                let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ pfn);
                rng.fill(&mut page);
                if pages.copy_in(at, &page) {
                    self.guest.logdirty.mark(Pfn(pfn));
                }
            }
        }
    }

    /// Fills RAM with the bytes of an image, from pfn 0 upward; holes and what is no data are skipped, the rest of the last page is
    /// zeroed, pages after it stay as they are. Returns the length of the image in bytes.
    ///
    /// # Errors
    ///
    /// [`SimError::ImageTooLarge`] if it does not fit: RAM then holds the part that does. [`SimError::System`] if
    /// it cannot be read.
    pub fn load_image(&self, mut image: impl Read) -> Result<u64, SimError> {
        self.process.check("load_image")?;
        let layout = &self.guest.layout;
        let memory = &self.guest.memory;
        let mut free = (0..layout.ram_pages)
            .map(|page| Gfn(layout.ram_pfn(page)))
            .filter(|gfn| self.guest.is_data(Pfn(gfn.0)))
            .peekable();
        let mut chunk = vec![0; CHUNK_PAGES * PAGE_SIZE];
        let mut image_bytes = 0;
        let mut ram_bytes = 0;
        while free.peek().is_some() {
            let gfns: Vec<Gfn> = free.by_ref().take(CHUNK_PAGES).collect();
            ram_bytes += gfns.len() as u64 * PAGE_SIZE_U64;
            let chunk = chunk.get_mut(..gfns.len() * PAGE_SIZE).unwrap_or_default();
            let bytes = read_up_to(&mut image, chunk)?;
            image_bytes += bytes as u64;
            let _life = lock(&self.life);
            let pages = memory.map(gfns.iter().copied(), Access::Write, false, |_| None);
            let used = chunk.get(..bytes.next_multiple_of(PAGE_SIZE)).unwrap_or_default();
            for (at, (gfn, page)) in gfns.iter().zip(used.as_chunks::<PAGE_SIZE>().0).enumerate() {
                if pages.copy_in(at, page) {
                    self.guest.logdirty.mark(Pfn(gfn.0));
                }
            }
            if bytes < chunk.len() {
                return Ok(image_bytes);
            }
        }
        // RAM is full. How much longer is the image? No longer than any domain's memory, else it does not matter.
        loop {
            let bytes = read_up_to(&mut image, &mut chunk)?;
            image_bytes += bytes as u64;
            if bytes < chunk.len() || image_bytes > MAX_MEMORY_BYTES {
                break;
            }
        }
        if image_bytes > ram_bytes {
            Err(SimError::ImageTooLarge { image_bytes, ram_bytes })
        } else {
            Ok(image_bytes)
        }
    }
}

/// Reads until the buffer is full or the image ends; zeroes the rest of the buffer.
fn read_up_to(image: &mut impl Read, buffer: &mut [u8]) -> Result<usize, SimError> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match image.read(rest) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(SimError::system("reading the image")(error)),
        }
    }
    Ok(read)
}
