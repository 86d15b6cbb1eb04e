// SPDX-License-Identifier: GPL-3.0-or-later
//! What happens during a restore, for observers: its stages, and at intervals how far it has come.

use std::time::Duration;

use xenmig_types::Gfn;

/// Something that happened during a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreEvent {
    /// A stage was reached.
    Stage(RestoreStage, RestoreProgress),
    /// How far the restore has come: after a record or 1024 pages, but not more often than
    /// [`RestoreOptions::progress_interval`](super::RestoreOptions::progress_interval).
    Progress(RestoreProgress),
}

impl RestoreEvent {
    /// Returns what had been received when it happened, and the time.
    #[must_use]
    pub const fn progress(&self) -> &RestoreProgress {
        match self {
            Self::Stage(_, progress) | Self::Progress(progress) => progress,
        }
    }
}

/// A stage of a restore, in order. `Memory` and `Verify` are left out if the stream has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStage {
    /// The headers were read, and stream and domain are of the same kind.
    Headers {
        /// Version of the stream's format: 2 or 3.
        stream_version: u32,
        /// Major version of the sender's Xen.
        xen_major: u32,
        /// Minor version of the sender's Xen.
        xen_minor: u32,
    },
    /// The static data is complete and the CPU policy is set.
    StaticData(MissingPolicies),
    /// The first PAGE_DATA record begins.
    Memory,
    /// Pages are compared from now on.
    Verify,
    /// END was read. What was kept until then is applied next.
    End,
    /// The domain is complete.
    Complete {
        /// The frame of the page that the guest shares with xenstore, if the stream names it.
        store_gfn: Option<Gfn>,
        /// The frame of the page that the guest shares with its console, if the stream names it.
        console_gfn: Option<Gfn>,
    },
}

impl RestoreStage {
    /// Returns the stage's name as Python sees it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Headers { .. } => "headers",
            Self::StaticData(_) => "static_data",
            Self::Memory => "memory",
            Self::Verify => "verify",
            Self::End => "end",
            Self::Complete { .. } => "complete",
        }
    }
}

/// What the stream's static data lacks. The domain keeps what it was created with, unless the caller sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingPolicies {
    /// There was no CPUID policy.
    pub cpuid: bool,
    /// There was no MSR policy.
    pub msrs: bool,
}

/// How far a restore has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Records read so far.
    pub records: u64,
    /// Optional records, which were skipped.
    pub optional_records_skipped: u64,
    /// Records without contents, which were ignored.
    pub void_records_skipped: u64,
    /// Bytes of the stream read so far.
    pub bytes_received: u64,
    /// Pages whose contents were received, counted each time.
    pub pages_received: u64,
    /// 4 KiB pages that the domain was given, those in superpages included.
    pub pages_populated: u64,
    /// 2 MiB superpages that the domain was given.
    pub superpages: u64,
    /// Pages that were taken away again.
    pub pages_depopulated: u64,
    /// Pages that were compared rather than written.
    pub pages_verified: u64,
    /// Pages are being compared rather than written.
    pub verifying: bool,
    /// Time since the restore began.
    pub elapsed: Duration,
}
