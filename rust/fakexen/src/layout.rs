// SPDX-License-Identifier: GPL-3.0-or-later
//! The structures and numbers of the interfaces that are played here: the kernel's `privcmd.h` and Xen's
//! `public/{xen,domctl,sysctl,memory,sched,version,grant_table}.h`, `public/hvm/{hvm_op,params}.h` of Xen 4.17 on
//! x86-64. The assertions at the end hold the sizes and offsets that a C compiler finds in those headers.

use std::mem::offset_of;

/// What may be read from, and written to, a caller's memory byte for byte.
///
/// # Safety
///
/// The type is `repr(C)`, every bit pattern is a value of it, and it has no padding.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($(#[$doc:meta])* struct $name:ident, $bytes:literal { $($field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default)]
            pub(crate) struct $name {
                $(pub(crate) $field: $kind,)*
            }

            const _: () = {
                assert!(size_of::<$name>() == $bytes);
                // No padding: the fields fill the structure.
                assert!(0 $(+ size_of::<$kind>())* == $bytes);
            };

            // SAFETY: repr(C), integers and arrays of integers only, and without padding as asserted above.
            unsafe impl Plain for $name {}
        )*
    };
}

// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for i32 {}

plain! {
    /// `privcmd_hypercall_t`.
    struct Hypercall, 48 { op: u64, arg: [u64; 5], }

    /// `privcmd_mmapbatch_v2_t`.
    struct MmapBatchV2, 32 { num: u32, dom: u16, _pad: u16, addr: u64, arr: u64, err: u64, }

    /// `privcmd_mmapbatch_t`: errors are put into the top nibble of the lower half of each `arr` entry.
    struct MmapBatch, 24 { num: u32, dom: u16, _pad: u16, addr: u64, arr: u64, }

    /// `privcmd_mmap_resource_t`.
    struct MmapResource, 32 { dom: u16, _pad: u16, kind: u32, id: u32, idx: u32, num: u64, addr: u64, }

    /// `struct multicall_entry`.
    struct MulticallEntry, 64 { op: u64, result: u64, args: [u64; 6], }

    /// The front of `struct xen_domctl`; its union follows at [`DOMCTL_UNION`].
    struct DomctlHeader, 16 { cmd: u32, interface_version: u32, domain: u16, _pad: [u16; 3], }

    /// The front of `struct xen_sysctl`; its union follows at [`SYSCTL_UNION`].
    struct SysctlHeader, 8 { cmd: u32, interface_version: u32, }

    /// `struct xen_domctl_getdomaininfo`.
    struct GetDomainInfo, 112 {
        domain: u16, _pad0: u16,
        flags: u32,
        tot_pages: u64, max_pages: u64, outstanding_pages: u64, shr_pages: u64, paged_pages: u64,
        shared_info_frame: u64,
        cpu_time: u64,
        nr_online_vcpus: u32, max_vcpu_id: u32,
        ssidref: u32,
        handle: [u8; 16],
        cpupool: u32,
        gpaddr_bits: u8, _pad1: [u8; 7],
        emulation_flags: u32, misc_flags: u32,
    }

    /// `struct xen_domctl_shadow_op`.
    struct ShadowOp, 40 {
        op: u32, mode: u32, mb: u32, _pad: u32,
        dirty_bitmap: u64, pages: u64,
        fault_count: u32, dirty_count: u32,
    }

    /// `struct xen_domctl_hvmcontext`.
    struct HvmContext, 16 { size: u32, _pad: u32, buffer: u64, }

    /// `struct xen_domctl_tsc_info`.
    struct TscInfo, 24 { tsc_mode: u32, gtsc_khz: u32, incarnation: u32, pad: u32, elapsed_nsec: u64, }

    /// `struct xen_domctl_getpageframeinfo3`.
    struct GetPageFrameInfo3, 16 { num: u64, array: u64, }

    /// `struct xen_domctl_getvcpuinfo`.
    struct GetVcpuInfo, 24 {
        vcpu: u32, online: u8, blocked: u8, running: u8, _pad0: u8, cpu_time: u64, cpu: u32, _pad1: u32,
    }

    /// `struct xen_domctl_vcpucontext`.
    struct VcpuContext, 16 { vcpu: u32, _pad: u32, context: u64, }

    /// `struct xen_domctl_vcpuextstate`.
    struct VcpuExtState, 32 { vcpu: u32, _pad: u32, features: u64, size: u64, buffer: u64, }

    /// `struct xen_domctl_vcpu_msrs`.
    struct VcpuMsrs, 16 { vcpu: u32, count: u32, msrs: u64, }

    /// `struct xen_domctl_cpu_policy`.
    struct DomainCpuPolicy, 40 {
        nr_leaves: u32, nr_msrs: u32, leaves: u64, msrs: u64,
        err_leaf: u32, err_subleaf: u32, err_msr: u32, _pad: u32,
    }

    /// `struct xen_sysctl_cpu_policy`.
    struct SystemCpuPolicy, 32 { index: u32, nr_leaves: u32, nr_msrs: u32, rsvd: u32, leaves: u64, msrs: u64, }

    /// `struct xen_sysctl_getdomaininfolist`.
    struct DomainInfoList, 24 {
        first_domain: u16, _pad0: u16, max_domains: u32, buffer: u64, num_domains: u32, _pad1: u32,
    }

    /// `struct xen_memory_reservation`.
    struct MemoryReservation, 32 {
        extent_start: u64, nr_extents: u64, extent_order: u32, mem_flags: u32, domid: u16, _pad: [u16; 3],
    }

    /// `struct xen_memory_domain`, as much of it as is read.
    struct MemoryDomain, 2 { domid: u16, }

    /// `struct xen_machphys_mfn_list`.
    struct MachphysList, 24 { max_extents: u32, _pad0: u32, extent_start: u64, nr_extents: u32, _pad1: u32, }

    /// `struct mmuext_op`.
    struct MmuextOp, 24 { cmd: u32, _pad: u32, frame: u64, argument: u64, }

    /// `struct xen_hvm_param`.
    struct HvmParam, 16 { domid: u16, _pad: u16, index: u32, value: u64, }

    /// `struct sched_remote_shutdown`.
    struct RemoteShutdown, 8 { domain_id: u16, _pad: u16, reason: u32, }

    /// `xen_cpuid_leaf_t`.
    struct CpuidLeaf, 24 { leaf: u32, subleaf: u32, a: u32, b: u32, c: u32, d: u32, }

    /// `xen_msr_entry_t`.
    struct MsrEntry, 16 { idx: u32, flags: u32, val: u64, }

    /// `grant_entry_v1_t`.
    struct GrantEntry, 8 { flags: u16, domid: u16, frame: u32, }
}

