// SPDX-License-Identifier: GPL-3.0-or-later
//! Reads an untrusted stream: from a source of bytes to [`Record`]s, one at a time.
//!
//! ```text
//! new ──> next_record ──> PageData ──> read_pages, copy_page, skip_pages ──┐
//!           ^   │  │                                                       │
//!           │   │  └────> any other record ──────────────────────────> next_record
//!           │   └───────> END: None, for good; what follows stays unread
//! ```
//!
//! Nothing is read ahead, so the source can be used for something else after the END record, and page contents can be
//! read from it by other means. Memory stays within a small multiple of what has arrived, and so of the
//! 128 MiB that one body may have.
//!
//! STATIC_DATA_END is handled here, so that a restore does not depend on the version: a version 3 stream without
//! it is refused at the first record of guest state; in a version 2 stream it appears before the first
//! PAGE_DATA or X86_PV_P2M_FRAMES record (spec, "v3 compat with v2").

use std::io::{self, Read};

use xenmig_types::{PAGE_SIZE, PAGE_SIZE_U64, UnknownPageType};

use crate::{
    Expected, Headers, PageData, PageWord, Record, StreamError,
    format::{self, MAX_BODY_BYTES, RECORD_OPTIONAL},
    input::Input,
    kind::RecordKind,
    parse,
};

/// The header of a record that was read and whose body was not.
#[derive(Clone, Copy, Debug)]
struct Header {
    offset: u64,
    kind: RecordKind,
    length: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A record's header comes next.
    Header,
    /// A header of a version 2 stream was read, before which STATIC_DATA_END belongs.
    Inferred(Header),
    /// This many pages of a PAGE_DATA record come next.
    Pages(u64),
    /// END was read.
    Ended,
    /// An error was returned.
    Failed,
}

