// SPDX-License-Identifier: GPL-3.0-or-later
//! What can be wrong with a stream. Offsets count bytes from the start of the image header.

use std::{fmt, io};

use xenmig_types::Pfn;

use crate::{
    foreign,
    format::MAX_BODY_BYTES,
    kind::{BodyRule, RecordKind},
};

/// The piece of the stream that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The image header.
    ImageHeader,
    /// The domain header.
    DomainHeader,
    /// A record's header; a stream that ends here lacks its END record.
    RecordHeader,
    /// The body of a record, up to the pages if it is PAGE_DATA.
    Body(RecordKind),
    /// The contents of pages.
    Pages,
    /// The body of an optional record that is being skipped.
    OptionalBody,
    /// The zeroes after a body.
    Padding,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageHeader => f.write_str("the image header"),
            Self::DomainHeader => f.write_str("the domain header"),
            Self::RecordHeader => f.write_str("a record's header"),
            Self::Body(kind) => write!(f, "the body of a {kind} record"),
            Self::Pages => f.write_str("the pages of a PAGE_DATA record"),
            Self::OptionalBody => f.write_str("the body of an optional record"),
            Self::Padding => f.write_str("a record's padding"),
        }
    }
}

/// Why a stream could not be read on. After any of these the reader is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// the stream ends at offset {offset}: {missing} more bytes were expected for {expected}
    #[error(
        "the stream ends at offset {offset}: {missing} more bytes were expected for {expected}{}",
        if *offset == 0 { "; it is empty: the sender has written nothing, or it was read before" } else { "" }
    )]
    Truncated {
        /// Where the stream ends.
        offset: u64,
        /// What should have stood there.
        expected: Expected,
        /// How much of it is missing, in bytes.
        missing: u64,
    },
    /// reading {expected} failed at offset {offset}: {source}
    #[error("reading {expected} failed at offset {offset}: {source}")]
    Io {
        /// How far the stream was read.
        offset: u64,
        /// What was being read.
        expected: Expected,
        /// What the operating system said.
        source: io::Error,
    },
    /// offset {offset}: no migration stream, whose marker is all ones, but {what it is instead} ({found:#018x})
    #[error(
        "offset {offset}: no migration stream, whose marker is all ones, but {} ({found:#018x})",
        foreign::describe(found.to_be_bytes())
    )]
    Marker {
        /// Where the marker should stand.
        offset: u64,
        /// What stands there.
        found: u64,
    },
    /// offset {offset}: {found:#010x} is not the identifier of a Xen domain image ("XENF")
    #[error("offset {offset}: {found:#010x} is not the identifier of a Xen domain image (\"XENF\")")]
    Identifier {
        /// Where the identifier should stand.
        offset: u64,
        /// What stands there.
        found: u32,
    },
    /// offset {offset}: version {found} of the image is neither 2 nor 3
    #[error("offset {offset}: version {found} of the image is neither 2 nor 3")]
    Version {
        /// Where the version stands.
        offset: u64,
        /// The version.
        found: u32,
    },
    /// offset {offset}: the image is big-endian, which no x86 host writes
    #[error("offset {offset}: the image is big-endian, which no x86 host writes")]
    BigEndian {
        /// Where the options stand.
        offset: u64,
    },
    /// offset {offset}: guest type {found} is neither 1 (PV) nor 2 (HVM)
    #[error("offset {offset}: guest type {found} is neither 1 (PV) nor 2 (HVM)")]
    GuestType {
        /// Where the type stands.
        offset: u64,
        /// The type.
        found: u32,
    },
    /// offset {offset}: page shift {found} is not 12
    #[error("offset {offset}: page shift {found} is not 12")]
    PageShift {
        /// Where the page shift stands.
        offset: u64,
        /// The page shift.
        found: u16,
    },
    /// record at offset {offset}: unknown mandatory type {found:#x}
    #[error("record at offset {offset}: unknown mandatory type {found:#x}")]
    UnknownRecord {
        /// Where the record begins.
        offset: u64,
        /// The type.
        found: u32,
    },
    /// record at offset {offset}: a body of {length} bytes is longer than 128 MiB
    #[error(
        "record at offset {offset}, type {found:#x}: a body of {length} bytes is longer than {MAX_BODY_BYTES}"
    )]
    BodyTooLong {
        /// Where the record begins.
        offset: u64,
        /// The type.
        found: u32,
        /// The length that its header says, in bytes.
        length: u32,
    },
    /// {kind} record at offset {offset}: a body of {length} bytes, expected {expected}
    #[error("{kind} record at offset {offset}: a body of {length} bytes, expected {expected}")]
    BodyLength {
        /// Where the record begins.
        offset: u64,
        /// The kind.
        kind: RecordKind,
        /// The length that its header says, in bytes.
        length: u32,
        /// What the kind allows.
        expected: BodyRule,
    },
    /// {kind} record at offset {offset}: a body of {length} bytes, but its count of {count} items takes {expected}
    #[error(
        "{kind} record at offset {offset}: a body of {length} bytes, but its count of {count} items takes {expected}"
    )]
    Count {
        /// Where the record begins.
        offset: u64,
        /// PAGE_DATA or HVM_PARAMS.
        kind: RecordKind,
        /// The length that its header says, in bytes.
        length: u32,
        /// The number of items that its body says.
        count: u32,
        /// The length that these items take, in bytes; a lower bound while the types of pages are not known.
        expected: u64,
    },
    /// PAGE_DATA record at offset {offset}: no pfns
    #[error("PAGE_DATA record at offset {offset}: no pfns")]
    NoPages {
        /// Where the record begins.
        offset: u64,
    },
    /// offset {offset}: pfn {pfn} is of unknown page type {found:#x}
    #[error("offset {offset}: pfn {pfn} is of unknown page type {found:#x}")]
    PageType {
        /// Where the word stands.
        offset: u64,
        /// The pfn.
        pfn: Pfn,
        /// The number of the type.
        found: u8,
    },
    /// HVM_PARAMS record at offset {offset}: index {index:#x} has more than 32 bits
    #[error("HVM_PARAMS record at offset {offset}: index {index:#x} has more than 32 bits")]
    ParamIndex {
        /// Where the record begins.
        offset: u64,
        /// The index.
        index: u64,
    },
    /// X86_PV_INFO record at offset {offset}: width {width} is neither 4 nor 8, or {levels} is neither 3 nor 4 levels
    #[error(
        "X86_PV_INFO record at offset {offset}: width {width} is neither 4 nor 8, or {levels} is neither 3 nor 4 levels"
    )]
    PvInfo {
        /// Where the record begins.
        offset: u64,
        /// The guest's width in bytes.
        width: u8,
        /// Its page table levels.
        levels: u8,
    },
    /// X86_PV_P2M_FRAMES record at offset {offset}: first pfn {first:#x} is after the last, {last:#x}
    #[error("X86_PV_P2M_FRAMES record at offset {offset}: first pfn {first:#x} is after the last, {last:#x}")]
    P2mRange {
        /// Where the record begins.
        offset: u64,
        /// The first pfn.
        first: u32,
        /// The last pfn.
        last: u32,
    },
    /// {kind} record at offset {offset}: expected STATIC_DATA_END before it
    #[error("{kind} record at offset {offset}: expected STATIC_DATA_END before it")]
    StaticDataOpen {
        /// Where the record begins.
        offset: u64,
        /// Its kind.
        kind: RecordKind,
    },
    /// STATIC_DATA_END record at offset {offset}: the second one, or one after page data
    #[error("STATIC_DATA_END record at offset {offset}: the second one, or one after page data")]
    StaticDataTwice {
        /// Where the record begins.
        offset: u64,
    },
    /// offset {offset}: {left} pages are still to be read, {asked} were asked for
    #[error("offset {offset}: {left} pages are still to be read, {asked} were asked for")]
    PagesLeft {
        /// How far the stream was read.
        offset: u64,
        /// Pages that the PAGE_DATA record still holds.
        left: u64,
        /// Pages that the caller asked for; 0 if it asked for the next record.
        asked: u64,
    },
    /// offset {offset}: the reader has failed before and cannot go on
    #[error("offset {offset}: the reader has failed before and cannot go on")]
    Failed {
        /// How far the stream was read.
        offset: u64,
    },
}

impl StreamError {
    /// Returns the offset in bytes that the error is about.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Truncated { offset, .. }
            | Self::Io { offset, .. }
            | Self::Marker { offset, .. }
            | Self::Identifier { offset, .. }
            | Self::Version { offset, .. }
            | Self::BigEndian { offset }
            | Self::GuestType { offset, .. }
            | Self::PageShift { offset, .. }
            | Self::UnknownRecord { offset, .. }
            | Self::BodyTooLong { offset, .. }
            | Self::BodyLength { offset, .. }
            | Self::Count { offset, .. }
            | Self::NoPages { offset }
            | Self::PageType { offset, .. }
            | Self::ParamIndex { offset, .. }
            | Self::PvInfo { offset, .. }
            | Self::P2mRange { offset, .. }
            | Self::StaticDataOpen { offset, .. }
            | Self::StaticDataTwice { offset }
            | Self::PagesLeft { offset, .. }
            | Self::Failed { offset } => *offset,
        }
    }
}
