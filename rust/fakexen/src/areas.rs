// SPDX-License-Identifier: GPL-3.0-or-later
//! Which parts of the address space were mapped from the two devices: hypercall buffers, and areas of privcmd that
//! show pages of a domain. A part that is unmapped, be it the middle of an area, is accounted for to the page.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{c_int, c_void},
    ops::Range,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use xenmig_types::PAGE_SIZE;

use crate::{
    c_library,
    devices::Device,
    faults,
    kinds::Kind,
    process,
    tally::{self, Scope},
    trace::trace,
};

/// An area from its start, which is its key in the table, to `end`.
#[derive(Clone, Debug)]
struct Area {
    end: usize,
    protection: c_int,
    /// `None` for a hypercall buffer.
    foreign: Option<Foreign>,
}

/// What an area of privcmd shows.
#[derive(Clone, Debug, Default)]
struct Foreign {
    /// The domain, once pages were mapped.
    domid: Option<u16>,
    /// Addresses of pages that could not be mapped.
    empty: BTreeSet<usize>,
}

static AREAS: RwLock<BTreeMap<usize, Area>> = RwLock::new(BTreeMap::new());
/// How many areas there are, so that `munmap` in a program without any costs one load.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Sums over all areas that there were.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Times that pages were mapped.
    pub(crate) maps: AtomicU64,
    /// Areas with pages that were unmapped, each part counted.
    pub(crate) unmaps: AtomicU64,
    /// Pages that were mapped.
    pub(crate) pages_mapped: AtomicU64,
}

/// Sums since the last reset.
pub(crate) static SUMS: Sums =
    Sums { maps: AtomicU64::new(0), unmaps: AtomicU64::new(0), pages_mapped: AtomicU64::new(0) };

/// What exists now.
#[derive(Debug, Default)]
pub(crate) struct Existing {
    /// Hypercall buffers.
    pub(crate) buffers_now: u64,
    /// Pages of them.
    pub(crate) buffer_pages_now: u64,
    /// Areas mapped from privcmd, with pages in them or not.
    pub(crate) areas_now: u64,
    /// Areas that show a domain.
    pub(crate) mappings_now: u64,
    /// Pages that are shown in them.
    pub(crate) pages_mapped_now: u64,
}

impl Sums {
    /// Begins at zero again.
    pub(crate) fn reset(&self) {
        [&self.maps, &self.unmaps, &self.pages_mapped]
            .into_iter()
            .for_each(|sum| sum.store(0, Ordering::Relaxed));
    }
}

impl Area {
    fn pages(&self, range: &Range<usize>) -> u64 {
        let pages = (range.end - range.start) / PAGE_SIZE;
        match &self.foreign {
            Some(foreign) if foreign.domid.is_none() => 0,
            Some(foreign) => (pages - foreign.empty.range(range.clone()).count()) as u64,
            None => pages as u64,
        }
    }

    const fn is_mapped(&self) -> bool {
        matches!(&self.foreign, Some(Foreign { domid: Some(_), .. }))
    }
}

/// Maps a new area from a device.
///
/// # Safety
///
/// As `mmap`: with `MAP_FIXED`, what was at `address` before is no longer needed.
pub(crate) unsafe fn map_device(
    device: Device,
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
) -> Result<*mut c_void, i32> {
    process::check()?;
    let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE);
    let replaces = flags & libc::MAP_FIXED != 0;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    let (kind, protection_now, flags) = match device {
        // The pages of a buffer are there at once, and zero.
        Device::Hypercall => (Kind::AllocBuffer, protection, anonymous | libc::MAP_POPULATE),
        Device::Privcmd => (Kind::Mmap, libc::PROT_NONE, anonymous | libc::MAP_NORESERVE),
    };
    tally::begin(kind, Scope::Host)?;
    if replaces {
        forget(address as usize, length);
    }
    // SAFETY: as the caller of this function says.
    let base = unsafe { c_library::MMAP.get()(address, length, protection_now, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(c_library::errno());
    }
    let start = base as usize;
    let end = start + length.next_multiple_of(PAGE_SIZE);
    let foreign = (device == Device::Privcmd).then(Foreign::default);
    let mut areas = AREAS.write().unwrap_or_else(PoisonError::into_inner);
    areas.insert(start, Area { end, protection, foreign });
    LIVE.store(areas.len(), Ordering::Release);
    drop(areas);
    trace!("mmap {device:?} {} pages = {start:#x}", (end - start) / PAGE_SIZE);
    Ok(base)
}

