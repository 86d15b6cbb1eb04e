// SPDX-License-Identifier: GPL-3.0-or-later
//! The right to save a domain, which one save holds at a time.
//!
//! Two saves of one domain share its log-dirty bitmap: what one of them takes out of it, the other never sees, and its
//! image is stale without an error. So a save claims its domain before it touches anything, and a second save is
//! refused at once.

use std::{fmt, path::PathBuf};

use xenmig_types::Domid;

use crate::HypervisorError;

/// A domain that was claimed for one save. Dropping it releases the domain.
#[must_use = "the domain is released when this is dropped"]
pub struct SaveClaim(Box<dyn Held>);

/// What stands behind a [`SaveClaim`]: dropping it releases the domain.
pub trait Held: Send {
    /// As [`SaveClaim::check`]. A host whose claims no save can bypass has nothing to look for.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Bypassed`].
    fn check(&self) -> Result<(), ClaimError> {
        Ok(())
    }
}

impl SaveClaim {
    /// Makes a claim.
    pub fn new(held: impl Held + 'static) -> Self {
        Self(Box::new(held))
    }

    /// Looks whether a program that takes no claims has begun to save the domain as well. This takes about a millisecond.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Bypassed`] if one has.
    pub fn check(&self) -> Result<(), ClaimError> {
        self.0.check()
    }
}

impl fmt::Debug for SaveClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveClaim").finish_non_exhaustive()
    }
}

/// The process that is saving a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// What it is: `xenmig` or `libxl-save-helper`.
    pub program: &'static str,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, program } = self;
        if *pid == std::process::id() {
            write!(f, "in this process")
        } else {
            write!(f, "by {program}, process {pid}")
        }
    }
}

/// Why a domain cannot be claimed for a save. None of these is worth retrying at once.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another save of the domain is under way.
    #[error(
        "domain {domid} is already being saved{}: wait for that save to end, or end it first",
        .holder.as_ref().map(|holder| format!(" {holder}")).unwrap_or_default()
    )]
    Held {
        /// The domain.
        domid: Domid,
        /// Who is saving it, if that is known.
        holder: Option<Holder>,
    },
    /// A program that takes no claims began to save the domain when it was claimed already. Each took pages out of the
    /// log-dirty bitmap that the other then missed.
    #[error(
        "during this save, domain {domid} was also saved {holder}: neither image is complete, so discard both and \
         save the domain again"
    )]
    Bypassed {
        /// The domain.
        domid: Domid,
        /// Who has begun to save it.
        holder: Holder,
    },
    /// The file that stands for the claim cannot be locked, so another save would go unnoticed.
    #[error("domain {domid} cannot be claimed for a save: {}: {why}", .path.display())]
    Unlockable {
        /// The domain.
        domid: Domid,
        /// The file or directory that is at fault.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        why: String,
    },
    /// The host was opened in another process.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}
