// SPDX-License-Identifier: GPL-3.0-or-later
//! Writing: prepared batches and records go into the sink. A write that waits for the other end keeps asking
//! [`Decide::while_waiting`] whether to go on.

use xenmig_hypervisor::{Piece, Sink};

use super::{decide::Decide, prepare::Prepared, save_error::SaveError};

/// Where the stream goes.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    sink: &'a mut Sink,
    /// What the sink had written before this save.
    before: u64,
}

impl<'a> Write<'a> {
    pub(crate) const fn new(sink: &'a mut Sink) -> Self {
        Self { before: sink.written(), sink }
    }

    /// Writes a batch as one PAGE_DATA record, and returns how many bytes that was: none if there is nothing to say.
    pub(crate) fn batch(&mut self, prepared: &Prepared, decide: &mut Decide<'_>) -> Result<u64, SaveError> {
        if prepared.is_empty() {
            return Ok(0);
        }
        let before = self.sink.written();
        self.pieces(&prepared.pieces(), decide)?;
        Ok(self.sink.written() - before)
    }

    /// Writes bytes that are not pages: headers and state records.
    pub(crate) fn bytes(&mut self, bytes: &[u8], decide: &mut Decide<'_>) -> Result<(), SaveError> {
        self.pieces(&[Piece::Bytes(bytes)], decide)?;
        decide.ledger.enter_bytes(bytes.len() as u64);
        Ok(())
    }

    fn pieces(&mut self, pieces: &[Piece<'_>], decide: &mut Decide<'_>) -> Result<(), SaveError> {
        decide.begin_write();
        let mut stopped = None;
        let written = self.sink.write(pieces, &mut |moved| match decide.while_waiting(moved) {
            Ok(()) => true,
            Err(error) => {
                stopped = Some(error);
                false
            }
        });
        written.map_err(|source| {
            let torn = SaveError::Transport { source, written: self.sink.written() - self.before };
            stopped.unwrap_or(torn)
        })
    }
}
