// SPDX-License-Identifier: GPL-3.0-or-later
//! PAGE_DATA: checks the pfns, has the pages populated, maps them, and reads their contents from the stream straight into
//! them. No mapping outlives its batch of at most 1024 pages.

use xenmig_hypervisor::Access;
use xenmig_stream::{PageData, RecordKind};

use super::{
    error::RestoreError,
    events::RestoreProgress,
    mapped_pages::{MappedPages, ZEROES},
    ops::RestoreOps,
    stream_source::Stream,
    target::Target,
    typed_pfn::{TypedPfn, check_pfns},
    verification::Verification,
};
use crate::bitmap::MAX_BATCH_PAGES;

/// Where the contents of a page come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The stream, as they are.
    Stream,
    /// The stream, with pfns in them where frames belong.
    PageTable,
    /// Nowhere: Xen does not scrub a page that one live domain gives up and another gets, so a new page may hold anything.
    Zeroes,
}

impl Origin {
    const fn of(page: TypedPfn, has_page_tables: bool) -> Self {
        if !page.kind.has_data() {
            Self::Zeroes
        } else if has_page_tables && page.kind.is_page_table() {
            Self::PageTable
        } else {
            Self::Stream
        }
    }
}

/// Receives the pages of one record.
#[derive(Debug)]
pub(super) struct PageReceiver<'r, 's, 'a> {
    pub(super) stream: &'r mut Stream<'s, 'a>,
    pub(super) target: &'r Target<'a>,
    pub(super) ops: &'r mut dyn RestoreOps,
    pub(super) progress: &'r mut RestoreProgress,
}

impl PageReceiver<'_, '_, '_> {
    /// Receives a record: fills the domain's pages or, with a verification, compares them.
    pub(super) fn receive(
        &mut self,
        record: &PageData,
        mut verification: Option<&mut Verification>,
    ) -> Result<(), RestoreError> {
        let offset = self.stream.record_offset();
        let early = |why| RestoreError::Unsupported { kind: RecordKind::PageData, offset, why };
        check_pfns(&record.words, self.ops.pfn_limit().map_err(early)?, offset)?;
        for words in record.words.chunks(MAX_BATCH_PAGES) {
            let batch = TypedPfn::from_words(words, offset)?;
            self.ops.settle(&batch, verification.is_none(), self.target, self.progress)?;
            match &mut verification {
                None => self.fill(&batch)?,
                Some(verification) => self.compare(&batch, verification)?,
            }
            self.progress.bytes_received = self.stream.offset();
            self.target.attend(self.progress)?;
        }
        Ok(())
    }

    /// Fills the pages of a batch.
    fn fill(&mut self, batch: &[TypedPfn]) -> Result<(), RestoreError> {
        let pages: Vec<TypedPfn> = batch.iter().copied().filter(|page| page.kind.is_populated()).collect();
        let mapped = MappedPages::new(self.target, &pages, self.ops.frames(&pages), Access::Write)?;
        let Some(foreign) = mapped.foreign() else { return Ok(()) };
        let has_page_tables = self.ops.has_page_tables();
        let origin = |page: &TypedPfn| Origin::of(*page, has_page_tables);
        let mut end = 0;
        for run in pages.chunk_by(|a, b| origin(a) == origin(b)) {
            let range = end..end + run.len();
            end = range.end;
            match run.first().map(origin) {
                None => {}
                Some(Origin::Stream) => {
                    let count = run.len() as u64;
                    self.stream.read_pages(count, |source| source.read_pages(foreign, range))?;
                    self.progress.pages_received += count;
                }
                Some(Origin::PageTable) => {
                    for (index, table) in range.zip(run) {
                        self.fill_table(*table, index, &mapped)?;
                    }
                }
                Some(Origin::Zeroes) => {
                    for index in range {
                        mapped.copy_in(index, &ZEROES)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn fill_table(
        &mut self,
        table: TypedPfn,
        index: usize,
        mapped: &MappedPages<'_>,
    ) -> Result<(), RestoreError> {
        let (mut sent, mut here) = (ZEROES, ZEROES);
        self.stream.copy_page(&mut sent)?;
        self.progress.pages_received += 1;
        let offset = self.stream.record_offset();
        self.ops.localise(table, &sent, &mut here, offset, self.target, self.progress)?;
        mapped.copy_in(index, &here)
    }

    /// Compares the pages of a batch with those of the domain.
    fn compare(&mut self, batch: &[TypedPfn], verification: &mut Verification) -> Result<(), RestoreError> {
        let populated = batch.iter().filter(|page| page.kind.is_populated());
        let (there, missing): (Vec<TypedPfn>, Vec<TypedPfn>) =
            populated.partition(|page| self.ops.is_populated(page.pfn));
        for page in missing {
            verification.differs(page.pfn);
        }
        let with_data: Vec<TypedPfn> = there.into_iter().filter(|page| page.kind.has_data()).collect();
        let mapped = MappedPages::new(self.target, &with_data, self.ops.frames(&with_data), Access::Read)?;
        let mut comparable = with_data.iter().enumerate().peekable();
        let (mut sent, mut here) = (ZEROES, ZEROES);
        for page in batch.iter().filter(|page| page.kind.has_data()) {
            self.stream.copy_page(&mut sent)?;
            self.progress.pages_received += 1;
            let Some((index, _)) = comparable.next_if(|(_, mapped)| *mapped == page) else { continue };
            mapped.copy_out(index, &mut here)?;
            self.progress.pages_verified += 1;
            if !self.ops.is_same(*page, &sent, &here, self.stream.record_offset())? {
                verification.differs(page.pfn);
            }
        }
        Ok(())
    }
}
