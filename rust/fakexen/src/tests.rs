// SPDX-License-Identifier: GPL-3.0-or-later
//! Tests of the interposed functions: calls are made as the Xen libraries make them, and answered. All tests share the host of this
//! process, so each has its own domains.

mod areas;
mod control;
mod dispatch;
mod domain;
mod logdirty;
mod mapping;
mod pv;

use std::{ffi::c_int, sync::Arc};

use crate::{
    c_library,
    caller_memory::Memory,
    host::{self, Domain},
    interposed,
    layout::{self, DOMCTL_UNION, DOMCTL_VERSION, DomctlHeader, Hypercall, MmapBatchV2, Plain, ctl, op},
};

/// Bytes in a page.
pub(super) const PAGE: usize = xenmig_types::PAGE_SIZE;
/// An address where nothing is ever mapped.
pub(super) const NOWHERE: u64 = 8;

/// Makes a domain.
pub(super) fn create(json: &str) -> Arc<Domain> {
    host::create(&serde_json::from_str(json).unwrap()).unwrap()
}

/// Makes a system call's result of what an interposed function returned.
fn result(value: c_int) -> Result<c_int, i32> {
    if value == -1 { Err(c_library::errno()) } else { Ok(value) }
}

/// Opens `/dev/xen/privcmd`.
pub(super) fn open(path: &std::ffi::CStr) -> Result<c_int, i32> {
    // SAFETY: a C string.
    result(unsafe { interposed::open64(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC, 0) })
}

/// Calls `ioctl`.
pub(super) fn ioctl(fd: c_int, request: u64, arg: u64) -> Result<c_int, i32> {
    // SAFETY: the function checks the pointer.
    result(unsafe { interposed::ioctl(fd, request, arg as *mut _) })
}

/// Calls `close`.
pub(super) fn close(fd: c_int) {
    // SAFETY: the test's own descriptor.
    assert_eq!(unsafe { interposed::close(fd) }, 0);
}

/// Calls `mmap` on a device.
pub(super) fn mmap(fd: c_int, pages: usize) -> Result<u64, i32> {
    map(fd, 0, pages, libc::MAP_SHARED)
}

/// Calls `mmap` on a device, with an address where the test has something else.
pub(super) fn mmap_fixed(fd: c_int, address: u64, pages: usize) -> Result<u64, i32> {
    map(fd, address, pages, libc::MAP_SHARED | libc::MAP_FIXED)
}

fn map(fd: c_int, address: u64, pages: usize, flags: c_int) -> Result<u64, i32> {
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: where nothing is, or where the test has something else.
    let base = unsafe { interposed::mmap64(address as *mut _, pages * PAGE, both, flags, fd, 0) };
    if base == libc::MAP_FAILED { Err(c_library::errno()) } else { Ok(base as u64) }
}

/// Calls `munmap`.
pub(super) fn munmap(address: u64, pages: usize) {
    // SAFETY: the test's own mapping.
    assert_eq!(unsafe { interposed::munmap(address as *mut _, pages * PAGE) }, 0);
}

/// Makes a hypercall.
pub(super) fn hypercall(op: u64, first: u64, second: u64) -> Result<c_int, i32> {
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let call = Hypercall { op, arg: [first, second, 0, 0, 0] };
    let result = ioctl(fd, layout::ioctl::HYPERCALL, &raw const call as u64);
    close(fd);
    result
}

/// Makes a domctl and returns what it left in its union.
pub(super) fn domctl<T: Plain>(cmd: u32, domain: u16, body: T) -> Result<T, i32> {
    versioned_domctl(cmd, domain, DOMCTL_VERSION, body).map(|(_, body)| body)
}

/// Makes a domctl of any version and returns what it left, with the domid in front.
pub(super) fn versioned_domctl<T: Plain>(
    cmd: u32,
    domain: u16,
    interface_version: u32,
    body: T,
) -> Result<(u16, T), i32> {
    let memory = [0_u64; 18];
    let at = &raw const memory as u64;
    Memory::User.write(at, &DomctlHeader { cmd, interface_version, domain, ..DomctlHeader::default() })?;
    Memory::User.write(at + DOMCTL_UNION, &body)?;
    hypercall(op::DOMCTL, at, 0)?;
    let header: DomctlHeader = Memory::User.read(at)?;
    Ok((header.domain, Memory::User.read(at + DOMCTL_UNION)?))
}

/// Queries the types of frames.
pub(super) fn page_types(domid: u16, gfns: &[u64]) -> Result<Vec<u64>, i32> {
    let mut array = gfns.to_vec();
    let asked = layout::GetPageFrameInfo3 { num: gfns.len() as u64, array: array.as_mut_ptr() as u64 };
    domctl(ctl::GETPAGEFRAMEINFO3, domid, asked)?;
    Ok(array.into_iter().map(|word| word >> 28).collect())
}

/// Maps frames of a domain into an area and returns the errors of the pages.
pub(super) fn map_at(fd: c_int, address: u64, dom: u16, gfns: &[u64]) -> Result<Vec<i32>, i32> {
    let mut errors = vec![77; gfns.len()];
    let batch = MmapBatchV2 {
        num: u32::try_from(gfns.len()).unwrap(),
        dom,
        addr: address,
        arr: gfns.as_ptr() as u64,
        err: errors.as_mut_ptr() as u64,
        ..MmapBatchV2::default()
    };
    ioctl(fd, layout::ioctl::MMAPBATCH_V2, &raw const batch as u64)?;
    Ok(errors)
}

/// Reads the first word of a page.
pub(super) fn word(address: u64) -> Result<u64, i32> {
    Memory::User.read(address)
}
