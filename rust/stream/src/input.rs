// SPDX-License-Identifier: GPL-3.0-or-later
//! The reader's only access to its source: it counts the bytes, and memory grows only as they arrive, so that a
//! length which a header merely claims costs nothing.

use std::io::{self, Read};

use crate::{Expected, PageWord, StreamError, format::IMAGE_HEADER_BYTES};

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;
/// How many words of a PAGE_DATA record are read at once: the batch of libxc, several times over.
const WORDS: usize = 8192;
/// Bytes in a word.
const WORD: usize = size_of::<u64>();

#[derive(Debug)]
pub(crate) struct Input<R> {
    source: R,
    offset: u64,
    /// For words and for what is skipped.
    scratch: Vec<u8>,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, offset: 0, scratch: vec![0; WORDS * WORD] }
    }

    /// Returns how many bytes were taken from the source.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) const fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// Fills `buffer`, behind which `rest` more bytes of the same piece are to come.
    fn fill(&mut self, buffer: &mut [u8], rest: u64, expected: Expected) -> Result<(), StreamError> {
        fill(&mut self.source, &mut self.offset, buffer, rest, expected)
    }

    /// Reads a piece of fixed size.
    pub(crate) fn array<const N: usize>(&mut self, expected: Expected) -> Result<[u8; N], StreamError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, 0, expected)?;
        Ok(bytes)
    }

    /// Makes the error of memory that there is not.
    const fn refused(&self, expected: Expected, source: io::Error) -> StreamError {
        StreamError::Io { offset: self.offset, expected, source }
    }

    /// Reads the image header. If what is there is shorter and does not begin as a stream does, the rest is zeroes, so
    /// that the error says what it is instead.
    pub(crate) fn image_header(&mut self) -> Result<[u8; IMAGE_HEADER_BYTES], StreamError> {
        let mut bytes = [0; IMAGE_HEADER_BYTES];
        match self.exact(&mut bytes, Expected::ImageHeader) {
            Err(StreamError::Truncated { .. }) if self.offset > 0 && bytes.first() != Some(&u8::MAX) => {
                Ok(bytes)
            }
            result => result.map(|()| bytes),
        }
    }

    /// Fills `buffer`.
    pub(crate) fn exact(&mut self, buffer: &mut [u8], expected: Expected) -> Result<(), StreamError> {
        self.fill(buffer, 0, expected)
    }

    /// Appends `length` bytes to `body`, whose capacity stays below twice what arrived, plus a chunk.
    pub(crate) fn append(
        &mut self,
        body: &mut Vec<u8>,
        length: usize,
        expected: Expected,
    ) -> Result<(), StreamError> {
        let end = body.len() + length;
        while body.len() < end {
            let start = body.len();
            let step = (end - start).min(CHUNK);
            grow(body, start + step, end).map_err(|source| self.refused(expected, source))?;
            body.resize(start + step, 0);
            let room = body.get_mut(start..).unwrap_or_default();
            self.fill(room, (end - start - step) as u64, expected)?;
        }
        Ok(())
    }

    /// Reads `count` words of a PAGE_DATA record; memory grows as for [`Input::append`]. `check` sees each of them
    /// with its offset.
    pub(crate) fn words(
        &mut self,
        count: usize,
        expected: Expected,
        mut check: impl FnMut(PageWord, u64) -> Result<(), StreamError>,
    ) -> Result<Vec<PageWord>, StreamError> {
        let mut words = Vec::new();
        while words.len() < count {
            let step = (count - words.len()).min(WORDS);
            let needed = words.len() + step;
            grow(&mut words, needed, count).map_err(|source| self.refused(expected, source))?;
            let rest = ((count - words.len() - step) * WORD) as u64;
            let start = self.offset;
            let bytes = self.scratch.get_mut(..step * WORD).unwrap_or_default();
            fill(&mut self.source, &mut self.offset, bytes, rest, expected)?;
            for (index, word) in (0..).zip(bytes.as_chunks().0) {
                let word = PageWord::from_raw(u64::from_le_bytes(*word));
                check(word, start + 8 * index)?;
                words.push(word);
            }
        }
        Ok(words)
    }

    /// Reads `length` bytes and forgets them.
    pub(crate) fn skip(&mut self, length: u64, expected: Expected) -> Result<(), StreamError> {
        let mut left = length;
        while left > 0 {
            let room = self.scratch.len() as u64;
            let step = usize::try_from(left.min(room)).unwrap_or(self.scratch.len());
            left -= step as u64;
            let bytes = self.scratch.get_mut(..step).unwrap_or_default();
            fill(&mut self.source, &mut self.offset, bytes, left, expected)?;
        }
        Ok(())
    }

    /// Lets `read` take exactly `length` bytes from the source itself; if it fails, it says how many it took.
    pub(crate) fn direct(
        &mut self,
        length: u64,
        expected: Expected,
        read: impl FnOnce(&mut R) -> Result<(), (u64, io::Error)>,
    ) -> Result<(), StreamError> {
        match read(&mut self.source) {
            Ok(()) => {
                self.offset += length;
                Ok(())
            }
            Err((taken, error)) => {
                self.offset += taken.min(length);
                Err(failure(error, self.offset, length.saturating_sub(taken), expected))
            }
        }
    }
}

