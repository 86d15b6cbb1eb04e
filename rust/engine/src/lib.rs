// SPDX-License-Identifier: GPL-3.0-or-later
//! Saving and restoring a domain: the algorithm, without anything that is particular to a hypervisor or a language.
//!
//! ```text
//! save.rs      headers, static data ──> precopy ──> stop-and-copy ──> state records, END
//! save/        claims ──> prepare ──> write, and decide: which pfns, their pages, the stream, who is asked
//! restore/     the other end
//! guest/       what depends on the kind of guest, for both directions
//! policy/      who decides, knowing what
//! watch.rs     interruption, retries, stalls, pacing; for both directions
//! interrupt.rs how the caller ends a run
//! ```

#![forbid(unsafe_code)]

mod bitmap;
mod guest;
mod interrupt;
mod policy;
pub mod restore;
mod save;
mod watch;

pub use bitmap::MAX_BATCH_PAGES;
pub use guest::table_fault::TableFault;
pub use interrupt::{CallerError, Interrupt};
pub use policy::{ConsultMode, Decision, LibxcPolicy, Phase, Policy, PrecopyStats, RoundStats, Verdict};
pub use save::{
    Downtime, SaveOptions, SaveReport, save,
    save_caller::Caller,
    save_error::{GuestState, SaveError, SaveFailure},
    save_events::{Event, Stage},
};
