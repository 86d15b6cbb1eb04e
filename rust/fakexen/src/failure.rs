// SPDX-License-Identifier: GPL-3.0-or-later
//! How requests and calls fail: a message for the control interface, an errno for the Xen libraries.

use std::io;

use xenmig_hypervisor::HypervisorError;
use xenmig_sim::SimError;

/// Why a request of the control interface failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The errno.
    pub(crate) errno: i32,
    /// What happened, for people.
    pub(crate) message: String,
}

impl Failure {
    /// The request makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { errno: libc::EINVAL, message: message.into() }
    }

    /// There is no such domain.
    pub(crate) fn no_domain(domid: impl std::fmt::Display) -> Self {
        Self { errno: libc::ESRCH, message: format!("there is no domain {domid}") }
    }

    /// The operating system refused something.
    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(libc::EIO), message: format!("{what}: {error}") }
    }
}

impl From<SimError> for Failure {
    fn from(error: SimError) -> Self {
        Self { errno: error.errno().map_or(libc::ENODEV, |errno| errno.0), message: error.to_string() }
    }
}

impl From<HypervisorError> for Failure {
    fn from(error: HypervisorError) -> Self {
        Self { errno: errno(&error), message: error.to_string() }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

/// Returns the errno of a simulated domain's refusal.
fn errno(error: &HypervisorError) -> i32 {
    error.errno().map_or(libc::ENODEV, |errno| errno.0)
}

/// Returns a verb's result with the errno of its failure.
pub(crate) fn verb<T>(result: Result<T, HypervisorError>) -> Result<T, i32> {
    result.map_err(|error| errno(&error))
}
