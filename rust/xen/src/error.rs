// SPDX-License-Identifier: GPL-3.0-or-later
//! Why Xen cannot be opened, each time with what to do about it; and how the libraries' `errno` is fetched.

use std::{ffi::c_int, io};

use xenmig_hypervisor::Errno;
use xenmig_types::XenVersion;

use crate::interface::BUILT_FOR;

/// The result of a call into Xen's libraries, before it is known which verb it was for.
pub(super) type CallResult<T> = Result<T, Errno>;

/// Why [`XenHost::open`](super::XenHost::open) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XenOpenError {
    /// One of Xen's libraries is not there, or not the one that this build is for.
    #[error(
        "Xen's library {soname} cannot be loaded ({reason}). This build of xenmig is for Xen {BUILT_FOR}: install \
         that Xen's libraries (Debian: libxencall1, libxenforeignmemory1, libxenmisc4.N), or rebuild xenmig with \
         the headers of the Xen that is installed (Debian: libxen-dev)"
    )]
    Library {
        /// The name that was looked for.
        soname: String,
        /// What the dynamic loader says.
        reason: String,
    },
    /// A library is there and lacks a function of its interface.
    #[error("Xen's library {soname} has no function {function}: it is not the library that its name says")]
    Function {
        /// The library.
        soname: String,
        /// The function.
        function: &'static str,
    },
    /// The device through which hypercalls are made is not there: no Xen below, or its driver is not loaded.
    #[error(
        "/dev/xen/privcmd cannot be opened: {errno}. Either this machine does not run under Xen, or the kernel \
         module xen-privcmd is not loaded. Domains are saved and restored from Xen's control domain only"
    )]
    NoDevice {
        /// What opening it gave: `ENOENT`, `ENXIO` or `ENODEV`.
        errno: Errno,
    },
    /// The device is there and may not be used.
    #[error("/dev/xen/privcmd or /dev/xen/hypercall cannot be opened: {errno}. Run as root")]
    Device {
        /// What opening it gave.
        errno: Errno,
    },
    /// Xen of another version is running.
    #[error(
        "the running hypervisor is Xen {}.{}, and this build of xenmig is for Xen {BUILT_FOR}: rebuild it with the \
         headers of the running Xen (Debian: libxen-dev) installed",
        running.major, running.minor
    )]
    OtherVersion {
        /// The version of the running hypervisor.
        running: XenVersion,
    },
    /// Xen of the right version refuses the domctl interface of the headers.
    #[error(
        "the running hypervisor refuses domctls of this build of xenmig, which is for Xen {BUILT_FOR}: either its \
         domctl interface has another version, and xenmig must be rebuilt with its headers (Debian: libxen-dev), or \
         its security policy (FLASK) does not let this domain use them"
    )]
    OtherInterface,
    /// This domain is not privileged.
    #[error("the hypervisor lets this domain make no domctls: run in Xen's control domain")]
    NotPrivileged,
    /// Anything else.
    #[error("{step} failed: {errno}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What it gave.
        errno: Errno,
    },
}

impl XenOpenError {
    /// Returns the errno that caused it, if there was one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::NoDevice { errno } | Self::Device { errno } | Self::Step { errno, .. } => Some(*errno),
            Self::OtherInterface => Some(Errno(libc::EACCES)),
            Self::NotPrivileged => Some(Errno(libc::EPERM)),
            Self::Library { .. } | Self::Function { .. } | Self::OtherVersion { .. } => None,
        }
    }

    /// Sorts what opening the device gave.
    pub(super) const fn device(errno: Errno) -> Self {
        match errno.0 {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => Self::NoDevice { errno },
            _ => Self::Device { errno },
        }
    }
}

/// Returns `errno`. To be asked right after the call that failed.
pub(super) fn last_errno() -> Errno {
    match io::Error::last_os_error().raw_os_error() {
        // A library that fails without a reason must not look like one that succeeded.
        None | Some(0) => Errno(libc::EIO),
        Some(errno) => Errno(errno),
    }
}

/// The result of a call that says -1 for an error.
pub(super) fn check(result: c_int) -> CallResult<c_int> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}
