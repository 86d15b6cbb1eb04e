// SPDX-License-Identifier: GPL-3.0-or-later
//! `save`: from Python's arguments to the engine, and back with a result or an exception.

use std::io;

use pyo3::{exceptions::PyValueError, prelude::*};
use xenmig_engine::{ConsultMode, Policy, SaveError, SaveFailure, SaveOptions};
use xenmig_hypervisor::ClaimError;

use crate::{
    args::{DomidArg, Fd, Real, choice, real, seconds},
    caller::PyCaller,
    detach::detached,
    endpoint,
    errors::{self, Aftermath, Raise},
    host::AnyHost,
    policy::PyPolicy,
    results::{PySaveResult, Saved},
    stats::PyPrecopyStats,
};

/// `ETIMEDOUT` of Linux.
const ETIMEDOUT: i32 = 110;

const CONSULT_MODES: [(&str, ConsultMode); 2] =
    [("round", ConsultMode::Round), ("batch", ConsultMode::Batch)];

/// Saves a domain into a file descriptor. ``xenmig.save`` is the friendlier form of it.
#[pyfunction]
#[pyo3(signature = (
    host, domid, fd, *, policy, consult, live, verify, skip_redirtied, min_round_s, progress_interval_s, suspend,
    resume, device_model_logdirty, on_progress, on_event, stall_timeout_s, peer_timeout_s,
))]
#[expect(clippy::too_many_arguments, reason = "each is a keyword in Python")]
pub(crate) fn save(
    py: Python<'_>,
    host: AnyHost,
    domid: DomidArg,
    fd: Fd,
    policy: Option<&Bound<'_, PyAny>>,
    consult: &str,
    live: bool,
    verify: bool,
    skip_redirtied: bool,
    #[pyo3(from_py_with = real)] min_round_s: f64,
    #[pyo3(from_py_with = real)] progress_interval_s: f64,
    suspend: &Bound<'_, PyAny>,
    resume: Option<&Bound<'_, PyAny>>,
    device_model_logdirty: Option<&Bound<'_, PyAny>>,
    on_progress: Option<&Bound<'_, PyAny>>,
    on_event: Option<&Bound<'_, PyAny>>,
    stall_timeout_s: Option<Real>,
    peer_timeout_s: Option<Real>,
) -> PyResult<PySaveResult> {
    let options = SaveOptions {
        live,
        verify,
        consult: choice("consult", consult, &CONSULT_MODES).map_err(PyValueError::new_err)?,
        skip_redirtied,
        min_round: seconds("min_round_s", min_round_s)?,
        progress_interval: seconds("progress_interval_s", progress_interval_s)?,
        stall_timeout: stall_timeout_s.map(|value| seconds("stall_timeout_s", value.0)).transpose()?,
        peer_timeout: peer_timeout_s.map(|value| seconds("the timeout of out", value.0)).transpose()?,
        ..SaveOptions::default()
    };
    let mut policy = policy.map(PyPolicy::new).transpose()?;
    let mut caller = PyCaller::new(suspend, resume, device_model_logdirty, on_progress, on_event)?;
    let mut sink = endpoint::sink(py, fd)?;
    let report = detached(py, || {
        let asked = policy.as_mut().map(|policy| -> &mut dyn Policy { policy });
        xenmig_engine::save(&*host.0, domid.0, &mut sink, &options, asked, &mut caller)
    })?;
    Ok(PySaveResult::from(&Saved { domid: domid.0, live, report }))
}

impl Raise for SaveFailure {
    fn raise(self, py: Python<'_>) -> PyErr {
        let Self { error, guest, warnings } = self;
        let aftermath = Aftermath { guest: Some(guest), warnings: &warnings };
        let message = error.to_string();
        match error {
            SaveError::Hypervisor(error) => errors::hypervisor(py, &error, aftermath),
            SaveError::Map { domid, errno, .. } => {
                errors::hypercall(py, "foreign mapping", domid, errno, message, aftermath)
            }
            SaveError::Transport { source, .. } => errors::transport(py, &source, message, aftermath),
            SaveError::Stalled { .. } => {
                errors::transport(py, &io::Error::from_raw_os_error(ETIMEDOUT), message, aftermath)
            }
            SaveError::Encode(_) => errors::plain(py, "StreamError", &message, aftermath),
            SaveError::PolicyAbort { stats, reason } => {
                errors::exception(py, "PolicyAbort", (message,), aftermath, |details| {
                    details.set_item("reason", reason)?;
                    details.set_item("iteration", stats.iteration)?;
                    details.set_item("stats", PyPrecopyStats::from(&*stats))
                })
            }
            SaveError::Claim(ClaimError::Held { holder, .. }) => {
                errors::exception(py, "SaveInProgress", (message,), aftermath, |details| {
                    details.set_item("pid", holder.map(|holder| holder.pid))
                })
            }
            SaveError::Claim(ClaimError::Bypassed { holder, .. }) => {
                errors::exception(py, "SaveInProgress", (message,), aftermath, |details| {
                    details.set_item("pid", holder.pid)
                })
            }
            SaveError::Claim(ClaimError::Hypervisor(error)) => errors::hypervisor(py, &error, aftermath),
            SaveError::NotSuspended { .. } | SaveError::Disturbed { .. } => {
                errors::plain(py, "GuestNotSuspended", &message, aftermath)
            }
            SaveError::MapFrame { domid, errno, .. } => {
                errors::hypercall(py, "foreign mapping", domid, errno, message, aftermath)
            }
            SaveError::Claim(ClaimError::Unlockable { .. })
            | SaveError::Refused { .. }
            | SaveError::Ended { .. }
            | SaveError::P2mGrew { .. }
            | SaveError::P2mMoved { .. }
            | SaveError::BadP2m { .. }
            | SaveError::PageTable { .. }
            | SaveError::Vcpu { .. } => errors::plain(py, "DomainRefused", &message, aftermath),
            SaveError::Policy(error)
            | SaveError::Observer(error)
            | SaveError::Interrupted(error)
            | SaveError::Suspend(error)
            | SaveError::DeviceModel(error) => errors::passed_through(py, error, aftermath),
        }
    }
}
