// SPDX-License-Identifier: GPL-3.0-or-later
//! Saving and restoring a domain: the algorithm, and nothing that is of one hypervisor or of one language.
//!
//! ```text
//! save.rs       headers, static data ──> precopy ──> stop-and-copy ──> state records, END
//! rounds.rs                              the loop: consult, send a round, consult, CLEAN
//! batch.rs                               1024 pfns: types, mapping, one PAGE_DATA record
//! bitmap.rs                              which pfns are next
//! policy.rs     who decides              stats.rs   knowing what
//! caller.rs     who suspends the guest, watches, and may interrupt
//! restore/      the other end
//! ```

#![forbid(unsafe_code)]

mod batch;
mod bitmap;
mod caller;
mod error;
mod guest;
mod policy;
pub mod restore;
mod rounds;
mod run;
mod save;
mod stats;
#[expect(dead_code, reason = "save and restore move onto it next")]
mod watch;

pub use bitmap::MAX_BATCH_PAGES;
pub use caller::{Caller, CallerError, Interrupt};
pub use error::{GuestState, SaveError, SaveFailure};
pub use guest::TableFault;
pub use policy::{ConsultMode, Decision, LibxcPolicy, Phase, Policy, Verdict};
pub use save::{Downtime, SaveOptions, SaveReport, save};
pub use stats::{PrecopyStats, RoundStats};
