// SPDX-License-Identifier: GPL-3.0-or-later
//! A domain's grant table, as a file that callers map.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use xenmig_types::PAGE_SIZE;

use crate::layout::GrantEntry;

/// Entries of a grant table that are reserved for the toolstack: the console's and xenstore's.
pub(crate) const GRANT_ENTRIES: usize = 2;

/// A domain's grant table: a file of one page.
#[derive(Debug)]
pub(crate) struct GrantTable(OwnedFd);

impl GrantTable {
    /// Makes an empty table.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the name is a C string, and the call touches nothing else.
        let fd = unsafe { libc::memfd_create(c"fakexen-grants".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the descriptor is ours.
        let result = unsafe { libc::ftruncate(fd, PAGE_SIZE as i64) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(file)) }
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Returns the first entries.
    pub(crate) fn entries<const N: usize>(&self) -> [GrantEntry; N] {
        let mut entries = [GrantEntry::default(); N];
        // SAFETY: the buffer may be written, and every bit pattern is an entry.
        unsafe { libc::pread(self.0.as_raw_fd(), entries.as_mut_ptr().cast(), size_of_val(&entries), 0) };
        entries
    }
}
