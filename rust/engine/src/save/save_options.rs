// SPDX-License-Identifier: GPL-3.0-or-later
//! How a domain is saved.

use std::time::Duration;

use crate::policy::decision::ConsultMode;

/// How a domain is saved.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Send the memory while the guest runs, and suspend it for the rest. Else suspend it first.
    pub live: bool,
    /// Send the whole memory once more after it, for the receiver to compare (`XCFLAGS_DEBUG`); live saves only.
    pub verify: bool,
    /// How often the policy is asked.
    pub consult: ConsultMode,
    /// Leave out pages that are dirty again when their turn comes ([`ConsultMode::Batch`] only). It costs a PEEK of
    /// the whole bitmap every [`skip_interval`](Self::skip_interval).
    pub skip_redirtied: bool,
    /// How old the PEEK may be that [`skip_redirtied`](Self::skip_redirtied) goes by.
    pub skip_interval: Duration,
    /// The least time between two CLEANs when there was nothing to send between them.
    pub min_round: Duration,
    /// The least time between two [`Event::Progress`](crate::Event::Progress).
    pub progress_interval: Duration,
    /// How long the other end may take nothing while the guest is suspended; `None` is for ever. Then the save fails, and
    /// the guest goes on. While the guest runs, the policy is asked instead.
    pub stall_timeout: Option<Duration>,
    /// How long the other end may take nothing at any time: a timeout that the caller has set on its socket.
    pub peer_timeout: Option<Duration>,
}

impl SaveOptions {
    /// Returns how long the other end may take nothing while the guest is suspended.
    pub(crate) fn stall_limit_suspended(&self) -> Option<Duration> {
        self.stall_timeout.into_iter().chain(self.peer_timeout).min()
    }
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            live: true,
            verify: false,
            consult: ConsultMode::Round,
            skip_redirtied: false,
            skip_interval: Duration::from_millis(20),
            min_round: Duration::from_millis(50),
            progress_interval: Duration::from_millis(100),
            stall_timeout: Some(Duration::from_secs(60)),
            peer_timeout: None,
        }
    }
}
