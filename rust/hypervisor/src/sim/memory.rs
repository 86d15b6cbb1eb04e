// SPDX-License-Identifier: GPL-3.0-or-later
//! A domain's memory: a sparse memfd, mapped once, page `pfn` at offset `pfn * 4096`, and the bitmap that says which
//! pfns have a page (the p2m of a guest whose gfns are its pfns).
//!
//! A page that is taken away is punched out of the memfd: whoever still has it mapped reads zeros, never freed
//! memory. Mappings keep the whole memory alive. Who changes which pages exist holds the domain's control lock.

mod door;

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use xenmig_types::{Gfn, PAGE_SIZE, PAGE_SIZE_U64, Pfn};

use super::{
    bits::Bits,
    counters::MapCounters,
    region::{Region, index},
};
use crate::{Access, Errno, ForeignPages};

/// What a new page holds: Xen does not scrub the pages that it gives to a domain, so nobody may rely on zeros.
pub(super) const POISON: u64 = 0x5a5a_5a5a_5a5a_5a5a;
/// How much of a new page is poisoned: enough to be noticed, and little enough to cost nothing.
pub(super) const POISONED_WORDS: u64 = 8;
/// Words in a page.
pub(super) const PAGE_WORDS: u64 = PAGE_SIZE_U64 / 8;

/// The memory of one domain.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    region: Region,
    populated: Bits,
    total_pages: AtomicU64,
    /// One more than the highest pfn that ever had a page: like Xen's, the p2m does not shrink.
    p2m_pages: AtomicU64,
    pub(super) mappings: MapCounters,
}

