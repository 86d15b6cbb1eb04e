// SPDX-License-Identifier: GPL-3.0-or-later
//! Letting a suspended HVM or PVH guest go on in its domain. Sources: `public/sched.h`, `SCHEDOP_shutdown`, which returns
//! 1 to the guest if its suspension was cancelled; `public/domctl.h`.

use std::{mem::offset_of, sync::Arc};

use xenctrl_sys as sys;
use xenmig_types::{Domid, GuestKind};

use super::{
    buffer::HypercallBuffer,
    call::CallHandle,
    domain_info::domain_info,
    domctl::{domctl, perform},
    error::CallResult,
};
use crate::{BitmapMemory, Errno};

/// What `SCHEDOP_shutdown` returns when the guest was not moved, but goes on where it is.
const CANCELLED: u64 = 1;
/// Where `rax` is in a vCPU's context, in words.
const RAX: usize = (offset_of!(sys::vcpu_guest_context, user_regs)
    + offset_of!(sys::cpu_user_regs, __bindgen_anon_11))
    / size_of::<u64>();

/// Lets the guest go on. `EINVAL` if it is not suspended, `EOPNOTSUPP` for a PV guest.
///
/// `has_drivers`: the guest suspended itself, and is waiting for the hypercall to return.
pub(super) fn resume(call: &Arc<CallHandle>, domid: Domid, has_drivers: bool) -> CallResult<()> {
    let info = domain_info(call, domid)?;
    if info.kind == GuestKind::Pv {
        return Err(Errno(libc::EOPNOTSUPP));
    }
    if !info.state.is_suspended() {
        return Err(Errno(libc::EINVAL));
    }
    if has_drivers {
        return_cancelled(call, domid)?;
    }
    let mut command = domctl(sys::XEN_DOMCTL_resumedomain, domid);
    // SAFETY: there is no handle in it.
    unsafe { perform(call, &mut command) }
}

/// Sets what the hypercall returns on vCPU 0, the one that guests suspend themselves on. It does not run meanwhile.
fn return_cancelled(call: &Arc<CallHandle>, domid: Domid) -> CallResult<()> {
    let mut context = HypercallBuffer::bytes_zeroed(call, size_of::<sys::vcpu_guest_context>())?;
    vcpu_context(call, domid, sys::XEN_DOMCTL_getvcpucontext, &mut context)?;
    *context.words_mut().get_mut(RAX).ok_or(Errno(libc::EINVAL))? = CANCELLED;
    vcpu_context(call, domid, sys::XEN_DOMCTL_setvcpucontext, &mut context)
}

/// Gets or sets the context of vCPU 0. The buffer must have room for one.
fn vcpu_context(
    call: &Arc<CallHandle>,
    domid: Domid,
    command: u32,
    context: &mut HypercallBuffer,
) -> CallResult<()> {
    let mut command = domctl(command, domid);
    command.u.vcpucontext = sys::xen_domctl_vcpucontext {
        vcpu: 0,
        ctxt: sys::__guest_handle_vcpu_guest_context_t { p: context.address().cast() },
    };
    // SAFETY: the buffer has room for a context, is ours, and is borrowed exclusively.
    unsafe { perform(call, &mut command) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rax_is_the_eleventh_register() {
        // Behind the FPU's 512 bytes and the flags come r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax.
        assert_eq!(RAX, (512 + 8) / 8 + 10);
    }
}
