// SPDX-License-Identifier: GPL-3.0-or-later
//! Grants that a toolstack writes into the grant table of a domain that has not run yet.
//!
//! The table's first frame is mapped as a resource (`XENMEM_acquire_resource`): that leaves the domain's own pages
//! alone, and gives the domain a table if it has none. Linux has the ioctl for it since 4.18; libxc's way for older
//! kernels, to lend the domain a frame number for a moment, is not gone here. Entries are of version 1, which every
//! domain begins with. Source: `public/grant_table.h`, `xenforeignmemory.h`.

use std::{
    ffi::c_void,
    mem::{offset_of, size_of},
    ptr::{self, NonNull},
};

use xenctrl_sys as sys;
use xenmig_hypervisor::{Errno, ReservedEntry, ReservedGrant};
use xenmig_types::{Domid, PAGE_SIZE};

use crate::{
    error::{CallResult, last_errno},
    libraries::Resource,
    mapping::ForeignHandle,
};

// The entries as Xen and the guest see them, and the two numbers.
const _: () = {
    assert!(size_of::<sys::grant_entry_v1>() == 8 && offset_of!(sys::grant_entry_v1, domid) == 2);
    assert!(offset_of!(sys::grant_entry_v1, frame) == 4);
    assert!(PERMIT_ACCESS as u32 == sys::GTF_permit_access);
    assert!(ReservedEntry::Console as u32 == sys::GNTTAB_RESERVED_CONSOLE);
    assert!(ReservedEntry::Xenstore as u32 == sys::GNTTAB_RESERVED_XENSTORE);
    assert!((ReservedEntry::Xenstore as usize) < PAGE_SIZE / size_of::<sys::grant_entry_v1>());
};

/// `GTF_permit_access`: reading and writing.
const PERMIT_ACCESS: u16 = 1;

/// Writes grants.
pub(super) fn seed(foreign: &ForeignHandle, domid: Domid, grants: &[ReservedGrant]) -> CallResult<()> {
    let mut entries = Vec::with_capacity(grants.len());
    for grant in grants {
        let frame = u32::try_from(grant.gfn.0).map_err(|_| Errno(libc::ERANGE))?;
        let domid = grant.backend.get();
        entries.push((grant.entry, sys::grant_entry_v1 { flags: PERMIT_ACCESS, domid, frame }));
    }
    let table = Table::map(foreign, domid)?;
    let base = NonNull::new(table.base).ok_or(Errno(libc::EFAULT))?;
    for (place, entry) in entries {
        // SAFETY: the table has a page, of which the reserved entries are the first (asserted above).
        let address = unsafe { base.add(place as usize) };
        // SAFETY: the page is mapped for writing, and an entry is aligned in it. There is no reference to it.
        unsafe { address.write_volatile(entry) };
    }
    Ok(())
}

/// The first frame of a domain's grant table. Dropping it unmaps it.
struct Table<'f> {
    foreign: &'f ForeignHandle,
    resource: NonNull<Resource>,
    base: *mut sys::grant_entry_v1,
}

impl<'f> Table<'f> {
    fn map(foreign: &'f ForeignHandle, domid: Domid) -> CallResult<Self> {
        let mut base: *mut c_void = ptr::null_mut();
        // SAFETY: the handle is open, and the address goes into a local.
        let resource = unsafe {
            (foreign.functions.xenforeignmemory_map_resource)(
                foreign.handle.as_ptr(),
                domid.get(),
                sys::XENMEM_resource_grant_table,
                sys::XENMEM_resource_grant_table_id_shared,
                0,
                1,
                &raw mut base,
                libc::PROT_READ | libc::PROT_WRITE,
                0,
            )
        };
        let resource = NonNull::new(resource).ok_or_else(last_errno)?;
        Ok(Self { foreign, resource, base: base.cast() })
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let foreign = self.foreign;
        // SAFETY: the handle is open, this is what it gave, and the page is no longer used.
        unsafe {
            (foreign.functions.xenforeignmemory_unmap_resource)(
                foreign.handle.as_ptr(),
                self.resource.as_ptr(),
            )
        };
    }
}
