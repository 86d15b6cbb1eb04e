// SPDX-License-Identifier: GPL-3.0-or-later
//! The door between the interpreter and long work. The work leaves it once, for its whole length, and comes back only
//! for the length of a callback; so other Python threads run meanwhile, and the engine holds no lock while Python
//! runs.

use pyo3::prelude::*;
use xenmig_engine::CallerError;

use crate::errors::Raise;

/// Runs `work` detached from the interpreter. Its error becomes the exception that says the same.
pub(crate) fn detached<T, E>(py: Python<'_>, work: impl FnOnce() -> Result<T, E> + Send) -> PyResult<T>
where
    T: Send,
    E: Raise + Send,
{
    py.detach(work).map_err(|error| error.raise(py))
}

/// Runs a callback attached to the interpreter, from within detached work. An exception passes through the engine as
/// it is.
pub(crate) fn attached<T>(callback: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T, CallerError> {
    match Python::try_attach(callback) {
        Some(result) => result.map_err(CallerError::from),
        // A daemon thread outlives the interpreter. Python can no longer be asked, and the domain must be left in order.
        None => Err(CallerError::from("the Python interpreter has shut down")),
    }
}
