// SPDX-License-Identifier: GPL-3.0-or-later
//! The extension module `xenmig._native`: what of the engine and of the simulated host Python can reach.
//! `python/xenmig/_native.pyi` says the same for type checkers; `mypy.stubtest` compares the two.
//!
//! ```text
//! args, endpoint ──> save, restore ──> detach ──> engine ──> policy, caller ──> Python
//!                                                   └─────> results, stats, errors ──> Python
//! ```

#![forbid(unsafe_code)]

mod args;
mod caller;
mod decision;
mod detach;
mod endpoint;
mod errors;
mod event;
mod field;
mod host;
mod memory;
mod policy;
mod record;
mod restore;
mod restore_event;
mod results;
mod save;
mod sim;
mod stats;
mod xen;

/// What the Rust extension exports.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::{
        event::PySaveEvent,
        restore::restore,
        restore_event::PyRestoreEvent,
        results::{PyRestoreProgress, PyRestoreResult, PySaveResult},
        save::save,
        sim::{PySimDomain, PySimHost},
        stats::{PyPrecopyStats, PyRoundStats},
        xen::PyXenHost,
    };

    /// The version of the extension, and of the package around it.
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Whether the extension was compiled without optimisation: its timings mean nothing then.
    #[pymodule_export]
    const DEBUG_BUILD: bool = cfg!(debug_assertions);

    /// Bytes in a guest page.
    #[pymodule_export]
    const PAGE_SIZE: usize = xenmig_types::PAGE_SIZE;
}
