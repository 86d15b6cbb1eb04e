// SPDX-License-Identifier: GPL-3.0-or-later
//! What a restore asks of the program that started it.

use std::time::Duration;

use crate::{CallerError, Interrupt};

/// How far a restore has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Records read so far.
    pub records: u64,
    /// Bytes of the stream read so far.
    pub bytes_received: u64,
    /// Pages whose contents came, a page as often as it came.
    pub pages_received: u64,
    /// Pages of 4 KiB that the domain was given.
    pub pages_populated: u64,
    /// Pages are being compared rather than written.
    pub verifying: bool,
    /// Time since the restore began.
    pub elapsed: Duration,
}

/// What the stream's static data lacks: the domain keeps what it was made with, unless the caller sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingPolicies {
    /// There was no CPUID policy.
    pub cpuid: bool,
    /// There was no MSR policy.
    pub msrs: bool,
}

/// The program that restores a domain: a toolstack, a save helper, a test. All calls come on the thread that called
/// [`restore`](super::restore), and no lock is held meanwhile.
pub trait RestoreCaller: Interrupt {
    /// Hears how far the restore has come: after a record or a batch of pages, but not more often than
    /// [`RestoreOptions::progress_interval`](super::RestoreOptions::progress_interval).
    ///
    /// # Errors
    ///
    /// Any error ends the restore.
    fn progress(&mut self, _progress: &RestoreProgress) -> Result<(), CallerError> {
        Ok(())
    }

    /// Hears, once, that all is known of the guest that does not depend on its execution. It comes before any memory; the
    /// CPU policy is set, as far as the stream has one, and is the caller's to set as far as not.
    ///
    /// # Errors
    ///
    /// Any error ends the restore.
    fn static_data_done(&mut self, _missing: MissingPolicies) -> Result<(), CallerError> {
        Ok(())
    }
}
