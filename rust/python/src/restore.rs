// SPDX-License-Identifier: GPL-3.0-or-later
//! `restore`: from Python's arguments to the engine, and back with a result or an exception.
//!
//! The exceptions of a restore have no guest state: the new domain has not run, and the old one is not here.

use std::{io, time::Duration};

use pyo3::{exceptions::PyValueError, intern, prelude::*};
use xenmig_engine::{
    CallerError, Interrupt,
    restore::{
        Channel, Channels, DomainChange, MissingPolicies, RestoreCaller, RestoreError, RestoreEvent,
        RestoreFailure, RestoreOptions,
    },
};
use xenmig_hypervisor::{Errno, HypervisorError};

use crate::{
    args::{DomidArg, Fd, Real, evtchn, real, seconds},
    caller::{interrupted, optional},
    detach::{attached, detached},
    endpoint,
    errors::{self, Aftermath, Raise},
    host::AnyHost,
    restore_event::PyRestoreEvent,
    results::{PyRestoreProgress, PyRestoreResult, Restored},
};

/// Restores a domain from a file descriptor. ``xenmig.restore`` is the friendlier form of it.
#[pyfunction]
#[pyo3(signature = (
    host, domid, fd, *, store_evtchn, store_domid, console_evtchn, console_domid, static_data_done, on_progress,
    on_event, progress_interval_s, stall_timeout_s, peer_timeout_s,
))]
#[expect(clippy::too_many_arguments, reason = "each is a keyword in Python")]
pub(crate) fn restore(
    py: Python<'_>,
    host: AnyHost,
    domid: DomidArg,
    fd: Fd,
    #[pyo3(from_py_with = evtchn)] store_evtchn: Option<u32>,
    store_domid: DomidArg,
    #[pyo3(from_py_with = evtchn)] console_evtchn: Option<u32>,
    console_domid: DomidArg,
    static_data_done: Option<&Bound<'_, PyAny>>,
    on_progress: Option<&Bound<'_, PyAny>>,
    on_event: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = real)] progress_interval_s: f64,
    stall_timeout_s: Option<Real>,
    peer_timeout_s: Option<Real>,
) -> PyResult<PyRestoreResult> {
    let channels = match (store_evtchn, console_evtchn) {
        (Some(store), Some(console)) => Some(Channels {
            store: Channel { evtchn: store, domid: store_domid.0 },
            console: Channel { evtchn: console, domid: console_domid.0 },
        }),
        (None, None) => None,
        _ => {
            let message = "one of store_evtchn and console_evtchn is missing: give both, or neither";
            return Err(PyValueError::new_err(message));
        }
    };
    let limits = [("stall_timeout_s", stall_timeout_s), ("the timeout of source", peer_timeout_s)];
    let limits: Vec<Duration> = limits
        .into_iter()
        .filter_map(|(name, limit)| limit.map(|limit| seconds(name, limit.0)))
        .collect::<PyResult<_>>()?;
    let options = RestoreOptions {
        channels,
        progress_interval: seconds("progress_interval_s", progress_interval_s)?,
        stall_timeout: limits.into_iter().min(),
        ..RestoreOptions::default()
    };
    let mut caller = Receiver {
        static_data_done: optional("static_data_done", static_data_done)?,
        on_progress: optional("on_progress", on_progress)?,
        on_event: optional("on_event", on_event)?,
    };
    let mut source = endpoint::source(py, fd)?;
    let report = detached(py, || {
        xenmig_engine::restore::restore(&*host.0, domid.0, &mut source, &options, &mut caller)
    })?;
    Ok(PyRestoreResult::from(&Restored { domid: domid.0, report }))
}

/// `XGR_SDD_MISSING_*` of `xenguest.h`.
const MISSING_CPUID: u32 = 1;
const MISSING_MSR: u32 = 2;

/// The callbacks of a restore.
struct Receiver {
    static_data_done: Option<Py<PyAny>>,
    on_progress: Option<Py<PyAny>>,
    on_event: Option<Py<PyAny>>,
}

