// SPDX-License-Identifier: GPL-3.0-or-later
//! `SimDomain`: what Python can do with one simulated domain.

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{IntoPyDict, PyBytes, PyDict},
};
use xenmig_hypervisor::{MachineClock, PageBuffer, retry_while_busy};
use xenmig_sim::SimDomain;
use xenmig_types::{PAGE_SIZE, Pfn};

use super::{PySimDomain, fault, observed, workload};
use crate::{
    args::{Count, Fd, count},
    endpoint::Image,
};

#[pymethods]
impl PySimDomain {
    /// The domain's number.
    #[getter]
    fn domid(&self) -> u16 {
        self.number()
    }

    /// What the domain is doing: ``"running"``, ``"paused"`` by its owner, ``"suspended"`` by itself, ``"shutdown"``
    /// for another reason, or ``"dying"``.
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.with(py, "getdomaininfo", |domain| Ok(observed::state(domain.state())))
    }

    /// Size of the p2m in pages, holes included.
    #[getter]
    fn p2m_size(&self, py: Python<'_>) -> PyResult<u64> {
        self.p2m_pages(py)
    }

    /// Pages that the domain has now.
    #[getter]
    fn pages_populated(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, "getdomaininfo", |domain| Ok(domain.populated_pages()))
    }

    /// Pages that its vCPUs wrote so far, a page as often as it was written.
    #[getter]
    fn pages_written(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, "pages_written", |domain| Ok(domain.writes()))
    }

    /// Whether log-dirty mode is on, whoever turned it on.
    #[getter]
    fn logdirty(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, "logdirty", |domain| Ok(domain.counters().logdirty_on))
    }

    /// How often each verb was called, under the names that ``inject`` takes, and what came of it: ``maps``,
    /// ``unmaps``, ``mappings_now``, ``mapped_pages``, ``mapped_pages_now``, ``populated_pages``,
    /// ``populated_superpages``, and the nanoseconds for which CLEAN and PEEK stopped the vCPUs, ``logdirty_pause_ns``,
    /// and CLEAN alone, ``clean_ns``.
    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.with(py, "counters", |domain| Ok(domain.counters()))?;
        observed::named(&counters).into_py_dict(py)
    }

    /// Lets the guest suspend itself; returns when its vCPUs have stopped.
    fn suspend(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, "suspend", |domain| retry_while_busy(&MachineClock, || domain.suspend()))
    }

    /// Lets the guest run again after a suspension, or for the first time after a restore.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, "resume", |domain| retry_while_busy(&MachineClock, || domain.resume()))
    }

    /// Stops the vCPUs without the guest's knowing.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, "pause", SimDomain::pause)
    }

    /// Undoes ``pause``, or starts a domain that was restored.
    fn unpause(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, "unpause", SimDomain::unpause)
    }

    /// Returns the 4096 bytes of a page. While the domain runs they may be torn between two writes.
    fn read_page<'py>(&self, py: Python<'py>, pfn: Count) -> PyResult<Bound<'py, PyBytes>> {
        let mut page: PageBuffer = [0; PAGE_SIZE];
        self.with(py, "read_page", |domain| domain.read_page(Pfn(pfn.0), &mut page))?;
        Ok(PyBytes::new(py, &page))
    }

    /// Writes the 4096 bytes of a page as the guest would: it becomes dirty.
    fn write_page(&self, py: Python<'_>, pfn: Count, contents: &[u8]) -> PyResult<()> {
        let page: &PageBuffer = contents.try_into().map_err(|_| {
            PyValueError::new_err(format!("contents has {} bytes: a page has {PAGE_SIZE}", contents.len()))
        })?;
        self.with(py, "write_page", |domain| domain.write_page(Pfn(pfn.0), page))
    }

    /// Says whether the domain has a page at this pfn.
    fn is_populated(&self, py: Python<'_>, pfn: Count) -> PyResult<bool> {
        self.with(py, "is_populated", |domain| Ok(domain.is_populated(Pfn(pfn.0))))
    }

    /// Takes a page away from the domain, as its balloon driver does.
    fn balloon_out(&self, py: Python<'_>, pfn: Count) -> PyResult<()> {
        self.with(py, "balloon_out", |domain| domain.balloon_out(Pfn(pfn.0)))
    }

    /// Gives the domain a page where it has none. The page may hold anything.
    fn balloon_in(&self, py: Python<'_>, pfn: Count) -> PyResult<()> {
        self.with(py, "balloon_in", |domain| domain.balloon_in(Pfn(pfn.0)))
    }

    /// Gives the vCPUs something else to do. See ``SimHost.create`` for the workloads.
    #[pyo3(signature = (workload, workload_params = None))]
    fn set_workload(
        &self,
        py: Python<'_>,
        workload: &str,
        workload_params: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let workload = workload::read(workload, workload_params)?;
        self.with(py, "set_workload", |domain| domain.set_workload(workload))
    }

    /// Fills RAM with what a file descriptor brings, from pfn 0 upward, and returns how many bytes that were.
    fn load_image(&self, py: Python<'_>, fd: Fd) -> PyResult<u64> {
        let mut image = Image::new(py, fd)?;
        let loaded = self.with(py, "load_image", |domain| domain.load_image(&mut image));
        image.interruption(py).map_or(loaded, Err)
    }

    /// Fills all pages but the special ones with bytes that depend on ``seed`` and the pfn alone.
    #[pyo3(signature = (seed = 0))]
    fn fill(&self, py: Python<'_>, #[pyo3(from_py_with = count)] seed: u64) -> PyResult<()> {
        self.with(py, "fill", |domain| {
            domain.fill(seed);
            Ok(())
        })
    }

    /// Returns 32 hexadecimal digits that are the same for two domains with the same memory and state. The vCPUs
    /// are stopped meanwhile.
    fn fingerprint(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, "fingerprint", |domain| Ok(domain.fingerprint().to_string()))
    }

    /// Checks that a PV guest is sound: that its p2m, its page tables, Xen's page types and the machine-to-phys table tell
    /// the same story. The vCPUs are stopped meanwhile.
    fn check_pv(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, "check_pv", SimDomain::check_pv)
    }

    /// Returns the first pfns, at most ``limit``, where the memory of the two domains is not the same.
    #[pyo3(signature = (other, limit = 16))]
    fn differing_pages(&self, py: Python<'_>, other: &Bound<'_, Self>, limit: usize) -> PyResult<Vec<u64>> {
        let other = other.get().shared();
        self.with(py, "differing_pages", |domain| {
            Ok(domain.differing_pages(&other, limit).into_iter().map(|pfn| pfn.0).collect())
        })
    }

    /// Injects a fault, beside those that are there.
    ///
    /// ``"errno"``: call ``nth`` of ``verb``, counted from 0 from now on, fails with ``errno``. ``"map_cost"``: mapping
    /// takes ``ns_per_page`` nanoseconds for each page. ``"vanish"``: the page at ``pfn`` is ballooned out between its
    /// type query and its mapping. ``"map_errno"``: the page at ``pfn`` cannot be mapped, with ``errno``.
    #[pyo3(signature = (fault, *, verb = None, nth = 0, errno = None, pfn = None, ns_per_page = None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword in Python")]
    fn inject(
        &self,
        py: Python<'_>,
        fault: &str,
        verb: Option<&str>,
        #[pyo3(from_py_with = count)] nth: u64,
        errno: Option<Count>,
        pfn: Option<Count>,
        ns_per_page: Option<Count>,
    ) -> PyResult<()> {
        let fault = fault::Request { verb, nth, errno, pfn, ns_per_page }.read(fault)?;
        self.with(py, "inject", |domain| {
            domain.inject(fault);
            Ok(())
        })
    }

    /// Removes all faults.
    fn clear_faults(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, "clear_faults", |domain| {
            domain.clear_faults();
            Ok(())
        })
    }

    fn __repr__(&self) -> String {
        format!("<SimDomain d{}>", self.number())
    }
}
