// SPDX-License-Identifier: GPL-3.0-or-later
//! What a domain is called, what state it is in, and the opaque pieces of its state.

use std::fmt;

/// A domain's number. Domains made by a toolstack have numbers below `DOMID_FIRST_RESERVED` (`public/xen.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domid(u16);

impl Domid {
    /// `DOMID_FIRST_RESERVED`: from here on numbers have a special meaning and name no domain.
    pub const FIRST_RESERVED: u16 = 0x7ff0;

    /// Checks a number that came from outside.
    ///
    /// # Errors
    ///
    /// [`InvalidDomid`] if the number is negative or reserved.
    pub fn new(number: i64) -> Result<Self, InvalidDomid> {
        match u16::try_from(number) {
            Ok(id) if id < Self::FIRST_RESERVED => Ok(Self(id)),
            _ => Err(InvalidDomid(number)),
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Domid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// A number that cannot be a domain's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDomid(pub i64);

impl fmt::Display for InvalidDomid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no domid: domains have numbers from 0 to {}", self.0, Domid::FIRST_RESERVED - 1)
    }
}

impl std::error::Error for InvalidDomid {}

/// How a guest is virtualised; decides the records of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKind {
    /// Paravirtualised: page tables hold mfns and are rewritten in the stream.
    Pv,
    /// Hardware-assisted: HVM and PVH, which the hypervisor does not tell apart.
    Hvm,
}

/// What a domain is doing, from the flags of `XEN_DOMCTL_getdomaininfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// Its vCPUs may run.
    Running,
    /// Paused by a toolstack; it has not shut down.
    Paused,
    /// Shut down, with the `SHUTDOWN_*` reason of `public/sched.h`; 2 is *suspend*.
    Shutdown {
        /// The reason's number.
        reason: u8,
    },
    /// On its way out.
    Dying,
}

impl DomainState {
    /// `SHUTDOWN_suspend` of `public/sched.h`.
    pub const SHUTDOWN_SUSPEND: u8 = 2;

    /// Says whether the domain has suspended itself and waits to be saved or resumed.
    #[must_use]
    pub const fn is_suspended(self) -> bool {
        matches!(self, Self::Shutdown { reason: Self::SHUTDOWN_SUSPEND })
    }
}

/// What the engine needs of `XEN_DOMCTL_getdomaininfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// The domain that was really found.
    pub domid: Domid,
    /// PV or HVM/PVH.
    pub kind: GuestKind,
    /// Running, paused, shut down or dying.
    pub state: DomainState,
    /// Pages the domain has now.
    pub total_pages: u64,
    /// Pages the domain may have at most.
    pub max_pages: u64,
    /// Number of the highest vCPU.
    pub max_vcpu_id: u32,
    /// Where the shared info page is, as an mfn; a PV save maps it.
    pub shared_info_frame: u64,
}

/// `XENVER_version`: the running hypervisor's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XenVersion {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

/// A domain's TSC settings: the arguments of `XEN_DOMCTL_{get,set}tscinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TscInfo {
    /// `TSC_MODE_*`.
    pub mode: u32,
    /// TSC frequency in kHz.
    pub khz: u32,
    /// Elapsed guest time in nanoseconds.
    pub elapsed_ns: u64,
    /// How often the domain was saved and restored.
    pub incarnation: u32,
}

/// A domain's CPU policy as `XEN_DOMCTL_{get,set}_cpu_policy` passes it: two arrays that the engine does not open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuPolicy {
    /// `xen_cpuid_leaf_t[]`; empty if there are none.
    pub cpuid: Vec<u8>,
    /// `xen_msr_entry_t[]`; empty if there are none.
    pub msrs: Vec<u8>,
}

impl CpuPolicy {
    /// `sizeof(xen_cpuid_leaf_t)`: six 32-bit words.
    pub const CPUID_LEAF_BYTES: usize = 24;
    /// `sizeof(xen_msr_entry_t)`.
    pub const MSR_ENTRY_BYTES: usize = 16;
}

/// Which part of a PV vCPU's state is meant. Each has accessors of its own among the domctls, and a record of its own in
/// the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VcpuPart {
    /// `XEN_DOMCTL_{get,set}vcpucontext`: registers, page tables, GDT.
    Basic,
    /// `XEN_DOMCTL_{get,set}_ext_vcpucontext`: system call and event entry points.
    Extended,
    /// `XEN_DOMCTL_{get,set}vcpuextstate`: what XSAVE saves.
    Xsave,
    /// `XEN_DOMCTL_{get,set}_vcpu_msrs`.
    Msrs,
}

impl VcpuPart {
    /// Every part, in the order in which they are sent.
    pub const ALL: [Self; 4] = [Self::Basic, Self::Extended, Self::Xsave, Self::Msrs];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_negative_numbers_are_no_domids() {
        assert_eq!(Domid::new(0x7fef).map(Domid::get), Ok(0x7fef));
        for number in [-1, 0x7ff0, 0xffff, 0x1_0000, i64::MAX] {
            assert_eq!(Domid::new(number), Err(InvalidDomid(number)));
        }
    }

    #[test]
    fn only_reason_two_is_suspended() {
        assert!(DomainState::Shutdown { reason: 2 }.is_suspended());
        assert!(!DomainState::Shutdown { reason: 0 }.is_suspended());
        assert!(!DomainState::Running.is_suspended() && !DomainState::Paused.is_suspended());
    }
}
