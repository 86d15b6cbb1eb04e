// SPDX-License-Identifier: GPL-3.0-or-later
//! The result of a restore, made from its events.

use std::time::Duration;

use xenmig_types::Gfn;

use super::events::{RestoreEvent, RestoreProgress, RestoreStage};

/// A restore that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Version of the stream's format: 2 or 3.
    pub stream_version: u32,
    /// Major version of the sender's Xen; 0 for a converted legacy image.
    pub xen_major: u32,
    /// Minor version of the sender's Xen.
    pub xen_minor: u32,
    /// Records of the stream, END included.
    pub records: u64,
    /// Optional records, which were skipped.
    pub optional_records_skipped: u64,
    /// Records without the contents that their kind should have, which were ignored.
    pub void_records_skipped: u64,
    /// Bytes of the stream.
    pub bytes_received: u64,
    /// Pages whose contents were received, counted each time.
    pub pages_received: u64,
    /// 4 KiB pages that the domain was given, those in superpages included.
    pub pages_populated: u64,
    /// 2 MiB superpages that the domain was given.
    pub superpages: u64,
    /// Pages that were taken away again, because the guest had given them back since.
    pub pages_depopulated: u64,
    /// Pages that were compared rather than written.
    pub pages_verified: u64,
    /// The stream has no CPUID policy: the domain keeps the one that it was created with.
    pub missing_cpuid_policy: bool,
    /// The stream has no MSR policy: the domain keeps the one that it was created with.
    pub missing_msr_policy: bool,
    /// The frame of the page that the guest shares with xenstore, if the stream names it; for a PV guest an mfn.
    pub store_gfn: Option<Gfn>,
    /// The frame of the page that the guest shares with its console, if the stream names it; for a PV guest an mfn.
    pub console_gfn: Option<Gfn>,
    /// From the call to its end.
    pub elapsed: Duration,
}

impl RestoreReport {
    /// Takes from an event what belongs in the report.
    pub(super) fn note(&mut self, event: &RestoreEvent) {
        let RestoreEvent::Stage(stage, progress) = event else { return };
        match *stage {
            RestoreStage::Headers { stream_version, xen_major, xen_minor } => {
                (self.stream_version, self.xen_major, self.xen_minor) =
                    (stream_version, xen_major, xen_minor);
            }
            RestoreStage::StaticData(missing) => {
                (self.missing_cpuid_policy, self.missing_msr_policy) = (missing.cpuid, missing.msrs);
            }
            RestoreStage::Complete { store_gfn, console_gfn } => {
                (self.store_gfn, self.console_gfn) = (store_gfn, console_gfn);
            }
            RestoreStage::Memory | RestoreStage::Verify | RestoreStage::End => {}
        }
        self.count(progress);
    }

    const fn count(&mut self, progress: &RestoreProgress) {
        self.records = progress.records;
        self.optional_records_skipped = progress.optional_records_skipped;
        self.void_records_skipped = progress.void_records_skipped;
        self.bytes_received = progress.bytes_received;
        self.pages_received = progress.pages_received;
        self.pages_populated = progress.pages_populated;
        self.superpages = progress.superpages;
        self.pages_depopulated = progress.pages_depopulated;
        self.pages_verified = progress.pages_verified;
        self.elapsed = progress.elapsed;
    }
}