/// Offset of the union in `struct xen_domctl`.
pub(crate) const DOMCTL_UNION: u64 = 16;
/// Offset of the union in `struct xen_sysctl`.
pub(crate) const SYSCTL_UNION: u64 = 8;
/// Offset of `domain` in `struct xen_domctl`.
pub(crate) const DOMCTL_DOMAIN: u64 = 8;
/// `XEN_DOMCTL_INTERFACE_VERSION` of Xen 4.17.
pub(crate) const DOMCTL_VERSION: u32 = 0x15;
/// `XEN_SYSCTL_INTERFACE_VERSION` of Xen 4.17.
pub(crate) const SYSCTL_VERSION: u32 = 0x15;
/// Bytes of that union (`pad`).
pub(crate) const DOMCTL_UNION_BYTES: usize = 128;
/// Most frames in one `getpageframeinfo3`.
pub(crate) const MAX_TYPES: usize = 1024;

/// Request codes of `/dev/xen/privcmd`: `_IOC(_IOC_NONE, 'P', nr, size)`.
pub(crate) mod ioctl {
    const fn privcmd(nr: u64, bytes: usize) -> u64 {
        (bytes as u64) << 16 | 0x5000 | nr
    }
    pub(crate) const HYPERCALL: u64 = privcmd(0, size_of::<super::Hypercall>());
    pub(crate) const MMAPBATCH: u64 = privcmd(3, size_of::<super::MmapBatch>());
    pub(crate) const MMAPBATCH_V2: u64 = privcmd(4, size_of::<super::MmapBatchV2>());
    pub(crate) const MMAP_RESOURCE: u64 = privcmd(7, size_of::<super::MmapResource>());
}

