// SPDX-License-Identifier: GPL-3.0-or-later
//! A piece of this process's address space, mapped once and unmapped on drop. The memory of a simulated domain and
//! its bitmaps lie in such regions, because they are sparse: what is never touched takes no memory.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

/// Converts a number of pages, words or bytes to an index. What does not fit indexes nothing.
pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A mapping that is readable and writable, zero at first, and takes memory only where it is touched.
#[derive(Debug)]
pub(super) struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the region is plain memory, valid in every thread until it is dropped; how it is accessed is up to the
// owner, who only gets the address.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `bytes` of private memory.
    pub(super) fn private(bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// Maps the first `bytes` of a file, shared with whoever else has it.
    pub(super) fn shared(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_SHARED, file.as_raw_fd())
    }

    fn map(bytes: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses; it touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, bytes })
    }

    /// Returns the first address.
    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the length in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, with this length, and is unmapped only here. A child after fork
        // has a mapping of its own.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
