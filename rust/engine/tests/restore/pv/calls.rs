// SPDX-License-Identifier: GPL-3.0-or-later
//! Calls of the host with one PV domain: what it notes down of them, and how it is told to refuse one.

use xenmig_types::VcpuPart;

/// A call that this host has answered, of those whose order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Width(u8),
    Vcpu(u32, VcpuPart),
    Pin(Vec<u64>),
    Depopulate(Vec<u64>),
    Grants,
}

/// A verb that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) verb: &'static str,
    /// How often it succeeds first.
    pub(crate) after: u32,
    pub(crate) times: u32,
    pub(crate) errno: i32,
}
