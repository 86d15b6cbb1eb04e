// SPDX-License-Identifier: GPL-3.0-or-later
//! The grants by which xenstore and the console's domain map the pages that they share with the guest. Where these pages are
//! is the guest's to say: in parameters (hvm.rs) or in start info (pv/start_info.rs).

use xenmig_hypervisor::{ReservedEntry, ReservedGrant};
use xenmig_types::Gfn;

use super::{
    channels::{Channel, Channels},
    error::RestoreError,
    ops::SharedFrames,
    target::Target,
};

/// Grants the shared pages to the domains at the other ends of the channels. A domain needs no grant for its own pages.
pub(super) fn grant(
    channels: &Channels,
    target: &Target<'_>,
    frames: SharedFrames,
) -> Result<(), RestoreError> {
    let domid = target.domid();
    let grant = |entry, gfn: Option<Gfn>, channel: Channel| {
        let grant = ReservedGrant { entry, backend: channel.domid, gfn: gfn? };
        (channel.domid != domid).then_some(grant)
    };
    let console = grant(ReservedEntry::Console, frames.console, channels.console);
    let store = grant(ReservedEntry::Xenstore, frames.store, channels.store);
    let grants: Vec<_> = console.into_iter().chain(store).collect();
    if let Some(grant) = grants.iter().find(|grant| u32::try_from(grant.gfn.0).is_err()) {
        return Err(RestoreError::NoGrant { domid, gfn: grant.gfn });
    }
    if grants.is_empty() {
        return Ok(());
    }
    target.call(|host, domid| host.seed_grants(domid, &grants))
}