/// Numbers of hypercalls: `__HYPERVISOR_*`.
pub(crate) mod op {
    pub(crate) const MEMORY_OP: u64 = 12;
    pub(crate) const MULTICALL: u64 = 13;
    pub(crate) const XEN_VERSION: u64 = 17;
    pub(crate) const MMUEXT_OP: u64 = 26;
    pub(crate) const SCHED_OP: u64 = 29;
    pub(crate) const HVM_OP: u64 = 34;
    pub(crate) const SYSCTL: u64 = 35;
    pub(crate) const DOMCTL: u64 = 36;
}

/// `XEN_DOMCTL_*` and `XEN_SYSCTL_*`.
pub(crate) mod ctl {
    pub(crate) const DESTROYDOMAIN: u32 = 2;
    pub(crate) const PAUSEDOMAIN: u32 = 3;
    pub(crate) const UNPAUSEDOMAIN: u32 = 4;
    pub(crate) const GETDOMAININFO: u32 = 5;
    pub(crate) const SHADOW_OP: u32 = 10;
    pub(crate) const SETVCPUCONTEXT: u32 = 12;
    pub(crate) const GETVCPUCONTEXT: u32 = 13;
    pub(crate) const GETVCPUINFO: u32 = 14;
    pub(crate) const RESUMEDOMAIN: u32 = 27;
    pub(crate) const GETHVMCONTEXT: u32 = 33;
    pub(crate) const SETHVMCONTEXT: u32 = 34;
    pub(crate) const SET_ADDRESS_SIZE: u32 = 35;
    pub(crate) const GET_ADDRESS_SIZE: u32 = 36;
    pub(crate) const SET_EXT_VCPUCONTEXT: u32 = 42;
    pub(crate) const GET_EXT_VCPUCONTEXT: u32 = 43;
    pub(crate) const GETTSCINFO: u32 = 59;
    pub(crate) const SETTSCINFO: u32 = 60;
    pub(crate) const GETPAGEFRAMEINFO3: u32 = 61;
    pub(crate) const SETVCPUEXTSTATE: u32 = 62;
    pub(crate) const GETVCPUEXTSTATE: u32 = 63;
    pub(crate) const GET_VCPU_MSRS: u32 = 72;
    pub(crate) const SET_VCPU_MSRS: u32 = 73;
    pub(crate) const GET_CPU_POLICY: u32 = 82;
    pub(crate) const SET_CPU_POLICY: u32 = 83;

    pub(crate) const SYSCTL_GETDOMAININFOLIST: u32 = 6;
    pub(crate) const SYSCTL_GET_CPU_POLICY: u32 = 29;
}

/// `XEN_DOMCTL_SHADOW_OP_*`, and the one mode flag of CLEAN and PEEK.
pub(crate) mod shadow {
    pub(crate) const OFF: u32 = 0;
    pub(crate) const ENABLE_LOGDIRTY: u32 = 2;
    pub(crate) const CLEAN: u32 = 11;
    pub(crate) const PEEK: u32 = 12;
    pub(crate) const LOGDIRTY_FINAL: u32 = 1;
}

