// SPDX-License-Identifier: GPL-3.0-or-later
//! What an observer of a save is given: one class for every event, with a field for each thing that an event may carry.

use std::time::Duration;

use pyo3::{
    prelude::*,
    types::{PyDict, PyType},
};
use xenmig_engine::{Decision, Event};

use crate::{
    field::Field,
    record::record,
    stats::{PyPrecopyStats, PyRoundStats},
};

record! {
    /// Something that happened in a save.
    PySaveEvent = "SaveEvent" of Event<'_>;
    /// What happened: ``"stage"``, ``"consult"``, ``"round"`` or ``"progress"``.
    kind: String => |event| match event {
        Event::Stage { .. } => "stage",
        Event::Consult { .. } => "consult",
        Event::Round(_) => "round",
        Event::Progress(_) => "progress",
    }.to_owned();
    /// The stage that begins: ``"preamble"``, ``"precopy"``, ``"suspend"``, ``"last_clean"``, ``"stop_and_copy"``,
    /// ``"verify"``, ``"state"`` or ``"complete"``; only of a ``"stage"``.
    stage: Option<String> => |event| match event {
        Event::Stage { stage, .. } => Some(stage.name().to_owned()),
        _ => None,
    };
    /// Seconds since the save began; ``None`` of a ``"round"``, which has its own.
    elapsed_s: Option<Duration> => |event| match event {
        Event::Stage { elapsed, .. } => Some(*elapsed),
        Event::Consult { stats, .. } | Event::Progress(stats) => Some(stats.elapsed),
        Event::Round(_) => None,
    };
    /// What the policy was told, or how far the save is; of a ``"consult"`` and of ``"progress"``.
    stats: Option<PyPrecopyStats> => |event| match *event {
        Event::Consult { stats, .. } | Event::Progress(stats) => Some(PyPrecopyStats::from(stats)),
        Event::Stage { .. } | Event::Round(_) => None,
    };
    /// What the policy answered: ``"continue"``, ``"stop_and_copy"`` or ``"abort"``; only of a ``"consult"``.
    decision: Option<String> => |event| match event {
        Event::Consult { verdict, .. } => Some(match verdict.decision {
            Decision::Abort => "abort",
            Decision::Continue => "continue",
            Decision::StopAndCopy => "stop_and_copy",
        }.to_owned()),
        _ => None,
    };
    /// Why the policy answered that, if it said so; only of a ``"consult"``.
    reason: Option<String> => |event| match event {
        Event::Consult { verdict, .. } => verdict.reason.clone(),
        _ => None,
    };
    /// The round or pass that has ended; only of a ``"round"``.
    round: Option<PyRoundStats> => |event| match *event {
        Event::Round(round) => Some(PyRoundStats::from(round)),
        _ => None,
    };
}
