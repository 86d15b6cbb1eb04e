// SPDX-License-Identifier: GPL-3.0-or-later
//! The event channels that connect a guest to xenstore and to its console. The toolstack allocates them in the new domain.

use xenmig_types::Domid;

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
