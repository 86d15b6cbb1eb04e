// SPDX-License-Identifier: GPL-3.0-or-later
//! Letting a suspended guest go on in its domain. Sources: `public/sched.h`, `SCHEDOP_shutdown`, which returns
//! 1 to the guest if its suspension was cancelled; `public/domctl.h`.

use std::sync::Arc;

use xenctrl_sys as sys;
use xenmig_hypervisor::Errno;
use xenmig_types::{
    Domid, GuestKind,
    pv::{GuestWidth, vcpu_context::RAX},
};

use crate::{
    address_size,
    call::CallHandle,
    domain_info::domain_info,
    domctl::{domctl, perform},
    error::CallResult,
    vcpu,
};

/// What `SCHEDOP_shutdown` returns when the guest was not moved, but goes on where it is.
const CANCELLED: u64 = 1;

/// Lets the guest go on. `EINVAL` if it is not suspended.
///
/// `has_drivers`: the guest suspended itself, and is waiting for the hypercall to return.
pub(super) fn resume(call: &Arc<CallHandle>, domid: Domid, has_drivers: bool) -> CallResult<()> {
    let info = domain_info(call, domid)?;
    if !info.state.is_suspended() {
        return Err(Errno(libc::EINVAL));
    }
    if has_drivers {
        let width = match info.kind {
            GuestKind::Pv => {
                GuestWidth::from_bytes(address_size::get(call, domid)?).ok_or(Errno(libc::EPROTO))?
            }
            // Whatever mode such a guest runs in, its context is one of 64 bits.
            GuestKind::Hvm => GuestWidth::Bits64,
        };
        return_cancelled(call, domid, width)?;
    }
    let mut command = domctl(sys::XEN_DOMCTL_resumedomain, domid);
    // SAFETY: there is no handle in it.
    unsafe { perform(call, &mut command) }
}

/// Sets what the hypercall returns on vCPU 0, the one that guests suspend themselves on. It does not run meanwhile.
fn return_cancelled(call: &Arc<CallHandle>, domid: Domid, width: GuestWidth) -> CallResult<()> {
    let mut context = vcpu::context(call, domid, 0)?;
    RAX.set(width, &mut context, CANCELLED).ok_or(Errno(libc::EINVAL))?;
    vcpu::set_context(call, domid, 0, &context)
}
