// SPDX-License-Identifier: GPL-3.0-or-later
//! What happens in a save, told as it happens. Progress reports, log lines and the result are made from these events and
//! from nothing else, so an observer sees what everybody else sees.

use std::time::Duration;

use crate::policy::{
    decision::Verdict,
    statistics::{PrecopyStats, RoundStats},
};

/// A part of a save. They follow each other in this order; a save that is not live has neither a precopy nor a last
/// CLEAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The headers and what does not depend on the guest's execution.
    Preamble,
    /// Memory is sent, round by round, while the guest runs.
    Precopy,
    /// The caller is asked to suspend the guest.
    Suspend,
    /// The guest is suspended; the last dirty bitmap is fetched.
    LastClean,
    /// The pages that are left are sent.
    StopAndCopy,
    /// All memory is sent once more, to be compared.
    Verify,
    /// The guest's state is fetched and sent.
    State,
    /// END was written: the stream is whole.
    Complete,
}

impl Stage {
    /// Returns the stage's name as Python sees it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preamble => "preamble",
            Self::Precopy => "precopy",
            Self::Suspend => "suspend",
            Self::LastClean => "last_clean",
            Self::StopAndCopy => "stop_and_copy",
            Self::Verify => "verify",
            Self::State => "state",
            Self::Complete => "complete",
        }
    }
}

/// Something that happened in a save.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A stage begins.
    Stage {
        /// The stage.
        stage: Stage,
        /// Time since the save began.
        elapsed: Duration,
    },
    /// The policy was asked, and answered.
    Consult {
        /// What it was told.
        stats: &'a PrecopyStats,
        /// What it answered.
        verdict: &'a Verdict,
    },
    /// A round, or a pass over the memory of the suspended guest, has ended.
    Round(&'a RoundStats),
    /// How far the save is; at most once per [`SaveOptions::progress_interval`](crate::SaveOptions::progress_interval).
    Progress(&'a PrecopyStats),
}
