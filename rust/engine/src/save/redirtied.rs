// SPDX-License-Identifier: GPL-3.0-or-later
//! Pages that are dirty again when their turn comes: sending them now is wasted, because the next CLEAN has them.

use xenmig_hypervisor::{DirtyBitmap, Moment};

use super::{pipeline::Pipeline, save_error::SaveError};
use crate::{bitmap, policy::decision::ConsultMode};

/// What the last PEEK showed.
#[derive(Debug)]
pub(crate) struct Redirtied {
    bitmap: DirtyBitmap,
    peeked: Option<Moment>,
}

impl Redirtied {
    /// Returns nothing if the save does not skip pages.
    pub(crate) fn new(save: &mut Pipeline<'_>) -> Result<Option<Self>, SaveError> {
        if !save.options.skip_redirtied || save.options.consult != ConsultMode::Batch {
            return Ok(None);
        }
        let bitmap = save.domain.host.dirty_bitmap(save.domain.domid, save.decide.ledger.p2m_size())?;
        Ok(Some(Self { bitmap, peeked: None }))
    }

    /// Forgets everything: a CLEAN has taken it.
    pub(crate) fn forget(&mut self) {
        self.bitmap.fill(|words| words.fill(0));
        self.peeked = None;
    }

    /// Takes the pages that are dirty again out of the batch and returns how many there were. Between two CLEANs a page
    /// only ever becomes dirty, so an old PEEK misses pages but never names a wrong one.
    pub(crate) fn leave_out(&mut self, save: &mut Pipeline<'_>) -> u64 {
        let now = save.decide.watch.tick();
        if self.peeked.is_none_or(|at| now.since(at) >= save.options.skip_interval) {
            match save.domain.host.peek(save.domain.domid, Some(&mut self.bitmap)) {
                Ok(_) => self.peeked = Some(now),
                // Skipping only saves work: without an answer nothing is skipped.
                Err(_) => self.forget(),
            }
        }
        let before = save.pfns.len();
        let words = self.bitmap.words();
        save.pfns.retain(|pfn| !bitmap::contains(words, *pfn));
        (before - save.pfns.len()) as u64
    }
}
