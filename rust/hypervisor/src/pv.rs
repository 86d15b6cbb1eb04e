// SPDX-License-Identifier: GPL-3.0-or-later
//! The verbs that only PV guests need. A host without PV guests implements none of them.

use std::fmt;

use xenmig_types::{Domid, Gfn, PageType};

use crate::{ForeignPages, HypervisorError, Result};

/// Which part of a vCPU's state a record holds; the accessor hypercalls differ, the shape does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuRecord {
    /// `XEN_DOMCTL_{get,set}vcpucontext`.
    Basic,
    /// `XEN_DOMCTL_{get,set}_ext_vcpucontext`.
    Extended,
    /// `XEN_DOMCTL_{get,set}vcpuextstate`.
    Xsave,
    /// `XEN_DOMCTL_{get,set}_vcpu_msrs`.
    Msrs,
}

/// A page table to be pinned as a type (`MMUEXT_PIN_L1_TABLE` ... `MMUEXT_PIN_L4_TABLE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinOp {
    /// The frame, an mfn.
    pub frame: Gfn,
    /// One of the four pinned types.
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

    /// Returns one record of a vCPU's state; `None` if the vCPU is offline.
    fn vcpu_record(&self, domid: Domid, _vcpu: u32, _record: VcpuRecord) -> Result<Option<Vec<u8>>> {
        Err(unsupported("getvcpucontext", domid))
    }

    /// Sets one record of a vCPU's state.
    fn set_vcpu_record(&self, domid: Domid, _vcpu: u32, _record: VcpuRecord, _state: &[u8]) -> Result<()> {
        Err(unsupported("setvcpucontext", domid))
    }

    /// Maps the machine-to-phys table (`XENMEM_machphys_mfn_list`), read-only.
    fn map_m2p(&self, domid: Domid) -> Result<ForeignPages> {
        Err(unsupported("machphys_mfn_list", domid))
    }

    /// Pins page tables, in order.
    fn pin_tables(&self, domid: Domid, _pins: &[PinOp]) -> Result<()> {
        Err(unsupported("mmuext_op pin", domid))
    }
}

const fn unsupported(op: &'static str, domid: Domid) -> HypervisorError {
    HypervisorError::call(op, domid, libc::EOPNOTSUPP)
}
