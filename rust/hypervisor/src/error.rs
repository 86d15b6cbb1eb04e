// SPDX-License-Identifier: GPL-3.0-or-later
//! Errors of the hypervisor boundary.

use std::{fmt, io};

use xenmig_types::Domid;

/// The result of a hypervisor's verb.
pub type Result<T> = std::result::Result<T, HypervisorError>;

/// An error number of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "No such process (os error 3)"
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

/// Why a verb failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// {op} of domain {domid} failed: {errno}
    #[error("{op} of domain {domid} failed: {errno}")]
    Call {
        /// The verb, in Xen's words.
        op: &'static str,
        /// The domain it was about.
        domid: Domid,
        /// What the hypervisor answered.
        errno: Errno,
    },
    /// {op}: this host was opened in another process; open a new one after fork
    #[error("{op}: this host was opened in another process; open a new one after fork")]
    Forked {
        /// The verb that was asked for.
        op: &'static str,
    },
    /// there is no memory for {what}, {bytes} bytes
    #[error("there is no memory for {what}, {bytes} bytes")]
    OutOfMemory {
        /// What was to be allocated in this process.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
    },
}

impl HypervisorError {
    /// Makes the error of a failed call.
    #[must_use]
    pub const fn call(op: &'static str, domid: Domid, errno: i32) -> Self {
        Self::Call { op, domid, errno: Errno(errno) }
    }

    /// Returns the errno, if the hypervisor was asked at all.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::Forked { .. } | Self::OutOfMemory { .. } => None,
        }
    }

    /// Says whether there is no such domain (`ESRCH`).
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Call { errno: Errno(libc::ESRCH), .. })
    }

    /// Says whether the call may succeed when it is made again (`EBUSY`, `EAGAIN`, `EINTR`, `ERESTART`).
    ///
    /// This is the one rule for save and restore, and it holds for every verb: they make such a call again for about a second.
    /// A verb that can do part of its work (`populate`, `pin_tables`) returns how much instead of failing. A page of a mapping
    /// that has an errno of its own is not mapped again: Xen's library itself waits for pages that are paged out.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Call { errno: Errno(libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ERESTART), .. }
        )
    }
}
