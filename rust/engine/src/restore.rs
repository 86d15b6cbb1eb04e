// SPDX-License-Identifier: GPL-3.0-or-later
//! Restoring a domain: a stream that nobody has vouched for becomes the memory and state of an empty, paused domain.
//!
//! ```text
//! Source ─► feed.rs ─► stream::Reader ─┬─► PAGE_DATA ─► populate.rs ─► pages.rs, or verify.rs after VERIFY
//!                      (Record)        ├─► records of any guest ─► static_data.rs
//!                                      └─► records of one kind of guest, END ─► hvm.rs or pv/
//! ```
//!
//! What differs between the kinds of guests is said by the trait of guest.rs.
//!
//! The domain is the caller's: it is not started here, and after a failure it is to be destroyed. Whatever happens,
//! no page of it stays mapped. Nothing here is sized by a number of the stream beyond what one record may hold, and
//! the account of the pages that exist grows with the pages that the hypervisor really gave. Source:
//! libxc-migration-stream, revision 3.

mod caller;
mod channels;
mod error;
mod feed;
mod guest;
mod hvm;
mod pages;
mod pfn_set;
mod populate;
mod pv;
mod static_data;
mod verify;

use std::{
    fmt,
    time::{Duration, Instant},
};

use xenmig_hypervisor::{Hypervisor, Source};
use xenmig_stream::{Headers, Reader, Record, RecordKind};
use xenmig_types::{DomainInfo, DomainState, Domid, Gfn, GuestKind};

pub use caller::{MissingPolicies, RestoreCaller, RestoreProgress};
pub use channels::{Channel, Channels};
pub use error::{NamedPage, RestoreError, RestoreFailure};

use feed::Feed;
use guest::Guest;
use hvm::Hvm;
use pages::Page;
use pv::Pv;
use static_data::StaticData;
use verify::Verification;

/// How a domain is restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Give the domain 2 MiB superpages where a batch holds a complete run. Else it gets 4 KiB pages only, as PV guests
    /// always do.
    pub superpages: bool,
    /// The new domain's event channels. With them it is connected to its toolstack: the pages that it shares with
    /// xenstore, console and device model are emptied, unless it is a PV guest, and granted. Without them it is what was
    /// saved.
    pub channels: Option<Channels>,
    /// The least time between two calls of [`RestoreCaller::progress`].
    pub progress_interval: Duration,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self { superpages: true, channels: None, progress_interval: Duration::from_millis(100) }
    }
}

/// A restore that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Version of the stream's format: 2 or 3.
    pub stream_version: u32,
    /// Major version of the sender's Xen; 0 if a legacy image was converted.
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
    /// Pages whose contents came, a page as often as it came.
    pub pages_received: u64,
    /// Pages of 4 KiB that the domain was given, those in superpages included.
    pub pages_populated: u64,
    /// Superpages of 2 MiB that the domain was given.
    pub superpages: u64,
    /// Pages that were taken away again, because the guest had given them back meanwhile.
    pub pages_depopulated: u64,
    /// Pages that were compared rather than written.
    pub pages_verified: u64,
    /// The stream has no CPUID policy: the domain keeps the one that it was made with.
    pub missing_cpuid_policy: bool,
    /// The stream has no MSR policy: the domain keeps the one that it was made with.
    pub missing_msr_policy: bool,
    /// Where the page that the guest shares with xenstore is, if the stream says so; for a PV guest its mfn.
    pub store_gfn: Option<Gfn>,
    /// Where the page that the guest shares with its console is, if the stream says so; for a PV guest its mfn.
    pub console_gfn: Option<Gfn>,
    /// From the call to its end.
    pub elapsed: Duration,
}

/// Restores a domain from `source`, which is read up to the END record and no further. On success
/// the domain is complete, and as paused as before.
///
/// # Errors
///
/// A [`RestoreFailure`] that names the step, and how far the stream was read.
pub fn restore(
    host: &dyn Hypervisor,
    domid: Domid,
    source: &mut Source,
    options: &RestoreOptions,
    caller: &mut dyn RestoreCaller,
) -> Result<RestoreReport, RestoreFailure> {
    let mut feed = Feed::new(source, caller);
    match attempt(host, domid, options, &mut feed) {
        Ok(report) => Ok(report),
        Err(error) => Err(RestoreFailure { domid, bytes_read: feed.bytes(), error: feed.explain(error) }),
    }
}

/// Restores a domain of the kind that it is.
fn attempt(
    host: &dyn Hypervisor,
    domid: Domid,
    options: &RestoreOptions,
    feed: &mut Feed<'_>,
) -> Result<RestoreReport, RestoreError> {
    let began = Instant::now();
    let info = check_domain(host, domid)?;
    let reader = Reader::new(feed)?;
    let refused = |why| Err(RestoreError::Refused { domid, why });
    match (info.kind, reader.headers().kind) {
        (GuestKind::Hvm, GuestKind::Hvm) => {
            Restore::new(host, domid, options, reader, Hvm::default(), began).run()
        }
        (GuestKind::Pv, GuestKind::Pv) => {
            Restore::new(host, domid, options, reader, Pv::new(&info), began).run()
        }
        (GuestKind::Hvm, GuestKind::Pv) => {
            refused("the stream is of a PV guest, and the domain is an HVM or PVH one")
        }
        (GuestKind::Pv, GuestKind::Hvm) => {
            refused("the stream is of an HVM or PVH guest, and the domain is a PV one")
        }
    }
}

