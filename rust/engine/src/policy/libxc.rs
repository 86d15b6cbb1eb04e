// SPDX-License-Identifier: GPL-3.0-or-later
//! libxc's own rule, which decides where no policy is given.

use super::{
    Policy,
    decision::{Decision, Verdict},
    statistics::PrecopyStats,
};
use crate::interrupt::CallerError;

/// The rule of `xc_domain_save()` when no `precopy_policy` is given: stop when fewer than 50 pages are dirty, or
/// after five rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct LibxcPolicy;

impl LibxcPolicy {
    /// Stop with fewer dirty pages than this (`SPP_TARGET_DIRTY_COUNT`).
    pub const TARGET_DIRTY_PAGES: u64 = 50;
    /// Stop after this many rounds (`SPP_MAX_ITERATIONS`).
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
