// SPDX-License-Identifier: GPL-3.0-or-later
//! `IOCTL_PRIVCMD_MMAP_RESOURCE`, the part that a restore needs: the first frame of a domain's grant table, in which
//! libxenguest seeds the entries of the console and of xenstore.

use std::{
    ffi::{c_int, c_void},
    os::fd::AsRawFd,
};

use xenmig_types::PAGE_SIZE;

use crate::{
    areas, c_library,
    caller_memory::Memory,
    faults,
    host::{self, Domain},
    kinds::Kind,
    layout::{MmapResource, mem},
    tally,
};

/// Frames of a grant table.
const GRANT_FRAMES: u64 = 1;

/// `IOCTL_PRIVCMD_MMAP_RESOURCE`.
pub(crate) fn map(arg: u64) -> Result<c_int, i32> {
    faults::spend_call();
    let mut resource: MmapResource = Memory::User.read(arg)?;
    let domain = host::domain(resource.dom);
    let scope = host::scope(domain.as_deref());
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
    let table = domain.grants.file().as_raw_fd();
    // SAFETY: replaces a part of the area that the caller gave up for this, and that nothing was shown in before.
    let base =
        unsafe { c_library::MMAP.get()(address as *mut c_void, PAGE_SIZE, protection, flags, table, 0) };
    if base == libc::MAP_FAILED { Err(c_library::errno()) } else { Ok(()) }
}
