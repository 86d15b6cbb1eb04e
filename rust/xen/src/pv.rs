// SPDX-License-Identifier: GPL-3.0-or-later
//! The verbs of PV guests.

use xenmig_hypervisor::{M2p, PinOp, PvVerbs, Result};
use xenmig_types::{Domid, Gfn, VcpuPart};

use crate::{address_size, control::ControlHandle, host::XenHost, m2p, mmuext, vcpu};

impl PvVerbs for XenHost {
    fn guest_width(&self, domid: Domid) -> Result<u8> {
        self.verb("get_address_size", domid, |host| address_size::get(&host.call, domid))
    }

    fn set_guest_width(&self, domid: Domid, width_bytes: u8) -> Result<()> {
        self.verb("set_address_size", domid, |host| address_size::set(&host.call, domid, width_bytes))
    }

    fn vcpu_online(&self, domid: Domid, vcpu: u32) -> Result<bool> {
        self.verb("getvcpuinfo", domid, |host| vcpu::online(&host.call, domid, vcpu))
    }

    fn vcpu_state(&self, domid: Domid, vcpu: u32, part: VcpuPart) -> Result<Vec<u8>> {
        let op = match part {
            VcpuPart::Basic => "getvcpucontext",
            VcpuPart::Extended => "get_ext_vcpucontext",
            VcpuPart::Xsave => "getvcpuextstate",
            VcpuPart::Msrs => "get_vcpu_msrs",
        };
        self.verb(op, domid, |host| vcpu::state(&host.call, domid, vcpu, part))
    }

    fn set_vcpu_state(&self, domid: Domid, vcpu: u32, part: VcpuPart, state: &[u8]) -> Result<()> {
        let op = match part {
            VcpuPart::Basic => "setvcpucontext",
            VcpuPart::Extended => "set_ext_vcpucontext",
            VcpuPart::Xsave => "setvcpuextstate",
            VcpuPart::Msrs => "set_vcpu_msrs",
        };
        self.verb(op, domid, |host| vcpu::set_state(&host.call, domid, vcpu, part, state))
    }

    fn map_m2p(&self, domid: Domid) -> Result<M2p> {
        let frames = self.control_verb("maximum_ram_page", domid, ControlHandle::host_frames)?;
        let extents = self.verb("machphys_mfn_list", domid, |host| m2p::extents(&host.call, frames))?;
        self.verb("mapping of the machine-to-phys table", domid, |host| {
            m2p::map(&host.foreign, &extents, frames)
        })
    }

    fn compat_m2p_frame(&self, domid: Domid) -> Result<Gfn> {
        self.verb("machphys_compat_mfn_list", domid, |host| m2p::compat_frame(&host.call))
    }

    fn pin_tables(&self, domid: Domid, pins: &[PinOp]) -> Result<usize> {
        self.verb("mmuext_op pin", domid, |host| mmuext::pin(&host.call, domid, pins))
    }
}
