// SPDX-License-Identifier: GPL-3.0-or-later
//! What a save and a restore return, and the progress of a restore: the engine's reports, as Python values.

use std::time::Duration;

use pyo3::{
    prelude::*,
    types::{PyDict, PyType},
};
use xenmig_engine::{
    GuestState, SaveReport,
    restore::{RestoreProgress, RestoreReport},
};
use xenmig_types::Domid;

use crate::{field::Field, record::record, stats::PyRoundStats};

/// A save that succeeded, and what was saved.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) domid: Domid,
    pub(crate) live: bool,
    pub(crate) report: SaveReport,
}

record! {
    /// A save that succeeded: the stream is whole and the guest is suspended.
    PySaveResult = "SaveResult" of Saved;
    /// The domain.
    domid: u16 => |saved| saved.domid.get();
    /// Whether memory was sent while the guest ran.
    live: bool => |saved| saved.live;
    /// What the guest is doing now: ``"suspended"``, after every save that succeeds.
    guest_state: String => |_saved| GuestState::Suspended.name().to_owned();
    /// Size of the p2m in pages, holes included.
    p2m_size: u64 => |saved| saved.report.p2m_size;
    /// Rounds sent while the guest ran.
    rounds: u32 => |saved| saved.report.rounds;
    /// Every round, and each pass over the suspended guest.
    passes: Vec<PyRoundStats> => |saved| saved.report.passes.iter().map(PyRoundStats::from).collect::<Vec<_>>();
    /// Pages taken out of dirty bitmaps.
    pages_claimed: u64 => |saved| saved.report.pages_claimed;
    /// Pages whose contents were written; a page counts each time it is written.
    pages_sent: u64 => |saved| saved.report.pages_sent;
    /// Pages left out because they were dirty again.
    pages_skipped: u64 => |saved| saved.report.pages_skipped;
    /// Pages that were owed to the final pass.
    pages_deferred: u64 => |saved| saved.report.pages_deferred;
    /// Bytes of the stream.
    bytes_sent: u64 => |saved| saved.report.bytes_sent;
    /// How often the policy was asked.
    consults: u64 => |saved| saved.report.consults;
    /// What ended the precopy: ``"stop_and_copy"``; ``None`` for a save that was not live.
    decision: Option<String> => |saved| saved.report.verdict.as_ref().map(|_| "stop_and_copy".to_owned());
    /// Why the policy ended the precopy, if it gave a reason.
    reason: Option<String> => |saved| saved.report.verdict.as_ref().and_then(|verdict| verdict.reason.clone());
    /// Seconds from the call to the last byte.
    elapsed_s: Duration => |saved| saved.report.elapsed;
    /// Milliseconds for which the guest did not run, up to the last byte of the stream.
    downtime_ms: f64 => |saved| ms(saved.report.downtime.total);
    /// The part of the downtime until the guest was suspended.
    suspend_ms: f64 => |saved| ms(saved.report.downtime.suspend);
    /// The part of the downtime for the last dirty bitmap.
    final_clean_ms: f64 => |saved| ms(saved.report.downtime.clean);
    /// The part of the downtime for sending pages.
    final_pages_ms: f64 => |saved| ms(saved.report.downtime.pages);
    /// The part of the downtime for the state that is not memory.
    final_state_ms: f64 => |saved| ms(saved.report.downtime.state);
    /// What went wrong without harm to the stream.
    warnings: Vec<String> => |saved| saved.report.warnings.clone();
}

record! {
    /// How far a restore has come.
    PyRestoreProgress = "RestoreProgress" of RestoreProgress;
    /// Records read so far.
    records: u64 => |progress| progress.records;
    /// Pages whose contents were received so far; a page counts each time it is received.
    pages_received: u64 => |progress| progress.pages_received;
    /// Pages of 4 KiB that the domain has been given so far.
    pages_populated: u64 => |progress| progress.pages_populated;
    /// Bytes of the stream read so far.
    bytes_received: u64 => |progress| progress.bytes_received;
    /// Whether pages are being compared rather than written.
    verifying: bool => |progress| progress.verifying;
    /// Seconds since the restore began.
    elapsed_s: Duration => |progress| progress.elapsed;
}

/// A restore that succeeded, and into which domain.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) domid: Domid,
    pub(crate) report: RestoreReport,
}

record! {
    /// A restore that succeeded: the domain is complete and paused.
    PyRestoreResult = "RestoreResult" of Restored;
    /// The domain.
    domid: u16 => |restored| restored.domid.get();
    /// Pages whose contents were received; a page counts each time it is received.
    pages_received: u64 => |restored| restored.report.pages_received;
    /// Pages of 4 KiB that the domain was given, those in superpages included.
    pages_populated: u64 => |restored| restored.report.pages_populated;
    /// Superpages of 2 MiB that the domain was given.
    superpages: u64 => |restored| restored.report.superpages;
    /// Pages that were taken away again, because the guest had given them back to Xen in the meantime.
    pages_depopulated: u64 => |restored| restored.report.pages_depopulated;
    /// Pages that were compared rather than written.
    pages_verified: u64 => |restored| restored.report.pages_verified;
    /// Bytes of the stream.
    bytes_received: u64 => |restored| restored.report.bytes_received;
    /// Records of the stream, END included.
    records: u64 => |restored| restored.report.records;
    /// Optional records of unknown types, which were skipped.
    optional_records_skipped: u64 => |restored| restored.report.optional_records_skipped;
    /// Records that lacked the contents of their type, which were ignored.
    void_records_skipped: u64 => |restored| restored.report.void_records_skipped;
    /// Whether the stream lacks a CPUID policy: the domain keeps the one that it was created with.
    missing_cpuid_policy: bool => |restored| restored.report.missing_cpuid_policy;
    /// Whether the stream lacks an MSR policy: the domain keeps the one that it was created with.
    missing_msr_policy: bool => |restored| restored.report.missing_msr_policy;
    /// Frame of the page that the guest shares with xenstore; ``None`` if the stream does not say.
    store_gfn: Option<u64> => |restored| restored.report.store_gfn.map(|gfn| gfn.0);
    /// Frame of the page that the guest shares with its console; ``None`` if the stream does not say.
    console_gfn: Option<u64> => |restored| restored.report.console_gfn.map(|gfn| gfn.0);
    /// Version of the stream format: 2 or 3.
    stream_version: u32 => |restored| restored.report.stream_version;
    /// Major and minor version of the sender's Xen; a major version of 0 means a converted legacy image.
    xen_version: (u32, u32) => |restored| (restored.report.xen_major, restored.report.xen_minor);
    /// Seconds from the call to its end.
    elapsed_s: Duration => |restored| restored.report.elapsed;
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
