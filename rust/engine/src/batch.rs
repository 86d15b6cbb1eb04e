// SPDX-License-Identifier: GPL-3.0-or-later
//! One batch of pages: query their types, map those with contents, write one PAGE_DATA record, unmap.
//!
//! While the guest runs, three things race with this:
//! * a page is written between the CLEAN that claimed it and the write here: the copy may be torn, but the page is
//!   in the next CLEAN, which sends it again;
//! * a page goes away before its type is queried: it is a hole now, and is sent as one;
//! * a page goes away between the query and the mapping: its mapping fails. It is a hole now, and owed to the final
//!   pass, where nothing moves any more;
//! * a page table of a PV guest is caught in the middle of an update and names a frame that is none of the guest's: it,
//!   too, is a hole now and owed. So is a pfn without a frame, as nothing logs that it gets one.
//!
//! No mapping outlives its batch: a gfn that was ballooned out and in again has another page behind it, and a kept
//! mapping would show the old one.

use std::ops::Range;

use xenmig_hypervisor::{Access, Errno, ForeignPages, Hypervisor, KeepWaiting, Piece, Sink};
use xenmig_stream::{PageWord, encode};
use xenmig_types::{Domid, Gfn, PAGE_SIZE, PageType, Pfn};

use crate::{
    MAX_BATCH_PAGES, SaveError,
    bitmap::Owed,
    guest::{Guest, NO_FRAME, TableFault},
    stats::Sent,
};

/// The domain that a batch is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of<'a> {
    pub(crate) host: &'a dyn Hypervisor,
    pub(crate) domid: Domid,
    pub(crate) guest: &'a Guest,
}

/// What a pass over the memory does with pages that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// A hole below this pfn is sent as XTAB. From here on the receiver has nothing yet that could become one.
    pub(crate) holes_below: Pfn,
    /// A page that cannot be sent is owed to the final pass, not an error: the guest is running.
    pub(crate) defer: bool,
}

/// Why a write to the stream stopped.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A step failed.
    Save(SaveError),
    /// The sink failed.
    Sink(std::io::Error),
}

impl<E: Into<SaveError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Save(error.into())
    }
}

/// Pages with contents, in order.
#[derive(Clone, Debug)]
enum Contents {
    /// A run of mapped pages that are sent as they are.
    Mapped(Range<usize>),
    /// A run of page tables, in bytes of [`Batch::tables`].
    Tables(Range<usize>),
}

/// Why a page with contents cannot be sent now.
enum Obstacle {
    Unmapped(Errno),
    Table(TableFault),
}

