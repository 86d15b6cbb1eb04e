// SPDX-License-Identifier: GPL-3.0-or-later
//! `XenHost`: the real Xen, opened from its control domain. The class is there in every build; what a build or a machine
//! lacks is said when one is made.

use std::sync::Arc;

use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyDict};
use xenmig_hypervisor::{Hypervisor, Lifecycle, retry_while_busy};
use xenmig_types::{DomainState, GuestKind};

use crate::{
    args::DomidArg,
    detach::detached,
    errors::{self, Aftermath},
};

/// Why a domain has shut down, by `SHUTDOWN_*` of `public/sched.h`; to be saved (2) has its own state.
const SHUTDOWN_REASONS: [Option<&str>; 6] =
    [Some("poweroff"), Some("reboot"), None, Some("crash"), Some("watchdog"), Some("soft_reset")];

/// The Xen that this machine runs under.
#[pyclass(frozen, module = "xenmig._native", name = "XenHost")]
#[derive(Debug)]
pub(crate) struct PyXenHost {
    /// There until the object is dropped.
    host: Option<Arc<dyn Lifecycle>>,
}

impl PyXenHost {
    /// Returns the host for the engine.
    pub(crate) fn hypervisor(&self) -> PyResult<Arc<dyn Hypervisor>> {
        Ok(self.lifecycle()?)
    }

    fn lifecycle(&self) -> PyResult<Arc<dyn Lifecycle>> {
        self.host.clone().ok_or_else(|| PyRuntimeError::new_err("the host is closed"))
    }
}

impl Drop for PyXenHost {
    /// Closes Xen detached: libxencall closes under a lock of the process, whose holder may be waiting for the
    /// interpreter in a logger written in Python.
    fn drop(&mut self) {
        let host = &mut self.host;
        // Without an interpreter there is nothing to wait for, and the field's own drop does it.
        Python::try_attach(|py| py.detach(|| drop(host.take())));
    }
}

#[cfg(feature = "xen")]
fn open(py: Python<'_>) -> PyResult<Arc<dyn Lifecycle>> {
    match py.detach(xenmig_xen::XenHost::open) {
        Ok(host) => Ok(Arc::new(host)),
        Err(error) => Err(unavailable(py, &error.to_string(), error.errno().map(|errno| errno.0))),
    }
}

#[cfg(not(feature = "xen"))]
fn open(py: Python<'_>) -> PyResult<Arc<dyn Lifecycle>> {
    const TEXT: &str = "this build of xenmig has no support for Xen: install Xen's headers and libclang (Debian: \
                        libxen-dev, libclang-dev) and build it again";
    Err(unavailable(py, TEXT, None))
}

fn unavailable(py: Python<'_>, message: &str, errno: Option<i32>) -> PyErr {
    errors::exception(py, "XenUnavailable", (message,), Aftermath::default(), |details| {
        details.set_item("errno", errno)
    })
}

#[pymethods]
impl PyXenHost {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self { host: Some(open(py)?) })
    }

    /// Version of the running hypervisor, as (major, minor).
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<(u16, u16)> {
        let host = self.hypervisor()?;
        let version = detached(py, || host.version())?;
        Ok((version.major, version.minor))
    }

    /// What the hypervisor says of a domain: its kind, its state, its pages.
    fn domain_info<'py>(&self, py: Python<'py>, domid: DomidArg) -> PyResult<Bound<'py, PyDict>> {
        let host = self.hypervisor()?;
        let info = detached(py, || host.domain_info(domid.0))?;
        let result = PyDict::new(py);
        result.set_item("domid", info.domid.get())?;
        result.set_item("kind", if info.kind == GuestKind::Pv { "pv" } else { "hvm" })?;
        let state = match info.state {
            DomainState::Running => "running",
            DomainState::Paused => "paused",
            state if state.is_suspended() => "suspended",
            DomainState::Shutdown { .. } => "shutdown",
            DomainState::Dying => "dying",
        };
        result.set_item("state", state)?;
        let reason = match info.state {
            DomainState::Shutdown { reason } => SHUTDOWN_REASONS.get(usize::from(reason)).copied().flatten(),
            _ => None,
        };
        result.set_item("shutdown_reason", reason)?;
        result.set_item("total_pages", info.total_pages)?;
        result.set_item("max_pages", info.max_pages)?;
        Ok(result)
    }

    /// Whether a guest has PV drivers, which can be asked to suspend it. Every PV guest has.
    fn has_pv_drivers(&self, py: Python<'_>, domid: DomidArg) -> PyResult<bool> {
        let host = self.lifecycle()?;
        detached(py, || host.has_pv_drivers(domid.0))
    }

    /// Suspends a guest without asking it.
    fn suspend(&self, py: Python<'_>, domid: DomidArg) -> PyResult<()> {
        let host = self.lifecycle()?;
        detached(py, || retry_while_busy(host.clock(), || host.suspend(domid.0)))
    }

    /// Lets a suspended guest go on.
    fn resume(&self, py: Python<'_>, domid: DomidArg) -> PyResult<()> {
        let host = self.lifecycle()?;
        detached(py, || retry_while_busy(host.clock(), || host.resume(domid.0)))
    }
}
