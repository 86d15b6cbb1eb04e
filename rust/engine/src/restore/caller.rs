// SPDX-License-Identifier: GPL-3.0-or-later
//! What a restore asks of the program that started it.

use super::events::{MissingPolicies, RestoreEvent};
use crate::interrupt::{CallerError, Interrupt};

/// The program that restores a domain: a toolstack, a save helper, a test. All calls come on the thread that called
/// [`restore`](super::restore), and no lock is held while they run.
pub trait RestoreCaller: Interrupt {
    /// Called for each event.
    ///
    /// # Errors
    ///
    /// Any error ends the restore.
    fn observe(&mut self, _event: &RestoreEvent) -> Result<(), CallerError> {
        Ok(())
    }

    /// Called once, before any memory arrives, when everything is known of the guest that does not depend on its execution.
    /// The stream's CPU policy is set by then; the caller sets what the stream lacks.
    ///
    /// # Errors
    ///
    /// Any error ends the restore.
    fn static_data_done(&mut self, _missing: MissingPolicies) -> Result<(), CallerError> {
        Ok(())
    }
}