impl RestoreCaller for Receiver {
    fn static_data_done(&mut self, missing: MissingPolicies) -> Result<(), CallerError> {
        let Some(static_data_done) = &self.static_data_done else { return Ok(()) };
        let bits = (u32::from(missing.cpuid) * MISSING_CPUID) | (u32::from(missing.msrs) * MISSING_MSR);
        attached(|py| static_data_done.call1(py, (bits,)).map(drop))
    }

    fn observe(&mut self, event: &RestoreEvent) -> Result<(), CallerError> {
        if let Some(on_event) = &self.on_event {
            attached(|py| on_event.call1(py, (PyRestoreEvent::from(event),)).map(drop))?;
        }
        let (Some(on_progress), RestoreEvent::Progress(progress)) = (&self.on_progress, event) else {
            return Ok(());
        };
        attached(|py| on_progress.call1(py, (PyRestoreProgress::from(progress),)).map(drop))
    }
}

impl Interrupt for Receiver {
    fn interrupted(&mut self) -> Result<(), CallerError> {
        interrupted()
    }
}

impl Raise for RestoreFailure {
    fn raise(self, py: Python<'_>) -> PyErr {
        /// The domain no longer exists.
        const ESRCH: Errno = Errno(3);
        /// The hypervisor gave fewer pages than it was asked for.
        const ENOMEM: Errno = Errno(12);
        /// A frame does not fit into the guest's structures.
        const ERANGE: Errno = Errno(34);
        /// The sender has sent nothing for too long.
        const ETIMEDOUT: i32 = 110;
        let Self { domid, bytes_read, error } = self;
        let nothing = Aftermath::default();
        let message = error.to_string();
        match error {
            RestoreError::Interrupted(error)
            | RestoreError::StaticData(error)
            | RestoreError::Observer(error) => errors::passed_through(py, error, nothing),
            RestoreError::Hypervisor(error) => errors::hypervisor(py, &error, nothing),
            RestoreError::Param { error: HypervisorError::Call { op, errno, .. }, .. } => {
                errors::hypercall(py, op, domid, errno, message, nothing)
            }
            RestoreError::Param { error, .. } => errors::hypervisor(py, &error, nothing),
            RestoreError::Populate { .. } => {
                errors::hypercall(py, "populate_physmap", domid, ENOMEM, message, nothing)
            }
            RestoreError::FrameTooHigh { .. } => {
                errors::hypercall(py, "populate_physmap", domid, ERANGE, message, nothing)
            }
            RestoreError::Map { errno, .. } => {
                errors::hypercall(py, "foreign mapping", domid, errno, message, nothing)
            }
            RestoreError::Transport(source) => errors::transport(py, &source, message, nothing),
            RestoreError::Stalled(_) => {
                errors::transport(py, &io::Error::from_raw_os_error(ETIMEDOUT), message, nothing)
            }
            RestoreError::Changed { change: DomainChange::Destroyed, .. } => {
                errors::hypercall(py, "getdomaininfo", domid, ESRCH, message, nothing)
            }
            RestoreError::Changed { .. } => errors::plain(py, "DomainRefused", &message, nothing),
            RestoreError::Refused { .. } => errors::plain(py, "DomainRefused", &message, nothing),
            RestoreError::Stream(error) => invalid(py, &message, error.offset()),
            RestoreError::Unsupported { offset, .. }
            | RestoreError::PfnTooHigh { offset, .. }
            | RestoreError::PfnTwice { offset, .. }
            | RestoreError::TableEntry { offset, .. } => invalid(py, &message, offset),
            RestoreError::Differs { .. }
            | RestoreError::Named { .. }
            | RestoreError::NoGrant { .. }
            | RestoreError::Missing(_) => invalid(py, &message, bytes_read),
        }
    }
}

/// Makes the exception for a stream that cannot be restored. `offset` is in bytes from its start.
fn invalid(py: Python<'_>, message: &str, offset: u64) -> PyErr {
    errors::exception(py, "StreamError", (message,), Aftermath::default(), |details| {
        details.set_item(intern!(py, "offset"), offset)
    })
}
