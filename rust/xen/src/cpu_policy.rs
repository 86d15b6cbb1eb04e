// SPDX-License-Identifier: GPL-3.0-or-later
//! `XEN_DOMCTL_{get,set}_cpu_policy`: a domain's CPUID leaves and MSRs as Xen serialises them.
//!
//! libxc gets them by the same domctl, reads them into its own structure and writes them out again
//! (`xc_cpu_policy_serialise`) before they go into a stream. For a library and a hypervisor of one version that is the
//! identity: both use the same code, in one order, and the hypervisor's output is in that order. Two things would
//! differ. A leaf or MSR that the library does not know makes libxc fail with `ERANGE`, and is passed on here, for the
//! receiver's Xen to judge. And a hypervisor that gave leaves out of order, or beyond the highest leaf that the policy
//! itself names, would be put in order by libxc and is not here; no Xen does.

use std::{ffi::c_void, sync::Arc};

use xenctrl_sys as sys;
use xenmig_hypervisor::Errno;
use xenmig_types::{CpuPolicy, Domid};

use crate::{
    buffer::HypercallBuffer,
    call::CallHandle,
    domctl::{domctl, perform, sysctl},
    error::CallResult,
};

/// Fetches a domain's policy.
pub(super) fn get(call: &Arc<CallHandle>, domid: Domid) -> CallResult<CpuPolicy> {
    let (max_leaves, max_msrs) = sizes(call)?;
    let mut leaves = array(call, max_leaves, CpuPolicy::CPUID_LEAF_BYTES)?;
    let mut msrs = array(call, max_msrs, CpuPolicy::MSR_ENTRY_BYTES)?;
    let mut query = domctl(sys::XEN_DOMCTL_get_cpu_policy, domid);
    query.u.cpu_policy = policy(max_leaves, leaves.address(), max_msrs, msrs.address());
    // SAFETY: each array has room for as many entries as the domctl says.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid cpu_policy.
    let answer = unsafe { query.u.cpu_policy };
    Ok(CpuPolicy {
        cpuid: leaves.copy_out(bytes(answer.nr_leaves.min(max_leaves), CpuPolicy::CPUID_LEAF_BYTES)?),
        msrs: msrs.copy_out(bytes(answer.nr_msrs.min(max_msrs), CpuPolicy::MSR_ENTRY_BYTES)?),
    })
}

/// Sets a domain's policy. Like libxc, it does nothing for one that is empty.
pub(super) fn set(call: &Arc<CallHandle>, domid: Domid, wanted: &CpuPolicy) -> CallResult<()> {
    let nr_leaves = entries(&wanted.cpuid, CpuPolicy::CPUID_LEAF_BYTES)?;
    let nr_msrs = entries(&wanted.msrs, CpuPolicy::MSR_ENTRY_BYTES)?;
    if nr_leaves == 0 && nr_msrs == 0 {
        return Ok(());
    }
    let mut leaves = HypercallBuffer::bytes_zeroed(call, wanted.cpuid.len())?;
    let mut msrs = HypercallBuffer::bytes_zeroed(call, wanted.msrs.len())?;
    leaves.copy_in(&wanted.cpuid);
    msrs.copy_in(&wanted.msrs);
    let mut command = domctl(sys::XEN_DOMCTL_set_cpu_policy, domid);
    command.u.cpu_policy = policy(nr_leaves, leaves.address(), nr_msrs, msrs.address());
    // SAFETY: each array holds as many entries as the domctl says.
    unsafe { perform(call, &mut command) }
}

/// Asks how many leaves and MSRs a policy has at most.
fn sizes(call: &Arc<CallHandle>) -> CallResult<(u32, u32)> {
    let mut query = sysctl(sys::XEN_SYSCTL_get_cpu_policy);
    // SAFETY: its guest handles are null, which is how the sizes are asked for.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid cpu_policy.
    let answer = unsafe { query.u.cpu_policy };
    Ok((answer.nr_leaves, answer.nr_msrs))
}

fn policy(
    nr_leaves: u32,
    leaves: *mut c_void,
    nr_msrs: u32,
    msrs: *mut c_void,
) -> sys::xen_domctl_cpu_policy {
    sys::xen_domctl_cpu_policy {
        nr_leaves,
        nr_msrs,
        leaves: sys::__guest_handle_xen_cpuid_leaf_t { p: leaves.cast() },
        msrs: sys::__guest_handle_xen_msr_entry_t { p: msrs.cast() },
        ..Default::default()
    }
}

fn array(call: &Arc<CallHandle>, entries: u32, entry_bytes: usize) -> CallResult<HypercallBuffer> {
    HypercallBuffer::bytes_zeroed(call, bytes(entries, entry_bytes)?)
}

fn bytes(entries: u32, entry_bytes: usize) -> CallResult<usize> {
    usize::try_from(entries).ok().and_then(|n| n.checked_mul(entry_bytes)).ok_or(Errno(libc::ENOMEM))
}

/// Counts whole entries; `EINVAL` if there is a part of one.
fn entries(array: &[u8], entry_bytes: usize) -> CallResult<u32> {
    let whole = array.len().is_multiple_of(entry_bytes);
    u32::try_from(array.len() / entry_bytes).ok().filter(|_| whole).ok_or(Errno(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_entry_is_refused() {
        assert_eq!(entries(&[0; 48], 24), Ok(2));
        assert_eq!(entries(&[], 24), Ok(0));
        assert_eq!(entries(&[0; 47], 24), Err(Errno(libc::EINVAL)));
    }
}
