// SPDX-License-Identifier: GPL-3.0-or-later
//! The program that saves or restores: its callbacks, and the signals that Python has caught for it.

use pyo3::{exceptions::PyMemoryError, prelude::*};
use xenmig_engine::{Caller, CallerError, Event, Interrupt};

use crate::{args::callable, detach::attached, event::PySaveEvent, memory::ALLOCATOR, stats::PyPrecopyStats};

/// The callbacks of a save.
#[derive(Debug)]
pub(crate) struct PyCaller {
    suspend: Py<PyAny>,
    resume: Option<Py<PyAny>>,
    device_model_logdirty: Option<Py<PyAny>>,
    on_progress: Option<Py<PyAny>>,
    on_event: Option<Py<PyAny>>,
}

impl PyCaller {
    /// Takes the callbacks, each of which must be callable.
    pub(crate) fn new(
        suspend: &Bound<'_, PyAny>,
        resume: Option<&Bound<'_, PyAny>>,
        device_model_logdirty: Option<&Bound<'_, PyAny>>,
        on_progress: Option<&Bound<'_, PyAny>>,
        on_event: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        callable("suspend", suspend)?;
        Ok(Self {
            suspend: suspend.clone().unbind(),
            resume: optional("resume", resume)?,
            device_model_logdirty: optional("device_model_logdirty", device_model_logdirty)?,
            on_progress: optional("on_progress", on_progress)?,
            on_event: optional("on_event", on_event)?,
        })
    }
}

impl Caller for PyCaller {
    fn suspend(&mut self) -> Result<(), CallerError> {
        attached(|py| self.suspend.call0(py).map(drop))
    }

    fn resume(&mut self) -> Result<bool, CallerError> {
        let Some(resume) = &self.resume else { return Ok(false) };
        attached(|py| resume.call0(py).map(|_| true))
    }

    fn device_model_logdirty(&mut self, on: bool) -> Result<(), CallerError> {
        let Some(switch) = &self.device_model_logdirty else { return Ok(()) };
        attached(|py| switch.call1(py, (on,)).map(drop))
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), CallerError> {
        if let Some(on_event) = &self.on_event {
            attached(|py| on_event.call1(py, (PySaveEvent::from(event),)).map(drop))?;
        }
        match (event, &self.on_progress) {
            (Event::Progress(stats), Some(on_progress)) => {
                attached(|py| on_progress.call1(py, (PyPrecopyStats::from(*stats),)).map(drop))
            }
            _ => Ok(()),
        }
    }
}

impl Interrupt for PyCaller {
    fn interrupted(&mut self) -> Result<(), CallerError> {
        interrupted()
    }
}

/// Takes a callback that may be absent.
pub(crate) fn optional(name: &str, callback: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
    callback.map(|callback| callable(name, callback).map(|()| callback.clone().unbind())).transpose()
}

/// Runs the handlers of signals that have come; Ctrl-C's raises `KeyboardInterrupt`. Python runs them in the main
/// thread only. Also ends a run for which there is no memory left but the reserve.
pub(crate) fn interrupted() -> Result<(), CallerError> {
    if ALLOCATOR.is_in_use() {
        return Err(CallerError::from(PyMemoryError::new_err("this process is out of memory")));
    }
    attached(|py| py.check_signals())
}
