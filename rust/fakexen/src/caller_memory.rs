// SPDX-License-Identifier: GPL-3.0-or-later
//! The caller's memory. Nothing is known about a pointer that comes in a system call or a hypercall, so it is either
//! found to lie in a buffer that `/dev/xen/hypercall` gave out, or the kernel copies from or to it and says `EFAULT`.

use std::{ffi::c_void, mem::MaybeUninit, sync::atomic::Ordering};

use crate::{areas, c_library, layout::Plain, process, tally};

/// How a pointer came here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// In a system call: the kernel copies from anywhere.
    User,
    /// In a hypercall: the hypervisor copies; the memory should come from `/dev/xen/hypercall`.
    Hypercall,
}

impl Memory {
    /// Reads a structure.
    pub(crate) fn read<T: Plain>(self, address: u64) -> Result<T, i32> {
        let mut value = MaybeUninit::<T>::uninit();
        self.copy_in(address, value.as_mut_ptr().cast(), size_of::<T>())?;
        // SAFETY: all bytes were written, and all bit patterns are values of a `Plain` type.
        Ok(unsafe { value.assume_init() })
    }

    /// Writes a structure.
    pub(crate) fn write<T: Plain>(self, address: u64, value: &T) -> Result<(), i32> {
        self.copy_out(address, std::ptr::from_ref(value).cast(), size_of::<T>())
    }

    /// Reads an array.
    pub(crate) fn read_all<T: Plain>(self, address: u64, values: &mut [T]) -> Result<(), i32> {
        self.copy_in(address, values.as_mut_ptr().cast(), size_of_val(values))
    }

    /// Writes an array.
    pub(crate) fn write_all<T: Plain>(self, address: u64, values: &[T]) -> Result<(), i32> {
        self.copy_out(address, values.as_ptr().cast(), size_of_val(values))
    }

    /// Writes an array to where the caller wants it, if it fits, and returns its length; without a place for it, the most
    /// that it can be.
    pub(crate) fn write_array<T: Plain>(
        self,
        at: u64,
        room: u32,
        most: u32,
        values: &[T],
    ) -> Result<u32, i32> {
        if at == 0 {
            return Ok(most);
        }
        let length = u32::try_from(values.len()).unwrap_or(u32::MAX);
        if length > room {
            return Err(libc::ENOBUFS);
        }
        self.write_all(at, values)?;
        Ok(length)
    }

    /// Reads bytes.
    pub(crate) fn read_bytes(self, address: u64, bytes: &mut [u8]) -> Result<(), i32> {
        self.copy_in(address, bytes.as_mut_ptr(), bytes.len())
    }

    /// Writes bytes.
    pub(crate) fn write_bytes(self, address: u64, bytes: &[u8]) -> Result<(), i32> {
        self.copy_out(address, bytes.as_ptr(), bytes.len())
    }

    /// Lets `copy` have the address if it is in one of our buffers.
    fn in_buffer(self, address: u64, bytes: usize, copy: impl FnOnce(*mut u8)) -> bool {
        match self {
            Self::User => false,
            Self::Hypercall => {
                let found = areas::in_buffer(address, bytes, copy);
                if !found && bytes != 0 {
                    tally::UNSAFE_POINTERS.fetch_add(1, Ordering::Relaxed);
                }
                found
            }
        }
    }

    fn copy_in(self, address: u64, to: *mut u8, bytes: usize) -> Result<(), i32> {
        let copy = |from: *mut u8| {
            // SAFETY: `from` leads to `bytes` mapped bytes of a buffer, `to` to as many of our own.
            unsafe { from.copy_to(to, bytes) };
        };
        if bytes == 0 || self.in_buffer(address, bytes, copy) {
            return Ok(());
        }
        let ours = libc::iovec { iov_base: to.cast(), iov_len: bytes };
        let theirs = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes };
        // SAFETY: `ours` may be written; the kernel checks `theirs`.
        let copied =
            unsafe { libc::process_vm_readv(process::pid(), &raw const ours, 1, &raw const theirs, 1, 0) };
        whole(copied, bytes)
    }

    fn copy_out(self, address: u64, from: *const u8, bytes: usize) -> Result<(), i32> {
        let copy = |to: *mut u8| {
            // SAFETY: `to` leads to `bytes` mapped, writable bytes of a buffer, `from` to as many of our own.
            unsafe { from.copy_to(to, bytes) };
        };
        if bytes == 0 || self.in_buffer(address, bytes, copy) {
            return Ok(());
        }
        let ours = libc::iovec { iov_base: from.cast_mut().cast(), iov_len: bytes };
        let theirs = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes };
        // SAFETY: `ours` is only read; the kernel checks `theirs`.
        let copied =
            unsafe { libc::process_vm_writev(process::pid(), &raw const ours, 1, &raw const theirs, 1, 0) };
        whole(copied, bytes)
    }
}

/// Checks that everything was copied.
fn whole(copied: isize, bytes: usize) -> Result<(), i32> {
    match usize::try_from(copied) {
        Ok(copied) if copied == bytes => Ok(()),
        Ok(_) => Err(libc::EFAULT),
        // Whatever else may be wrong (a sandbox forbids the call), it is not the caller's mistake.
        Err(_) => Err(c_library::errno()),
    }
}
