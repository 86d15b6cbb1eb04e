// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions of the C library that this library stands in front of: the next definition of the same name in the
//! search order, found once and called from then on.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    marker::PhantomData,
    sync::atomic::{AtomicPtr, Ordering},
};

use libc::{off_t, size_t};

/// `open`, `open64`: variadic, called with the mode always.
pub(crate) type Open = unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int;
/// `openat`, `openat64`.
pub(crate) type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, c_uint) -> c_int;
/// `close`.
pub(crate) type Close = unsafe extern "C" fn(c_int) -> c_int;
/// `ioctl`: variadic, called with one argument always.
pub(crate) type Ioctl = unsafe extern "C" fn(c_int, u64, *mut c_void) -> c_int;
/// `mmap`, `mmap64`.
pub(crate) type Mmap = unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
/// `munmap`.
pub(crate) type Munmap = unsafe extern "C" fn(*mut c_void, size_t) -> c_int;

pub(crate) static OPEN: Next<Open> = Next::new(c"open");
pub(crate) static OPEN64: Next<Open> = Next::new(c"open64");
pub(crate) static OPENAT: Next<OpenAt> = Next::new(c"openat");
pub(crate) static OPENAT64: Next<OpenAt> = Next::new(c"openat64");
pub(crate) static CLOSE: Next<Close> = Next::new(c"close");
pub(crate) static IOCTL: Next<Ioctl> = Next::new(c"ioctl");
pub(crate) static MMAP: Next<Mmap> = Next::new(c"mmap64");
pub(crate) static MUNMAP: Next<Munmap> = Next::new(c"munmap");

/// One function of the C library. `F` is its type.
#[derive(Debug)]
pub(crate) struct Next<F> {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
    function: PhantomData<F>,
}

impl<F: Copy> Next<F> {
    const fn new(name: &'static CStr) -> Self {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "F must be a function pointer") };
        Self { name, address: AtomicPtr::new(std::ptr::null_mut()), function: PhantomData }
    }

    /// Returns the function. A C library without it cannot be, as the programs above are linked to it.
    pub(crate) fn get(&self) -> F {
        let mut address = self.address.load(Ordering::Relaxed);
        if address.is_null() {
            // SAFETY: the name is a C string; RTLD_NEXT begins after this library.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            if address.is_null() {
                // SAFETY: takes nothing and does not return.
                unsafe { libc::abort() };
            }
            self.address.store(address, Ordering::Relaxed);
        }
        // SAFETY: the types of the statics above are those of the C library's functions of the same names, on x86-64
        // also for the variadic ones: their integer arguments are passed in the same registers.
        unsafe { std::mem::transmute_copy(&address) }
    }
}

/// Sets `errno`.
pub(crate) fn set_errno(errno: i32) {
    // SAFETY: returns the address of this thread's errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: valid for this thread, and written by no other.
    unsafe { place.write(errno) };
}

/// Returns `errno` of the call that has just failed.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