/// Forgets what a `munmap` is about to remove.
pub(crate) fn forget(address: usize, length: usize) {
    if LIVE.load(Ordering::Acquire) == 0 || process::is_child() || !address.is_multiple_of(PAGE_SIZE) {
        return;
    }
    let Some(gone_end) =
        length.checked_next_multiple_of(PAGE_SIZE).and_then(|length| address.checked_add(length))
    else {
        return;
    };
    let gone = address..gone_end;
    let mut areas = AREAS.write().unwrap_or_else(PoisonError::into_inner);
    let mut unmapped = 0;
    while let Some((start, area)) =
        areas.range(..gone.end).next_back().map(|(start, area)| (*start, area.clone()))
        && area.end > gone.start
    {
        areas.remove(&start);
        if area.is_mapped() {
            SUMS.unmaps.fetch_add(1, Ordering::Relaxed);
            unmapped += area.pages(&(start.max(gone.start)..area.end.min(gone.end)));
        }
        if area.end > gone.end {
            areas.insert(gone.end, area.clone());
        }
        if start < gone.start {
            areas.insert(start, Area { end: gone.start, ..area });
        }
    }
    LIVE.store(areas.len(), Ordering::Release);
    drop(areas);
    faults::spend_unmap(unmapped);
}

/// Lets `copy` have the address if `bytes` from there lie in one hypercall buffer, which stays until it returns.
pub(crate) fn in_buffer(address: u64, bytes: usize, copy: impl FnOnce(*mut u8)) -> bool {
    let areas = AREAS.read().unwrap_or_else(PoisonError::into_inner);
    let Ok(from) = usize::try_from(address) else { return false };
    let Some(end) = from.checked_add(bytes) else { return false };
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let found = areas
        .range(..=from)
        .next_back()
        .is_some_and(|(_, area)| area.foreign.is_none() && end <= area.end && area.protection & both == both);
    if found {
        copy(from as *mut u8);
    }
    found
}

/// Checks that pages of a domain may be mapped at an address, as the kernel does: into a whole new area, or, within
/// an area, to where no page is yet. Returns the area's protection.
pub(crate) fn claim(address: usize, pages: usize) -> Result<c_int, i32> {
    let end =
        pages.checked_mul(PAGE_SIZE).and_then(|bytes| address.checked_add(bytes)).ok_or(libc::EINVAL)?;
    let areas = AREAS.read().unwrap_or_else(PoisonError::into_inner);
    let (start, area) = areas.range(..=address).next_back().ok_or(libc::EINVAL)?;
    let foreign = area.foreign.as_ref().ok_or(libc::EINVAL)?;
    let free = if foreign.domid.is_none() {
        *start == address && area.end == end
    } else {
        end <= area.end && foreign.empty.range(address..end).count() == pages
    };
    if free { Ok(area.protection) } else { Err(libc::EINVAL) }
}

/// Notes that pages of a domain were mapped at an address that was claimed, but for those at `empty`.
pub(crate) fn fill(domid: u16, address: usize, pages: usize, empty: &[usize]) {
    let mut areas = AREAS.write().unwrap_or_else(PoisonError::into_inner);
    let area = areas.range_mut(..=address).next_back();
    if let Some(Area { foreign: Some(foreign), .. }) = area.map(|(_, area)| area) {
        SUMS.pages_mapped.fetch_add((pages - empty.len()) as u64, Ordering::Relaxed);
        if foreign.domid.replace(domid).is_none() {
            SUMS.maps.fetch_add(1, Ordering::Relaxed);
        } else {
            let end = address + pages * PAGE_SIZE;
            foreign.empty.retain(|page| !(address..end).contains(page));
        }
        foreign.empty.extend(empty);
    }
}

/// Returns what exists now; with a domid, only what shows this domain.
pub(crate) fn existing(domid: Option<u16>) -> Existing {
    let mut existing = Existing::default();
    for (start, area) in AREAS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        let pages = area.pages(&(*start..area.end));
        match &area.foreign {
            None if domid.is_none() => {
                existing.buffers_now += 1;
                existing.buffer_pages_now += pages;
            }
            Some(foreign) if domid.is_none() || domid == foreign.domid => {
                existing.areas_now += 1;
                existing.mappings_now += u64::from(area.is_mapped());
                existing.pages_mapped_now += pages;
            }
            _ => {}
        }
    }
    existing
}
