// SPDX-License-Identifier: GPL-3.0-or-later
//! What connects a guest to its toolstack: the event channels of xenstore and console, and the grants by which the domains
//! at their other ends map the pages that go with them.
//!
//! The toolstack allocates the channels in the new domain and names them. Where the pages are is the guest's to say: in
//! parameters (hvm.rs) or in start info (pv/start_info.rs).

use xenmig_hypervisor::{ReservedEntry, ReservedGrant};
use xenmig_types::{Domid, Gfn};

use super::{error::RestoreError, ops::SharedFrames, target::Target};

/// An event channel of the new domain, which the toolstack has allocated in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its port in the new domain.
    pub evtchn: u32,
    /// The domain at the other end, which may map the page that belongs to the channel.
    pub domid: Domid,
}

/// The event channels of a new domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// To xenstore.
    pub store: Channel,
    /// To the console.
    pub console: Channel,
}

impl Channels {
    /// Grants the shared pages to the domains at the other ends. A domain needs no grant for its own pages.
    pub(super) fn grant(&self, target: &Target<'_>, frames: SharedFrames) -> Result<(), RestoreError> {
        let domid = target.domid();
        let grant = |entry, gfn: Option<Gfn>, channel: Channel| {
            let grant = ReservedGrant { entry, backend: channel.domid, gfn: gfn? };
            (channel.domid != domid).then_some(grant)
        };
        let console = grant(ReservedEntry::Console, frames.console, self.console);
        let store = grant(ReservedEntry::Xenstore, frames.store, self.store);
        let grants: Vec<_> = console.into_iter().chain(store).collect();
        if let Some(grant) = grants.iter().find(|grant| u32::try_from(grant.gfn.0).is_err()) {
            return Err(RestoreError::NoGrant { domid, gfn: grant.gfn });
        }
        if grants.is_empty() {
            return Ok(());
        }
        target.call(|host, domid| host.seed_grants(domid, &grants))
    }
}
