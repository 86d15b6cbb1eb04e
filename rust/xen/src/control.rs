// SPDX-License-Identifier: GPL-3.0-or-later
//! A handle of libxenctrl and what is asked through it. Its functions share state, so all take the handle exclusively.

use std::{
    ffi::{c_int, c_uint},
    fmt,
    ptr::{self, NonNull},
};

use xenctrl_sys::{xc_interface, xen_pfn_t};
use xenmig_hypervisor::{Errno, Extent, Process};
use xenmig_types::{Domid, Gfn, TscInfo};

use crate::{
    error::{CallResult, XenOpenError, check, last_errno},
    libraries::{ControlFunctions, quiet},
};

/// An open `xc_interface`.
pub(super) struct ControlHandle {
    functions: ControlFunctions,
    interface: NonNull<xc_interface>,
    process: Process,
}

// SAFETY: an xc_interface may be used by any thread, by one at a time; every use takes `&mut self`.
unsafe impl Send for ControlHandle {}

impl ControlHandle {
    /// Opens libxenctrl's own handles.
    pub(super) fn open(functions: ControlFunctions) -> Result<Self, XenOpenError> {
        // SAFETY: the logger is a static; a second one, for building domains, is not needed; no flags.
        let interface = unsafe { (functions.xc_interface_open)(quiet(), ptr::null_mut(), 0) };
        let interface = NonNull::new(interface).ok_or_else(|| XenOpenError::device(last_errno()))?;
        Ok(Self { functions, interface, process: Process::current() })
    }

    /// Returns the highest gpfn plus one.
    pub(super) fn nr_gpfns(&mut self, domid: Domid) -> CallResult<u64> {
        let mut pages: xen_pfn_t = 0;
        // SAFETY: the interface is open, and the result goes into a local.
        check(unsafe {
            (self.functions.xc_domain_nr_gpfns)(self.interface.as_ptr(), id(domid), &raw mut pages)
        })?;
        Ok(pages)
    }

    /// Returns how many frames the host has, those in holes included: the highest plus one. (That is what Xen answers, for
    /// all that its header speaks of the highest.)
    pub(super) fn host_frames(&mut self) -> CallResult<u64> {
        let mut frames = 0;
        let get = self.functions.xc_maximum_ram_page;
        // SAFETY: the interface is open, and the result goes into a local.
        check(unsafe { get(self.interface.as_ptr(), &raw mut frames) })?;
        Ok(frames)
    }

    /// Returns the HVM context: its size is asked for, then the context.
    pub(super) fn hvm_context(&mut self, domid: Domid) -> CallResult<Vec<u8>> {
        let get = self.functions.xc_domain_hvm_getcontext;
        // SAFETY: the interface is open; no buffer asks for the size.
        let size =
            check(unsafe { get(self.interface.as_ptr(), id(domid), ptr::null_mut(), 0) })?.unsigned_abs();
        let mut context = vec![0; length(size)?];
        // SAFETY: the interface is open, and the buffer has `size` bytes.
        let filled = check(unsafe { get(self.interface.as_ptr(), id(domid), context.as_mut_ptr(), size) })?
            .unsigned_abs();
        context.truncate(length(filled)?);
        Ok(context)
    }

    /// Loads an HVM context.
    pub(super) fn set_hvm_context(&mut self, domid: Domid, context: &[u8]) -> CallResult<()> {
        let size = u32::try_from(context.len()).map_err(|_| Errno(libc::E2BIG))?;
        let set = self.functions.xc_domain_hvm_setcontext;
        // SAFETY: the interface is open. libxenctrl only copies `size` bytes from the buffer, for all that its
        // pointer is not const.
        check(unsafe { set(self.interface.as_ptr(), id(domid), context.as_ptr().cast_mut(), size) })?;
        Ok(())
    }

    /// Returns a parameter.
    pub(super) fn hvm_param(&mut self, domid: Domid, index: u32) -> CallResult<u64> {
        let mut value = 0;
        let get = self.functions.xc_hvm_param_get;
        // SAFETY: the interface is open, and the result goes into a local.
        check(unsafe { get(self.interface.as_ptr(), id(domid), index, &raw mut value) })?;
        Ok(value)
    }

