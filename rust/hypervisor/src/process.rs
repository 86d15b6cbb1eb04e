// SPDX-License-Identifier: GPL-3.0-or-later
//! Which process a host was opened in: mappings and threads do not follow a fork.

use crate::{HypervisorError, Result};

/// The process that opened a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    /// Returns the calling process.
    #[must_use]
    pub fn current() -> Self {
        Self(std::process::id())
    }

    /// Refuses a verb in any other process.
    ///
    /// # Errors
    ///
    /// [`HypervisorError::Forked`] in a child of the process that opened the host.
    pub fn check(self, op: &'static str) -> Result<()> {
        if self == Self::current() { Ok(()) } else { Err(HypervisorError::Forked { op }) }
    }
}
