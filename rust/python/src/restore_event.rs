// SPDX-License-Identifier: GPL-3.0-or-later
//! What an observer of a restore is given: how far it has come, and which stage it has reached, if any.

use std::time::Duration;

use pyo3::{
    prelude::*,
    types::{PyDict, PyType},
};
use xenmig_engine::restore::RestoreEvent;

use crate::{field::Field, record::record, results::PyRestoreProgress};

record! {
    /// Something that happened in a restore.
    PyRestoreEvent = "RestoreEvent" of RestoreEvent;
    /// What happened: ``"stage"`` or ``"progress"``.
    kind: String => |event| match event {
        RestoreEvent::Stage(..) => "stage".to_owned(),
        RestoreEvent::Progress(_) => "progress".to_owned(),
    };
    /// The stage that was reached: ``"headers"``, ``"static_data"``, ``"memory"``, ``"verify"``, ``"end"`` or
    /// ``"complete"``; only of a ``"stage"``.
    stage: Option<String> => |event| match event {
        RestoreEvent::Stage(stage, _) => Some(stage.name().to_owned()),
        RestoreEvent::Progress(_) => None,
    };
    /// How far the restore has come.
    progress: PyRestoreProgress => |event| PyRestoreProgress::from(event.progress());
    /// Seconds since the restore began.
    elapsed_s: Duration => |event| event.progress().elapsed;
}
