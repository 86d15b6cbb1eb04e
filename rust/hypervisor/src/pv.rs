// SPDX-License-Identifier: GPL-3.0-or-later
//! The verbs that only PV guests need. For these guests the `Gfn` of all verbs is an mfn: a frame of the host.

use std::fmt;

use xenmig_types::{Domid, Gfn, PageType, VcpuPart};

use crate::{HypervisorError, M2p, Result};

/// A page table to be pinned as a type (`MMUEXT_PIN_L1_TABLE` ... `MMUEXT_PIN_L4_TABLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinOp {
    /// The frame, an mfn.
    pub frame: Gfn,
    /// A page table of one of the four levels; whether the type is a pinned one does not matter here.
    pub kind: PageType,
}

/// The verbs of PV save and restore.
///
/// # Errors
///
/// As for [`crate::Hypervisor`]; `EOPNOTSUPP` from a host that has no PV guests.
pub trait PvVerbs: fmt::Debug {
    /// Returns the width of the guest's words in bytes: 4 or 8 (`XEN_DOMCTL_get_address_size`).
    fn guest_width(&self, domid: Domid) -> Result<u8> {
        Err(unsupported("get_address_size", domid))
    }

    /// Sets the width of the guest's words in bytes, 4 or 8, of a domain without memory (`XEN_DOMCTL_set_address_size`).
    fn set_guest_width(&self, domid: Domid, _width_bytes: u8) -> Result<()> {
        Err(unsupported("set_address_size", domid))
    }

    /// Says whether a vCPU is online (`XEN_DOMCTL_getvcpuinfo`).
    fn vcpu_online(&self, domid: Domid, _vcpu: u32) -> Result<bool> {
        Err(unsupported("getvcpuinfo", domid))
    }

    /// Returns a part of a vCPU's state, empty if there is nothing of that kind. [`VcpuPart::Basic`] is at least as long as
    /// a context of the guest's width; what follows means nothing.
    fn vcpu_state(&self, domid: Domid, _vcpu: u32, _part: VcpuPart) -> Result<Vec<u8>> {
        Err(unsupported("getvcpucontext", domid))
    }

    /// Sets a part of a vCPU's state. `EINVAL` for one of a length that the part cannot have.
    fn set_vcpu_state(&self, domid: Domid, _vcpu: u32, _part: VcpuPart, _state: &[u8]) -> Result<()> {
        Err(unsupported("setvcpucontext", domid))
    }

    /// Maps the machine-to-phys table (`XENMEM_maximum_ram_page`, `XENMEM_machphys_mfn_list`).
    fn map_m2p(&self, domid: Domid) -> Result<M2p> {
        Err(unsupported("machphys_mfn_list", domid))
    }

    /// Returns the first frame of the table that 32-bit guests see (`XENMEM_machphys_compat_mfn_list`): it stands in those
    /// of their page tables in which Xen has its own mappings.
    fn compat_m2p_frame(&self, domid: Domid) -> Result<Gfn> {
        Err(unsupported("machphys_compat_mfn_list", domid))
    }

    /// Pins page tables, in order (`__HYPERVISOR_mmuext_op`), and returns how many, from the front, it has pinned. If a later
    /// one is refused, the next call, which begins with it, says why. So an error means that none was pinned, and the call
    /// can be made again. `EINVAL` if the contents of the first are not allowed, or if it is pinned.
    fn pin_tables(&self, domid: Domid, _pins: &[PinOp]) -> Result<usize> {
        Err(unsupported("mmuext_op pin", domid))
    }
}

const fn unsupported(op: &'static str, domid: Domid) -> HypervisorError {
    HypervisorError::call(op, domid, libc::EOPNOTSUPP)
}
