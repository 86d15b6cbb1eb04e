// SPDX-License-Identifier: GPL-3.0-or-later
//! The records of a stream, one after the other, each to the part that deals with it.

use xenmig_stream::{Headers, Record, RecordKind};

use super::{
    error::RestoreError,
    events::{RestoreEvent, RestoreProgress, RestoreStage},
    ops::{RestoreOps, SharedFrames},
    page_receiver::PageReceiver,
    report::RestoreReport,
    static_data::StaticData,
    stream_source::Stream,
    target::Target,
    verification::Verification,
};

const NO_TOOLSTACK: &str = "no released toolstack sends it";
const NO_COLO: &str = "COLO is not supported";

/// A restore under way.
#[derive(Debug)]
pub(super) struct Records<'s, 'a> {
    target: &'s Target<'a>,
    stream: Stream<'s, 'a>,
    ops: Box<dyn RestoreOps>,
    static_data: StaticData,
    /// A PAGE_DATA record has come.
    has_memory: bool,
    /// Set once pages are compared.
    verification: Option<Verification>,
    progress: RestoreProgress,
    report: RestoreReport,
}

impl<'s, 'a> Records<'s, 'a> {
    /// Takes a stream whose headers were read, and the operations for its kind of guest.
    pub(super) fn new(target: &'s Target<'a>, stream: Stream<'s, 'a>, ops: Box<dyn RestoreOps>) -> Self {
        Self {
            target,
            stream,
            ops,
            static_data: StaticData::default(),
            has_memory: false,
            verification: None,
            progress: RestoreProgress::default(),
            report: RestoreReport::default(),
        }
    }

    /// Restores the domain.
    pub(super) fn run(mut self) -> Result<RestoreReport, RestoreError> {
        let Headers { version, xen_major, xen_minor, .. } = *self.stream.headers();
        self.enter(RestoreStage::Headers { stream_version: version, xen_major, xen_minor })?;
        while let Some(record) = self.stream.next_record()? {
            self.apply(record)?;
            self.note_position();
            self.target.attend(&self.progress)?;
        }
        self.enter(RestoreStage::End)?;
        if let Some(verification) = &self.verification {
            verification.check(self.target.domid(), self.stream.record_offset())?;
        }
        let SharedFrames { store, console } = self.ops.finish(self.target, &mut self.progress)?;
        self.enter(RestoreStage::Complete { store_gfn: store, console_gfn: console })?;
        Ok(self.report)
    }

    fn apply(&mut self, record: Record) -> Result<(), RestoreError> {
        let offset = self.stream.record_offset();
        let unsupported = |kind, why| Err(RestoreError::Unsupported { kind, offset, why });
        match record {
            Record::PageData(pages) => {
                if !std::mem::replace(&mut self.has_memory, true) && self.verification.is_none() {
                    self.enter(RestoreStage::Memory)?;
                }
                if let Some(verification) = &mut self.verification {
                    verification.note_pages();
                }
                let Self { stream, target, ops, progress, .. } = self;
                PageReceiver { stream, target, ops: &mut **ops, progress }
                    .receive(&pages, self.verification.as_mut())
            }
            Record::Verify => {
                self.verification.get_or_insert_default();
                self.progress.verifying = true;
                self.enter(RestoreStage::Verify)
            }
            Record::CpuidPolicy(leaves) => self.static_data.set_cpuid(leaves, offset),
            Record::MsrPolicy(entries) => self.static_data.set_msrs(entries, offset),
            Record::StaticDataEnd => {
                let missing = self.static_data.end(self.target)?;
                self.enter(RestoreStage::StaticData(missing))?;
                self.target.static_data_done(missing)
            }
            Record::TscInfo(tsc) => self.target.call(|host, domid| host.set_tsc_info(domid, &tsc)),
            Record::Void(kind) => self.skip_void(kind, offset),
            Record::Optional { .. } => {
                self.progress.optional_records_skipped += 1;
                Ok(())
            }
            Record::Checkpoint => unsupported(RecordKind::Checkpoint, "Remus and COLO are not supported"),
            Record::CheckpointDirtyPfnList(_) => unsupported(RecordKind::CheckpointDirtyPfnList, NO_COLO),
            Record::Toolstack(_) => unsupported(RecordKind::Toolstack, NO_TOOLSTACK),
            record @ (Record::HvmContext(_)
            | Record::HvmParams(_)
            | Record::PvInfo { .. }
            | Record::PvP2mFrames { .. }
            | Record::PvVcpu { .. }
            | Record::SharedInfo(_)) => self.ops.apply(record, offset, &self.static_data, self.target),
        }
    }

    /// Counts and ignores a record without contents (spec, "Errata", 1), unless records of its kind are refused anyway.
    fn skip_void(&mut self, kind: RecordKind, offset: u64) -> Result<(), RestoreError> {
        let refused = |why| Err(RestoreError::Unsupported { kind, offset, why });
        match kind {
            RecordKind::Toolstack => refused(NO_TOOLSTACK),
            RecordKind::CheckpointDirtyPfnList => refused(NO_COLO),
            _ if kind.guest().is_some_and(|guest| guest != self.stream.headers().kind) => {
                refused("the stream is of another kind of guest")
            }
            _ => {
                self.progress.void_records_skipped += 1;
                Ok(())
            }
        }
    }

    fn note_position(&mut self) {
        self.progress.records = self.stream.records();
        self.progress.bytes_received = self.stream.offset();
    }

    /// Enters a stage: it goes into the report, and the caller hears of it.
    fn enter(&mut self, stage: RestoreStage) -> Result<(), RestoreError> {
        self.note_position();
        self.target.tick();
        let event = RestoreEvent::Stage(stage, self.target.timed(&self.progress));
        self.report.note(&event);
        self.target.observe(&event)
    }
}
