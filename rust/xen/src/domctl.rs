// SPDX-License-Identifier: GPL-3.0-or-later
//! Domctls and sysctls. Each goes to the hypervisor in a page of hypercall memory, with the interface version of the
//! headers in it, and comes back in the same page. Source: `public/domctl.h`, `public/sysctl.h`.

use std::sync::Arc;

use xenctrl_sys as sys;
use xenmig_types::Domid;

use crate::{buffer::HypercallBuffer, call::CallHandle, error::CallResult};

/// Returns a domctl on a domain, all else zero.
pub(super) fn domctl(command: u32, domid: Domid) -> sys::xen_domctl {
    sys::xen_domctl {
        cmd: command,
        interface_version: sys::XEN_DOMCTL_INTERFACE_VERSION,
        domain: domid.get(),
        ..Default::default()
    }
}

/// Returns a sysctl, all else zero.
pub(super) fn sysctl(command: u32) -> sys::xen_sysctl {
    sys::xen_sysctl {
        cmd: command,
        interface_version: sys::XEN_SYSCTL_INTERFACE_VERSION,
        ..Default::default()
    }
}

/// A structure that is the argument of a hypercall.
pub(super) trait Argument: Copy {
    /// `__HYPERVISOR_*`.
    const OP: u32;
}

impl Argument for sys::xen_domctl {
    const OP: u32 = sys::__HYPERVISOR_domctl;
}

impl Argument for sys::xen_sysctl {
    const OP: u32 = sys::__HYPERVISOR_sysctl;
}

/// Makes the hypercall; `argument` becomes what the hypervisor made of it.
///
/// # Safety
///
/// Each guest handle in `argument` must be null or lead to memory that the hypercall may use as the command says.
pub(super) unsafe fn perform<A: Argument>(call: &Arc<CallHandle>, argument: &mut A) -> CallResult<()> {
    let mut page = HypercallBuffer::bytes_zeroed(call, size_of::<A>())?;
    // SAFETY: the caller vouches for the handles in it.
    unsafe { perform_in(&mut page, argument) }
}

/// Does the same in a page that the caller keeps.
///
/// # Safety
///
/// As for [`perform`].
pub(super) unsafe fn perform_in<A: Argument>(page: &mut HypercallBuffer, argument: &mut A) -> CallResult<()> {
    const { assert!(size_of::<A>() <= crate::interface::HYPERCALL_PAGE_BYTES && align_of::<A>() <= 8) };
    let address = page.address();
    // SAFETY: the buffer has a page at least, page-aligned, and `A` is no larger.
    unsafe { address.cast::<A>().write(*argument) };
    // SAFETY: the argument is there; the caller vouches for the handles in it.
    unsafe { page.call().hypercall(A::OP, address) }?;
    // SAFETY: as for the write. The structures are of integers and addresses: any bytes are valid.
    *argument = unsafe { address.cast::<A>().read() };
    Ok(())
}
