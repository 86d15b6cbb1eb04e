// SPDX-License-Identifier: GPL-3.0-or-later
//! The life of a simulated domain: running, paused, suspended, destroyed.
//!
//! ```text
//! created ──> Running <── pause / unpause ──> Paused <── created empty
//!                │ ^                             │
//!        suspend │ │ resume                      │ destroy, from everywhere
//!                v │                             v
//!          Shutdown { reason: 2 } ───────────> Dying
//! ```

use xenmig_types::DomainState;

/// Whether a domain's vCPUs may run. The gate is closed once exactly as long as they may not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) paused: bool,
    pub(super) shutdown: Option<u8>,
    pub(super) dying: bool,
}

impl Life {
    /// Begins the life of a domain.
    pub(super) const fn new(paused: bool) -> Self {
        Self { paused, shutdown: None, dying: false }
    }

    /// Returns the state in Xen's words.
    pub(super) fn state(&self) -> DomainState {
        match self.shutdown {
            _ if self.dying => DomainState::Dying,
            Some(reason) => DomainState::Shutdown { reason },
            None if self.paused => DomainState::Paused,
            None => DomainState::Running,
        }
    }
}