/// The buffers of a batch, kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The pages to be sent, ascending.
    pub(crate) pfns: Vec<Pfn>,
    gfns: Vec<Gfn>,
    types: Vec<PageType>,
    words: Vec<PageWord>,
    front: Vec<u8>,
    contents: Vec<Contents>,
    /// Page tables as the stream has them.
    tables: Vec<u8>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            pfns: Vec::with_capacity(MAX_BATCH_PAGES),
            gfns: Vec::with_capacity(MAX_BATCH_PAGES),
            types: Vec::with_capacity(MAX_BATCH_PAGES),
            words: Vec::with_capacity(MAX_BATCH_PAGES),
            front: Vec::with_capacity((MAX_BATCH_PAGES + 2) * size_of::<u64>()),
            contents: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Sends the pages in `pfns`. Pages that cannot be sent now are added to `owed` if the pass defers.
    pub(crate) fn send(
        &mut self,
        of: Of<'_>,
        pass: Pass,
        owed: &mut Owed,
        sink: &mut Sink,
        keep_waiting: &mut KeepWaiting<'_>,
    ) -> Result<Sent, Stopped> {
        let mut result = Sent { claimed: self.pfns.len() as u64, ..Sent::default() };
        if self.pfns.is_empty() {
            return Ok(result);
        }
        self.query_types(of, pass, owed, &mut result)?;
        let pages = self.map(of)?;
        self.contents.clear();
        self.tables.clear();
        if let Some(pages) = &pages {
            self.settle(of, pages, pass, owed, &mut result)?;
        }
        self.words.clear();
        let described = self.pfns.iter().zip(&self.types);
        self.words.extend(
            described
                .filter(|(pfn, kind)| **kind != PageType::Xtab || **pfn < pass.holes_below)
                .map(|(pfn, kind)| PageWord::new(*pfn, *kind)),
        );
        if self.words.is_empty() {
            return Ok(result);
        }
        self.front.clear();
        encode::page_data(&mut self.front, &self.words)?;
        let mut pieces = Vec::with_capacity(1 + self.contents.len());
        pieces.push(Piece::Bytes(&self.front));
        if let Some(pages) = &pages {
            pieces.extend(self.contents.iter().map(|run| match run {
                Contents::Mapped(run) => Piece::Pages(pages, run.clone()),
                Contents::Tables(run) => Piece::Bytes(self.tables.get(run.clone()).unwrap_or_default()),
            }));
        }
        let before = sink.written();
        sink.write(&pieces, keep_waiting).map_err(Stopped::Sink)?;
        result.bytes = sink.written() - before;
        Ok(result)
    }

    /// Finds the frames and asks for their types. A pfn without a frame gets one without the log's noticing.
    fn query_types(
        &mut self,
        of: Of<'_>,
        pass: Pass,
        owed: &mut Owed,
        result: &mut Sent,
    ) -> Result<(), SaveError> {
        let missing = of.guest.frames(&self.pfns, &mut self.gfns);
        if missing > 0 && pass.defer {
            let without = self.pfns.iter().zip(&self.gfns).filter(|(_, gfn)| **gfn == NO_FRAME);
            result.deferred += without.map(|(pfn, _)| u64::from(owed.add(*pfn))).sum::<u64>();
        }
        self.types.clear();
        self.types.resize(self.gfns.len(), PageType::Xtab);
        Ok(of.host.page_types(of.domid, &self.gfns, &mut self.types)?)
    }

    /// Maps the pages that have contents, in order; `None` if no page has.
    fn map(&mut self, of: Of<'_>) -> Result<Option<ForeignPages>, SaveError> {
        let mut types = self.types.iter();
        self.gfns.retain(|_| types.next().is_some_and(|kind| kind.has_data()));
        if self.gfns.is_empty() {
            return Ok(None);
        }
        Ok(Some(of.host.map(of.domid, &self.gfns, Access::Read)?))
    }

    /// Counts what can be sent, deals with what cannot, and leaves the contents in order.
    fn settle(
        &mut self,
        of: Of<'_>,
        pages: &ForeignPages,
        pass: Pass,
        owed: &mut Owed,
        result: &mut Sent,
    ) -> Result<(), SaveError> {
        let domid = of.domid;
        let with_data = self.pfns.iter().zip(&mut self.types).filter(|(_, kind)| kind.has_data());
        for (index, (pfn, kind)) in with_data.enumerate() {
            let obstacle = match pages.error(index) {
                Some(errno) => Some(Obstacle::Unmapped(errno)),
                None if kind.is_page_table() => {
                    table(of.guest, pages, index, *kind, &mut self.tables, &mut self.contents)
                        .err()
                        .map(Obstacle::Table)
                }
                None => {
                    match self.contents.last_mut() {
                        Some(Contents::Mapped(run)) if run.end == index => run.end += 1,
                        _ => self.contents.push(Contents::Mapped(index..index + 1)),
                    }
                    None
                }
            };
            match obstacle {
                None => result.sent += 1,
                Some(Obstacle::Unmapped(_) | Obstacle::Table(TableFault::Frame { .. })) if pass.defer => {
                    *kind = PageType::Xtab;
                    result.deferred += u64::from(owed.add(*pfn));
                }
                Some(Obstacle::Unmapped(errno)) => return Err(SaveError::Map { domid, pfn: *pfn, errno }),
                Some(Obstacle::Table(fault)) => return Err(SaveError::PageTable { domid, pfn: *pfn, fault }),
            }
        }
        Ok(())
    }
}

/// Adds a page table to the contents, as the stream has it.
fn table(
    guest: &Guest,
    pages: &ForeignPages,
    index: usize,
    kind: PageType,
    tables: &mut Vec<u8>,
    contents: &mut Vec<Contents>,
) -> Result<(), TableFault> {
    let mut table = [0; PAGE_SIZE];
    // The page is mapped, so it is copied.
    pages.copy_out(index, &mut table);
    let start = tables.len();
    if let Err(fault) = guest.normalise(kind, &table, tables) {
        tables.truncate(start);
        return Err(fault);
    }
    match contents.last_mut() {
        Some(Contents::Tables(run)) => run.end = tables.len(),
        _ => contents.push(Contents::Tables(start..tables.len())),
    }
    Ok(())
}
