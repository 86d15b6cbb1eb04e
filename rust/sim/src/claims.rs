// SPDX-License-Identifier: GPL-3.0-or-later
//! Which of a simulated host's domains are being saved. All its saves run in this process.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use xenmig_hypervisor::{ClaimError, Held, Holder, SaveClaim};
use xenmig_types::Domid;

use crate::gate::lock;

/// The claimed domains. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(Arc<Mutex<BTreeSet<Domid>>>);

impl Claims {
    /// Claims a domain.
    pub(crate) fn take(&self, domid: Domid) -> Result<SaveClaim, ClaimError> {
        if lock(&self.0).insert(domid) {
            Ok(SaveClaim::new(Claimed { claims: self.clone(), domid }))
        } else {
            let holder = Holder { pid: std::process::id(), program: "xenmig" };
            Err(ClaimError::Held { domid, holder: Some(holder) })
        }
    }
}

/// A member of the set, until it is dropped.
#[derive(Debug)]
struct Claimed {
    claims: Claims,
    domid: Domid,
}

impl Held for Claimed {}

impl Drop for Claimed {
    fn drop(&mut self) {
        lock(&self.claims.0).remove(&self.domid);
    }
}
