// SPDX-License-Identifier: GPL-3.0-or-later
//! `XEN_DOMCTL_{get,set}_address_size`: the width of a PV guest's words. Xen counts it in bits.

use std::sync::Arc;

use xenctrl_sys as sys;
use xenmig_hypervisor::Errno;
use xenmig_types::Domid;

use crate::{
    call::CallHandle,
    domctl::{domctl, perform},
    error::CallResult,
};

const BITS_PER_BYTE: u32 = 8;

/// Returns the width in bytes. `EPROTO` for one that is no number of bytes.
pub(super) fn get(call: &Arc<CallHandle>, domid: Domid) -> CallResult<u8> {
    let mut query = domctl(sys::XEN_DOMCTL_get_address_size, domid);
    // SAFETY: it holds no guest handle.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid address_size.
    let answer = unsafe { query.u.address_size };
    bytes(answer.size).ok_or(Errno(libc::EPROTO))
}

/// Sets the width. `EINVAL` if it is neither 4 nor 8, or would make a 32-bit domain a 64-bit one again; `EACCES` for a
/// domain that has memory and would change.
pub(super) fn set(call: &Arc<CallHandle>, domid: Domid, width_bytes: u8) -> CallResult<()> {
    let mut command = domctl(sys::XEN_DOMCTL_set_address_size, domid);
    command.u.address_size = sys::xen_domctl_address_size { size: u32::from(width_bytes) * BITS_PER_BYTE };
    // SAFETY: it holds no guest handle.
    unsafe { perform(call, &mut command) }
}

fn bytes(bits: u32) -> Option<u8> {
    u8::try_from(bits / BITS_PER_BYTE).ok().filter(|_| bits.is_multiple_of(BITS_PER_BYTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xen_counts_in_bits() {
        assert_eq!((bytes(32), bytes(64)), (Some(4), Some(8)));
        assert_eq!((bytes(33), bytes(8 * 256)), (None, None));
    }
}
