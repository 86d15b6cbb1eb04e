// SPDX-License-Identifier: GPL-3.0-or-later
//! Exceptions: how the classes of `xenmig.errors`, which are plain Python, are made from here. What each error of the
//! engine becomes is said by the [`Raise`] of its type, in `save.rs`, `restore.rs` and `sim/`.

use std::io;

use pyo3::{
    call::PyCallArgs,
    exceptions::PyMemoryError,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyModule, PyTuple},
};
use xenmig_engine::{CallerError, GuestState};
use xenmig_hypervisor::{Errno, HypervisorError};
use xenmig_types::Domid;

/// An error that has an exception.
pub(crate) trait Raise {
    /// Makes the exception.
    fn raise(self, py: Python<'_>) -> PyErr;
}

/// What an exception says beside the failed step: the guest's state, if it is known, and what went wrong while
/// cleaning up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aftermath<'a> {
    pub(crate) guest: Option<GuestState>,
    pub(crate) warnings: &'a [String],
}

/// Makes an exception of `xenmig.errors`. If that fails, the result is the exception that says why.
pub(crate) fn exception<'py>(
    py: Python<'py>,
    class: &str,
    args: impl PyCallArgs<'py>,
    aftermath: Aftermath<'_>,
    details: impl FnOnce(&Bound<'py, PyDict>) -> PyResult<()>,
) -> PyErr {
    let make = || {
        let keywords = PyDict::new(py);
        details(&keywords)?;
        keywords.set_item(intern!(py, "guest_state"), aftermath.guest.map(GuestState::name))?;
        keywords.set_item(intern!(py, "warnings"), aftermath.warnings)?;
        classes(py)?.getattr(class)?.call(args, Some(&keywords))
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

/// Makes an exception that has only a message.
pub(crate) fn plain(py: Python<'_>, class: &str, message: &str, aftermath: Aftermath<'_>) -> PyErr {
    exception(py, class, (message,), aftermath, |_| Ok(()))
}

/// Makes the exception for a policy's answer that is none.
pub(crate) fn policy_error(py: Python<'_>, message: &str) -> PyErr {
    plain(py, "PolicyError", message, Aftermath::default())
}

/// Makes the exception for an error of the hypervisor boundary.
pub(crate) fn hypervisor(py: Python<'_>, error: &HypervisorError, aftermath: Aftermath<'_>) -> PyErr {
    match error {
        HypervisorError::Call { op, domid, errno } => {
            hypercall(py, op, *domid, *errno, error.to_string(), aftermath)
        }
        HypervisorError::OutOfMemory { .. } => out_of_memory(py, error.to_string(), aftermath),
        HypervisorError::Forked { .. } => plain(py, "HostForked", &error.to_string(), aftermath),
    }
}

impl Raise for HypervisorError {
    fn raise(self, py: Python<'_>) -> PyErr {
        hypervisor(py, &self, Aftermath::default())
    }
}

/// Makes the exception for a call that the hypervisor refused.
pub(crate) fn hypercall(
    py: Python<'_>,
    op: &str,
    domid: Domid,
    Errno(errno): Errno,
    message: String,
    aftermath: Aftermath<'_>,
) -> PyErr {
    exception(py, "HypercallError", (errno, without_number(message, errno)), aftermath, |details| {
        details.set_item(intern!(py, "op"), op)?;
        details.set_item(intern!(py, "domid"), domid.get())
    })
}

/// Makes the `MemoryError` for memory that this process lacks.
fn out_of_memory(py: Python<'_>, message: String, aftermath: Aftermath<'_>) -> PyErr {
    passed_through(py, CallerError::from(PyMemoryError::new_err(message)), aftermath)
}

/// Makes the exception for a descriptor that failed. `message` may end with `error`'s own words.
pub(crate) fn transport(
    py: Python<'_>,
    error: &io::Error,
    message: String,
    aftermath: Aftermath<'_>,
) -> PyErr {
    const EIO: i32 = 5;
    if error.kind() == io::ErrorKind::OutOfMemory {
        return out_of_memory(py, message, aftermath);
    }
    let errno = error.raw_os_error().unwrap_or(EIO);
    exception(py, "TransportError", (errno, without_number(message, errno)), aftermath, |_| Ok(()))
}

/// Returns the exception that a callback raised, the very object. One of xenmig's own that does not say how the guest is
/// learns it here; to any other it is noted down, unless the guest runs and there is nothing to say.
pub(crate) fn passed_through(py: Python<'_>, error: CallerError, aftermath: Aftermath<'_>) -> PyErr {
    let exception = match error.downcast::<PyErr>() {
        Ok(exception) => *exception,
        Err(error) => return plain(py, "XenmigError", &error.to_string(), aftermath),
    };
    match aftermath.guest.map(|guest| annotate(exception.value(py), guest, aftermath.warnings)) {
        None | Some(Ok(())) => exception,
        Some(Err(error)) => {
            error.set_cause(py, Some(exception));
            error
        }
    }
}

fn annotate(exception: &Bound<'_, PyAny>, guest: GuestState, warnings: &[String]) -> PyResult<()> {
    let py = exception.py();
    let guest_state = intern!(py, "guest_state");
    if exception.is_instance(&classes(py)?.getattr(intern!(py, "XenmigError"))?)? {
        if exception.getattr(guest_state)?.is_none() {
            exception.setattr(guest_state, guest.name())?;
            exception.setattr(intern!(py, "warnings"), PyTuple::new(py, warnings)?)?;
        }
        return Ok(());
    }
    let harmless = guest == GuestState::Running && warnings.is_empty();
    // Python 3.10 has no notes.
    if !harmless && let Some(add_note) = exception.getattr_opt(intern!(py, "add_note"))? {
        add_note.call1((format!("xenmig: the guest is {guest}"),))?;
        for warning in warnings {
            add_note.call1((format!("xenmig: {warning}"),))?;
        }
    }
    Ok(())
}

/// Takes "(os error 3)" off the end: an `OSError` shows the number itself.
fn without_number(message: String, errno: i32) -> String {
    match message.strip_suffix(&format!(" (os error {errno})")) {
        Some(text) => text.to_owned(),
        None => message,
    }
}

/// Returns `xenmig.errors`, imported once.
fn classes(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = CLASSES.get_or_try_init(py, || py.import("xenmig.errors").map(Bound::unbind))?;
    Ok(module.bind(py))
}
