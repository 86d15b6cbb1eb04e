// SPDX-License-Identifier: GPL-3.0-or-later
//! Mapping guest pages with libxenforeignmemory. A page that is mapped is not freed, even if the guest gives it back
//! meanwhile: Xen holds a reference for the mapping.

use std::{
    ffi::{c_int, c_void},
    fmt,
    ptr::{self, NonNull},
    sync::Arc,
};

use xenctrl_sys::{xen_pfn_t, xenforeignmemory_handle};
use xenmig_hypervisor::{Access, Errno, ForeignPages, Process};
use xenmig_types::{Domid, Gfn, PAGE_SIZE};

use crate::{
    error::{CallResult, XenOpenError, last_errno},
    libraries::{ForeignFunctions, quiet},
};

/// A handle of libxenforeignmemory. It has no state but a descriptor, so threads need not take turns.
pub(super) struct ForeignHandle {
    pub(super) functions: ForeignFunctions,
    pub(super) handle: NonNull<xenforeignmemory_handle>,
    process: Process,
}

// SAFETY: map and unmap only use the handle's descriptor, which does not change.
unsafe impl Send for ForeignHandle {}
// SAFETY: as above.
unsafe impl Sync for ForeignHandle {}

impl ForeignHandle {
    /// Opens the device.
    pub(super) fn open(functions: ForeignFunctions) -> Result<Self, XenOpenError> {
        // SAFETY: the logger is a static; no flags.
        let handle = unsafe { (functions.xenforeignmemory_open)(quiet(), 0) };
        let handle = NonNull::new(handle).ok_or_else(|| XenOpenError::device(last_errno()))?;
        Ok(Self { functions, handle, process: Process::current() })
    }

    /// Maps frames. Those that cannot be mapped have an errno each; the call fails if none could even be tried.
    pub(super) fn map(
        self: &Arc<Self>,
        domid: Domid,
        gfns: &[Gfn],
        access: Access,
    ) -> CallResult<ForeignPages> {
        let frames: Vec<xen_pfn_t> = gfns.iter().map(|gfn| gfn.0).collect();
        let mut errors: Vec<c_int> = vec![0; frames.len()];
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        let mapping = self.map_frames(domid.get(), protection, &frames, Some(&mut errors))?;
        let base = mapping.base;
        let pages = errors.into_iter().enumerate().map(|(index, error)| match error {
            0 => {
                // SAFETY: `index` is below the number of pages, which lie in order.
                Ok(unsafe { base.cast::<u8>().add(index * PAGE_SIZE) })
            }
            // The kernel's numbers are negative.
            errno => Err(Errno(errno.saturating_abs())),
        });
        let pages = pages.collect();
        // SAFETY: the pages without an error are mapped, page-aligned, with this protection, until `mapping` is
        // dropped. They are the guest's: there is no reference to them.
        Ok(unsafe { ForeignPages::new(pages, access, Box::new(mapping)) })
    }

    /// Maps frames in order. With `errors`, which must be as many, a frame that cannot be mapped gets one of the
    /// kernel's; without, it makes the call fail.
    pub(super) fn map_frames(
        self: &Arc<Self>,
        domain: u16,
        protection: c_int,
        frames: &[xen_pfn_t],
        errors: Option<&mut [c_int]>,
    ) -> CallResult<Mapping> {
        let errors = match errors {
            Some(errors) if errors.len() != frames.len() => return Err(Errno(libc::EINVAL)),
            Some(errors) => errors.as_mut_ptr(),
            None => ptr::null_mut(),
        };
        // SAFETY: the handle is open, and both arrays, if there are two, are as long as the count says.
        let base = unsafe {
            (self.functions.xenforeignmemory_map)(
                self.handle.as_ptr(),
                u32::from(domain),
                protection,
                frames.len(),
                frames.as_ptr(),
                errors,
            )
        };
        let base = NonNull::new(base).ok_or_else(last_errno)?;
        Ok(Mapping { foreign: Arc::clone(self), base, pages: frames.len() })
    }
}

impl Drop for ForeignHandle {
    fn drop(&mut self) {
        // In a child the descriptor goes with exec or exit.
        if self.process == Process::current() {
            // SAFETY: the handle is open, and is used no more: all mappings hold an Arc of this.
            unsafe { (self.functions.xenforeignmemory_close)(self.handle.as_ptr()) };
        }
    }
}

impl fmt::Debug for ForeignHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignHandle").field("process", &self.process).finish_non_exhaustive()
    }
}

/// A mapped range. Dropping it unmaps it.
pub(super) struct Mapping {
    foreign: Arc<ForeignHandle>,
    base: NonNull<c_void>,
    pages: usize,
}

impl Mapping {
    /// Returns where it begins.
    pub(super) const fn base(&self) -> NonNull<c_void> {
        self.base
    }
}

// SAFETY: an address range of the process; munmap may be called by any thread.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        let foreign = &self.foreign;
        // A child has not inherited the mapping; something else may be at its address there.
        if foreign.process == Process::current() {
            // SAFETY: this is the range that was mapped, the handle is open, and the pages are no longer used.
            unsafe {
                (foreign.functions.xenforeignmemory_unmap)(
                    foreign.handle.as_ptr(),
                    self.base.as_ptr(),
                    self.pages,
                )
            };
        }
    }
}
