// SPDX-License-Identifier: GPL-3.0-or-later
//! `IOCTL_PRIVCMD_MMAP_RESOURCE`, as far as a restore needs it: the first frame of a domain's grant table, in which
//! libxenguest seeds the entries of the console and of xenstore.

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use xenmig_types::PAGE_SIZE;

use crate::{
    areas,
    caller::Memory,
    faults,
    host::{self, Domain},
    kinds::Kind,
    layout::{GrantEntry, MmapResource, mem},
    next,
    tally::{self, Scope},
};

/// Frames of a grant table.
const GRANT_FRAMES: u64 = 1;

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

    /// Returns the first entries.
    pub(crate) fn entries<const N: usize>(&self) -> [GrantEntry; N] {
        let mut entries = [GrantEntry::default(); N];
        // SAFETY: the buffer may be written, and every bit pattern is an entry.
        unsafe { libc::pread(self.0.as_raw_fd(), entries.as_mut_ptr().cast(), size_of_val(&entries), 0) };
        entries
    }
}

/// `IOCTL_PRIVCMD_MMAP_RESOURCE`.
pub(crate) fn map(arg: u64) -> Result<c_int, i32> {
    faults::spend_call();
    let mut resource: MmapResource = Memory::User.read(arg)?;
    let domain = host::domain(resource.dom);
    let scope = domain.as_deref().map_or(Scope::Host, Scope::Domain);
    tally::call(Kind::MapResource, scope, || {
        let domain = domain.as_deref().ok_or(libc::ESRCH)?;
        if resource.kind != mem::RESOURCE_GRANT_TABLE {
            return Err(libc::EOPNOTSUPP);
        }
        if resource.id != mem::GRANT_TABLE_ID_SHARED {
            return Err(libc::EINVAL);
        }
        if resource.addr == 0 && resource.num == 0 {
            resource.num = GRANT_FRAMES;
            Memory::User.write(arg, &resource)?;
            return Ok(0);
        }
        if u64::from(resource.idx).saturating_add(resource.num) > GRANT_FRAMES || resource.num == 0 {
            return Err(libc::EINVAL);
        }
        let address = usize::try_from(resource.addr).map_err(|_| libc::EINVAL)?;
        show(domain, address, areas::claim(address, 1)?)?;
        areas::fill(resource.dom, address, 1, &[]);
        Ok(0)
    })
    .map(|_| 0)
}

fn show(domain: &Domain, address: usize, protection: c_int) -> Result<(), i32> {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let table = domain.grants.0.as_raw_fd();
    // SAFETY: replaces a part of the area that the caller gave up for this, and that nothing was shown in before.
    let base = unsafe { next::MMAP.get()(address as *mut c_void, PAGE_SIZE, protection, flags, table, 0) };
    if base == libc::MAP_FAILED { Err(next::errno()) } else { Ok(()) }
}
