// SPDX-License-Identifier: GPL-3.0-or-later
//! PAGE_DATA: checks the words, has the pages populated, maps them, and reads their contents from the stream straight
//! into them. No mapping outlives its part of the batch.

use xenmig_hypervisor::{Access, Errno, ForeignPages, PageBuffer};
use xenmig_stream::{PageData, PageWord, StreamError};
use xenmig_types::{PAGE_SIZE, PageType, Pfn, UnknownPageType};

use super::{Guest, Restore, RestoreError};
use crate::MAX_BATCH_PAGES;

/// `EFAULT` of Linux.
pub(super) const EFAULT: Errno = Errno(14);

pub(super) const ZEROES: PageBuffer = [0; PAGE_SIZE];

/// One word of a batch, opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) pfn: Pfn,
    pub(super) kind: PageType,
}

/// Where the contents of a page come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    /// From the stream, as they are.
    Plain,
    /// From the stream, with pfns in them where frames belong.
    Frames,
    /// From nowhere: Xen does not scrub what it takes from one domain and gives to another while they live, so a new
    /// page may hold anything.
    Zeroes,
}

impl Contents {
    fn of<G: Guest>(page: Page) -> Self {
        match page.kind {
            kind if !kind.has_data() => Self::Zeroes,
            kind if G::holds_frames(kind) => Self::Frames,
            _ => Self::Plain,
        }
    }
}

impl<G: Guest> Restore<'_, '_, G> {
    /// Deals with a whole record, in parts of the size that a sender's batches have.
    pub(super) fn page_data(&mut self, batch: &PageData) -> Result<(), RestoreError> {
        let offset = self.reader.record_offset();
        check(&batch.words, self.guest.pfn_limit(offset)?, offset)?;
        for words in batch.words.chunks(MAX_BATCH_PAGES) {
            self.open(words)?;
            G::settle(self)?;
            if self.verification.is_some() {
                self.compare()?;
            } else {
                self.fill()?;
            }
            self.attend()?;
        }
        Ok(())
    }

    fn open(&mut self, words: &[PageWord]) -> Result<(), RestoreError> {
        self.pages.clear();
        for word in words {
            let (offset, pfn) = (self.reader.record_offset(), word.pfn());
            let unknown = |UnknownPageType(found)| StreamError::PageType { offset, pfn, found };
            self.pages.push(Page { pfn, kind: word.page_type().map_err(unknown)? });
        }
        Ok(())
    }

    /// Fills the pages of the batch.
    fn fill(&mut self) -> Result<(), RestoreError> {
        let pages: Vec<Page> = self.pages.iter().copied().filter(|page| page.kind.is_populated()).collect();
        let Some(mapped) = self.map(&pages, Access::Write)? else { return Ok(()) };
        let mut end = 0;
        for run in pages.chunk_by(|a, b| Contents::of::<G>(*a) == Contents::of::<G>(*b)) {
            let Some(first) = run.first() else { continue };
            let range = end..end + run.len();
            end = range.end;
            match Contents::of::<G>(*first) {
                Contents::Plain => {
                    let count = run.len() as u64;
                    self.reader.read_pages(count, |feed| feed.read_pages(&mapped, range))?;
                    self.report.pages_received += count;
                }
                Contents::Frames => {
                    for (index, page) in range.zip(run) {
                        let contents = self.localised(*page)?;
                        self.copy_in(&mapped, index, page.pfn, &contents)?;
                    }
                }
                Contents::Zeroes => {
                    for (index, page) in range.zip(run) {
                        self.copy_in(&mapped, index, page.pfn, &ZEROES)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a page with frames from the stream, gives the domain what it refers to, and puts in the frames of here.
    fn localised(&mut self, page: Page) -> Result<PageBuffer, RestoreError> {
        let (mut sent, mut here) = (ZEROES, ZEROES);
        self.reader.copy_page(&mut sent)?;
        self.report.pages_received += 1;
        let offset = self.reader.record_offset();
        let missing = self.guest.localise(page, &sent, &mut here, offset)?;
        if !missing.is_empty() {
            self.give(&missing)?;
            self.guest.localise(page, &sent, &mut here, offset)?;
        }
        Ok(here)
    }

    /// Writes a page that is mapped.
    pub(super) fn copy_in(
        &self,
        mapped: &ForeignPages,
        index: usize,
        pfn: Pfn,
        contents: &PageBuffer,
    ) -> Result<(), RestoreError> {
        if mapped.copy_in(index, contents) { Ok(()) } else { Err(self.unmapped(pfn)) }
    }

    /// Maps pages, all of them; `None` if there are none.
    pub(super) fn map(
        &mut self,
        pages: &[Page],
        access: Access,
    ) -> Result<Option<ForeignPages>, RestoreError> {
        if pages.is_empty() {
            return Ok(None);
        }
        let gfns = self.guest.frames(pages).map_err(|pfn| self.unmapped(pfn))?;
        let mapped = self.reader.source_mut().retry(|| self.host.map(self.domid, &gfns, access))?;
        for (index, page) in pages.iter().enumerate() {
            if let Some(errno) = mapped.error(index) {
                return Err(RestoreError::Map { domid: self.domid, pfn: page.pfn, errno });
            }
        }
        Ok(Some(mapped))
    }

    /// The error of a page that is not where its mapping said it is.
    pub(super) const fn unmapped(&self, pfn: Pfn) -> RestoreError {
        RestoreError::Map { domid: self.domid, pfn, errno: EFAULT }
    }
}

/// Checks the pfns of a batch: each one the guest can have, and none twice.
fn check(words: &[PageWord], limit: Pfn, offset: u64) -> Result<(), RestoreError> {
    if let Some(word) = words.iter().find(|word| word.pfn() >= limit) {
        return Err(RestoreError::PfnTooHigh { offset, pfn: word.pfn() });
    }
    // Senders walk upward, so there is rarely anything to sort.
    if words.is_sorted_by(|a, b| a.pfn() < b.pfn()) {
        return Ok(());
    }
    let mut pfns: Vec<Pfn> = words.iter().map(|word| word.pfn()).collect();
    pfns.sort_unstable();
    match pfns.iter().zip(pfns.iter().skip(1)).find(|(a, b)| a == b) {
        Some((pfn, _)) => Err(RestoreError::PfnTwice { offset, pfn: *pfn }),
        None => Ok(()),
    }
}
