// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a restore failed. The variant is the step.

use std::{fmt, io};

use xenmig_hypervisor::{Errno, HypervisorError};
use xenmig_stream::{RecordKind, StreamError};
use xenmig_types::{Domid, Gfn, Pfn};

use crate::CallerError;

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
    /// The caller interrupted the restore.
    #[error("interrupted: {0}")]
    Interrupted(CallerError),
    /// The caller could not deal with what the static data lacks.
    #[error("the static_data_done callback failed: {0}")]
    StaticData(CallerError),
    /// The caller's progress callback failed.
    #[error("the progress callback failed: {0}")]
    Progress(CallerError),
    /// The domain or the stream is not of a kind that can be restored.
    #[error("domain {domid} cannot be restored: {why}")]
    Refused {
        /// The domain.
        domid: Domid,
        /// Why, and what to do about it.
        why: &'static str,
    },
    /// A record of the format that this receiver does not take.
    #[error("{kind} record at offset {offset}: {why}")]
    Unsupported {
        /// The record.
        kind: RecordKind,
        /// Where it begins.
        offset: u64,
        /// Why.
        why: &'static str,
    },
    /// A pfn that no guest can have, or that is beyond the p2m of this one.
    #[error("PAGE_DATA record at offset {offset}: pfn {pfn} is beyond what the guest can address")]
    PfnTooHigh {
        /// Where the record begins.
        offset: u64,
        /// The pfn.
        pfn: Pfn,
    },
    /// A pfn that stands twice in one record.
    #[error("PAGE_DATA record at offset {offset}: pfn {pfn} is in it twice")]
    PfnTwice {
        /// Where the record begins.
        offset: u64,
        /// The pfn.
        pfn: Pfn,
    },
    /// The hypervisor gave fewer pages than the guest has.
    #[error(
        "domain {domid} got {given} of {asked} pages, none at pfn {pfn}: the host or the domain's limit is exhausted, \
         or there is a page already"
    )]
    Populate {
        /// The domain.
        domid: Domid,
        /// The first page that it did not get.
        pfn: Pfn,
        /// Pages of this batch that it got.
        given: u64,
        /// Pages of this batch that it needs.
        asked: u64,
    },
    /// An entry of a page table that no guest can have.
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
    /// A page that a PV guest's state names is not there, or is not what it must be.
    #[error("{what} is said to be pfn {pfn}, {why}")]
    Named {
        /// What the page is to the guest.
        what: NamedPage,
        /// The page.
        pfn: Pfn,
        /// Why it cannot be that.
        why: &'static str,
    },
    /// The hypervisor has a frame for the guest whose number the guest's page tables or structures have no room for.
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
    /// A page of xenstore's or of the console's that no grant can name.
    #[error(
        "frame {gfn} of domain {domid}, a page of xenstore or of the console, says the stream, is beyond what a grant can name"
    )]
    NoGrant {
        /// The domain.
        domid: Domid,
        /// The frame of the page.
        gfn: Gfn,
    },
    /// Pages that were sent again are not as they were sent before.
    #[error("{pages} pages of domain {domid} are not as the sender has them, the first at pfn {first}")]
    Differs {
        /// The domain.
        domid: Domid,
        /// How many pages differ, or are missing.
        pages: u64,
        /// The first of them, in the order of the stream.
        first: Pfn,
    },
    /// The stream ended properly, but without a record that the guest cannot do without.
    #[error("the stream ended without a {0} record")]
    Missing(RecordKind),
}

/// What a page is to a PV guest's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedPage {
    /// The start info page.
    StartInfo,
    /// The page that the guest shares with xenstore.
    Store,
    /// The page that the guest shares with its console.
    Console,
    /// A page of a vCPU's GDT.
    Gdt {
        /// The vCPU's number.
        vcpu: u32,
        /// The page's number in the GDT.
        index: u64,
    },
    /// A vCPU's page table of the top level.
    Cr3 {
        /// The vCPU's number.
        vcpu: u32,
    },
    /// A vCPU's page table of the top level in user mode.
    Cr1 {
        /// The vCPU's number.
        vcpu: u32,
    },
    /// A page of the p2m.
    P2m {
        /// Its number in the p2m.
        index: usize,
    },
}

impl fmt::Display for NamedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartInfo => write!(f, "the start info page"),
            Self::Store => write!(f, "the page of xenstore"),
            Self::Console => write!(f, "the page of the console"),
            Self::Gdt { vcpu, index } => write!(f, "page {index} of vCPU {vcpu}'s GDT"),
            Self::Cr3 { vcpu } => write!(f, "vCPU {vcpu}'s page table of the top level"),
            Self::Cr1 { vcpu } => write!(f, "vCPU {vcpu}'s page table of the top level in user mode"),
            Self::P2m { index } => write!(f, "page {index} of the p2m"),
        }
    }
}

/// A restore that failed. The domain was not started and is of no use any more; nothing of it is mapped.
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
