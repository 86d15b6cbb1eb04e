// SPDX-License-Identifier: GPL-3.0-or-later
//! The verbs of PV guests: width, vCPU state and pins.

use xenmig_hypervisor::{PinOp, PvVerbs, Result};
use xenmig_types::{Domid, VcpuPart};

use super::{Call, EINVAL, MAX_VCPU_ID, PvHost, name};

impl PvVerbs for PvHost {
    fn guest_width(&self, _domid: Domid) -> Result<u8> {
        Ok(self.enter("guest_width")?.width)
    }

    fn set_guest_width(&self, _domid: Domid, width_bytes: u8) -> Result<()> {
        let mut state = self.enter("set_guest_width")?;
        self.require(state.given == 0, "set_guest_width", EINVAL)?;
        state.width = width_bytes;
        state.calls.push(Call::Width(width_bytes));
        Ok(())
    }

    fn set_vcpu_state(&self, _domid: Domid, vcpu: u32, part: VcpuPart, bytes: &[u8]) -> Result<()> {
        let mut state = self.enter("set_vcpu_state")?;
        let valid = part != VcpuPart::Basic || self.check_context(&mut state, bytes);
        self.require(valid && vcpu <= MAX_VCPU_ID, "set_vcpu_state", EINVAL)?;
        state.vcpus.insert((vcpu, name(part)), bytes.to_vec());
        state.calls.push(Call::Vcpu(vcpu, part));
        Ok(())
    }

    fn pin_tables(&self, _domid: Domid, pins: &[PinOp]) -> Result<usize> {
        let mut state = self.enter("pin_tables")?;
        let pins = &pins[..pins.len().min(state.pins_per_call.unwrap_or(usize::MAX))];
        for pin in pins {
            state.strays += u32::from(!state.m2p.contains_key(&pin.frame.0));
            let valid = self.use_table(&mut state, pin.frame.0, pin.kind.number() & 7);
            let valid = state.pinned.insert(pin.frame.0) && valid;
            self.require(valid, "pin_tables", EINVAL)?;
        }
        state.calls.push(Call::Pin(pins.iter().map(|pin| pin.frame.0).collect()));
        Ok(pins.len())
    }
}
