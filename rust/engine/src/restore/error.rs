// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a restore failed. The variant is the step.

use std::{fmt, io, time::Duration};

use xenmig_hypervisor::{Errno, HypervisorError};
use xenmig_stream::{Record, RecordKind, StreamError};
use xenmig_types::{Domid, Gfn, Pfn};

use super::named_page::NamedPage;
use crate::{interrupt::CallerError, watch::Halt};

/// The step of a restore that failed. Offsets count bytes from the start of the stream.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The hypervisor refused a call.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// The stream breaks the format, or ends too early.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Reading the stream failed.
    #[error("reading the stream failed: {0}")]
    Transport(io::Error),
    /// The sender has sent nothing for longer than [`RestoreOptions::stall_timeout`](super::RestoreOptions::stall_timeout).
    #[error("the stream stalled: nothing came for {:.1} s", .0.as_secs_f64())]
    Stalled(Duration),
    /// The domain did not stay the empty, paused domain that it was.
    #[error("domain {domid} {change} during the restore")]
    Changed {
        /// The domain.
        domid: Domid,
        /// What happened to it.
        change: DomainChange,
    },
    /// The caller interrupted the restore.
    #[error("interrupted: {0}")]
    Interrupted(CallerError),
    /// The caller's `static_data_done` failed.
    #[error("the static_data_done callback failed: {0}")]
    StaticData(CallerError),
    /// The caller's observer failed.
    #[error("the observer failed: {0}")]
    Observer(CallerError),
    /// The domain or the stream is not of a kind that can be restored.
    #[error("domain {domid} cannot be restored: {why}")]
    Refused {
        /// The domain.
        domid: Domid,
        /// Why, and what to do about it.
        why: &'static str,
    },
    /// A valid record that cannot be restored, or not at this place.
    #[error("{kind} record at offset {offset}: {why}")]
    Unsupported {
        /// The record.
        kind: RecordKind,
        /// Where it begins.
        offset: u64,
        /// Why.
        why: &'static str,
    },
    /// A pfn that no guest can have, or beyond the p2m of this one.
    #[error("PAGE_DATA record at offset {offset}: pfn {pfn} is beyond what the guest can address")]
    PfnTooHigh {
        /// Where the record begins.
        offset: u64,
        /// The pfn.
        pfn: Pfn,
    },
    /// A pfn that occurs twice in one record.
    #[error("PAGE_DATA record at offset {offset}: pfn {pfn} occurs twice")]
    PfnTwice {
        /// Where the record begins.
        offset: u64,
        /// The pfn.
        pfn: Pfn,
    },
    /// The hypervisor gave fewer pages than the guest has.
    #[error("domain {domid} got {given} of {asked} pages, none at pfn {pfn}: {why}")]
    Populate {
        /// The domain.
        domid: Domid,
        /// The first page that it did not get.
        pfn: Pfn,
        /// Pages of this batch that it got.
        given: u64,
        /// Pages of this batch that it needs.
        asked: u64,
        /// Why it got no more.
        why: &'static str,
    },
    /// A page table entry that no guest can have.
    #[error(
        "PAGE_DATA record at offset {offset}: entry {index} of the L{level} page table at pfn {pfn}, to pfn {to}, {why}"
    )]
    TableEntry {
        /// Where the record begins.
        offset: u64,
        /// The page table.
        pfn: Pfn,
        /// Its level, from 1.
        level: u8,
        /// The entry's number.
        index: usize,
        /// The page that it refers to.
        to: Pfn,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A page that a PV guest's state names is missing, or is not of the type that it must be.
    #[error("{what} is said to be pfn {pfn}, {why}")]
    Named {
        /// What the page is to the guest.
        what: NamedPage,
        /// The page.
        pfn: Pfn,
        /// Why it cannot be that.
        why: &'static str,
    },
    /// The hypervisor gave a frame whose number does not fit into the guest's page tables or structures.
    #[error("frame {frame} is beyond what the guest can address")]
    FrameTooHigh {
        /// The frame.
        frame: Gfn,
    },
    /// A page could not be mapped.
    #[error("mapping pfn {pfn} of domain {domid} failed: {errno}")]
    Map {
        /// The domain.
        domid: Domid,
        /// The page.
        pfn: Pfn,
        /// What the hypervisor answered.
        errno: Errno,
    },
    /// An HVM parameter could not be set.
    #[error("HVM parameter {index} cannot be set to {value:#x}: {error}")]
    Param {
        /// `HVM_PARAM_*` of `public/hvm/params.h`.
        index: u32,
        /// Its value.
        value: u64,
        /// What the hypervisor answered.
        error: HypervisorError,
    },
    /// The page of xenstore or of the console is at a frame that no grant can name.
    #[error(
        "the stream has the page of xenstore or of the console of domain {domid} at frame {gfn}, beyond what a grant can name"
    )]
    NoGrant {
        /// The domain.
        domid: Domid,
        /// The frame of the page.
        gfn: Gfn,
    },
    /// Pages that were sent again differ from those that were restored.
    #[error("{pages} pages of domain {domid} differ from the sender's, the first at pfn {first}")]
    Differs {
        /// The domain.
        domid: Domid,
        /// How many pages differ, or are missing.
        pages: u64,
        /// The first of them, in the order of the stream.
        first: Pfn,
    },
    /// The stream ended properly, but lacks a record that the guest needs.
    #[error("the stream ended without a {0} record")]
    Missing(RecordKind),
}

impl RestoreError {
    /// Refuses a record of another kind of guest, which begins at `offset`.
    pub(super) fn misplaced(record: &Record, offset: u64, why: &'static str) -> Result<(), Self> {
        record.kind().map_or(Ok(()), |kind| Err(Self::Unsupported { kind, offset, why }))
    }

    /// Says whether it is about the domain: then what has become of the domain may be the cause.
    pub(super) const fn is_of_the_domain(&self) -> bool {
        matches!(
            self,
            Self::Hypervisor(HypervisorError::Call { .. })
                | Self::Map { .. }
                | Self::Populate { .. }
                | Self::Param { .. }
        )
    }
}

impl From<Halt> for RestoreError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Hypervisor(error) => Self::Hypervisor(error),
            Halt::Interrupted(error) => Self::Interrupted(error),
            Halt::Stalled(time) => Self::Stalled(time),
        }
    }
}

/// What happened to a domain while it was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainChange {
    /// It was destroyed.
    Destroyed,
    /// It was started before it was complete.
    Started,
    /// It was started and has shut down.
    ShutDown,
}

impl fmt::Display for DomainChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Destroyed => "was destroyed",
            Self::Started => "was started by another program",
            Self::ShutDown => "was started by another program and shut down",
        })
    }
}

/// A restore that failed. The domain was not started and can only be destroyed; none of its pages is mapped.
#[derive(Debug, thiserror::Error)]
#[error("{error} (restoring domain {domid}, {bytes_read} bytes into the stream)")]
pub struct RestoreFailure {
    /// The domain.
    pub domid: Domid,
    /// How far the stream was read, in bytes.
    pub bytes_read: u64,
    /// The step that failed.
    #[source]
    pub error: RestoreError,
}
