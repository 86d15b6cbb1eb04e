// SPDX-License-Identifier: GPL-3.0-or-later
//! The bytes of the stream: a [`Source`] as the stream's reader wants it. While nothing comes, the target decides whether to
//! go on waiting.

use std::{
    io::{self, Read},
    ops::Range,
};

use xenmig_hypervisor::{ForeignPages, Source};
use xenmig_stream::Reader;

use super::target::Target;

/// The stream's records, read from a source.
pub(super) type Stream<'s, 'a> = Reader<StreamSource<'s, 'a>>;

/// A source of bytes.
#[derive(Debug)]
pub(super) struct StreamSource<'s, 'a> {
    source: &'s mut Source,
    target: &'s Target<'a>,
}

impl<'s, 'a> StreamSource<'s, 'a> {
    pub(super) const fn new(source: &'s mut Source, target: &'s Target<'a>) -> Self {
        Self { source, target }
    }

    /// Fills consecutive pages of a mapping. An error comes with the number of bytes that were read before it.
    pub(super) fn read_pages(
        &mut self,
        pages: &ForeignPages,
        range: Range<usize>,
    ) -> Result<(), (u64, io::Error)> {
        let before = self.source.read();
        let Self { source, target } = self;
        source
            .read_pages(pages, range, &mut |moved| target.keep_waiting(moved))
            .map_err(|error| (source.read() - before, lasting(error)))
    }
}

impl Read for StreamSource<'_, '_> {
    /// Waits until the buffer is full: the reader asks for nothing that it does not need. At the end of the stream it
    /// returns what came, and then nothing.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.source.read();
        let Self { source, target } = self;
        match source.read_exact(buffer, &mut |moved| target.keep_waiting(moved)) {
            Ok(()) => Ok(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                usize::try_from(source.read() - before).map_err(io::Error::other)
            }
            Err(error) => Err(lasting(error)),
        }
    }
}

/// Changes the kind of an interruption: readers try again when they see `Interrupted`, and this one is meant to last.
fn lasting(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted { io::Error::other(error) } else { error }
}
