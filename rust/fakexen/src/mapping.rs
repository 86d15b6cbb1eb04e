// SPDX-License-Identifier: GPL-3.0-or-later
//! Foreign mappings: `IOCTL_PRIVCMD_MMAPBATCH_V2` puts pages of a domain into an area of the caller. A run of pages
//! that follow each other becomes one `mmap` of the domain's memory. The pages are there at once, as the kernel's
//! are: who reads them later pays for no fault.

use std::{
    ffi::{c_int, c_void},
    os::fd::AsRawFd,
};

use xenmig_hypervisor::sim::Verb;
use xenmig_types::{PAGE_SIZE, Pfn};

use crate::{
    areas,
    caller::Memory,
    faults,
    host::{self, Domain, errno},
    kinds::Kind,
    layout::{MmapBatch, MmapBatchV2},
    next,
    tally::{self, Scope},
};

/// Frames that are looked at together.
const CHUNK: usize = 1024;
/// `PRIVCMD_MMAPBATCH_MFN_ERROR` and `PRIVCMD_MMAPBATCH_PAGED_ERROR` of the older ioctl.
const FRAME_ERROR: u64 = 0xf000_0000;
const PAGED_ERROR: u64 = 0x8000_0000;

/// Where the errors of a batch go.
#[derive(Clone, Copy, Debug)]
enum Errors {
    /// Into an array of errnos, negative.
    Array(u64),
    /// Into the frame numbers.
    Frames(u64),
}

/// `IOCTL_PRIVCMD_MMAPBATCH_V2`.
pub(crate) fn batch_v2(arg: u64) -> Result<c_int, i32> {
    let batch: MmapBatchV2 = Memory::User.read(arg)?;
    map(batch.num, batch.dom, batch.addr, batch.arr, Errors::Array(batch.err))
}

/// `IOCTL_PRIVCMD_MMAPBATCH`, which libxenforeignmemory tries when the newer one says `EINVAL`.
pub(crate) fn batch(arg: u64) -> Result<c_int, i32> {
    let batch: MmapBatch = Memory::User.read(arg)?;
    map(batch.num, batch.dom, batch.addr, batch.arr, Errors::Frames(batch.arr))
}

fn map(num: u32, domid: u16, address: u64, frames: u64, errors: Errors) -> Result<c_int, i32> {
    faults::spend_call();
    let domain = host::domain(domid);
    let scope = domain.as_deref().map_or(Scope::Host, Scope::Domain);
    tally::call(Kind::MapBatch, scope, || {
        let pages = usize::try_from(num).map_err(|_| libc::EINVAL)?;
        let address = usize::try_from(address).map_err(|_| libc::EINVAL)?;
        if pages == 0 || i32::try_from(num).is_err() {
            return Err(libc::EINVAL);
        }
        let protection = areas::claim(address, pages)?;
        let number = domain.as_deref().map(|domain| domain.sim.door_begin(Verb::Map));
        let number = number.transpose().map_err(|error| errno(&error))?;
        let mut batch = Batch {
            domain: domain.as_deref(),
            address,
            protection,
            pages_fail: faults::pages_fail(domid),
            empty: Vec::new(),
            paged: false,
        };
        for first in (0..pages).step_by(CHUNK) {
            batch.chunk(first, CHUNK.min(pages - first), frames, errors)?;
        }
        areas::fill(domid, address, pages, &batch.empty);
        faults::spend_map((pages - batch.empty.len()) as u64);
        if let (Some(domain), Some(number)) = (domain.as_deref(), number) {
            domain.sim.door_mapped(number);
        }
        if batch.paged { Err(libc::ENOENT) } else { Ok(0) }
    })
    .map(|_| 0)
}

#[derive(Debug)]
struct Batch<'a> {
    domain: Option<&'a Domain>,
    address: usize,
    protection: c_int,
    /// Whether a fault forbids some page of the domain.
    pages_fail: bool,
    /// Addresses of the pages that were not mapped.
    empty: Vec<usize>,
    /// Whether the error of a page says that it may be mapped later.
    paged: bool,
}

impl Batch<'_> {
    fn chunk(&mut self, first: usize, count: usize, frames: u64, errors: Errors) -> Result<(), i32> {
        let mut frame_buffer = [0_u64; CHUNK];
        let mut errno_buffer = [0_i32; CHUNK];
        let all = frame_buffer.get_mut(..count).unwrap_or_default();
        let errnos = errno_buffer.get_mut(..count).unwrap_or_default();
        Memory::User.read_all(frames.wrapping_add(first as u64 * 8), all)?;
        let mut at = 0;
        while let Some(rest) = all.get(at..).filter(|rest| !rest.is_empty()) {
            let address = self.address + (first + at) * PAGE_SIZE;
            let (run, errno) = self.run(rest, address);
            errnos.iter_mut().skip(at).take(run).for_each(|place| *place = -errno);
            if errno != 0 {
                self.empty.extend((0..run).map(|page| address + page * PAGE_SIZE));
                self.paged |= errno == libc::ENOENT;
            }
            at += run;
        }
        match errors {
            Errors::Array(array) => Memory::User.write_all(array.wrapping_add(first as u64 * 4), errnos),
            Errors::Frames(array) if errnos.iter().any(|errno| *errno != 0) => {
                for (frame, errno) in all.iter_mut().zip(&*errnos) {
                    *frame |= match -errno {
                        0 => 0,
                        libc::ENOENT => PAGED_ERROR,
                        _ => FRAME_ERROR,
                    };
                }
                Memory::User.write_all(array.wrapping_add(first as u64 * 8), all)
            }
            Errors::Frames(_) => Ok(()),
        }
    }

    /// Maps as many of `frames` as follow each other. Returns how many have been dealt with, and their errno.
    fn run(&self, frames: &[u64], address: usize) -> (usize, i32) {
        let Some(domain) = self.domain else { return (frames.len(), libc::ESRCH) };
        let Some(first) = frames.first().copied() else { return (0, 0) };
        let obstacle = |pfn| match domain.sim.is_populated(Pfn(pfn)) {
            false => Some(libc::EINVAL),
            true if self.pages_fail => faults::page_errno(domain.domid.get(), pfn),
            true => None,
        };
        if let Some(errno) = obstacle(first) {
            return (1, errno);
        }
        let mut run = 1;
        // A fault that counts attempts must be asked once a page: then each page is a run of its own.
        while !self.pages_fail
            && let Some(pfn) = frames.get(run).copied()
            && pfn == first + run as u64
            && obstacle(pfn).is_none()
        {
            run += 1;
        }
        (run, self.show(domain, first, run, address))
    }

    /// Maps `count` pages from `pfn` on at an address of the area. Returns the errno, or 0.
    fn show(&self, domain: &Domain, pfn: u64, count: usize, address: usize) -> i32 {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let memory = domain.sim.door_memory().as_raw_fd();
        let Ok(offset) = i64::try_from(pfn * PAGE_SIZE as u64) else { return libc::EINVAL };
        // SAFETY: replaces a part of the area that the caller gave up for this, and that nothing was shown in before.
        let base = unsafe {
            next::MMAP.get()(
                address as *mut c_void,
                count * PAGE_SIZE,
                self.protection,
                flags,
                memory,
                offset,
            )
        };
        if base == libc::MAP_FAILED { next::errno() } else { 0 }
    }
}
