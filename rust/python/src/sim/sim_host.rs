// SPDX-License-Identifier: GPL-3.0-or-later
//! `SimHost`: where simulated domains are made, found and destroyed.

use std::sync::Arc;

use pyo3::{prelude::*, types::PyDict};
use xenmig_hypervisor::Process;
use xenmig_sim::{DomainConfig, SimDomain, SimError, SimHost};

use super::{PySimDomain, pv, workload};
use crate::{
    args::{Count, DomidArg, count},
    detach::detached,
};

/// The embedded simulated host. Its domains live in the memory of this process and end with it; nothing of it
/// follows a fork.
#[pyclass(frozen, module = "xenmig._native", name = "SimHost")]
#[derive(Debug)]
pub(crate) struct PySimHost {
    host: SimHost,
    process: Process,
}

impl PySimHost {
    /// Returns the host for the engine.
    pub(crate) fn hypervisor(&self) -> SimHost {
        self.host.clone()
    }

    fn domain_of(&self, domain: Arc<SimDomain>) -> PySimDomain {
        PySimDomain::new(self.process, domain)
    }
}

#[pymethods]
impl PySimHost {
    #[new]
    fn new() -> Self {
        Self { host: SimHost::new(), process: Process::current() }
    }

    /// Makes a domain of ``memory`` bytes and lets it run; with ``populated=False`` it is empty and paused, to be
    /// restored into. Holes are pairs of the first pfn and the one after the last. A dictionary ``pv`` makes it a PV
    /// guest: ``width``, ``p2m``, ``spare_pfns``, ``offline_vcpus``, ``ptes_per_s``, ``tables_per_s``,
    /// ``balloons_per_s``, each of which may be missing.
    #[pyo3(signature = (
        *, memory, domid = None, vcpus = 1, workload = "idle", workload_params = None, holes = Vec::new(),
        special_pages = true, highest_pfn = None, vram_tracking = false, populated = true, seed = 0, pv = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword in Python")]
    fn create(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = count)] memory: u64,
        domid: Option<DomidArg>,
        #[pyo3(from_py_with = count)] vcpus: u64,
        workload: &str,
        workload_params: Option<&Bound<'_, PyDict>>,
        holes: Vec<(Count, Count)>,
        special_pages: bool,
        highest_pfn: Option<Count>,
        vram_tracking: bool,
        populated: bool,
        #[pyo3(from_py_with = count)] seed: u64,
        pv: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PySimDomain> {
        let config = DomainConfig {
            domid: domid.map(|domid| domid.0),
            memory_bytes: memory,
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            workload: workload::read(workload, workload_params)?,
            holes: holes.into_iter().map(|(first, end)| first.0..end.0).collect(),
            special_pages,
            highest_pfn: highest_pfn.map(|pfn| pfn.0),
            vram_tracking,
            populated,
            seed,
            pv: pv::read(pv)?,
            ..DomainConfig::default()
        };
        detached(py, || self.host.create(config)).map(|domain| self.domain_of(domain))
    }

    /// Returns a domain of this host.
    fn domain(&self, py: Python<'_>, domid: DomidArg) -> PyResult<PySimDomain> {
        detached(py, || self.host.domain(domid.0)).map(|domain| self.domain_of(domain))
    }

    /// Destroys a domain. Whoever still holds it can read its memory, until they let go of it.
    fn destroy(&self, py: Python<'_>, domid: DomidArg) -> PyResult<()> {
        detached(py, || self.host.destroy(domid.0))
    }

    /// The numbers of all domains, in order.
    #[getter]
    fn domids(&self, py: Python<'_>) -> PyResult<Vec<u16>> {
        detached(py, || {
            self.process.check("getdomaininfolist")?;
            Ok::<_, SimError>(self.host.domids().into_iter().map(|domid| domid.get()).collect())
        })
    }

    fn __repr__(&self) -> String {
        match self.process.check("repr") {
            Ok(()) => format!("<SimHost with {} domains>", self.host.domids().len()),
            Err(_) => "<SimHost of another process>".to_owned(),
        }
    }
}
