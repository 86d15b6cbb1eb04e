// SPDX-License-Identifier: GPL-3.0-or-later
//! The answers of a policy, and the points at which it is asked.

/// What a policy answers. The numbers are those of `XGS_POLICY_*` in `xenguest.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Decision {
    /// Give up: the guest is never suspended and runs on.
    Abort = -1,
    /// Go on with the precopy.
    Continue = 0,
    /// Suspend the guest and send the rest.
    StopAndCopy = 1,
}

/// A decision, and why it was taken, for the reader of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Why, in the policy's words.
    pub reason: Option<String>,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        Self { decision, reason: None }
    }
}

/// At which point of a save the statistics were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A round is about to be sent; the dirty count is known.
    BeforeRound,
    /// A batch of the round was sent; one that was all holes is not asked about.
    Batch,
    /// A round was sent; the dirty count is not known until the next CLEAN.
    AfterRound,
    /// The other end has taken nothing for up to 100 ms, and the guest runs. A STOP here takes effect once the batch that
    /// waits has been taken; an ABORT takes effect at once.
    Waiting,
    /// The guest is suspended and the rest is being sent. No policy is asked here.
    StopAndCopy,
    /// The whole memory is being sent once more, to be compared. No policy is asked here.
    Verify,
}

impl Phase {
    /// Returns the phase's name as Python sees it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeRound => "before_round",
            Self::Batch => "batch",
            Self::AfterRound => "after_round",
            Self::Waiting => "waiting",
            Self::StopAndCopy => "stop_and_copy",
            Self::Verify => "verify",
        }
    }
}

/// How often a policy is asked, and when its answer takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsultMode {
    /// As libxc does: twice a round. A STOP before a round still sends that round live.
    #[default]
    Round,
    /// Before a round, after each batch of which something was sent, after a round, and while the other end takes
    /// nothing. Every answer takes effect at once.
    Batch,
}
