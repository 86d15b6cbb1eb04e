// SPDX-License-Identifier: GPL-3.0-or-later
//! A saved stream taken apart: its records with their places, and what a receiver would have in the end. The bytes
//! come from a test's save; the reader is the stream crate's, which has no code in common with the engine's writing.

use xenmig_stream::{Reader, Record, StreamError};
use xenmig_types::PageType;

/// One word of a PAGE_DATA record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) pfn: u64,
    pub(crate) kind: PageType,
    /// Where in the stream its page is, if it has one.
    pub(crate) contents: Option<usize>,
}

/// A record, with the offset at which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) at: usize,
    pub(crate) record: Record,
    /// The words of a PAGE_DATA record.
    pub(crate) words: Vec<Word>,
}

/// The records of a stream, up to where it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) items: Vec<Item>,
    /// END was there.
    pub(crate) ended: bool,
    /// How many bytes headers and whole records take, END included.
    pub(crate) length: usize,
}

impl Stream {
    /// Takes a stream apart. One that is cut short is no error; one that breaks the format is.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StreamError> {
        let mut stream = Self::default();
        match stream.read(bytes) {
            Ok(()) | Err(StreamError::Truncated { .. }) => Ok(stream),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let mut reader = Reader::new(bytes)?;
        loop {
            let at = reader.offset() as usize;
            let Some(record) = reader.next_record()? else {
                self.length = reader.offset() as usize;
                self.ended = true;
                return Ok(());
            };
            let mut words = Vec::new();
            if let Record::PageData(data) = &record {
                for word in &data.words {
                    let kind = word.page_type().unwrap();
                    let contents = kind.has_data().then(|| reader.offset() as usize);
                    reader.skip_pages(u64::from(kind.has_data()))?;
                    words.push(Word { pfn: word.pfn().0, kind, contents });
                }
            }
            self.items.push(Item { at, record, words });
            self.length = reader.offset() as usize;
        }
    }

    /// Returns the PAGE_DATA records.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| matches!(item.record, Record::PageData(_)))
    }

    /// Returns the names of the records in order, consecutive PAGE_DATA as one.
    pub(crate) fn outline(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.items.iter().map(|item| item.record.kind().map_or("optional", |kind| kind.name())).collect();
        names.dedup();
        names
    }

    /// Splits at VERIFY: what is sent to be kept, and what is sent to be compared.
    pub(crate) fn split(&self) -> (&[Item], &[Item]) {
        let verify = self.items.iter().position(|item| item.record == Record::Verify);
        self.items.split_at(verify.unwrap_or(self.items.len()))
    }
}

/// What a receiver heard last about a pfn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Last {
    /// Nothing.
    #[default]
    Never,
    /// That it is a hole.
    Hole,
    /// The page whose contents begin here.
    Page(usize),
}

/// Returns what an empty receiver has after these records, for each pfn up to the highest that was named.
pub(crate) fn outcome(items: &[Item]) -> Vec<Last> {
    let mut last = Vec::new();
    for word in items.iter().flat_map(|item| &item.words) {
        let pfn = word.pfn as usize;
        if last.len() <= pfn {
            last.resize(pfn + 1, Last::Never);
        }
        last[pfn] = word.contents.map_or(Last::Hole, Last::Page);
    }
    last
}
