// SPDX-License-Identifier: GPL-3.0-or-later
//! Which Xen this build is for. libxenctrl and the domctls have no stable binary interface: what was compiled in from
//! the headers fits the versions that share it, and no other.
//!
//! The headers do not say their own version. (`__XEN_LATEST_INTERFACE_VERSION__` is no such thing: it still says 4.14
//! in 4.17 and 4.18, and 4.19 from then on.) But they have the versions of the two interfaces, which Xen checks on
//! each call, and these name the release, except for 4.19 and 4.20, which share both. The prototypes used here
//! did not change in any of these releases.

use std::mem::{offset_of, size_of};

use xenctrl_sys as sys;
use xenmig_types::XenVersion;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("the feature `xen` is for Linux on x86-64: it relies on the layout of Xen's structures there");

/// What a set of headers is good for: the minor versions of Xen 4, and how to say them.
const BUILD: (&[u16], &str) = match (sys::XEN_DOMCTL_INTERFACE_VERSION, sys::XEN_SYSCTL_INTERFACE_VERSION) {
    (0x15, 0x15) => (&[17], "4.17"),
    (0x16, 0x15) => (&[18], "4.18"),
    (0x17, 0x15) => (&[19, 20], "4.19 or 4.20"),
    (0x17, 0x16) => (&[21], "4.21"),
    (0x18, 0x16) => (&[22], "4.22"),
    _ => (&[], ""),
};

const _: () =
    assert!(!BUILD.0.is_empty(), "the installed Xen headers are of a version other than 4.17 to 4.22");

/// The Xen that this build is for, in words.
pub(super) const BUILT_FOR: &str = BUILD.1;

/// Says whether this build is for that Xen.
pub(super) fn fits(running: XenVersion) -> bool {
    running.major == 4 && BUILD.0.contains(&running.minor)
}

/// Returns the name of that Xen's libxenctrl.
pub(super) fn control_soname(running: XenVersion) -> String {
    format!("libxenctrl.so.{}.{}", running.major, running.minor)
}

/// Takes the answer of `XENVER_version` apart.
pub(super) const fn version(answer: u32) -> XenVersion {
    #[expect(clippy::cast_possible_truncation, reason = "each half is 16 bits wide")]
    XenVersion { major: (answer >> 16) as u16, minor: answer as u16 }
}

/// Bytes in a page of hypercall memory.
pub(super) const HYPERCALL_PAGE_BYTES: usize = 4096;

// The structures as Xen lays them out for a 64-bit caller: a wrong reading of the headers does not compile.
const _: () = {
    assert!(offset_of!(sys::xen_domctl, interface_version) == 4);
    assert!(offset_of!(sys::xen_domctl, domain) == 8);
    assert!(offset_of!(sys::xen_domctl, u) == 16);
    assert!(size_of::<sys::xen_domctl>() >= 16 + 128 && size_of::<sys::xen_domctl>() <= HYPERCALL_PAGE_BYTES);

    assert!(offset_of!(sys::xen_domctl_getdomaininfo, flags) == 4);
    assert!(offset_of!(sys::xen_domctl_getdomaininfo, tot_pages) == 8);
    assert!(offset_of!(sys::xen_domctl_getdomaininfo, max_pages) == 16);
    assert!(offset_of!(sys::xen_domctl_getdomaininfo, shared_info_frame) == 48);
    assert!(offset_of!(sys::xen_domctl_getdomaininfo, max_vcpu_id) == 68);

    assert!(offset_of!(sys::xen_domctl_shadow_op, mode) == 4);
    assert!(offset_of!(sys::xen_domctl_shadow_op, dirty_bitmap) == 16);
    assert!(offset_of!(sys::xen_domctl_shadow_op, pages) == 24);
    assert!(offset_of!(sys::xen_domctl_shadow_op, stats) == 32);
    assert!(size_of::<sys::xen_domctl_shadow_op>() == 40);

    assert!(offset_of!(sys::xen_domctl_getpageframeinfo3, array) == 8);
    assert!(size_of::<sys::xen_pfn_t>() == 8);

    assert!(offset_of!(sys::xen_domctl_cpu_policy, leaves) == 8);
    assert!(offset_of!(sys::xen_domctl_cpu_policy, msrs) == 16);
    assert!(offset_of!(sys::xen_domctl_cpu_policy, err_leaf) == 24);
    assert!(size_of::<sys::xen_cpuid_leaf_t>() == xenmig_types::CpuPolicy::CPUID_LEAF_BYTES);
    assert!(size_of::<sys::xen_msr_entry_t>() == xenmig_types::CpuPolicy::MSR_ENTRY_BYTES);

    assert!(offset_of!(sys::xen_domctl_getvcpuinfo, online) == 4);
    assert!(offset_of!(sys::xen_domctl_vcpucontext, ctxt) == 8);
    assert!(offset_of!(sys::xen_domctl_ext_vcpucontext, vcpu) == 0);
    assert!(offset_of!(sys::xen_domctl_ext_vcpucontext, size) == 4);
    assert!(offset_of!(sys::xen_domctl_vcpuextstate, xfeature_mask) == 8);
    assert!(offset_of!(sys::xen_domctl_vcpuextstate, size) == 16);
    assert!(offset_of!(sys::xen_domctl_vcpuextstate, buffer) == 24);
    assert!(offset_of!(sys::xen_domctl_vcpu_msrs, msr_count) == 4);
    assert!(offset_of!(sys::xen_domctl_vcpu_msrs, msrs) == 8);
    assert!(size_of::<sys::xen_domctl_vcpu_msr>() == 16);

    assert!(offset_of!(sys::xen_machphys_mfn_list, extent_start) == 8);
    assert!(offset_of!(sys::xen_machphys_mfn_list, nr_extents) == 16);
    // A mmuext_op is put together from words.
    assert!(offset_of!(sys::mmuext_op, cmd) == 0 && size_of::<std::ffi::c_uint>() == 4);
    assert!(offset_of!(sys::mmuext_op, arg1.mfn) == 8 && offset_of!(sys::mmuext_op, arg2) == 16);
    assert!(size_of::<sys::mmuext_op>() == 24);

    assert!(offset_of!(sys::xen_sysctl, u) == 8);
    assert!(offset_of!(sys::xen_sysctl_cpu_policy, nr_leaves) == 4);
    assert!(offset_of!(sys::xen_sysctl_cpu_policy, leaves) == 16);
    assert!(offset_of!(sys::xen_sysctl_cpu_policy, msrs) == 24);
    assert!(size_of::<sys::xen_sysctl>() >= 8 + 128 && size_of::<sys::xen_sysctl>() <= HYPERCALL_PAGE_BYTES);
};
