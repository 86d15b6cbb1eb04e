// SPDX-License-Identifier: GPL-3.0-or-later
//! How a domain is restored.

use std::time::Duration;

use super::channels::Channels;

/// How a domain is restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Populate 2 MiB superpages where a batch holds a complete run; otherwise 4 KiB pages only. PV guests always get 4 KiB
    /// pages.
    pub superpages: bool,
    /// The new domain's event channels. With them the domain is connected to its toolstack: the pages that it shares with
    /// xenstore, console and device model are granted, and emptied unless it is a PV guest. Without them its memory is
    /// exactly what was saved.
    pub channels: Option<Channels>,
    /// The least time between two [`RestoreEvent::Progress`](super::RestoreEvent::Progress) events.
    pub progress_interval: Duration,
    /// The restore fails once no byte of the stream has come for this long. `None`: it waits for ever.
    pub stall_timeout: Option<Duration>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            superpages: true,
            channels: None,
            progress_interval: Duration::from_millis(100),
            stall_timeout: None,
        }
    }
}
