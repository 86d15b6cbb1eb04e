// SPDX-License-Identifier: GPL-3.0-or-later
//! Why something could not be done with a simulated domain, and what to do instead.

use std::io;

use xenmig_hypervisor::{Errno, HypervisorError, Transient};
use xenmig_types::{DomainState, Domid, Pfn};

/// An error of the simulated host, outside the verbs of [`Hypervisor`](xenmig_hypervisor::Hypervisor).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// There is no such domain.
    #[error("there is no domain {domid} on this simulated host: create it first, or look it up in domids()")]
    NoSuchDomain {
        /// The domain that was asked for.
        domid: Domid,
    },
    /// The number is taken.
    #[error("domain {domid} exists already: destroy it, or let the host choose a free number")]
    DomidInUse {
        /// The number.
        domid: Domid,
    },
    /// No number is free.
    #[error("every domid is in use: destroy domains that are no longer needed")]
    NoFreeDomid,
    /// The configuration makes no sense.
    #[error("invalid configuration: {reason}")]
    InvalidConfig {
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// The machine has not enough memory.
    #[error(
        "the domain needs {} MiB of memory and this machine has {} MiB available: give the domain less memory",
        needed_bytes.div_ceil(1 << 20), available_bytes >> 20
    )]
    MemoryTooLarge {
        /// What the domain needs, in bytes.
        needed_bytes: u64,
        /// What the machine has available, in bytes.
        available_bytes: u64,
    },
    /// The simulated machine has no frames left for a PV guest.
    #[error(
        "the simulated machine has no frames left for domain {domid}: open the host with more than its {frames}"
    )]
    NoFrames {
        /// The domain.
        domid: Domid,
        /// How many frames the machine has.
        frames: u64,
    },
    /// A PV guest does not find its way in its own memory.
    #[error("domain {domid} is not sound: {reason}")]
    Unsound {
        /// The domain.
        domid: Domid,
        /// What is wrong.
        reason: String,
    },
    /// The image does not fit.
    #[error(
        "the image is larger than the domain's RAM of {} MiB: give the domain at least {} MiB (holes not counted)",
        ram_bytes >> 20, image_bytes.div_ceil(1 << 20)
    )]
    ImageTooLarge {
        /// How long the image is, in bytes; a lower bound if it is longer than the largest domain's memory.
        image_bytes: u64,
        /// What the domain's RAM holds, in bytes.
        ram_bytes: u64,
    },
    /// The domain is in a state that does not allow this.
    #[error("cannot {op} domain {domid}: it is {}", describe(*state))]
    WrongState {
        /// What was asked for.
        op: &'static str,
        /// The domain.
        domid: Domid,
        /// Its state.
        state: DomainState,
    },
    /// There is no page at this pfn.
    #[error(
        "domain {domid} has no page at pfn {pfn}: it is a hole, was ballooned out, or lies beyond the p2m"
    )]
    NoPage {
        /// The domain.
        domid: Domid,
        /// The pfn.
        pfn: Pfn,
    },
    /// A page exists already, or none can be had.
    #[error("domain {domid} cannot get a page at pfn {pfn}: it has one, or may not have more")]
    NoRoom {
        /// The domain.
        domid: Domid,
        /// The pfn.
        pfn: Pfn,
    },
    /// The operating system refused something.
    #[error("{what} failed: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error number.
        errno: Errno,
    },
    /// A fault that was injected, or a domain of another process.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}

impl SimError {
    /// Returns the error number that says the same, if there is one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        Some(Errno(match self {
            Self::NoSuchDomain { .. } => libc::ESRCH,
            Self::DomidInUse { .. } => libc::EEXIST,
            Self::NoFreeDomid | Self::NoRoom { .. } | Self::NoFrames { .. } | Self::MemoryTooLarge { .. } => {
                libc::ENOMEM
            }
            Self::InvalidConfig { .. } | Self::WrongState { .. } => libc::EINVAL,
            Self::ImageTooLarge { .. } => libc::EFBIG,
            Self::NoPage { .. } | Self::Unsound { .. } => libc::EFAULT,
            Self::System { errno, .. } => return Some(*errno),
            Self::Hypervisor(error) => return error.errno(),
        }))
    }

    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidConfig { reason: reason.into() }
    }

    /// Makes the error of a failed system call, for `map_err`.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what, errno: Errno(error.raw_os_error().unwrap_or(libc::EIO)) }
    }
}

impl Transient for SimError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Hypervisor(error) if error.is_transient())
    }
}

const fn describe(state: DomainState) -> &'static str {
    match state {
        DomainState::Running => "running",
        DomainState::Paused => "paused, until it is unpaused",
        DomainState::Shutdown { .. } => "suspended, until it is resumed",
        DomainState::Dying => "destroyed",
    }
}
