// SPDX-License-Identifier: GPL-3.0-or-later
//! A domain's memory: a sparse memfd, mapped once, page `pfn` at offset `pfn * 4096`, and the bitmap that says which
//! pfns have a page (the p2m of a guest whose gfns are its pfns).
//!
//! A page that is taken away is punched out of the memfd: whoever still has it mapped reads zeros, never freed
//! memory. Mappings keep the whole memory alive. Who changes which pages exist holds the domain's control lock.
//!
//! A PV guest's memory is indexed by pfn as well; `pv` knows the mfns. After its pages it has a few more, which are no
//! pages of its p2m: its shared info page.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    fs::{self, File},
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

#[cfg(feature = "raw-domains")]
use std::os::fd::BorrowedFd;

use xenmig_hypervisor::{Access, Errno, ForeignPages, PageBuffer};
use xenmig_types::{Gfn, PAGE_SIZE, PAGE_SIZE_U64, Pfn};

use crate::{
    bits::Bits,
    counters::MapCounters,
    gate::lock,
    region::{Region, index},
};

/// What a new page holds: Xen does not scrub the pages that it gives to a domain, so zeros cannot be relied on.
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
    /// Pages after the last pfn.
    extra_pages: u64,
    /// How often a PV guest's pages are mapped for writing by others.
    written_by_others: Mutex<BTreeMap<u64, u32>>,
    total_pages: AtomicU64,
    /// One more than the highest pfn that ever had a page: like Xen's, the p2m does not shrink.
    p2m_pages: AtomicU64,
    pub(super) mappings: MapCounters,
}

impl Memory {
    /// Makes a memory that may have pages below pfn `capacity`, and has none; and `extra_pages` after them, zeroed.
    pub(super) fn new(capacity: u64, extra_pages: u64) -> io::Result<Self> {
        let bytes = (capacity.max(1) + extra_pages) * PAGE_SIZE_U64;
        let file = new_file(c"xenmig-sim-domain", bytes)?;
        let region = Region::shared(file.as_fd(), index(bytes))?;
        Ok(Self {
            file,
            region,
            populated: Bits::new(capacity)?,
            extra_pages,
            written_by_others: Mutex::default(),
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

    /// Takes a whole range away, when the domain is made and nothing has been written yet.
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

    /// Loads one word of a page as a vCPU does; 0 where there is none.
    pub(super) fn load(&self, pfn: Pfn, word: u64) -> u64 {
        let Some(page) = self.address(pfn).filter(|_| word < PAGE_WORDS) else { return 0 };
        // SAFETY: `word` is inside the page, which is inside the region.
        let source = unsafe { page.cast::<u64>().add(index(word)) };
        // SAFETY: aligned and mapped; others may write meanwhile, so the load is volatile.
        unsafe { source.read_volatile() }
    }

    /// Copies a page for its owner; zeros if there is none.
    pub(super) fn copy(&self, page: Pfn) -> PageBuffer {
        let mut contents = [0; PAGE_SIZE];
        for (word, bytes) in (0..).zip(contents.as_chunks_mut::<8>().0) {
            *bytes = self.load(page, word).to_le_bytes();
        }
        contents
    }

    /// Returns the file: page `pfn` is at offset `pfn * 4096`.
    #[cfg(feature = "raw-domains")]
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives memory to a run of pages, populated or not, whose contents stay as they are.
    #[cfg(feature = "raw-domains")]
    pub(super) fn warm(&self, pfns: Range<u64>) -> io::Result<()> {
        let pages = index(pfns.end.saturating_sub(pfns.start));
        let base = self.address(Pfn(pfns.start)).filter(|_| pfns.end <= self.populated.len());
        let base = base.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the pages are inside the region; faulting them in changes no content.
        let result =
            unsafe { libc::madvise(base.as_ptr().cast(), pages * PAGE_SIZE, libc::MADV_POPULATE_WRITE) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns where the page at `pfn` is, or would be; `None` beyond the region.
    fn address(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        if pfn.0 >= self.populated.len() + self.extra_pages {
            return None;
        }
        // SAFETY: the region has PAGE_SIZE bytes for each pfn below the length of the bitmap, and for the extra pages.
        Some(unsafe { self.region.base().add(index(pfn.0) * PAGE_SIZE) })
    }

    /// Says whether there is a page at `pfn`, which may be one of the extra pages.
    fn exists(&self, pfn: u64) -> bool {
        self.populated.get(pfn)
            || (pfn >= self.populated.len() && pfn - self.populated.len() < self.extra_pages)
    }

    /// Returns where the extra pages begin.
    pub(super) const fn first_extra(&self) -> Pfn {
        Pfn(self.populated.len())
    }

    /// Says whether another process has a PV guest's page mapped for writing.
    pub(super) fn is_written_by_others(&self, pfn: Pfn) -> bool {
        lock(&self.written_by_others).contains_key(&pfn.0)
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
        let mut written = Vec::new();
        // Only PV guests have extra pages, and pages whose type matters.
        let note_written = counted && access == Access::Write && self.extra_pages > 0;
        for gfn in gfns {
            let page = match self.address(Pfn(gfn.0)).filter(|_| self.exists(gfn.0)) {
                None => Err(Errno(libc::EINVAL)),
                Some(page) => error_of(gfn).map_or(Ok(page), Err),
            };
            if page.is_ok() {
                mapped += 1;
                if note_written {
                    written.push(gfn.0);
                }
            }
            pages.push(page);
        }
        if counted {
            self.mappings.mapped(mapped);
        }
        if !written.is_empty() {
            let mut counts = lock(&self.written_by_others);
            written.iter().for_each(|pfn| *counts.entry(*pfn).or_default() += 1);
        }
        let mapping = Mapping { memory: Arc::clone(self), pages: mapped, counted, written };
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
    /// Pages of a PV guest, if they are mapped for writing.
    written: Vec<u64>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.written.is_empty() {
            let mut counts = lock(&self.memory.written_by_others);
            for pfn in &self.written {
                if let Some(count) = counts.get_mut(pfn) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(pfn);
                    }
                }
            }
        }
        if self.counted {
            self.memory.mappings.unmapped(self.pages);
        }
    }
}

/// Makes a sparse file of `bytes` bytes without a name.
pub(super) fn new_file(name: &CStr, bytes: u64) -> io::Result<File> {
    // SAFETY: the name is a C string, and the call touches nothing else.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(bytes)?;
    Ok(file)
}

/// Returns how much memory the machine has for new users, in bytes; `None` if it does not say.
pub(super) fn available_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
