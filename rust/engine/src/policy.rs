// SPDX-License-Identifier: GPL-3.0-or-later
//! Who decides when the precopy ends: the question and the answers.
//!
//! ```text
//! ledger.rs ─► statistics.rs ─► Policy ─► decision.rs        libxc.rs is the policy of a save that is given none
//! ```

pub(crate) mod decision;
pub(crate) mod ledger;
mod libxc;
pub(crate) mod statistics;

pub use decision::{ConsultMode, Decision, Phase, Verdict};
pub use libxc::LibxcPolicy;
pub use statistics::{PrecopyStats, RoundStats};

use crate::interrupt::CallerError;

/// Decides whether the precopy goes on.
pub trait Policy {
    /// Answers one consult.
    ///
    /// # Errors
    ///
    /// Any error means [`Decision::Abort`], and comes out of the save unchanged.
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError>;
}