    /// Sets a parameter.
    pub(super) fn set_hvm_param(&mut self, domid: Domid, index: u32, value: u64) -> CallResult<()> {
        // SAFETY: the interface is open.
        check(unsafe {
            (self.functions.xc_hvm_param_set)(self.interface.as_ptr(), id(domid), index, value)
        })?;
        Ok(())
    }

    /// Shuts the domain down with a reason, whatever it is doing (`SCHEDOP_remote_shutdown`).
    pub(super) fn shutdown(&mut self, domid: Domid, reason: u8) -> CallResult<()> {
        // SAFETY: the interface is open.
        check(unsafe {
            (self.functions.xc_domain_shutdown)(self.interface.as_ptr(), id(domid), c_int::from(reason))
        })?;
        Ok(())
    }

    /// Returns the TSC settings.
    pub(super) fn tsc_info(&mut self, domid: Domid) -> CallResult<TscInfo> {
        let mut tsc = TscInfo::default();
        // SAFETY: the interface is open, and the results go into a local.
        check(unsafe {
            (self.functions.xc_domain_get_tsc_info)(
                self.interface.as_ptr(),
                id(domid),
                &raw mut tsc.mode,
                &raw mut tsc.elapsed_ns,
                &raw mut tsc.khz,
                &raw mut tsc.incarnation,
            )
        })?;
        Ok(tsc)
    }

    /// Sets the TSC settings.
    pub(super) fn set_tsc_info(&mut self, domid: Domid, tsc: &TscInfo) -> CallResult<()> {
        // SAFETY: the interface is open.
        check(unsafe {
            (self.functions.xc_domain_set_tsc_info)(
                self.interface.as_ptr(),
                id(domid),
                tsc.mode,
                tsc.elapsed_ns,
                tsc.khz,
                tsc.incarnation,
            )
        })?;
        Ok(())
    }

    /// Gives the domain memory; returns how many extents it got. The frames of a PV guest become mfns.
    pub(super) fn populate(&mut self, domid: Domid, frames: &mut [Gfn], extent: Extent) -> CallResult<usize> {
        let mut list = extents(frames)?;
        // SAFETY: the interface is open, and the list has as many extents as the count says.
        let given = check(unsafe {
            (self.functions.xc_domain_populate_physmap)(
                self.interface.as_ptr(),
                id(domid),
                list.len() as u64,
                order(extent),
                0,
                list.as_mut_ptr(),
            )
        })?;
        let given = length(given.unsigned_abs())?.min(list.len());
        frames.iter_mut().zip(list).take(given).for_each(|(frame, mfn)| *frame = Gfn(mfn));
        Ok(given)
    }

    /// Takes pages away; returns how many of them, from the front.
    pub(super) fn depopulate(&mut self, domid: Domid, gfns: &[Gfn]) -> CallResult<usize> {
        let mut list = extents(gfns)?;
        // SAFETY: the interface is open, and the list has as many extents as the count says.
        let taken = check(unsafe {
            (self.functions.xc_domain_decrease_reservation)(
                self.interface.as_ptr(),
                id(domid),
                list.len() as u64,
                order(Extent::Page),
                list.as_mut_ptr(),
            )
        })?;
        length(taken.unsigned_abs())
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        // In a child the descriptors go with exec or exit.
        if self.process == Process::current() {
            // SAFETY: the interface is open, and is used no more.
            unsafe { (self.functions.xc_interface_close)(self.interface.as_ptr()) };
        }
    }
}

impl fmt::Debug for ControlHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlHandle").field("process", &self.process).finish_non_exhaustive()
    }
}

fn id(domid: Domid) -> u32 {
    u32::from(domid.get())
}

/// log2 of the pages in an extent.
const fn order(extent: Extent) -> c_uint {
    extent.pages().trailing_zeros()
}

fn length(size: u32) -> CallResult<usize> {
    usize::try_from(size).map_err(|_| Errno(libc::E2BIG))
}

/// Copies frames into a list of extents. The count that comes back is an int.
fn extents(frames: &[Gfn]) -> CallResult<Vec<xen_pfn_t>> {
    if i32::try_from(frames.len()).is_err() {
        return Err(Errno(libc::E2BIG));
    }
    Ok(frames.iter().map(|frame| frame.0).collect())
}
