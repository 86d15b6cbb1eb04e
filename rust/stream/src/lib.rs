// SPDX-License-Identifier: GPL-3.0-or-later
//! The bytes: headers and records of the migration stream, an encoder, and a bounded reader. No hypervisor.
//!
//! ```text
//! engine's save    ──> encode ──> bytes before the pages ──> Sink
//! engine's restore <── Reader <── Record, then the pages      <── Source
//! ```
//!
//! * [`format`](mod@format): the layout of everything, and its limits. [`RecordKind`]: the kinds of record.
//! * [`page_word`](mod@page_word): a pfn and its type in eight bytes.
//! * [`encode`]: pure functions that append to a `Vec<u8>`.
//! * [`Reader`]: reads the headers and one record at a time from untrusted bytes.
//! * [`Record`]: what the reader hands out. It has no page contents: a restore takes them from
//!   the reader, straight to where they belong.
//!
//! The format is Xen's *libxc-migration-stream, revision 3*; comments cite it as "spec" with the section.
//!
//! ```
//! use xenmig_stream::{PageWord, Reader, Record, encode};
//! use xenmig_types::{GuestKind, PageType, Pfn, XenVersion};
//!
//! let mut bytes = Vec::new();
//! encode::headers(&mut bytes, GuestKind::Hvm, XenVersion { major: 4, minor: 17 });
//! encode::static_data_end(&mut bytes);
//! encode::page_data(&mut bytes, &[PageWord::new(Pfn(5), PageType::Notab)])?;
//! bytes.extend([0xaa; 4096]);
//! encode::end(&mut bytes);
//!
//! let mut reader = Reader::new(bytes.as_slice())?;
//! let mut page = [0; 4096];
//! while let Some(record) = reader.next_record()? {
//!     if let Record::PageData(batch) = record {
//!         assert_eq!(batch.words[0].pfn(), Pfn(5));
//!         reader.copy_page(&mut page)?;
//!     }
//! }
//! assert_eq!(page, [0xaa; 4096]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod encode;
mod error;
mod foreign;
pub mod format;
mod input;
mod kind;
pub mod page_word;
mod parse;
mod reader;
mod record;

pub use encode::EncodeError;
pub use error::{Expected, StreamError};
pub use kind::{BodyRule, RecordKind};
pub use page_word::PageWord;
pub use reader::Reader;
pub use record::{Headers, HvmParam, PageData, Record};
