// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions that programs call instead of the C library's, because this library is loaded before it. What is
//! about `/dev/xen/privcmd` or `/dev/xen/hypercall` is answered here; everything else goes to the C library.
//!
//! `open` and `ioctl` are variadic in C. On x86-64 a function with fixed integer arguments takes its arguments from
//! the same registers, so an argument that the caller left out is only rubbish that is passed on and not looked at.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use libc::{off_t, size_t};

use crate::{
    areas, c_library,
    devices::{self, Device},
    hypercall, mapping, process, resource,
    trace::trace,
};

/// Opens one of the two devices, or passes on.
///
/// # Safety
///
/// As `open`: `path` is a C string.
unsafe fn open_or(path: *const c_char, flags: c_int, otherwise: impl FnOnce() -> c_int) -> c_int {
    if path.is_null() {
        return otherwise();
    }
    // SAFETY: a C string, says the caller.
    let name = unsafe { CStr::from_ptr(path) };
    match Device::of_path(name) {
        None => otherwise(),
        Some(device) => answer(devices::open(device, flags)),
    }
}

/// Turns an answer into a return value and `errno`.
fn answer(result: Result<c_int, i32>) -> c_int {
    result.unwrap_or_else(|errno| {
        c_library::set_errno(errno);
        -1
    })
}

/// # Safety
///
/// As `open(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the arguments are the caller's, unchanged.
    let otherwise = || unsafe { c_library::OPEN.get()(path, flags, mode) };
    // SAFETY: as above.
    unsafe { open_or(path, flags, otherwise) }
}

/// # Safety
///
/// As `open(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the arguments are the caller's, unchanged.
    let otherwise = || unsafe { c_library::OPEN64.get()(path, flags, mode) };
    // SAFETY: as above.
    unsafe { open_or(path, flags, otherwise) }
}

/// # Safety
///
/// As `openat(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the arguments are the caller's, unchanged.
    let otherwise = || unsafe { c_library::OPENAT.get()(dir, path, flags, mode) };
    // SAFETY: as above.
    unsafe { open_or(path, flags, otherwise) }
}

/// # Safety
///
/// As `openat(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: the arguments are the caller's, unchanged.
    let otherwise = || unsafe { c_library::OPENAT64.get()(dir, path, flags, mode) };
    // SAFETY: as above.
    unsafe { open_or(path, flags, otherwise) }
}

/// # Safety
///
/// As `close(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(fd: c_int) -> c_int {
    devices::forget(fd);
    // SAFETY: the caller's descriptor.
    unsafe { c_library::CLOSE.get()(fd) }
}

/// # Safety
///
/// As `ioctl(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: c_int, request: u64, arg: *mut c_void) -> c_int {
    let Some(device) = devices::of(fd) else {
        // SAFETY: the arguments are the caller's, unchanged.
        return unsafe { c_library::IOCTL.get()(fd, request, arg) };
    };
    answer(device_ioctl(device, request, arg as u64))
}

fn device_ioctl(device: Device, request: u64, arg: u64) -> Result<c_int, i32> {
    use crate::layout::ioctl;
    process::check()?;
    match (device, request) {
        (Device::Privcmd, ioctl::HYPERCALL) => hypercall::hypercall(arg),
        (Device::Privcmd, ioctl::MMAPBATCH_V2) => mapping::batch_v2(arg),
        (Device::Privcmd, ioctl::MMAPBATCH) => mapping::batch(arg),
        (Device::Privcmd, ioctl::MMAP_RESOURCE) => resource::map(arg),
        _ => {
            trace!("ioctl {request:#x} on {device:?} = ENOTTY");
            Err(libc::ENOTTY)
        }
    }
}

/// # Safety
///
/// As `mmap(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mmap(
    addr: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    let Some(device) = devices::of(fd) else {
        // SAFETY: the arguments are the caller's, unchanged.
        return unsafe { c_library::MMAP.get()(addr, length, protection, flags, fd, offset) };
    };
    // SAFETY: as `mmap`: the caller knows what a fixed address replaces.
    match unsafe { areas::map_device(device, addr, length, protection, flags) } {
        Ok(base) => base,
        Err(errno) => {
            c_library::set_errno(errno);
            libc::MAP_FAILED
        }
    }
}

/// # Safety
///
/// As `mmap(2)`; the same function on x86-64, where `off_t` has 64 bits.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mmap64(
    addr: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the arguments are the caller's, unchanged.
    unsafe { mmap(addr, length, protection, flags, fd, offset) }
}

/// # Safety
///
/// As `munmap(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn munmap(addr: *mut c_void, length: size_t) -> c_int {
    areas::forget(addr as usize, length);
    // SAFETY: the arguments are the caller's, unchanged.
    unsafe { c_library::MUNMAP.get()(addr, length) }
}
