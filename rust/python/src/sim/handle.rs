// SPDX-License-Identifier: GPL-3.0-or-later
//! How a Python object holds a simulated domain, and the only way to it. Whatever takes a lock of the domain is done
//! detached from the interpreter: a fingerprint or a fill holds one for seconds.

use std::sync::Arc;

use pyo3::prelude::*;
use xenmig_hypervisor::Process;
use xenmig_sim::{SimDomain, SimError};

use crate::detach::detached;

/// A domain of a ``SimHost``.
#[pyclass(frozen, module = "xenmig._native", name = "SimDomain")]
#[derive(Debug)]
pub(crate) struct PySimDomain {
    process: Process,
    domain: Arc<SimDomain>,
}

impl PySimDomain {
    /// Makes the Python object of a domain, of which there may be several.
    pub(super) const fn new(process: Process, domain: Arc<SimDomain>) -> Self {
        Self { process, domain }
    }

    /// Does something with the domain, detached, in the process that it lives in.
    pub(super) fn with<T: Send>(
        &self,
        py: Python<'_>,
        op: &'static str,
        work: impl FnOnce(&SimDomain) -> Result<T, SimError> + Send,
    ) -> PyResult<T> {
        detached(py, || {
            self.process.check(op)?;
            work(&self.domain)
        })
    }

    /// Returns the domid.
    pub(super) fn number(&self) -> u16 {
        self.domain.domid().get()
    }

    /// Returns the domain itself, for an operation on two.
    pub(super) fn shared(&self) -> Arc<SimDomain> {
        Arc::clone(&self.domain)
    }

    /// Returns the size of the p2m.
    pub(super) fn p2m_pages(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, "maximum_gpfn", |domain| Ok(domain.p2m_pages()))
    }
}
