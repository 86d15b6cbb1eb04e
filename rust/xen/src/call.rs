// SPDX-License-Identifier: GPL-3.0-or-later
//! A handle of libxencall: makes hypercalls and allocates the memory that they may read and write.
//!
//! libxencall may be used by many threads at once, and leaves `errno` of the calling thread as the hypercall set it.

use std::{
    ffi::{c_int, c_uint, c_void},
    fmt,
    ptr::NonNull,
};

use xenctrl_sys as sys;
use xenmig_hypervisor::Process;
use xenmig_types::{Domid, XenVersion};

use crate::{
    error::{CallResult, XenOpenError, check, last_errno},
    interface,
    libraries::{CallFunctions, quiet},
};

/// An open `/dev/xen/privcmd`, with `/dev/xen/hypercall` for memory where the kernel has it.
pub(super) struct CallHandle {
    functions: CallFunctions,
    handle: NonNull<sys::xencall_handle>,
    process: Process,
}

// SAFETY: libxencall guards its own state with a mutex (it is not opened NON_REENTRANT).
unsafe impl Send for CallHandle {}
// SAFETY: as above.
unsafe impl Sync for CallHandle {}

impl CallHandle {
    /// Opens the devices.
    pub(super) fn open(functions: CallFunctions) -> Result<Self, XenOpenError> {
        // SAFETY: the logger is a static; no flags.
        let handle = unsafe { (functions.xencall_open)(quiet(), 0) };
        let handle = NonNull::new(handle).ok_or_else(|| XenOpenError::device(last_errno()))?;
        Ok(Self { functions, handle, process: Process::current() })
    }

    /// Asks for the running hypervisor's version. This hypercall needs no privilege and has never changed.
    pub(super) fn version(&self) -> CallResult<XenVersion> {
        let (op, which) = (sys::__HYPERVISOR_xen_version, u64::from(sys::XENVER_version));
        // SAFETY: the handle is open, and XENVER_version takes no pointer.
        let answer = unsafe { (self.functions.xencall2)(self.handle.as_ptr(), op, which, 0) };
        Ok(interface::version(check(answer)?.unsigned_abs()))
    }

    /// Makes a hypercall whose argument is at an address.
    ///
    /// # Safety
    ///
    /// The hypercall must find its argument there, and may use everything that the argument points to.
    pub(super) unsafe fn hypercall(&self, op: c_uint, argument: *mut c_void) -> CallResult<c_int> {
        let address = argument.expose_provenance() as u64;
        // SAFETY: the handle is open; the caller vouches for the argument.
        check(unsafe { (self.functions.xencall1)(self.handle.as_ptr(), op, address) })
    }

    /// Makes a `memory_op` whose result is no more than success.
    ///
    /// # Safety
    ///
    /// As for [`hypercall`](Self::hypercall).
    pub(super) unsafe fn memory_op(&self, command: c_uint, argument: *mut c_void) -> CallResult<()> {
        let (op, address) = (sys::__HYPERVISOR_memory_op, argument.expose_provenance() as u64);
        // SAFETY: the handle is open; the caller vouches for the argument.
        let answer =
            unsafe { (self.functions.xencall2)(self.handle.as_ptr(), op, u64::from(command), address) };
        check(answer).map(drop)
    }

    /// Makes `count` operations on page tables of a domain. Their number, also before an error, is written to `done`, which
    /// has 32 bits.
    ///
    /// # Safety
    ///
    /// `operations` must lead to as many `mmuext_op`, what these point to must be there, and `done` must lead to hypercall
    /// memory of 4 bytes.
    pub(super) unsafe fn mmuext_op(
        &self,
        operations: *mut c_void,
        count: usize,
        done: *mut c_void,
        domid: Domid,
    ) -> CallResult<()> {
        let (op, address) = (sys::__HYPERVISOR_mmuext_op, operations.expose_provenance() as u64);
        let (count, domid) = (count as u64, u64::from(domid.get()));
        let done = done.expose_provenance() as u64;
        // SAFETY: the handle is open; the caller vouches for the operations and the number.
        let answer =
            unsafe { (self.functions.xencall4)(self.handle.as_ptr(), op, address, count, done, domid) };
        check(answer).map(drop)
    }

    /// Allocates pages that the hypervisor can use at any time, all zero.
    pub(super) fn allocate(&self, pages: usize) -> CallResult<NonNull<c_void>> {
        // SAFETY: the handle is open.
        let base = unsafe { (self.functions.xencall_alloc_buffer_pages)(self.handle.as_ptr(), pages) };
        NonNull::new(base).ok_or_else(last_errno)
    }

    /// Frees pages.
    ///
    /// # Safety
    ///
    /// `base` must be what [`allocate`](Self::allocate) gave for this number of pages, and be used no more.
    pub(super) unsafe fn free(&self, base: NonNull<c_void>, pages: usize) {
        // libxencall forbids this in a child of the process that allocated them: the pages may not be there.
        if self.is_own_process() {
            // SAFETY: the caller vouches for the pages; the handle is open.
            unsafe { (self.functions.xencall_free_buffer_pages)(self.handle.as_ptr(), base.as_ptr(), pages) };
        }
    }

    /// Says whether memory from [`allocate`](Self::allocate) is always there for the hypervisor. Without
    /// `/dev/xen/hypercall` the kernel may move a page just when a hypercall wants it, which gives `EFAULT`.
    pub(super) fn never_faults(&self) -> bool {
        // SAFETY: the handle is open.
        let never = unsafe { (self.functions.xencall_buffers_never_fault)(self.handle.as_ptr()) };
        never != 0
    }

    /// Says whether the calling process is the one that opened the handle.
    pub(super) fn is_own_process(&self) -> bool {
        self.process == Process::current()
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        // In a child the descriptors go with exec or exit; closing would unmap cached pages that are not its own.
        if self.is_own_process() {
            // SAFETY: the handle is open and is used no more: all memory from it holds an Arc of this.
            unsafe { (self.functions.xencall_close)(self.handle.as_ptr()) };
        }
    }
}

impl fmt::Debug for CallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallHandle").field("process", &self.process).finish_non_exhaustive()
    }
}