/// Refuses what can be refused before anything is touched.
fn check_domain(host: &dyn Hypervisor, domid: Domid) -> Result<DomainInfo, RestoreError> {
    let refused = |why| Err(RestoreError::Refused { domid, why });
    let info = host.domain_info(domid)?;
    match info.state {
        DomainState::Running => refused("it is running: pause it first, and give it no memory"),
        DomainState::Shutdown { .. } => refused("it has shut down: restore into a new domain"),
        DomainState::Dying => refused("it is being destroyed"),
        DomainState::Paused => Ok(info),
    }
}

/// A restore under way. The steps are in the modules of the records that they deal with.
struct Restore<'r, 'a, G> {
    host: &'r dyn Hypervisor,
    domid: Domid,
    options: &'r RestoreOptions,
    reader: Reader<&'r mut Feed<'a>>,
    /// What is of one kind of guest, the account of the pages that the domain was given among it.
    guest: G,
    /// The part of a batch that is being dealt with.
    pages: Vec<Page>,
    /// Set once pages are to be compared.
    verification: Option<Verification>,
    static_data: StaticData,
    report: RestoreReport,
    began: Instant,
    told: Option<Instant>,
}

impl<G> fmt::Debug for Restore<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore")
            .field("domid", &self.domid)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl<'r, 'a, G: Guest> Restore<'r, 'a, G> {
    fn new(
        host: &'r dyn Hypervisor,
        domid: Domid,
        options: &'r RestoreOptions,
        reader: Reader<&'r mut Feed<'a>>,
        guest: G,
        began: Instant,
    ) -> Self {
        let Headers { version, xen_major, xen_minor, .. } = *reader.headers();
        let report =
            RestoreReport { stream_version: version, xen_major, xen_minor, ..RestoreReport::default() };
        Self {
            host,
            domid,
            options,
            reader,
            guest,
            pages: Vec::new(),
            verification: None,
            static_data: StaticData::default(),
            report,
            began,
            told: None,
        }
    }

    fn run(mut self) -> Result<RestoreReport, RestoreError> {
        while let Some(record) = self.reader.next_record()? {
            self.apply(record)?;
            self.attend()?;
        }
        self.finish()?;
        self.report.records = self.reader.records();
        self.report.bytes_received = self.reader.offset();
        self.report.elapsed = self.began.elapsed();
        Ok(self.report)
    }

    fn apply(&mut self, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::PageData(batch) => self.page_data(&batch)?,
            Record::Verify => self.verification = Some(Verification::default()),
            Record::CpuidPolicy(leaves) => self.static_data.set_cpuid(leaves, self.reader.record_offset())?,
            Record::MsrPolicy(entries) => self.static_data.set_msrs(entries, self.reader.record_offset())?,
            Record::StaticDataEnd => self.static_data_end()?,
            Record::TscInfo(tsc) => self.tsc_info(&tsc)?,
            Record::Void(_) => self.report.void_records_skipped += 1,
            Record::Optional { .. } => self.report.optional_records_skipped += 1,
            Record::Checkpoint => {
                return self.unsupported(RecordKind::Checkpoint, "Remus and COLO are not done here");
            }
            Record::CheckpointDirtyPfnList(_) => {
                return self.unsupported(RecordKind::CheckpointDirtyPfnList, "COLO is not done here");
            }
            Record::Toolstack(_) => {
                return self.unsupported(RecordKind::Toolstack, "no released toolstack sends it");
            }
            Record::HvmContext(_)
            | Record::HvmParams(_)
            | Record::PvInfo { .. }
            | Record::PvP2mFrames { .. }
            | Record::PvVcpu { .. }
            | Record::SharedInfo(_) => return G::apply(self, record),
        }
        Ok(())
    }

    /// Refuses a record of another kind of guest.
    fn misplaced(&self, record: &Record, why: &'static str) -> Result<(), RestoreError> {
        record.kind().map_or(Ok(()), |kind| self.unsupported(kind, why))
    }

    fn unsupported(&self, kind: RecordKind, why: &'static str) -> Result<(), RestoreError> {
        Err(RestoreError::Unsupported { kind, offset: self.reader.record_offset(), why })
    }

    /// Deals with END: what was compared must be right, and what is kept until now is applied.
    fn finish(&mut self) -> Result<(), RestoreError> {
        if let Some(Verification { differing, first: Some(first), .. }) = self.verification {
            return Err(RestoreError::Differs { domid: self.domid, pages: differing, first });
        }
        G::finish(self)
    }

    /// Asks the caller whether to go on and tells it how far the restore is, each if it is time.
    fn attend(&mut self) -> Result<(), RestoreError> {
        let bytes_received = self.reader.offset();
        let records = self.reader.records();
        let feed = self.reader.source_mut();
        feed.listen()?;
        if self.told.is_none_or(|told| told.elapsed() >= self.options.progress_interval) {
            let progress = RestoreProgress {
                records,
                bytes_received,
                pages_received: self.report.pages_received,
                pages_populated: self.report.pages_populated,
                verifying: self.verification.is_some(),
                elapsed: self.began.elapsed(),
            };
            feed.tell(&progress)?;
            self.told = Some(Instant::now());
        }
        Ok(())
    }
}
