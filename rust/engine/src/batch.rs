// SPDX-License-Identifier: GPL-3.0-or-later
//! One batch of pages: query their types, map those with contents, write one PAGE_DATA record, unmap.
//!
//! While the guest runs, three things race with this:
//! * a page is written between the CLEAN that claimed it and the write here: the copy may be torn, but the page is
//!   in the next CLEAN, which sends it again;
//! * a page goes away before its type is queried: it is a hole now, and is sent as one;
//! * a page goes away between the query and the mapping: its mapping fails. It is a hole now, and owed to the final
//!   pass, where nothing moves any more.
//!
//! No mapping outlives its batch: a gfn that was ballooned out and in again has another page behind it, and a kept
//! mapping would show the old one.

use xenmig_hypervisor::{Access, ForeignPages, Hypervisor, Piece, Sink};
use xenmig_stream::{PageWord, encode};
use xenmig_types::{Domid, Gfn, PageType, Pfn};

use crate::{MAX_BATCH_PAGES, SaveError, bitmap::Owed, guest::hvm, stats::Sent};

/// What a pass over the memory does with pages that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// A hole below this pfn is sent as XTAB. From here on the receiver has nothing yet that could become one.
    pub(crate) holes_below: Pfn,
    /// A page that cannot be mapped is owed to the final pass, not an error: the guest is running.
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

/// The buffers of a batch, kept from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The pages to be sent, ascending.
    pub(crate) pfns: Vec<Pfn>,
    gfns: Vec<Gfn>,
    types: Vec<PageType>,
    words: Vec<PageWord>,
    front: Vec<u8>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            pfns: Vec::with_capacity(MAX_BATCH_PAGES),
            gfns: Vec::with_capacity(MAX_BATCH_PAGES),
            types: Vec::with_capacity(MAX_BATCH_PAGES),
            words: Vec::with_capacity(MAX_BATCH_PAGES),
            front: Vec::with_capacity((MAX_BATCH_PAGES + 2) * size_of::<u64>()),
        }
    }

    /// Sends the pages in `pfns`. Pages that vanish are added to `owed` if the pass defers.
    pub(crate) fn send(
        &mut self,
        host: &dyn Hypervisor,
        domid: Domid,
        pass: Pass,
        owed: &mut Owed,
        sink: &mut Sink,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<Sent, Stopped> {
        let mut result = Sent { claimed: self.pfns.len() as u64, ..Sent::default() };
        if self.pfns.is_empty() {
            return Ok(result);
        }
        self.query_types(host, domid)?;
        let pages = self.map(host, domid)?;
        let runs = match &pages {
            Some(pages) => self.settle(domid, pages, pass, owed, &mut result)?,
            None => Vec::new(),
        };
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
        let mut pieces = Vec::with_capacity(1 + runs.len());
        pieces.push(Piece::Bytes(&self.front));
        if let Some(pages) = &pages {
            pieces.extend(runs.into_iter().map(|run| Piece::Pages(pages, run)));
        }
        let before = sink.written();
        sink.write(&pieces, keep_waiting).map_err(Stopped::Sink)?;
        result.bytes = sink.written() - before;
        Ok(result)
    }

    fn query_types(&mut self, host: &dyn Hypervisor, domid: Domid) -> Result<(), SaveError> {
        self.gfns.clear();
        self.gfns.extend(self.pfns.iter().map(|pfn| hvm::gfn(*pfn)));
        self.types.clear();
        self.types.resize(self.gfns.len(), PageType::Xtab);
        Ok(host.page_types(domid, &self.gfns, &mut self.types)?)
    }

    /// Maps the pages that have contents, in order; `None` if no page has.
    fn map(&mut self, host: &dyn Hypervisor, domid: Domid) -> Result<Option<ForeignPages>, SaveError> {
        let mut types = self.types.iter();
        self.gfns.retain(|_| types.next().is_some_and(|kind| kind.has_data()));
        if self.gfns.is_empty() {
            return Ok(None);
        }
        Ok(Some(host.map(domid, &self.gfns, Access::Read)?))
    }

    /// Counts what is mapped, deals with what is not, and returns the runs of mapped pages.
    fn settle(
        &mut self,
        domid: Domid,
        pages: &ForeignPages,
        pass: Pass,
        owed: &mut Owed,
        result: &mut Sent,
    ) -> Result<Vec<std::ops::Range<usize>>, SaveError> {
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        let with_data = self.pfns.iter().zip(&mut self.types).filter(|(_, kind)| kind.has_data());
        for (index, (pfn, kind)) in with_data.enumerate() {
            match pages.error(index) {
                None => {
                    result.sent += 1;
                    match runs.last_mut() {
                        Some(run) if run.end == index => run.end += 1,
                        _ => runs.push(index..index + 1),
                    }
                }
                Some(_) if pass.defer => {
                    *kind = PageType::Xtab;
                    result.deferred += u64::from(owed.add(*pfn));
                }
                Some(errno) => return Err(SaveError::Map { domid, pfn: *pfn, errno }),
            }
        }
        Ok(runs)
    }
}