fn failure(error: io::Error, offset: u64, missing: u64, expected: Expected) -> StreamError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        StreamError::Truncated { offset, expected, missing }
    } else {
        StreamError::Io { offset, expected, source: error }
    }
}

/// Fills `buffer` from `source`, counting in `offset`.
fn fill<R: Read>(
    source: &mut R,
    offset: &mut u64,
    mut buffer: &mut [u8],
    rest: u64,
    expected: Expected,
) -> Result<(), StreamError> {
    while !buffer.is_empty() {
        match source.read(buffer) {
            Ok(0) => {
                let missing = buffer.len() as u64 + rest;
                return Err(StreamError::Truncated { offset: *offset, expected, missing });
            }
            Ok(bytes) => {
                *offset += bytes as u64;
                buffer = buffer.get_mut(bytes..).unwrap_or_default();
            }
            // What `Read` asks of its users. A source that wants to be left says so with another kind.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failure(error, *offset, buffer.len() as u64 + rest, expected)),
        }
    }
    Ok(())
}

/// Makes room for `needed` items: twice what there is, but never more than `end`.
fn grow<T>(items: &mut Vec<T>, needed: usize, end: usize) -> io::Result<()> {
    if items.capacity() < needed {
        let capacity = needed.max(items.capacity() * 2).min(end);
        items.try_reserve_exact(capacity - items.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordKind;

    const BODY: Expected = Expected::Body(RecordKind::HvmContext);
    const CLAIMED: usize = 127 << 20;

    #[test]
    fn a_claimed_length_costs_only_what_arrives() {
        for arrived in [0, 1, CHUNK, 3 * CHUNK + 5, 9 * CHUNK] {
            let mut input = Input::new(io::repeat(7).take(arrived as u64));
            let mut body = Vec::new();
            let error = input.append(&mut body, CLAIMED, BODY).unwrap_err();
            assert!(body.capacity() <= 2 * arrived + CHUNK, "{} for {arrived}", body.capacity());
            let StreamError::Truncated { offset, missing, .. } = error else { panic!("{error}") };
            assert_eq!((offset, missing), (arrived as u64, (CLAIMED - arrived) as u64));
        }
    }

    #[test]
    fn a_whole_body_has_no_room_to_spare() {
        let length = 5 * CHUNK + 3;
        let mut input = Input::new(io::repeat(7).take(length as u64 + 1));
        let mut body = Vec::new();
        input.append(&mut body, length, BODY).unwrap();
        assert_eq!((body.len(), body.capacity(), input.offset()), (length, length, length as u64));
        let words = input.words(0, BODY, |_, _| Ok(())).unwrap();
        assert_eq!(words.capacity(), 0);
    }

    #[test]
    fn words_know_where_they_stand() {
        let bytes: Vec<u8> = (0..WORDS as u64 + 2).flat_map(u64::to_le_bytes).collect();
        let mut input = Input::new(bytes.as_slice());
        input.skip(16, BODY).unwrap();
        let check = |word: PageWord, offset| {
            assert_eq!(word.raw() * 8, offset);
            Ok(())
        };
        assert_eq!(input.words(WORDS, BODY, check).unwrap().len(), WORDS);
    }

    /// Gives one byte at a time, and a signal in front of each.
    struct Slow(u8, bool);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.0 += 1;
            buffer[0] = self.0;
            Ok(1)
        }
    }

    #[test]
    fn short_reads_and_signals_are_taken_in_stride() {
        let mut input = Input::new(Slow(0, false));
        assert_eq!(input.array::<4>(Expected::Padding).unwrap(), [1, 2, 3, 4]);
        input.skip(2, Expected::Padding).unwrap();
        assert_eq!(input.array::<1>(Expected::Padding).unwrap(), [7]);
    }
}
