// SPDX-License-Identifier: GPL-3.0-or-later
//! The shared info page. It is Xen's own, and the new domain already has one.

use xenmig_hypervisor::{Access, Errno, HypervisorError};
use xenmig_types::{
    Gfn,
    pv::{GuestWidth, shared_info},
};

use super::{
    super::{error::RestoreError, mapped_pages::ZEROES, target::Target},
    fields::put,
};

/// `EFAULT` of Linux.
const EFAULT: Errno = Errno(14);

/// Puts the vCPUs' and the architecture's part of the saved page into the new domain's, which is at `frame`. The guest's
/// event channels are gone, and so is the tree of its p2m, which the guest makes anew. Everything else, the clock among it,
/// is the new domain's.
pub(super) fn load(
    target: &Target<'_>,
    frame: Gfn,
    width: GuestWidth,
    saved: &[u8],
) -> Result<(), RestoreError> {
    let mapped = target.call(|host, domid| host.map(domid, &[frame], Access::Write))?;
    let copied = |copied: bool| {
        let Errno(errno) = mapped.error(0).unwrap_or(EFAULT);
        let error = HypervisorError::call("mapping the shared info page", target.domid(), errno);
        if copied { Ok(()) } else { Err(error) }
    };
    let mut page = ZEROES;
    copied(mapped.copy_out(0, &mut page))?;
    for part in [shared_info::VCPU_INFO, shared_info::arch(width)] {
        if let (Some(to), Some(from)) = (page.get_mut(part.clone()), saved.get(part)) {
            to.copy_from_slice(from);
        }
    }
    put(shared_info::FRAME_LIST_LIST, width, &mut page, 0)?;
    for vcpu in 0..shared_info::VCPUS {
        let words = shared_info::VCPU_INFO_BYTES / usize::from(width.bytes());
        put(shared_info::PENDING_SELECTOR.at(vcpu * words), width, &mut page, 0)?;
    }
    for (channels, byte) in [(shared_info::pending(width), 0), (shared_info::mask(width), 0xff)] {
        if let Some(channels) = page.get_mut(channels) {
            channels.fill(byte);
        }
    }
    Ok(copied(mapped.copy_in(0, &page))?)
}
