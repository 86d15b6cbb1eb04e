// SPDX-License-Identifier: GPL-3.0-or-later
//! Foreign mappings: `IOCTL_PRIVCMD_MMAPBATCH_V2` puts pages of a domain into an area of the caller_memory, or pages of Xen's
//! machine-to-phys table. A run of pages that follow each other becomes one `mmap` of the memory that they are in. The pages are there at once, as the kernel's
//! are: who reads them later pays for no fault.

use std::{
    ffi::{c_int, c_void},
    os::fd::AsRawFd,
};

use xenmig_sim::{RawM2p, Verb};
use xenmig_types::{Gfn, PAGE_SIZE, Pfn};

use crate::{
    areas, c_library,
    caller_memory::Memory,
    failure::verb,
    faults,
    host::{self, Domain},
    kinds::Kind,
    layout::{MmapBatch, MmapBatchV2},
    machine, tally,
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
    let scope = host::scope(domain.as_deref());
    tally::call(Kind::MapBatch, scope, || {
        let pages = usize::try_from(num).map_err(|_| libc::EINVAL)?;
        let address = usize::try_from(address).map_err(|_| libc::EINVAL)?;
        if pages == 0 || i32::try_from(num).is_err() {
            return Err(libc::EINVAL);
        }
        let protection = areas::claim(address, pages)?;
        let number = domain.as_deref().map(|domain| domain.sim.raw().begin(Verb::Map));
        let number = verb(number.transpose())?;
        let mut batch = Batch {
            shown: match domain.as_deref() {
                Some(domain) => Shown::Domain(domain),
                None => xens_table(domid).map_or(Shown::Nothing, Shown::Table),
            },
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
            domain.sim.raw().mapped(number);
        }
        if batch.paged { Err(libc::ENOENT) } else { Ok(0) }
    })
    .map(|_| 0)
}

/// Whose pages are mapped.
#[derive(Debug)]
enum Shown<'a> {
    /// There is no such domain.
    Nothing,
    /// A domain's.
    Domain(&'a Domain),
    /// Xen's machine-to-phys table.
    Table(RawM2p),
}

fn xens_table(domid: u16) -> Option<RawM2p> {
    (domid == machine::XEN).then(machine::m2p).flatten()
}

#[derive(Debug)]
struct Batch<'a> {
    shown: Shown<'a>,
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

    /// Returns which page of the shown memory a frame is, or the errno of one that cannot be mapped.
    fn page(&self, frame: u64) -> Result<u64, i32> {
        let writes = self.protection & libc::PROT_WRITE != 0;
        let domain = match &self.shown {
            Shown::Nothing => return Err(libc::ESRCH),
            Shown::Table(_) if writes => return Err(libc::EPERM),
            Shown::Table(m2p) => return machine::page(m2p, frame).ok_or(libc::EINVAL),
            Shown::Domain(domain) => domain,
        };
        let page = if domain.is_pv() {
            domain.sim.raw().place(Gfn(frame), writes)
        } else {
            Some(frame).filter(|pfn| domain.sim.is_populated(Pfn(*pfn)))
        };
        let page = page.ok_or(libc::EINVAL)?;
        let fails = self.pages_fail.then(|| faults::page_errno(domain.domid.get(), page)).flatten();
        fails.map_or(Ok(page), Err)
    }

    /// Maps as many of `frames` as follow each other. Returns how many have been dealt with, and their errno.
    fn run(&self, frames: &[u64], address: usize) -> (usize, i32) {
        let Some(first) = frames.first() else { return (0, 0) };
        let first = match self.page(*first) {
            Ok(first) => first,
            Err(errno) => return (1, errno),
        };
        let mut run = 1;
        // A fault that counts attempts must be asked once a page: then each page is its own run.
        while !self.pages_fail
            && let Some(frame) = frames.get(run)
            && self.page(*frame) == Ok(first + run as u64)
        {
            run += 1;
        }
        (run, self.show(first, run, address))
    }

    /// Maps `count` pages from `page` on at an address of the area. Returns the errno, or 0.
    fn show(&self, page: u64, count: usize, address: usize) -> i32 {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        let memory = match &self.shown {
            Shown::Nothing => return libc::ESRCH,
            Shown::Domain(domain) => domain.sim.raw().memory().as_raw_fd(),
            Shown::Table(m2p) => m2p.file.as_raw_fd(),
        };
        let Ok(offset) = i64::try_from(page * PAGE_SIZE as u64) else { return libc::EINVAL };
        // SAFETY: replaces a part of the area that the caller gave up for this, and that nothing was shown in before.
        let base = unsafe {
            c_library::MMAP.get()(
                address as *mut c_void,
                count * PAGE_SIZE,
                self.protection,
                flags,
                memory,
                offset,
            )
        };
        if base == libc::MAP_FAILED { c_library::errno() } else { 0 }
    }
}
