// SPDX-License-Identifier: GPL-3.0-or-later
//! What a save asks of the program that started it.

use super::save_events::Event;
use crate::interrupt::{CallerError, Interrupt};

/// The program that saves a domain: a toolstack, a save helper, a test. All calls come on the thread that called
/// [`save`](crate::save), and no lock is held meanwhile.
pub trait Caller: Interrupt {
    /// Suspends the guest and returns when it is suspended.
    ///
    /// # Errors
    ///
    /// Any error ends the save.
    fn suspend(&mut self) -> Result<(), CallerError>;

    /// Lets the guest go on after a save that failed once it was suspended. Returns `false` if the caller leaves that to
    /// another program.
    ///
    /// # Errors
    ///
    /// Any error leaves the guest in an unknown state, which is then reported.
    fn resume(&mut self) -> Result<bool, CallerError> {
        Ok(false)
    }

    /// Tells the device model to mark the pages it writes as dirty, or to stop that (`switch_qemu_logdirty`).
    /// Called for live saves only; a guest without device model needs nothing here.
    ///
    /// # Errors
    ///
    /// An error when turning it on ends the save.
    fn device_model_logdirty(&mut self, _on: bool) -> Result<(), CallerError> {
        Ok(())
    }

    /// Hears what happens in the save, as it happens.
    ///
    /// # Errors
    ///
    /// Any error ends the save.
    fn observe(&mut self, _event: &Event<'_>) -> Result<(), CallerError> {
        Ok(())
    }
}
