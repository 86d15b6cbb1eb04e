// SPDX-License-Identifier: GPL-3.0-or-later
//! The kinds of calls that are told apart when calls are counted, traced and made to fail.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// A kind of call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        #[repr(usize)]
        pub(crate) enum Kind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl Kind {
            /// Every kind, in the order of its number.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns the name that the control interface and the trace use.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// Opening one of the devices.
    Open = "open",
    /// `mmap` on `/dev/xen/hypercall`.
    AllocBuffer = "alloc_buffer",
    /// `mmap` on `/dev/xen/privcmd`.
    Mmap = "mmap",
    /// `IOCTL_PRIVCMD_MMAPBATCH_V2` and its predecessor.
    MapBatch = "mmapbatch",
    /// `IOCTL_PRIVCMD_MMAP_RESOURCE`.
    MapResource = "mmap_resource",
    /// `multicall`; the calls in it are counted as well.
    Multicall = "multicall",
    /// `xen_version`.
    XenVersion = "xen_version",
    /// `XEN_DOMCTL_getdomaininfo`.
    GetDomainInfo = "getdomaininfo",
    /// `XEN_SYSCTL_getdomaininfolist`.
    GetDomainInfoList = "getdomaininfolist",
    /// `XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY`.
    EnableLogdirty = "shadow_enable_logdirty",
    /// `XEN_DOMCTL_SHADOW_OP_OFF`.
    ShadowOff = "shadow_off",
    /// `XEN_DOMCTL_SHADOW_OP_CLEAN` without the mode flag FINAL.
    Clean = "shadow_clean",
    /// `XEN_DOMCTL_SHADOW_OP_CLEAN` with the mode flag FINAL.
    CleanFinal = "shadow_clean_final",
    /// `XEN_DOMCTL_SHADOW_OP_PEEK`.
    Peek = "shadow_peek",
    /// `XEN_DOMCTL_gethvmcontext`.
    GetHvmContext = "gethvmcontext",
    /// `XEN_DOMCTL_sethvmcontext`.
    SetHvmContext = "sethvmcontext",
    /// `XEN_DOMCTL_gettscinfo`.
    GetTscInfo = "gettscinfo",
    /// `XEN_DOMCTL_settscinfo`.
    SetTscInfo = "settscinfo",
    /// `XEN_DOMCTL_getpageframeinfo3`.
    GetPageFrameInfo3 = "getpageframeinfo3",
    /// `XEN_DOMCTL_get_address_size`.
    GetAddressSize = "get_address_size",
    /// `XEN_DOMCTL_set_address_size`.
    SetAddressSize = "set_address_size",
    /// `XEN_DOMCTL_getvcpuinfo`.
    GetVcpuInfo = "getvcpuinfo",
    /// `XEN_DOMCTL_getvcpucontext`.
    GetVcpuContext = "getvcpucontext",
    /// `XEN_DOMCTL_setvcpucontext`.
    SetVcpuContext = "setvcpucontext",
    /// `XEN_DOMCTL_get_ext_vcpucontext`.
    GetExtVcpuContext = "get_ext_vcpucontext",
    /// `XEN_DOMCTL_set_ext_vcpucontext`.
    SetExtVcpuContext = "set_ext_vcpucontext",
    /// `XEN_DOMCTL_getvcpuextstate`.
    GetVcpuExtState = "getvcpuextstate",
    /// `XEN_DOMCTL_setvcpuextstate`.
    SetVcpuExtState = "setvcpuextstate",
    /// `XEN_DOMCTL_get_vcpu_msrs`.
    GetVcpuMsrs = "get_vcpu_msrs",
    /// `XEN_DOMCTL_set_vcpu_msrs`.
    SetVcpuMsrs = "set_vcpu_msrs",
    /// `XEN_DOMCTL_get_cpu_policy`.
    GetCpuPolicy = "get_cpu_policy",
    /// `XEN_DOMCTL_set_cpu_policy`.
    SetCpuPolicy = "set_cpu_policy",
    /// `XEN_SYSCTL_get_cpu_policy`.
    SystemCpuPolicy = "sysctl_get_cpu_policy",
    /// `XENMEM_maximum_gpfn`.
    MaximumGpfn = "maximum_gpfn",
    /// `XENMEM_maximum_ram_page`.
    MaximumRamPage = "maximum_ram_page",
    /// `XENMEM_machphys_mfn_list`.
    MachphysList = "machphys_mfn_list",
    /// `XENMEM_machphys_compat_mfn_list`.
    MachphysCompatList = "machphys_compat_mfn_list",
    /// `mmuext_op`, whatever its operations are.
    Mmuext = "mmuext_op",
    /// `XENMEM_populate_physmap`.
    PopulatePhysmap = "populate_physmap",
    /// `XENMEM_decrease_reservation`.
    DecreaseReservation = "decrease_reservation",
    /// `HVMOP_get_param`.
    GetParam = "hvm_get_param",
    /// `HVMOP_set_param`.
    SetParam = "hvm_set_param",
    /// `XEN_DOMCTL_pausedomain`.
    Pause = "pausedomain",
    /// `XEN_DOMCTL_unpausedomain`.
    Unpause = "unpausedomain",
    /// `XEN_DOMCTL_resumedomain`.
    Resume = "resumedomain",
    /// `XEN_DOMCTL_destroydomain`.
    Destroy = "destroydomain",
    /// `SCHEDOP_remote_shutdown`.
    RemoteShutdown = "remote_shutdown",
    /// What is not played here.
    Unknown = "unknown",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place_and_name() {
        for (place, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
            assert_eq!(Kind::ALL.iter().filter(|other| other.name() == kind.name()).count(), 1);
        }
    }
}
