// SPDX-License-Identifier: GPL-3.0-or-later
//! Preparing: from pfns to typed, mapped and normalised pages, ready to be written as one PAGE_DATA record.
//!
//! ```text
//! pfns ─► frames ─► types ─► mapping ─► page tables rewritten ─► Prepared ─► write.rs
//! ```
//!
//! While the guest runs, this races with it in four ways:
//! * a page is written between the CLEAN that claimed it and the write to the stream: the copy may be torn, but the page
//!   is in the next CLEAN, which sends it again;
//! * a page goes away before its type is queried: it is a hole now, and is sent as one;
//! * a page goes away between the query and the mapping: its mapping fails. It is a hole now, and owed to the final pass,
//!   where nothing moves any more;
//! * a page table of a PV guest is caught in the middle of an update and names a frame that the guest does not own: it,
//!   too, is a hole now and owed. So is a pfn without a frame, as no log shows that it gets one.
//!
//! No mapping outlives its batch: a gfn that was ballooned out and in again has another page behind it, and a kept mapping
//! would show the old one.

use std::ops::Range;

use xenmig_hypervisor::{Access, Errno, ForeignPages, Piece};
use xenmig_stream::{PageWord, encode};
use xenmig_types::{Gfn, PAGE_SIZE, PageType, Pfn};

use super::save_error::SaveError;
use crate::{
    bitmap::MAX_BATCH_PAGES,
    guest::{
        save_ops::{Domain, NO_FRAME, SaveOps, SaveWatch},
        table_fault::TableFault,
    },
};

/// What a pass over the memory does with pages that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// A hole below this pfn is sent as XTAB. From here on the receiver has nothing yet that could become one.
    pub(crate) holes_below: Pfn,
    /// A page that cannot be sent is owed to the final pass, not an error: the guest is running.
    pub(crate) defer: bool,
}

/// Pages with contents, in order.
#[derive(Clone, Debug)]
enum Contents {
    /// A run of mapped pages that are sent as they are.
    Mapped(Range<usize>),
    /// A run of page tables, in bytes of [`Prepared::tables`].
    Tables(Range<usize>),
}

/// Why a page with contents cannot be sent now.
enum Obstacle {
    Unmapped(Errno),
    Table(TableFault),
}

/// A batch that can be written. It owns its mapping and its buffers, which serve again for a later batch.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The record's header and words; empty if there is nothing to say.
    front: Vec<u8>,
    pages: Option<ForeignPages>,
    contents: Vec<Contents>,
    /// Page tables as the stream has them.
    tables: Vec<u8>,
    /// Pages whose contents are in the record.
    pub(crate) sent: u64,
    /// Pages that the final pass must look at again.
    pub(crate) deferred: Vec<Pfn>,
}

impl Prepared {
    /// Allocates the buffers of a batch. Page tables take more, when there are any.
    pub(crate) fn new() -> Self {
        Self {
            front: Vec::with_capacity((MAX_BATCH_PAGES + 2) * size_of::<u64>()),
            pages: None,
            contents: Vec::with_capacity(MAX_BATCH_PAGES),
            tables: Vec::new(),
            sent: 0,
            deferred: Vec::with_capacity(MAX_BATCH_PAGES),
        }
    }

    /// Unmaps the pages and forgets the batch, but keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.front.clear();
        self.pages = None;
        self.contents.clear();
        self.tables.clear();
        self.sent = 0;
        self.deferred.clear();
    }

    /// Says whether there is nothing to write.
    pub(crate) const fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// Returns what is to be written, in order.
    pub(crate) fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::with_capacity(1 + self.contents.len());
        pieces.push(Piece::Bytes(&self.front));
        if let Some(pages) = &self.pages {
            pieces.extend(self.contents.iter().map(|run| match run {
                Contents::Mapped(run) => Piece::Pages(pages, run.clone()),
                Contents::Tables(run) => Piece::Bytes(self.tables.get(run.clone()).unwrap_or_default()),
            }));
        }
        pieces
    }

    /// Appends a page table as the stream has it.
    fn push_table(
        &mut self,
        guest: &dyn SaveOps,
        pages: &ForeignPages,
        index: usize,
        kind: PageType,
    ) -> Result<(), TableFault> {
        let mut table = [0; PAGE_SIZE];
        // The page is mapped, so it is copied.
        pages.copy_out(index, &mut table);
        let start = self.tables.len();
        if let Err(fault) = guest.normalise(kind, &table, &mut self.tables) {
            self.tables.truncate(start);
            return Err(fault);
        }
        match self.contents.last_mut() {
            Some(Contents::Tables(run)) => run.end = self.tables.len(),
            _ => self.contents.push(Contents::Tables(start..self.tables.len())),
        }
        Ok(())
    }

    fn push_page(&mut self, index: usize) {
        match self.contents.last_mut() {
            Some(Contents::Mapped(run)) if run.end == index => run.end += 1,
            _ => self.contents.push(Contents::Mapped(index..index + 1)),
        }
    }
}

