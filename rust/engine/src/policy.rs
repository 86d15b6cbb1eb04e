// SPDX-License-Identifier: GPL-3.0-or-later
//! Who decides when the precopy ends: the question, the answers, and libxc's own rule.

use crate::{CallerError, PrecopyStats};

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

/// A decision, and why it was taken, for whoever reads the log.
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
    /// Before a round, after each batch of which something was sent, and after a round. Every answer takes effect at
    /// once.
    Batch,
}

/// Decides whether the precopy goes on.
pub trait Policy {
    /// Answers one consult.
    ///
    /// # Errors
    ///
    /// Any error means [`Decision::Abort`], and comes out of the save unchanged.
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError>;
}

/// The rule of `xc_domain_save()` when no `precopy_policy` is given: stop when fewer than 50 pages are dirty, or
/// after five rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct LibxcPolicy;

impl LibxcPolicy {
    /// Stop with fewer dirty pages than this (`SPP_TARGET_DIRTY_COUNT`).
    pub const TARGET_DIRTY_PAGES: u64 = 50;
    /// Stop after so many rounds (`SPP_MAX_ITERATIONS`).
    pub const MAX_ITERATIONS: u32 = 5;
}

impl Policy for LibxcPolicy {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        let reason = match stats.dirty_count {
            Some(dirty) if dirty < Self::TARGET_DIRTY_PAGES => {
                format!("{dirty} dirty pages, fewer than {}", Self::TARGET_DIRTY_PAGES)
            }
            _ if stats.iteration >= Self::MAX_ITERATIONS => format!("{} rounds sent", stats.iteration),
            _ => return Ok(Decision::Continue.into()),
        };
        Ok(Verdict { decision: Decision::StopAndCopy, reason: Some(reason) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(iteration: u32, dirty_count: Option<u64>) -> Decision {
        LibxcPolicy
            .decide(&PrecopyStats { iteration, dirty_count, ..PrecopyStats::new(0, 0) })
            .unwrap()
            .decision
    }

    #[test]
    fn stops_below_fifty_and_at_the_fifth_round() {
        assert_eq!(asked(1, Some(49)), Decision::StopAndCopy);
        assert_eq!(asked(1, Some(50)), Decision::Continue);
        assert_eq!(asked(1, Some(51)), Decision::Continue);
        assert_eq!(asked(0, Some(0)), Decision::StopAndCopy);
        assert_eq!(asked(4, None), Decision::Continue);
        assert_eq!(asked(5, None), Decision::StopAndCopy);
        assert_eq!(asked(5, Some(1000)), Decision::StopAndCopy);
    }
}
