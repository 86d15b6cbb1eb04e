// SPDX-License-Identifier: GPL-3.0-or-later
//! File descriptors that streams go through: sockets, pipes, files and devices.
//!
//! [`endpoint`] checks a descriptor and waits on it, [`socket`] holds the options of sockets, [`sink`] writes to it and
//! [`source`] reads from it; [`sigpipe`] keeps a broken pipe from killing the process.

pub(crate) mod endpoint;
mod sigpipe;
pub(crate) mod sink;
mod socket;
pub(crate) mod source;