/// What prepares batches: the domain, its kind, and working memory.
#[derive(Debug)]
pub(crate) struct Prepare<'a> {
    domain: Domain<'a>,
    pub(crate) guest: Box<dyn SaveOps>,
    gfns: Vec<Gfn>,
    types: Vec<PageType>,
    words: Vec<PageWord>,
}

impl<'a> Prepare<'a> {
    pub(crate) fn new(domain: Domain<'a>, guest: Box<dyn SaveOps>) -> Self {
        Self {
            domain,
            guest,
            gfns: Vec::with_capacity(MAX_BATCH_PAGES),
            types: Vec::with_capacity(MAX_BATCH_PAGES),
            words: Vec::with_capacity(MAX_BATCH_PAGES),
        }
    }

    /// Prepares the pages at `pfns`, at most 1024 and ascending, in `batch`, which is clear.
    pub(crate) fn batch(
        &mut self,
        pfns: &[Pfn],
        pass: Pass,
        batch: &mut Prepared,
        watch: &mut SaveWatch<'_>,
    ) -> Result<(), SaveError> {
        if pfns.is_empty() {
            return Ok(());
        }
        let missing = self.query_types(pfns, watch)?;
        if missing > 0 && pass.defer {
            let without = pfns.iter().zip(&self.gfns).filter(|(_, gfn)| **gfn == NO_FRAME);
            batch.deferred.extend(without.map(|(pfn, _)| *pfn));
        }
        batch.pages = self.map(watch)?;
        if let Some(pages) = batch.pages.take() {
            self.collect(pfns, &pages, pass, batch)?;
            batch.pages = Some(pages);
        }
        self.words.clear();
        let described = pfns.iter().zip(&self.types);
        self.words.extend(
            described
                .filter(|(pfn, kind)| **kind != PageType::Xtab || **pfn < pass.holes_below)
                .map(|(pfn, kind)| PageWord::new(*pfn, *kind)),
        );
        if !self.words.is_empty() {
            encode::page_data(&mut batch.front, &self.words)?;
        }
        Ok(())
    }

    /// Finds out which of the pages at `pfns` are holes, and keeps the others.
    pub(crate) fn leave_out_holes(
        &mut self,
        pfns: &mut Vec<Pfn>,
        watch: &mut SaveWatch<'_>,
    ) -> Result<(), SaveError> {
        self.query_types(pfns, watch)?;
        let mut found = self.types.iter().zip(&self.gfns);
        // A pfn without a frame may get one without the log noticing, so it stays.
        pfns.retain(|_| found.next().is_some_and(|(kind, gfn)| *kind != PageType::Xtab || *gfn == NO_FRAME));
        Ok(())
    }

    /// Finds the frames behind pfns and their types. Returns how many have no frame.
    fn query_types(&mut self, pfns: &[Pfn], watch: &mut SaveWatch<'_>) -> Result<usize, SaveError> {
        let Domain { host, domid } = self.domain;
        let missing = self.guest.frames(pfns, &mut self.gfns);
        self.types.clear();
        self.types.resize(self.gfns.len(), PageType::Xtab);
        watch.retry(|| host.page_types(domid, &self.gfns, &mut self.types))?;
        Ok(missing)
    }

    /// Maps the pages that have contents, in order; `None` if no page has.
    fn map(&mut self, watch: &mut SaveWatch<'_>) -> Result<Option<ForeignPages>, SaveError> {
        let Domain { host, domid } = self.domain;
        let mut types = self.types.iter();
        self.gfns.retain(|_| types.next().is_some_and(|kind| kind.has_data()));
        if self.gfns.is_empty() {
            return Ok(None);
        }
        Ok(Some(watch.retry(|| host.map(domid, &self.gfns, Access::Read))?))
    }

    /// Collects the contents of the mapped pages, in order, and deals with what cannot be sent.
    fn collect(
        &mut self,
        pfns: &[Pfn],
        pages: &ForeignPages,
        pass: Pass,
        batch: &mut Prepared,
    ) -> Result<(), SaveError> {
        let domid = self.domain.domid;
        let with_data = pfns.iter().zip(&mut self.types).filter(|(_, kind)| kind.has_data());
        for (index, (pfn, kind)) in with_data.enumerate() {
            let obstacle = match pages.error(index) {
                Some(errno) => Some(Obstacle::Unmapped(errno)),
                None if kind.is_page_table() => {
                    batch.push_table(&*self.guest, pages, index, *kind).err().map(Obstacle::Table)
                }
                None => {
                    batch.push_page(index);
                    None
                }
            };
            match obstacle {
                None => batch.sent += 1,
                Some(Obstacle::Unmapped(_) | Obstacle::Table(TableFault::Frame { .. })) if pass.defer => {
                    *kind = PageType::Xtab;
                    batch.deferred.push(*pfn);
                }
                Some(Obstacle::Unmapped(errno)) => return Err(SaveError::Map { domid, pfn: *pfn, errno }),
                Some(Obstacle::Table(fault)) => return Err(SaveError::PageTable { domid, pfn: *pfn, fault }),
            }
        }
        Ok(())
    }
}