/// `XENMEM_*`.
pub(crate) mod mem {
    pub(crate) const DECREASE_RESERVATION: u64 = 1;
    pub(crate) const MAXIMUM_RAM_PAGE: u64 = 2;
    pub(crate) const MACHPHYS_MFN_LIST: u64 = 5;
    pub(crate) const POPULATE_PHYSMAP: u64 = 6;
    pub(crate) const MAXIMUM_GPFN: u64 = 14;
    pub(crate) const MACHPHYS_COMPAT_MFN_LIST: u64 = 25;
    pub(crate) const RESOURCE_GRANT_TABLE: u32 = 1;
    pub(crate) const GRANT_TABLE_ID_SHARED: u32 = 0;
}

/// `XEN_DOMINF_*`.
pub(crate) mod dominf {
    pub(crate) const DYING: u32 = 1;
    pub(crate) const HVM_GUEST: u32 = 1 << 1;
    pub(crate) const SHUTDOWN: u32 = 1 << 2;
    pub(crate) const PAUSED: u32 = 1 << 3;
    pub(crate) const BLOCKED: u32 = 1 << 4;
    pub(crate) const RUNNING: u32 = 1 << 5;
    pub(crate) const HAP: u32 = 1 << 8;
    pub(crate) const SHUTDOWN_SHIFT: u32 = 16;
}

const _: () = {
    assert!(ioctl::HYPERCALL == 0x0030_5000 && ioctl::MMAPBATCH == 0x0018_5003);
    assert!(ioctl::MMAPBATCH_V2 == 0x0020_5004 && ioctl::MMAP_RESOURCE == 0x0020_5007);
    assert!(offset_of!(DomctlHeader, domain) == 8 && DOMCTL_DOMAIN == 8);
    assert!(offset_of!(MmapBatchV2, addr) == 8 && offset_of!(MmapBatchV2, err) == 24);
    assert!(offset_of!(MmapResource, idx) == 12 && offset_of!(MmapResource, addr) == 24);
    assert!(offset_of!(GetDomainInfo, flags) == 4 && offset_of!(GetDomainInfo, shared_info_frame) == 48);
    assert!(offset_of!(GetDomainInfo, nr_online_vcpus) == 64 && offset_of!(GetDomainInfo, handle) == 76);
    assert!(
        offset_of!(GetDomainInfo, gpaddr_bits) == 96 && offset_of!(GetDomainInfo, emulation_flags) == 104
    );
    assert!(offset_of!(ShadowOp, dirty_bitmap) == 16 && offset_of!(ShadowOp, fault_count) == 32);
    assert!(offset_of!(TscInfo, incarnation) == 8 && offset_of!(TscInfo, elapsed_nsec) == 16);
    assert!(offset_of!(DomainCpuPolicy, msrs) == 16 && offset_of!(DomainCpuPolicy, err_msr) == 32);
    assert!(offset_of!(SystemCpuPolicy, nr_msrs) == 8 && offset_of!(SystemCpuPolicy, leaves) == 16);
    assert!(offset_of!(DomainInfoList, buffer) == 8 && offset_of!(DomainInfoList, num_domains) == 16);
    assert!(offset_of!(MemoryReservation, extent_order) == 16 && offset_of!(MemoryReservation, domid) == 24);
    assert!(offset_of!(GetVcpuInfo, online) == 4 && offset_of!(GetVcpuInfo, cpu_time) == 8);
    assert!(offset_of!(VcpuExtState, features) == 8 && offset_of!(VcpuExtState, buffer) == 24);
    assert!(offset_of!(VcpuContext, context) == 8 && offset_of!(VcpuMsrs, msrs) == 8);
    assert!(offset_of!(MachphysList, extent_start) == 8 && offset_of!(MachphysList, nr_extents) == 16);
    assert!(offset_of!(MmuextOp, frame) == 8);
    assert!(offset_of!(HvmParam, value) == 8 && offset_of!(RemoteShutdown, reason) == 4);
};
