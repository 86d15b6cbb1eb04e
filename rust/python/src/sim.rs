// SPDX-License-Identifier: GPL-3.0-or-later
//! The simulated host as Python sees it: `SimHost` makes `SimDomain`s, which live in this process.

mod domain;
mod fault;
mod handle;
mod observed;
mod pv;
mod sim_host;
mod workload;

use pyo3::prelude::*;
use xenmig_hypervisor::Errno;
use xenmig_sim::SimError;

pub(crate) use self::{handle::PySimDomain, sim_host::PySimHost};
use crate::errors::{self, Aftermath, Raise};

/// The number that `errno.h` gives it on Linux.
const ESRCH: i32 = 3;

impl Raise for SimError {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Hypervisor(error) => errors::hypervisor(py, &error, Aftermath::default()),
            // As Xen says it, so that a toolstack needs one handler for both hosts.
            Self::NoSuchDomain { domid } => {
                let (errno, message) = (Errno(ESRCH), self.to_string());
                errors::hypercall(py, "getdomaininfo", domid, errno, message, Aftermath::default())
            }
            error => errors::plain(py, "SimError", &error.to_string(), Aftermath::default()),
        }
    }
}