impl Memory {
    /// Makes a memory that may have pages below pfn `capacity`, and has none.
    pub(super) fn new(capacity: u64) -> io::Result<Self> {
        // SAFETY: the name is a C string, and the call touches nothing else.
        let fd = unsafe { libc::memfd_create(c"xenmig-sim-domain".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let bytes = capacity.max(1) * PAGE_SIZE_U64;
        file.set_len(bytes)?;
        let region = Region::shared(file.as_fd(), index(bytes))?;
        Ok(Self {
            file,
            region,
            populated: Bits::new(capacity)?,
            total_pages: AtomicU64::new(0),
            p2m_pages: AtomicU64::new(0),
            mappings: MapCounters::default(),
        })
    }

    /// Returns which pfns have a page.
    pub(super) const fn populated(&self) -> &Bits {
        &self.populated
    }

    /// Returns how many pages there are.
    pub(super) fn total_pages(&self) -> u64 {
        self.total_pages.load(Ordering::Acquire)
    }

    /// Returns the size of the p2m in pages. Xen calls the highest gpfn of an empty domain 0, so it is at least 1.
    pub(super) fn p2m_pages(&self) -> u64 {
        self.p2m_pages.load(Ordering::Acquire).max(1)
    }

    /// Gives pages full of zeros to a whole range, when the domain is made. [`Memory::note_highest`] must follow.
    pub(super) fn give_zeroed(&self, pfns: Range<u64>) {
        self.total_pages.fetch_add(self.populated.assign(pfns, true), Ordering::AcqRel);
    }

    /// Takes a whole range away, when the domain is made and nobody has written yet.
    pub(super) fn take_untouched(&self, pfns: Range<u64>) {
        self.total_pages.fetch_sub(self.populated.assign(pfns, false), Ordering::AcqRel);
    }

    /// Finds out how long the p2m of a new domain is.
    pub(super) fn note_highest(&self) {
        self.p2m_pages.store(self.populated.highest().map_or(0, |pfn| pfn + 1), Ordering::Release);
    }

    /// Iterates over the runs of pages, none longer than `longest`.
    pub(super) fn runs(&self, longest: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.populated.runs(self.p2m_pages(), longest)
    }

    /// Gives poisoned pages to `count` pfns from `first` on. The caller has checked that they can be had.
    pub(super) fn give_poisoned(&self, first: Pfn, count: u64) {
        for pfn in first.0..first.0 + count {
            for word in 0..POISONED_WORDS {
                self.store(Pfn(pfn), word, POISON);
            }
        }
        let given = self.populated.assign(first.0..first.0 + count, true);
        self.total_pages.fetch_add(given, Ordering::AcqRel);
        self.p2m_pages.fetch_max(first.0 + count, Ordering::AcqRel);
    }

    /// Says whether none of `count` pfns from `first` on has a page, and each could.
    pub(super) fn is_free(&self, first: Pfn, count: u64) -> bool {
        let end = first.0.checked_add(count).filter(|end| *end <= self.populated.len());
        end.is_some_and(|end| (first.0..end).all(|pfn| !self.populated.get(pfn)))
    }

    /// Takes a page away and says whether there was one.
    pub(super) fn take(&self, pfn: Pfn) -> io::Result<bool> {
        if !self.populated.get(pfn.0) {
            return Ok(false);
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let offset = i64::try_from(pfn.0 * PAGE_SIZE_U64).map_err(io::Error::other)?;
        let length = PAGE_SIZE_U64.cast_signed();
        // SAFETY: the descriptor is ours. Who has the page mapped keeps a valid mapping and reads zeros from now on.
        let result = unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, length) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        self.populated.clear(pfn.0);
        self.total_pages.fetch_sub(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Stores one word of a page as a vCPU does. A word that does not exist is not stored.
    pub(super) fn store(&self, pfn: Pfn, word: u64, value: u64) {
        let Some(page) = self.address(pfn).filter(|_| word < PAGE_WORDS) else { return };
        // SAFETY: `word` is inside the page, which is inside the region.
        let target = unsafe { page.cast::<u64>().add(index(word)) };
        // SAFETY: aligned and mapped for writing; others may access it meanwhile, so the store is volatile.
        unsafe { target.write_volatile(value) };
    }

    /// Returns where the page at `pfn` is, or would be; `None` beyond the region.
    fn address(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        if pfn.0 >= self.populated.len() {
            return None;
        }
        // SAFETY: the region has PAGE_SIZE bytes for each pfn below the length of the bitmap.
        Some(unsafe { self.region.base().add(index(pfn.0) * PAGE_SIZE) })
    }

    /// Maps pages; `error_of` may forbid one that exists. `counted` mappings are the caller's, the others our own.
    pub(super) fn map(
        self: &Arc<Self>,
        gfns: impl ExactSizeIterator<Item = Gfn>,
        access: Access,
        counted: bool,
        mut error_of: impl FnMut(Gfn) -> Option<Errno>,
    ) -> ForeignPages {
        let mut mapped = 0;
        let mut pages = Vec::with_capacity(gfns.len());
        for gfn in gfns {
            let page = match self.address(Pfn(gfn.0)).filter(|_| self.populated.get(gfn.0)) {
                None => Err(Errno(libc::EINVAL)),
                Some(page) => error_of(gfn).map_or(Ok(page), Err),
            };
            mapped += u64::from(page.is_ok());
            pages.push(page);
        }
        if counted {
            self.mappings.mapped(mapped);
        }
        let mapping = Mapping { memory: Arc::clone(self), pages: mapped, counted };
        // SAFETY: the addresses are page-aligned and inside the region, which is mapped for reading and writing
        // until the last Arc is gone; `mapping` holds one. Nothing in this module makes a reference to the pages.
        unsafe { ForeignPages::new(pages, access, Box::new(mapping)) }
    }

    /// Maps pages for the host's own use.
    pub(super) fn map_own(self: &Arc<Self>, pfns: Range<u64>, access: Access) -> ForeignPages {
        let count = index(pfns.end.saturating_sub(pfns.start));
        let gfns = (0..count).map(|i| Gfn(pfns.start + i as u64));
        self.map(gfns, access, false, |_| None)
    }
}

/// Keeps the memory alive for a [`ForeignPages`] and counts its unmapping.
struct Mapping {
    memory: Arc<Memory>,
    pages: u64,
    counted: bool,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.counted {
            self.memory.mappings.unmapped(self.pages);
        }
    }
}
