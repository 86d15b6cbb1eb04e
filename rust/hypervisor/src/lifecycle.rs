// SPDX-License-Identifier: GPL-3.0-or-later
//! What a toolstack asks of a host besides the engine's verbs. The engine has callbacks for this, and does not know
//! how they do it.

use xenmig_types::Domid;

use crate::{Hypervisor, Result};

/// Suspending a guest and letting it go on, the hypervisor's part of it.
pub trait Lifecycle: Hypervisor {
    /// Says whether a guest has PV drivers, as every PV guest has. It can be asked to suspend itself then.
    ///
    /// # Errors
    ///
    /// As for [`Hypervisor`].
    fn has_pv_drivers(&self, domid: Domid) -> Result<bool>;

    /// Suspends a guest without asking it: right for an HVM guest without PV drivers. One with drivers must be asked, so
    /// that they are at rest when it happens; a PV guest moreover says only then where its start info page is.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a PV guest; else as for [`Hypervisor`].
    fn suspend(&self, domid: Domid) -> Result<()>;

    /// Lets a suspended guest go on in this domain. Its drivers learn that the suspension was cancelled.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the guest is not suspended; else as for [`Hypervisor`].
    fn resume(&self, domid: Domid) -> Result<()>;
}
