// SPDX-License-Identifier: GPL-3.0-or-later
//! PAGE_DATA: checks the words, has the pages populated, maps them, and reads their contents from the stream straight
//! into them. No mapping outlives its part of the batch.

use xenmig_hypervisor::{Access, Errno, ForeignPages, PageBuffer};
use xenmig_stream::{PageData, PageWord, StreamError};
use xenmig_types::{Gfn, PAGE_SHIFT, PAGE_SIZE, PageType, Pfn, UnknownPageType};

use super::{Restore, RestoreError};
use crate::{MAX_BATCH_PAGES, guest::hvm};

/// Physical addresses of x86 have at most 52 bits. What the host can really do is less, and it says so itself.
const PFN_LIMIT: Pfn = Pfn(1 << (52 - PAGE_SHIFT));

/// `EFAULT` of Linux.
const EFAULT: Errno = Errno(14);

const ZEROES: PageBuffer = [0; PAGE_SIZE];

/// One word of a batch, opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) pfn: Pfn,
    pub(super) kind: PageType,
}

impl Restore<'_, '_> {
    /// Deals with a whole record, in parts of the size that a sender's batches have.
    pub(super) fn page_data(&mut self, batch: &PageData) -> Result<(), RestoreError> {
        check(&batch.words, self.reader.record_offset())?;
        for words in batch.words.chunks(MAX_BATCH_PAGES) {
            self.open(words)?;
            self.vacate()?;
            if self.verification.is_some() {
                self.compare()?;
            } else {
                self.populate()?;
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

    /// Fills the pages that have contents from the stream, and those that have none with zeroes: Xen does not scrub
    /// what it takes from one domain and gives to another while they live, so a new page may hold anything.
    fn fill(&mut self) -> Result<(), RestoreError> {
        let pages: Vec<Page> = self.pages.iter().copied().filter(|page| page.kind.is_populated()).collect();
        let Some(mapped) = self.map(&pages, Access::Write)? else { return Ok(()) };
        let mut end = 0;
        for run in pages.chunk_by(|a, b| a.kind.has_data() == b.kind.has_data()) {
            let range = end..end + run.len();
            end = range.end;
            if run.iter().all(|page| page.kind.has_data()) {
                let count = run.len() as u64;
                self.reader.read_pages(count, |feed| feed.read_pages(&mapped, range))?;
                self.report.pages_received += count;
            } else {
                for (index, page) in range.zip(run) {
                    if !mapped.copy_in(index, &ZEROES) {
                        return Err(self.unmapped(page.pfn));
                    }
                }
            }
        }
        Ok(())
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
        let gfns: Vec<Gfn> = pages.iter().map(|page| hvm::gfn(page.pfn)).collect();
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

/// Checks the pfns of a batch: each one a guest can have, and none twice.
fn check(words: &[PageWord], offset: u64) -> Result<(), RestoreError> {
    if let Some(word) = words.iter().find(|word| word.pfn() >= PFN_LIMIT) {
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
