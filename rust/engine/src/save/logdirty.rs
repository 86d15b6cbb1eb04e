// SPDX-License-Identifier: GPL-3.0-or-later
//! Log-dirty mode, switched on for the length of a precopy and off again whatever happens.

use xenmig_hypervisor::{Hypervisor, HypervisorError, retry_while_busy};
use xenmig_types::Domid;

use super::save_error::SaveError;
use crate::guest::save_ops::{Domain, SaveWatch};

/// Log-dirty mode that was switched on here; dropping it switches it off, in a panic as well.
#[derive(Debug)]
pub(crate) struct LogDirty<'a> {
    host: &'a dyn Hypervisor,
    domid: Domid,
    armed: bool,
}

impl<'a> LogDirty<'a> {
    /// Switches log-dirty mode on. It may be on already, for VRAM tracking or from a helper that was killed: then it is
    /// switched off and on again, so that it starts clean. No other save can be using it: this one has claimed the domain.
    pub(crate) fn on(domain: Domain<'a>, watch: &mut SaveWatch<'_>) -> Result<Self, SaveError> {
        let Domain { host, domid } = domain;
        if let Err(error) = watch.retry(|| host.enable_logdirty(domid)) {
            watch.retry(|| host.disable_logdirty(domid)).map_err(|_| error)?;
            watch.retry(|| host.enable_logdirty(domid))?;
        }
        Ok(Self { host, domid, armed: true })
    }

    /// Switches log-dirty mode off, and says if that failed.
    pub(crate) fn off(mut self) -> Result<(), HypervisorError> {
        self.armed = false;
        retry_while_busy(self.host.clock(), || self.host.disable_logdirty(self.domid))
    }
}

impl Drop for LogDirty<'_> {
    fn drop(&mut self) {
        if self.armed {
            // The panic that is under way matters more than what this returns.
            let _ = retry_while_busy(self.host.clock(), || self.host.disable_logdirty(self.domid));
        }
    }
}
