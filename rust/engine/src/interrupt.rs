// SPDX-License-Identifier: GPL-3.0-or-later
//! How the program that started a save or a restore ends it, and the errors that are its own.

use std::error::Error;

/// An error of the caller's own: it passes through the engine unchanged.
pub type CallerError = Box<dyn Error + Send + Sync + 'static>;

/// Lets the program that started a save or a restore end it.
pub trait Interrupt {
    /// Called at least every 100 ms, also while the other end takes or sends nothing. The run goes on unless this fails.
    ///
    /// # Errors
    ///
    /// Any error ends the run and comes out of it unchanged.
    fn interrupted(&mut self) -> Result<(), CallerError> {
        Ok(())
    }
}