/// A bounded reader of versions 2 and 3 of the stream.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    headers: Headers,
    state: State,
    static_data_ended: bool,
    records: u64,
    record_offset: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// [`StreamError`] if they are not those of a little-endian image of version 2 or 3, of an x86 guest.
    pub fn new(source: R) -> Result<Self, StreamError> {
        let mut input = Input::new(source);
        let version = parse::image_header(&input.image_header()?)?;
        let headers = parse::domain_header(version, &input.array(Expected::DomainHeader)?)?;
        let record_offset = input.offset();
        Ok(Self { input, headers, state: State::Header, static_data_ended: false, records: 0, record_offset })
    }

    /// Returns what the headers say.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns how far the stream was read, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Returns where the last record begins, in bytes.
    #[must_use]
    pub const fn record_offset(&self) -> u64 {
        self.record_offset
    }

    /// Returns how many records' headers were read, that of END included.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Returns the source. Reading from it directly loses the reader's place in the stream.
    #[must_use]
    pub const fn source_mut(&mut self) -> &mut R {
        self.input.source_mut()
    }

    /// Returns the source; it stands where the reader stopped.
    #[must_use]
    pub fn into_source(self) -> R {
        self.input.into_source()
    }

    /// Returns how many pages of the current PAGE_DATA record are still to be taken.
    #[must_use]
    pub const fn pages_left(&self) -> u64 {
        if let State::Pages(left) = self.state { left } else { 0 }
    }

    /// Reads the next record. `None` means that the END record was read.
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream breaks the format, ends, or cannot be read, and if pages of the last record
    /// are left. Only in the last case can the reader be used on.
    pub fn next_record(&mut self) -> Result<Option<Record>, StreamError> {
        match self.state {
            State::Ended => return Ok(None),
            State::Pages(left) => {
                return Err(StreamError::PagesLeft { offset: self.offset(), left, asked: 0 });
            }
            State::Failed => return Err(StreamError::Failed { offset: self.offset() }),
            State::Header | State::Inferred(_) => {}
        }
        let result = self.advance();
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Record>, StreamError> {
        let header = if let State::Inferred(header) = self.state {
            self.state = State::Header;
            header
        } else {
            let offset = self.offset();
            let [a, b, c, d, length @ ..] = self.input.array::<8>(Expected::RecordHeader)?;
            self.records += 1;
            self.record_offset = offset;
            let (number, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(length));
            if length > MAX_BODY_BYTES {
                return Err(StreamError::BodyTooLong { offset, found: number, length });
            }
            match RecordKind::try_from(number) {
                Ok(kind) => Header { offset, kind, length },
                Err(number) if number & RECORD_OPTIONAL != 0 => {
                    self.input.skip(length.into(), Expected::OptionalBody)?;
                    self.skip_padding(length)?;
                    return Ok(Some(Record::Optional { number, length }));
                }
                Err(found) => return Err(StreamError::UnknownRecord { offset, found }),
            }
        };
        if self.ends_static_data(&header)? {
            return Ok(Some(Record::StaticDataEnd));
        }
        self.body(&header)
    }

    /// Notes STATIC_DATA_END, and says whether one is to be inferred before this record.
    fn ends_static_data(&mut self, header: &Header) -> Result<bool, StreamError> {
        let Header { offset, kind, .. } = *header;
        match kind {
            RecordKind::StaticDataEnd if self.static_data_ended => {
                return Err(StreamError::StaticDataTwice { offset });
            }
            RecordKind::StaticDataEnd => self.static_data_ended = true,
            _ if self.static_data_ended || !kind.is_guest_state() => {}
            _ if self.headers.version >= 3 => return Err(StreamError::StaticDataOpen { offset, kind }),
            RecordKind::PageData | RecordKind::PvP2mFrames => {
                self.static_data_ended = true;
                self.state = State::Inferred(*header);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn body(&mut self, header: &Header) -> Result<Option<Record>, StreamError> {
        let Header { offset, kind, length } = *header;
        let expected = kind.body_rule();
        if kind == RecordKind::PageData {
            return self.page_data(header).map(Some);
        }
        let void = expected.is_void(length) && kind != RecordKind::PvP2mFrames;
        if !void && !expected.allows(length) {
            return Err(StreamError::BodyLength { offset, kind, length, expected });
        }
        let mut body = Vec::new();
        self.input.append(&mut body, bytes(length), Expected::Body(kind))?;
        self.skip_padding(length)?;
        if void && body.is_empty() {
            return Ok(Some(Record::Void(kind)));
        }
        let record = parse::record(kind, body, offset)?;
        if record.is_none() {
            self.state = State::Ended;
        }
        Ok(record)
    }

    /// Reads a PAGE_DATA record up to its pages. All lengths are multiples of eight, so it has no padding.
    fn page_data(&mut self, header: &Header) -> Result<Record, StreamError> {
        let Header { offset, kind, length } = *header;
        let expected = kind.body_rule();
        if !expected.allows(length) {
            return Err(StreamError::BodyLength { offset, kind, length, expected });
        }
        let [a, b, c, d, _reserved @ ..] = self.input.array::<8>(Expected::Body(kind))?;
        let count = u32::from_le_bytes([a, b, c, d]);
        if count == 0 {
            return Err(StreamError::NoPages { offset });
        }
        let wrong = |expected| StreamError::Count { offset, kind, length, count, expected };
        let words_end = format::PAGE_DATA_HEADER_BYTES as u64 + 8 * u64::from(count);
        if words_end > u64::from(length) {
            return Err(wrong(words_end));
        }
        let mut pages = 0;
        let words = self.input.words(bytes(count), Expected::Body(kind), |word: PageWord, offset| {
            let kind = word.page_type().map_err(|UnknownPageType(found)| StreamError::PageType {
                offset,
                pfn: word.pfn(),
                found,
            })?;
            pages += u64::from(kind.has_data());
            Ok(())
        })?;
        let end = words_end + pages * PAGE_SIZE_U64;
        if end != u64::from(length) {
            return Err(wrong(end));
        }
        if pages > 0 {
            self.state = State::Pages(pages);
        }
        Ok(Record::PageData(PageData { words, pages }))
    }

    fn skip_padding(&mut self, length: u32) -> Result<(), StreamError> {
        self.input.skip(format::padding(length).into(), Expected::Padding)
    }

    /// Lets `read` take the next `pages` pages from the source by its own means, such as `readv` into mapped pages.
    /// If it returns `Ok`, it has taken exactly `pages * 4096` bytes; if it fails, it says how many it has taken.
    ///
    /// # Errors
    ///
    /// [`StreamError::PagesLeft`] if fewer pages of the record are left, [`StreamError::Truncated`] if
    /// `read` failed with [`io::ErrorKind::UnexpectedEof`], [`StreamError::Io`] if it failed in another way.
    pub fn read_pages(
        &mut self,
        pages: u64,
        read: impl FnOnce(&mut R) -> Result<(), (u64, io::Error)>,
    ) -> Result<(), StreamError> {
        self.pages(pages, |input, length| input.direct(length, Expected::Pages, read))
    }

    /// Reads the next page into `page`.
    ///
    /// # Errors
    ///
    /// [`StreamError`] if no page of the record is left, or the stream ends or cannot be read.
    pub fn copy_page(&mut self, page: &mut [u8; PAGE_SIZE]) -> Result<(), StreamError> {
        self.pages(1, |input, _| input.exact(page, Expected::Pages))
    }

    /// Reads the next `pages` pages and forgets them.
    ///
    /// # Errors
    ///
    /// As for [`Reader::copy_page`].
    pub fn skip_pages(&mut self, pages: u64) -> Result<(), StreamError> {
        self.pages(pages, |input, length| input.skip(length, Expected::Pages))
    }

    fn pages(
        &mut self,
        asked: u64,
        read: impl FnOnce(&mut Input<R>, u64) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        if let State::Failed = self.state {
            return Err(StreamError::Failed { offset: self.offset() });
        }
        let left = self.pages_left();
        let Some(rest) = left.checked_sub(asked) else {
            return Err(StreamError::PagesLeft { offset: self.offset(), left, asked });
        };
        let result = read(&mut self.input, asked * PAGE_SIZE_U64);
        match result {
            Ok(()) if rest == 0 && left > 0 => self.state = State::Header,
            Ok(()) if left > 0 => self.state = State::Pages(rest),
            Ok(()) => {}
            Err(_) => self.state = State::Failed,
        }
        result
    }
}

/// A length or count of the stream as this machine counts. It has 32 bits, like the smallest machine that runs Xen.
fn bytes(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
